"""Statements about the plan and the summary: written and read alike, and read strictly."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyte_pack.bundle_plan import BundlePlan, BundleSummary, PlanFile
from flyte_pack.json_fields import InvalidData
from flyte_pack.manifest import EntryPoint

PLAN = BundlePlan(
    copy_style="auto",
    root_dir="src",
    entry_points=(EntryPoint("a.tasks", "train", "a/tasks.py", "src/a:train"),),
    files=(
        PlanFile("src/a/tasks.py", "a/tasks.py", "src/a:a", "entry_point", None),
        PlanFile("src/größe.csv", "größe.csv", None, "declared", "src/a:a"),
    ),
)
SUMMARY = BundleSummary("0" * 64, "1" * 64, 10, "2" * 64, 20, 2, 30)

NOT_SAID = (None, None, None, False)  # kind, package root, origin, bare
plain = st.text(st.characters(whitelist_categories=["L", "N", "P", "S"]), max_size=20)
text = st.text(max_size=20)
plans = st.builds(
    BundlePlan,
    copy_style=st.sampled_from(["auto", "all"]),
    root_dir=st.none() | plain,
    entry_points=st.lists(st.builds(EntryPoint, plain, st.none() | plain, plain, plain)).map(tuple),
    files=st.lists(
        st.builds(
            PlanFile, text, text, st.none() | text, st.sampled_from(["imported", "all"]), st.none()
        )
    ).map(tuple),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(plans)
def test_a_plan_reads_back_as_it_was(plan):
    assert BundlePlan.from_json(plan.to_json()) == plan


def test_a_plan_has_the_agreed_form():
    assert json.loads(PLAN.to_json()) == {
        "schema": 1,
        "copy_style": "auto",
        "root_dir": "src",
        "entry_points": [
            {"module": "a.tasks", "name": "train", "path": "a/tasks.py", "target": "src/a:train"}
        ],
        "files": [
            ["src/a/tasks.py", "a/tasks.py", "src/a:a", "entry_point", None, *NOT_SAID],
            ["src/größe.csv", "größe.csv", None, "declared", "src/a:a", *NOT_SAID],
        ],
    }


def test_a_summary_reads_back_as_it_was():
    assert BundleSummary.from_json(SUMMARY.to_json()) == SUMMARY


def test_a_summary_has_the_agreed_form():
    assert json.loads(SUMMARY.to_json()) == {
        "schema": 1,
        "content_hash": "0" * 64,
        "archive_hash": "1" * 64,
        "archive_size": 10,
        "manifest_hash": "2" * 64,
        "manifest_size": 20,
        "files": 2,
        "bytes": 30,
    }


ROW = ["s", "p", None, "all", None, *NOT_SAID]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "has schema 2, .* reads schema 1"),
        ({"copy_style": "none"}, "copy_style: not one of all, auto"),
        ({"copy_style": ["auto"]}, "copy_style: not a string"),
        ({"root_dir": 1}, "root_dir: not a string"),
        ({"more": 1}, "unknown keys: 'more'"),
        ({"files": {}}, "files: not a list"),
        ({"files": [ROW, ROW[:4]]}, r"files\[1\]: not a list of 9 values"),
        ({"files": [ROW, "spall"]}, r"files\[1\]: not a list of 9 values"),
        (
            {"files": [ROW, [1, "p", None, "all", None, *NOT_SAID]]},
            r"files\[1\].source: not a string",
        ),
        (
            {"files": [ROW, ["s", None, None, "all", None, *NOT_SAID]]},
            r"files\[1\].path: not a string",
        ),
        (
            {"files": [ROW, ["s", "p", 3, "all", None, *NOT_SAID]]},
            r"files\[1\].owner: not a string",
        ),
        (
            {"files": [ROW, ["s", "p", None, "why", None, *NOT_SAID]]},
            r"files\[1\].reason: not one of all,",
        ),
        (
            {"files": [ROW, ["s", "p", None, [], None, *NOT_SAID]]},
            r"files\[1\].reason: not a string",
        ),
        (
            {"files": [ROW, ["s", "p", None, "all", False, *NOT_SAID]]},
            r"files\[1\].by: not a string",
        ),
        (
            {"entry_points": [{"module": "m"}]},
            "entry_points\\[0\\]: missing keys: 'name', 'path', 'target'",
        ),
        ({"entry_points": [["m", None, "p", "t"]]}, "entry_points\\[0\\]: not a JSON object"),
        (
            {"entry_points": [{"module": 1, "name": None, "path": "p", "target": "t"}]},
            "entry_points\\[0\\].module: not a string",
        ),
        (
            {"entry_points": [{"module": "m", "name": 1, "path": "p", "target": "t"}]},
            "entry_points\\[0\\].name: not a string",
        ),
    ],
)
def test_a_wrong_plan_is_refused_by_what_is_wrong(changes, message):
    raw = {**json.loads(PLAN.to_json()), **changes}
    with pytest.raises(InvalidData, match=message):
        BundlePlan.from_json(json.dumps(raw).encode())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": None}, "has schema None"),
        ({"archive_hash": "A" * 64}, "archive_hash: not a SHA-256"),
        ({"content_hash": 1}, "content_hash: not a string"),
        ({"archive_size": -1}, "archive_size: not an integer from 0"),
        ({"files": True}, "files: not an integer"),
        ({"bytes": 1.0}, "bytes: not an integer"),
        ({"name": "x"}, "unknown keys: 'name'"),
    ],
)
def test_a_wrong_summary_is_refused_by_what_is_wrong(changes, message):
    raw = {**json.loads(SUMMARY.to_json()), **changes}
    with pytest.raises(InvalidData, match=message):
        BundleSummary.from_json(json.dumps(raw).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(data):
    with pytest.raises(InvalidData, match="not"):
        BundlePlan.from_json(data)
