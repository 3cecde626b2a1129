"""Tar headers that depend on nothing but the path, mode, owner and size of a member.

The format is POSIX ustar (IEEE Std 1003.1, pax, "ustar Interchange Format"), preceded by a pax
extended header where ustar cannot describe the file: a path that is not ASCII or does not fit the
two fields for it, a size of 8 GiB or more, an owner above 2,097,151. Times are zero. Owner and
group have no names, and are zero unless asked for. Two blocks of zeros end an archive.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Tuple
from zlib import adler32

BLOCK = 512
END = bytes(2 * BLOCK)

Owner = Tuple[int, int]  # numbers of user and group
ROOT: Owner = (0, 0)

_ZEROS = bytes(BLOCK)
_TIME = b"00000000000\0"
_REGULAR = b"0"
_HARD_LINK = b"1"
_SYMLINK = b"2"
_DIRECTORY = b"5"
_EXTENDED = b"x"
_MAX_SIZE = 8 << 30  # the size field holds eleven octal digits
_MAX_ID = 1 << 21  # the fields of user and group hold seven


def header(path: str, mode: int, size: int, owner: Owner = ROOT) -> bytes:
    """The block(s) that go before the content of a regular file.

    path: relative, with "/"; mode: permissions; size: in bytes.
    """
    return _header(path, mode, size, owner, _REGULAR)


def directory(path: str, mode: int, owner: Owner = ROOT) -> bytes:
    """The block(s) of a directory; `path` as for a file."""
    return _header(f"{path}/", mode, 0, owner, _DIRECTORY)


def symlink(path: str, target: str, owner: Owner = ROOT) -> bytes:
    """The block(s) of a symbolic link to `target`."""
    return _header(path, 0o777, 0, owner, _SYMLINK, target.encode())


def hard_link(path: str, target: str, mode: int) -> bytes:
    """The block(s) of another name for `target`, a file before it in the archive."""
    return _header(path, mode, 0, ROOT, _HARD_LINK, target.encode())


def _header(
    path: str, mode: int, size: int, owner: Owner, kind: bytes, target: bytes = b""
) -> bytes:
    name = path.encode()
    fields = _split(name)
    small = size < _MAX_SIZE and max(owner) < _MAX_ID
    if fields is not None and small and len(target) <= 100 and target.isascii():
        return _block(*fields, mode, size, kind, owner, target)
    records = []
    if fields is None:
        records.append(_record(b"path", name))
        fields = b"", b"%.100b" % name
    if len(target) > 100 or not target.isascii():
        records.append(_record(b"linkpath", target))
        target = b""
    if size >= _MAX_SIZE:
        records.append(_record(b"size", b"%d" % size))
        size = 0
    if max(owner) >= _MAX_ID:
        records += [_record(key, b"%d" % number) for key, number in zip((b"uid", b"gid"), owner)]
        owner = ROOT
    extension = b"".join(records)
    before = _block(b"", b"pax_header", 0o644, len(extension), _EXTENDED, ROOT, b"")
    block = _block(*fields, mode, size, kind, owner, target)
    return before + extension + padding(len(extension)) + block


def padding(size: int) -> bytes:
    """The zeros that fill the last block of `size` bytes of content."""
    return _ZEROS[: -size % BLOCK]


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """`name` as ustar's prefix and name fields, or None if it needs a pax header."""
    if not name.isascii():
        return None
    if len(name) <= 100:
        return b"", name
    # The shortest prefix that leaves a name of 100 bytes at most; both must be there.
    slash = name.find(b"/", len(name) - 101, 156)
    if slash < 1 or slash + 1 == len(name):
        return None
    return name[:slash], name[slash + 1 :]


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record: its own length in decimal, a space, `key=value`, a newline."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _block(
    prefix: bytes, name: bytes, mode: int, size: int, kind: bytes, owner: Owner, target: bytes
) -> bytes:
    before = b"%b%b%011o\0" % (name.ljust(100, b"\0"), _rights(mode, owner), size) + _TIME
    after, sum_after = _after_checksum(prefix, kind, target)
    # The checksum is the sum of all bytes, those of its own field counted as spaces.
    return b"%b%06o\0 %b" % (before, _sum(before) + 8 * 0x20 + sum_after, after)


@lru_cache
def _rights(mode: int, owner: Owner) -> bytes:
    return b"%07o\0%07o\0%07o\0" % (mode, *owner)


@lru_cache
def _after_checksum(prefix: bytes, kind: bytes, target: bytes) -> tuple[bytes, int]:
    devices = b"0000000\0" * 2
    link, rest = target.ljust(100, b"\0"), prefix.ljust(167, b"\0")
    after = b"%b%bustar\x0000%b%b%b" % (kind, link, bytes(64), devices, rest)
    return after, _sum(after)


def _sum(data: bytes) -> int:
    """The sum of the bytes: the low half of Adler-32 is the sum plus one, modulo 65521.

    No part of a header comes near that modulus: a path is split only if it is ASCII, so at most
    200 bytes are not.
    """
    return (adler32(data) & 0xFFFF) - 1
