"""Where programs unpack what they run, and keep what they fetched.

`flyte_shim.safe` has the rule.
"""

from __future__ import annotations

import os
import re
import tempfile
import time

from flyte_pack.command import say
from flyte_pack.errors import UserError
from flyte_shim.files import forbids_programs, remove_tree
from flyte_shim.safe import UnsafeDirectory, first_usable, safe_directory, temporary_places

_MEMORY = "/dev/shm"  # noqa: S108
_OURS = "flyte-pack-"
_LEFT_SECONDS = 86400.0  # nobody takes so long
_LEFT = re.compile(rf"{_OURS}([1-9][0-9]*)-[a-z0-9_]{{8}}")  # as `tempfile` makes names
_TMPDIR = "set TMPDIR to another directory"


def scratch_place(executable: bool = False) -> str:
    """The first usable directory for temporary files ($TMPDIR first), to make one's own in.

    executable: programs in it are run. Tells of places that are passed over because they are not
    safe, or mounted noexec. Raises `UserError` if none is left.
    """
    failure = ""
    for place in temporary_places():
        try:
            found = safe_directory(place, _TMPDIR)
            noexec = executable and forbids_programs(found)
        except UnsafeDirectory as error:
            failure = str(error)
            _warn(f"{place} is not used for temporary files: {error}")
            continue
        except OSError as error:
            failure = failure or f"{error.filename or place}: {error.strerror}"
            continue
        if noexec:
            failure = (
                f"{found} is on a file system that is mounted noexec, so no program runs there"
            )
            _warn(f"{place} is not used for temporary files: {failure}")
        elif os.access(found, os.W_OK | os.X_OK):
            return found
        else:
            failure = failure or f"{found} cannot be written"
    more = ", on a file system that is not mounted noexec" if executable else ""
    raise UserError(
        f"no place for temporary files: {failure}. Set TMPDIR to a directory that you can write"
        f"{more}"
    )


def new_in_memory(room: int) -> str | None:
    """A new directory whose files are in memory, if `room` bytes are free there; else None.

    TMPDIR is the user's choice of another place. What killed processes have left there is removed.
    """
    if os.environ.get("TMPDIR") or not os.path.isdir(_MEMORY):
        return None
    try:
        place = safe_directory(_MEMORY, "")
        about = os.statvfs(place)
        if about.f_bavail * about.f_frsize < room or forbids_programs(place):
            return None
        _sweep(place)
        return tempfile.mkdtemp(prefix=f"{_OURS}{os.getpid()}-", dir=place)
    except (UnsafeDirectory, OSError):
        return None


def _sweep(place: str) -> None:
    with os.scandir(place) as entries:
        found = [(entry.path, match) for entry in entries if (match := _LEFT.fullmatch(entry.name))]
    for path, match in found:
        about = os.lstat(path)
        # Of a process of another container, nothing here can tell whether it lives.
        if about.st_uid == os.getuid() and about.st_mtime < time.time() - _LEFT_SECONDS:
            try:
                os.kill(int(match[1]), 0)
            except ProcessLookupError:
                remove_tree(path)


def user_cache() -> str:
    """The directory of what is kept between runs. Raises `UserError`."""
    return first_usable("pants-flyte", "set XDG_CACHE_HOME to another directory", _writable, _warn)


def _writable(directory: str) -> str:
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(13, "Permission denied", directory)
    return directory


def _warn(message: str) -> None:
    say(f"warning: {message}")
