"""A base image of this machine's own files runs its Python, holds nothing else of the machine, and is the same every time."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from flyte_pack.image.base import BaseImage
from flyte_pack.oci.layout import open_layout
from tests.support.containers import need
from tests.support.images import image_on, run_flyte_pack

MODULE = "flyte_pack.image.host_base"


def make(out: Path, python: str = sys.executable, **options) -> Path:
    done = run_flyte_pack(MODULE, "--python", python, "--out", str(out), **options)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make(tmp_path_factory.mktemp("host") / "base")


def members(base: Path) -> dict[str, tarfile.TarInfo]:
    image = BaseImage.from_json((base / "base.json").read_bytes(), "base.json")
    found = {}
    for layer in image.platforms[0].layers:
        with tarfile.open(base / "blobs" / layer.digest.replace(":", "/")) as archive:
            found.update({member.name: member for member in archive})
    return found


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def unpacked(base, tmp_path_factory):
    """The base on its own, by umoci."""
    need("umoci")
    top = tmp_path_factory.mktemp("unpacked")
    image = image_on(base, top / "layout")
    index = json.loads((image / "index.json").read_bytes())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (image / "index.json").write_text(json.dumps(index))
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    subprocess.run(
        ["umoci", "unpack", *rootless, "--image", f"{image}:latest", str(top / "bundle")],
        check=True,
        capture_output=True,
    )
    return top / "bundle" / "rootfs"


def inside(root: Path, *command: str) -> subprocess.CompletedProcess:
    need("bubblewrap")
    fence = ["bwrap", "--unshare-all", "--uid", "1000", "--gid", "1000", "--bind", str(root), "/"]
    place = ["--proc", "/proc", "--dev", "/dev", "--chdir", "/home/flyte", "--clearenv"]
    path = ["--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin"]
    trust = ["--setenv", "SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"]
    return subprocess.run(
        [*fence, *place, *path, *trust, "--", *command], capture_output=True, text=True, check=False
    )


def test_every_part_of_the_standard_library_works_in_it(unpacked):
    """Each extension module, which takes the shared libraries that it is linked with; in a container without a network."""
    script = """if True:
        import importlib, os, sys
        import ctypes, json, sqlite3, ssl, zlib
        directory = next(p for p in sys.path if p.endswith("lib-dynload"))
        names = {name.partition(".")[0] for name in os.listdir(directory)}
        failed = {}
        for name in sorted(names):
            try:
                importlib.import_module(name)
            except ImportError as error:
                failed[name] = str(error)
        import pwd
        print(json.dumps({
            "failed": failed, "imported": len(names), "prefix": sys.prefix, "executable": sys.executable,
            "user": pwd.getpwuid(os.getuid()).pw_name, "certificates": len(ssl.create_default_context().get_ca_certs()),
            "cached": os.path.exists(json.__cached__),
        }))
    """
    done = inside(unpacked, "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # What does not import on this machine either is not the image's fault.
    here = [
        n
        for n in found["failed"]
        if subprocess.run([sys.executable, "-c", f"import {n}"], capture_output=True).returncode
        == 0
    ]
    assert here == []
    assert found["imported"] > 40
    assert found["prefix"] == "/usr/local"
    assert found["user"] == "flyte"
    if os.path.exists("/etc/ssl/certs/ca-certificates.crt"):
        assert found["certificates"] > 0


def test_bytecode_comes_with_it_and_is_used(unpacked):
    done = inside(unpacked, "python3", "-v", "-c", "import json")
    library = r"/usr/local/lib(64)?/python3\.[0-9]+/json"
    assert re.search(
        rf"{library}/__pycache__/__init__\S+ matches {library}/__init__.py", done.stderr
    )


@pytest.mark.parametrize(
    "command",
    [
        ("sh", "-c", "exit 7"),
        ("/usr/bin/env", "python3", "-c", "raise SystemExit(7)"),
        ("/bin/sh", "-c", "ls / | grep -q home && exit 7"),
    ],
    ids=lambda command: " ".join(command),
)
def test_it_has_a_shell_and_what_scripts_use(command, unpacked):
    done = inside(unpacked, *command)
    assert done.returncode == 7, done.stderr


def test_nothing_else_of_the_machine_is_in_it(base, unpacked):
    names = list(members(base))
    assert not [
        n
        for n in names
        if re.search(r"site-packages|dist-packages|/idlelib/|/test/|ensurepip|bin/pip|tkinter", n)
    ]
    assert {n.partition("/")[2] for n in names if n.startswith("home/")} == {"flyte"}
    users = [line.split(":")[0] for line in (unpacked / "etc/passwd").read_text().splitlines()]
    assert users == ["root", "flyte", "nobody"]
    assert "not for production" in (unpacked / "etc/os-release").read_text()
    for config in unpacked.glob("usr/local/lib*/python3*/_sysconfigdata*.py"):
        text = config.read_text()
        assert os.path.expanduser("~") + "/" not in text
        assert sys.base_prefix == "/usr" or sys.base_prefix not in text


def test_owners_modes_and_times_say_nothing_of_the_machine(base):
    found = members(base)
    assert {(m.uid, m.gid) for n, m in found.items() if n != "home/flyte"} == {(0, 0)}
    assert (found["home/flyte"].uid, found["home/flyte"].gid) == (1000, 1000)
    assert {m.mtime for m in found.values()} == {0}
    assert {stat.S_IMODE(m.mode) for m in found.values() if m.isreg()} == {0o644, 0o755}
    assert found["tmp"].mode == 0o1777


def test_it_is_marked_as_not_for_production(base):
    image = BaseImage.from_json((base / "base.json").read_bytes(), "base.json")
    assert image.production is False
    assert image.name is None
    platform = image.platforms[0]
    said = "org.opencontainers.image.description"
    assert "Not for production" in platform.parsed_manifest.annotations[said]
    assert "Not for production" in platform.parsed_config.labels[said]
    assert "Not for production" in run_flyte_pack(MODULE, "--help").stdout.replace("\n", " ")


def test_its_interpreter_is_named_with_its_version(base):
    image = BaseImage.from_json((base / "base.json").read_bytes(), "base.json")
    version = "{}.{}".format(*sys.version_info)
    assert image.python_path == f"/usr/local/bin/python{version}"
    assert image.python_path.lstrip("/") in members(base)


def test_equal_files_give_equal_bytes(base, tmp_path):
    elsewhere = make(
        tmp_path / "some where" / "else",
        umask=0o077,
        env={"PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "LC_ALL": "C"},
        cwd="/",
    )
    assert tree(elsewhere) == tree(base)


def test_a_virtual_environment_stands_for_its_base(base, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    assert tree(make(tmp_path / "base", str(tmp_path / "venv/bin/python"))) == tree(base)


def test_it_is_written_beside_what_is_there(base, tmp_path):
    (tmp_path / "kept").write_text("kept")
    make(tmp_path)
    assert (tmp_path / "kept").read_text() == "kept"
    assert (tmp_path / "base.json").read_bytes() == (base / "base.json").read_bytes()


def script(text):
    def write(tmp_path):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


REFUSED = {
    "a relative path": (lambda tmp: "python3", "not the absolute path"),
    "nothing there": (lambda tmp: str(tmp / "nothing"), "does not run: .*No such file"),
    "no program": (lambda tmp: str(tmp), "does not run: .*Permission denied"),
    "no Python": (lambda tmp: "/bin/true", "does not run as a Python should"),
    "a broken interpreter": (
        script("echo 'pyenv: python3.9: command not found' >&2; exit 127"),
        r"exit code 127.*pyenv: python3.9",
    ),
    "another implementation": (
        script(
            """echo '{"implementation": "pypy", "version": [3, 9, 1], "executable": "/x", "prefix": "/x", "stdlib": [], "abiflags": ""}'"""
        ),
        "is pypy: .* CPython",
    ),
    "not a program of Linux": (
        script(
            """echo '{"implementation": "cpython", "version": [3, 9, 1], "executable": "'$0'", "prefix": "/x", "stdlib": ["/x/lib/python3.9"], "abiflags": ""}'"""
        ),
        "not a 64-bit program of Linux",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_used_is_refused_and_leaves_nothing(case, tmp_path):
    python, message = REFUSED[case]
    done = run_flyte_pack(MODULE, "--python", python(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_there_already_is_not_overwritten(base, tmp_path):
    (tmp_path / "base.json").write_text("mine")
    done = run_flyte_pack(MODULE, "--python", sys.executable, "--out", str(tmp_path))
    assert done.returncode == 1
    assert "has 'base.json' already" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["base.json"]


def test_the_layout_of_an_image_on_it_is_read_back(base, tmp_path):
    layout = open_layout(str(image_on(base, tmp_path / "layout")))
    image = layout.image(None)
    assert layout.missing(image.blobs) == ()
    assert len(image.manifest.layers) == 3
