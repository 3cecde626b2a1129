"""Where the environment names a key, a deployment signs the bundles that containers get: the shim requires it."""

from __future__ import annotations

import os
import sys

import pytest

from flyte_pack.deploy.prune import DAY
from flyte_pack.signing import KEY
from flyte_shim.signatures import VARIABLE
from tests.support.deploying import BuildRoot, snapshot
from tests.support.shim import run_shim
from tests.support.signing import new_key


@pytest.fixture
def root(tmp_path):
    root = BuildRoot(tmp_path / "root")
    root.package("train", "print('it runs')\n")
    return root


@pytest.fixture
def key(tmp_path):
    return new_key(tmp_path)


def signatures(root):
    return sorted((root.store / "archives").glob("*.sig"))


def runs(root, tmp_path, key):
    """Whether the shim runs the deployed bundle where it trusts this key alone."""
    (archive,) = (root.store / "archives").glob("*.tar.gz")
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    done = run_shim(
        *("--archive", archive, "--", sys.executable, "services/ml/train.py"),
        home=tmp_path / "home",
        cwd=work,
        variables={VARIABLE: str(key.with_suffix(".pub"))},
    )
    assert done.returncode in (0, 65), done.stderr
    return done.stdout == "it runs\n"


def test_a_container_that_requires_a_signature_runs_what_was_signed(root, tmp_path, key):
    root.deploy(env={KEY: str(key)}).ok()
    assert len(signatures(root)) == 1
    assert runs(root, tmp_path, key)
    assert not runs(root, tmp_path, new_key(tmp_path, "ed25519"))


def test_without_a_key_nothing_is_signed(root, tmp_path, key):
    root.deploy().ok()
    assert signatures(root) == []
    assert not runs(root, tmp_path, key)


def test_what_was_deployed_before_is_signed_later_and_once_by_each_key(root, tmp_path, key):
    version = root.deploy("--output", "json").ok().json["version"]
    dry = root.deploy("--dry-run", "--output", "json", env={KEY: str(key)}).ok().json
    assert signatures(root) == []
    done = root.deploy("--output", "json", env={KEY: str(key)}).ok().json
    assert (done["version"], done["history"]) == (version, 1)
    (made,) = signatures(root)
    assert done["writes"] == dry["writes"] == [f"archives/{made.name}"]
    before = snapshot(root.store)
    assert root.deploy("--output", "json", env={KEY: str(key)}).ok().json["writes"] == []
    assert snapshot(root.store) == before
    other = new_key(tmp_path, "ed25519")
    root.deploy(env={KEY: str(other)}).ok()
    assert len(signatures(root)) == 2
    assert runs(root, tmp_path, key)
    assert runs(root, tmp_path, other)


@pytest.mark.parametrize("content", [b"", b"AAAA", b"x" * 10_000])
def test_a_damaged_signature_is_named_and_made_anew_on_request(root, tmp_path, key, content):
    root.deploy(env={KEY: str(key)}).ok()
    (path,) = signatures(root)
    path.chmod(0o644)
    path.write_bytes(content)
    assert not runs(root, tmp_path, key)
    root.deploy(env={KEY: str(key)}).failed(1, path.name, "--repair")
    root.deploy("--repair", env={KEY: str(key)}).ok()
    assert runs(root, tmp_path, key)


def test_prune_takes_it_with_its_bundle(root, key):
    root.deploy("--version", "old", env={KEY: str(key)}).ok()
    (old,) = signatures(root)
    root.package("train", "v = 2\n")
    root.deploy("--version", "new", env={KEY: str(key)}).ok()
    for path in root.store.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - 2 * DAY
            os.utime(path, (then, then))
    done = root.deploy("prune", "--keep", "1", "--yes", "--output", "json").ok()
    assert [one["kind"] for one in done.json["objects"]].count("signature") == 1
    assert len(signatures(root)) == 1
    assert not old.exists()
    root.deploy("verify", "--all", "--no-image-check").ok()
    assert "Nothing to prune." in root.deploy("prune", "--keep", "1", "--yes").ok().out


def test_a_key_that_cannot_be_used_stops_it_before_anything_is_written(root, tmp_path):
    root.deploy(env={KEY: str(tmp_path / "none")}).failed(1, KEY, "No such file")
    assert not root.store.exists()
