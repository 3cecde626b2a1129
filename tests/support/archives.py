"""Makes archives as other tools write them, and tars that no tool would write, by blocks."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flyte_shim.hashing import sha256_bytes

END = bytes(1024)


@dataclass(frozen=True)
class Archive:
    """An archive on disk, under the name that a store gives it."""

    path: Path
    sha256: str


def archive_of(directory: Path, files: Mapping[str, bytes | str]) -> Archive:
    """A bundle with `files`, written by tarfile; a file whose name ends in .sh is executable."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(info, io.BytesIO(data))
    return store(directory, gzip.compress(buffer.getvalue(), 1, mtime=0))


def store(directory: Path, data: bytes) -> Archive:
    """`data` in `directory` as `<archive hash>.tar.gz`."""
    sha256 = sha256_bytes(data)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{sha256}.tar.gz"
    write_whole(path, data)
    return Archive(path, sha256)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that others may be reading: they see the old content or the new one."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(path)


def member(
    name: bytes,
    data: bytes = b"",
    *,
    kind: bytes = b"0",
    mode: bytes = b"0000644",
    size: bytes | None = None,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    link: bytes = b"",
) -> bytes:
    """One member of a tar: its header (pax, "ustar Header Block") with a right checksum, and
    `data`.
    """
    header = bytearray(512)
    for at, value in (
        (0, name),
        (100, mode),
        (108, b"0000000\x000000000"),
        (124, b"%011o" % len(data) if size is None else size),
        (136, b"00000000000"),
        (156, kind),
        (157, link),
        (257, magic),
        (345, prefix),
    ):
        header[at : at + len(value)] = value
    return with_checksum(header) + data + bytes(-len(data) % 512)


def with_checksum(header: bytes) -> bytes:
    fixed = bytearray(header)
    fixed[148:156] = b" " * 8
    fixed[148:156] = b"%06o\0 " % sum(fixed)
    return bytes(fixed)


def pax_header(*records: tuple[bytes, bytes] | bytes) -> bytes:
    """An extended header for the next member, of keywords and values, or of raw bytes."""
    data = b""
    for record in records:
        if isinstance(record, tuple):
            rest = b" %b=%b\n" % record
            size = len(rest) + len(str(len(rest)))
            size = len(rest) + len(str(size))
            record = b"%d%b" % (size, rest)
        data += record
    return member(b"PaxHeaders/x", data, kind=b"x")
