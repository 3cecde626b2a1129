"""What transfers of blobs share: a few threads that end together, and lines that say how far they are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Lock
from typing import Any, Callable

from flyte_pack.registry.client import Session

THREADS = 4
EVERY = 5.0  # seconds between two lines about one transfer


@contextmanager
def in_parallel(session: Session) -> Iterator[Callable[..., None]]:
    """Takes functions and their arguments, and ends when all have ended.

    The first failure, or an interrupt, calls off the others (and all else that the session does), and is raised.
    """
    futures: list[Future[Any]] = []

    def submit(function: Callable[..., object], *arguments: object) -> None:
        futures.append(pool.submit(function, *arguments))

    pool = ThreadPoolExecutor(THREADS)
    try:
        yield submit
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:  # nothing is called off yet: whatever failed is a reason
            future.result()
    except BaseException:
        session.transport.stopped.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Progress:
    """Says now and then how many of `total` bytes are through; `what` begins each line."""

    def __init__(self, say: Callable[[str], object], what: str, total: int) -> None:
        self._say, self._what, self._total = say, what, total
        self._lock = Lock()
        self._started = self._said = time.monotonic()
        self.done = 0

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count
            now = time.monotonic()
            if now - self._said < EVERY:
                return
            self._said = now
            rate = self.done / (now - self._started)
            line = f"  {self._what}: {megabytes(self.done)} of {megabytes(self._total)}, {megabytes(rate)}/s"
        self._say(line)


def megabytes(count: float) -> str:
    """A number of bytes for a person."""
    if count < 1000:
        return f"{count:.0f} B"
    if count < 999_950:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:,.1f} MB"
