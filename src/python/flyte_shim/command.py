"""Becomes the task's command, and finds in it what it says about the bundle."""

from __future__ import annotations

# The module signal takes longer to import than all that a warm start does.
import _signal  # type: ignore[import-not-found]
import errno
import os

from flyte_shim.errors import CommandNotExecutable, CommandNotFound, ShimError


def option(command: list[str], name: str) -> str | None:
    """The value of an option (`--tgz`, say) among a command's arguments, None if it is not there.

    As click has it, which parses a0's command line: `--name value` or `--name=value`, the last one
    counts, and nothing is an option after `--`.
    """
    value = None
    arguments = iter(command[1:])
    for argument in arguments:
        if argument == "--":
            break
        if argument == name:
            value = next(arguments, None)
        elif argument.startswith(f"{name}="):
            value = argument[len(name) + 1 :]
    return value


def become(command: list[str]) -> None:
    """Replace this process by `command`, looked up as a shell does; returns only by an exception.

    The process stays the same: signals reach the command, and its exit code is what the parent of
    the shim sees.
    """
    # Python ignores these, and what is ignored stays so across exec.
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    name = command[0]
    if "/" in name:
        candidates = [name]
    else:
        path = os.environ.get("PATH", os.defpath)
        candidates = [f"{directory or '.'}/{name}" for directory in path.split(":")]
    failure: ShimError = CommandNotFound(
        f"There is no command {name!r}. It has to be on PATH, or be given with its path."
    )
    for candidate in candidates:
        try:
            os.execv(candidate, command)  # noqa: S606
        except OSError as error:
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
            if missing and not os.path.isfile(candidate):
                continue
            why = "its interpreter is missing" if missing else error.strerror
            failure = CommandNotExecutable(f"The command {candidate} can not be run: {why}.")
            if error.errno != errno.EACCES:
                break
    raise failure
