"""Files and directories that are there in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from flyte_pack.errors import UserError


@contextmanager
def fresh_entries(place: str) -> Iterator[str]:
    """A directory to fill. When the block ends well, its entries become those of `place`.

    `place` is made if it is missing. Raises `UserError` if it has one of the entries, or `OSError`.
    """
    import shutil  # here, for the two would slow down the packing of bundles, which needs none
    import tempfile

    place = os.path.abspath(place)
    new = not os.path.isdir(place)
    os.makedirs(place, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=".new-", dir=place)
    try:
        yield temporary
        entries = sorted(os.listdir(temporary))
        for entry in entries:
            if os.path.lexists(os.path.join(place, entry)):
                raise UserError(f"{place} has {entry!r} already: name another place")
        for entry in entries:
            os.rename(os.path.join(temporary, entry), os.path.join(place, entry))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if new and not os.listdir(place):
            os.rmdir(place)


def write_report(place: str | None, document: bytes) -> None:
    """Write what a run did into the file `place`, if there is to be one; an old one goes."""
    if place is not None:
        with fresh_file(place) as path, open(path, "wb") as file:
            file.write(document)


@contextmanager
def fresh_file(place: str) -> Iterator[str]:
    """The path of a file to write. When the block ends well, it becomes `place`, or replaces it."""
    os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
    temporary = f"{place}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, place)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
