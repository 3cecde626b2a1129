"""What running a program in an image takes and gives, whichever way it is run, and how a running one is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any, Protocol

from flyte_pack.oci.layout import LayoutImage
from flyte_pack.oci.model import InvalidImage, parse_object

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Mount:
    """A file or directory of this machine (`source`, absolute), to be at `target` (absolute) in the image."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Command:
    """argv: after the entry point, which is the image's unless `entrypoint` says otherwise. network: None for the
    engine's usual one, or `none`, `host`, or whatever a container engine knows. stdin, stdout: as subprocess has them.
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
        """Run it; the exit code is the program's, or 128 and the signal that ended it. Raises `UserError` or `OSError`."""


@dataclass(frozen=True)
class Config:
    """What an image's config says of running it (image specification 1.0, "Image Configuration")."""

    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    env: Mapping[str, str]
    user: str
    workdir: str


def config_of(image: LayoutImage) -> Config:
    """Raises `InvalidImage`."""
    raw = parse_object(image.config, "the image's config").get("config") or {}
    if not isinstance(raw, dict):
        raise InvalidImage("the image's config: `config` is not an object")
    return Config(
        entrypoint=_texts(raw, "Entrypoint"),
        cmd=_texts(raw, "Cmd"),
        env=dict(variable.partition("=")[::2] for variable in _texts(raw, "Env")),
        user=str(raw.get("User") or ""),
        workdir=str(raw.get("WorkingDir") or "/"),
    )


def _texts(raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = raw.get(key) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidImage(f"the image's config: {key} is not a list of texts")
    return tuple(value)


def supervise(
    argv: Sequence[str],
    env: Mapping[str, str],
    command: Command,
    own_session: bool = True,
    pass_fds: Sequence[int] = (),
    target: Callable[[], int | None] = lambda: None,
) -> int:
    """Start `argv` with the command's stdin and stdout, and wait for its end; the exit code, or 128 and the signal.

    Signals that ask us to end are passed on, to the process `target` if that gives one; a second one ends it at once. It has
    a session of its own, so that a terminal's Ctrl-C reaches it only once, through us; unless it minds the terminal itself.
    """
    process: subprocess.Popen[bytes] | None = None
    asked: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if process is None:
            return
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
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
