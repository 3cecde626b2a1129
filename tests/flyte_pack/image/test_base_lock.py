"""Locking a base writes what the registry has, and says what changed; checking says whether the tag has moved."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from flyte_pack.http import retry
from flyte_pack.image import base_lock
from flyte_pack.image.base import BaseImage
from flyte_pack.oci.model import Platform
from flyte_pack.registry.push import push_image
from tests.support.faulty_registry import Fault, damaged, faulty_registry, status
from tests.support.registries import AMD64, ARM64, docker_config, make_image, real_registry, session

ADDRESS = "base:python"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("registry"), "basic") as registry:
        yield registry


@pytest.fixture(autouse=True)
def logged_in(tmp_path, registry, monkeypatch):
    docker_config(tmp_path / "docker", registry.host)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.chdir(tmp_path)


class Base:
    """An image that is pushed under a tag, and the commands that lock it."""

    def __init__(self, registry, directory, capsys, name):
        self.registry, self.directory, self.capsys, self.name = registry, directory, capsys, name
        self.host = registry.host
        self.lockfile = directory / "locks" / "base.lock"

    @property
    def image(self):
        return f"{self.host}/library/{self.name}:3.12"

    def push(self, *layers, **fields):
        made = make_image(
            self.directory / f"image-{len(os.listdir(self.directory))}", *layers, **fields
        )
        plan = made.plan(f"{self.registry.host}/library/{self.name}:3.12")
        keychain = docker_config(self.directory / "docker", self.registry.host)
        push_image(plan, str(self.directory), [].append, session=session(keychain))
        return made

    def run(self, *typed, platforms=("linux/amd64",), python=None, image=None):
        argv = ["--address", ADDRESS, "--image", image or self.image]
        argv += ["--lockfile", "locks/base.lock"]
        for platform in platforms:
            argv += ["--platform", platform]
        if python is not None:
            argv += ["--python", python]
        code = base_lock.main([*argv, "--", *typed])
        out, err = self.capsys.readouterr()
        assert "planted" not in out + err
        return code, out, err

    def locked(self):
        return BaseImage.from_json(self.lockfile.read_bytes(), "the lock file")


@pytest.fixture
def base(registry, tmp_path, capsys, request):
    return Base(registry, tmp_path, capsys, request.node.name[:30].lower().rstrip("_["))


def test_a_lock_holds_the_documents_and_no_layer(base):
    image = base.push(50_000, platforms=(AMD64, ARM64), env=("PYTHON_VERSION=3.12.4",))
    code, out, _ = base.run("lock", platforms=("linux/amd64", "linux/arm64"))
    assert code == 0
    assert "locks/base.lock: written" in out
    locked = base.locked()
    assert (locked.name, locked.digest) == (base.image, image.digest)
    assert [str(p.platform) for p in locked.platforms] == ["linux/amd64", "linux/arm64"]
    assert locked.for_platform(ARM64).layers == image.layers
    assert locked.python_path == "/usr/local/bin/python3.12"
    assert base.lockfile.stat().st_size < 10_000
    assert os.listdir(base.lockfile.parent) == ["base.lock"]


def test_an_image_of_one_platform_needs_no_index(base):
    image = base.push(1000)
    assert base.run("lock", python="/usr/bin/python3.11")[0] == 0
    assert base.locked().digest == image.digest
    assert base.locked().index is None
    assert base.locked().python_path == "/usr/bin/python3.11"
    code, _, err = base.run("lock", platforms=("linux/arm64",))
    assert code == 2
    assert "has no linux/arm64; it has linux/amd64" in err


def test_locking_again_changes_nothing(base):
    base.push(1000)
    base.run("lock")
    before = base.lockfile.stat()
    code, out, _ = base.run("lock")
    assert (code, base.lockfile.stat().st_mtime_ns) == (0, before.st_mtime_ns)
    assert "unchanged" in out
    assert base.run("check")[0] == 0


def test_a_tag_that_moved_is_drift_until_it_is_locked_anew(base):
    old = base.push(1000, 2000, env=("PYTHON_VERSION=3.12.4",))
    base.run("lock")
    written = base.lockfile.read_bytes()
    new = base.push(1000, 3000, 4000, env=("PYTHON_VERSION=3.13.0",))
    code, out, err = base.run("check")
    assert code == 1
    assert base.lockfile.read_bytes() == written
    for text in (
        f"digest: {old.digest} -> {new.digest}",
        "linux/amd64: 2 layers added, 1 removed, 1 kept",
        "PYTHON_VERSION: 3.12.4 -> 3.13.0",
        "python: /usr/local/bin/python3.12 -> /usr/local/bin/python3.13",
    ):
        assert text in out
    assert f"./pants run {ADDRESS} -- lock" in err
    code, relocked, _ = base.run("lock")
    assert code == 0
    assert "2 layers added" in relocked
    assert base.run("check")[0] == 0


def test_another_platform_or_interpreter_is_drift_too(base):
    base.push(1000, platforms=(AMD64, ARM64))
    base.run("lock")
    code, out, _ = base.run("check", platforms=("linux/amd64", "linux/arm64"))
    assert code == 1
    assert "linux/arm64: added" in out
    assert base.run("check", python="/opt/python3.12")[0] == 1


def test_a_pinned_reference_locks_that_image_whatever_the_tag_says(base):
    old = base.push(1000)
    base.push(2000)
    assert base.run("lock", image=f"{base.image}@{old.digest}")[0] == 0
    assert base.locked().digest == old.digest


def test_a_platform_that_the_image_lacks_is_an_error_that_lists_what_it_has(base):
    base.push(1000, platforms=(AMD64, ARM64))
    code, _, err = base.run("lock", platforms=("linux/amd64", "linux/s390x"))
    assert code == 2
    assert err.startswith(f"{ADDRESS}: ")
    assert "has no linux/s390x; it has linux/amd64, linux/arm64" in err
    assert not base.lockfile.exists()


@pytest.mark.parametrize(
    ("typed", "fields", "message"),
    [
        (("lock",), {"platforms": ("amd64",)}, "is not a platform"),
        (("lock",), {"image": "127.0.0.1:9/a/b:c"}, "connection refused"),
        (("lock",), {"image": "A B"}, "A B"),
        (("check",), {}, "locks/base.lock is missing: write it by ./pants run base:python -- lock"),
        (("lock", "--insecure", "a b"), {}, "is not a host[:port]"),
    ],
)
def test_mistakes_are_told_in_a_line(base, monkeypatch, typed, fields, message):
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    base.push(1000)
    code, _, err = base.run(*typed, **fields)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert all("trying again" in line for line in err.splitlines()[:-1])
    assert not base.lockfile.exists()


def test_a_tag_that_is_not_there_is_an_error(base):
    code, _, err = base.run("lock")
    assert code == 2
    assert "404" in err


def test_a_damaged_lock_file_is_written_anew_and_not_checked(base):
    base.push(1000)
    base.lockfile.parent.mkdir()
    base.lockfile.write_text("{")
    code, _, err = base.run("check")
    assert (code, base.lockfile.read_text()) == (2, "{")
    assert "not a JSON document" in err
    assert base.run("lock")[0] == 0
    assert base.run("check")[0] == 0


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault("GET .*manifests/3.12", status(200, b"<html>", content_type="text/html")),
            "is it a registry",
        ),
        (Fault("GET .*manifests/3.12", damaged, after=1), "serves another manifest"),
        (Fault("GET .*manifests/sha256", damaged), "serves another manifest"),
        (Fault("GET .*blobs", damaged), "with wrong content"),
        (Fault("GET .*blobs", status(404)), "does not have sha256:"),
        (
            Fault(
                "GET .*3.12",
                status(
                    200,
                    b'{"schemaVersion": 1}',
                    content_type="application/vnd.docker.distribution.manifest.v2+json",
                ),
            ),
            "schema version 1",
        ),
    ],
)
def test_what_a_registry_makes_up_is_not_locked(base, fault, message):
    base.push(1000, platforms=(AMD64,))
    with faulty_registry(base.registry.host) as front:
        base.host = front.host
        docker_config(base.directory / "docker", front.host)
        front.faults = [replace(fault)]
        code, _, err = base.run("lock")
        assert code == 2
        assert message in err
        assert not base.lockfile.exists()
        assert base.run("lock")[0] == 0


@pytest.mark.parametrize(
    "config", [{"config": []}, {"rootfs": "x"}, {"rootfs": {"diff_ids": 1}}, {}]
)
def test_a_config_that_makes_no_sense_is_not_locked(base, config):
    base.push(1000, config=config)
    code, _, err = base.run("lock")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert not base.lockfile.exists()


def test_help_says_what_can_be_typed(base):
    for typed in (("--help",), ("lock", "--help")):
        code, out, _ = base.run(*typed)
        assert code == 0
        assert f"./pants run {ADDRESS} --" in out
        assert "moved" in out
    assert base.run()[0] == 2
    assert base.run("nonsense")[0] == 2


def test_fetching_asks_for_no_layer(base):
    image = base.push(1000)
    with faulty_registry(base.registry.host) as front:
        keychain = docker_config(base.directory / "docker", front.host)
        name = f"{front.host}/library/{base.name}:3.12"
        fetched = base_lock.fetch(name, [Platform("linux", "amd64")], session=session(keychain))
        assert fetched.digest == image.digest
        asked = [one for one in front.requests if "/blobs/" in one]
        assert asked == [f"GET /v2/library/{base.name}/blobs/{image.manifest.config.digest}"]
