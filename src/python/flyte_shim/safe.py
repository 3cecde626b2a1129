"""Directories out of which something is run: only root and the current user can change them.

A directory is safe if each directory from the root down to it belongs to root or to us, and others
(its group, or anyone) can write to it only with the sticky bit: then they can add names, but not
rename or remove what is ours (inode(7)). Symbolic links on the way are followed by hand. One in a
directory that others can write must be root's or ours; where it leads is checked like the rest.

Nobody can exchange a directory between the check and its use: each name is looked up in a directory
that was checked before, and what it names belongs to root or us. A directory that is missing is
made and then looked at, so it does not matter who was first.

The owner of `/` is as good as root. In a user namespace (a rootless container) that may be the
overflow user 65534, who stands for every user without a number there. So this owner counts as root
only in directories that others cannot write.

Access lists (acl(5)) need no look: they give no more than the bits of the group show.
"""

from __future__ import annotations

import errno
import os
import stat

from flyte_shim.errors import StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Callable, TypeVar

    T = TypeVar("T")

# The last one is for containers whose other writable places are open to everybody.
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
_MAX_LINKS = 40  # as in the kernel (path_resolution(7))


class UnsafeDirectory(StorageError):
    """Another user could change what is in the directory."""


def safe_directory(path: str, otherwise: str, mode: int = 0o700) -> str:
    """The absolute path of a safe directory, without links; what is missing is made with `mode`.

    otherwise: what to do if the directory has to stay as it is, such as "set X to another
    directory". Raises UnsafeDirectory, or OSError.
    """
    top = os.stat("/")
    _check("/", top, False, top.st_uid, otherwise)
    # The directories down to where we are: the path, and whether others can write to it.
    above = [("", _is_shared(top))]
    todo = path.split("/")[::-1]
    if path[:1] != "/":
        todo += os.getcwd().split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == ".." and len(above) > 1:
            above.pop()
        if part in ("", ".", ".."):
            continue
        at, shared = above[-1]
        here = f"{at}/{part}"
        status = _made(here, mode)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), here)
            if shared:
                _check_owner(here, status, shared, top.st_uid, otherwise)
            target = os.readlink(here)
            if target[:1] == "/":
                del above[1:]
            todo += target.split("/")[::-1]
        elif stat.S_ISDIR(status.st_mode):
            _check(here, status, shared, top.st_uid, otherwise)
            above.append((here, _is_shared(status)))
        else:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)
    return above[-1][0] or "/"


def check_private(path: str, otherwise: str) -> None:
    """Refuse what is not a directory that root or we alone can write; raises UnsafeDirectory.

    `path` is in a safe directory. May raise OSError.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeDirectory(f"{path} is not a directory. Remove it")
    _check_owner(path, status, True, 0, otherwise)
    if _is_shared(status):
        raise UnsafeDirectory(f"{path} can be written by {_who(status)}. Remove it, or {otherwise}")


def first_usable(
    name: str, otherwise: str, use: Callable[[str], T], warn: Callable[[str], None]
) -> T:
    """What `use` makes of the first safe one of the default places for a cache.

    name: of the directory there. Tells `warn` of places that are not safe, and which place it is
    and why, if that is not below XDG_CACHE_HOME or HOME. Places that `use` fails for, by
    StorageError or OSError, are passed over. Raises StorageError if none is left.
    """
    failure: Exception | None = None
    reason = ""
    homes = _homes(name)
    if not homes:
        reason = "HOME is no absolute path" if os.environ.get("HOME") else "HOME is not set"
    for place in _default_places(homes, name):
        try:
            found = safe_directory(place, otherwise)
            used = use(found)
        except UnsafeDirectory as error:
            failure = error
            warn(f"{place} is not used: {error}")
        except StorageError as error:
            failure = error
        except OSError as error:
            failure = StorageError(f"{error.filename or place}: {error.strerror}")
        else:
            if place not in homes:
                warn(f"the cache is {found}, as {reason}")
            return used
        unsafe = isinstance(failure, UnsafeDirectory)
        reason = reason or ("that is safe" if unsafe else str(failure))
    raise StorageError(
        f"no place for the cache: {failure}. {otherwise[0].upper()}{otherwise[1:]} that the user "
        f"with the id {os.geteuid()} can write"
    )


def temporary_places() -> list[str]:
    """Where temporary files may be, best first; not checked."""
    found = [os.environ.get("TMPDIR", ""), *TEMPORARY]
    return list(dict.fromkeys(place for place in found if place[:1] == "/"))


def _homes(name: str) -> list[str]:
    """Where a cache of the user's own may be."""
    environ = os.environ
    wanted = (("XDG_CACHE_HOME", name), ("HOME", f".cache/{name}"))
    # The XDG base directory specification says to ignore relative paths.
    return [
        f"{environ[variable].rstrip('/')}/{below}"
        for variable, below in wanted
        if environ.get(variable, "")[:1] == "/"
    ]


def _default_places(homes: list[str], name: str) -> Iterator[str]:
    yield from homes
    own = f"{name}-{os.geteuid()}"
    places = temporary_places()
    for base in places:
        yield f"{base}/{own}"
    # Others have taken those names: a name that nobody knows before, and later starts find again.
    for base in places:
        yield from _private_places(base, f"{own}-")


def _private_places(base: str, prefix: str) -> Iterator[str]:
    try:
        safe_directory(base, "")
        for name in sorted(os.listdir(base)):
            if name.startswith(prefix) and os.lstat(f"{base}/{name}").st_uid == os.geteuid():
                yield f"{base}/{name}"
        import tempfile  # only here, for its import takes longer than a whole warm start

        yield tempfile.mkdtemp(prefix=prefix, dir=base)
    except (UnsafeDirectory, OSError):
        return


def _made(path: str, mode: int) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        try:  # noqa: SIM105
            os.mkdir(path, mode)
        except FileExistsError:
            pass
        return os.lstat(path)


def _check(path: str, status: os.stat_result, shared: bool, top: int, otherwise: str) -> None:
    """Refuse a directory that others could change. shared: whether they can write above it."""
    _check_owner(path, status, shared, top, otherwise)
    if _is_shared(status) and not status.st_mode & stat.S_ISVTX:
        raise UnsafeDirectory(
            f"{path} can be written by {_who(status)}, without the sticky bit, so others could "
            f"change what is run. Run `chmod go-w {path}` or `chmod +t {path}`, or {otherwise}"
        )


def _check_owner(path: str, status: os.stat_result, shared: bool, top: int, otherwise: str) -> None:
    uid, us = status.st_uid, os.geteuid()
    if uid not in (0, us) and (shared or uid != top):
        raise UnsafeDirectory(
            f"{path} belongs to the user with the id {uid}, not to root or the current user {us}, "
            f"so others could change what is run. Change its owner, or {otherwise}"
        )


def _is_shared(status: os.stat_result) -> bool:
    return bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _who(status: os.stat_result) -> str:
    if status.st_mode & stat.S_IWOTH:
        return "anyone"
    return f"its group (the id {status.st_gid})"
