"""Has a process run the task that stands by, and has imported Flyte already.

It gets what this one has: files, arguments, variables, directory. This one hands on the signals
that it gets, ends as the task ends, and takes the task along if it is killed.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from flyte_pack.deploy import standby
from flyte_pack.deploy.start import Start
from flyte_pack.flyte_side import MAIN
from flyte_pack.flyte_side.standby import HANDOVER_SECONDS, RUNS_TASKS
from flyte_pack.progress import write

_UNKNOWN = 1  # the exit code where that of the task was lost
_HANDED_ON = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH),
)


def stand_in(command: Sequence[str], held: int) -> None:
    """Have one run the task, and end as it does; return where none stands by.

    The next one is started in any case. command: an interpreter, its options, `MAIN`, `run_here`,
    arguments. held: a descriptor that is to stay open as long as the task runs.
    """
    at = list(command).index(MAIN)
    start = Start((command[0],), RUNS_TASKS, dict(os.environ))
    for file in (sys.stdout, sys.stderr):
        file.flush()
    files, arguments = (0, 1, 2, held), command[at + 2 :]
    connection = standby.hand_over(start, files, arguments=arguments)
    standby.leave(start, command[:at])
    if connection is not None:
        _attend(connection)


def _attend(connection: socket.socket) -> None:
    """Return only where there is nothing to attend to."""
    connection.settimeout(HANDOVER_SECONDS)
    try:
        told = connection.recv(64)
    except OSError:
        told = b""
    if not told:  # it was gone; what still comes ends with the connection
        connection.close()
        return
    connection.settimeout(None)
    signal.set_wakeup_fd(-1)  # the shim's, which ends the process
    for one in _HANDED_ON:
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, lambda number, _: connection.sendall(bytes([number])))
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # who is at the other end sees it when the task closes them
        os.dup2(null, standard)
    with suppress(OSError):
        while more := connection.recv(64):
            told += more
    process, *status = map(int, told.split())
    if not status:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        write(sys.stderr, "the process that ran the task is gone: how it ended is not known\n")
        os._exit(_UNKNOWN)
    _end_as(status[0])


def _end_as(status: int) -> NoReturn:
    """status: as wait(2) has it."""
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = os.WTERMSIG(status)
        with suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))
