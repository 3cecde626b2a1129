"""Deployments keep Flyte right whichever way it treats a version that is there: by taking the new
content (the open-source backend), or by refusing it.
"""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from tests.support.control_plane import EXISTING, control_plane
from tests.support.deploying import snapshot
from tests.support.registering import Registering, body, triggered, versions


@pytest.fixture(scope="module", params=EXISTING)
def existing(request):
    return request.param


@pytest.fixture
def plane(tmp_path, existing):
    options = ("--project", "flytesnacks", "--existing", existing)
    with control_plane(tmp_path / "plane", *options) as plane:
        yield plane


@pytest.fixture
def root(tmp_path, plane):
    return Registering(tmp_path / "repo", plane)


def statuses(document):
    return {one["name"]: one["status"] for one in document["registered"]}


def triggers(document):
    return {f"{one['task']}/{one['name']}": one["status"] for one in document["triggers"]}


# --- a version that somebody named ---------------------------------------------------------------


STAGE = '__import__("os").environ["STAGE"]'


@pytest.mark.parametrize(
    ("source", "differs"),
    [
        (
            body("train", more=f', env_vars={{"A": {STAGE}}}'),
            "task_template.container.env[0].value",
        ),
        (body("train", more=f", description={STAGE}"), "environment.description"),
    ],
    ids=["environment", "description"],
)
def test_a_version_that_flyte_has_with_other_content_is_refused(root, plane, source, differs):
    """Our records know nothing of it any more: only Flyte can tell."""
    root.package("train", source)
    root.deploy("--version", "v1", plan={"import_env": ["STAGE=one"]}).ok()
    kept, count = plane.state()["tasks"], plane.requests("DeployTask")
    shutil.rmtree(root.records())
    before = snapshot(root.store)
    root.deploy("--version", "v1", plan={"import_env": ["STAGE=two"]}).failed(
        1, "train-env.train: Flyte has other content under version v1 already", differs
    )
    assert (plane.state()["tasks"], plane.requests("DeployTask")) == (kept, count)
    assert snapshot(root.store) == before, "it is told before anything is written"
    again = root.deploy("--version", "v1", "--output", "json", plan={"import_env": ["STAGE=one"]})
    assert statuses(again.ok().json) == {"train-env.train": "present"}
    assert plane.requests("DeployTask") == count


def test_a_version_that_flyte_has_with_other_code_is_refused(root, plane):
    root.package("train", body("train"))
    root.deployed("--version", "v1")
    shutil.rmtree(root.records())
    root.package("train", body("train", 2))
    root.deploy("--version", "v1").failed(1, "version v1 already", "container.args")


# --- what runs without a version -----------------------------------------------------------------


@pytest.mark.parametrize("named", [(), ("v1", "v2")], ids=["computed", "named"])
def test_a_rollback_and_an_edit_that_is_reverted_move_what_runs_without_a_version(
    root, plane, named
):
    def typed(number):
        return ("--version", named[number]) if named else ()

    root.package("train", body("train"))
    root.package("score", body("score"))
    first = root.deployed(*typed(0))
    root.package("train", body("train", 2))
    second = root.deployed(*typed(1))
    assert plane.latest == versions(second)
    count = plane.requests("DeployTask")
    done = root.deploy("rollback", first["version"])
    assert "train-env.train" in done.ok().out
    assert "Runs that name no version use" in done.out
    want = versions(first)
    again = f"{want['train-env.train']}.again2"
    assert again in done.out
    assert plane.latest["train-env.train"] == again
    told = {task["version"]: task for task in plane.state()["tasks"] if "train" in task["name"]}
    old, new = told[want["train-env.train"]], told[again]
    assert [again if part == old["version"] else part for part in old["command"]] == new["command"]
    if not named:
        # Only what differs is sent.
        assert plane.requests("DeployTask") == count + 1
    # Forth and back again: the edit, and the one before.
    root.deployed(*typed(1))
    assert plane.latest["train-env.train"] == f"{versions(second)['train-env.train']}.again2"
    root.package("train", body("train"))
    third = root.deployed(*typed(0))
    assert statuses(third)["train-env.train"] == "again"
    assert versions(third)["train-env.train"] == f"{want['train-env.train']}.again3"
    assert plane.latest["train-env.train"] == f"{want['train-env.train']}.again3"
    assert third["version"] == first["version"]
    assert "Nothing to do" in root.deploy(*typed(0)).ok().out


def test_a_rollback_to_what_flyte_runs_already_sends_and_imports_nothing(root, plane, tmp_path):
    root.package("train", body("train"))
    first = root.deployed()
    root.package("train", body("train", 2))
    root.deployed("--no-register")
    count = plane.requests("DeployTask")
    back = root.deploy("rollback", "--output", "json").ok().json
    assert back["version"] == first["version"]
    assert statuses(back) == {"train-env.train": "present"}
    assert plane.requests("DeployTask") == count


@pytest.mark.parametrize(
    ("typed", "at"), [((), 1), (("-1",), 1), (("-2",), 0), (("-3",), None), (("-9",), None)]
)
def test_rollback_counts_back(root, typed, at):
    made = []
    for number in range(3):
        root.package("train", body("train", number))
        made.append(root.deployed("--no-register")["version"])
    done = root.deploy("rollback", *typed, "--no-register", "--output", "json")
    if at is None:
        done.failed(1, f"there is no version {typed[0][1:]} before the current one: 2 before it")
    else:
        assert done.ok().json["version"] == made[at]
        # The one before is now the one that it came from.
        back = root.deploy("rollback", "--no-register", "--output", "json").ok().json
        assert back["version"] == made[2]


# --- triggers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [(), ("daily",)], ids=["none-left", "one-left"])
def test_a_trigger_that_is_removed_stops_and_comes_back_by_rollback(root, plane, left):
    root.package("train", triggered("train", names=("hourly", *left)))
    first = root.deployed()
    assert set(plane.firing) == {f"train-env.train/{one}" for one in ("hourly", *left)}
    root.package("train", triggered("train", names=left) if left else body("train"))
    told = root.deploy("--dry-run", "--output", "json").ok().json
    assert triggers(told) == {"train-env.train/hourly": "deactivated"}
    assert "train-env.train/hourly" in plane.firing
    done = root.deploy().ok()
    assert "trigger hourly of train-env.train is in the code no more" in done.err
    assert "train-env.train/hourly" not in plane.firing
    assert {name.rpartition("/")[2] for name in plane.firing} == set(left)
    root.deploy("rollback", first["version"]).ok()
    again = f"{versions(first)['train-env.train']}.again2"
    assert plane.firing == {f"train-env.train/{one}": again for one in ("hourly", *left)}
    root.deploy("rollback").ok()
    assert {name.rpartition("/")[2] for name in plane.firing} == set(left)


def test_the_triggers_of_a_task_that_is_removed_stop(root, plane):
    root.package("train", triggered("train"))
    root.package("score", body("score"))
    root.deployed()
    del root.links["train"]
    done = root.deploy("--output", "json").ok()
    assert triggers(done.json) == {"train-env.train/hourly": "deactivated"}
    assert plane.firing == {}


def test_a_trigger_that_another_deployment_has_or_took_over_fires_on(root, plane):
    root.package("train", triggered("train"))
    root.package("score", body("score"))
    root.deployed()
    firing = plane.firing
    other = {"address": "services:other"}
    root.deploy(plan=other).ok()
    train = root.links.pop("train")
    assert triggers(root.deployed()) == {}
    assert plane.firing == firing
    # Another repository registers the task, with other content.
    root.links["train"] = dataclasses.replace(train)
    root.deploy().ok()
    stranger = Registering(root.root.parent / "stranger", plane)
    stranger.package("train", triggered("train", 5))
    theirs = stranger.deployed()
    del root.links["train"]
    root.deploy(plan=other).ok()
    assert triggers(root.deployed()) == {}
    assert plane.firing == {"train-env.train/hourly": versions(theirs)["train-env.train"]}


@pytest.mark.parametrize("how", ["halfway", "unread"])
def test_a_trigger_that_a_failed_deployment_was_to_stop_is_stopped_by_the_next(root, plane, how):
    root.package("train", triggered("train"))
    first = root.deployed()
    root.package("train", body("train", 2))
    if how == "halfway":
        plane.fault("UpdateTriggers", "permission_denied", times=9)
    else:
        # Whoever reads nothing deactivates nothing, and the version becomes the current one.
        plane.fault("GetTriggerDetails", "permission_denied", times=9)
    assert root.deploy().code == (0 if how == "unread" else 1)
    assert plane.firing == {"train-env.train/hourly": versions(first)["train-env.train"]}
    plane.fault_no_more()
    root.package("train", body("train", 2 if how != "unread" else 3))
    assert triggers(root.deployed()) == {"train-env.train/hourly": "deactivated"}
    assert plane.firing == {}


@pytest.mark.parametrize("named", [(), ("--version", "v2")], ids=["computed", "named"])
@pytest.mark.parametrize("left", ["its task", "nothing"])
def test_what_a_deployment_registered_that_ended_halfway_stops_if_it_is_taken_back(
    root, plane, named, left
):
    """No history entry names its version: its record does."""
    root.package("score", triggered("score"))
    if left == "its task":
        root.package("train", body("train"))
    root.deployed()
    history = root.history()
    root.package("score", body("score", 2))
    root.package("train", triggered("train", 2))
    plane.fault("UpdateTriggers", "permission_denied", times=9)
    assert root.deploy(*named).code == 1
    plane.fault_no_more()
    assert root.history() == history
    assert set(plane.firing) == {"score-env.score/hourly", "train-env.train/hourly"}
    if left == "its task":
        root.package("train", body("train"))
    else:
        del root.links["train"]
    assert set(triggers(root.deployed()).values()) == {"deactivated"}
    assert plane.firing == {}


def test_a_trigger_that_somebody_made_by_hand_fires_on(root, plane):
    """It is in no record, though it runs a version of ours."""
    root.package("train", triggered("train", names=("hourly", "daily")))
    root.deployed()
    mine = root.root.parent / "other"
    stranger = Registering(mine, plane)
    stranger.package("train", triggered("train", names=("hourly", "daily", "by-hand")))
    stranger.deployed()
    root.package("train", body("train", 2))
    assert triggers(root.deployed()) == {}
    assert set(plane.firing) == {f"train-env.train/{one}" for one in ("hourly", "daily", "by-hand")}


def test_a_rollback_leaves_a_trigger_paused_that_somebody_paused(root, plane):
    root.package("train", triggered("train", names=("hourly", "daily")))
    first = root.deployed()
    root.package("train", triggered("train", 2, names=("hourly", "daily")))
    root.deployed()
    plane.pause("train-env.train", "hourly")
    back = root.deploy("rollback", first["version"], "--output", "json").ok().json
    assert triggers(back) == {"train-env.train/hourly": "stays paused"}
    again = f"{versions(first)['train-env.train']}.again2"
    assert plane.firing == {"train-env.train/daily": again}
    assert versions(back) == {"train-env.train": again}


def test_prune_keeps_what_an_active_trigger_runs(root, plane):
    root.package("train", triggered("train"))
    first = root.deployed()
    for number in (2, 3):
        root.package("train", body("train", number))
        root.deployed("--no-register")
    prune = ("prune", "--keep", "1", "--older-than", "0")
    left = root.deploy(*prune, "--yes", "--output", "json").ok().json["versions"]
    assert len(left) == 1
    assert first["version"] not in left
    root.deploy("verify", first["version"], "--no-image-check").ok()
    assert root.deploy(*prune, "--output", "json").ok().json["versions"] == []
    plane.pause("train-env.train", "hourly")
    assert root.deploy(*prune, "--output", "json").ok().json["versions"] == [first["version"]]


# --- where ---------------------------------------------------------------------------------------


def test_a_domain_that_the_project_does_not_have_is_refused_with_the_ones_it_has(root, plane):
    root.package("train", body("train"))
    root.deploy(plan={"domain": "moon"}).failed(
        1, "project flytesnacks", "no domain moon, only development, production, staging"
    )
    assert plane.state()["tasks"] == []
    assert not root.store.exists()


def test_a_control_plane_that_tells_nothing_is_registered_with(root, plane):
    """The right to register need not include the right to read."""
    root.package("train", triggered("train"))
    for method in ("GetProject", "ListVersions", "GetTaskDetails", "GetTriggerDetails"):
        plane.fault(method, "permission_denied", times=100)
    assert statuses(root.deployed()) == {"train-env.train": "new"}
    root.package("train", body("train", 2))
    assert statuses(root.deployed()) == {"train-env.train": "new"}
