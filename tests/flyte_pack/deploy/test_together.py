"""Deployers that run at the same time never lose one another's work, and all succeed."""

from __future__ import annotations

import os

import pytest

from flyte_pack.deploy import program
from flyte_pack.deploy.ledger import Ledger
from tests.support.deploying import BuildRoot, Program, contents


@pytest.fixture
def root(tmp_path):
    root = BuildRoot(tmp_path / "build")
    root.package("train")
    return root


def together(jobs):
    """Start all, let them go at the same instant, and wait for all. Jobs are (working directory, arguments)."""
    gate, opener = os.pipe()

    def wait():
        os.close(opener)
        os.read(gate, 1)

    programs = [Program(cwd, arguments, first=wait) for cwd, arguments in jobs]
    os.close(gate)
    os.close(opener)
    return [program.end() for program in programs]


@pytest.mark.parametrize("count", [2, 8])
def test_the_same_deployment_is_written_once(root, tmp_path, count):
    done = together([(root.root, root.arguments("--output", "json"))] * count)
    found = [d.ok().json for d in done]
    assert len({d["version"] for d in found}) == 1
    assert [d["history"] for d in found] == [1] * count
    written = [key for d in found for key in d["writes"]]
    assert len(written) == len(set(written)) == 5
    assert sum(d["deployed"] for d in found) == 1
    assert len(root.history()) == 1
    assert list((root.store / ".tmp").iterdir()) == []
    alone = contents(root.store)
    assert "Nothing to do" in root.deploy().ok().out
    assert contents(root.store) == alone


@pytest.mark.parametrize("count", [2, 8])
def test_different_deployments_each_get_a_number(root, count):
    versions = [f"v{n}" for n in range(count)]
    for done in together([(root.root, root.arguments("--version", v)) for v in versions]):
        done.ok()
    assert sorted(root.history()) == [("deploy", version) for version in versions]


def test_different_content_under_one_version_goes_to_one_of_them(root, tmp_path):
    images = [f"registry.example/trainer:{n}" for n in range(8)]
    root.package("train", image="trainer")
    done = together(
        [(root.root, root.arguments("--version", "v1", "--image", f"trainer={i}")) for i in images]
    )
    assert sorted(d.code for d in done) == [0] + [1] * 7
    [winner] = [image for image, d in zip(images, done) if d.code == 0]
    assert root.version("v1")["tasks"][0]["image"] == winner
    assert root.history() == [("deploy", "v1")]
    for d in done:
        if d.code:
            d.failed(1, "version v1 exists with other content", "image")


def test_a_record_that_another_deployer_writes_while_we_look_is_kept(root, monkeypatch):
    def typed(number):
        return ("--version", "v1", "--image", f"trainer=registry.example/trainer:{number}")

    root.package("train", image="trainer")
    look = Ledger.recorded
    others = [typed(2)]

    def look_and_be_overtaken(self, version, latest=None):
        found = look(self, version, latest)
        if others:
            root.deploy(*others.pop()).ok()
        return found

    monkeypatch.setattr(Ledger, "recorded", look_and_be_overtaken)
    monkeypatch.setattr(program, "_forget_the_callers_python", lambda: None)
    monkeypatch.chdir(root.root)
    assert program.main(root.arguments(*typed(1))[1:]) == program.FAILED
    assert root.version("v1")["tasks"][0]["image"] == "registry.example/trainer:2"
    assert root.history() == [("deploy", "v1")]


def test_other_archives_of_one_content_settle_on_one_of_them(tmp_path):
    store = ("--store", f"file://{tmp_path}/store")
    builds = [BuildRoot(tmp_path / f"build{n}") for n in range(2)]
    for build in builds:
        build.package("train")
    builds[1].recompress("train")
    hashes = {build.links["train"].bundle.archive_hash for build in builds}
    assert len(hashes) == 2
    jobs = [(b.root, b.arguments(*store, "--output", "json")) for b in builds * 4]
    found = [done.ok().json for done in together(jobs)]
    [archive] = {d["bundles"][0]["archive_hash"] for d in found}
    assert archive in hashes
    assert len({d["version"] for d in found}) == 1
    assert sum(d["deployed"] for d in found) == 1


def test_a_rollback_and_a_deployment_both_count(root):
    for version, body in (("v1", "v = 1\n"), ("v2", "v = 2\n")):
        root.package("train", body)
        root.deploy("--version", version).ok()
    root.package("train", "v = 3\n")
    done = together(
        [
            (root.root, root.arguments("rollback", "v1")),
            (root.root, root.arguments("--version", "v3")),
        ]
    )
    assert [d.code for d in done] == [0, 0]
    assert root.history()[:2] == [("deploy", "v1"), ("deploy", "v2")]
    assert sorted(root.history()[2:]) == [("deploy", "v3"), ("rollback", "v1")]
