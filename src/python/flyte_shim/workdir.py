"""Makes the files of a cache entry appear in a task's working directory.

`link` makes symbolic links to the entry's top-level names, so a start takes the same time for ten
files as for ten thousand. If the working directory has a real directory of such a name, the links
are made inside it. `copy` makes real files that the task owns.

Both replace existing files, as tar does, and remove the files of an earlier bundle. The shim lists
its files in `.flyte-shim/record` before it makes them, so the next start completes or undoes one
that was killed. Starts in one directory take turns by a flock on `.flyte-shim/lock`; a start that
finds its bundle in place takes no lock and writes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from flyte_shim.errors import ArchiveError, StorageError
from flyte_shim.files import unlink, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    # The state, empty until complete, and the kinds of the shim's items by their names.
    _Record = tuple[str, dict[str, str]]

OWN_DIRECTORY = ".flyte-shim"
MODES = ("link", "copy")
_RECORD = f"{OWN_DIRECTORY}/record"
_NEW_RECORD = f"{OWN_DIRECTORY}/record.new"
_NEW = f"{OWN_DIRECTORY}/new"
# The kind of an item, which stands before its name in a record.
_LINK, _COPY, _DIRECTORY, _MARKER = "L", "C", "D", "M"
_HEADER = b"flyte-shim 1"


def place(files: str, workdir: str, mode: str, markers: list[str]) -> None:
    """Make the files in the directory `files` of a cache entry appear in `workdir`.

    `mode` is "link" or "copy". `markers` are names of empty files, made last unless they exist.
    If `files` is already in place in that mode, nothing changes, so a task's edits of its copies
    stay. Raises ShimError.
    """
    try:
        if not _in_place(_read_record(workdir), files, workdir, mode, markers):
            _replace(files, workdir, mode, markers)
    except OSError as error:
        raise StorageError(
            f"cannot put the bundle into the working directory {workdir}: {error.strerror} "
            f"({error.filename or workdir})"
        ) from None


def _in_place(record: _Record, files: str, workdir: str, mode: str, markers: list[str]) -> bool:
    state, items = record
    if state != f"{mode} {files}" or os.path.lexists(f"{workdir}/{_NEW_RECORD}"):
        return False
    if not all(os.path.lexists(f"{workdir}/{marker}") for marker in markers):
        return False
    if mode == "copy":
        return True
    return all(
        _is_link_to(f"{workdir}/{name}", f"{files}/{name}")
        for name, kind in items.items()
        if kind == _LINK
    )


def _replace(files: str, workdir: str, mode: str, markers: list[str]) -> None:
    if os.path.lexists(f"{files}/{OWN_DIRECTORY}"):
        raise ArchiveError(
            f"the bundle has a file or directory {OWN_DIRECTORY!r}, which the shim uses itself"
        )
    state = f"{mode} {files}"
    os.makedirs(f"{workdir}/{OWN_DIRECTORY}", exist_ok=True)
    lock = os.open(f"{workdir}/{OWN_DIRECTORY}/lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A start that was killed may have left these.
        unlink(f"{workdir}/{_NEW_RECORD}")
        unlink(f"{workdir}/{_NEW}")
        record = _read_record(workdir)
        if _in_place(record, files, workdir, mode, markers):
            return
        old, items = record
        fresh = old != state
        # Without `fresh`, another process may use this bundle here: add items, remove nothing.
        if fresh:
            _write_record(workdir, "", items)
            for name in sorted(items, reverse=True):  # a directory after its files
                _remove(workdir, name, items[name])
            plan = _to_link if mode == "link" else _to_copy
            items = plan(files, workdir)
        for marker in markers:
            if not os.path.lexists(f"{workdir}/{marker}"):
                items.setdefault(marker, _MARKER)
        _write_record(workdir, "" if fresh else state, items)
        for name, kind in items.items():
            if fresh or kind in (_LINK, _MARKER):
                _make(files, workdir, name, kind)
        _write_record(workdir, state, items)
    finally:
        os.close(lock)


def _to_link(files: str, workdir: str, below: str = "") -> dict[str, str]:
    """The highest names in `files` that are not real directories in `workdir`."""
    items = {}
    for entry in _children(f"{files}/{below}"):
        name = below + entry.name
        if _is_directory(entry, f"{workdir}/{name}"):
            items.update(_to_link(files, workdir, f"{name}/"))
        else:
            items[name] = _LINK
    return items


def _to_copy(files: str, workdir: str, below: str = "") -> dict[str, str]:
    """All files and the missing directories; a directory before its files."""
    items = {}
    for entry in _children(f"{files}/{below}"):
        name = below + entry.name
        if not _is_directory(entry, f"{workdir}/{name}"):
            items[name] = _DIRECTORY if entry.is_dir() else _COPY
        if entry.is_dir():
            items.update(_to_copy(files, workdir, f"{name}/"))
    return items


def _is_directory(entry: os.DirEntry[str], path: str) -> bool:
    """Whether `path` is a real directory; raises StorageError if `entry` cannot replace it."""
    if not os.path.isdir(path):
        return False
    if os.path.islink(path):
        raise StorageError(
            f"{path} is a symbolic link to a directory, and the bundle has the same name. Remove "
            "the link, or choose another working directory"
        )
    if entry.is_dir():
        return True
    raise StorageError(
        f"{path} is a directory, and the bundle has a file of that name. Remove the directory, or "
        "choose another working directory"
    )


def _children(directory: str) -> list[os.DirEntry[str]]:
    """A bundle's files in a directory of its entry, without the links to the bytecode."""
    with os.scandir(directory) as scan:
        children = [entry for entry in scan if not entry.is_symlink()]
    return sorted(children, key=lambda entry: entry.name)


def _make(files: str, workdir: str, name: str, kind: str) -> None:
    path = f"{workdir}/{name}"
    if kind == _LINK:
        if not _is_link_to(path, f"{files}/{name}"):
            _put(workdir, name, os.symlink, f"{files}/{name}")
    elif kind == _COPY:
        _put(workdir, name, _copy_file, f"{files}/{name}")
    elif kind == _MARKER:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
    elif not os.path.isdir(path):
        unlink(path)
        os.mkdir(path)


def _copy_file(source: str, path: str) -> None:
    """Copy a file of the entry with its time; see fetch._mtime."""
    reader = os.open(source, os.O_RDONLY)
    try:
        status = os.fstat(reader)
        mode = 0o755 if status.st_mode & 0o100 else 0o644
        writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            while chunk := os.read(reader, 1 << 20):
                write_all(writer, chunk)
            os.utime(writer, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _put(workdir: str, name: str, make: Callable[[str, str], None], source: str) -> None:
    """Let `make` make a file at `name` from `source`, replacing an existing one atomically."""
    path = f"{workdir}/{name}"
    if not os.path.lexists(path):
        make(source, path)
        return
    new = f"{workdir}/{_NEW}"
    make(source, new)
    try:
        os.replace(new, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A directory in the working directory is another file system.
        os.unlink(new)
        os.unlink(path)
        make(source, path)


def _remove(workdir: str, name: str, kind: str) -> None:
    path = f"{workdir}/{name}"
    above = name.rpartition("/")[0]
    real = os.path.realpath(workdir)
    try:
        # Remove nothing behind a link.
        if above and os.path.realpath(f"{real}/{above}") != f"{real}/{above}":
            return
        status = os.lstat(path)
    except OSError:
        return
    is_file = stat.S_ISREG(status.st_mode)
    if kind == _DIRECTORY and stat.S_ISDIR(status.st_mode):
        try:  # noqa: SIM105
            os.rmdir(path)
        except OSError:
            pass  # A task has put a file into it.
    elif (
        (kind == _LINK and stat.S_ISLNK(status.st_mode))
        or (kind == _COPY and is_file)
        or (kind == _MARKER and is_file and not status.st_size)
    ):
        os.unlink(path)


def _read_record(workdir: str) -> _Record:
    try:
        with open(f"{workdir}/{_RECORD}", "rb", buffering=0) as file:
            header, state, *items = file.readall().split(b"\0")
    except (FileNotFoundError, NotADirectoryError, ValueError):
        header = b""
    if header != _HEADER:
        return "", {}
    names = [os.fsdecode(item) for item in items if item]
    return os.fsdecode(state), {name[1:]: name[0] for name in names}


def _write_record(workdir: str, state: str, items: dict[str, str]) -> None:
    lines = [os.fsencode(kind + name) for name, kind in items.items()]
    with open(f"{workdir}/{_NEW_RECORD}", "wb", buffering=0) as file:
        write_all(file.fileno(), b"\0".join([_HEADER, os.fsencode(state), *lines, b""]))
    os.replace(f"{workdir}/{_NEW_RECORD}", f"{workdir}/{_RECORD}")


def _is_link_to(path: str, target: str) -> bool:
    try:
        return os.readlink(path) == target
    except OSError:
        return False
