"""A process that has imported Flyte and waits, for a while, to be `describe` or `client`.

The program that wants one connects to its socket, and hands over what it would have started a new
process with. `flyte_pack.deploy.standby` starts and takes it, and says what is in the directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from . import serve

IDLE_SECONDS = 15 * 60.0
_REST_SECONDS = 2.0  # whoever deployed may wait for what comes next; nobody edits that fast
_HANDOVER_SECONDS = 10.0
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
    role = import_module(f".{name}", __package__).role()
    serve.prepare(role, lambda _: os._exit(1))
    role.rest()
    with suppress(FileNotFoundError):
        os.unlink(path)  # of one that was killed
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        connection = _wait(listener, watched)
        os.unlink(path)
    if connection is None:
        os._exit(0)
    sys.argv[1:] = [name]
    _become(connection)
    for fd in (lock, watched):
        os.close(fd)
    serve.serve(role)


def _wait(listener: socket.socket, daemon: int) -> socket.socket | None:
    """The first connection of our own user; None if the daemon ends, or nobody comes."""
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


def _become(connection: socket.socket) -> None:
    """Take on directory, environment and stderr of what a new process would have."""
    connection.settimeout(_HANDOVER_SECONDS)
    data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    while data and not data.endswith(b"\n") and len(data) < _MOST:
        data += connection.recv(1 << 16)
    given: dict[str, Any] = json.loads(data)
    connection.settimeout(None)
    os.dup2(fds[0], 2)
    os.close(fds[0])
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    connection.close()
    os.chdir(given["directory"])
    os.umask(given["umask"])
    os.environ.clear()
    os.environ.update(given["environ"])
    time.tzset()
