"""`verify`, `prune`, `export` and `import` do the same in object stores as in directories."""

from __future__ import annotations

import os

import pytest

from flyte_pack.store import blob_of
from flyte_pack.store.opening import open_store
from tests.support.deploying import BuildRoot
from tests.support.object_stores import (
    REAL_STORES,
    SECRETS,
    clean_environment,
    seaweedfs,
    unique,
)
from tests.support.processes import in_child


class Remote:
    """A build root that deploys into an object store, below a prefix of its own."""

    def __init__(self, root, real):
        self.root, self.real = root, real
        self.uri = f"{real.uri}/{unique()}"

    def deploy(self, *typed, env=None, **how):
        done = self.root.deploy(*typed, "--store", self.uri, env=env or self.real.env, **how)
        assert not any(secret in done.out + done.err for secret in SECRETS)
        return done

    def change(self, what):
        """`what(store)` in a child: an object store's client has threads, which no fork takes along."""

        def change():
            os.environ.update(self.real.env)
            what(open_store(self.uri, "/"))
            return 0

        assert in_child(change) == 0

    def archive(self, version):
        (task,) = self.deploy("show", version, "--output", "json").ok().json["record"]["tasks"]
        return task["bundle"]["archive"]


@pytest.fixture(params=sorted(REAL_STORES))
def real(request, monkeypatch):
    clean_environment(monkeypatch)
    return REAL_STORES[request.param]()


@pytest.fixture
def origin(tmp_path, real):
    remote = Remote(BuildRoot(tmp_path / "origin"), real)
    remote.root.package("train", "v = 1\n" * 1000, image=None)
    remote.deploy("--version", "v1").ok()
    return remote


def test_all_that_a_version_needs_is_read(origin):
    done = origin.deploy("verify").ok()
    assert "All 5 things that version v1 needs are there, and whole." in done.out
    assert f"  ok       archive   {origin.uri}/{origin.archive('v1')}" in done.out


def test_what_is_missing_or_damaged_is_found(origin):
    archive = origin.archive("v1")
    origin.change(lambda store: store.delete(archive))
    origin.deploy("verify").failed(1)
    assert f"missing  archive   {origin.uri}/{archive}" in origin.deploy("verify").out
    origin.change(lambda store: store.create(blob_of(archive, b"damaged"), [b"damaged"]))
    assert f"damaged  archive   {origin.uri}/{archive}" in origin.deploy("verify").out
    origin.deploy("--version", "v1", "--repair").ok()
    origin.deploy("verify").ok()


def test_what_no_version_needs_is_pruned(origin):
    old = origin.archive("v1")
    origin.root.package("train", "v = 2\n", image=None)
    origin.deploy("--version", "v2").ok()
    typed = ("prune", "--keep", "1", "--older-than", "0")
    assert "Would delete 5 objects" in origin.deploy(*typed).ok().out
    origin.deploy("verify", "--all").ok()
    assert "Deleted 5 objects" in origin.deploy(*typed, "--yes").ok().out
    assert origin.deploy("verify", "--all", "--output", "json").ok().json["versions"] == ["v2"]
    assert "Nothing to prune." in origin.deploy(*typed).ok().out
    origin.change(lambda store: 1 / (store.size(old) is None))
    origin.deploy("rollback", "v1").failed(1, "there is no version v1")


def test_a_version_is_carried_from_one_to_another(origin, tmp_path):
    folder = tmp_path / "usb"
    origin.deploy("export", str(folder)).ok()
    site = Remote(BuildRoot(tmp_path / "site"), origin.real)
    site.deploy("import", str(folder)).ok()
    site.deploy("verify").ok()
    record = site.deploy("show", "--output", "json").ok().json["record"]
    assert f"{site.uri}/{site.archive('v1')}" in record["tasks"][0]["tasks"][0]["command"]
    assert f"{origin.uri}/" not in str(record)
    assert "Nothing to do" in site.deploy("import", str(folder)).ok().out


def test_who_may_only_read_verifies_exports_and_sees_what_could_be_pruned(tmp_path, monkeypatch):
    clean_environment(monkeypatch)
    real = seaweedfs()
    remote = Remote(BuildRoot(tmp_path / "origin"), real)
    remote.root.package("train", image=None)
    remote.deploy("--version", "v1").ok()
    remote.root.package("train", "v = 2\n", image=None)
    remote.deploy("--version", "v2").ok()
    typed = ("prune", "--keep", "1", "--older-than", "0")
    for one in (("verify",), ("export", str(tmp_path / "usb")), typed):
        remote.deploy(*one, env=real.reader).ok()
    remote.deploy(*typed, "--yes", env=real.reader).failed(1, remote.uri)
    remote.deploy("verify", "--all").ok()
