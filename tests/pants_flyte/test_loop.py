"""What a turn of `--loop run` starts, and when it may be interrupted."""

from __future__ import annotations

import pytest
from pants.build_graph.address import Address
from pants.core.goals.run import RestartableField, RunRequest
from pants.engine.fs import EMPTY_DIGEST

from pants_flyte import loop
from pants_flyte.loop import NOTHING, FlyteRestartableField, LoopTurn
from pants_flyte.target_types import FlyteApp, FlyteDeployment, FlyteTask

TASK, OTHER = Address("app", target_name="task"), Address("app", target_name="other")
SESSION = object()


def request(word: str) -> RunRequest:
    return RunRequest(digest=EMPTY_DIGEST, args=[word])


def turn(number: int, session: object = SESSION) -> LoopTurn:
    return LoopTurn(number, session)


@pytest.fixture(autouse=True)
def no_loop():
    yield
    loop.restarted(LoopTurn(), request(""))
    loop._Loop.last = None


@pytest.mark.parametrize(
    ("after", "starts"),
    [
        ((turn(2), TASK, "a"), False),
        ((turn(2), TASK, "b"), True),
        ((turn(2), OTHER, "a"), True),
        ((turn(1), TASK, "a"), True),  # asked again, to see whether what runs is out of date
        ((turn(2, object()), TASK, "a"), True),  # another loop
        ((LoopTurn(), TASK, "a"), True),
    ],
)
def test_a_later_turn_of_the_same_loop_does_not_start_the_same_again(after, starts):
    assert loop.once(turn(1), TASK, request("a")) == request("a")
    now, address, word = after
    assert loop.once(now, address, request(word)) == (request(word) if starts else NOTHING)


def test_what_a_turn_did_not_start_counts_for_none():
    for number, word, starts in [(1, "a", True), (2, "a", False), (3, "a", False), (4, "b", True)]:
        assert (loop.once(turn(number), TASK, request(word)) != NOTHING) == starts
        # Pants asks again within the turn.
        assert (loop.once(turn(number), TASK, request(word)) != NOTHING) == starts


@pytest.mark.parametrize("target", [FlyteTask, FlyteApp, FlyteDeployment])
def test_targets_are_restartable_in_a_loop_and_only_there(target):
    raw = {"entry_point": "job.py:main"} if target is not FlyteDeployment else {"tasks": [":task"]}
    made, wanted = (target({**raw, **more}, TASK) for more in ({}, {"restartable": True}))
    hashes = hash(made[FlyteRestartableField]), hash(wanted[FlyteRestartableField])
    for now, expected in ((LoopTurn(), False), (turn(1), True), (LoopTurn(), False)):
        loop.restarted(now, request("a"))
        assert made.get(RestartableField).value is expected
        assert wanted.get(RestartableField).value is True
        assert made[FlyteRestartableField] != wanted[FlyteRestartableField]
        assert (hash(made[FlyteRestartableField]), hash(wanted[FlyteRestartableField])) == hashes
