"""`diff` tells what differs between deployed versions; it needs a store and nothing else."""

from __future__ import annotations

import shutil

import pytest

from tests.support.deploying import BuildRoot, snapshot


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """v1, v2 and v3 are deployed, in this order; and the packages are gone since."""
    root = BuildRoot(tmp_path_factory.mktemp("versions") / "build")
    for version, body in (("v1", "v = 1\n"), ("v2", "v = 22\n"), ("v3", "v = 333\n")):
        root.package("train", body)
        root.deploy("--version", version).ok()
    shutil.rmtree(root.dist)
    root.dist.mkdir()
    root.links.clear()
    return root


def test_it_compares_the_one_before_with_the_current_one(root):
    before = snapshot(root.store)
    assert root.deploy("diff").ok().out.splitlines()[1:] == [
        "version v3 against v2",
        "",
        "services/ml:train: files: 1 changed; 1 B more, now 1 file, 8 B",
        "",
        "Changed:",
        "  ~ services/ml/train.py  7 B -> 8 B",
    ]
    assert snapshot(root.store) == before


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("v1",), "version v3 against v1"),
        (("v1", "v2"), "version v2 against v1"),
        (("-2", "-1"), "version v2 against v1"),
        (("-1", "v1"), "version v1 against v2"),
    ],
)
def test_any_two_versions_can_be_named(root, typed, said):
    assert root.deploy("diff", *typed).ok().out.splitlines()[1] == said


def test_a_version_does_not_differ_from_itself(root):
    assert "services/ml:train: nothing differs" in root.deploy("diff", "v2", "v2").ok().out


def test_programs_get_the_shape_that_flyte_explain_has(root):
    told = root.deploy("diff", "--output", "json").ok().json
    assert (told["old"], told["new"]) == ("v2", "v3")
    (one,) = told["differences"]
    assert [file["path"] for file in one["changed"]] == ["services/ml/train.py"]


def test_what_is_not_there_cannot_be_compared(root, tmp_path):
    root.deploy("diff", "v9").failed(1, "there is no version v9")
    root.deploy("diff", "-3").failed(1, "there is no version 3 before the current one: 2 before it")
    BuildRoot(tmp_path / "empty").deploy("diff").failed(1, "nothing was deployed yet")


def test_a_damaged_manifest_is_named(root):
    (manifest,) = (
        path for path in (root.store / "manifests").iterdir() if b'"size": 6' in path.read_bytes()
    )
    whole = manifest.read_bytes()
    manifest.chmod(0o644)
    manifest.write_bytes(whole.replace(b'"size": 6', b'"size": 5'))
    root.deploy("diff", "v1").failed(1, str(manifest), "cannot be compared: its SHA-256 is")
    manifest.write_bytes(whole)


# --- the same content by other dependencies ------------------------------------------------------


def manifests(root: BuildRoot) -> list[str]:
    return [path.stem for path in (root.store / "manifests").iterdir()]


def test_a_new_version_has_the_manifest_of_its_own_build(tmp_path):
    root = BuildRoot(tmp_path / "build")
    root.package("train")
    root.deploy("--version", "v1").ok()
    (first,) = manifests(root)
    index = snapshot(root.store / "index")
    second = root.redescribe("train", "libs:other")
    root.deploy("--version", "v2").ok()
    named = [
        root.deploy("show", version, "--output", "json").ok().json["record"]["tasks"][0]["bundle"]
        for version in ("v1", "v2")
    ]
    assert [one["manifest_hash"] for one in named] == [first, second]
    assert len({one["archive_hash"] for one in named}) == 1
    assert snapshot(root.store / "index") == index
    root.deploy("verify", "--all", "--no-image-check").ok()
    assert root.deploy("prune", "--older-than", "0", "--output", "json").ok().json["objects"] == []
    assert "nothing differs" in root.deploy("diff").ok().out


def test_a_version_that_is_there_keeps_its_manifest(tmp_path):
    root = BuildRoot(tmp_path / "build")
    root.package("train")
    root.deploy().ok()
    before = snapshot(root.store)
    root.redescribe("train", "libs:other")
    assert root.deploy("--output", "json").ok().json["writes"] == []
    assert snapshot(root.store) == before
