"""Measures what an archive or layer holds, before and after compression: `python -m flyte_pack
archive-sizes`.

A gzip file is one stream, in which each file takes some bytes after those of the file before it.
Inflating just as far as a member of the tar reaches shows where it ends in that stream.
"""

from __future__ import annotations

import argparse
import csv
import io
import posixpath
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from flyte_pack import command
from flyte_pack.errors import UserError
from flyte_pack.fresh import fresh_file
from flyte_pack.image.filesystem import VENV
from flyte_pack.inventory.plan import ArchiveSizes, PackageSizes
from flyte_pack.names import normalized
from flyte_pack.oci.model import InvalidImage
from flyte_pack.oci.tar_stream import HARD_LINK, REGULAR, TarStream

_READ = 1 << 13  # the rest of it is copied for each piece
_PIECE = 1 << 20
_BLOCK = 512
_GZIP = 31  # as window bits: a gzip member (RFC 1952)
_MAX_LIST = 64 << 20  # bytes of a list of files
_INFO = re.compile(
    rf"({VENV}/lib/python3\.[0-9]+/site-packages)/([^/]+)-([^/-]+)\.dist-info/RECORD"
)
_CACHED = re.compile(r"__pycache__/([^/]+)\.cpython-[0-9]+\.pyc")
# As `image/apt_layers.py` writes them.
_DEBIAN = re.compile(r"var/lib/dpkg/status\.d/([^/]+)\.md5sums")


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack archive-sizes")
    parser.add_argument("--archive", required=True, help="a .tar.gz file")
    parser.add_argument("--out", required=True, help="the file to be written, an ArchiveSizes")
    return command.run(parser, argv, _measure)


def _measure(given: argparse.Namespace) -> None:
    with command.no_garbage(), open(given.archive, "rb") as file:
        content = sizes_of(file, given.archive).to_json()
    with fresh_file(given.out) as path, open(path, "wb") as output:
        output.write(content)


def sizes_of(file: BinaryIO, what: str) -> ArchiveSizes:
    """what: names the file in errors. Raises `UserError`."""
    stream = _Inflated(file, what)
    sizes: dict[str, tuple[int, int]] = {}
    owner: dict[str, tuple[str, str, str]] = {}
    end = 0
    for member in TarStream(iter(stream), what):
        name = member.name.decode(errors="surrogateescape")
        stream.wanted = member.size + -member.size % _BLOCK
        lists = _INFO.fullmatch(name) or _DEBIAN.fullmatch(name)
        if member.kind == REGULAR and lists:
            if member.size > _MAX_LIST:
                raise UserError(f"{what}: {name!a:.200} has {member.size:,} bytes, too many")
            content = b"".join(member.content()).decode(errors="surrogateescape")
            owner.update(
                _recorded(lists, content) if lists.re is _INFO else _listed(lists, content)
            )
        else:
            for _ in member.content():
                pass
        start, end = end, stream.position
        stream.wanted = _BLOCK
        if member.kind in (REGULAR, HARD_LINK):
            size = member.size if member.kind == REGULAR else 0
            sizes[name] = size, end - start
    return _by_owner(sizes, owner)


class _Inflated:
    """The pieces of a gzip file of one or more members, each just as long as it is `wanted`.

    position: of what was inflated, in the file; exact but for the bits of a byte.
    """

    def __init__(self, file: BinaryIO, what: str) -> None:
        self._file = file
        self._what = what
        self.wanted = _BLOCK
        self.position = 0

    def __iter__(self) -> Iterator[bytes]:
        inflater = zlib.decompressobj(_GZIP)
        data, read = b"", 0
        while data or (data := self._file.read(_READ)):
            left = max(self.wanted, 1)
            try:
                piece = inflater.decompress(data, min(left, _PIECE))
            except zlib.error as error:
                raise InvalidImage(f"{self._what}: is not a whole gzip file: {error}") from None
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            read += len(data) - len(rest)
            self.position = read
            data = rest
            if inflater.eof:
                inflater = zlib.decompressobj(_GZIP)
            if piece:
                self.wanted = left - len(piece) or _BLOCK
                yield piece


def _recorded(info: re.Match[str], record: str) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """The files of an installed distribution (PyPA, "Recording installed projects")."""
    site, name, version = info.groups()
    by = ("distribution", normalized(name), version)
    for row in csv.reader(io.StringIO(record)):
        if row:
            yield posixpath.normpath(posixpath.join(site, row[0])), by


def _listed(debian: re.Match[str], sums: str) -> Iterator[tuple[str, tuple[str, str, str]]]:
    by = ("debian", debian[1], "")
    yield debian[0], by
    yield debian[0][: -len(".md5sums")], by
    for line in sums.splitlines():
        path = line.partition("  ")[2]
        yield path, by
        yield f"usr/{path}", by  # where it is if the base has /lib and the like as links


def _by_owner(
    sizes: dict[str, tuple[int, int]], owner: dict[str, tuple[str, str, str]]
) -> ArchiveSizes:
    files = []
    packages: dict[tuple[str, str, str], list[int]] = {}
    for path, (size, packed) in sizes.items():
        # A bytecode file belongs to whom its source does.
        by = owner.get(path) or owner.get(_CACHED.sub(r"\1.py", path))
        if by is None:
            files.append((path, size, packed))
            continue
        sums = packages.setdefault(by, [0, 0, 0])
        for at, more in enumerate((1, size, packed)):
            sums[at] += more
    return ArchiveSizes(
        tuple(files), tuple(PackageSizes(*by, *sums) for by, sums in sorted(packages.items()))
    )
