"""Keeps what Python compiles of unpacked code, by content, for the next run.

Each run unpacks into a new directory, and leaves none: Python's own cache, beside the sources,
would be gone with it.
"""

from __future__ import annotations

import _imp
import hashlib
import marshal
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import MAGIC_NUMBER
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import PathEntryFinder

_MOST = 20_000  # files
# As importlib moves what it has read to where the source is now; without it nothing is kept.
_moved: Callable[[CodeType, str], None] | None = getattr(_imp, "_fix_co_filename", None)


def finder_of(root: str, directory: str | None) -> Callable[[str], PathEntryFinder]:
    """An entry of `sys.path_hooks` for what is below `root`.

    directory: where bytecode is kept, which nobody else can write; None for nowhere.
    """
    usual = FileFinder.path_hook(
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (partial(_Loader, directory), SOURCE_SUFFIXES),  # type: ignore[arg-type]
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )

    def finder(path: str) -> PathEntryFinder:
        if not f"{path}{os.sep}".startswith(f"{root}{os.sep}"):
            raise ImportError(f"{path} is not below {root}")
        return usual(path)

    return finder


class _Loader(SourceFileLoader):
    """Writes no bytecode beside the sources."""

    def __init__(self, directory: str | None, name: str, path: str) -> None:
        super().__init__(name, path)
        self._directory = directory

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        if self._directory is None or _moved is None:
            return self.source_to_code(source, path)
        # PYTHONOPTIMIZE, which a local run may have, leaves out assertions.
        how = MAGIC_NUMBER + b"%d " % sys.flags.optimize
        key = hashlib.sha256(how + source).hexdigest()
        kept = os.path.join(self._directory, key)
        with suppress(OSError, EOFError, TypeError, ValueError), open(kept, "rb") as file:
            code = marshal.loads(file.read())  # noqa: S302  # nobody else can write there
            _moved(code, path)
            return code
        made = self.source_to_code(source, path)
        with suppress(OSError):
            _keep(kept, marshal.dumps(made))
        return made


def _keep(path: str, data: bytes) -> None:
    """Write it whole or not at all."""
    directory, key = os.path.split(path)
    if key.startswith("00"):  # now and then
        _bound(directory)
    unfinished = f"{path}.{os.getpid()}"
    with open(unfinished, "wb") as file:
        file.write(data)
    os.replace(unfinished, path)


def _bound(directory: str) -> None:
    with os.scandir(directory) as entries:
        found = sorted((entry.stat().st_mtime, entry.path) for entry in entries)
    for _, path in found[: len(found) // 2] if len(found) > _MOST else ():
        with suppress(FileNotFoundError):
            os.unlink(path)
