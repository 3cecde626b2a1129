"""`image-install` turns locked wheels into layers which hold nothing of the machine that made them."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from flyte_pack.errors import UserError
from flyte_pack.image.filesystem import console_script
from flyte_pack.image.installed import read_installed
from tests.support.codec_envs import needed_cpython
from tests.support.image_tools import Done, Tools, compiler
from tests.support.wheels import AMD64, ARM64, Wheel, lock_of, record_hash, serve_index

SITE = "lib/python3.12/site-packages"

EVERYTHING = Wheel(
    "Every_Thing",
    "1.2",
    files={
        "every/__init__.py": "def main():\n    print('ran', __file__)\n    return 3\n",
        "every/grüße.txt": "hello",
        "every/bin/tool": "#!/bin/sh\n",
        "{data}/scripts/every.sh": "#!/bin/sh\necho shell\n",
        "{data}/scripts/tool.py": "#!python\nimport every\nevery.main()\n",
        "{data}/scripts/env.py": "#!/usr/bin/env python\n",
        "{data}/data/share/every/data.csv": "1,2\n",
        "{data}/headers/every.h": "#define X\n",
        "{data}/purelib/pure.py": "X = 1\n",
        "{data}/platlib/plat.py": "X = 2\n",
    },
    scripts={"every": "every:main", "other-every": "every : main [extra]"},
    executable=("every/bin/tool",),
)


@pytest.fixture
def install(tmp_path):
    """Install wheels that an index serves."""

    def run(wheels, *options, lock=None, name="home", **more) -> Done:
        with serve_index(wheels) as index:
            tools = Tools(tmp_path / name, index)
            return tools.install(lock_of(wheels) if lock is None else lock, *options, **more)

    return run


def listing(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return [
            f"{m.mode:04o} {m.uid}:{m.gid} {m.mtime} {m.uname}{m.gname}{'/' if m.isdir() else m.size} {m.name}"
            for m in tar
        ]


def installed_metadata(name: str) -> set[str]:
    return {
        f"{SITE}/{name}-1.0.dist-info/{file}"
        for file in ("INSTALLER", "METADATA", "RECORD", "WHEEL")
    }


def test_the_layer_of_a_small_distribution(install):
    done = install([EVERYTHING])
    (layer,) = done.layers
    assert layer["what"] == "every-thing 1.2"
    assert listing(done.layer("every-thing 1.2")) == [
        "0755 0:0 0 / opt/venv",
        "0755 0:0 0 / opt/venv/bin",
        "0755 0:0 0 22 opt/venv/bin/env.py",
        "0755 0:0 0 106 opt/venv/bin/every",
        "0755 0:0 0 21 opt/venv/bin/every.sh",
        "0755 0:0 0 106 opt/venv/bin/other-every",
        "0755 0:0 0 49 opt/venv/bin/tool.py",
        "0755 0:0 0 / opt/venv/include",
        "0755 0:0 0 / opt/venv/include/site",
        "0755 0:0 0 / opt/venv/include/site/python3.12",
        "0755 0:0 0 / opt/venv/include/site/python3.12/every-thing",
        "0644 0:0 0 10 opt/venv/include/site/python3.12/every-thing/every.h",
        "0755 0:0 0 / opt/venv/lib",
        "0755 0:0 0 / opt/venv/lib/python3.12",
        "0755 0:0 0 / opt/venv/lib/python3.12/site-packages",
        "0755 0:0 0 / opt/venv/lib/python3.12/site-packages/Every_Thing-1.2.dist-info",
        "0644 0:0 0 2 opt/venv/lib/python3.12/site-packages/Every_Thing-1.2.dist-info/INSTALLER",
        "0644 0:0 0 53 opt/venv/lib/python3.12/site-packages/Every_Thing-1.2.dist-info/METADATA",
        "0644 0:0 0 1299 opt/venv/lib/python3.12/site-packages/Every_Thing-1.2.dist-info/RECORD",
        "0644 0:0 0 76 opt/venv/lib/python3.12/site-packages/Every_Thing-1.2.dist-info/WHEEL",
        "0644 0:0 0 72 opt/venv/lib/python3.12/site-packages/Every_Thing-1.2.dist-info/entry_points.txt",
        "0755 0:0 0 / opt/venv/lib/python3.12/site-packages/every",
        "0644 0:0 0 52 opt/venv/lib/python3.12/site-packages/every/__init__.py",
        "0755 0:0 0 / opt/venv/lib/python3.12/site-packages/every/bin",
        "0755 0:0 0 10 opt/venv/lib/python3.12/site-packages/every/bin/tool",
        "0644 0:0 0 5 opt/venv/lib/python3.12/site-packages/every/grüße.txt",
        "0644 0:0 0 6 opt/venv/lib/python3.12/site-packages/plat.py",
        "0644 0:0 0 6 opt/venv/lib/python3.12/site-packages/pure.py",
        "0755 0:0 0 / opt/venv/share",
        "0755 0:0 0 / opt/venv/share/every",
        "0644 0:0 0 4 opt/venv/share/every/data.csv",
    ]


def test_what_two_images_need_alike_is_one_blob(install):
    large = Wheel("large", files={"large.bin": os.urandom(2 << 20)})
    one = install([large, Wheel("small-one")], name="one")
    two = install([large, Wheel("small-two"), Wheel("small-three")], name="two")
    assert [layer["what"] for layer in one.layers] == ["large 1.0", "small-one 1.0"]
    assert [layer["what"] for layer in two.layers] == ["large 1.0", "2 smaller distributions"]
    assert one.layers[0] == two.layers[0]


def test_packages_are_there_with_their_programs(install):
    done = install([EVERYTHING, Wheel("plain")])
    assert done.versions() == {"every-thing": "1.2", "plain": "1.0"}
    programs = {"env.py", "every", "every.sh", "other-every", "tool.py"}
    assert {p for p in done.paths() if p.startswith("bin/")} == {f"bin/{p}" for p in programs}


def test_nothing_makes_no_layer(install):
    done = install([], lock="")
    assert done.layers == []


def test_programs_start_the_images_interpreter(install, tmp_path):
    root = install([EVERYTHING]).unpack(tmp_path / "root")
    first = {p.name: p.read_text().splitlines()[0] for p in (root / "opt/venv/bin").iterdir()}
    assert first == {
        "every": "#!/opt/venv/bin/python",
        "other-every": "#!/opt/venv/bin/python",
        "tool.py": "#!/opt/venv/bin/python",
        "every.sh": "#!/bin/sh",
        "env.py": "#!/usr/bin/env python",
    }
    for name in ("every", "other-every"):
        script = root / "opt/venv/bin" / name
        done = subprocess.run(
            [sys.executable, str(script)],
            env={"PYTHONPATH": str(root / "opt/venv" / SITE)},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout[:4]) == (3, "ran ")


def test_record_lists_what_is_there(install, tmp_path):
    site = install([EVERYTHING]).unpack(tmp_path / "root") / "opt/venv" / SITE
    info = site / "Every_Thing-1.2.dist-info"
    with open(info / "RECORD", newline="", encoding="utf-8") as file:
        rows = {row[0]: (row[1], row[2]) for row in csv.reader(file)}
    assert list(rows) == sorted(rows)
    assert rows.pop("Every_Thing-1.2.dist-info/RECORD") == ("", "")
    there = {os.path.relpath(p, site) for p in (tmp_path / "root").rglob("*") if p.is_file()}
    assert set(rows) == there - {"Every_Thing-1.2.dist-info/RECORD"}
    for name, said in rows.items():
        content = (site / name).read_bytes()
        assert said == (record_hash(content), str(len(content))), name
    assert not {"REQUESTED", "direct_url.json", "uv_cache.json"} & {p.name for p in info.iterdir()}


def test_a_wheel_in_a_directory_leaves_no_note_of_that(tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / EVERYTHING.file_name).write_bytes(EVERYTHING.content)
    with serve_index([]) as empty:
        done = Tools(tmp_path / "home", empty).install(
            lock_of([EVERYTHING]), UV_FIND_LINKS=str(wheels)
        )
    assert done.code == 0, done.stderr
    with serve_index([EVERYTHING]) as index:
        other = Tools(tmp_path / "other", index).install(lock_of([EVERYTHING]))
    assert done.layers == other.layers


def test_wheels_are_those_of_the_platform_and_python_that_are_asked_for(install):
    wheels = [
        Wheel("native", tag=AMD64, files={"native.so": b"amd64"}),
        Wheel("native", tag=ARM64, files={"native.so": b"arm64"}),
        Wheel("native", tag="cp311-cp311-manylinux_2_17_aarch64", files={"native.so": b"3.11"}),
    ]
    for python, platform, expected in (
        ("3.12", "linux/amd64", b"amd64"),
        ("3.12", "linux/arm64", b"arm64"),
        ("3.11", "linux/arm64", b"3.11"),
    ):
        done = install(wheels, python=python, platform=platform, out=f"{python}{platform}")
        with tarfile.open(done.layer("native 1.0")) as tar:
            name = f"opt/venv/lib/python{python}/site-packages/native.so"
            member = tar.extractfile(name)
            assert member is not None
            assert member.read() == expected


def test_wheels_for_a_newer_glibc_are_taken_where_the_base_has_it(install):
    wheel = Wheel("new", tag="cp312-cp312-manylinux_2_34_x86_64")
    done = install([wheel])
    assert "new 1.0 has no wheel for linux/amd64 and CPython 3.12" in done.stderr
    assert "set `glibc` of the `flyte_base_image`" in done.stderr
    assert install([wheel], "--libc", "2.34").code == 0


OWNED_BY_NOBODY = Wheel(
    "a", files={"a.py": "", "forgotten.py": "X = 1\n"}, unlisted=("forgotten.py",)
)


def test_a_file_that_its_wheel_forgot_to_list_is_installed_all_the_same(install):
    assert f"{SITE}/forgotten.py" in install([OWNED_BY_NOBODY]).paths()


def test_two_distributions_may_bring_the_same_file(install):
    wheels = [
        Wheel("one", files={"shared/__init__.py": "", "shared/one.py": ""}),
        Wheel("two", files={"shared/__init__.py": "", "shared/two.py": ""}),
    ]
    paths = install(wheels).paths()
    assert {f"{SITE}/shared/{name}.py" for name in ("__init__", "one", "two")} <= paths


def test_each_of_them_has_it_in_its_own_layer(install):
    big = os.urandom(2 << 20)
    wheels = [Wheel(n, files={"shared/__init__.py": "", f"{n}.bin": big}) for n in ("one", "two")]
    done = install(wheels)
    for wheel in wheels:
        assert any(
            "shared/__init__.py" in line for line in listing(done.layer(f"{wheel.name} 1.0"))
        )


OLD, NEW = "extend_path(old)\n", "extend_path(new)\n"

# The wheels, and what is at the paths that several bring.
CONTESTED = {
    "a namespace": (
        [
            Wheel("ns-one", files={"ns/__init__.py": OLD, "ns/one.py": ""}),
            Wheel("ns-two", files={"ns/__init__.py": NEW, "ns/two.py": ""}),
        ],
        {f"{SITE}/ns/__init__.py": ("ns-two", NEW)},
    ),
    "three, of which two agree": (
        [
            Wheel("c", files={"LICENSE": "of c"}),
            Wheel("a", files={"LICENSE": "of a"}),
            Wheel("b", files={"LICENSE": "of c"}),
        ],
        {f"{SITE}/LICENSE": ("c", "of c")},
    ),
    "names are compared as normalized": (
        [Wheel("Z_one", files={"same.py": "z"}), Wheel("a-two", files={"same.py": "a"})],
        {f"{SITE}/same.py": ("z-one", "z")},
    ),
    "the winner is in a lower layer": (
        [
            Wheel("a-small", files={"same.py": "small"}),
            Wheel("z-large", files={"same.py": "large", "z.bin": os.urandom(2 << 20)}),
        ],
        {f"{SITE}/same.py": ("z-large", "large")},
    ),
    "the loser is in a lower layer": (
        [
            Wheel("a-large", files={"same.py": "large", "a.bin": os.urandom(2 << 20)}),
            Wheel("z-small", files={"same.py": "small"}),
        ],
        {f"{SITE}/same.py": ("z-small", "small")},
    ),
    "entry points": (
        [
            Wheel("one", scripts={"run": "one:main", "same": "both:main"}),
            Wheel("two", scripts={"run": "two:main", "same": "both:main"}),
        ],
        {"bin/run": ("two", console_script("two", "main"))},
    ),
    "a script over an entry point": (
        [
            Wheel("one", scripts={"run": "one:main"}),
            Wheel("two", files={"two.py": "", "{data}/scripts/run": "#!python\nx\n"}),
        ],
        {"bin/run": ("two", "#!/opt/venv/bin/python\nx\n")},
    ),
    "an entry point over a script": (
        [
            Wheel("one", files={"one.py": "", "{data}/scripts/run": "#!python\nx\n"}),
            Wheel("two", scripts={"run": "two:main"}),
        ],
        {"bin/run": ("two", console_script("two", "main"))},
    ),
    "data": (
        [Wheel(n, files={f"{n}.py": "", "{data}/data/share/x": n}) for n in ("one", "two")],
        {"share/x": ("two", "two")},
    ),
    "files that their wheels did not list": (
        [Wheel(n, files={f"{n}.py": "", "x.py": n}, unlisted=("x.py",)) for n in ("one", "two")],
        {f"{SITE}/x.py": ("two", "two")},
    ),
    "files that their wheels listed without a hash": (
        [Wheel(n, files={"x.py": n}, listed=(("x.py", "", ""),)) for n in ("one", "two")],
        {f"{SITE}/x.py": ("two", "two")},
    ),
    "lib and lib64 are one": (
        [
            Wheel("one", files={"one.py": "", "{data}/data/lib64/x.so": "64"}),
            Wheel("two", files={"two.py": "", "{data}/data/lib/x.so": "32"}),
        ],
        {"lib/x.so": ("two", "32")},
    ),
}


@pytest.mark.parametrize(("wheels", "expected"), CONTESTED.values(), ids=CONTESTED)
def test_of_those_that_bring_one_path_the_last_by_name_wins(wheels, expected, install, tmp_path):
    done = install(wheels)
    again = install(wheels[::-1], name="again")
    assert again.layers == done.layers
    venv = done.unpack(tmp_path / "root") / "opt/venv"
    rows = {}
    for record in venv.glob("lib/python3.12/site-packages/*.dist-info/RECORD"):
        for path, digest, _ in csv.reader(record.read_text().splitlines()):
            rows.setdefault(os.path.normpath(venv / SITE / path), set()).add(digest)
    for path, (winner, content) in expected.items():
        assert (venv / path).read_text() == content
        # What a RECORD says is so, also that of a loser.
        assert rows.get(os.path.normpath(venv / path)) == {record_hash(content.encode())}
        (line,) = [line for line in done.stderr.splitlines() if f" at {path}; " in line]
        assert line.startswith("warning: ")
        assert line.endswith(f"the image gets that of {winner} 1.0")
        for name in (canonicalize_name(wheel.name) for wheel in wheels):
            assert f"{name} 1.0" in line
    assert len(done.stderr.splitlines()) == len(expected)


IN_THEIR_PLACE = {
    "lib64": ("lib64/x.so", "lib/x.so"),
    "site-packages of the image's Python": (f"{SITE}/pkg/data.txt", f"{SITE}/pkg/data.txt"),
    "the same, through lib64": (
        "lib64/python3.12/site-packages/pkg/x.so",
        f"{SITE}/pkg/x.so",
    ),
    "of another Python": ("lib/python3.7/site-packages/x.py", "lib/python3.7/site-packages/x.py"),
    "beside site-packages": ("lib/python3.12/x.txt", "lib/python3.12/x.txt"),
}


@pytest.mark.parametrize(("data", "place"), IN_THEIR_PLACE.values(), ids=IN_THEIR_PLACE)
def test_data_files_go_where_an_environment_gets_them(data, place, install, tmp_path):
    wheel = Wheel("a", files={"pkg/__init__.py": "", f"{{data}}/data/{data}": "X"})
    done = install([wheel, Wheel("b")])
    assert done.stderr == ""
    assert place in done.paths()
    site = done.unpack(tmp_path / "root") / "opt/venv" / SITE
    record = (site / "a-1.0.dist-info/RECORD").read_text().splitlines()
    assert f"{os.path.relpath(f'/{place}', f'/{SITE}')},{record_hash(b'X')},1" in record
    assert done.versions() == {"a": "1.0", "b": "1.0"}


def test_names_that_differ_in_case_are_two(install):
    done = install([Wheel("a", files={"Name.py": "A"}), Wheel("b", files={"name.py": "b"})])
    assert done.stderr == ""
    assert {f"{SITE}/Name.py", f"{SITE}/name.py"} <= done.paths()


REFUSED = {
    "a file where another has a directory": (
        [Wheel("one", files={"x/y.py": "1"}), Wheel("two", files={"x": "2"}), Wheel("three")],
        f"two 1.0 has a file at {SITE}/x, where one 1.0 has a directory",
    ),
    "a directory of programs": (
        [Wheel("bad", files={"{data}/scripts/sub/tool": "#!python\n"})],
        "bad 1.0 has a directory among its programs, bad-1.0.data/scripts/sub, and",
    ),
    "a file in place of the link of every environment": (
        [Wheel("bad", files={"{data}/data/lib64": ""})],
        "lib64",
    ),
    "the environment's interpreter": (
        [Wheel("bad", files={"{data}/data/bin/python3": "#!/bin/sh\n"})],
        "`python3`",
    ),
    "the environment's settings": (
        [Wheel("bad", files={"{data}/data/pyvenv.cfg": "home = /evil\n"})],
        "brings pyvenv.cfg, which is the environment's own",
    ),
    "a program of that name": (
        [Wheel("bad", scripts={"python": "bad:main"})],
        "reserved name `python`",
    ),
    "a file that empties a directory": (
        [Wheel("bad", files={"bad.py": "", "sub/.wh..wh..opq": ""})],
        "bad 1.0 brings lib/python3.12/site-packages/sub/.wh..wh..opq: it has a name that begins with .wh.",
    ),
    "a directory that removes a file": (
        [Wheel("bad", files={"{data}/data/.wh.bin/x": ""})],
        "bad 1.0 brings .wh.bin/x: it has a name that begins with .wh., by which a layer removes files",
    ),
    "a program that removes another": (
        [Wheel("bad", scripts={".wh.python": "bad:main"})],
        "begins with .wh., by which a layer removes files",
    ),
    "a program outside": ([Wheel("bad", scripts={"../../../evil": "bad:main"})], "bad==1.0"),
    "a program that is code": ([Wheel("bad", scripts={"run": "os:system('x')"})], "bad==1.0"),
}


@pytest.mark.parametrize(("wheels", "message"), REFUSED.values(), ids=REFUSED)
def test_wheels_that_do_not_fit_an_image_are_refused(wheels, message, install, tmp_path):
    done = install(wheels)
    assert done.code == 1
    assert done.stderr.startswith("flyte_pack image-install: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert str(tmp_path) not in done.stderr
    assert not done.out.exists()


def test_entry_points_that_can_not_be_read_are_refused(install):
    points = "[console_scripts]\nrun = bad:main\nrun = bad:other\n"
    done = install([Wheel("bad", files={"bad.py": "", "{info}/entry_points.txt": points})])
    assert done.code == 1
    assert "`entry_points.txt` is invalid: duplicate option at line 3" in done.stderr


INSTALLED = "lib/python3.9/site-packages"

# What uv would not leave behind, which is not what the check should rest on.
LEFT_BEHIND = {
    "a distribution that nobody asked for": (
        {f"{INSTALLED}/evil-1.0.dist-info/RECORD": ""},
        "which nobody asked for",
    ),
    "nothing": ({f"{INSTALLED}/a.py": ""}, "a: nothing was installed"),
    "a program that leads elsewhere": (
        {
            f"{INSTALLED}/a-1.0.dist-info/RECORD": "",
            f"{INSTALLED}/a-1.0.dist-info/entry_points.txt": "[console_scripts]\n../../evil = a:main\n",
        },
        "a 1.0 has a program that cannot be made",
    ),
    "a program that is code": (
        {
            f"{INSTALLED}/a-1.0.dist-info/RECORD": "",
            f"{INSTALLED}/a-1.0.dist-info/entry_points.txt": "[console_scripts]\nrun = a:main)\n",
        },
        "a 1.0 has a program that cannot be made",
    ),
    "a program that removes another": (
        {
            f"{INSTALLED}/a-1.0.dist-info/RECORD": "",
            f"{INSTALLED}/a-1.0.dist-info/entry_points.txt": "[console_scripts]\n.wh.python = a:main\n",
        },
        "a 1.0 has a program that cannot be made: '.wh.python'",
    ),
    "what removes a file and is nobody's": (
        {f"{INSTALLED}/a-1.0.dist-info/RECORD": "", f"{INSTALLED}/.wh.a": ""},
        "a wheel brings lib/python3.12/site-packages/.wh.a: it has a name that begins with .wh.",
    ),
    "another interpreter": (
        {f"{INSTALLED}/a-1.0.dist-info/RECORD": "../../../bin/python3,,\n", "bin/python3": ""},
        "brings bin/python3, which is the environment's own",
    ),
    "a link": (
        {f"{INSTALLED}/a-1.0.dist-info/RECORD": "", f"{INSTALLED}/a.py": None},
        "a link or a device",
    ),
}


@pytest.mark.parametrize(("files", "message"), LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_what_the_installer_leaves_is_checked(files, message, tmp_path):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.symlink_to("/etc/hostname")
        else:
            path.write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        read_installed(str(tmp_path), "3.12", {"a": "1.0"})


@pytest.mark.parametrize(
    "path",
    ["../../../../../evil.py", "/evil.py", "bad/../../../evil.py", "{data}/data/../../../../evil"],
)
def test_files_that_lead_out_of_the_environment_do_not_get_anywhere(path, install, tmp_path):
    done = install([Wheel("bad", files={"bad.py": "", path: ""})])
    assert done.paths() - installed_metadata("bad") == {f"{SITE}/bad.py"}
    assert not list(tmp_path.rglob("evil*"))
    assert not Path("/evil.py").exists()


def test_what_record_says_of_files_elsewhere_is_not_believed(install, tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")
    rows = (
        (f"../../../../../../../../../..{outside}", "", ""),
        ("/etc/hostname", "", ""),
        ("gone.py", "", ""),
    )
    wheel = Wheel(
        "liar", files={"liar.py": "X = 1\n"}, listed=(*rows, ("liar.py", "sha256=x", "999"))
    )
    done = install([wheel])
    assert done.paths() - installed_metadata("liar") == {f"{SITE}/liar.py"}
    root = done.unpack(tmp_path / "root")
    record = (root / "opt/venv" / SITE / "liar-1.0.dist-info/RECORD").read_text()
    assert f"liar.py,{record_hash(b'X = 1' + bytes([10]))},6\n" in record
    assert ".." not in record
    assert "gone" not in record


class TestFailures:
    def test_a_wheel_that_is_not_the_locked_one(self, install):
        lock = lock_of([Wheel("a", files={"a.py": "what was locked"})])
        done = install([Wheel("a", files={"a.py": "what is served"})], lock=lock)
        assert "the wheel of a 1.0 for linux/amd64 and CPython 3.12 has the hash" in done.stderr
        assert "which is not in the lock file" in done.stderr
        assert (done.code, done.out.exists()) == (1, False)

    def test_a_dependency_that_is_gone(self, install):
        done = install([], lock=lock_of([Wheel("a")]))
        assert "a is not on the package index" in done.stderr
        assert (done.code, done.out.exists()) == (1, False)

    def test_a_version_that_is_gone(self, install):
        done = install([Wheel("a", "2.0")], lock=lock_of([Wheel("a", "1.0")]))
        assert "a 1.0 is not on the package index" in done.stderr

    def test_a_dependency_with_sources_only(self, tmp_path):
        wheel = Wheel("a")
        with serve_index([wheel], rename={wheel.file_name: "a-1.0.tar.gz"}) as index:
            done = Tools(tmp_path, index).install(lock_of([wheel]))
        assert "a 1.0 has no wheel for linux/amd64" in done.stderr

    def test_a_requirement_without_a_hash(self, install):
        done = install([Wheel("a")], lock="a==1.0\n")
        assert "a 1.0 cannot be installed: it has no SHA-256 in the lock file" in done.stderr

    def test_an_index_that_can_not_be_reached(self, tmp_path):
        tools = Tools(tmp_path, "http://user:secret@127.0.0.1:9/simple/")
        done = tools.install(lock_of([Wheel("a")]))
        assert "the package index cannot be reached" in done.stderr
        assert "Connection refused" in done.stderr
        assert "secret" not in done.stderr

    def test_an_output_that_is_there_already(self, install):
        assert install([Wheel("a")]).code == 0
        again = install([Wheel("a"), Wheel("b")])
        assert again.code == 1
        assert "Directory not empty" in again.stderr
        assert Done(0, "", again.out).versions() == {"a": "1.0"}

    def test_nothing_is_left_beside_the_output(self, install, tmp_path):
        install([Wheel("a")], lock="a==1.0\n")
        install([Wheel("a")], lock=lock_of([Wheel("b")]))
        assert {p.name for p in (tmp_path / "home").iterdir()} <= {
            ".local",
            "requirements.txt",
            "uv-cache",
        }


MODULES = {
    "pkg/__init__.py": "NAMES = {'a', 'b', 'c', 'd'}\nX = lambda n: n in {'x', 'y', 'z', 'w'}\n",
    "pkg/broken.py": "print 'for Python 2'\n",
    "pkg/tests/test_pkg.py": "X = 1\n",
}


# An import puts the place where a module is found into its code; so the file is read for what it says itself.
_READ = """
import marshal, pkg
print(len(pkg.NAMES), marshal.loads(open(pkg.__cached__, "rb").read()[16:]).co_filename)
"""


class TestBytecode:
    @pytest.fixture
    def compiled(self, install):
        return install(
            [Wheel("pkg", files=MODULES)], "--compiler", compiler(needed_cpython("3.12"))
        )

    def test_a_distribution_has_the_same_blob_whatever_it_is_compiled_with(self, install):
        large = Wheel("large", files={**MODULES, "large.bin": os.urandom(2 << 20)})
        others = [
            Wheel(f"o{n}", files={f"o{n}.py": f"NAMES = {{'a', 'b', 'pkg{n}'}}\n"})
            for n in range(120)
        ]
        options = ("--compiler", compiler(needed_cpython("3.12")))
        alone, among = install([large], *options, name="alone"), install([large, *others], *options)
        assert alone.layers == among.layers[:1]

    def test_modules_are_compiled_but_for_tests_and_what_does_not_compile(self, compiled):
        found = {p for p in compiled.paths() if p.endswith(".pyc")}
        assert found == {f"{SITE}/pkg/__pycache__/__init__.cpython-312.pyc"}

    def test_bytecode_is_used_as_it_is_and_knows_where_it_lies_in_the_image(
        self, compiled, tmp_path
    ):
        site = compiled.unpack(tmp_path / "root") / "opt/venv" / SITE
        source = site / "pkg/__init__.py"
        source.write_text("raise SystemExit('the source was read')")
        done = subprocess.run(
            [needed_cpython("3.12"), "-c", _READ],
            env={"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert done.stdout == f"4 /opt/venv/{SITE}/pkg/__init__.py\n", done.stderr

    def test_bytecode_is_listed_without_a_hash(self, compiled, tmp_path):
        site = compiled.unpack(tmp_path / "root") / "opt/venv" / SITE
        record = (site / "pkg-1.0.dist-info/RECORD").read_text().splitlines()
        assert "pkg/__pycache__/__init__.cpython-312.pyc,," in record

    @pytest.mark.parametrize("version", ["3.10", "3.11", "3.12"])
    def test_it_is_the_same_every_time(self, version, install, tmp_path):
        def made(name: str, **env: str) -> list[dict[str, object]]:
            return install(
                [Wheel("pkg", files=MODULES)],
                *("--compiler", compiler(needed_cpython(version))),
                python=version,
                name=name,
                **env,
            ).layers

        one = made("some where/tests/one", PYTHONHASHSEED="1", LC_ALL="C")
        assert one == made("two", PYTHONHASHSEED="2", TZ="Asia/Kathmandu")

    def test_the_history_says_who_compiled_it(self, compiled):
        release = compiler(needed_cpython("3.12")).partition("=")[0]
        assert compiled.layers[0]["what"] == f"pkg 1.0, compiled by CPython {release}"

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            (compiler(sys.executable), r"must be compiled by CPython 3\..* is CPython 3\."),
            (f"3.99.0={sys.executable}", r"must be compiled by CPython 3\.99\.0, .* is CPython 3"),
            ("3.13.0=/bin/true", "is no CPython that works"),
            ("3.13.0=/nowhere/python", "is no CPython that works"),
        ],
        ids=["another version", "another release", "no Python", "nothing"],
    )
    def test_another_interpreter_than_said_or_than_the_images_is_refused(
        self, argument, message, install
    ):
        python = "3.13" if sys.version_info < (3, 13) else "3.12"
        if "3.99" in argument:
            python = "3.99"
        done = install([Wheel("a")], "--compiler", argument, python=python)
        assert done.code == 1
        assert re.search(message, done.stderr)
        assert not done.out.exists()
