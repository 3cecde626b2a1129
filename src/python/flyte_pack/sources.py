"""Reads the files of directories and nothing outside them: no symbolic link is followed there."""

from __future__ import annotations

import errno
import os
import stat

from flyte_pack.errors import UserError

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # so that a pipe cannot hang us
_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY


class SourceTree:
    """The directory of sources, held open; a context manager.

    The directories in it are Pants', which may keep them elsewhere for several sandboxes and put
    links here. What is in those is the user's.

    Directories are opened one component at a time and relative to one another, so what is checked
    is what is read. Those above the last file stay open, which makes files in order of their paths
    cheap. Names are UTF-8 whatever the locale says.
    """

    def __init__(self, root: str) -> None:
        """Raises `UserError` where `root` is no directory. (`root` itself may be a link.)"""
        try:
            self._open = [os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)]
        except OSError as error:
            raise UserError(f"the directory of sources, {root}: {error.strerror}") from error
        self._names: list[str] = []
        self._parent: str | None = ""

    def __enter__(self) -> SourceTree:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open:
            os.close(fd)

    def open(self, path: str) -> tuple[int, os.stat_result]:
        """Open the regular file at `path`, relative to the root; the caller closes the descriptor.

        Raises `UserError` for what is missing, unreadable, a link, or no regular file, and for a
        path that leads out of the root.
        """
        parent, _, name = path.rpartition("/")
        try:
            if parent != self._parent:
                self._change_parent(parent)
            fd = os.open(name.encode(), _FILE, dir_fd=self._open[-1])
        except (OSError, ValueError) as error:
            raise UserError(f"{path!r}: {_reason(error)}") from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
            raise UserError(f"{path!r}: is {kind}; a bundle holds regular files")
        return fd, status

    def _change_parent(self, path: str) -> None:
        names = path.split("/") if path else []
        if ".." in names:
            raise ValueError("leads out of the directory of sources")
        self._parent = None  # until all of it is open
        shared = 0
        while names[shared : shared + 1] == self._names[shared : shared + 1] != []:
            shared += 1
        del self._names[shared:]
        while len(self._open) > shared + 1:
            os.close(self._open.pop())
        for name in names[shared:]:
            flags = _DIRECTORY if self._names else _DIRECTORY & ~os.O_NOFOLLOW
            self._open.append(os.open(name.encode(), flags, dir_fd=self._open[-1]))
            self._names.append(name)
        self._parent = path


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return str(error)
    if error.errno == errno.ENOENT:
        return "is not among the sources"
    # Linux says ENOTDIR of a link that O_DIRECTORY met, and of a file used as a directory.
    if error.errno == errno.ELOOP:
        return "is a symbolic link; a bundle holds regular files"
    if error.errno == errno.ENOTDIR:
        return "has a symbolic link or a file where a directory should be"
    return error.strerror or str(error)
