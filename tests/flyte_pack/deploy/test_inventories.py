"""The inventory of a bundle goes into the store beside it, once, and goes with it."""

from __future__ import annotations

import dataclasses
import json
import os
import time

import pytest

from flyte_pack.deploy.prune import DAY
from flyte_pack.task_link import LinkedFile
from flyte_shim.hashing import sha256_bytes
from tests.support.deploying import BuildRoot

SBOM = b'{"bomFormat": "CycloneDX"}\n'


@pytest.fixture
def root(tmp_path):
    return BuildRoot(tmp_path)


def package(root, body="v = 1\n", sbom=SBOM, name="train"):
    link = root.package(name, body)
    if sbom is None:
        return link
    path = f"{name}.cdx.json"
    (root.dist / path).write_bytes(sbom)
    listed = LinkedFile(path, len(sbom), sha256_bytes(sbom))
    bundle = dataclasses.replace(link.bundle, sbom=listed)
    return root.link(name, dataclasses.replace(link, bundle=bundle))


def inventories(root):
    return {
        str(path.relative_to(root.store)): path.read_bytes()
        for path in (root.store / "inventories").rglob("*")
        if path.is_file()
    }


def age(root, days):
    for path in root.store.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - days * DAY
            os.utime(path, (then, then))


def test_it_is_below_the_content_that_it_lists_by_its_own_hash(root):
    link = package(root)
    root.deploy().ok()
    key = f"inventories/{link.bundle.content_hash}/{sha256_bytes(SBOM)}.cdx.json"
    assert inventories(root) == {key: SBOM}


def test_a_link_without_one_is_as_it_was_and_nothing_is_written(root):
    link = package(root, sbom=None)
    assert b"sbom" not in link.to_json()
    root.deploy().ok()
    assert not (root.store / "inventories").exists()


def test_the_same_version_gets_one_later_and_only_that_is_written(root):
    package(root, sbom=None)
    root.deploy().ok()
    package(root)
    done = root.deploy("--output", "json").ok().json
    assert [key.partition("/")[0] for key in done["writes"]] == ["inventories"]
    assert root.deploy("--output", "json").ok().json["writes"] == []


def test_one_of_another_target_lies_beside_it(root):
    package(root)
    root.deploy().ok()
    package(root, sbom=SBOM + b"\n")
    root.deploy().ok()
    assert sorted(inventories(root).values()) == [SBOM, SBOM + b"\n"]


def test_a_file_that_is_not_what_was_packaged_is_an_error(root):
    package(root)
    (root.dist / "train.cdx.json").write_bytes(SBOM.replace(b"C", b"D"))
    root.deploy().failed(1, "train.cdx.json", "Package it again")
    assert not root.store.exists()


def test_a_damaged_one_is_an_error_until_it_is_repaired(root):
    package(root)
    root.deploy().ok()
    (key,) = inventories(root)
    (root.store / key).chmod(0o644)
    (root.store / key).write_bytes(SBOM.replace(b"C", b"D"))
    root.deploy().failed(1, key, "--repair")
    root.deploy("--repair").ok()
    assert inventories(root) == {key: SBOM}


def prune(root, *typed):
    done = root.deploy("prune", *typed, "--output", "json").ok()
    return {one["key"]: one["kind"] for one in done.json["objects"]}


def test_prune_takes_it_with_its_content_and_leaves_it_where_that_is_needed(root):
    package(root)
    root.deploy("--version", "old").ok()
    (old,) = inventories(root)
    for place in ("versions", "history"):
        for path in (root.records() / place).iterdir():
            path.unlink()
    package(root, "v = 2\n")
    root.deploy("--version", "new").ok()
    (new,) = inventories(root).keys() - {old}
    age(root, 2)
    found = prune(root)
    assert found[old] == "inventory"
    assert new not in found
    prune(root, "--yes")
    assert set(inventories(root)) == {new}
    assert prune(root) == {}


def test_prune_leaves_a_young_one_and_what_is_none(root):
    package(root)
    root.deploy().ok()
    young = root.store / "inventories" / ("a" * 64) / f"{'b' * 64}.cdx.json"
    young.parent.mkdir()
    young.write_bytes(b"")
    other = root.store / "inventories" / "notes.txt"
    other.write_bytes(b"")
    then = time.time() - 2 * DAY
    os.utime(other, (then, then))
    assert prune(root, "--yes") == {}
    assert young.exists()
    assert other.exists()
    os.utime(young, (then, then))
    assert list(prune(root, "--yes").values()) == ["inventory"]


def test_the_report_of_a_dry_run_names_it(root):
    link = package(root)
    done = root.deploy("--dry-run", "--output", "json").ok().json
    assert json.dumps(done).count(f"inventories/{link.bundle.content_hash}/") >= 1
    assert not root.store.exists()
