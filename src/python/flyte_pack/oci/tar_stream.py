"""Reads the members of a tar stream, in the formats of images: ustar, pax, GNU's long names.

POSIX.1-2008, pax: "ustar Interchange Format" and "pax Interchange Format"; GNU tar's manual, "Basic
Tar Format". A hostile stream raises `InvalidImage` and never takes much memory. Names are bytes:
those in an image need not be UTF-8.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from flyte_pack.oci.model import InvalidImage

REGULAR, HARD_LINK, SYMLINK, DIRECTORY = b"0", b"1", b"2", b"5"
_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_MAX_HEADERS = 6_000_000  # of all kinds
_MAX_HEADER = 1 << 20  # bytes of a pax header, which may hold extended attributes
_MAX_TIME = (1 << 34) - 1  # what every file system takes


@dataclass
class Member:
    """kind: the type flag; REGULAR for every regular file. Times in seconds."""

    name: bytes
    kind: bytes
    mode: int
    size: int
    mtime: int
    link: bytes
    uid: int
    gid: int
    _stream: TarStream = field(repr=False)

    def content(self) -> Iterator[memoryview]:
        """A regular file's, in pieces; to be taken before the next member."""
        return self._stream.content()


class TarStream:
    """The members of a stream of plain tar, one after another."""

    def __init__(self, pieces: Iterator[bytes], what: str) -> None:
        self._pieces = pieces
        self._what = what
        self._view = memoryview(b"")
        self._at = 0
        self._left = 0  # of the member's content
        self._padding = 0
        self._headers = 0

    def __iter__(self) -> Iterator[Member]:
        """Raises `InvalidImage`. Reads the stream to its end, so that its maker can check it."""
        pax: dict[bytes, bytes] = {}
        while (header := self._header()) is not None:
            if header[156:157] in (b"x", b"g", b"L", b"K"):
                self._extend(pax, header)
                continue
            yield self._member(header, pax)
            for _ in self.content():
                pass
            pax = {}
        for _ in self._pieces:
            pass

    def _header(self) -> bytes | None:
        block = self._take(_BLOCK, may_end=True)
        if block is None or block == _ZEROS:
            return None
        self._headers += 1
        if self._headers > _MAX_HEADERS:
            raise InvalidImage(f"{self._what}: holds more than {_MAX_HEADERS:,} headers")
        header = bytes(block)
        self._check(header)
        return header

    def _extend(self, pax: dict[bytes, bytes], header: bytes) -> None:
        kind, data = header[156:157], self._extension(self._number(header[124:136]))
        if kind == b"x":
            pax.update(self._records(data))
        elif kind != b"g":  # a global header says nothing that matters here
            pax[b"path" if kind == b"L" else b"linkpath"] = data.rstrip(b"\0")

    def _member(self, header: bytes, pax: dict[bytes, bytes]) -> Member:
        kind, size = header[156:157], self._number(header[124:136])
        if kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in pax):
            raise InvalidImage(f"{self._what}: holds a sparse file, which no image should")
        if b"size" in pax:
            size = self._decimal(pax[b"size"])
        name = pax.get(b"path") or self._ustar_name(header)
        link = pax.get(b"linkpath") or header[157:257].partition(b"\0")[0]
        if b"\0" in name + link:
            raise InvalidImage(f"{self._what}: {name!r:.200} is an invalid path")
        if kind in (b"\0", b"7"):
            kind = DIRECTORY if name.endswith(b"/") else REGULAR
        self._left, self._padding = (size, -size % _BLOCK) if kind == REGULAR else (0, 0)
        mode = self._number(header[100:108]) & 0o7777
        mtime = min(self._number(header[136:148]), _MAX_TIME)
        uid = self._decimal(pax[b"uid"]) if b"uid" in pax else self._number(header[108:116])
        gid = self._decimal(pax[b"gid"]) if b"gid" in pax else self._number(header[116:124])
        return Member(name, kind, mode, size, mtime, link, uid, gid, self)

    def content(self) -> Iterator[memoryview]:
        """What is left of the content of the member at hand."""
        while self._left:
            piece = self._take_some(self._left)
            self._left -= len(piece)
            yield piece
        if self._padding:
            self._take(self._padding)
            self._padding = 0

    def _take_some(self, most: int) -> memoryview:
        if self._at == len(self._view):
            self._view, self._at = memoryview(self._next()), 0
        piece = self._view[self._at : self._at + most]
        self._at += len(piece)
        return piece

    def _take(self, size: int, may_end: bool = False) -> memoryview | None:
        """The next `size` bytes, which are few; None where `may_end` and nothing follows."""
        end = self._at + size
        if end > len(self._view):
            rest = bytes(self._view[self._at :])
            while len(rest) < size:
                try:
                    rest += next(self._pieces)
                except StopIteration:
                    if may_end and not rest:
                        return None
                    raise self._truncated() from None
            self._view, self._at, end = memoryview(rest), 0, size
        view = self._view[self._at : end]
        self._at = end
        return view

    def _next(self) -> bytes:
        for piece in self._pieces:
            if piece:
                return piece
        raise self._truncated()

    def _truncated(self) -> InvalidImage:
        return InvalidImage(f"{self._what}: is truncated: it ends in the middle of its tar")

    def _check(self, header: bytes) -> None:
        stored = self._number(header[148:156])
        # The sum of all bytes, with the field itself as blanks. The low half of an Adler-32 is
        # the sum plus one, modulo 65521, at a tenth of the cost of sum().
        expected = 1 + stored - 8 * 0x20 + sum(header[148:156])
        if zlib.adler32(header) & 0xFFFF != expected % 65521:
            raise InvalidImage(f"{self._what}: is not a tar: the checksum of a header is wrong")

    def _extension(self, size: int) -> bytes:
        if not 0 < size <= _MAX_HEADER:
            raise InvalidImage(f"{self._what}: has an extended header of {size:,} bytes")
        padded = self._take(size + -size % _BLOCK)
        assert padded is not None
        return bytes(padded[:size])

    def _records(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        at = 0
        while at < len(data):
            digits, blank, _ = data[at : at + 20].partition(b" ")
            end = at + int(digits) if blank and digits.isdigit() else 0
            key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
            if not at < end <= len(data) or not equals or data[end - 1 : end] != b"\n":
                raise InvalidImage(f"{self._what}: has a damaged pax header")
            yield key, value
            at = end

    def _number(self, field: bytes) -> int:
        """Octal digits between blanks, or GNU's base 256."""
        if field[0] & 0x80:  # a negative number begins with 0xFF
            return int.from_bytes(field[1:], "big") if field[0] == 0x80 else 0
        digits = field.partition(b"\0")[0].strip(b" ")
        try:
            return int(digits, 8) if digits else 0
        except ValueError:
            raise InvalidImage(f"{self._what}: {field!r} in a tar header is not a number") from None

    def _decimal(self, text: bytes) -> int:
        if not text.isdigit() or len(text) > 18:
            raise InvalidImage(f"{self._what}: {text[:40]!r} in a pax header is not a number")
        return int(text)

    def _ustar_name(self, header: bytes) -> bytes:
        name = header[:100].partition(b"\0")[0]
        # GNU's format has other things in the place of the prefix.
        prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
        return b"%b/%b" % (prefix, name) if prefix else name
