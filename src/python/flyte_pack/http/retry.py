"""Says what is tried again, how often and after which pause: one table for every request to a registry."""

from __future__ import annotations

import email.utils
import random
import time
from dataclasses import dataclass
from threading import Event
from typing import Callable

from flyte_pack.progress import Say

# How often more, after the first time. No other status is tried again: it would come back the same.
STATUSES = {
    408: 5,  # the registry waited too long for us
    429: 8,  # too many requests
    500: 3,  # as often a bug as a passing trouble
    502: 5,  # a proxy reached nobody
    503: 5,
    504: 5,
}
BROKEN = 5  # refused, reset, timed out, cut short
FIRST_PAUSE = 0.5  # seconds; doubled each time, and cut by chance to between half and all of it
LONGEST_PAUSE = 30.0
LONGEST_ASKED = 120.0  # what a Retry-After is cut to
DEADLINE = 600.0  # from the first try, or from the last progress, to the last one


class Broken(Exception):
    """A request that came to no answer of use; `again` is how often it may be tried again."""

    def __init__(self, text: str, again: int = BROKEN, retry_after: str | None = None) -> None:
        super().__init__(text)
        self.again, self.retry_after = again, retry_after


@dataclass(frozen=True)
class Timing:
    """Where time comes from; tests put in their own. `sleep` returns early where the work was called off.

    `say` is told of each pause.
    """

    sleep: Callable[[float], object]
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    say: Say = lambda line: None


def real_timing(stopped: Event, say: Say | None = None) -> Timing:
    """The machine's clocks; nobody sleeps on once `stopped` is set."""
    return Timing(sleep=stopped.wait) if say is None else Timing(sleep=stopped.wait, say=say)


class Tries:
    """The tries of one request, or of one transfer. server: for what is said."""

    def __init__(self, timing: Timing, server: str) -> None:
        self._timing, self._server = timing, server
        self.progress()

    def progress(self) -> None:
        """Something got through: count anew."""
        self._done = 0
        self._started = self._timing.monotonic()

    def again(self, broken: Broken) -> bool:
        """Wait, and return True, where another try is due after this failure."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._done)
        pause *= 0.5 + self._timing.chance() / 2
        asked = _seconds(broken.retry_after, self._timing.wall())
        if asked is not None:
            pause = max(pause, min(asked, LONGEST_ASKED))
        late = self._timing.monotonic() + pause - self._started > DEADLINE
        if self._done >= broken.again or late:
            return False
        self._done += 1
        self._timing.say(f"  {self._server}: {broken}; trying again in {pause:.1f} s")
        self._timing.sleep(pause)
        return True


def _seconds(retry_after: str | None, now: float) -> float | None:
    """A Retry-After header, in seconds from `now` (RFC 9110, section 10.2.3); None where there is no sense in it."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
