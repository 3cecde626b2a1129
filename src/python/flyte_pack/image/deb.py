"""Reads a Debian package as a stream (deb(5)): its control files, and the members that it installs.

Nothing is unpacked, and a damaged file raises `UserError` and never takes much memory.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

from flyte_pack.errors import UserError
from flyte_pack.oci.inflate import inflate_pieces
from flyte_pack.oci.tar_stream import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Member, TarStream

_MAGIC = b"!<arch>\n"
_HEADER = 60  # bytes of the header of an `ar` member (ar(5))
_READ = 1 << 16
_PIECE = 1 << 20
_MAX_XZ = 256 << 20  # bytes of memory; xz -9 asks for 65 MiB
_MAX_CONTROL = 4 << 20
MAX_FILE = 1 << 30
MAX_FILES = 200_000
MAX_BYTES = 16 << 30  # of all files of one package
_KINDS = (REGULAR, HARD_LINK, SYMLINK, DIRECTORY)


@dataclass(frozen=True)
class DebFile:
    """One at hand. what: names it in errors."""

    path: str
    what: str

    @cached_property
    def control(self) -> dict[str, bytes]:
        """The files of the package's control archive: `control`, `postinst` and the like."""
        files: dict[str, bytes] = {}
        size = 0
        with open(self.path, "rb") as file:
            for member in self._tar(file, b"control.tar"):
                if member.kind == REGULAR:
                    size += member.size
                    if size > _MAX_CONTROL:
                        raise UserError(f"{self.what}: its control files are too large")
                    name = member.name.decode(errors="replace").removeprefix("./")
                    files[name] = b"".join(member.content())
        if "control" not in files:
            raise UserError(f"{self.what}: is not a Debian package: it has no control file")
        return files

    @property
    def fields(self) -> dict[str, str]:
        """Of its control file, the first line of each."""
        lines = self.control["control"].decode(errors="replace").splitlines()
        pairs = (line.partition(":") for line in lines if not line.startswith((" ", "\t")))
        return {name: value.strip() for name, colon, value in pairs if colon}

    def members(self) -> Iterator[tuple[str, Member]]:
        """What it installs, each with its path from the root, which is "" for the root itself.

        Everything belongs to root: a package that needs another owner is refused.
        """
        size = 0
        with open(self.path, "rb") as file:
            for count, member in enumerate(self._tar(file, b"data.tar")):
                size += member.size
                path = self._path(member.name)
                if member.kind not in _KINDS:
                    raise UserError(f"{self.what}: {path!a:.200} is a device or a pipe")
                if (member.uid, member.gid) != (0, 0):
                    raise UserError(f"{self.what}: {path!a:.200} does not belong to root")
                if member.size > MAX_FILE or count > MAX_FILES or size > MAX_BYTES:
                    raise UserError(f"{self.what}: is too large, at {path!a:.200}")
                yield path, member

    def _path(self, name: bytes) -> str:
        return self.text(name).strip("/")

    def text(self, name: bytes) -> str:
        """A path that the package has, or the target of a hard link, without `./`."""
        try:
            path = name.decode()
        except UnicodeDecodeError:
            raise UserError(f"{self.what}: {name!r:.200} is not in UTF-8") from None
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts or "\n" in path:
            raise UserError(f"{self.what}: {path!a:.200} leads out of the package")
        return "/".join(parts)

    def _tar(self, file: BinaryIO, wanted: bytes) -> TarStream:
        """The archive of that name, whatever its compression."""
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"{self.what}: is not a Debian package")
        while header := file.read(_HEADER):
            name, digits = header[:16].rstrip(b" /"), header[48:58].strip(b" ")
            if len(header) != _HEADER or header[58:] != b"`\n" or not digits.isdigit():
                raise UserError(f"{self.what}: is damaged")
            size = int(digits)
            if name.startswith(wanted):
                suffix = name[len(wanted) :].decode("ascii", "replace")
                return TarStream(self._plain(_taken(file, size), suffix), self.what)
            file.seek(size + size % 2, 1)
        raise UserError(f"{self.what}: is damaged: it has no {wanted.decode()}")

    def _plain(self, pieces: Iterator[bytes], suffix: str) -> Iterator[bytes]:
        if suffix == "":
            return pieces
        if suffix == ".gz":
            return inflate_pieces(pieces, self.what)
        if suffix == ".xz":
            return self._unpacked(pieces, lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_XZ))
        if suffix == ".zst":
            try:
                from compression import zstd
            except ImportError:
                raise UserError(
                    f"{self.what}: is compressed by zstd, which Python reads from 3.14 on: set "
                    "`[flyte-pack].interpreter_constraints` and `deploy_interpreter_constraints` "
                    'to `["CPython==3.14.*"]`'
                ) from None
            return self._unpacked(pieces, zstd.ZstdDecompressor())
        raise UserError(f"{self.what}: is compressed in an unknown way, {suffix!a:.20}")

    def _unpacked(self, pieces: Iterator[bytes], decompressor: Any) -> Iterator[bytes]:
        while not decompressor.eof:
            data = next(pieces, b"") if decompressor.needs_input else b""
            if not data and decompressor.needs_input:
                raise UserError(f"{self.what}: is truncated")
            try:
                piece = decompressor.decompress(data, _PIECE)
            except Exception as error:  # each library has a class of its own for it
                raise UserError(f"{self.what}: is damaged: {error}") from None
            if piece:
                yield piece


def _taken(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (data := file.read(min(size, _READ))):
        size -= len(data)
        yield data
