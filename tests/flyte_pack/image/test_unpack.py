"""Layers are unpacked as a container would see them, and nothing outside the directory is touched."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
import tarfile
from contextlib import suppress
from random import Random

import pytest

from flyte_pack.image import unpack as unpacking
from flyte_pack.image.layer_tree import LayerTree, Node
from flyte_pack.image.unpack import _Tree, unpack
from flyte_pack.oci import inflate as inflating
from flyte_pack.oci import tar_stream
from flyte_pack.oci.layout import open_layout
from flyte_pack.oci.model import OCI_LAYER_GZIP, InvalidImage
from flyte_pack.oci.tar_files import TarFiles
from flyte_pack.oci.tar_stream import TarStream
from tests.support.containers import debian_base, need
from tests.support.fuzzing import FACTOR, fuzz
from tests.support.images import layout_of, listing, sha256, special, tar_of


def unpacked(tmp_path, *layers, **options):
    """The tree of these layers."""
    layout = open_layout(str(layout_of(tmp_path / "layout", layers, **options)))
    (tmp_path / "root").mkdir()
    unpack(layout, layout.image(None).manifest.layers, str(tmp_path / "root"))
    return tmp_path / "root"


HARD, FIFO, DEVICE = tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE
TREES = {
    "files, directories, links": (
        [[("a/", None), ("a/f", b"1"), ("l", "a/f"), special("h", HARD, "a/f")]],
        {"a": None, "a/f": b"1", "l": "a/f", "h": b"1"},
    ),
    "a directory that no layer names": (
        [[("a/b/c", b"1")]],
        {"a": None, "a/b": None, "a/b/c": b"1"},
    ),
    "leading ./ and /": ([[("./a", b"1"), ("/b", b"2")]], {"a": b"1", "b": b"2"}),
    "a later layer wins": ([[("a", b"1")], [("a", b"22")]], {"a": b"22"}),
    "a file for a directory": ([[("a/b", b"1")], [("a", b"2")]], {"a": b"2"}),
    "a directory for a file": (
        [[("a", b"1")], [("a", None), ("a/b", b"2")]],
        {"a": None, "a/b": b"2"},
    ),
    "a link for a directory": ([[("a/b", b"1")], [("a", "c")]], {"a": "c"}),
    "a directory stays": (
        [[("a/b", b"1")], [("a", None), ("a/c", b"2")]],
        {"a": None, "a/b": b"1", "a/c": b"2"},
    ),
    "through a link to a directory": (
        [[("usr/lib", None), ("lib", "usr/lib")], [("lib/x", b"1")]],
        {"usr": None, "usr/lib": None, "usr/lib/x": b"1", "lib": "usr/lib"},
    ),
    "through an absolute link, within the image": (
        [[("usr", None), ("lib", "/usr"), ("lib/x", b"1")]],
        {"usr": None, "usr/x": b"1", "lib": "/usr"},
    ),
    "through a link that leads above the root, which is the root": (
        [[("l", "../../.."), ("l/x", b"1")]],
        {"l": "../../..", "x": b"1"},
    ),
    "a link's own place, not where it leads": (
        [[("f", b"1"), ("l", "f")], [("l", b"2")]],
        {"f": b"1", "l": b"2"},
    ),
    "a whiteout": ([[("a/b", b"1"), ("a/c", b"2")], [("a/.wh.b", b"")]], {"a": None, "a/c": b"2"}),
    "a whiteout of a directory": ([[("a/b/c", b"1")], [("a/.wh.b", b"")]], {"a": None}),
    "a whiteout of nothing": ([[("a/b", b"1")], [("a/.wh.x", b"")]], {"a": None, "a/b": b"1"}),
    "a whiteout spares its own layer": (
        [[("a/b", b"1")], [("a/b", b"2"), ("a/.wh.b", b"")]],
        {"a": None, "a/b": b"2"},
    ),
    "an opaque directory": (
        [[("a/b", b"1"), ("a/d/e", b"1")], [("a/.wh..wh..opq", b""), ("a/c", b"2")]],
        {"a": None, "a/c": b"2"},
    ),
    "an opaque directory, said last": (
        [
            [("a/b", b"1"), ("a/d/e", b"1")],
            [("a/c", b"2"), ("a/d/f", b"3"), ("a/.wh..wh..opq", b"")],
        ],
        {"a": None, "a/c": b"2", "a/d": None, "a/d/f": b"3"},
    ),
    "aufs' own files": ([[("a", b"1"), (".wh..wh.plnk", None)]], {"a": b"1"}),
    "devices and pipes are left out": (
        [[("a", b"1"), special("p", FIFO), special("d", DEVICE)]],
        {"a": b"1"},
    ),
    "a long path": (
        [[("d" * 90 + "/" + "e" * 90 + "/" + "f" * 90, b"1")]],
        {
            "d" * 90: None,
            "d" * 90 + "/" + "e" * 90: None,
            "d" * 90 + "/" + "e" * 90 + "/" + "f" * 90: b"1",
        },
    ),
}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("case", TREES)
def test_layers_make_the_tree_of_the_specification(case, form, tmp_path):
    layers, tree = TREES[case]
    assert listing(unpacked(tmp_path, *(tar_of(*layer, form=form) for layer in layers))) == tree


OUTSIDE = {
    "a path with ..": [("../outside/new", b"1")],
    "a path with .. inside": [("a/../../outside/new", b"1")],
    "a hard link out": [special("h", HARD, "../outside/kept"), ("h", b"1")],
    "a hard link through a link": [("l", "../outside"), special("h", HARD, "l/kept")],
    "a whiteout of .": [("a/.wh..", b"")],
    "a whiteout of ..": [("a/.wh...", b"")],
    "links without end": [("a", "b"), ("b", "a"), ("a/x", b"1")],
    "a hard link to nothing": [special("h", HARD, "nothing")],
    "a hard link to a directory": [("d", None), special("h", HARD, "d")],
    "a name too long for a file": [("n" * 300, b"1")],
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_a_hostile_layer_is_refused_and_reaches_nothing_outside(case, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    with pytest.raises(InvalidImage):
        unpacked(tmp_path, tar_of(*OUTSIDE[case]))
    assert listing(outside) == {"kept": b"kept"}
    assert (outside / "kept").stat().st_nlink == 1


@pytest.mark.parametrize(
    "members",
    [
        [("l", "/absolute"), ("l/new", b"1")],
        [("l", "../outside"), ("l/new", b"1")],
        [("l", "../outside/kept"), ("l", b"1")],
        [("l", "../outside"), ("l/.wh.kept", b"")],
        [("l", "../outside"), ("l/.wh..wh..opq", b"")],
        [("l", "../outside/kept"), special("h", HARD, "l"), ("h", b"1")],
    ],
    ids=lambda members: " ".join(str(getattr(m, "name", m)) for m in members),
)
def test_links_count_from_the_root_of_the_image(members, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    with suppress(InvalidImage):  # refused is as good; what counts is what is outside
        unpacked(tmp_path, tar_of(*members))
    assert listing(outside) == {"kept": b"kept"}
    assert not os.path.lexists("/absolute")


DAMAGED = {
    "truncated": (lambda tar: tar[:700], "truncated"),
    "another byte in a header": (lambda tar: b"x" + tar[1:], "checksum"),
    "no tar": (lambda tar: b"no tar at all" * 100, "not a number|checksum"),
    "a size that is not a number": (
        lambda tar: tar[:124] + b"12345x789ab\0" + tar[136:],
        "not a number|checksum",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_tar_is_refused(case, tmp_path):
    damage, message = DAMAGED[case]
    with pytest.raises(InvalidImage, match=message):
        unpacked(tmp_path, damage(tar_of(("a", b"1" * 2000), form=tarfile.USTAR_FORMAT)))


def mangled(tar: bytes, random: Random) -> bytes:
    """`tar` with some bytes of its headers changed, and their checksums mended, so that what is behind them is tried too."""
    data = bytearray(tar)
    blocks = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    for _ in range(random.randint(1, 3)):
        start = random.choice(blocks)
        begin, end = random.choice(
            [(0, 100), (100, 124), (124, 136), (136, 148), (156, 157), (157, 257), (345, 500)]
        )
        for _ in range(random.choice([1, 1, 4])):
            data[start + random.randrange(begin, end)] = random.choice(b"\x00\x800167.xgLKS/ \xff")
        data[start + 148 : start + 156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    if random.random() < 0.3:
        for at in [random.randrange(len(data)) for _ in range(3)]:
            data[at] = random.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_a_mangled_tar_is_unpacked_or_refused_but_nothing_else(form, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    long = ("n" * 150 + "/m", b"1")
    tar = tar_of(
        ("d", None),
        ("d/f", b"1" * 600),
        ("l", "../outside"),
        long,
        special("h", HARD, "d/f"),
        form=form,
    )
    refused = 0
    for seed in range(600):
        data = mangled(tar, Random(seed))
        root = tmp_path / "root"
        root.mkdir()
        try:
            _Tree(os.fsencode(root)).apply(TarStream(iter([data]), "the layer"), "the layer")
        except InvalidImage:
            refused += 1
        shutil.rmtree(root)
        (tmp_path / "a.tar").write_bytes(data)
        with suppress(InvalidImage), TarFiles(str(tmp_path / "a.tar"), str(tmp_path)) as files:
            for name in files.names:
                files.open(name).read()
    assert 60 < refused < 600
    assert listing(outside) == {"kept": b"kept"}


def test_a_layer_whose_blob_changed_is_refused(tmp_path):
    place = layout_of(tmp_path / "layout", [tar_of(("a", b"content"))])
    layout = open_layout(str(place))
    layer = layout.image(None).manifest.layers[0]
    blob = place / "blobs" / layer.digest.replace(":", "/")
    blob.write_bytes(blob.read_bytes().replace(b"content", b"CONTENT"))
    (tmp_path / "root").mkdir()
    with pytest.raises(InvalidImage, match="not what its digest"):
        unpack(layout, (layer,), str(tmp_path / "root"))


@pytest.mark.parametrize("cut", [5, 40, -4])
def test_truncated_gzip_is_refused(cut, tmp_path):
    tar = tar_of(("a", os.urandom(2000)))
    with pytest.raises(InvalidImage, match="truncated"):
        unpacked(
            tmp_path, gzip.compress(tar)[:cut], media_type=OCI_LAYER_GZIP, diff_ids=[sha256(tar)]
        )


def test_gzip_in_several_members_is_one_layer(tmp_path):
    tar = tar_of(("a", b"1"), ("b", b"2"))
    blob = gzip.compress(tar[:700]) + gzip.compress(tar[700:]) + bytes(100)
    root = unpacked(tmp_path, blob, media_type=OCI_LAYER_GZIP, diff_ids=[sha256(tar)])
    assert listing(root) == {"a": b"1", "b": b"2"}


def test_a_layer_in_zstd_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidImage, match=r"tar\+zstd.*container engine"):
        unpacked(tmp_path, b"", media_type="application/vnd.oci.image.layer.v1.tar+zstd")


ENDLESS = {
    "files": (unpacking, "MAX_FILES", 2, [("a", b""), ("b", b""), ("c", b"")]),
    "bytes": (unpacking, "MAX_BYTES", 1000, [("a", b"1" * 600), ("b", b"2" * 600)]),
    "directories": (unpacking, "MAX_FILES", 2, [("a/", None), ("b/", None), ("c/", None)]),
    "directories that no member names": (unpacking, "MAX_FILES", 3, [("a/b/c/d", b"")]),
    "links": (unpacking, "MAX_FILES", 2, [("a", "x"), ("b", "x"), ("c", "x")]),
    "pipes": (unpacking, "MAX_FILES", 2, [special(name, FIFO) for name in "abc"]),
    "headers": (tar_stream, "_MAX_HEADERS", 3, [("é", b""), ("è", b"")]),
    "what gzip holds": (inflating, "_MAX_BYTES", 5000, [("a", b"")]),
}


@pytest.mark.parametrize(("room", "cap", "value", "members"), ENDLESS.values(), ids=ENDLESS)
def test_an_image_without_end_is_refused(room, cap, value, members, tmp_path, monkeypatch):
    monkeypatch.setattr(room, cap, value)
    tar = tar_of(*members)
    with pytest.raises(InvalidImage, match=r"(unpacks|inflates) to more than|holds more than"):
        unpacked(tmp_path, gzip.compress(tar), media_type=OCI_LAYER_GZIP, diff_ids=[sha256(tar)])


def test_modes_and_times_are_the_layers_less_the_bits_that_lend_rights(tmp_path):
    members = []
    for path, mode in (
        ("d", 0o555),
        ("d/suid", 0o4755),
        ("d/ro", 0o400),
        ("d/x", 0o755),
        ("tmp", 0o1777),
    ):
        info = tarfile.TarInfo(path)
        info.mode, info.mtime = mode, 1_600_000_000
        info.type = tarfile.DIRTYPE if path in ("d", "tmp") else tarfile.REGTYPE
        members.append(info)
    root = unpacked(tmp_path, tar_of(*members))
    modes = {
        p: stat.S_IMODE((root / p).stat().st_mode) for p in ("d", "d/suid", "d/ro", "d/x", "tmp")
    }
    # Directories stay ours to fill and to remove.
    assert modes == {"d": 0o755, "d/suid": 0o755, "d/ro": 0o400, "d/x": 0o755, "tmp": 0o1777}
    assert {(root / p).stat().st_mtime for p in modes} == {1_600_000_000}


def test_debian_is_unpacked_as_umoci_does(tmp_path):
    """Hard links, links of all kinds and modes, in a tar that somebody else wrote."""
    need("umoci")
    place = debian_base()
    layout = open_layout(str(place))
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    unpack(layout, layout.image(None).manifest.layers, str(ours))
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    subprocess.run(
        ["umoci", "unpack", *rootless, "--image", f"{place}:latest", str(theirs)],
        check=True,
        capture_output=True,
    )

    def described(top):
        found = {}
        for directory, names, files in os.walk(top):
            for name in names + files:
                path = os.path.join(directory, name)
                status = os.lstat(path)
                kind = stat.S_IFMT(status.st_mode)
                if kind in (stat.S_IFCHR, stat.S_IFBLK):
                    continue
                mode = status.st_mode & 0o1777
                size = status.st_size if kind == stat.S_IFREG else None
                link = os.readlink(path) if kind == stat.S_IFLNK else None
                links = status.st_nlink if kind == stat.S_IFREG else None
                time = int(status.st_mtime) if kind == stat.S_IFREG else None
                found[os.path.relpath(path, top)] = (
                    kind,
                    mode,
                    size,
                    link,
                    links,
                    time,
                )
        return found

    expected = described(theirs / "rootfs")
    assert len(expected) > 3000
    assert described(ours) == expected


# Most members are of the kind that these names suggest, or few images would be good ones.
DIRECTORIES, FILES, LINKS = ("a", "a/b", "b"), ("a/c", "b/a", "a/b/c", "c"), ("d", "a/d", "b/d")


def a_layer(random: Random) -> list[object]:
    """Members that replace, hide and lead into one another."""
    members: list[object] = []
    for _ in range(random.randint(1, 8)):
        odd = random.random() < 0.1
        anything = DIRECTORIES + FILES + LINKS
        directory, file, link = (
            random.choice(anything if odd else names) for names in (DIRECTORIES, FILES, LINKS)
        )
        through = f"{link}/{random.choice('abc')}" if odd else file
        hidden, _, name = random.choice(anything).rpartition("/")
        targets = ["a", "b", "/a", "/b", "../b", "../../c", "c", "nowhere"]
        members.append(
            random.choice(
                [
                    (through, bytes([random.randrange(256)])),
                    (file, bytes([random.randrange(256)])),
                    (directory, None),
                    (link, random.choice(targets)),
                    (f"{hidden}/.wh.{name}" if hidden else f".wh.{name}", b""),
                    (f"{directory}/.wh..wh..opq", b""),
                    special(link if random.random() < 0.5 else file, HARD, random.choice(FILES)),
                ]
            )
        )
        if random.random() < 0.5:  # what a hard link leads to is often there
            members.append((random.choice(FILES), bytes([random.randrange(256)])))
    return members


def test_random_layers_come_to_the_tree_that_they_come_to_in_memory(tmp_path):
    """Two ways that share no code: on a disk, and in memory."""
    agreed = 0
    for random in fuzz(300):
        layers = [tar_of(*a_layer(random)) for _ in range(random.randint(1, 4))]
        root, outcomes = tmp_path / "root", []
        root.mkdir()
        on_disk, in_memory = _Tree(os.fsencode(root)), LayerTree(lambda m: b"".join(m.content()))
        for tree in (on_disk, in_memory):
            try:
                for layer in layers:
                    tree.apply(TarStream(iter([layer]), "the layer"), "the layer")
                outcomes.append(True)
            except InvalidImage:
                outcomes.append(False)
        if outcomes == [True, True]:
            assert listing(root) == in_memory_listing(in_memory.top)
            agreed += 1
        shutil.rmtree(root)
        assert os.listdir(tmp_path) == []
    print(f"{300 * FACTOR} rounds, {agreed} accepted by both")
    assert agreed > 120 * FACTOR


def in_memory_listing(node: Node, above: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, child in node.children.items():
        path = f"{above}{name.decode()}"
        link = child.link.decode() if child.kind == tarfile.SYMTYPE else None
        found[path] = None if child.is_directory else link or child.content
        found.update(in_memory_listing(child, f"{path}/"))
    return found
