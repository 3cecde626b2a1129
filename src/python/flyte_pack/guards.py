"""Looks for what must not ship in the files that are packed, while their bytes are at hand.

The answer is a `Sighting`, which the rules hold against what people allow: so a changed allow-list
packs nothing anew. The hashes of files without a secret are remembered, and an edit of one file
costs a look at that one.
"""

from __future__ import annotations

import io
import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import BinaryIO, NamedTuple, Tuple

from flyte_pack.json_fields import Document, Raw
from flyte_pack.secret_rules import BINARY, GZIP, Found, best_of, find_secrets

# Smaller ones are not worth a word, whatever the option says.
LARGE = 1_000_000
_PIECE = 1 << 20  # of a large file, which is looked at by whole lines
_OVERLAP = 1 << 16  # bytes of a piece that the next begins with: a key has several lines
_MOST_REMEMBERED = 1 << 20  # hashes


class SeenSecret(NamedTuple):
    """A secret in a packed file. source: as the plan names it; the others as in `Found`."""

    source: Raw
    line: int
    rule: Raw
    hashes: Tuple[Raw, ...]


class SeenFile(NamedTuple):
    source: Raw
    size: int


@dataclass(frozen=True)
class Sighting(Document):
    """What was seen; large: all files above `LARGE` bytes."""

    NAME = "sighting"
    COMPACT = True

    secrets: Tuple[SeenSecret, ...]
    large: Tuple[SeenFile, ...]


class Guard:
    """Looks at files, one after another. memory: a directory for what is remembered, if any."""

    def __init__(self, memory: str | None = None) -> None:
        self._memory = memory and os.path.join(memory, _version())
        self._clean = _read(self._memory) if self._memory else frozenset()
        self._new: list[bytes] = []
        self._secrets: list[SeenSecret] = []
        self._large: list[SeenFile] = []

    def look(self, source: str, data: bytes, digest: str | None = None) -> None:
        """At a whole file in memory. digest: its SHA-256, where it is known."""
        key = bytes.fromhex(digest) if digest else sha256(data).digest()
        if len(data) > LARGE:
            self._large.append(SeenFile(source, len(data)))
        if key not in self._clean:
            self._look(source, key, [(data, 1)], lambda: io.BytesIO(data))

    def look_at(self, source: str, fd: int, size: int, digest: str | None = None) -> None:
        """At an open file of any size, from its start."""
        if size <= _PIECE:
            self.look(source, os.pread(fd, size, 0), digest)
            return
        self._large.append(SeenFile(source, size))
        key = bytes.fromhex(digest) if digest else b""
        if key not in self._clean:
            at = os.lseek(fd, 0, os.SEEK_CUR)
            self._look(source, key, _pieces(fd), lambda: os.fdopen(os.dup(fd), "rb"))
            os.lseek(fd, at, os.SEEK_SET)

    def sighting(self) -> Sighting:
        """What was seen; remembers the rest."""
        if self._memory:
            _remember(self._memory, self._new)
        return Sighting(tuple(sorted(self._secrets)), tuple(sorted(self._large)))

    def _look(
        self,
        source: str,
        key: bytes,
        pieces: Iterable[tuple[bytes, int]],
        opened: Callable[[], BinaryIO],
    ) -> None:
        """opened: gives the whole file, at its start."""
        found: set[Found] = set()
        wide = False
        for number, (data, first_line) in enumerate(pieces):
            if not number:
                wide = _is_wide(data[:BINARY])
                if data.startswith(GZIP) or (not wide and b"\0" in data[:BINARY]):
                    from flyte_pack import packed_files  # few need what it imports

                    found.update(packed_files.found_inside(data, opened))
                    break
            found.update(find_secrets(data.replace(b"\0", b"") if wide else data, first_line))
        self._secrets += (SeenSecret(source, *one) for one in best_of(found))
        if key and not found:
            self._new.append(key)


def _is_wide(start: bytes) -> bool:
    """Whether it is UTF-16: every other byte is zero, for what looks like a secret is ASCII."""
    even, odd = start[::2], start[1::2]
    return start[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) or any(
        zeros.count(0) * 10 > len(zeros) * 9 and not text.count(0)
        for zeros, text in ((even, odd), (odd, even))
    )


def _pieces(fd: int) -> Iterator[tuple[bytes, int]]:
    """A file in pieces that overlap, each with the number of its first line."""
    at, line, rest = 0, 1, b""
    while data := os.pread(fd, _PIECE, at):
        at += len(data)
        piece = rest + data
        yield piece, line
        # From the start of a line, where there is one.
        start = piece.find(b"\n", max(len(piece) - _OVERLAP, 0)) + 1
        start = start or max(len(piece) - _OVERLAP, 0)
        line += piece.count(b"\n", 0, start)
        rest = piece[start:]


# --- memory ---------------------------------------------------------------------------------------
#
# A file of SHA-256 hashes, one after another. Several processes append to it at the same time. One
# that is damaged misses hashes, and has none that nobody wrote.


@cache
def _version() -> str:
    """Changes with the rules, and with what they are held against."""
    digest = sha256()
    for name in ("secret_rules", "guards", "packed_files"):
        with open(os.path.join(os.path.dirname(__file__), f"{name}.py"), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


def _read(path: str) -> frozenset[bytes]:
    data = b""
    with suppress(OSError), open(path, "rb") as file:
        data = file.read(32 * _MOST_REMEMBERED)
    return frozenset(data[at : at + 32] for at in range(0, len(data), 32))


def _remember(path: str, new: list[bytes]) -> None:
    """What is remembered only saves time: where it cannot be written, nothing is lost."""
    if not new:
        return
    with suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size = os.path.getsize(path) if os.path.exists(path) else 0
        # Anew where it grew too long, or where a write broke off.
        anew = size % 32 or size + 32 * len(new) > 32 * _MOST_REMEMBERED
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if anew else os.O_APPEND)
        fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, b"".join(new))
        finally:
            os.close(fd)
