"""What this user has checked on this machine, so that it is not checked again each time.

A fact is a list of words, and an empty file named by their SHA-256: there is nothing to parse, two
processes that add the same fact agree, and losing facts costs time only. Facts are believed, so
they are kept only in a directory of our own that nobody else can write.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from contextlib import suppress

from flyte_shim.safe import UnsafeDirectory, check_private, safe_directory

_MOST = 50_000


class Remembered:
    """directory: made with the first fact; by default in the user's cache."""

    def __init__(self, directory: str | None = None) -> None:
        self._directory = _cache("checked") if directory is None else directory

    def has(self, *fact: str, within: float | None = None) -> bool:
        """within: seconds since it was added, for facts that may cease to be true."""
        try:
            if not _is_ours(self._directory):
                return False
            found = os.lstat(self._path(fact))
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and (
            within is None or 0 <= time.time() - found.st_mtime < within
        )

    def add(self, *fact: str) -> None:
        """Where nothing can be written, nothing is remembered."""
        with suppress(OSError):
            os.makedirs(self._directory, 0o700, exist_ok=True)
            if _is_ours(self._directory):
                path = self._path(fact)
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
                os.utime(path)
                if os.path.basename(path).startswith("00"):  # now and then
                    self._bound()

    def _path(self, fact: tuple[str, ...]) -> str:
        return os.path.join(self._directory, hashlib.sha256(json.dumps(fact).encode()).hexdigest())

    def _bound(self) -> None:
        with os.scandir(self._directory) as entries:
            found = sorted((entry.stat().st_mtime, entry.path) for entry in entries)
        if len(found) > _MOST:
            for _, path in found[: len(found) // 2]:
                os.unlink(path)


def private_cache(name: str) -> str | None:
    """A directory in the user's cache, made if it is missing; None if others can change it, or if
    it cannot be made.
    """
    directory = _cache(name)
    with suppress(OSError):
        os.makedirs(directory, 0o700, exist_ok=True)
    return directory if _is_ours(directory) else None


def _cache(name: str) -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "pants-flyte", name)


def _is_ours(directory: str) -> bool:
    """Whether root or we alone can change what is there, and all directories above it."""
    if not os.path.isdir(directory):
        return False
    try:
        check_private(safe_directory(directory, ""), "")
    except (UnsafeDirectory, OSError):
        return False
    return True
