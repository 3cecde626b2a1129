"""Debian packages are read as they are, and become a layer; damaged and odd ones are refused."""

from __future__ import annotations

import io
import tarfile

import pytest

from flyte_pack.errors import UserError
from flyte_pack.image.apt_layers import pack_debs
from flyte_pack.image.apt_lock import AptLock, LockedPlatform, mirrored
from flyte_pack.image.deb import DebFile
from flyte_pack.json_fields import InvalidData
from flyte_pack.oci.model import Platform, blob_path
from tests.support.debs import ar, deb, locked
from tests.support.images import special, tar_of

AMD64 = Platform.parse("linux/amd64")
HARD = tarfile.LNKTYPE


def owned(path, **fields):
    info = tarfile.TarInfo(path)
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def packed(tmp_path, *debs, moved=(), out="out"):
    """The members of the layer of (name, data, links)."""
    (tmp_path / "debs").mkdir(exist_ok=True)
    entries = []
    for name, data, *links in debs:
        entries.append(locked(data, name, *links))
        (tmp_path / "debs" / f"{name}_1.0_amd64.deb").write_bytes(data)
    layer = pack_debs(
        LockedPlatform(AMD64, tuple(entries), moved), str(tmp_path / "debs"), str(tmp_path / out)
    )
    blob = (tmp_path / out / blob_path(layer.digest)).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        return layer, {member.name: member for member in archive.getmembers()}, blob


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_a_package_becomes_its_files_and_a_record(tmp_path, suffix):
    data = deb(
        *[("./", None), ("./usr/", None), ("./usr/bin/", None)],
        *[("./usr/bin/pf", b"program"), ("./usr/bin/pf2", "pf")],
        special("./usr/bin/pf3", HARD, "./usr/bin/pf"),
        owned("./usr/bin/root", mode=0o4755),
        scripts={"md5sums": "0  usr/bin/pf\n"},
        suffix=suffix,
    )
    layer, members, _ = packed(tmp_path, ("pftest", data))
    assert layer.what == "pftest 1.0"
    assert list(members) == [
        *("usr", "usr/bin", "usr/bin/pf", "usr/bin/pf2", "usr/bin/pf3", "usr/bin/root"),
        *("var/lib/dpkg/status.d/pftest", "var/lib/dpkg/status.d/pftest.md5sums"),
    ]
    assert members["usr/bin/pf2"].linkname == "pf"
    assert (members["usr/bin/pf3"].type, members["usr/bin/pf3"].linkname) == (HARD, "usr/bin/pf")
    assert members["usr/bin/root"].mode == 0o4755
    assert {(m.uid, m.gid, m.mtime) for m in members.values()} == {(0, 0, 0)}


def test_the_same_packages_give_the_same_bytes(tmp_path):
    two = [("a", deb(("./usr/a", b"1"), name="a")), ("b", deb(("./usr/b", b"2"), name="b"))]
    first, second = packed(tmp_path, *two), packed(tmp_path, *two, out="again")
    assert first[0] == second[0]
    assert first[0].what == "2 Debian packages"


def test_what_the_base_has_as_a_link_stays_a_link(tmp_path):
    data = deb(
        *[("./lib/", None), ("./lib/x/", None), ("./lib/x/a.so", b"1"), ("./lib/b.so", b"2")],
        special("./lib/c.so", HARD, "./lib/b.so"),
    )
    links = (("lib/d.so", "/etc/alternatives/d"),)
    _, members, _ = packed(tmp_path, ("pftest", data, links), moved=(("lib", "usr/lib"),))
    assert [name for name in members if "dpkg" not in name] == [
        *("usr/lib/x", "usr/lib/x/a.so", "usr/lib/b.so", "usr/lib/c.so", "usr/lib/d.so")
    ]
    assert members["usr/lib/c.so"].linkname == "usr/lib/b.so"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("../etc/passwd", b"1")], "leads out of the package"),
        ([special("./dev/x", tarfile.CHRTYPE)], "is a device or a pipe"),
        ([special("./x", tarfile.FIFOTYPE)], "is a device or a pipe"),
        ([owned("./x", uid=1)], "does not belong to root"),
        ([owned("./x", gid=42)], "does not belong to root"),
        ([special("./x", HARD, "./y")], "leads to no file"),
        ([("./usr/.wh.bin", b"")], "a name that begins with .wh."),
        ([("./a", b"1"), ("./a/", None)], "is a file of"),
    ],
)
def test_a_package_that_is_not_like_others_is_refused(tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        packed(tmp_path, ("pftest", deb(*files)))
    assert not list(tmp_path.glob("out/blobs/sha256/*"))


@pytest.mark.parametrize("limit", ["MAX_FILE", "MAX_FILES", "MAX_BYTES"])
def test_a_package_has_bounds(tmp_path, monkeypatch, limit):
    data = deb(*((f"./usr/{number}", b"x" * 4) for number in range(8)))
    packed(tmp_path, ("pftest", data))
    monkeypatch.setattr(f"flyte_pack.image.deb.{limit}", {"MAX_BYTES": 30}.get(limit, 3))
    with pytest.raises(UserError, match=r"^pftest 1\.0: is too large, at 'usr/"):
        packed(tmp_path, ("pftest", data), out="again")


def test_two_packages_with_the_same_file_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"b 1.0: usr/x is there already, from a 1.0"):
        packed(tmp_path, ("a", deb(("./usr/x", b"1"))), ("b", deb(("./usr/x", b"2"))))


GOOD = deb(("./a", b"1" * 100))
DAMAGED = {
    "nothing": b"",
    "no package": b"PK\3\4" + bytes(100),
    "cut short": GOOD[:-200],
    "no data": ar(("debian-binary", b"2.0\n"), ("control.tar", tar_of(("control", b"x")))),
    "no control": ar(("control.tar", tar_of(("x", b"x"))), ("data.tar", tar_of())),
    "a number that is none": GOOD.replace(b"100644  4 ", b"100644  -4"),
    "not xz": ar(("control.tar.xz", b"x" * 64), ("data.tar.xz", b"x" * 64)),
    "another compression": ar(("control.tar.lz", b"x" * 64)),
}


def whole(file: DebFile) -> None:
    assert file.control
    assert list(file.members())


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_package_is_refused(tmp_path, what):
    (tmp_path / "x.deb").write_bytes(DAMAGED[what])
    file = DebFile(str(tmp_path / "x.deb"), "x.deb")
    with pytest.raises(UserError, match=r"^x\.deb: "):
        whole(file)


def test_zstd_needs_a_python_that_reads_it(tmp_path):
    (tmp_path / "x.deb").write_bytes(ar(("control.tar.zst", b"x" * 64)))
    with pytest.raises(UserError, match=r"from 3\.14 on|is damaged"):
        assert DebFile(str(tmp_path / "x.deb"), "x.deb").control


# --- the lock file --------------------------------------------------------------------------------


def test_a_lock_file_is_read_as_it_was_written():
    entry = locked(GOOD, links=(("usr/bin/x", "/etc/alternatives/x"),))
    platform = LockedPlatform(AMD64, (entry,), (("lib", "usr/lib"),))
    lock = AptLock("sha256:" + "0" * 64, ("pftest",), (), (platform,))
    assert AptLock.from_json(lock.to_json()) == lock


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"http://deb.example.com", b"http://user:word@deb.example.com"),
        (b"http://deb.example.com", b"file:///deb.example.com"),
        (b"http://deb.example.com", b"http://deb.example.com?token=1"),
        (b"pool/pftest", b"../pftest"),
        (b'"pftest"', b'"../pftest"'),
        (b'"pftest"', b'"pftest-"'),
    ],
)
def test_a_lock_file_cannot_hold_credentials_or_lead_elsewhere(old, new):
    lock = AptLock("sha256:" + "0" * 64, (), (), (LockedPlatform(AMD64, (locked(GOOD),), ()),))
    with pytest.raises(InvalidData):
        AptLock.from_json(lock.to_json().replace(old, new))


def test_the_mirror_of_the_longest_prefix_is_taken():
    mirrors = {
        "http://deb.debian.org": "https://m/all",
        "http://deb.debian.org/debian/": "https://m/d/",
    }
    assert mirrored("http://deb.debian.org/debian/pool/x", mirrors) == "https://m/d/pool/x"
    assert mirrored("http://deb.debian.org/debian", mirrors) == "https://m/d"
    assert mirrored("http://deb.debian.org/debian-x/y", mirrors) == "https://m/all/debian-x/y"
    assert mirrored("http://deb.debian.orgs/x", mirrors) == "http://deb.debian.orgs/x"
