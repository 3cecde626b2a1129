"""Tar headers that depend on nothing but the path, mode and size of a regular file.

The format is POSIX ustar (IEEE Std 1003.1, pax, "ustar Interchange Format"), preceded by a pax
extended header where ustar cannot describe the file: a path that is not ASCII or does not fit the
two fields for it, a size of 8 GiB or more. Owner, group and times are zero, owner and group have no
names. Two blocks of zeros end an archive; there is no padding beyond them.
"""

from __future__ import annotations

from functools import lru_cache
from zlib import adler32

BLOCK = 512
END = bytes(2 * BLOCK)

_ZEROS = bytes(BLOCK)
_OWNER = b"0000000\0" * 2
_MODES = {0o644: b"0000644\0" + _OWNER, 0o755: b"0000755\0" + _OWNER}
_TIME = b"00000000000\0"
_REGULAR = b"0"
_EXTENDED = b"x"
_LINK_TO_DEVICE = bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2
_MAX_SIZE = 8 << 30  # the size field holds eleven octal digits


def header(path: str, mode: int, size: int) -> bytes:
    """The block(s) that go before the content of a regular file.

    path: relative, with "/"; mode: 0o644 or 0o755; size: in bytes.
    """
    name = path.encode()
    fields = _split(name)
    if fields is not None and size < _MAX_SIZE:
        return _block(*fields, mode, size, _REGULAR)
    records = []
    if fields is None:
        records.append(_record(b"path", name))
        fields = b"", b"%.100b" % name
    if size >= _MAX_SIZE:
        records.append(_record(b"size", b"%d" % size))
    extension = b"".join(records)
    return b"".join(
        (
            _block(b"", b"pax_header", 0o644, len(extension), _EXTENDED),
            extension,
            padding(len(extension)),
            _block(*fields, mode, size if size < _MAX_SIZE else 0, _REGULAR),
        )
    )


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


def _block(prefix: bytes, name: bytes, mode: int, size: int, kind: bytes) -> bytes:
    before = b"%b%b%011o\0" % (name.ljust(100, b"\0"), _MODES[mode], size) + _TIME
    after, sum_after = _after_checksum(prefix, kind)
    # The checksum is the sum of all bytes, those of its own field counted as spaces.
    return b"%b%06o\0 %b" % (before, _sum(before) + 8 * 0x20 + sum_after, after)


@lru_cache
def _after_checksum(prefix: bytes, kind: bytes) -> tuple[bytes, int]:
    after = kind + _LINK_TO_DEVICE + prefix.ljust(167, b"\0")
    return after, _sum(after)


def _sum(data: bytes) -> int:
    """The sum of the bytes: the low half of Adler-32 is that and one more, modulo 65521.

    No header comes near that modulus: it holds 255 bytes of ASCII path at most, or 100 of others.
    """
    return (adler32(data) & 0xFFFF) - 1
