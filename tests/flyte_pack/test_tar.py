"""Statements about the archive format: GNU tar and Python's tarfile read what we write."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_pack import tar
from flyte_pack.bundle import pack
from tests.support.packing import Bundle, plan_of, write_tree

GIB = 1 << 30


def long_path(size: int, component: int = 50) -> str:
    """A path of `size` bytes made of components of at most `component`."""
    path = "/".join(["d" * component] * (size // (component + 1) + 1))[:size]
    return path[:-1] + "f"


PATHS = {
    "plain": "pkg/module.py",
    "name of 100 bytes": "n" * 100,
    "name of 101 bytes": "n" * 101,
    "path of 100 bytes": long_path(100),
    "path of 101 bytes": long_path(101),
    "prefix of 155 bytes": "p" * 155 + "/name",
    "prefix of 156 bytes": "p" * 156 + "/name",
    "255 bytes in two fields": "p" * 77 + "/" + "p" * 77 + "/" + "n" * 99,
    "256 bytes in two fields": "p" * 77 + "/" + "p" * 77 + "/" + "n" * 100,
    "257 bytes": "p" * 77 + "/" + "p" * 78 + "/" + "n" * 100,
    "name of 255 bytes": "n" * 255,
    "path of 900 bytes": long_path(900),
    "no slash where a split must be": "d/" + "n" * 150,
    "spaces": " leading and trailing /a b ",
    "leading dashes": "--checkpoint=1/-rf",
    "backslash": "a\\b\\n.py",
    "quotes and glob": "'\"*?[a]$HOME.py",
    "colon": "c:/x:y.py",
    "Latin": "größe/naïve.py",
    "decomposed": "gro\u0308ße.py",
    "CJK": "数据/特征.py",
    "non-BMP": "𠀀/🐍.py",
    "long and not ASCII": "é" * 120 + "/" + "ü" * 120,
    "newline": "a\nb/c\n.py",
    "tab and control": "a\tb\x01\x7f.py",
    "equals sign, as in a pax record": "12 path=x\n",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    top = tmp_path_factory.mktemp("tar")
    files = {path: f"{name}\n".encode() * 99 for name, path in PATHS.items()}
    files["empty"] = b""
    files["block"] = b"b" * tar.BLOCK
    bundle = Bundle(top)
    sources = write_tree(top / "sources", files, executable=["block"])
    pack(plan_of(files), str(sources), *bundle.options.values())
    return bundle


def tree_of(top: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file below `top`."""
    return {
        str(path.relative_to(top)): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in top.rglob("*")
        if not path.is_dir()
    }


def packed_tree(bundle: Bundle) -> dict[str, tuple[int, bytes]]:
    sources = bundle.directory / "sources"
    return {f.path: (f.mode, (sources / f.path).read_bytes()) for f in bundle.manifest.files}


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_gnu_tar_extracts_the_tree(bundle, tmp_path, locale):
    tar_command = ["tar", "xzf", str(bundle.archive), "-C", str(tmp_path)]
    done = subprocess.run(
        tar_command, env={"PATH": os.defpath, "LC_ALL": locale}, umask=0o022, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert tree_of(tmp_path) == packed_tree(bundle)


def test_gnu_tar_lists_exactly_the_plan_in_order(bundle):
    tar_command = ["tar", "tzf", str(bundle.archive), "--quoting-style=literal"]
    listed = subprocess.run(
        tar_command,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        check=True,
    )
    planned = sorted([*PATHS.values(), "empty", "block"], key=str.encode)
    assert listed.stdout.decode() == "".join(f"{path}\n" for path in planned)


def test_tarfile_extracts_the_tree(bundle, tmp_path):
    with tarfile.open(bundle.archive) as archive:
        archive.extractall(tmp_path)
    assert tree_of(tmp_path) == packed_tree(bundle)


def test_members_are_regular_files_without_owner_or_time(bundle):
    with tarfile.open(bundle.archive) as archive:
        for member in archive:
            assert member.type == tarfile.REGTYPE
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert (member.mtime, member.linkname) == (0, "")


def test_a_pax_header_is_there_only_where_ustar_falls_short(bundle):
    with tarfile.open(bundle.archive) as archive:
        extended = {member.name for member in archive if member.pax_headers}
    assert extended == {
        PATHS[name]
        for name in (
            "name of 101 bytes",
            "prefix of 156 bytes",
            "257 bytes",
            "name of 255 bytes",
            "path of 900 bytes",
            "no slash where a split must be",
            "Latin",
            "decomposed",
            "CJK",
            "non-BMP",
            "long and not ASCII",
        )
    }


def test_an_archive_ends_with_two_blocks_of_zeros(bundle):
    with tarfile.open(bundle.archive) as archive:
        last = archive.getmembers()[-1]
        end = last.offset_data + -(-last.size // tar.BLOCK) * tar.BLOCK
        assert archive.fileobj is not None
        archive.fileobj.seek(end)
        assert archive.fileobj.read() == bytes(1024)


@pytest.mark.parametrize("path", ["big.bin", "größe.bin"])
@pytest.mark.parametrize("size", [8 * GIB - 1, 8 * GIB, 5000 * GIB])
def test_sizes_past_eight_gib_are_kept(path, size):
    assert read_header(tar.header(path, 0o644, size)) == (path, 0o644, size)


component = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=90
)


@given(
    st.lists(component, min_size=1, max_size=6),
    st.sampled_from([0o644, 0o755]),
    st.integers(0, 100 * GIB),
)
def test_any_header_reads_back(components, mode, size):
    path = "/".join(components)
    assert read_header(tar.header(path, mode, size)) == (path, mode, size)


owners = st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
paths = st.lists(component, min_size=1, max_size=6).map("/".join)


@given(paths, st.integers(0, 0o7777), owners)
def test_any_directory_reads_back(path, mode, owner):
    member = read_member(tar.directory(path, mode, owner))
    assert member.isdir()
    assert (member.name, member.mode) == (path, mode)
    assert (member.uid, member.gid) == owner
    assert (member.size, member.mtime, member.linkname) == (0, 0, "")


@given(paths, paths | st.just("/usr/bin/python3.12") | st.just("t" * 101) | st.just("../é"), owners)
def test_any_symbolic_link_reads_back(path, target, owner):
    member = read_member(tar.symlink(path, target, owner))
    assert member.issym()
    assert (member.name, member.linkname, member.mode) == (path, target, 0o777)
    assert (member.uid, member.gid) == owner
    assert (member.size, member.mtime) == (0, 0)


@given(paths, st.integers(0, 100 * GIB), owners)
def test_any_owner_of_a_file_reads_back(path, size, owner):
    member = read_member(tar.header(path, 0o644, size, owner))
    assert (member.name, member.size, member.uid, member.gid) == (path, size, *owner)


@pytest.mark.parametrize(
    ("header", "extended"),
    [
        (tar.directory("d", 0o755, (2097151, 0)), False),
        (tar.directory("d", 0o755, (2097152, 0)), True),
        (tar.directory("d" * 99, 0o755), False),
        # The slash at its end counts, too.
        (tar.directory("d" * 100, 0o755), True),
        (tar.symlink("l", "t" * 100), False),
        (tar.symlink("l", "t" * 101), True),
        (tar.symlink("l", "é"), True),
    ],
)
def test_a_pax_header_says_what_ustar_cannot(header, extended):
    assert bool(read_member(header).pax_headers) == extended
    assert (len(header) > tar.BLOCK) == extended


def test_gnu_tar_reads_directories_links_and_owners(tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(
        tar.directory("home/" + "d" * 120, 0o1777, (1000, 1000))
        + tar.symlink("größe", "t" * 120, (2097152, 3000000000))
        + tar.header("f", 0o600, 0, (0, 5))
        + tar.END
    )
    listed = subprocess.run(
        ["tar", "--numeric-owner", "--quoting-style=literal", "-tvf", str(archive)],
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    assert listed.stderr == b""
    lines = [line.split(maxsplit=5) for line in listed.stdout.decode().splitlines()]
    assert [(line[0], line[1], line[5]) for line in lines] == [
        ("drwxrwxrwt", "1000/1000", "home/" + "d" * 120 + "/"),
        ("lrwxrwxrwx", "2097152/3000000000", "größe -> " + "t" * 120),
        ("-rw-------", "0/5", "f"),
    ]


def read_header(header: bytes) -> tuple[str, int, int]:
    member = read_member(header)
    return member.name, member.mode, member.size


def read_member(header: bytes) -> tarfile.TarInfo:
    """What tarfile makes of the headers of one member. It checks the checksums."""
    assert len(header) % tar.BLOCK == 0
    with tarfile.open(fileobj=io.BytesIO(header + tar.END)) as archive:
        member = archive.next()
        assert member is not None
        return member
