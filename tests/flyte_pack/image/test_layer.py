"""A plan and a directory of sources become one layer: owners, modes, directories, links, and nothing that varies."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

import flyte_pack
from flyte_pack.errors import UserError
from flyte_pack.image.compiler import Compiler, compiled_path, release_of
from flyte_pack.image.layer import compile_modules, main, pack_layer
from flyte_pack.image.layer_plan import LayerPlan
from flyte_pack.json_fields import InvalidData
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.parts import Layer, Layers
from tests.support.codec_envs import needed_cpython
from tests.support.layouts import Member, members_of
from tests.support.packing import write_tree

USER = (1000, 1000)
PLAN = LayerPlan(
    what="a test's",
    owner=USER,
    directories=(("home/flyte", 0o755), ("home/flyte/task", 0o750)),
    files=(("home/flyte/task/pkg/a.py", "src/a.py"), ("home/flyte/task/run.sh", "run.sh")),
    texts=(("opt/venv/pyvenv.cfg", "home = /usr/bin\n", 0o644), ("opt/venv/bin/x", "#!x\n", 0o755)),
    links=(("opt/venv/bin/python", "/usr/bin/python3.12"), ("opt/venv/bin/python3", "python")),
)
FILES = {"src/a.py": b"a = 1\n", "run.sh": b"#!/bin/sh\n"}


def pack(plan: LayerPlan, top: Path, files: dict[str, bytes], out: str = "out", **how) -> Layer:
    sources = top / "sources"
    if not sources.exists():
        write_tree(sources, files, **how)
    return pack_layer(plan, str(sources), str(top / out))


def blob(layer: Layer, out: Path) -> bytes:
    data = (out / "blobs" / "sha256" / layer.digest[7:]).read_bytes()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == layer.digest
    assert len(data) == layer.size
    unpacked = gzip.decompress(data)
    assert f"sha256:{hashlib.sha256(unpacked).hexdigest()}" == layer.diff_id
    return data


def members(plan: LayerPlan, top: Path, files: dict[str, bytes], **how) -> dict[str, Member]:
    return members_of(gzip.decompress(blob(pack(plan, top, files, **how), top / "out")))


def test_a_layer_is_what_the_plan_says(tmp_path):
    found = members(PLAN, tmp_path, FILES, executable=["run.sh"])
    assert found == {
        "home/flyte": Member("directory", 0o755, USER, ""),
        "home/flyte/task": Member("directory", 0o750, USER, ""),
        # Made because it is below a directory that is known.
        "home/flyte/task/pkg": Member("directory", 0o755, USER, ""),
        "home/flyte/task/pkg/a.py": Member("file", 0o644, USER, "a = 1\n"),
        "home/flyte/task/run.sh": Member("file", 0o755, USER, "#!/bin/sh\n"),
        # Not made: the base has them, with modes and owners of its own.
        "opt/venv/bin/python": Member("link", 0o777, USER, "/usr/bin/python3.12"),
        "opt/venv/bin/python3": Member("link", 0o777, USER, "python"),
        "opt/venv/bin/x": Member("file", 0o755, USER, "#!x\n"),
        "opt/venv/pyvenv.cfg": Member("file", 0o644, USER, "home = /usr/bin\n"),
    }


def test_a_directory_comes_before_what_is_in_it(tmp_path):
    files = {
        f"{d}/{f}": f"home/flyte/task/{d}/{f}" for d in ("b-", "b", "b/c", "a.b") for f in "xy"
    }
    plan = replace(PLAN, texts=(), files=tuple((path, source) for source, path in files.items()))
    order = list(members(plan, tmp_path, dict.fromkeys(files, b"")))
    assert set(files.values()) == {path for path in order if path.endswith(("/x", "/y"))}
    for path in order:
        parent = path.rpartition("/")[0]
        assert parent not in order or order.index(parent) < order.index(path)


def test_gnu_tar_reads_it_as_it_is_meant(tmp_path):
    layer = pack(PLAN, tmp_path, FILES, executable=["run.sh"])
    listed = subprocess.run(
        ["tar", "--numeric-owner", "--utc", "-tvzf", str(tmp_path / "out/blobs/sha256" / layer.digest[7:])],
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=True,
        text=True,
    )  # fmt: skip
    assert listed.stderr == ""
    lines = [line.split() for line in listed.stdout.splitlines()]
    assert [(line[0], line[1], " ".join(line[5:])) for line in lines] == [
        ("drwxr-xr-x", "1000/1000", "home/flyte/"),
        ("drwxr-x---", "1000/1000", "home/flyte/task/"),
        ("drwxr-xr-x", "1000/1000", "home/flyte/task/pkg/"),
        ("-rw-r--r--", "1000/1000", "home/flyte/task/pkg/a.py"),
        ("-rwxr-xr-x", "1000/1000", "home/flyte/task/run.sh"),
        ("lrwxrwxrwx", "1000/1000", "opt/venv/bin/python -> /usr/bin/python3.12"),
        ("lrwxrwxrwx", "1000/1000", "opt/venv/bin/python3 -> python"),
        ("-rwxr-xr-x", "1000/1000", "opt/venv/bin/x"),
        ("-rw-r--r--", "1000/1000", "opt/venv/pyvenv.cfg"),
    ]
    assert {(line[3], line[4]) for line in lines} == {("1970-01-01", "00:00")}


NAMES = {
    "long": "d" * 120 + "/" + "n" * 200 + ".py",
    "not ASCII": "größe/数据/🐍.py",
    "long and not ASCII": "é" * 100 + "/" + "ü" * 100,
    "odd": " a b/\\n'\"*?[x]\n.py",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_of_any_kind_are_kept_with_their_directories(tmp_path, name):
    files = {name: b"x\n"}
    plan = replace(
        PLAN, files=((f"home/flyte/task/{name}", name),), links=((f"{name}-link", "t" * 150 + "é"),)
    )
    found = members(plan, tmp_path, files)
    assert found[f"home/flyte/task/{name}"] == Member("file", 0o644, USER, "x\n")
    assert found[f"home/flyte/task/{name}".rpartition("/")[0]].kind == "directory"
    assert found[f"{name}-link"].content == "t" * 150 + "é"


@pytest.mark.parametrize(
    "owner", [(0, 0), (1000, 0), (2097151, 2097151), (2097152, 5), (5, 2097152), (1000660000, 0)]
)
def test_owners_of_any_number_are_kept(tmp_path, owner):
    found = members(replace(PLAN, owner=owner), tmp_path, FILES)
    assert {member.owner for member in found.values()} == {owner}


def test_a_text_is_written_as_utf8(tmp_path):
    plan = replace(PLAN, files=(), texts=(("etc/motd", "größe\n", 0o600),))
    assert members(plan, tmp_path, {})["etc/motd"] == Member("file", 0o600, USER, "größe\n")


def test_a_plan_of_nothing_is_a_layer_too(tmp_path):
    plan = LayerPlan("nothing", (0, 0), ())
    assert members(plan, tmp_path, {}) == {}


def test_it_is_the_same_whatever_the_checkout_looks_like(tmp_path):
    one = pack(PLAN, tmp_path / "one", FILES, executable=["run.sh"])
    other = tmp_path / "other" / "deeper"
    before = os.umask(0o077)
    try:
        write_tree(other / "sources", dict(reversed(FILES.items())))
        (other / "sources" / "run.sh").chmod(0o700)
        os.utime(other / "sources" / "run.sh", (1, 1))
        shuffled = replace(PLAN, files=PLAN.files[::-1], links=PLAN.links[::-1])
        two = pack(shuffled, other, FILES)
    finally:
        os.umask(before)
    assert one == two
    assert blob(one, tmp_path / "one/out") == blob(two, other / "out")


@pytest.mark.parametrize(
    "size", [0, 1, 511, 512, 513, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20]
)
def test_files_of_any_size_are_kept(tmp_path, size):
    plan = replace(PLAN, files=(("data", "data"), ("end", "end")))
    found = members(plan, tmp_path, {"data": b"x" * size, "end": b"end"})
    assert (found["data"].content, found["end"].content) == ("x" * size, "end")


# --- plans ----------------------------------------------------------------------------------------


def test_a_plan_reads_back_as_it_was_written():
    assert LayerPlan.from_json(PLAN.to_json()) == PLAN


def changed(**fields) -> bytes:
    return json.dumps({**json.loads(PLAN.to_json()), **fields}).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a JSON document"),
        (changed(schema=9), "schema 9"),
        (changed(more=1), "unknown keys"),
        (changed(what="a\x1b"), "control character"),
        (changed(owner=[1]), "owner: not a list of 2 values"),
        (changed(owner=[True, 1]), r"owner\[0\]: not an integer"),
        (changed(owner=["1", "1"]), r"owner\[0\]: not an integer"),
        (changed(owner=[-1, 0]), r"owner\[0\]: not an integer from 0"),
        (changed(owner=[0, 1 << 32]), r"owner\[1\]: not a user or group"),
        (changed(directories=[["a", -1]]), r"directories\[0\]\[1\]: not an integer from 0"),
        (changed(directories=[["a", 0o10000]]), "mode"),
        (changed(texts=[["a", "", 1 << 40]]), "mode"),
        (changed(directories=[["a", "0755"]]), r"directories\[0\]\[1\]: not an integer"),
        (changed(directories={"a": 1}), "not a list"),
        (changed(files=[["a"]]), r"files\[0\]: not a list of 2 values"),
        (changed(files=[["a", None]]), r"files\[0\]\[1\]: not a string"),
        (changed(texts=[["a", "b"]]), r"texts\[0\]: not a list of 3 values"),
        (changed(links=[["a", "b", "c"]]), r"links\[0\]: not a list of 2 values"),
        *((changed(files=[[path, "src/a.py"]]), "layer plan: ")
          for path in ("", "/etc/passwd", "a/../../b", "..", ".", "a//b", "a/", "a\0b", "n" * 256)),
        *((changed(**{key: [row]}), "an absolute path")
          for key, row in (("directories", ["/a", 1]), ("texts", ["/a", "", 1]), ("links", ["/a", "b"]))),
        *((changed(files=[[path, "src/a.py"]]), "layer plan: a name that begins with .wh., by which a layer removes files")
          for path in (".wh.a", "etc/.wh..wh..opq", "a/.wh.b/c", ".wh.", ".wh..wh.plnk/1")),
        (changed(directories=[[".wh.a", 1]]), "a name that begins with .wh."),
        (changed(links=[["a/.wh.a", "b"]]), "a name that begins with .wh."),
        (changed(texts=[["a/.wh.a", "b", 1]]), "a name that begins with .wh."),
        (changed(files=[["a", "x"], ["a", "y"]]), "there twice: 'a'"),
        (changed(files=[["opt/venv/bin/python", "x"]]), "there twice: 'opt/venv/bin/python'"),
        (changed(files=[["home/flyte", "x"]]), "there twice: 'home/flyte'"),
        # A file where another one needs a directory: no one can unpack that.
        (changed(files=[["a", "x"], ["a/b", "y"]]), "'a' "),
        (changed(links=[["a", "x"]], files=[["a/b/c", "y"]]), "'a' "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_plan_that_cannot_be_one_is_refused(data, message):
    with pytest.raises(InvalidData, match=message):
        LayerPlan.from_json(data)


@pytest.mark.parametrize("add", ["bytes", "directory", "symlink", "file"])
def test_no_member_removes_what_is_below(tmp_path, add):
    """Whoever makes it: packages and files of this machine have no plan."""
    (tmp_path / "source").write_text("")
    arguments = {"bytes": (b"",), "symlink": ("a",), "file": (str(tmp_path / "source"), 0o644)}
    with LayerWriter(str(tmp_path)) as layer:
        getattr(layer, f"add_{add}")("etc/x.wh.y", *arguments.get(add, ()))
        with pytest.raises(UserError, match=r"^'etc/\.wh\.a' cannot be in a layer: it has a name"):
            getattr(layer, f"add_{add}")("etc/.wh.a", *arguments.get(add, ()))


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.py", "missing.py"),
        ("../outside", "outside"),
        ("src", "is a directory"),
        ("link", "link"),
        ("src/linked/a.py", "linked"),
        ("pipe", "pipe"),
    ],
)
def test_a_source_that_is_no_file_of_the_sources_leaves_nothing(tmp_path, source, message):
    sources = write_tree(tmp_path / "sources", FILES)
    (tmp_path / "outside").write_text("secret")
    (sources / "link").symlink_to("run.sh")
    (sources / "src/linked").symlink_to(".")
    os.mkfifo(sources / "pipe")
    plan = replace(PLAN, files=(("z", source),))
    with pytest.raises(UserError, match=message):
        pack_layer(plan, str(sources), str(tmp_path / "out"))
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_a_file_that_grows_meanwhile_is_refused_and_leaves_nothing(tmp_path):
    growing = tmp_path / "growing"
    growing.write_bytes(b"abc")
    with open(growing, "rb") as file, pytest.raises(UserError, match="its size changed"):
        with LayerWriter(str(tmp_path / "out")) as writer:
            writer.add_open_file("a", file.fileno(), 2, 0o644, "growing")
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def command(tmp_path: Path, plan: bytes, *more: str) -> int:
    (tmp_path / "plan.json").write_bytes(plan)
    if not (tmp_path / "sources").exists():
        write_tree(tmp_path / "sources", FILES)
    return main(
        ["--plan", str(tmp_path / "plan.json"), "--sources", str(tmp_path / "sources"),
         "--out", str(tmp_path / "out"), *more]
    )  # fmt: skip


def test_the_command_writes_the_blob_and_says_what_it_is(tmp_path, capsys):
    assert command(tmp_path, PLAN.to_json()) == 0
    (layer,) = Layers.from_json((tmp_path / "out" / "layers.json").read_bytes()).layers
    assert layer.what == "a test's"
    assert blob(layer, tmp_path / "out")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (b"{", "layer plan: not a JSON document"),
        (changed(files=[["a", "nowhere.py"]]), "nowhere.py"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys, plan, message):
    assert command(tmp_path, plan) == 1
    err = capsys.readouterr().err
    assert err.startswith("flyte_pack image-layer: ")
    assert message in err
    assert err.count("\n") == 1


def test_the_command_starts_as_the_rules_start_it(tmp_path):
    (tmp_path / "plan.json").write_bytes(PLAN.to_json())
    write_tree(tmp_path / "sources", FILES)
    done = subprocess.run(
        [sys.executable, "-m", "flyte_pack", "image-layer", "--plan", "plan.json", "--sources", "sources", "--out", "o"],
        cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join([str(Path(flyte_pack.__file__).parent.parent), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(Layers.from_json((tmp_path / "o" / "layers.json").read_bytes()).layers) == 1


def gzip_members(data: bytes) -> list[bytes]:
    """Each as it was compressed."""
    found = []
    while data:
        inflate = zlib.decompressobj(31)
        inflate.decompress(data)
        found.append(data[: len(data) - len(inflate.unused_data)])
        data = inflate.unused_data
    return found


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_layer_in_parts_holds_what_the_plan_says_and_an_edit_changes_one(size, tmp_path):
    files = {f"d{d}/e{d % 2}/{f}.py": b"%d %d" % (d, f) for d in range(7) for f in range(3)}
    paths = tuple((f"home/flyte/task/{path}", path) for path in files)
    plan = replace(PLAN, files=paths)
    whole = members(plan, tmp_path, files)

    def parts() -> list[bytes]:
        layer = pack_layer(plan, str(tmp_path / "sources"), str(tmp_path / "out"), size)
        data = blob(layer, tmp_path / "out")
        assert members_of(gzip.decompress(data)) == whole
        return gzip_members(data)

    before = parts()
    assert len(before) == len(plan.in_parts(size)) + 1  # which is the end of the archive
    (tmp_path / "sources/d3/e1/2.py").write_bytes(b"?")
    whole["home/flyte/task/d3/e1/2.py"] = Member("file", 0o644, USER, "?")
    assert sum(a != b for a, b in zip(before, parts())) == 1


def test_directories_come_before_what_is_in_them_whatever_part_that_is_in(tmp_path):
    files = {f"d{d}/e/f/{n}.py": b"" for d in range(5) for n in range(4)}
    plan = replace(PLAN, files=tuple((f"home/flyte/task/{path}", path) for path in files))
    head, *others = plan.in_parts(1)
    assert others
    assert not head.files
    assert not any(part.directories for part in others)
    assert {path for path, _ in head.directories} >= {
        f"home/flyte/task/d{d}{below}" for d in range(5) for below in ("", "/e", "/e/f")
    }
    assert sorted(row for part in others for row in part.files) == sorted(plan.files)


# --- bytecode -------------------------------------------------------------------------------------


@pytest.fixture
def compiler() -> Compiler:
    python = needed_cpython("3.12")
    return Compiler(str(release_of(python)), python)


def with_bytecode(files: Iterable[str]) -> LayerPlan:
    """Of the bytecode of these modules."""
    return LayerPlan(
        what="a test's",
        owner=USER,
        directories=(("home/flyte/task", 0o755),),
        files=tuple((compiled_path(f"home/flyte/task/{file}", "3.12"), file) for file in files),
    )


def compiled_into(
    root: Path, plan: LayerPlan, compiler: Compiler, out: Path, part: int = 1000
) -> Layer:
    plan, compiled = compile_modules(plan, str(root), compiler)
    layer = pack_layer(plan, str(root), str(out), part, compiled)
    with tarfile.open(fileobj=io.BytesIO(blob(layer, out))) as tar:
        tar.extractall(out / "root", filter="fully_trusted")
    return layer


def test_bytecode_spares_compiling_until_its_source_is_another(tmp_path, compiler):
    source = tmp_path / "sources" / "a.py"
    write_tree(tmp_path / "sources", {"a.py": b"import sys\nprint('one')\n", "b.py": b"print 2\n"})
    compiled_into(tmp_path / "sources", with_bytecode(["a.py", "b.py"]), compiler, tmp_path / "out")
    work = tmp_path / "out/root/home/flyte/task"
    assert os.listdir(work / "__pycache__") == ["a.cpython-312.pyc"]

    def said() -> str:
        (work / "a.py").write_bytes(source.read_bytes())
        os.utime(work / "a.py", (0, 0))
        done = subprocess.run(
            [compiler.python, "-v", "-B", "-c", "import a"],
            env={"PYTHONPATH": str(work)},
            capture_output=True,
            text=True,
        )
        used = "matches" in done.stderr and f"{work}/__pycache__/a.cpython-312.pyc" in done.stderr
        return f"{done.stdout.strip()} {used}"

    before = said()
    source.write_bytes(b"import sys\nprint('two')\n")  # as long as before
    assert [before, said().split()[0]] == ["one True", "two"]


def test_bytecode_in_parts_is_what_it_is_as_a_whole_and_an_edit_changes_one(tmp_path, compiler):
    files = {f"d{d}/{f}.py": b"X = {'%d', '%d'}\n" % (d, f) for d in range(7) for f in range(3)}
    write_tree(tmp_path / "sources", files)
    plan = with_bytecode(files)

    def packed(name: str, part: int = 3) -> bytes:
        out = tmp_path / name
        return blob(compiled_into(tmp_path / "sources", plan, compiler, out, part), out)

    before = packed("one")
    assert packed("again") == before
    assert members_of(gzip.decompress(packed("whole", 100))) == members_of(gzip.decompress(before))
    (tmp_path / "sources/d3/2.py").write_bytes(b"edited = 1\n")
    changed = [a != b for a, b in zip(gzip_members(before), gzip_members(packed("edited")))]
    assert len(changed) > 3
    assert sum(changed) == 1
