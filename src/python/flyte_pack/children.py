"""Starts other programs so that none is left behind, whenever a signal asks us to end.

A signal may come between the start of a child and the line of Python that first knows of it
(`subprocess.Popen` raises then, with the child at work): so it is held back until something is
there that ends the child.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from flyte_shim.stopping import NAMES


class _Held:
    """Keeps the signals that would raise something in the main thread, until it is released."""

    def __init__(self) -> None:
        self._came: list[int] = []
        main = threading.current_thread() is threading.main_thread()
        handlers = {number: signal.getsignal(number) for number in NAMES} if main else {}
        self._before = {n: handler for n, handler in handlers.items() if callable(handler)}
        for number in self._before:
            signal.signal(number, self._keep)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        self._came.append(number)

    def release(self) -> None:
        """Give the signals their handlers back, and hand on what came meanwhile. Raises theirs."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in self._came:
            before[number](number, None)


@contextmanager
def started(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child, which is killed if the block ends by an exception; its end is waited for.

    options: as those of `subprocess.Popen`. Raises `OSError` if it cannot be started.
    """
    held = _Held()
    try:
        child = subprocess.Popen(argv, **options)
    except BaseException:
        held.release()
        raise
    with child:
        try:
            held.release()
            yield child
        except BaseException:
            child.kill()
            raise


def run(
    argv: Sequence[str], *, input: Any = None, timeout: float | None = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run`, by `started`: with its options, but for `check` and `capture_output`.

    Both of the child's streams are captured, where the options say nothing else; it is given
    nothing to read without `input`. Raises `OSError`, and `subprocess.TimeoutExpired` after
    `timeout` seconds.
    """
    streams = {"stdin": subprocess.DEVNULL if input is None else subprocess.PIPE}
    streams |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(argv, **{**streams, **options}) as child:
        out, err = child.communicate(input, timeout)
    return subprocess.CompletedProcess(argv, child.returncode, out, err)
