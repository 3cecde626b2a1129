"""Keeps processes of `flyte_side` for the next command, which have imported Flyte already.

A deployment that had to import Flyte starts one more of each role as it ends, a local run one that
may run the next task. It imports Flyte while nobody waits, and is used once. It ends with Pants'
daemon, or after a quarter of an hour; without a daemon there is none. It starts with an environment
that has no credential, and gets the rest when it is taken. Whatever goes wrong here costs time
only: a new process does the same.

In a directory of the user's cache that nobody else can write, there is for each way to start one:
a socket, where one waits; a lock, which it holds; and the sources that it was started from, since
those of the program go with its sandbox.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from flyte_pack.deploy.start import SIDE_FILES, Start
from flyte_pack.flyte_side import MAIN, standby
from flyte_pack.remembered import private_cache
from flyte_shim import shown

_ABOVE = os.path.dirname(os.path.dirname(os.path.dirname(MAIN)))

# What Python, its libraries and Flyte read as they start. Credentials are none of it. What runs a
# task gets all else, too: a user sets variables for it that we know nothing of.
_EARLY = ("HOME", "LANG", "PATH", "PYTHONHASHSEED", "TMPDIR", "TZ")
_EARLY_PREFIXES = ("DYLD_", "FLYTE_", "LC_", "LD_", "LOG_", "MALLOC_", "XDG_", "_F_")
_CREDENTIALS = ("KEY", "PASSWORD", "SECRET", "TOKEN")
# Of the command that is typed, and read by nothing that is imported ahead.
_OF_COMMAND = ("OLDPWD", "PWD", "SHLVL", "UCTL_CONFIG", "_")
_OF_PANTS = ("NAILGUN_", "PANTS", "_PANTS", "__PANTS")
# What `flyte_side` takes from its neighbours, as `flyte_side/__main__.py` has it find them.
_SHARED = (os.path.join("flyte_pack", "secret_rules.py"), os.path.join("flyte_shim", "shown.py"))
_CONNECT_SECONDS = 1.0
_KEEP_SOURCES = 86400.0  # seconds
_LONGEST = 108  # bytes of a socket's path, with the zero at its end (unix(7))
_GENERATIONS = 10  # of processes between Pants' daemon and us, at most


class Taken:
    """A process that had waited, as `subprocess.Popen` has one: a child of another program.

    So its exit code is nobody's to know.
    """

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self._process = os.pidfd_open(pid)  # type: ignore[attr-defined,unused-ignore]  # Linux
        self.stdin: BinaryIO = connection.makefile("wb")
        self.stdout: BinaryIO = connection.makefile("rb", buffering=0)  # type: ignore[assignment]
        connection.close()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]

    def wait(self) -> int | None:
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        poll.poll()
        return None


def take(start: Start) -> Taken | None:
    """One that was started just so, if one waits."""
    connection = hand_over(start, [2])
    if connection is None:
        return None
    pid, _ = standby.peer(connection)
    return Taken(connection, pid)


def hand_over(start: Start, files: Sequence[int], **more: object) -> socket.socket | None:
    """Give one that was started just so what a new process would have; None where none waits.

    files: descriptors, and more: what else its role takes. Returns the connection to it.
    """
    path = _socket(start)
    if path is None or not os.path.exists(path):
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_CONNECT_SECONDS)
        connection.connect(path)  # to one of us, since nobody else can write there
        given = {"environ": dict(start.environ), "directory": os.getcwd(), "umask": _umask()}
        standby.hand_over(connection, {**given, **more}, files)
        connection.settimeout(None)
    except OSError:  # it was killed, or has just ended, or another was quicker
        connection.close()
        return None
    return connection


def leave(start: Start, arguments: Sequence[str]) -> None:
    """Start one that waits to be taken.

    arguments: the interpreter as it runs such a process, and its options: the script that `start`
    names goes with the sandbox.
    """
    daemon = _daemon()
    path = _socket(start)
    if daemon is None or path is None:
        return
    with suppress(OSError):
        main = _sources(os.path.dirname(path))
        subprocess.Popen(
            [*arguments, main, "standby", start.role, path, str(daemon)],
            cwd="/",
            env=_early(start),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def _early(start: Start) -> dict[str, str]:
    """What it gets as it starts; one that was started with other values is not taken."""

    def is_early(name: str, value: str) -> bool:
        if any(word in name.upper() for word in _CREDENTIALS):
            return False
        if start.role != standby.RUNS_TASKS:
            return name in _EARLY or name.startswith(_EARLY_PREFIXES)
        of_command = name in _OF_COMMAND or name.startswith(_OF_PANTS)
        return not of_command and shown.message(value) == value

    return {name: value for name, value in start.environ.items() if is_early(name, value)}


def _socket(start: Start) -> str | None:
    """Where one that is started just so waits; None where there can be none."""
    if not hasattr(os, "pidfd_open"):  # Python has it on Linux
        return None
    directory, python = private_cache("standby"), list(start.python)
    if start.role != standby.RUNS_TASKS:  # a script, in a new place each time
        try:
            with open(python[-1], "rb") as file:
                python[-1] = hashlib.sha256(file.read(1 << 16)).hexdigest()
        except OSError:
            return None
    if directory is None:
        return None
    told = [python, start.role, sorted(_early(start).items()), _version()]
    path = os.path.join(directory, hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16])
    return path if len(os.fsencode(path)) < _LONGEST else None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _files() -> Iterator[tuple[str, bytes]]:
    """The sources of `flyte_side`, and what it takes from its neighbours, by relative path."""
    for path in (*SIDE_FILES, *(os.path.join(_ABOVE, name) for name in _SHARED)):
        with open(path, "rb") as file:
            yield os.path.relpath(path, _ABOVE), file.read()


def _version() -> str:
    found = hashlib.sha256()
    for name, content in _files():
        found.update(f"{name} {len(content)} ".encode() + content)
    return found.hexdigest()[:16]


def _sources(directory: str) -> str:
    """The program in a copy of the sources that stays."""
    place = os.path.join(directory, f"sources-{_version()}")
    main = os.path.join(place, os.path.relpath(MAIN, _ABOVE))
    if not os.path.exists(place):
        _remove_old(directory)
        made = tempfile.mkdtemp(prefix="sources-", dir=directory)
        for name, content in _files():
            os.makedirs(os.path.join(made, os.path.dirname(name)), exist_ok=True)
            with open(os.path.join(made, name), "wb") as file:
                file.write(content)
        try:
            os.rename(made, place)
        except OSError:  # another was first
            shutil.rmtree(made, ignore_errors=True)
    return main


def _remove_old(directory: str) -> None:
    """Remove what no process that waits can have been started from lately."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_mtime > time.time() - _KEEP_SOURCES:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def _daemon() -> int | None:
    """Pants' daemon, which started the program that runs here; None without one."""
    process = os.getppid()
    with suppress(OSError, ValueError, IndexError):
        for _ in range(_GENERATIONS):
            with open(f"/proc/{process}/cmdline", "rb") as file:
                if file.read(7) == b"pantsd ":  # its title, as Pants writes it
                    return process
            with open(f"/proc/{process}/stat", "rb") as file:
                process = int(file.read().rpartition(b")")[2].split()[1])
    return None
