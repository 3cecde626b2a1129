"""The same pins give the same layers, wherever, whenever and by whichever Python they are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from tests.support.codec_envs import needed_cpython
from tests.support.image_tools import Done, Tools, tools_for
from tests.support.wheels import AMD64, Wheel, lock_of, serve_index

WHEELS = [
    Wheel(
        "native",
        files={
            "native/__init__.py": "NAMES = {'a', 'b', 'c'}\n",
            "native/code.so": bytes(range(256)) * 8192,
            "native/größe.txt": "ß",
            "{data}/scripts/native-tool": "#!python\nimport native\n",
            "{data}/headers/native.h": "",
        },
        scripts={"native": "native:main"},
        tag=AMD64,
    ),
    *(
        Wheel(f"small-{n}", files={"shared/__init__.py": "", f"shared/s{n}.py": f"X = {n}\n"})
        for n in range(9)
    ),
]


@dataclass(frozen=True)
class Way:
    """One way of installing; each default is what is usual."""

    directory: str = "usual"
    umask: int = 0o022
    reverse: bool = False
    env: dict[str, str] = field(default_factory=dict)


WAYS = {
    "a directory of another name": Way("some where/else, ärger/tests/" + "d" * 150),
    "a strict umask": Way("strict", umask=0o077),
    "a lax umask": Way("lax", umask=0o000),
    "another order": Way("order", reverse=True),
    "the C locale": Way("c", env={"LC_ALL": "C"}),
    "an ASCII locale": Way(
        "ascii", env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    ),
    "another time zone": Way("zone", env={"TZ": "Asia/Kathmandu"}),
    "no hash randomisation": Way("seed", env={"PYTHONHASHSEED": "0"}),
    "another home": Way("home", env={"HOME": "/nowhere"}),
    "a build time": Way("epoch", env={"SOURCE_DATE_EPOCH": "1234567890"}),
    "copies for hard links": Way("copies", env={"UV_LINK_MODE": "copy"}),
    "bytecode by the installer": Way("compiling", env={"UV_COMPILE_BYTECODE": "1"}),
}


@pytest.fixture(scope="module")
def index():
    with serve_index(WHEELS) as url:
        yield url


def made(
    tools: Tools, way: Way = Way(), python: str = "3.12", *options: str, out: str = "out"
) -> Done:
    lock = lock_of(WHEELS)
    if way.reverse:
        lock = "".join(reversed(re.findall(r".*\\\n.*\n", lock)))
    return tools.install(lock, *options, python=python, umask=way.umask, out=out, **way.env)


def files_of(done: Done) -> dict[str, bytes]:
    assert done.code == 0, done.stderr
    paths = [p for p in done.out.rglob("*") if p.is_file()]
    return {str(p.relative_to(done.out)): p.read_bytes() for p in paths}


@pytest.fixture(scope="module")
def usual(index, tmp_path_factory):
    return files_of(made(Tools(tmp_path_factory.mktemp("usual"), index)))


def test_no_path_of_this_machine_is_in_a_layer(index, tmp_path):
    root = made(Tools(tmp_path, index)).unpack(tmp_path / "root")
    for path in root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for ours in (tmp_path, sys.prefix, os.path.realpath(sys.executable)):
                assert os.fsencode(ours) not in content, path


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_same_bytes_come_out(way, index, usual, tmp_path):
    assert files_of(made(Tools(tmp_path / way.directory, index), way)) == usual


def test_a_warm_cache_changes_nothing(index, usual, tmp_path):
    tools = Tools(tmp_path, index)
    assert files_of(made(tools, out="cold")) == usual
    assert files_of(made(tools, out="warm")) == usual


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_every_cpython_writes_the_same_bytes(version, index, usual, tmp_path):
    python = needed_cpython(version)
    assert files_of(made(Tools(tmp_path, index, python))) == usual


@pytest.mark.parametrize("directory", ["short", "with a space", "long/" + "l" * 150, "quo'te\"d"])
def test_an_interpreter_of_any_path_writes_the_same_bytes(directory, index, usual, tmp_path):
    """Its path is in the programs that the installer writes, in several ways."""
    tools_for(sys.executable)
    place = tmp_path / directory
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    tools = Tools(tmp_path / "home", index, str(place / "bin/python"))
    assert files_of(made(tools)) == usual


def test_layers_are_those_that_are_written_down_here(index, tmp_path):
    """So that an accidental change is noticed: it would upload every dependency of every image anew.

    Of the layers without compression, whose bytes are the same on every processor.
    """
    done = made(Tools(tmp_path, index))
    assert {layer["what"]: layer["diff_id"] for layer in done.layers} == {
        "native 1.0": "sha256:8a435d74ed64304852ddc9461e150372fdcc5a2d9ca4d8f1a37dcddcf29753ea",
        "9 smaller distributions": "sha256:e4c024de88efc2a4d49c83fe68e6546fd605a733eb5239d004e48e406f0035e6",
    }
