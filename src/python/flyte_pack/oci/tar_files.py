"""Reads single files of a tar archive, gzip'd or not; the archive may be hostile."""

from __future__ import annotations

import io
import tarfile
import tempfile
from typing import BinaryIO, cast

from flyte_pack.oci.inflate import inflate
from flyte_pack.oci.model import InvalidImage

_MAX_MEMBERS = 20_000
_MAX_HEADER = 1 << 20  # bytes of one pax or GNU header, which is read into memory
_MAX_HOPS = 8
_DAMAGED = (tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError, RecursionError)


class TarFiles:
    """The files of an archive, by path; a context manager (`flyte_pack.oci.layout.Files`).

    A link stands for the member that it leads to: `docker save` writes equal layers as links.
    """

    def __init__(self, archive: str, scratch: str) -> None:
        """scratch: a directory to inflate the archive in. Raises `InvalidImage` or `OSError`."""
        self.name = archive
        self._file: BinaryIO = open(archive, "rb")  # noqa: SIM115  # closed in __exit__
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            if self._file.read(2) == b"\x1f\x8b":
                self._inflate(scratch)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TarFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._members)

    def size(self, path: str) -> int | None:
        place = self._find(path)
        return None if place is None else place[1]

    def open(self, path: str) -> BinaryIO | None:
        place = self._find(path)
        return None if place is None else cast(BinaryIO, _Part(self._file, *place))

    def _find(self, path: str) -> tuple[int, int] | None:
        for _ in range(_MAX_HOPS):
            if path not in self._links:
                return self._members.get(path)
            path = self._links[path]
        raise InvalidImage(f"{self.name}: the link {path!a:.200} leads to no end")

    def _inflate(self, scratch: str) -> None:
        self._file.seek(0)
        with self._file as compressed:
            self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  # likewise
            for piece in inflate(compressed, self.name):
                self._file.write(piece)

    def _read(self) -> None:
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, _Capped(self._file)), mode="r:") as archive:
                for number, member in enumerate(archive):
                    if number >= _MAX_MEMBERS:
                        raise InvalidImage(f"{self.name}: has more than {_MAX_MEMBERS:,} members")
                    self._add(member, end)
        except _DAMAGED as error:
            raise InvalidImage(
                f"{self.name}: is not a readable tar archive: {str(error)!a:.200}"
            ) from None
        if not self._members:
            raise InvalidImage(f"{self.name}: holds no files")

    def _add(self, member: tarfile.TarInfo, end: int) -> None:
        path = _normal(member.name)
        if path is None:
            raise InvalidImage(f"{self.name}: {member.name!a:.200} leads out of the archive")
        if member.isdir():
            return
        if path in self._members or path in self._links:
            raise InvalidImage(f"{self.name}: has {path!a:.200} twice")
        if member.isreg() and not member.issparse():
            if member.offset_data + member.size > end:
                raise InvalidImage(f"{self.name}: is truncated: it ends within {path!a:.200}")
            self._members[path] = (member.offset_data, member.size)
        elif member.issym() or member.islnk():
            above = path.rpartition("/")[0] if member.issym() else ""
            target = _normal(f"{above}/{member.linkname}" if above else member.linkname)
            if target is None or member.linkname.startswith("/"):
                raise InvalidImage(
                    f"{self.name}: the link {path!a:.200} leads out of the archive, "
                    f"to {member.linkname!a:.200}"
                )
            self._links[path] = target
        else:
            raise InvalidImage(
                f"{self.name}: {path!a:.200} is neither a file nor a directory nor a link"
            )


def _normal(path: str) -> str | None:
    """`path` without `.` and `..`; None where it leads out."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts) if not path.startswith("/") else None


class _Capped:
    """A file that only gives small pieces, such as headers. A hostile header asks for more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class _Part(io.RawIOBase):
    """A file within the archive."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._at, self._left = file, start, size

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._at += len(data)
        self._left -= len(data)
        return data
