"""A push plan is read as it was written, and all else is refused; retries follow the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flyte_pack
from flyte_pack.http.retry import BROKEN, DEADLINE, STATUSES, Broken, Tries
from flyte_pack.json_fields import InvalidData
from flyte_pack.registry.plan import Destination, PushPlan
from tests.support.registries import Clock

DIGEST = "sha256:" + "0" * 64
PLAN = PushPlan(
    "services/ml:image",
    "services.ml/image",
    DIGEST,
    (Destination("localhost:5000/team/app", ("v1", "latest")), Destination("r.example/a/b")),
    ("r.example:80", "[::1]:5000"),
    ("localhost:5000/team/other",),
)


def test_a_plan_is_read_as_it_was_written():
    assert PushPlan.from_json(PLAN.to_json(), "the plan") == PLAN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"digest": "sha256:0"}, "not sha256: and 64"),
        ({"layout": "/etc"}, "layout: an absolute path"),
        ({"layout": "a/../../b"}, r"layout: a '\.\.' in the path"),
        ({"layout": 1}, "not a string"),
        ({"destinations": [{"name": "team", "tags": []}]}, "not a registry/repository"),
        ({"destinations": [{"name": "r.example/a:v1", "tags": []}]}, "neither tag nor digest"),
        (
            {"destinations": [{"name": f"r.example/a@{DIGEST}", "tags": []}]},
            "neither tag nor digest",
        ),
        ({"destinations": [{"name": "r.example/a b", "tags": []}]}, "a b"),
        ({"destinations": [{"name": "r.example/a", "tags": ["a/b"]}]}, "'a/b' is not a tag"),
        ({"destinations": [{"name": "r.example/a", "tags": ["-a"]}]}, "'-a' is not a tag"),
        ({"destinations": [{"name": "r.example/a"}]}, "missing keys: 'tags'"),
        ({"destinations": [{"name": "r.example/a", "tags": [], "x": 1}]}, "unknown keys"),
        ({"siblings": ["r.example/a:v1"]}, "neither tag nor digest"),
        ({"insecure": ["http://r.example"]}, r"not a host\[:port\]"),
        ({"insecure": ["r.example/a"]}, r"not a host\[:port\]"),
        ({"more": 1}, "unknown keys"),
    ],
)
def test_what_is_no_plan_is_refused(change, message):
    document = {**json.loads(PLAN.to_json()), **change}
    with pytest.raises(InvalidData, match=message):
        PushPlan.from_json(json.dumps(document).encode(), "the plan")


def test_rules_can_write_plans_without_an_http_library():
    code = "import sys, flyte_pack.registry.plan; sys.exit('urllib3' in sys.modules)"
    path = Path(flyte_pack.__file__).parent.parent
    assert (
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r}); {code}"]
        ).returncode
        == 0
    )


# --- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", sorted({BROKEN, 0, *STATUSES.values()}))
def test_a_failure_is_tried_again_as_often_as_the_table_says(allowed):
    clock = Clock()
    tries = Tries(clock.timing, "r.example")
    while tries.again(Broken("x", allowed)):
        pass
    assert clock.slept == [min(30.0, 0.5 * 2**n) for n in range(allowed)]


@pytest.mark.parametrize(
    ("asked", "slept"),
    [
        ("3", 3.0),
        (" 3 ", 3.0),
        ("0", 0.5),
        ("-3", 0.5),
        ("1e9", 0.5),
        ("9" * 5000, 120.0),
        ("Tue, 14 Nov 2023 22:13:27 GMT", 7.0),
        ("Tue, 14 Nov 2023 22:13:00 GMT", 0.5),
        ("Tue, 99 Nov 2023 22:13:00 GMT", 0.5),
        ("", 0.5),
    ],
)
def test_a_retry_after_is_waited_for_as_far_as_it_makes_sense(asked, slept):
    clock = Clock()
    assert Tries(clock.timing, "r.example").again(Broken("x", 1, asked))
    assert clock.slept == [slept]


@given(st.text())
def test_no_retry_after_fails_or_waits_too_long(asked):
    clock = Clock()
    assert Tries(clock.timing, "r.example").again(Broken("x", 1, asked))
    assert 0.5 <= clock.slept[0] <= 120.0


def test_it_ends_in_time_however_often_more_might_do():
    clock = Clock()
    tries = Tries(clock.timing, "r.example")
    while tries.again(Broken("x", 1000)):
        pass
    assert DEADLINE - 30 < sum(clock.slept) <= DEADLINE


def test_what_got_through_counts_anew():
    tries = Tries(Clock().timing, "r.example")
    assert tries.again(Broken("x", 1))
    assert not tries.again(Broken("x", 1))
    tries.progress()
    assert tries.again(Broken("x", 1))
