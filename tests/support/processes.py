"""Runs functions in forked processes, and kills them at a chosen step."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import traceback
from typing import Any, Callable

# A line of Python: prints the most memory, in bytes, that this process held. Linux keeps it for each
# program, where getrusage() begins with the highest use of the process that it was started from.
PRINT_PEAK_MEMORY = (
    "print(*(int(line.split()[1]) * 1024"
    " for line in open('/proc/self/status') if line.startswith('VmHWM:')))"
)

# What changes something that outlives the process, or waits for another one.
STEPS = (
    *("chmod", "close", "execv", "ftruncate", "mkdir", "open", "rename", "replace"),
    *("rmdir", "symlink", "unlink", "utime", "write"),
)


def fork(function: Callable[[], int]) -> int:
    """Start `function` in a child, whose exit code is what it returns; the child's process id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """The exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(function: Callable[[], int]) -> int:
    return wait(fork(function))


def killed_at(number: int, function: Callable[[], int]) -> bool:
    """Run `function` in a child that kills itself before its step `number`, counted from 1.

    Whether it came to that; if not, it ended with exit code 0. A write is done by half.
    """
    code = in_child(lambda: _with_steps(number, function))
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def _with_steps(number: int, function: Callable[[], int]) -> int:
    left = number

    def killing(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                if step.__name__ == "write":
                    step(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*args, **kwargs)

        return run

    for name in STEPS:
        setattr(os, name, killing(getattr(os, name)))
    fcntl.flock = killing(fcntl.flock)
    return function()
