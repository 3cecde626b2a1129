"""File operations whose versions in the standard library are slow to import."""

from __future__ import annotations

import os


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`; a disk that fills up first causes a short write."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def forbids_programs(path: str) -> bool:
    """Whether the file system of `path` is mounted noexec (mount(8)), as far as the system says."""
    return bool(os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 0))


def remove_tree(path: str) -> None:
    """Remove a directory if it exists, even with read-only directories in it; follows no link."""
    try:
        os.chmod(path, 0o700)
        with os.scandir(path) as scan:
            children = list(scan)
    except FileNotFoundError:
        return
    for child in children:
        if child.is_dir(follow_symlinks=False):
            remove_tree(child.path)
        else:
            os.unlink(child.path)
    os.rmdir(path)


def make_directory(path: str) -> None:
    """Make a directory that only its owner can read, if it does not exist."""
    try:  # noqa: SIM105
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass


def unlink(path: str) -> None:
    """Remove a file or link if it exists."""
    try:  # noqa: SIM105
        os.unlink(path)
    except FileNotFoundError:
        pass
