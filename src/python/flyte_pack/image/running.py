"""Programs in an image: what one is given, and how it is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Protocol

from flyte_pack import children


@dataclass(frozen=True)
class Mount:
    """A file or directory `source` of this machine, to be at `target` in the image.

    Both paths are absolute.
    """

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Command:
    """argv: what the entry point is given. entrypoint: in place of the image's.

    network: `none`, `host`, or what a container engine knows; None for the engine's usual one.
    stdin, stdout: as subprocess has them.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    network: str | None = None
    entrypoint: tuple[str, ...] | None = None
    workdir: str | None = None
    stdin: int | IO[bytes] | None = None
    stdout: int | IO[bytes] | None = None


class Runner(Protocol):
    """An image that is ready to be run, any number of times."""

    def run(self, command: Command) -> int:
        """Run it; gives the program's exit code, or 128 and the signal that ended it."""


def private_file(text: str) -> int:
    """An open file with this text that has no name; the caller closes it.

    What is in it is on no command line, where every user of the machine could read it. A program
    that is started with the descriptor finds it at /dev/fd/N.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("flyte-image")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    with open(fd, "wb", closefd=False) as file:
        file.write(os.fsencode(text))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def quietly(
    argv: Sequence[str], timeout: float | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that is given nothing, to the end; what it printed, as UTF-8."""
    return children.run(argv, timeout=timeout, env=env, encoding="utf-8", errors="replace")


def supervise(
    argv: Sequence[str],
    env: Mapping[str, str],
    command: Command,
    own_session: bool = True,
    pass_fds: Sequence[int] = (),
    target: Callable[[], int | None] = lambda: None,
) -> int:
    """Start `argv` and wait for its end; gives the exit code, or 128 and the signal.

    Signals that ask us to end are passed on, to the process `target` if it gives one. A second one
    ends it at once. It has a session of its own, so that a terminal's Ctrl-C reaches it once,
    through us; without `own_session` it minds the terminal itself.
    """
    process: subprocess.Popen[bytes] | None = None
    asked: list[int] = []
    early: list[int] = []  # while there was no process yet

    def forward(number: int, frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
            return
        asked.append(number)
        to = (target() if len(asked) == 1 else None) or process.pid
        if process.poll() is None:
            os.kill(to, number if len(asked) == 1 else signal.SIGKILL)

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main else ()
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        process = subprocess.Popen(
            argv,
            env=env,
            stdin=command.stdin,
            stdout=command.stdout,
            start_new_session=own_session,
            pass_fds=pass_fds,
        )
        for number in early:
            forward(number, None)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
