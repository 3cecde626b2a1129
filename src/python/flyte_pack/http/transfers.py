"""Runs transfers in a few threads that end together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import Any, Callable

THREADS = 4


@contextmanager
def in_parallel(stopped: Event) -> Iterator[Callable[..., None]]:
    """Yields a function that starts a call in a thread; waits for all at the end.

    The first failure, or an interrupt, sets `stopped`, cancels the rest, and is raised.
    """
    futures: list[Future[Any]] = []

    def submit(function: Callable[..., object], *arguments: object) -> None:
        futures.append(pool.submit(function, *arguments))

    pool = ThreadPoolExecutor(THREADS)
    try:
        yield submit
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:  # nothing is cancelled yet: any failure is a cause
            future.result()
    except BaseException:
        stopped.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
