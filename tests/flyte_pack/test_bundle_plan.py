"""Statements about the plan and the summary: written and read alike, and read strictly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
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
            ["src/a/tasks.py", "a/tasks.py", "src/a:a", "entry_point", None],
            ["src/größe.csv", "größe.csv", None, "declared", "src/a:a"],
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


ROW = ["s", "p", None, "all", None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "has schema 2, .* reads schema 1"),
        ({"copy_style": "none"}, "'copy_style' is 'none', not one of all, auto"),
        ({"copy_style": ["auto"]}, "'copy_style' is"),
        ({"root_dir": 1}, "'root_dir' is 1, not a string"),
        ({"more": 1}, "unknown fields: 'more'"),
        ({"files": {}}, "'files' is not a list"),
        ({"files": [ROW, ROW[:4]]}, r"not a file .*\['s', 'p', None, 'all'\]"),
        ({"files": [ROW, "spall"]}, "not a file .*'spall'"),
        ({"files": [ROW, [1, "p", None, "all", None]]}, r"not a file .*\[1, "),
        ({"files": [ROW, ["s", None, None, "all", None]]}, "not a file"),
        ({"files": [ROW, ["s", "p", 3, "all", None]]}, "not a file"),
        ({"files": [ROW, ["s", "p", None, "why", None]]}, "not a file .*'why'"),
        ({"files": [ROW, ["s", "p", None, [], None]]}, "not a file"),
        ({"files": [ROW, ["s", "p", None, "all", False]]}, "not a file"),
        ({"entry_points": [{"module": "m"}]}, "entry_points\\[0\\]: the field 'name' is missing"),
        ({"entry_points": [["m", None, "p", "t"]]}, "entry_points\\[0\\]: not a JSON object"),
        (
            {"entry_points": [{"module": 1, "name": None, "path": "p", "target": "t"}]},
            "'module' is 1, not a string",
        ),
        (
            {"entry_points": [{"module": "m", "name": 1, "path": "p", "target": "t"}]},
            "'name' is 1, not a string",
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
        ({"schema": None}, "'schema' is None"),
        ({"archive_hash": "A" * 64}, "'archive_hash' is 'AAA"),
        ({"content_hash": 1}, "'content_hash' is 1"),
        ({"archive_size": -1}, "'archive_size' is -1"),
        ({"files": True}, "'files' is True"),
        ({"bytes": 1.0}, "'bytes' is 1.0"),
        ({"name": "x"}, "unknown fields: 'name'"),
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
