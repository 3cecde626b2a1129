"""The shim starts as whatever user an image has, and says where its cache is if that is not HOME."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import flyte_shim
from tests.support.archives import archive_of
from tests.support.containers import need
from tests.support.images import flyte_pack_command, flyte_pack_environment, image_on

SHIM = Path(flyte_shim.__file__).parent
UNKNOWN = "12345"
PROGRAM = "import os, sys; sys.stdout.write(f'{os.getuid()} works')\n"


@pytest.fixture(scope="module")
def made(host_base, tmp_path_factory):
    """An image with the shim and a bundle, for a user that its /etc/passwd does not have."""
    place = tmp_path_factory.mktemp("odd-users")
    bundle = archive_of(place, {"main.py": PROGRAM}).path

    def add(layer):
        for file in sorted(SHIM.rglob("*.py")):
            layer.add_bytes(f"srv/shim/flyte_shim/{file.relative_to(SHIM)}", file.read_bytes())
        layer.add_bytes(f"srv/{bundle.name}", bundle.read_bytes())
        layer.add_directory("home/owned", 0o700, (1000, 1000))
        layer.add_directory("srv/task", 0o777)

    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    image = image_on(
        host_base,
        place / "image",
        add,
        entrypoint=(python, "-m", "flyte_shim", "--archive", f"/srv/{bundle.name}"),
        env={"PYTHONPATH": "/srv/shim", "HOME": "/home/owned"},
        user=UNKNOWN,
        workdir="/srv",
    )
    return image, ("--workdir", "/tmp/task", "--", python, "main.py")


def in_image(image, *typed, env=None):
    options = ["--layout", str(image), "--address", "a:odd", "--"]
    return subprocess.run(
        flyte_pack_command("flyte_pack.image.run", *options, *typed),
        env=flyte_pack_environment(HOME="/nonexistent", **(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def reference(made, docker):
    """The image in docker."""
    loaded = in_image(made[0], "--engine=docker", "--", "--version", env=docker.environment)
    found = re.search(r"running in docker, as (\S+)", loaded.stderr)
    assert found, loaded.stderr
    return found[1]


TMP, SHM = f"/tmp/flyte-shim-{UNKNOWN}", f"/dev/shm/flyte-shim-{UNKNOWN}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        # As the image says: a HOME of another, which is told, too.
        ([], "/home/owned/.cache/flyte-shim is not used: /home/owned belongs to the user with the"),
        ([], f"the cache is {TMP}, as that is safe"),
        (["--env", "HOME=/"], f"the cache is {TMP}, as /.cache: Permission denied"),
        # An engine then takes that of /etc/passwd or "/".
        (["--env", "HOME="], f"the cache is {TMP}, as /.cache: Permission denied"),
        (["--env", "HOME=relative"], f"the cache is {TMP}, as HOME is no absolute path"),
        (["--env", "HOME=/none/such"], f"the cache is {TMP}, as /none: Permission denied"),
        (["--env", "HOME=/etc/passwd"], f"the cache is {TMP}, as /etc/passwd: Not a directory"),
        (["--env", "HOME=/srv/task"], f"the cache is {TMP}, as that is safe"),
        (["--env", "HOME=/", "--env", "XDG_CACHE_HOME=/tmp/mine"], None),
        (["--user", "0:0", "--env", "HOME=/"], None),
        (["--user", "1000:1000"], None),
        (["--user", f"{UNKNOWN}:{UNKNOWN}", "--read-only", "--tmpfs", "/tmp:mode=1777"],
         f"the cache is {TMP}, as that is safe"),
        (["--read-only", "--env", "HOME=/", "--volume", "/tmp"],
         f"the cache is {TMP}, as /.cache: Read-only file system"),
    ],
)  # fmt: skip
def test_in_docker(made, reference, docker, options, said):
    done = docker("run", "--rm", *options, reference, *made[1], check=False)
    assert done.stdout.endswith(" works"), done.stderr
    if said is None:
        assert done.stderr == ""
    else:
        assert f"flyte-shim: warning: {said}" in done.stderr


def test_in_docker_with_nothing_to_write_but_memory(made, reference, docker):
    typed = ("--workdir", "/dev/shm/task", *made[1][2:])
    done = docker("run", "--rm", "--read-only", reference, *typed, check=False)
    assert done.stdout == f"{UNKNOWN} works", done.stderr
    assert f"flyte-shim: warning: the cache is {SHM}, as that is safe" in done.stderr


def test_in_docker_with_nothing_to_write_at_all(made, reference, docker):
    options = ("--read-only", "--tmpfs", "/dev/shm:ro")
    done = docker("run", "--rm", *options, reference, *made[1], check=False)
    assert done.returncode == 73
    (line,) = done.stderr.splitlines()
    assert "Read-only file system" in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        # Bubblewrap gives all files to the image's user.
        ([], ""),
        (["--env", "HOME=/"], ""),
        (["--env", "HOME="], f"flyte-shim: warning: the cache is {TMP}, as HOME is not set\n"),
    ],
)
def test_unpacked(made, options, said):
    need("bubblewrap")
    typed = ("--engine=unpack", *options, "--", *made[1])
    done = in_image(made[0], *typed, env={"PATH": "/usr/bin:/bin"})
    assert done.stdout == f"{UNKNOWN} works", done.stderr
    assert done.stderr.endswith(f"to the image's user\n{said}")
