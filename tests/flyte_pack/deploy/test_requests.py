"""What a deployment asks of an object store, a registry and a control plane, counted: only what changed is written."""

from __future__ import annotations

import os

import pytest

from tests.support.object_stores import Proxy, clean_environment
from tests.support.real_deployments import RealDeployment, push_named, servers


class Answers(Proxy):
    """Keeps what became of each request, too: (method, path, status)."""

    def __init__(self, upstream):
        super().__init__(upstream)
        self.answers = []

    def _ask(self, handler, headers, body):
        answer = super()._ask(handler, headers, body)
        self.answers.append((handler.command, handler.path, answer[0]))
        return answer

    def clear(self):
        super().clear()
        self.answers.clear()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("servers")
    with pytest.MonkeyPatch.context() as patch:
        clean_environment(patch)
        with servers(directory, proxy=Answers) as running:
            push_named(running, directory / "named")
            yield running


@pytest.fixture
def root(tmp_path, running, monkeypatch):
    clean_environment(monkeypatch)
    root = RealDeployment(tmp_path / "build", running)
    root.package_all()
    yield root
    running.clear()


@pytest.fixture
def deployed(root):
    root.deploy().ok()
    root.servers.clear()
    return root


@pytest.fixture
def checked(deployed):
    """Deployed, and what is in the store was read once by this machine."""
    deployed.deploy().ok()
    deployed.servers.clear()
    return deployed


def test_the_first_run_after_it_reads_each_archive_and_manifest_once(deployed):
    assert "Nothing to do" in deployed.deploy().ok().out
    assert deployed.servers.writes == []
    assert deployed.servers.counts() == {"registry HEAD": 3, "store GET": 9, "store HEAD": 4}


def test_a_deployment_with_nothing_to_do_writes_nothing_and_asks_little(checked):
    deployed = checked
    done = deployed.deploy().ok()
    assert "Nothing to do" in done.out
    assert deployed.servers.writes == []
    # The registry: one image by its name, one by its digest and its tag. The store: the history's names, its last entry and
    # the record that this names, and of each of two bundles the index entry, the archive and the manifest. Flyte and its
    # SDK: nothing.
    assert deployed.servers.counts() == {"registry HEAD": 3, "store GET": 5, "store HEAD": 4}
    assert not deployed.scratch_left()


def test_it_asks_no_more_when_there_were_many_deployments_before(checked):
    deployed = checked
    deployed.deploy().ok()
    once = deployed.servers.counts()
    for number in range(2, 5):
        deployed.package_all(library=number)
        deployed.deploy().ok()
    deployed.deploy().ok()
    deployed.servers.clear()
    assert "Nothing to do" in deployed.deploy().ok().out
    assert deployed.servers.counts() == once


def test_after_a_change_in_a_library_only_what_reaches_it_is_written_and_registered(deployed):
    before = deployed.objects()
    first = deployed.done()
    deployed.package_all(library=2)
    deployed.servers.clear()
    document = deployed.deploy("--output", "json").ok().json
    asked = deployed.servers.counts()

    assert {one["name"]: one["status"] for one in document["registered"]} == {
        "score-env.score": "unchanged",
        "train-env.train": "new",
    }
    registered = {(one["name"], one["version"]) for one in document["registered"]}
    assert {name for name, _ in registered - first} == {"train-env.train"}
    assert asked["flyte DeployTask"] == 1

    after = deployed.objects()
    assert {key: after[key] for key in before} == before
    written = sorted(after.keys() - before.keys())
    kinds = [key.partition("/")[0] for key in written]
    assert kinds == ["archives", "deployments", "deployments", "index", "manifests"]
    assert asked["store PUT"] == len(written)
    assert sorted(document["writes"]) == written
    assert {name.partition(" ")[2] for name in asked if name.startswith("registry")} == {"HEAD"}


@pytest.mark.parametrize("again", [False, True], ids=["the first one", "after a change"])
def test_a_dry_run_writes_nothing_anywhere(root, again):
    if again:
        root.deploy().ok()
    root.package_all(seed=7, library=3)
    objects, tasks = root.objects(), root.servers.registered()
    root.servers.clear()
    planned = root.deploy("--dry-run", "--output", "json").ok().json
    assert root.servers.writes == []
    assert "flyte DeployTask" not in root.servers.counts()
    assert (root.objects(), root.servers.registered()) == (objects, tasks)
    # It is what the deployment then does.
    done = root.deploy("--output", "json").ok().json
    for same in ("version", "previous", "history", "bundles", "tasks", "writes", "upload"):
        assert planned[same] == done[same], same
    assert [i["status"] for i in planned["images"]] == [i["status"] for i in done["images"]]


def test_two_deployers_at_once_both_succeed_and_each_object_is_written_once(root):
    gate, opener = os.pipe()

    def wait():
        os.close(opener)
        os.read(gate, 1)

    root.servers.clear()
    programs = [root.begin("--output", "json", first=wait) for _ in range(2)]
    os.close(gate)
    os.close(opener)
    found = [program.end().ok().json for program in programs]
    assert found[0]["version"] == found[1]["version"]
    assert sum(one["deployed"] for one in found) == 1

    written = [key for one in found for key in one["writes"]]
    assert sorted(written) == sorted(root.objects())
    answers = root.servers.proxies["store"].answers
    created = [path for method, path, status in answers if (method, status) == ("PUT", 200)]
    assert len(created) == len(set(created)) == len(written)
    for name in ("train-env.train", "score-env.score"):
        statuses = [o["status"] for one in found for o in one["registered"] if o["name"] == name]
        assert "new" in statuses  # twice, if both asked before either had registered it
        assert set(statuses) <= {"new", "present", "unchanged"}
    registry = root.servers.registry
    assert registry.holds("bikes/train", root.image_digest)
    root.servers.clear()
    assert "Nothing to do" in root.deploy().ok().out


LOOKS = [
    ("list",),
    ("show",),
    ("verify", "--all"),
    ("prune", "--keep", "1", "--older-than", "0"),
    ("--dry-run",),
    ("--dry-run", "--output", "json"),
]


def test_who_may_only_read_can_look_at_all_of_it(deployed):
    deployed.package_all(library=2)
    before = deployed.objects()
    deployed.servers.clear()
    for typed in LOOKS:
        deployed.deploy(*typed, env=deployed.servers.store.reader).ok()
        assert deployed.servers.writes == [], typed
    assert deployed.objects() == before


def test_who_may_only_read_deploys_nothing_and_is_told_why(deployed):
    reader = deployed.servers.store.reader
    # What is there already takes no right to write.
    assert "Nothing to do" in deployed.deploy(env=reader).ok().out
    version = deployed.deploy("list", "--output", "json").ok().json["current"]
    deployed.package_all(library=2)
    before = deployed.objects()
    deployed.deploy(env=reader).failed(1, deployed.uri, "may not write", "s3:PutObject")
    deployed.package_all()
    deployed.deploy("rollback", version, env=reader).ok()
    assert deployed.objects() == before
    assert deployed.servers.counts().get("flyte DeployTask", 0) == 0
