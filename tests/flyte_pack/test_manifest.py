"""Statements about the manifest and the content hash."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_pack.explain import Graph
from flyte_pack.json_fields import InvalidData
from flyte_pack.manifest import (
    EntryPoint,
    GraphRequirement,
    GraphTarget,
    Manifest,
    ManifestFile,
    ManifestGraph,
)
from flyte_pack.manifest_graph import artifact_of, graph_of
from flyte_shim.hashing import content_hash, sha256_bytes, sha256_file
from flyte_shim.paths import is_sha256, path_problem, sha256_in_name

A = sha256_bytes(b"a")
B = sha256_bytes(b"b")


def manifest_of(*files: ManifestFile, **changes) -> Manifest:
    values = {
        "copy_style": "auto",
        "root_dir": None,
        "entry_points": (),
        "files": files,
        "content_hash": content_hash((f.path, f.mode, f.size, f.sha256) for f in files),
        "archive_hash": A,
        "archive_size": 3,
    }
    return Manifest(**{**values, **changes})


def file_at(path: str, **changes) -> ManifestFile:
    file = ManifestFile(
        path=path, size=1, mode=0o644, sha256=A, owner="lib:lib", reason="imported", by="app:app"
    )
    return file._replace(**changes)


def test_the_content_hash_is_the_documented_listing():
    rows = [("a/ü.py", 0o644, 5, A), ("b.sh", 0o755, 0, B)]
    listing = b"pants-flyte content hash 1\n"
    for path, mode, size, sha256 in rows:
        name = path.encode()
        listing += struct.pack(">Q", len(name)) + name + struct.pack(">IQ", mode, size)
        listing += bytes.fromhex(sha256)
    assert content_hash(rows) == hashlib.sha256(listing).hexdigest()


def test_paths_that_concatenate_alike_have_different_content_hashes():
    one = [("a/bc.txt", 0o644, 1, A), ("ab/c.txt", 0o644, 1, B)]
    other = [("a/bc.txt", 0o644, 1, B), ("ab/c.txt", 0o644, 1, A)]
    third = [("ab/c.txt", 0o644, 1, A)]
    assert len({content_hash(rows) for rows in (one, other, third, third * 2)}) == 4


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_a_file_hashes_as_its_bytes(tmp_path, size):
    data = bytes(range(251)) * (size // 251 + 1)
    path = tmp_path / "file"
    path.write_bytes(data[:size])
    assert sha256_file(str(path)) == hashlib.sha256(data[:size]).hexdigest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [(A, True), (A.upper(), False), (A[:-1], False), (A + "0", False), ("g" * 64, False)],
)
def test_a_hash_has_one_spelling(text, expected):
    assert is_sha256(text) is expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (f"{A}.tar.gz", A),
        (f"s3://bucket/archives/{A}.tar.gz", A),
        (f"/store/{A}.tgz", None),
        (f"/store/x{A}.tar.gz", None),
        (f"/store/{A}.tar.gz?signature=x", None),
        ("/store/fast1234.tar.gz", None),
        (".tar.gz", None),
        ("", None),
    ],
)
def test_the_name_of_an_archive_in_a_store_says_its_hash(uri, expected):
    assert sha256_in_name(uri) == expected


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a.py", None),
        ("a/b c/ü\\\n:.py", None),
        ("...", None),
        ("", "an empty path"),
        ("/etc/passwd", "an absolute path"),
        ("a\0b", "a NUL in the path"),
        ("a/../b", "a '..' in the path"),
        ("..", "a '..' in the path"),
        ("./a", "a '.' component in the path"),
        ("a//b", "an empty component in the path"),
        ("a/", "an empty component in the path"),
        ("a\udc80", "a path that is not valid UTF-8"),
        ("x" * 255, None),
        ("x" * 256, "a component longer than 255 bytes in the path"),
        ("a/" + "ü" * 128, "a component longer than 255 bytes in the path"),
        ("a/" * 499 + "bb", None),
        ("a/" * 500 + "b", "a path longer than 1000 bytes"),
    ],
)
def test_which_paths_a_bundle_may_hold(path, problem):
    assert path_problem(path) == problem


def test_a_manifest_reads_back_as_it_was_written():
    manifest = manifest_of(
        file_at("a.py", reason="entry_point", by=None),
        file_at("b/ü\u2028\n.csv", owner=None, reason="all", mode=0o755, size=1 << 40),
        root_dir="src/app",
        entry_points=(EntryPoint("a", "train", "a.py", "app:app"),),
    )
    data = manifest.to_json()
    assert Manifest.from_json(data) == manifest
    assert Manifest.from_json(data).to_json() == data
    assert data.endswith(b"}\n")
    assert sum(b'"sha256"' in line for line in data.split(b"\n")) == 2


@pytest.mark.parametrize("root_dir", [None, ".", "src", "src/app"])
def test_an_empty_manifest_reads_back(root_dir):
    manifest = manifest_of(root_dir=root_dir)
    assert Manifest.from_json(manifest.to_json()) == manifest


def changed(**changes) -> bytes:
    raw = json.loads(manifest_of(file_at("a"), file_at("b")).to_json())
    return json.dumps({**raw, **changes}).encode()


def with_file(**changes) -> bytes:
    raw = json.loads(manifest_of(file_at("a")).to_json())
    raw["files"][0].update(changes)
    return json.dumps(raw).encode()


WHOLE = json.loads(changed())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a JSON document"),
        (b"\xff", "not a JSON document"),
        (b"[" * 100_000, "not a JSON document"),
        (b'{"schema": NaN}', "NaN is not a JSON number"),
        (b'{"schema": 1, "schema": 1}', "a key is there twice"),
        (b"[]", "not a JSON object"),
        (b"{}", "not a JSON object with a schema"),
        (b'{"schema": 1}', "missing keys: 'archive_hash'"),
        (changed(extra=1), "unknown keys: 'extra'"),
        (changed(schema=3), "has schema 3, this pants-flyte reads schema 2"),
        (changed(schema=True), "has schema True"),
        (changed(copy_style="none"), "copy_style: not one of all, auto"),
        (changed(root_dir=""), "root_dir: an empty path"),
        (changed(root_dir="../x"), r"root_dir: a '\.\.' in the path"),
        (changed(archive_size=-1), "archive_size: not an integer from 0"),
        (changed(archive_size=1.0), "archive_size: not an integer"),
        (changed(archive_hash="abc"), "archive_hash: not a SHA-256"),
        (changed(content_hash=A), "changed after it was made"),
        (changed(files=WHOLE["files"][::-1]), "not sorted"),
        (changed(files=WHOLE["files"][:1] * 2), "twice"),
        (changed(files=[3]), r"files\[0\]: not a JSON object"),
        (changed(files={}), "files: not a list"),
        (
            changed(entry_points=[{"module": "z", "name": None, "path": "z", "target": "t"}]),
            "'z' is not among the files",
        ),
        (with_file(path="../a"), r"files\[0\].path: a '\.\.' in the path"),
        (with_file(path="\udc80"), "not valid UTF-8"),
        (with_file(mode=0o4755), "mode: not one of 420, 493"),
        (with_file(size=1 << 63), "size: not an integer from 0"),
        (with_file(size=2), "changed after it was made"),
        (with_file(reason="because"), "reason: not one of all, declared"),
        (with_file(owner=3), "owner: not a string"),
    ],
)
def test_what_is_no_manifest_is_refused_by_name(data, message):
    with pytest.raises(InvalidData, match=message):
        Manifest.from_json(data)


@settings(database=None)
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_or_refused(data):
    with pytest.raises(InvalidData):
        Manifest.from_json(data)


# --- schema 2: with the graph -------------------------------------------------------------------

TARGETS = ("//:numpy", "app/w.py", "app:t", "lib/__init__.py", "lib/x.py")
GRAPH = ManifestGraph(
    root=2,
    entries=(1,),
    libraries=("//:numpy", "app", "app:t", "lib"),
    targets=tuple(
        map(GraphTarget, TARGETS, (0, 1, 2, 3, 3), ((), (0,), (1,), (), ()), ((), (4,), (), (), ()))
    ),
    requirements=(GraphRequirement(0, ("numpy>=2",), ("numpy",), (("numpy", "2.1"),)),),
)
WITH_GRAPH = manifest_of(
    file_at("app/w.py", owner="app/w.py", by="app:t", kind="module", package_root="."),
    file_at(
        *("lib/__init__.py",),
        owner="lib/__init__.py",
        by=None,
        kind="module",
        package_root=".",
        alone=True,
    ),
    file_at("x.py", owner="lib/x.py", by="app/w.py", kind="module", package_root="lib"),
    file_at("é.csv", owner=None, by=None, kind="file", source="e\u0301.csv"),
    graph=GRAPH,
)


def test_a_manifest_with_a_graph_reads_back_with_a_target_a_line():
    data = WITH_GRAPH.to_json()
    assert Manifest.from_json(data) == WITH_GRAPH
    assert b'\n    ["app/w.py", 1, [0], [4]],\n' in data
    assert json.loads(data)["schema"] == 2


def test_the_graph_is_all_that_is_explained():
    artifact = artifact_of(WITH_GRAPH)
    assert graph_of(artifact, {}) == GRAPH
    assert [file.source for file in artifact.files] == [
        "app/w.py",
        "lib/__init__.py",
        "lib/x.py",
        "e\u0301.csv",
    ]
    ways = [next(Graph(artifact).ways_to(node), ()) for node, _ in Graph(artifact).file_nodes()]
    assert [[step.name for step in way] for way in ways] == [
        ["app/w.py"],
        [],
        ["app/w.py", "lib/x.py"],
        [],
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": 3}, "targets: not a list"),
        ({"targets": [["a", 0, []]]}, r"targets\[0\]: not a list of 4 values"),
        ({"targets": [["a", 9, [], []]]}, "a library that is not there"),
        ({"targets": [["a", 0, [1], []]]}, "one is not there"),
        ({"targets": [["a", 0, [-1], []]]}, r"targets\[0\].imported\[0\]: not an integer from 0"),
        ({"targets": [["a", 0, [True], []]]}, "not an integer"),
        ({"targets": [["b", 0, [], []], ["a", 0, [], []]]}, "not sorted"),
        ({"targets": [["a", 0, [], []]]}, "a target or root that is not there"),
        ({"libraries": ["b", "a"]}, "not sorted|not there"),
        ({"root": 5}, "root: names no target"),
        ({"entries": [5]}, "one is not there"),
        ({"entries": [1, 1]}, "not sorted"),
        ({"requirements": [[9, [], [], []]]}, "one is not there"),
        ({"package_roots": []}, "that is not there"),
        ({"package_roots": [".", "a", "b"]}, "more than there are"),
        ({"alone": [4]}, "a file that is not there"),
        ({"sources": [[0, "../x"]]}, "a '..' in the path"),
        ({"sources": [[1, "b"], [0, "a"]]}, "not sorted"),
        ({"more": 1}, "unknown keys"),
    ],
)
def test_a_graph_that_contradicts_itself_is_refused(changes, message):
    raw = json.loads(WITH_GRAPH.to_json())
    with pytest.raises(InvalidData, match=message):
        Manifest.from_json(
            json.dumps({**raw, "root": 0, "entries": [], "requirements": [], **changes}).encode()
        )
