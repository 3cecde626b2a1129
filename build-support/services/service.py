"""What the services here share: how one is started, ends with whoever started it, and says why it
can't.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class ServiceError(Exception):
    """What keeps a service from starting, and what to do about it."""


def run(name: str, work: Callable[[], None]) -> int:
    """Do `work` until it ends or is interrupted; the exit code of the program `name`."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        work()
    except ServiceError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def started(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    new_session: bool = False,
    stop_seconds: float = 10,
) -> Iterator[subprocess.Popen[bytes]]:
    """The server, for the time of a `with` block; what it says goes to `log`."""
    with log.open("ab") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=new_session,
        )
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(stop_seconds)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for_the_end(server: subprocess.Popen[bytes], parent: int, log: Path) -> None:
    """Return when `parent`, which started this program, is gone.

    Raises `ServiceError` if the server ends before.
    """
    while server.poll() is None and os.getppid() == parent:
        time.sleep(0.1)
    if server.returncode:
        raise ServiceError(f"the server ended: see {log}")
