"""A process that has imported Flyte and waits to be `describe`, `client` or `run_here`.

The program that wants one connects to its socket, and hands over what it would have started a new
process with. `flyte_pack.deploy.standby` starts and takes it, and says what is in the directory.

What runs a task has a parent beside it, which answers the socket, hands on signals, ends the task
where the program that took it is gone, and tells how the task ended, as only a parent knows.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from . import MAIN, serve

RUNS_TASKS = "run_here"
IDLE_SECONDS = 15 * 60.0
_REST_SECONDS = 2.0  # whoever deployed may wait for what comes next; nobody edits that fast
HANDOVER_SECONDS = 5.0
_MOST = 1 << 24  # bytes of what is handed over


def main(arguments: list[str]) -> NoReturn:
    """ROLE SOCKET DAEMON: a module of this package, a path, the process that it ends with."""
    name, path, daemon = arguments
    watched = os.pidfd_open(int(daemon))  # type: ignore[attr-defined,unused-ignore]  # Linux
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # one waits there already
        os._exit(0)
    time.sleep(_REST_SECONDS)
    if name == RUNS_TASKS:
        _stand_by_to_run(path, watched, lock)
    role = import_module(f".{name}", __package__).role()
    serve.prepare(role, lambda _: os._exit(1))
    role.rest()
    connection = _wait(path, watched)
    if connection is None:
        os._exit(0)
    sys.argv[1:] = [name]
    given, files = _handed_over(connection, 1)
    os.dup2(files[0], 2)
    os.close(files[0])
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    connection.close()
    _become(given)
    for fd in (lock, watched):
        os.close(fd)
    serve.serve(role)


def _stand_by_to_run(path: str, watched: int, lock: int) -> NoReturn:
    """In the parent. The child returns as the task does."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        for fd in (ours.detach(), watched, lock):
            os.close(fd)
        os.setsid()  # so that it can be ended with all that it starts
        _run(theirs)
    theirs.close()
    connection = _wait(path, watched) if ours.recv(1) else None
    with suppress(OSError):
        os.close(lock)  # the next one may wait
        if connection is not None:
            given, files = _handed_over(connection, 4)
            hand_over(ours, given, files)
            if ours.recv(1):  # else the child is gone, and whoever wanted it may start another
                for fd in (ours.detach(), *files):
                    os.close(fd)
                _attend(child, connection)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os._exit(0)


def _attend(child: int, connection: socket.socket) -> None:
    """Tell the number of the child, hand on each byte as a signal, tell how the child ended."""
    connection.sendall(f"{child}\n".encode())
    ended = os.pidfd_open(child)  # type: ignore[attr-defined,unused-ignore]  # Linux
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while ended not in (ready := [fd for fd, _ in poll.poll()]):
        numbers = connection.recv(256) if ready else b""
        if not numbers:  # whoever wanted it is gone
            return
        for number in numbers:
            with suppress(ProcessLookupError):
                os.killpg(child, number)
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{status}\n".encode())
    os._exit(0)


def _run(parent: socket.socket) -> NoReturn:
    role = import_module(f".{RUNS_TASKS}", __package__)
    serve.prepare(role.Preparation(), lambda _: os._exit(1))
    parent.sendall(b".")
    if not parent.recv(1, socket.MSG_PEEK):  # it waits as long as its parent does
        os._exit(1)
    given, files = _handed_over(parent, 4)
    parent.sendall(b".")
    parent.close()
    for number, fd in enumerate(files[:3]):
        os.dup2(fd, number)
        os.close(fd)
    os.set_inheritable(files[3], True)  # it tells that the task has ended, after any exec
    _become(given)
    _open_standard_files()
    sys.argv = [MAIN, RUNS_TASKS, *given["arguments"]]
    role.main(given["arguments"])
    sys.exit(0)


def _open_standard_files() -> None:
    """Anew, as Python opens them with `-u`: these have looked at what was there before."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old: io.TextIOWrapper = getattr(sys, name)
        raw = open(number, "wb" if number else "rb", buffering=0, closefd=False)  # noqa: SIM115
        raw.name = f"<{name}>"
        file = io.TextIOWrapper(
            raw if number else io.BufferedReader(raw),
            encoding=old.encoding,
            errors=old.errors,
            newline="\n",
            write_through=bool(number),
        )
        setattr(file, "mode", "w" if number else "r")  # noqa: B010
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)


def _wait(path: str, daemon: int) -> socket.socket | None:
    """The first connection of our own user; None if the daemon ends, or nobody comes."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # of one that was killed
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        try:
            return _accepted(listener, daemon)
        finally:
            os.unlink(path)


def _accepted(listener: socket.socket, daemon: int) -> socket.socket | None:
    until = time.monotonic() + IDLE_SECONDS
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(daemon, select.POLLIN)
    while (left := until - time.monotonic()) > 0:
        ready = [fd for fd, _ in poll.poll(left * 1000)]
        if daemon in ready:
            return None
        if ready:
            connection, _ = listener.accept()
            if peer(connection)[1] == os.geteuid():
                return connection
            connection.close()
    return None


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as the kernel knows them (unix(7), SO_PEERCRED)."""
    form = "3i"
    size = struct.calcsize(form)
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)  # type: ignore[attr-defined,unused-ignore]  # Linux
    pid, user, _ = struct.unpack(form, found)
    return pid, user


def hand_over(connection: socket.socket, given: dict[str, Any], files: Sequence[int]) -> None:
    """given: "environ", "directory", "umask", and what the role takes. files: descriptors."""
    data = json.dumps(given).encode() + b"\n"
    sent = socket.send_fds(connection, [data], files)
    if sent < len(data):  # else the other one may have it all, and be gone
        connection.sendall(data[sent:])


def _handed_over(connection: socket.socket, count: int) -> tuple[dict[str, Any], list[int]]:
    """What `hand_over` has given: the object, at most `count` files."""
    connection.settimeout(HANDOVER_SECONDS)
    data, files, _, _ = socket.recv_fds(connection, 1 << 16, count)
    while not data.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more or len(data) > _MOST:
            os._exit(1)
        data += more
    connection.settimeout(None)
    given: dict[str, Any] = json.loads(data)
    return given, files


def _become(given: dict[str, Any]) -> None:
    """Take on directory, environment and mask of what a new process would have."""
    os.chdir(given["directory"])
    os.umask(given["umask"])
    os.environ.clear()
    os.environ.update(given["environ"])
    time.tzset()
