"""A task link reads as it was written, and nothing else is one."""

from __future__ import annotations

import dataclasses
import json

import pytest

from flyte_pack.json_fields import InvalidData
from flyte_pack.task_link import (
    BUNDLE_URI_HOLE,
    VERSION_HOLE,
    LinkedBundle,
    LinkedTask,
    TaskLink,
    more_modules,
)

BUNDLE = LinkedBundle(
    archive="ml/train.tar.gz",
    manifest="ml/train.json",
    content_hash="0" * 64,
    archive_hash="1" * 64,
    archive_size=10,
    manifest_hash="2" * 64,
    manifest_size=20,
)
LINK = TaskLink(
    address="services/ml:train",
    entry_point="services/ml/workflows.py:train",
    kind="task",
    module="services.ml.workflows",
    root_dir=None,
    copy_style="auto",
    bundle=BUNDLE,
    image="trainer",
    tasks=(LinkedTask("train", ("a0", "--version", VERSION_HOLE, "--tgz", BUNDLE_URI_HOLE)),),
)
EMBEDDED = dataclasses.replace(
    LINK, copy_style="none", bundle=None, tasks=(LinkedTask("train", ("a0", VERSION_HOLE)),)
)
ENVIRONMENT = dataclasses.replace(
    LINK, kind="environment", tasks=(LINK.tasks[0], dataclasses.replace(LINK.tasks[0], name="b"))
)


@pytest.mark.parametrize(
    "link", [LINK, EMBEDDED, ENVIRONMENT, dataclasses.replace(LINK, image=None, root_dir="src")]
)
def test_a_link_reads_as_it_was_written(link):
    assert TaskLink.from_json(link.to_json()) == link


def test_the_fields_are_those_that_were_agreed():
    assert json.loads(LINK.to_json()) == {
        "schema": 1,
        "address": "services/ml:train",
        "entry_point": "services/ml/workflows.py:train",
        "kind": "task",
        "module": "services.ml.workflows",
        "root_dir": None,
        "copy_style": "auto",
        "bundle": {
            "archive": "ml/train.tar.gz",
            "manifest": "ml/train.json",
            "content_hash": "0" * 64,
            "archive_hash": "1" * 64,
            "archive_size": 10,
            "manifest_hash": "2" * 64,
            "manifest_size": 20,
        },
        "image": "trainer",
        "built_image": None,
        "published_by": None,
        "tasks": [
            {
                "name": "train",
                "command": ["a0", "--version", "${VERSION}", "--tgz", "${BUNDLE_URI}"],
            }
        ],
    }


@pytest.mark.parametrize(
    ("image", "is_reference"),
    [("trainer", False), ("a/b", True), ("python:3.12", True), ("a@sha256:0", True), (None, False)],
)
def test_a_reference_is_told_from_the_name_of_one(image, is_reference):
    assert dataclasses.replace(LINK, image=image).image_is_reference is is_reference


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"copy_style": "none"}, "bundle"),
        ({"bundle": None}, "bundle"),
        ({"address": ""}, "empty"),
        ({"tasks": ()}, "0 tasks"),
        ({"tasks": ENVIRONMENT.tasks}, "2 tasks"),
        ({"kind": "environment", "tasks": LINK.tasks * 2}, "same name"),
        ({"tasks": (LinkedTask("train", ()),)}, "command"),
        ({"published_by": "services/ml:image"}, "published"),
        ({"tasks": (LinkedTask("train", ("a0",)),)}, BUNDLE_URI_HOLE),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, said):
    with pytest.raises(InvalidData) as error:
        dataclasses.replace(LINK, **changes)
    assert said in str(error.value)
    assert "services/ml:train" in str(error.value) or "address" in changes


@pytest.mark.parametrize(
    "changes",
    [
        {"archive": "../a.tar.gz"},
        {"archive": "/a.tar.gz"},
        {"manifest": "a/../../b"},
        {"content_hash": "0"},
        {"archive_hash": "A" * 64},
        {"manifest_hash": "../" + "0" * 61},
    ],
)
def test_a_bundle_that_leads_elsewhere_is_refused(changes):
    document = json.loads(LINK.to_json())
    document["bundle"].update(changes)
    with pytest.raises(InvalidData, match=f"^task link: bundle.{next(iter(changes))}: "):
        TaskLink.from_json(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "schema 2"),
        ({"schema": True}, "schema"),
        ({"more": 1}, "unknown keys: 'more'"),
        ({"kind": "workflow"}, "kind: not one of task, environment"),
        ({"copy_style": "some"}, "copy_style: not one of auto, all, none"),
        ({"module": 3}, "module: not a string"),
        ({"address": "a\x1b[2J"}, "control character"),
        ({"address": "\ud800"}, "control character"),
        ({"tasks": {}}, "not a list"),
        ({"tasks": [3]}, "not a JSON object"),
        ({"bundle": []}, "bundle"),
        ({"bundle": {"archive": "a"}}, "missing"),
    ],
)
def test_strange_documents_are_refused_by_name(changes, said):
    data = json.dumps({**json.loads(LINK.to_json()), **changes}).encode()
    with pytest.raises(InvalidData) as error:
        TaskLink.from_json(data, "train.json")
    assert str(error.value).startswith("train.json: ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"{", b'{"schema": 1}', b'{"schema": NaN}', b'{"schema": 1, "schema": 1}',
     b"[" * 100_000, b"9" * 5000, b'{"\x1b": 1}'],
)  # fmt: skip
def test_what_is_no_document_is_refused(data):
    with pytest.raises(InvalidData) as error:
        TaskLink.from_json(data)
    assert "\x1b" not in str(error.value)


A = ("a0", "--resolver", "r", "mod", "p.a", "instance", "x")
B = (*A[:-3], "p.b", "instance", "y")


@pytest.mark.parametrize(
    ("kind", "module", "commands", "more"),
    [
        ("environment", "p.envs", [A, B, A], ("p.a", "p.b")),
        ("environment", "p.a", [A, B], ()),  # with tasks in its own file, these are all
        ("environment", "p.envs", [("python", "-m", "x")], ()),
        ("task", "p.envs", [A], ()),
    ],
)
def test_the_modules_of_an_environments_tasks_are_in_their_commands(kind, module, commands, more):
    assert more_modules(kind, module, commands) == more
