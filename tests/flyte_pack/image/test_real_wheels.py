"""Real wheels from the real package index: Flyte and numpy, for two platforms, and started as an image would."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import pytest

from tests.support.codec_envs import CACHE, needed_cpython
from tests.support.containers import need
from tests.support.image_tools import Done, Tools, compiler, real_index

LOCK = Path(__file__).parents[2] / "support" / "image-dependencies.lock"
MACHINES = {"linux/amd64": (62, "x86_64"), "linux/arm64": (183, "aarch64")}  # ELF, "e_machine"


_INSTALLED = """
import importlib.metadata as metadata, json, sys
found = metadata.distributions(path=[path for path in sys.path if path.startswith("/opt/venv")])
print(json.dumps({one.name: one.version for one in found}))
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    return Tools(tmp_path_factory.mktemp("real"), cache=CACHE / "uv")


def installed(tools: Tools, name: str, roots: str, platform: str, *options: str) -> Done:
    env = real_index()
    needed = tools.resolve(LOCK.read_text(), roots, platform=platform, **env)
    assert needed.code == 0, needed.stderr
    done = tools.install(needed.out.read_text(), *options, platform=platform, out=name, **env)
    assert done.code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def amd64(tools):
    return installed(tools, "amd64", "flyte\nnumpy>=2\n", "linux/amd64")


@pytest.fixture(scope="module")
def arm64(tools):
    return installed(tools, "arm64", "flyte\nnumpy>=2\n", "linux/arm64")


@pytest.mark.parametrize("platform", MACHINES)
def test_native_code_is_that_of_the_platform(platform, request, tmp_path):
    done = request.getfixturevalue(platform.rpartition("/")[2])
    machine, name = MACHINES[platform]
    root = done.unpack(tmp_path)
    libraries = [p for p in root.rglob("*") if p.suffix == ".so" or ".so." in p.name]
    assert len(libraries) > 20
    for library in libraries:
        header = library.read_bytes()[:20]
        assert header[:4] == b"\x7fELF"
        assert int.from_bytes(header[18:20], "little") == machine, library
    assert any(name in library.name for library in libraries)


def test_two_platforms_hold_the_same_versions(amd64, arm64):
    assert amd64.versions()["flyte"] == "2.12.1"
    assert amd64.versions() == arm64.versions()


def test_an_image_that_needs_less_shares_the_blobs_of_what_it_needs(tools, amd64):
    less = installed(tools, "less", "numpy", "linux/amd64")
    (numpy,) = less.layers
    assert numpy["what"].startswith("numpy ")
    assert numpy in amd64.layers


def test_large_distributions_have_layers_of_their_own(amd64):
    what = [layer["what"] for layer in amd64.layers]
    assert what[:-1] == sorted(what[:-1])
    assert {"flyte 2.12.1", "cryptography"} <= {
        w if w.startswith("flyte ") else w.split()[0] for w in what
    }
    assert what[-1].endswith(" smaller distributions")
    assert len(what) <= 40


@pytest.mark.parametrize("bytecode", [False, True], ids=["sources", "bytecode"])
def test_programs_and_modules_work_in_place(bytecode, tools, amd64, tmp_path):
    if platform.machine() != "x86_64":
        pytest.skip(
            "this machine can't start programs of linux/amd64: run this test on one that is x86-64"
        )
    python = _python()
    done = amd64
    if bytecode:
        done = installed(
            *(tools, "compiled", "flyte\nnumpy\n", "linux/amd64"),
            *("--compiler", compiler(python)),
        )
    venv = done.unpack(tmp_path / "root") / "opt/venv"
    (venv / "bin/python").symlink_to(python)
    home = os.path.dirname(python)
    (venv / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = true\n")

    def run(*command: str) -> str:
        done = subprocess.run([*_bubblewrap(venv), *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Usage: a0" in run("a0", "--help")
    assert "2.12.1" in run("flyte", "--version")
    assert run("python", "-m", "numpy.f2py", "-v").strip().isprintable()
    imported = "import numpy, flyte; print(numpy.arange(3).sum(), flyte.__file__)"
    assert run("python", "-c", imported).split() == [
        "3",
        "/opt/venv/lib/python3.12/site-packages/flyte/__init__.py",
    ]
    found = json.loads(run("python", "-c", _INSTALLED))
    assert {_normal(name): version for name, version in found.items()} == done.versions()


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _python() -> str:
    python = needed_cpython("3.12")
    return os.path.realpath(python)


def _bubblewrap(venv: Path) -> list[str]:
    """A machine that is this one, but for /opt/venv, and in which nothing can be written there."""
    need("bubblewrap")
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/"),
        *(
            "--tmpfs",
            "/opt",
            "--ro-bind",
            str(venv),
            "/opt/venv",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
        ),
        *("--tmpfs", "/tmp", "--clearenv", "--setenv", "PATH", "/opt/venv/bin:/usr/bin:/bin"),
        *("--setenv", "HOME", "/tmp", "--setenv", "DO_NOT_TRACK", "1"),
    ]
