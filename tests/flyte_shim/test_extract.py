"""Which archives are unpacked, to what, and which are refused by which name."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import stat
import subprocess
import tarfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyte_shim.errors import (
    ArchiveError,
    DamagedArchive,
    DuplicatePath,
    TooLarge,
    UnsafePath,
    UnsupportedMember,
)
from flyte_shim.extract import Limits, extract, read_members
from flyte_shim.paths import path_problem
from tests.support.archives import END, member, pax_header, with_checksum

# No database: the tests run in sandboxes, where it would be gone with them.
fuzz = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(data: bytes, limits: Limits | None = None) -> dict[str, tuple[bool, bytes]]:
    """What the parser finds in a compressed archive: executable, content, by path."""
    members = read_members(io.BytesIO(data), limits or Limits())
    return {path: (executable, b"".join(chunks)) for path, executable, chunks in members}


def unpack(tmp_path: Path, data: bytes, limits: Limits | None = None) -> Path:
    archive, directory = tmp_path / "archive", tmp_path / "unpacked"
    archive.write_bytes(data)
    extract(str(archive), str(directory), limits or Limits(), 1_000_000_000)
    return directory


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if not path.is_dir()
    }


def test_files_get_their_content_and_lose_the_right_to_be_written(tmp_path):
    tar = member(b"a/b.py", b"x = 1\n") + member(b"run", b"#!/bin/sh\n", mode=b"0000755")
    tar += member(b"a/c/empty") + member(b"odd", b"", mode=b"0007777")
    directory = unpack(tmp_path, gzip.compress(tar + END))
    assert tree(directory) == {
        "a/b.py": b"x = 1\n",
        "run": b"#!/bin/sh\n",
        "a/c/empty": b"",
        "odd": b"",
    }
    umask = os.umask(0o22)
    os.umask(umask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}
    plain, executable = 0o444 & ~umask, 0o555 & ~umask
    assert modes == {
        "a": 0o700,
        "b.py": plain,
        "c": 0o700,
        "empty": plain,
        "run": executable,
        "odd": executable,
    }
    assert (directory / "a/b.py").stat().st_mtime == 1_000_000_000


def test_the_directories_are_returned_and_which_of_them_hold_modules(tmp_path):
    archive = tmp_path / "archive"
    tar = member(b"a/b/c.txt") + member(b"a/d.py") + member(b"a/b/e/f.py") + member(b"top.csv")
    archive.write_bytes(gzip.compress(tar + END))
    directories, _ = extract(str(archive), str(tmp_path / "unpacked"), Limits(), 0)
    assert directories == {"": False, "a": True, "a/b": False, "a/b/e": True}


def test_what_it_takes_of_a_disk_is_counted_in_blocks(tmp_path):
    archive = tmp_path / "archive"
    tar = member(b"none") + member(b"a/small", b"x") + member(b"a/large", bytes(4097))
    archive.write_bytes(gzip.compress(tar + END))
    _, disk_bytes = extract(str(archive), str(tmp_path / "unpacked"), Limits(), 0)
    assert disk_bytes == (0 + 1 + 2 + 2) * 4096  # files, and two directories


@pytest.mark.parametrize(
    "size", [0, 1, 511, 512, 513, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 7]
)
def test_files_of_any_size_come_out_whole(tmp_path, size):
    data = random.Random(size).randbytes(size)
    tar = member(b"before", b"b") + member(b"file", data) + member(b"behind", b"c")
    assert tree(unpack(tmp_path, gzip.compress(tar + END, 1))) == {
        "before": b"b",
        "file": data,
        "behind": b"c",
    }


FILE = member(b"file", b"data")
GOOD = gzip.compress(FILE + END)
SPARSE = pax_header((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))

REFUSED_TARS = [
    # Members that are no regular files.
    (member(b"link", kind=b"1", link=b"file"), UnsupportedMember, r"a hard link \('link'\)"),
    (member(b"link", kind=b"2", link=b"/etc"), UnsupportedMember, "a symbolic link"),
    (member(b"null", kind=b"3"), UnsupportedMember, "a character device"),
    (member(b"disk", kind=b"4"), UnsupportedMember, "a block device"),
    (member(b"directory/", kind=b"5"), UnsupportedMember, "a directory"),
    (member(b"fifo", kind=b"6"), UnsupportedMember, "a FIFO"),
    (member(b"contiguous", kind=b"7"), UnsupportedMember, "a contiguous file"),
    (member(b"huge", kind=b"Z"), UnsupportedMember, "a member of type b'Z'"),
    # Extensions that no bundle uses.
    (member(b"g", b"12 comment=\n", kind=b"g"), UnsupportedMember, "a global pax header"),
    (member(b"././@LongLink", b"x", kind=b"L"), UnsupportedMember, "a GNU long name"),
    (member(b"././@LongLink", b"x", kind=b"K"), UnsupportedMember, "a GNU long link name"),
    (member(b"sparse", kind=b"S"), UnsupportedMember, "a GNU sparse file"),
    (SPARSE + FILE, UnsupportedMember, "the record 'GNU.sparse.major'"),
    (member(b"file", magic=b"ustar  \0"), UnsupportedMember, "GNU tar's own format"),
    (member(b"file", magic=b""), DamagedArchive, "no 'ustar'"),
    (member(b"file", size=b"\x80" + bytes(11)), UnsupportedMember, "size is not an octal number"),
    (member(b"file", size=b"-0000000001"), UnsupportedMember, "size is not an octal number"),
    (member(b"file", size=b"00000000009"), UnsupportedMember, "size is not an octal number"),
    (member(b"file", size=b"0o1"), UnsupportedMember, "size is not an octal number"),
    (member(b"file", size=b"1_0"), UnsupportedMember, "size is not an octal number"),
    (member(b"file", mode=b"rw-r--r-"), UnsupportedMember, "mode is not an octal number"),
    # Paths.
    (member(b""), UnsafePath, "an empty path"),
    (member(b"/etc/passwd"), UnsafePath, "an absolute path"),
    (member(b"passwd", prefix=b"/etc"), UnsafePath, "an absolute path"),
    (member(b"../up"), UnsafePath, r"a '\.\.' in the path"),
    (member(b"up", prefix=b".."), UnsafePath, r"a '\.\.' in the path"),
    (member(b"a/../../up"), UnsafePath, r"a '\.\.' in the path"),
    (member(b"./a"), UnsafePath, r"a '\.' component"),
    (member(b"a//b"), UnsafePath, "an empty component"),
    (member(b"a/"), UnsafePath, "an empty component"),
    (member(b"a/", kind=b"\0"), UnsafePath, "an empty component"),
    (member(b"\xff"), UnsafePath, "not valid UTF-8"),
    (pax_header((b"path", b"/etc/passwd")) + FILE, UnsafePath, "an absolute path"),
    (pax_header((b"path", b"a\0b")) + FILE, UnsafePath, "a NUL"),
    (pax_header((b"path", b"\xff")) + FILE, UnsafePath, "not valid UTF-8"),
    (pax_header((b"path", b"\xed\xb2\x80")) + FILE, UnsafePath, "not valid UTF-8"),
    (pax_header((b"path", b"x" * 256)) + FILE, UnsafePath, "a component longer than 255"),
    (pax_header((b"path", b"x/" * 500 + b"x")) + FILE, UnsafePath, "longer than 1000 bytes"),
    # Paths that meet.
    (FILE + FILE, DuplicatePath, "'file' twice"),
    (FILE + pax_header((b"path", b"file")) + member(b"z"), DuplicatePath, "'file' twice"),
    (member(b"a") + member(b"a/b"), DuplicatePath, "'a' as a file, and 'a/b' below it"),
    (member(b"a/b") + member(b"a/b/c/d"), DuplicatePath, "'a/b' as a file, and 'a/b/c/d' below"),
    (member(b"a/b") + member(b"a"), DuplicatePath, "'a' as a file and as a directory"),
    (member(b"a/b/c") + member(b"a/b"), DuplicatePath, "'a/b' as a file and as a directory"),
    # Pax headers.
    (pax_header(b"x" * 65537) + FILE, TooLarge, "pax header is 65537 bytes"),
    (member(b"x", kind=b"x") + FILE, TooLarge, "pax header is 0 bytes"),
    (pax_header((b"path", b"")) + FILE, DamagedArchive, "an empty path"),
    (pax_header((b"size", b"")) + FILE, DamagedArchive, "an empty size"),
    (pax_header((b"size", b"-1")) + FILE, DamagedArchive, "no number as its size"),
    (pax_header((b"size", b"1e3")) + FILE, DamagedArchive, "no number as its size"),
    (pax_header((b"size", b"9" * 19)) + FILE, TooLarge, "unpacks to more than"),
    (pax_header((b"size", b"9" * 5000)) + FILE, DamagedArchive, "no number as its size"),
    (pax_header((b"path", b"a"), (b"path", b"b")) + FILE, DamagedArchive, "'path' twice"),
    (pax_header((b"hdrcharset", b"BINARY")) + FILE, UnsupportedMember, "'hdrcharset'"),
    (pax_header((b"linkpath", b"/etc")) + FILE, UnsupportedMember, "'linkpath'"),
    (pax_header((b"SCHILY.xattr.user.x", b"1")) + FILE, UnsupportedMember, "'SCHILY.xattr.user.x'"),
    (pax_header(b"13 comment=x\n7 path=x\n") + FILE, DamagedArchive, "a wrong length"),
    (pax_header(b"900 path=x\n") + FILE, DamagedArchive, "a wrong length"),
    (pax_header(b"0 path=x\n") + FILE, DamagedArchive, "a wrong length"),
    (pax_header(b"3 \n") + FILE, DamagedArchive, "a wrong length"),
    (pax_header(b"path=x\n") + FILE, DamagedArchive, "does not begin with its length"),
    (pax_header(b"99999999999999 path=x\n") + FILE, DamagedArchive, "begin with its length"),
    (pax_header((b"path", b"a")) * 2 + FILE, DamagedArchive, "two pax headers for one file"),
    (pax_header((b"path", b"a")), DamagedArchive, "ends after a pax header"),
    # The end.
    (FILE + END + FILE, DamagedArchive, "data after the end of its tar"),
    (FILE + END + bytes(9000) + b"x", DamagedArchive, "data after the end of its tar"),
    (FILE + bytes(512) + FILE, DamagedArchive, "data after the end of its tar"),
    (FILE + bytes(2 << 20), TooLarge, "too much padding"),
]


def words(value: object) -> str:
    """The text of a case as its name, for bytes make an unreadable one."""
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("tar", "error", "message"), REFUSED_TARS, ids=words)
def test_what_is_no_bundle_is_refused_by_name(tmp_path, tar, error, message):
    with pytest.raises(error, match=message) as caught:
        unpack(tmp_path, gzip.compress(tar + END))
    assert type(caught.value) is error
    assert not (tmp_path / "up").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "gzip data ends too early"),
        (b"not gzip at all", "not a whole gzip file"),
        (zlib.compress(FILE + END), "not a whole gzip file"),
        (FILE + END, "not a whole gzip file"),
        (GOOD[:-1], "gzip data ends too early"),
        (GOOD[:-8], "gzip data ends too early"),
        (GOOD[: len(GOOD) // 2], "gzip data ends too early"),
        (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "incorrect data check"),
        (GOOD[:-4] + b"\0\0\0\0", "incorrect length check"),
        (GOOD + b"garbage", "data after its gzip member"),
        (GOOD + bytes(1), "data after its gzip member"),
        (GOOD + GOOD, "data after its gzip member"),
        (gzip.compress(FILE) + gzip.compress(END), "data after its gzip member"),
        (gzip.compress(b""), "ends in the middle of its tar"),
        (gzip.compress(FILE), "ends in the middle of its tar"),
        (gzip.compress(FILE[:700]), "ends in the middle of its tar"),
        (gzip.compress(FILE[:300]), "ends in the middle of its tar"),
        (gzip.compress(member(b"x", size=b"00010000000") + END), "ends in the middle of its tar"),
        (gzip.compress(FILE[:99] + b"x" + FILE[100:] + END), "checksum of a tar header is wrong"),
        (gzip.compress(b"no tar " * 100), "checksum"),
    ],
    ids=words,
)
def test_what_is_damaged_is_refused(tmp_path, data, message):
    with pytest.raises(ArchiveError, match=message):
        unpack(tmp_path, data)


PAX = pax_header((b"comment", b"x" * 100))
# What an archive of each kind takes: files and directories, bytes.
TAKEN = {
    "files": (b"".join(member(b"%d" % number, bytes(10)) for number in range(3)), 3, 30),
    "a directory": (member(b"a/b", b"x"), 2, 4097),
    "a directory of several files": (member(b"a/b") + member(b"a/c"), 3, 4096),
    "directories in directories": (member(b"a/b/c/d") + member(b"a/b/e/f"), 6, 4 * 4096),
    "directories without end": (member(b"f", prefix=b"/".join([b"d"] * 70)), 71, 70 * 4096),
    "a pax header": (PAX + member(b"a", b"xy"), 1, len(PAX.rstrip(b"\0")) - 512 + 2),
}


@pytest.mark.parametrize(("tar", "files", "size"), TAKEN.values(), ids=TAKEN)
def test_members_of_every_kind_count_to_the_limits(tmp_path, tar, files, size):
    archive = gzip.compress(tar + END)
    for limits, message in (
        (Limits(files=files - 1), f"more than {files - 1} files.*FLYTE_SHIM_MAX_FILES"),
        (Limits(total_bytes=size - 1), f"more than {size - 1} bytes.*FLYTE_SHIM_MAX_BYTES"),
    ):
        with pytest.raises(TooLarge, match=message):
            unpack(tmp_path, archive, limits)
        shutil.rmtree(tmp_path / "unpacked")
    unpack(tmp_path, archive, Limits(files=files, total_bytes=size))


def test_a_small_archive_makes_no_more_directories_than_the_limit(tmp_path):
    """With one file at the end of each, hundreds of directories took next to nothing of it."""
    paths = [b"%d/%b/f" % (number, b"/".join([b"d"] * 240)) for number in range(10)]
    bomb = b"".join(pax_header((b"path", path)) + member(b"x") for path in paths)
    archive = gzip.compress(bomb + END, 9)
    assert len(archive) < 1000
    with pytest.raises(TooLarge):
        unpack(tmp_path, archive, Limits(files=300))
    assert sum(1 for _ in (tmp_path / "unpacked").rglob("*")) <= 300


def test_a_gzip_bomb_is_refused_before_it_is_written(tmp_path):
    bomb = member(b"bomb", size=b"%011o" % (1 << 30)) + bytes(1 << 24)
    with pytest.raises(TooLarge):
        unpack(tmp_path, gzip.compress(bomb), Limits(total_bytes=1 << 29))
    assert not list((tmp_path / "unpacked").iterdir())


def test_a_sparse_file_of_gnu_tar_is_refused(tmp_path):
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(1 << 20)
        file.write(b"x")
    for form in ("gnu", "pax"):
        tar = gnu_tar(["--sparse", f"--format={form}"], tmp_path, ["holes"])
        with pytest.raises(UnsupportedMember):
            read(gzip.compress(tar))


# Names of all kinds, and few enough parts that names share directories.
PARTS = st.one_of(
    st.sampled_from(["a", "b", "pkg", "__init__.py", "ü", "x" * 120, "y" * 90, "a b", "\\", "\n"]),
    st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12),
)
PATHS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
FILES = st.dictionaries(
    PATHS.filter(lambda path: path_problem(path) is None),
    st.tuples(st.booleans(), st.binary(max_size=1500)),
    max_size=8,
).filter(lambda files: not any(f"{path}/" in other for path in files for other in prefixes(files)))


def prefixes(files) -> list[str]:
    """Every directory of the files, with a slash at its end."""
    parts = [path.split("/") for path in files]
    return ["/".join(part[:depth]) + "/" for part in parts for depth in range(1, len(part))]


def by_tarfile(files: dict[str, tuple[bool, bytes]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form, compresslevel=1) as tar:
        for path, (executable, data) in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            info.mode = 0o755 if executable else 0o644
            info.mtime = 1.5  # which a pax header says
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@fuzz
@given(FILES)
def test_what_tarfile_writes_in_pax_format_is_read(files):
    assert read(by_tarfile(files, tarfile.PAX_FORMAT)) == files


@fuzz
@given(FILES)
def test_what_tarfile_writes_in_ustar_format_is_read(files):
    short = {path: file for path, file in files.items() if len(path.encode()) <= 100}
    assert read(by_tarfile(short, tarfile.USTAR_FORMAT)) == short


def gnu_tar(options: list[str], directory: Path, names: list[str]) -> bytes:
    return subprocess.run(
        ["tar", "-C", str(directory), "-c", "--null", *options, "-T", "-"],
        input=b"\0".join(os.fsencode(f"./{name}" if name == "-" else name) for name in names),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout


@settings(fuzz, max_examples=25)
@given(FILES, st.sampled_from(["pax", "ustar"]))
def test_what_gnu_tar_writes_is_read(tmp_path, files, form):
    directory = tmp_path / "files"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    # GNU tar takes a leading dash for an option; ustar has no room for long names.
    fit = {
        path: file
        for path, file in files.items()
        if path[0] != "-" and (form == "pax" or len(path.encode()) <= 99)
    }
    for path, (executable, data) in fit.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
        (directory / path).chmod(0o755 if executable else 0o644)
    tar = gnu_tar([f"--format={form}", "--verbatim-files-from"], directory, list(fit))
    assert read(gzip.compress(tar, 1)) == fit


@fuzz
@given(FILES)
def test_unpacking_gives_the_files_that_were_packed(tmp_path, files):
    shutil.rmtree(tmp_path / "unpacked", ignore_errors=True)
    directory = unpack(tmp_path, by_tarfile(files, tarfile.PAX_FORMAT))
    assert tree(directory) == {path: data for path, (_, data) in files.items()}


@settings(fuzz, max_examples=400)
@given(
    FILES.filter(bool),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=4))),
    st.data(),
)
def test_a_changed_header_is_refused_or_read_as_tarfile_reads_it(files, changes, data):
    tar = bytearray(gzip.decompress(by_tarfile(files, tarfile.PAX_FORMAT)))
    headers = [at for at in range(0, len(tar), 512) if tar[at + 257 : at + 263] == b"ustar\0"]
    at = data.draw(st.sampled_from(headers))
    for offset, value in changes:
        offset %= 512
        tar[at + offset : at + offset + len(value)] = value[: 512 - offset]
    tar[at : at + 512] = with_checksum(tar[at : at + 512])
    try:
        found = read(gzip.compress(tar, 1))
    except ArchiveError:
        return
    expected = {}
    # The referee stops, with or without an error, at fields that we do not look at.
    with suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(tar)) as referee:
        for info in referee:
            assert info.isfile()
            content = referee.extractfile(info).read()
            expected[info.name] = (bool(info.mode & 0o100), content)
    assert list(found.items())[: len(expected)] == list(expected.items())
