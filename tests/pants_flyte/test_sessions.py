"""What no rule of ours may depend on, lest each command costs the daemon what the first one did.

Before Pants runs a cacheable rule again it checks all that hangs below it at once, and stops where
one thing is new. What it had not come to is run again, too.
"""

from __future__ import annotations

from typing import Any

import pytest
from pants.core.goals.deploy import DeploySubsystem
from pants.core.goals.run import RunSubsystem
from pants.engine.internals.session import RunId, SessionValues
from pants.engine.rules import TaskRule, collect_rules, rule
from pants.option.global_options import GlobalOptions

from pants_flyte import register
from pants_flyte.loop import LoopTurn
from pants_flyte.subsystem import FlyteDeploySubsystem

NEW_IN_EACH_SESSION = {RunId, SessionValues}
# What is typed, or follows from it: often one thing, then another.
TYPED = {RunSubsystem, DeploySubsystem, FlyteDeploySubsystem, LoopTurn}
OURS = [
    found
    for found in register.rules()
    if isinstance(found, TaskRule) and found.canonical_name.startswith("pants_flyte.")
]


def depends_on(found: TaskRule) -> set[Any]:
    """The types that it takes and asks for. What they are called changed with Pants 2.22."""
    takes = getattr(found, "input_selectors", None)
    if takes is None:
        takes = found.parameters.values()  # type: ignore[attr-defined]
    awaits = getattr(found, "input_gets", None) or getattr(found, "awaitables", ())
    return {*takes, *(asked.output_type for asked in awaits)}


def whats_wrong(found: TaskRule) -> set[Any]:
    return depends_on(found) & (NEW_IN_EACH_SESSION | (TYPED if found.cacheable else set()))


def test_our_rules_were_found():
    names = {found.canonical_name.rpartition(".")[2] for found in OURS}
    assert {"run_task", "run_deployment", "deploy_deployment", "build_task", "run_image"} <= names


def test_what_tells_turns_of_a_loop_apart_is_uncacheable_and_awaits_nothing():
    (found,) = (one for one in OURS if one.canonical_name == "pants_flyte.loop.this_turn")
    assert not found.cacheable
    assert depends_on(found) == {SessionValues, GlobalOptions}


@pytest.mark.parametrize(
    "found",
    [one for one in OURS if one.canonical_name != "pants_flyte.loop.this_turn"],
    ids=lambda found: found.canonical_name,
)
def test_a_rule_takes_nothing_that_is_new_with_each_command(found: TaskRule):
    assert whats_wrong(found) == set()


def test_the_check_finds_what_is_new():
    @rule
    async def by_run_id(run_id: RunId) -> int:
        return 1

    @rule
    async def by_words(run: RunSubsystem) -> str:
        return ""

    rules = [found for found in collect_rules(locals()) if "by_" in found.canonical_name]
    assert [whats_wrong(found) for found in rules] == [{RunId}, {RunSubsystem}]
