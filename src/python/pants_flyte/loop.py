"""`--loop run`: the program runs again when what it runs has changed, and only then.

By itself Pants does neither. While the program of `run` runs, it ignores edits unless the target is
`restartable`, and it does not hear of later edits of these files either: an edit made then would
never run. And it runs the program again after each edit of any file in a directory with targets.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Iterable, Optional, Union

from pants.build_graph.address import Address
from pants.core.goals.run import RestartableField, RunRequest
from pants.engine.fs import EMPTY_DIGEST
from pants.engine.goal import CurrentExecutingGoals
from pants.engine.internals.session import SessionValues
from pants.engine.rules import Rule, _uncacheable_rule, collect_rules
from pants.engine.unions import UnionRule
from pants.option.global_options import GlobalOptions
from pants.util.strutil import help_text

# What Pants starts instead of a program that has nothing new to run.
NOTHING = RunRequest(digest=EMPTY_DIGEST, args=("/bin/sh", "-c", ":"))


@dataclass(frozen=True)
class LoopTurn:
    """One turn of `--loop`; without it, there is none to tell from another.

    A rule that takes it is uncacheable.
    """

    number: Optional[int] = None
    session: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class _Started:
    turn: LoopTurn
    address: Address
    request: RunRequest


class _Loop:
    """What is known of the loop that the daemon serves; it serves one client at a time."""

    on = False
    last: Optional[_Started] = None


_turns = itertools.count()


# Uncacheable, so it runs once a turn. Nothing else hangs below: a rule that is new in each session
# is run again with all that it awaits.
@_uncacheable_rule
async def this_turn(session: SessionValues, options: GlobalOptions) -> LoopTurn:
    # Of these goals a session has one object of its own, which may equal that of another.
    return LoopTurn(next(_turns), session[CurrentExecutingGoals]) if options.loop else LoopTurn()


def restarted(turn: LoopTurn, request: RunRequest) -> RunRequest:
    """The request, of a program that ends where it is out of date, if this is a loop.

    Pants asks the target only after this, whether it is restartable.
    """
    _Loop.on = turn.number is not None
    return request


def once(turn: LoopTurn, address: Address, request: RunRequest) -> RunRequest:
    """The request, or `NOTHING` if an earlier turn of this loop has started it, too.

    Within a turn it stays the same: Pants asks again, to see whether what runs is out of date.
    """
    restarted(turn, request)
    last = _Loop.last
    if turn.number is None:
        return request
    if (
        last is not None
        and last.turn.session is turn.session
        and last.turn != turn
        and (last.address, last.request) == (address, request)
    ):
        return NOTHING
    _Loop.last = _Started(turn, address, request)
    return request


class FlyteRestartableField(RestartableField):
    help = help_text(
        """
        Whether `run` may interrupt it and start it again when a file that it runs is edited. With
        `--loop` this is so for each target, as Pants would not hear of the edit otherwise.
        """
    )

    # Older versions of Pants have it as an attribute of the instance, newer ones of the class.
    @property
    def value(self) -> bool:
        return self._given or _Loop.on

    @value.setter
    def value(self, given: bool) -> None:
        vars(self)["value"] = given

    @property
    def _given(self) -> bool:
        own = vars(self)
        given: bool = own["value"] if "value" in own else super().value
        return given

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._given == other._given  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), self._given))


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
