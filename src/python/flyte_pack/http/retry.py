"""Says which requests are retried, how often and after which pause."""

from __future__ import annotations

import email.utils
import random
import time
from dataclasses import dataclass
from typing import Callable, TypeVar

from flyte_pack.progress import Say

# Retries by status. Any other status would come back the same.
STATUSES = {
    408: 5,  # the server waited too long for us
    429: 8,  # too many requests
    500: 3,  # as often a bug as a passing failure
    502: 5,  # a proxy reached nobody
    503: 5,
    504: 5,
}
BROKEN = 5  # refused, reset, timed out, cut short
FIRST_PAUSE = 0.5  # seconds; doubles each time; a random part of up to a half is left out
LONGEST_PAUSE = 30.0
LONGEST_ASKED = 120.0  # the most of a Retry-After
LEAST = 16 << 10  # bytes that are progress: what gives one with each try would never end
DEADLINE = 600.0  # from the first try, or the last progress, to the last try

Result = TypeVar("Result")


class Broken(Exception):
    """A request without a usable answer. again: how often it may be retried."""

    def __init__(self, text: str, again: int = BROKEN, retry_after: str | None = None) -> None:
        super().__init__(text)
        self.again, self.retry_after = again, retry_after


@dataclass(frozen=True)
class Timing:
    """Where time comes from. `sleep` returns early if the work is called off; `say` hears of it."""

    sleep: Callable[[float], object]
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    say: Say = lambda line: None


class Tries:
    """The tries of one request or transfer. server: its name, for messages."""

    def __init__(self, timing: Timing, server: str) -> None:
        self._timing, self._server = timing, server
        self.progress()

    def run(self, once: Callable[[], Result], gave_up: Callable[[Broken], Exception]) -> Result:
        """Try until there is a result, or raise what `gave_up` makes of the last failure."""
        while True:
            try:
                return once()
            except Broken as broken:
                if not self.again(broken):
                    raise gave_up(broken) from None

    def progress(self) -> None:
        """Something got through: count anew."""
        self._done = 0
        self._started = self._timing.monotonic()

    def again(self, broken: Broken) -> bool:
        """Wait and return True if another try is due after this failure."""
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
    """A Retry-After header in seconds from `now` (RFC 9110, section 10.2.3); None if invalid."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
