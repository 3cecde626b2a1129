"""Replaces the shim by the task's command, and reads that command's options about the bundle."""

from __future__ import annotations

# Importing the module signal takes longer than a whole warm start.
import _signal  # type: ignore[import-not-found]
import errno
import os

from flyte_shim import shown
from flyte_shim.errors import CommandNotExecutable, CommandNotFound, ShimError
from flyte_shim.files import forbids_programs
from flyte_shim.stopping import hand_on


def option(command: list[str], name: str) -> str | None:
    """The value of an option such as `--tgz` in a command line, or None.

    Follows click, which parses a0's command line: `--name value` or `--name=value`, the last one
    wins, and `--` ends the options.
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
    """Replace this process by `command`, found as a shell finds it; returns only by an exception.

    The process stays the same, so the command gets its signals and its parent sees the exit code.
    """
    # Python ignores these signals, and exec would keep them ignored.
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    hand_on()
    name = command[0]
    path = os.environ.get("PATH", os.defpath).split(":")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path]
    failure: ShimError | None = None
    for candidate in candidates:
        try:
            os.execv(candidate, command)  # noqa: S606
        except OSError as error:
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
            if missing and not os.path.isfile(candidate):
                continue
            why = _why_not(candidate, error, missing)
            failure = CommandNotExecutable(
                f"the command {shown.uri(candidate)} cannot be run: {why}"
            )
            if error.errno != errno.EACCES:
                break
    raise failure or CommandNotFound(
        f"there is no command {shown.uri(name)!r}. Put it on PATH, or give its path"
    )


def _why_not(path: str, error: OSError, missing: bool) -> str:
    interpreter = _interpreter(path)
    if missing:
        return "its interpreter is missing" + (f": {shown.uri(interpreter)}" if interpreter else "")
    if error.errno == errno.EACCES:
        for what in filter(None, (path, interpreter)):
            try:
                if os.path.isfile(what) and forbids_programs(what):
                    return (
                        f"{shown.uri(os.path.realpath(what))} is on a file system that is mounted "
                        "noexec. Put it on another one: FLYTE_SHIM_CACHE says where bundles are "
                        "unpacked, --workdir where copies of their files are, and TMPDIR where an "
                        "image is unpacked to be run"
                    )
                if what == interpreter and not os.access(what, os.X_OK):
                    return f"its interpreter {shown.uri(what)} cannot be run: {error.strerror}"
            except OSError:
                continue
    return str(error.strerror)


def _interpreter(path: str) -> str | None:
    """What the first line of a script names (execve(2)), or None."""
    try:
        with open(path, "rb") as file:
            first = file.readline(256)
    except OSError:
        return None
    words = first[2:].split(None, 1) if first[:2] == b"#!" else ()
    return os.fsdecode(words[0]) if words else None
