"""Does work in threads while this one goes on, or waits.

The threads end with the process: an interrupt ends the wait for them at once. So what they do is to
leave nothing half done, whenever it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from threading import Semaphore, Thread
from typing import TypeVar

_T = TypeVar("_T")


def meanwhile(work: Callable[[], _T]) -> Future[_T]:
    """Start `work` in a thread."""
    done: Future[_T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    return done


def all_of(works: Iterable[Callable[[], _T]], at_once: int) -> list[_T]:
    """The results of all, of which so many run at once.

    Waits until all have ended; then raises what the first that failed, in their order, has raised.
    """
    calls = list(works)
    if min(len(calls), at_once) < 2:
        return [call() for call in calls]
    free = Semaphore(at_once)

    def limited(call: Callable[[], _T]) -> _T:
        with free:
            return call()

    futures = [meanwhile(partial(limited, call)) for call in calls]
    wait(futures)
    return [future.result() for future in futures]
