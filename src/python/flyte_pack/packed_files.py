"""Looks for secrets in binary files, and in what ZIP and gzip files hold."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO

from flyte_pack.secret_rules import ASSIGNED, BINARY, GZIP, Found, find_secrets, secret_file

_ZIP = b"PK\3\4"
_MOST = 1 << 20  # bytes that are looked at of a member, and of any other binary file
_MOST_INSIDE = 64 << 20  # of all members
_MOST_MEMBERS = 10_000
# What `zipfile` and `gzip` raise for a damaged or encrypted file.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError, KeyError, zlib.error),
    *(zipfile.BadZipFile, struct.error, OverflowError, MemoryError),
)


def found_inside(start: bytes, opened: Callable[[], BinaryIO]) -> Iterator[Found]:
    """Without lines. start: of the file, or all of it. opened: gives the whole, at its start.

    A wheel or a jar is a ZIP archive. What cannot be unpacked holds nothing, and what is packed in
    what is packed is not unpacked.
    """
    if start.startswith(_ZIP):
        with suppress(*_UNREADABLE), opened() as file, zipfile.ZipFile(file) as archive:
            yield from _in_archive(archive)
    elif start.startswith(GZIP):
        with suppress(*_UNREADABLE), opened() as file, gzip.open(file) as inner:
            for _ in range(_MOST_INSIDE // _MOST):
                if not (data := inner.read(_MOST)):
                    break
                yield from _in_packed(data, "")
    else:
        yield from _in_packed(start[:_MOST], "")


def _in_archive(archive: zipfile.ZipFile) -> Iterator[Found]:
    left = _MOST_INSIDE
    for member in archive.infolist()[:_MOST_MEMBERS]:
        name = member.filename[:200]
        if kind := secret_file(name):
            yield Found(0, f"{kind}{_in(name)}", ())
        with suppress(*_UNREADABLE), archive.open(member) as inner:
            data = inner.read(min(_MOST, left))
            left -= len(data)
            yield from _in_packed(data, name)


def _in_packed(data: bytes, name: str) -> Iterator[Found]:
    is_binary = b"\0" in data[:BINARY]
    for found in find_secrets(data):
        if not is_binary or found.rule != ASSIGNED:  # which needs the words of a text
            yield Found(0, f"{found.rule}{_in(name)}", found.hashes)


def _in(name: str) -> str:
    if not name:
        return ""
    return " in one of its members" if find_secrets(name.encode()) else f" in its member {name}"
