"""Whatever an archive holds: it is unpacked below its directory and within its limits, or refused."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import stat
import time
from pathlib import Path

from flyte_shim.errors import ArchiveError
from flyte_shim.extract import Limits, extract
from tests.support.archives import END, member, pax_header, with_checksum
from tests.support.fuzzing import fuzz

LIMITS = Limits(archive_bytes=1 << 20, files=40, total_bytes=200_000)
PARTS = [b"a", b"b", b"A", b"..", b".", b"", b"\xff", b"\0", b"a.py", b"x" * 255, b"x" * 256]
PARTS += ["é".encode(), "e\u0301".encode(), b"\\", b"\n", b"C:", b"up", b"__pycache__"]
KINDS = [b"0"] * 12 + [b"\0", b"7", *(b"%d" % kind for kind in range(1, 7)), b"x", b"g", b"L", b"K"]
SIZES = [b"-1", b"77777777777", b"\x80" + bytes(11), b"\xff" * 12, b"0", b"9", b""]
KEYS = [b"path", b"size", b"linkpath", b"mtime", b"GNU.sparse.name", b"hdrcharset", b"comment", b""]


def path_of(rng: random.Random) -> bytes:
    depth = rng.choice([1, 1, 2, 3, 60])
    path = b"/".join(rng.choice(PARTS[:3] if depth > 3 else PARTS) for _ in range(depth))
    return rng.choice([b"", b"", b"", b"/", b"../", b"./"]) + path


def header_of(rng: random.Random) -> bytes:
    values = [
        path_of(rng),
        b"%d" % rng.choice([0, 1, 600, 1 << 40]),
        b"9" * 30,
        b"",
        b"/etc/passwd",
    ]
    records: list[tuple[bytes, bytes] | bytes] = [
        (rng.choice(KEYS), rng.choice(values)) for _ in range(rng.choice([1, 1, 2, 5]))
    ]
    if rng.random() < 0.2:
        records.append(rng.choice([b"5 a=\n", b"99 path=x\n", b"path=x\n", b"0 =\n", bytes(9)]))
    return pax_header(*records)


def tar_of(rng: random.Random) -> bytes:
    """Members of any kind, most of them harmless by themselves."""
    members = []
    for number in range(rng.choice([1, 2, 5, 5, 30])):
        if rng.random() < 0.05:
            members.append(header_of(rng))
        safe = rng.random() < 0.95
        members.append(
            member(
                b"%d/%d" % (rng.randrange(9), number) if safe else path_of(rng)[:100],
                rng.randbytes(rng.choice([0, 1, 511, 512, 9000])),
                kind=b"0" if safe else rng.choice(KINDS),
                size=None if rng.random() < 0.95 else rng.choice(SIZES),
                prefix=b"" if safe else rng.choice([b"", b"..", b"/", path_of(rng)[:155]]),
                link=b"" if safe else path_of(rng)[:100],
            )
        )
    return b"".join(members) + rng.choice([END, END, END, END[512:], b"", END + b"x"])


def changed(rng: random.Random, data: bytes) -> bytearray:
    """`data` with a few bytes flipped, removed, or repeated."""
    new = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        at, size = rng.randrange(len(new)), rng.choice([1, 1, 12, 512])
        how = rng.randrange(4)
        if how == 0:
            new[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            new[at : at + size] = rng.randbytes(size)
        elif how == 2 and len(new) > 2 * size:
            del new[at : at + size]
        else:
            new[at:at] = new[at : at + size]
    return new


def archive_of(rng: random.Random) -> bytes:
    tar = tar_of(rng)
    how = rng.randrange(4)
    if how == 1:  # damage that a checksum does not show
        new = changed(rng, tar)
        for at in range(0, len(new) - 511, 512):
            if new[at + 257 : at + 262] == b"ustar":
                new[at : at + 512] = with_checksum(new[at : at + 512])
        tar = bytes(new)
    elif how == 2:
        tar = bytes(changed(rng, tar))
    data = gzip.compress(tar, 1, mtime=0)
    return bytes(changed(rng, data)) if how == 3 else data


def check_whole(directory: Path) -> None:
    """All of it are directories and regular files, and no more than the limits allow."""
    found = size = 0
    for place, directories, files in os.walk(os.fsencode(directory)):
        for name in directories:
            status = os.lstat(os.path.join(place, name))
            assert stat.S_ISDIR(status.st_mode)
            size += 4096
        for name in files:
            status = os.lstat(os.path.join(place, name))
            assert stat.S_ISREG(status.st_mode)
            assert status.st_nlink == 1
            assert status.st_mode & 0o7222 == 0
            size += status.st_size
        found += len(directories) + len(files)
    assert found <= LIMITS.files
    assert size <= LIMITS.total_bytes


def test_no_archive_leaves_its_directory_or_passes_its_limits(tmp_path):
    (tmp_path / "up").write_bytes(b"kept")
    archive, directory = tmp_path / "archive", tmp_path / "unpacked"
    refused = unpacked = 0
    for rng in fuzz(300):
        archive.write_bytes(archive_of(rng))
        started = time.monotonic()
        try:
            extract(str(archive), str(directory), LIMITS, 1_000_000_000)
            unpacked += 1
        except ArchiveError:
            refused += 1
        assert time.monotonic() - started < 10
        assert sorted(os.listdir(tmp_path)) == ["archive", "unpacked", "up"]
        assert (tmp_path / "up").read_bytes() == b"kept"
        check_whole(directory)
        shutil.rmtree(directory)
    # Both ends are tried.
    assert min(refused, unpacked) > 30
