"""What would do harm is refused, with what to change, before anything is written."""

from __future__ import annotations

import dataclasses
import json

import pytest

from flyte_pack.task_link import LinkedTask
from tests.support.deploying import ADDRESS, BuildRoot, command, snapshot


@pytest.fixture
def root(tmp_path):
    """One version, v1, is deployed."""
    root = BuildRoot(tmp_path / "build")
    root.package("train")
    root.deploy("--version", "v1").ok()
    return root


def refused(root, *typed, plan=None, said=(), code=1):
    before = snapshot(root.store)
    for more in ((), ("--dry-run",)):
        root.deploy(*typed, *more, plan=plan).failed(code, *said)
    assert snapshot(root.store) == before


@pytest.mark.parametrize(
    ("typed", "plan", "said"),
    [
        ((), {"project": None}, ["which project?", "--project"]),
        ((), {"domain": None}, ["which domain?", "--domain"]),
        ((), {"project": "../x"}, ["cannot be a project"]),
        ((), {"domain": "a/b"}, ["cannot be a domain"]),
        ((), {"version": ".."}, ["cannot be a version"]),
        (("--domain", "staging"), {}, ["domain='development'", "--domain says 'staging'"]),
        (("--project", "other"), {}, ["project='flytesnacks'", "leave --project out"]),
        ((), {"store": "dist/flyte"}, ["file://dist/flyte"]),
        ((), {"store": "s3://bucket/x"}, ["s3://"]),
        ((), {"store": "s3://key:hunter2@bucket/x"}, ["user or password"]),
        ((), {"images": {"trainer": "no image"}}, ["images[trainer]: ", "registry/name:tag"]),
        ((), {"images": {"a b": "reg.example/a:1"}}, ["name of an image"]),
        ((), {"images": {"a": "user:hunter2@reg.example/a:1"}}, ["password"]),
        ((), {"copy_style": "some"}, ["copy_style"]),
        ((), {"copy_style": "all"}, ["packaged with copy_style='auto', not 'all'"]),
        (("--copy-style", "all"), {}, ["packaged with copy_style='auto', not 'all'"]),
        (("--root-dir", "src"), {}, ["packaged with root_dir=None, not 'src'"]),
        (("--image", "tariner=reg.example/t:1"), {}, ["tariner", "no task uses an image of that"]),
        ((), {"tasks": []}, ["no tasks"]),
        ((), {"tasks": ["train.json", "train.json"]}, ["services/ml:train", "twice"]),
        ((), {"tasks": ["nowhere.json"]}, ["nowhere.json", "No such file"]),
        ((), {"tasks": ["../build/packaged/train.json"]}, ["'..' in the path"]),
        ((), {"schema": 2}, ["schema 2"]),
        ((), {"unheard": 1}, ["unknown keys: 'unheard'"]),
        ((), {"address": ""}, ["empty"]),
    ],
)
def test_a_plan_that_makes_no_sense(root, typed, plan, said):
    refused(root, *typed, plan=plan, said=said)


def unmapped(root):
    root.package("train", image="trainer")
    return ["services/ml:train", "'trainer'", "--image trainer=", "none is known"]


def bad_reference(root):
    root.package("train", image="registry.example/Trainer:1")
    return ["services/ml:train", "registry.example/Trainer:1"]


def secret_reference(root):
    root.package("train", image="user:hunter2@registry.example/trainer:1")
    return ["services/ml:train", "password"]


def mixed(root):
    root.package("score", copy_style="all")
    return ["differ in copy_style", "services/ml:train has 'auto'", "services/ml:score has 'all'"]


def no_version(root):
    root.package("train", copy_style="none")
    return ["copy_style='none'", "--version"]


def no_archive(root):
    (root.dist / "train.tar.gz").unlink()
    return ["services/ml:train", "train.tar.gz", "No such file", "Package it again"]


def another_archive(root):
    path = root.dist / "train.tar.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return ["services/ml:train", "train.tar.gz", "Package it again"]


def another_manifest(root):
    (root.dist / "train.manifest.json").write_text("{}")
    return ["services/ml:train", "train.manifest.json", "Package it again"]


def manifest_of_another_archive(root):
    train = root.package("train", "v = 2\n")
    other = root.package("score").bundle
    del root.links["score"]
    bundle = dataclasses.replace(
        train.bundle,
        manifest=other.manifest,
        manifest_hash=other.manifest_hash,
        manifest_size=other.manifest_size,
    )
    root.link("train", dataclasses.replace(train, bundle=bundle))
    return ["score.manifest.json", "another archive"]


def no_manifest_at_all(root):
    link = root.package("train", "v = 2\n")
    path = root.dist / link.bundle.manifest
    path.write_text("{}")
    from flyte_shim.hashing import sha256_bytes

    bundle = dataclasses.replace(
        link.bundle, manifest_hash=sha256_bytes(b"{}"), manifest_size=len(b"{}")
    )
    root.link("train", dataclasses.replace(link, bundle=bundle))
    return ["train.manifest.json", "Package it again"]


def link_of_another_schema(root):
    path = root.dist / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 9}))
    return ["train.json", "schema 9"]


@pytest.mark.parametrize(
    "trouble",
    [unmapped, bad_reference, secret_reference, mixed, no_version, no_archive, another_archive,
     another_manifest, manifest_of_another_archive, no_manifest_at_all, link_of_another_schema],
)  # fmt: skip
def test_packages_that_can_not_be_deployed(root, trouble):
    said = trouble(root)
    refused(root, said=[ADDRESS, *said])


def test_the_known_ref_names_are_listed(root):
    root.package("train", image="trainer")
    images = {"base": "reg.example/base:1", "server": "reg.example/server:1"}
    refused(root, plan={"images": images}, said=["known: base, server"])
    refused(
        root,
        *("--image", "trainer=reg.example/t:1", "--image", "servr=reg.example/s:1"),
        plan={"images": images},
        said=["servr", "known: trainer"],
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"body": "v = 2\n"}, "services/ml:train (code)"),
        ({"image": "registry.example/trainer:2"}, "services/ml:train (image)"),
        ({"root_dir": "src"}, "services/ml:train (root_dir)"),
        ({"name": "score"}, "services/ml:score (new)"),
        (
            {"tasks": (LinkedTask("train", (*command("train"), "more")),)},
            "services/ml:train (command)",
        ),
    ],
)
def test_a_version_that_exists_with_other_content(root, changes, said):
    root.package(**changes)
    refused(root, "--version", "v1", said=["version v1 exists with other content", said])
    refused(root, plan={"version": "v1"}, said=["version v1 exists with other content", said])


@pytest.mark.parametrize(
    "typed",
    [("--version", "../x"), ("lsit",), ("--image", "x"), ("--store", "dist/x"), ("--nope",)],
)
def test_a_mistyped_command_line_ends_with_2_and_a_hint(root, typed):
    refused(root, *typed, said=["--help"], code=2)


@pytest.mark.parametrize(
    "arguments", [(), ("--plan",), ("--dir", "x"), ("--plan", "x", "--more", "y"), ("list",)]
)
def test_the_program_needs_a_plan(root, arguments):
    root.run("deploy", *arguments).failed(2, "--plan PLAN.json")


def test_a_plan_that_is_not_there(root):
    root.run("deploy", "--plan", "nowhere.json").failed(1, "nowhere.json")


def test_no_secret_is_ever_printed(root):
    for typed, plan in [
        (("--store", "s3://key:hunter2@bucket"), {}),
        (("--image", "a=user:hunter2@reg.example/a"), {}),
        (("--strore=s3://key:hunter2@bucket",), {}),
        ((), {"store": "https://user:hunter2@host/x"}),
        ((), {"store": "https://host/x?token=hunter2"}),
        ((), {"images": {"a": "https://user:hunter2@reg.example/a"}}),
    ]:
        for output in ("text", "json"):
            done = root.deploy(*typed, "--output", output, plan=plan)
            assert done.code in (1, 2)
            assert "hunter2" not in done.out + done.err


def test_a_store_that_can_not_be_written_to(root):
    blocked = root.root / "file"
    blocked.write_text("")
    root.deploy("--store", "file://file/store").failed(1, ADDRESS, str(blocked))
    assert blocked.read_text() == ""
