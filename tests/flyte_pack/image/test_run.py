"""A command runs in an image the same way by docker and by bubblewrap."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from flyte_pack.image.base import BaseImage
from flyte_pack.oci.layout import layout_files, open_layout
from flyte_pack.oci.model import BASE_NAME, OCI_MANIFEST, Descriptor
from tests.support.containers import need
from tests.support.images import (
    flyte_pack_command,
    flyte_pack_environment,
    image_on,
    layout_of,
    run_flyte_pack,
    tar_of,
)
from tests.support.registries import real_registry

ADDRESS = "services/ml:image"
ABOUT = """if True:
    import json, os, sys
    print(json.dumps({
        "argv": sys.argv[1:], "env": dict(os.environ), "ids": [os.getuid(), os.getgid()], "cwd": os.getcwd(),
        "home is mine": os.stat(".").st_uid == os.getuid(), "networks": sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else None,
        "null": os.path.exists("/dev/null"), "self": os.path.exists("/proc/self/exe"), "files": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    }))
"""


@pytest.fixture(scope="module")
def image(host_base):
    """An image with an entry point of its own, and a working directory of its user's.

    Not below pytest's directories: each session that starts takes them away from everybody else again.
    """

    def add(layer):
        layer.add_directory("home/flyte/task", owner=(1000, 1000))
        layer.add_bytes("usr/local/bin/entry", b'#!/bin/sh\nENTERED=yes exec "$@"\n', 0o755)
        layer.add_directory("opt")
        layer.add_symlink("opt/link", "/home/flyte")

    top = Path(tempfile.mkdtemp(prefix="image-run-"))
    place = top / "image"
    image_on(
        host_base,
        place,
        add,
        entrypoint=("entry",),
        env={"HOME": "/home/flyte", "A": "of the image"},
    )
    for path in (top, place, *place.rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    yield place
    shutil.rmtree(top)


@pytest.fixture
def open_path():
    """A directory that everybody can look into, and so not below pytest's."""
    place = Path(tempfile.mkdtemp(prefix="image-run-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


class Way:
    """How to run it: `engine` as an option; with variables of the environment."""

    def __init__(self, said, engine="unpack", env=None):
        self.said, self.engine, self.env = said, engine, env or {}

    def command(self, image, *typed):
        options = ["--layout", str(image), "--address", ADDRESS, "--", f"--engine={self.engine}"]
        return flyte_pack_command("flyte_pack.image.run", *options, *typed)

    def environment(self, **env):
        return flyte_pack_environment(**{"HOME": "/nonexistent", **self.env, **env})

    def run(self, image, *typed, env=None, **options):
        options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run(
            self.command(image, *typed), env=self.environment(**(env or {})), check=False, **options
        )

    def about(self, image, *typed, **options):
        done = self.run(image, *typed, **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["docker", "bubblewrap"])
def way(request):
    if request.param == "docker":
        docker = request.getfixturevalue("docker")
        return Way("running in docker", "docker", docker.environment)
    need("bubblewrap")
    return Way("in bubblewrap", env={"PATH": "/usr/bin:/bin"})


def test_the_config_of_the_image_is_honoured(way, image):
    found = way.about(image, "python3", "-c", ABOUT, "--engine", "x y", "")
    assert found["argv"] == ["--engine", "x y", ""]
    assert found["ids"] == [1000, 1000]
    assert found["cwd"] == "/home/flyte/task"
    assert found["home is mine"]
    assert found["null"]
    assert found["self"]
    assert found["files"] == [0, 1, 2]
    env = found["env"]
    assert env["ENTERED"] == "yes"
    assert env["HOME"] == "/home/flyte"
    assert env["A"] == "of the image"
    assert env["PATH"].endswith("/usr/local/bin:/usr/bin:/bin")
    assert not {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "DOCKER_HOST"} & set(env)


def test_it_says_which_way_it_runs_in_one_line(way, image):
    done = way.run(image, "true")
    assert done.returncode == 0, done.stderr
    assert way.said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_variables_are_set_and_passed_on(way, image):
    typed = [
        "--env",
        "A=b=c d",
        "--env=GIVEN",
        "--env",
        "PATH=/bin:/usr/local/bin",
        "--env",
        "DOCKER_HOST=x",
        "--env=EMPTY=",
        "--env=LINES=a\n\tb # 'c'\n",
        "--env=LAST=",
    ]
    env = way.about(image, *typed, "python3", "-c", ABOUT, env={"GIVEN": "secret-77"})["env"]
    assert (env["A"], env["GIVEN"], env["PATH"], env["DOCKER_HOST"]) == (
        "b=c d",
        "secret-77",
        "/bin:/usr/local/bin",
        "x",
    )
    assert (env["EMPTY"], env["LINES"], env["LAST"]) == (
        "",
        "a\n\tb # 'c'\n",
        "",
    )


def test_no_list_of_processes_shows_a_variable(way, image):
    names = ("GOOGLE_SERVICE_ACCOUNT_KEY", "HTTPS_PROXY", "DOCKER_AUTH_CONFIG", "GOX", "LINES")
    given = {name: f"S3CR3T-{name}" for name in names}
    child = subprocess.Popen(
        way.command(image, *(f"--env={name}" for name in given), "sh", "-c", "env; cat"),
        env=way.environment(**given),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        seen = [child.stdout.readline()]
        shown = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True)
        child.stdin.close()
        seen += child.stdout
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert {f"{name}={value}\n" for name, value in given.items()} <= set(seen)
    assert "--env" in shown.stdout
    assert "S3CR3T" not in shown.stdout


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_commands(way, image, code):
    assert way.run(image, "sh", "-c", f"exit {code}").returncode == code


def test_standard_streams_are_the_callers(way, image):
    done = way.run(image, "sh", "-c", "cat; echo problem >&2", stdin=None, input="typed\n")
    assert done.stdout == "typed\n"
    assert "problem\n" in done.stderr


def test_without_a_network_there_is_none(way, image):
    code = (
        "import socket; s = socket.socket(); s.settimeout(3); print(s.connect_ex(('192.0.2.1', 9)))"
    )
    done = way.run(image, "--network", "none", "python3", "-c", code)
    assert done.stdout == "101\n", done.stderr  # ENETUNREACH, at once


def test_mounts_are_there_and_read_only_where_said(way, image, open_path):
    (open_path / "in").mkdir()
    (open_path / "in" / "a").write_text("input")
    (open_path / "in" / "a").chmod(0o644)
    (open_path / "in").chmod(0o755)
    (open_path / "out").mkdir()
    (open_path / "out").chmod(0o777)
    script = "cat /data/in/a /file; echo result > /opt/link/out/b; echo no > /data/in/new"
    done = way.run(
        image,
        *(
            "--mount",
            f"{open_path}/in:/data/in:ro",
            "--mount",
            "out:/home/flyte/out",
            "--mount",
            "in/a:/file:ro",
        ),
        *("sh", "-c", script),
        cwd=open_path,
    )
    assert done.stdout == "inputinput", done.stderr
    assert done.returncode != 0, "a read-only mount could be written"
    assert (open_path / "out" / "b").read_text() == "result\n"
    assert os.listdir(open_path / "in") == ["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command(way, image, number):
    code = (  # a handler could run too late: just before a sleep, Python heeds it only after that
        "import signal, sys\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])\n"
        "print('ready', flush=True)\n"
        f"signal.sigwait([{int(number)}])\n"
        "sys.exit(42)"
    )
    child = subprocess.Popen(
        way.command(image, "python3", "-c", code),
        env=way.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        err = child.communicate(timeout=300)[1]
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 42, err


def test_what_a_command_writes_is_gone_after_it(way, image, open_path):
    before = scratch(open_path)
    done = way.run(image, "sh", "-c", "touch x && chmod 0 . ..", env={"TMPDIR": str(before)})
    assert done.returncode in (0, 1), done.stderr
    assert way.run(image, "ls", env={"TMPDIR": str(before)}).stdout == ""
    assert os.listdir(before) == []


def scratch(open_path):
    place = open_path / "scratch"
    place.mkdir()
    place.chmod(0o1777)
    return place


def test_a_command_that_is_not_there_fails(way, image):
    done = way.run(image, "no-such-command")
    assert done.returncode in (126, 127)
    assert "no-such-command" in done.stderr


def test_docker_loads_an_image_once(image, docker):
    docker.clear()
    way = Way("", "auto", docker.environment)
    assert way.run(image, "true").returncode == 0
    loaded = docker(
        "image", "ls", "--no-trunc", "--format", "{{.Repository}} {{.ID}}"
    ).stdout.splitlines()
    digest = open_layout(str(image)).image(None).manifest.config.digest
    assert loaded == [f"pants-flyte/services-ml-image {digest}"]
    before = docker("system", "info", "--format", "{{.Images}}").stdout
    again = ["--layout", str(image), "--address", ADDRESS, "--", "true"]
    done = run_flyte_pack("flyte_pack.image.run", *again, env=docker.environment)
    assert f"as {digest}" in done.stderr
    assert docker("system", "info", "--format", "{{.Images}}").stdout == before


def test_a_docker_that_does_not_answer_is_passed_over(image, tmp_path):
    need("docker.io", "bubblewrap")
    way = Way("", "auto", {"PATH": "/usr/bin:/bin", "DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    done = way.run(image, "true")
    assert done.returncode == 0, done.stderr
    assert "bubblewrap" in done.stderr


def test_a_docker_that_is_asked_for_must_answer(image, tmp_path):
    need("docker.io")
    way = Way(
        "", "docker", {"PATH": "/usr/bin:/bin", "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    )
    done = way.run(image, "true")
    assert done.returncode == 1
    assert "docker cannot be used: " in done.stderr
    assert "none.sock" in done.stderr


def test_the_images_own_command_runs_where_none_is_typed(host_base, tmp_path):
    """A base's own is its Python."""
    need("bubblewrap")
    shutil.copytree(host_base / "blobs", tmp_path / "layout" / "blobs")
    base = BaseImage.from_json((host_base / "base.json").read_bytes(), "base.json")
    manifest = base.platforms[0].manifest
    for path, document in layout_files(
        [Descriptor(OCI_MANIFEST, base.digest, len(manifest))]
    ).items():
        (tmp_path / "layout" / path).write_bytes(document)
    way = Way("", env={"PATH": "/usr/bin:/bin"})
    done = way.run(tmp_path / "layout", stdin=None, input="print('in', __import__('sys').prefix)")
    assert done.stdout == "in /usr/local\n", done.stderr


USER = {
    "by number": ("7:8", [7, 8]),
    "by number, whose group is listed": ("1000", [1000, 1000]),
    "by name": ("flyte", [1000, 1000]),
    "by name and group": ("flyte:nogroup", [1000, 65534]),
    "root": ("", [0, 0]),
}


@pytest.mark.parametrize("case", USER)
def test_the_user_is_found_in_the_images_own_lists(case, host_base, tmp_path):
    need("bubblewrap")
    user, ids = USER[case]
    image = image_on(host_base, tmp_path / "image", user=user, workdir="/made/by us")
    way = Way("", env={"PATH": "/usr/bin:/bin"})
    found = way.about(image, "python3", "-c", ABOUT)
    assert found["ids"] == ids
    assert found["cwd"] == "/made/by us"


REFUSED = {
    "an unknown option": (["--what", "x"], 2, "--help tells what can be typed"),
    "an unknown engine": (["--engine", "qemu", "x"], 2, "invalid choice (choose from"),
    "an option without its value": (["--env"], 2, "expected one argument"),
    "a variable that is not set": (["--env", "NOT_SET_HERE", "x"], 2, "it is not set here"),
    "a variable without a name": (["--env", "=x", "x"], 2, "--env takes NAME=VALUE"),
    "a mount without a target": (["--mount", "/tmp", "x"], 2, "not SRC:DST"),
    "a mount to a relative place": (["--mount", "/tmp:x", "x"], 2, "absolute DST"),
    "a mount of nothing": (["--mount", "/nothing/there:/x", "x"], 2, "nothing at /nothing/there"),
    "no command": ([], 1, "the image has no command of its own"),
    "a network that only docker has": (
        ["--engine", "unpack", "--network", "mine", "x"],
        1,
        "or start docker",
    ),
    "an archive that can't be written": (["--archive", "/proc/x"], 1, "/proc/x"),
    "a directory that is there already": (["--complete", "{layout}"], 1, "already"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_answered_with_the_fix(case, image, tmp_path):
    typed, code, message = REFUSED[case]
    typed = [word.format(layout=image) for word in typed]
    done = run_flyte_pack(
        "flyte_pack.image.run", "--layout", str(image), "--address", ADDRESS, "--", *typed
    )
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_tells_all_options(image):
    done = run_flyte_pack(
        "flyte_pack.image.run", "--layout", "x", "--address", ADDRESS, "--", "--help"
    )
    assert done.returncode == 0
    assert all(
        f"--{o}" in done.stdout
        for o in ("engine", "archive", "complete", "env", "mount", "network")
    )


def test_without_an_engine_and_bubblewrap_one_message_says_what_to_do(image, tmp_path):
    done = Way("", "auto", {"PATH": str(tmp_path)}).run(image, "true")
    assert done.returncode == 1
    assert "there is no bubblewrap (bwrap) on PATH: start or install one of them" in done.stderr
    assert done.stderr.count("\n") == 1
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho No permissions >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    done = Way("", "auto", {"PATH": str(tmp_path)}).run(image, "true")
    assert done.returncode == 1
    assert "bubblewrap does not work here (No permissions): start docker or podman" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_user_is_refused_by_name(host_base, tmp_path):
    need("bubblewrap")
    image = image_on(host_base, tmp_path / "image", user="stranger")
    done = Way("").run(image, "true")
    assert done.returncode == 1
    assert "'stranger' is not in its /etc/passwd" in done.stderr


def test_a_layout_that_lacks_layers_says_where_they_would_be(tmp_path):
    place = layout_of(tmp_path / "layout", [tar_of(("a", b"1"))])
    layer = open_layout(str(place)).image(None).manifest.layers[0]
    (place / "blobs" / layer.digest.replace(":", "/")).unlink()
    done = Way("").run(place, "true", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 1
    assert "layers are missing in the layout" in done.stderr


def test_layers_that_a_registry_has_are_fetched_once(host_base, tmp_path):
    """The layout is sparse, as that of an image on a registry's base is; it stays as it is."""
    need("skopeo", "bubblewrap")
    with real_registry(tmp_path / "registry") as registry:
        name = f"{registry.host}/team/base:v1"
        whole = image_on(host_base, tmp_path / "whole", labels={BASE_NAME: name})
        target = ["--dest-tls-verify=false", f"oci:{whole}", f"docker://{name}"]
        subprocess.run(["skopeo", "copy", "--quiet", *target], check=True)
        layers = open_layout(str(whole)).image(None).manifest.layers
        for layer in layers[:2]:
            (whole / "blobs" / layer.digest.replace(":", "/")).unlink()
        way = Way("", env={"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache")})
        first = way.run(whole, "python3", "-c", "print('runs')")
        assert first.stdout == "runs\n", first.stderr
        assert "fetching 2 layers" in first.stderr
    # The registry is gone now.
    again = way.run(
        whole, "--complete", str(tmp_path / "complete"), "python3", "-c", "print('runs')"
    )
    assert again.stdout == "runs\n", again.stderr
    assert "fetching" not in again.stderr
    assert open_layout(str(whole)).missing(layers) == layers[:2]
    assert open_layout(str(tmp_path / "complete")).missing(layers) == ()


def test_a_hostile_image_reaches_nothing_outside(host_base, tmp_path):
    """Its own /dev, /proc, /etc and working directory are links that lead out."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "hosts").write_text("kept")
    layer = tar_of(*((name, str(outside)) for name in ("dev", "proc", "etc", "tmp", "srv")))
    place = layout_of(tmp_path / "layout", [layer], config={"WorkingDir": "/srv/new"})
    need("bubblewrap")
    way = Way("", env={"PATH": "/usr/bin:/bin"})
    assert way.run(place, "--mount", f"{tmp_path}:/etc/x", "true").returncode != 0
    assert {p.name: p.read_text() for p in outside.iterdir()} == {"hosts": "kept"}


INJECTED = "x\0--bind\0/\0/host"


@pytest.mark.parametrize(
    ("config", "passwd", "message"),
    [
        ({"Env": [f"A={INJECTED}"]}, "", "`Env` holds a NUL"),
        ({"WorkingDir": f"/{INJECTED}"}, "", "`WorkingDir` holds a NUL"),
        ({"User": f"7:{INJECTED}"}, "", "`User` holds a NUL"),
        ({"Entrypoint": [INJECTED]}, "", "`Entrypoint` holds a NUL"),
        ({"User": "7"}, f"a:x:7:7::/{INJECTED}:\n", "the image's /etc/passwd: a home holds a NUL"),
    ],
)
def test_a_hostile_config_gives_bubblewrap_no_arguments(config, passwd, message, tmp_path):
    need("bubblewrap")
    layer = tar_of(("etc/passwd", passwd.encode()))
    place = layout_of(tmp_path / "layout", [layer], config=config)
    done = Way("", env={"PATH": "/usr/bin:/bin"}).run(place, "true")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_image_is_removed_when_its_runner_is_interrupted(image, open_path):
    need("bubblewrap")
    place = scratch(open_path)
    way = Way("", env={"PATH": "/usr/bin:/bin", "TMPDIR": str(place)})
    child = subprocess.Popen(
        way.command(image, "sh", "-c", "echo ready; sleep 600"),
        env=way.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    assert os.listdir(place) != []
    for _ in range(
        2
    ):  # a shell that is the first process of its namespace heeds no SIGTERM; the second ends it
        child.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert child.wait(120) == 128 + signal.SIGKILL
    child.stdout.close()
    assert os.listdir(place) == []


def test_what_a_killed_runner_left_is_removed_by_the_next(image, open_path):
    need("bubblewrap")
    place = scratch(open_path)
    way = Way("", env={"PATH": "/usr/bin:/bin", "TMPDIR": str(place)})
    typed = ("sh", "-c", "echo ready; sleep 600")
    killed, running = (
        subprocess.Popen(
            way.command(image, *typed),
            env=way.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    )
    try:
        assert killed.stdout.readline() == running.stdout.readline() == "ready\n"
        assert len(os.listdir(place)) == 2
        killed.kill()
        killed.wait()
        assert way.run(image, "true").returncode == 0
        assert len(os.listdir(place)) == 1, "one is left, which is in use"
        assert running.poll() is None
    finally:
        for child in (killed, running):
            child.kill()
            child.communicate()
