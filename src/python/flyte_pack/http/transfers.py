"""What transfers of blobs share: a few threads that end together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import Any, Callable

THREADS = 4


@contextmanager
def in_parallel(stopped: Event) -> Iterator[Callable[..., None]]:
    """Takes functions and their arguments, and ends when all have ended.

    The first failure, or an interrupt, calls off the others (and all else that heeds `stopped`), and is raised.
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
        stopped.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
