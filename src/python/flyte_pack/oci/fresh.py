"""A directory or file that is there in full or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


class NotEmpty(Exception):
    """What was to be made is there already; the message names it."""


@contextmanager
def fresh_directory(place: str) -> Iterator[str]:
    """A directory to fill, which becomes `place` when the block ends well and is removed when it does not.

    Raises `NotEmpty` where `place` is anything but an empty directory, `OSError` where it can't be made.
    """
    place = os.path.abspath(place)
    if os.path.lexists(place) and not (os.path.isdir(place) and not os.listdir(place)):
        raise NotEmpty(f"{place} is there already: name another place, or remove it")
    os.makedirs(os.path.dirname(place), exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=f".{os.path.basename(place)}-", dir=os.path.dirname(place))
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o777 & ~umask)  # mkdtemp makes it for us alone
        os.rename(temporary, place)  # takes the place of an empty directory, and of nothing else
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def fresh_file(place: str) -> Iterator[str]:
    """The path of a file to write, which becomes `place` when the block ends well. Replaces a file that is there."""
    place = os.path.abspath(place)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    temporary = f"{place}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, place)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
