"""Deployments with apps: the deploy program, a real control plane, and the real Flyte in between."""

from __future__ import annotations

import dataclasses
import json
from textwrap import dedent

import pytest

from tests.support.control_plane import control_plane
from tests.support.registering import Registering, body, triggered

APP = """\
    import flyte.app
    from libs.words import WORD

    app = flyte.app.AppEnvironment(name="{name}", env_vars={{"WORD": WORD}}, image={image})

    @app.server
    def serve():
        pass
"""
TASK = """\
    import flyte
    from services.ml.dashboard import app

    env = flyte.TaskEnvironment(name="asks", depends_on=[app])

    @env.task
    async def train() -> str:
        return app.endpoint
"""
IMAGE = '"registry.example/pages:1"'
BUILT = 'flyte.Image.from_debian_base().with_pip_packages("fastapi")'


def app_body(name="dashboard", image=IMAGE):
    return dedent(APP.format(name=name, image=image))


class Apps(Registering):
    """`services/ml:dashboard`, an app, and `services/ml:train`, a task that depends on it."""

    def package_app(self, word="one", **changes):
        files = {"libs/words.py": f"WORD = {word!r}\n"}
        self.package("dashboard", app_body(), files, **changes)
        self.make_app("dashboard")

    def make_app(self, name):
        """Have the target NAME be that of the app `app` in its module."""
        link = self.links[name]
        path, _, _ = link.entry_point.partition(":")
        task = dataclasses.replace(link.tasks[0], name="app")
        self.link(
            name, dataclasses.replace(link, kind="app", entry_point=f"{path}:app", tasks=(task,))
        )

    def package_task(self, word="one", image=IMAGE):
        files = {
            "libs/words.py": f"WORD = {word!r}\n",
            "services/ml/dashboard.py": app_body(image=image),
        }
        self.package("train", dedent(TASK), files)


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("plane"), "--project", "flytesnacks") as plane:
        yield plane


@pytest.fixture
def root(tmp_path, plane):
    root = Apps(tmp_path / "repo", plane)
    root.package_app()
    return root


def app_of(plane, name="dashboard"):
    return next(app for app in plane.state()["apps"] if app["name"] == name)


def word(app):
    request = app["request"].get("update") or app["request"]["create"]
    return {one["key"]: one["value"] for one in request["spec"]["container"]["env"]}["WORD"]


def registered(document):
    return {one["name"]: one for one in document["registered"]}


def test_an_app_is_deployed_recorded_and_told_with_its_address(root, plane):
    document = root.deployed()
    assert document["registered"] == [
        {
            "name": "dashboard",
            "version": registered(document)["dashboard"]["version"],
            "status": "new",
            "kind": "app",
            "url": "https://dashboard-flytesnacks-development.apps.example",
        }
    ]
    [task] = root.version(document["version"])["tasks"]
    [one] = task["tasks"]
    assert (task["kind"], task["entry_point"]) == ("app", "services/ml/dashboard.py:app")
    assert (one["kind"], one["flyte_name"], one["name"]) == ("app", "dashboard", "app")
    command = one["command"]
    assert command[:3] == ["fserve", "--version", one["version"]]
    assert command[command.index("--tgz") + 1] == f"file://{root.store}/{task['bundle']['archive']}"
    request = app_of(plane)["request"]["create"]
    container = request["spec"]["container"]
    assert [*container["command"], *container.get("args", ())] == command
    assert container["image"] == task["image"] == "registry.example/trainer:1"
    assert request["metadata"]["codeBundleUri"] == command[command.index("--tgz") + 1]


def test_a_second_run_asks_nothing_and_an_edit_changes_the_app(root, plane):
    root.deploy().ok()
    before = plane.state()["requests"]
    assert "Nothing to do" in root.deploy().ok().out
    assert plane.state()["requests"] == before
    root.package_app("two")
    done = root.deploy().ok()
    assert "app dashboard" in done.out
    assert "changed  https://dashboard-" in done.out
    assert word(app_of(plane)) == "two"


def test_a_dry_run_deploys_nothing(root, plane):
    before = plane.state()
    document = root.deploy("--dry-run", "--output", "json").ok().json
    assert [one["status"] for one in document["registered"]] == ["new"]
    assert plane.state() == before


def test_another_machine_deploys_the_same_and_starts_nothing_anew(root, plane, tmp_path):
    root.deploy().ok()
    deployed = app_of(plane)["deployed"]
    again = root.deploy("--output", "json", env={"XDG_CACHE_HOME": str(tmp_path / "x")}).ok().json
    assert registered(again)["dashboard"]["status"] == "present"
    assert app_of(plane)["deployed"] == deployed


@pytest.mark.parametrize("apps", ["upsert", "exists"])
def test_a_rollback_runs_the_code_that_was_recorded(tmp_path, apps):
    with control_plane(tmp_path / "p", "--project", "flytesnacks", "--apps", apps) as plane:
        root = Apps(tmp_path / "repo", plane)
        root.package_app("one")
        first = root.deployed()
        root.package_app("two")
        second = root.deployed()
        assert word(app_of(plane)) == "two"
        done = root.deploy("rollback", first["version"], "--output", "json").ok().json
        assert word(app_of(plane)) == "one"
        [told] = done["registered"]
        assert (told["name"], told["status"], told["kind"]) == ("dashboard", "changed", "app")
        assert told["version"] == registered(first)["dashboard"]["version"]
        assert root.history()[-1] == ("rollback", first["version"])
        # And forward again: the version is there, and the app is not.
        third = root.deployed()
        assert third["version"] == second["version"]
        assert word(app_of(plane)) == "two"
        assert app_of(plane)["deployed"] == 4


def test_verify_looks_at_the_bundle_of_an_app(root):
    document = root.deployed()
    assert root.deploy("verify", "--no-image-check").ok()
    [task] = root.version(document["version"])["tasks"]
    (root.store / task["bundle"]["archive"]).unlink()
    assert "archive" in root.deploy("verify", "--no-image-check").out


def test_an_app_that_a_task_depends_on_goes_with_it(tmp_path, plane):
    root = Apps(tmp_path / "repo", plane)
    root.package_task("three")
    document = root.deployed()
    assert {one["name"]: one.get("kind") for one in document["registered"]} == {
        "asks.train": None,
        "dashboard": "app",
    }
    assert word(app_of(plane)) == "three"
    [task] = root.version(document["version"])["tasks"]
    assert {(one["flyte_name"], one.get("kind")) for one in task["tasks"]} == {
        ("asks.train", None),
        ("dashboard", "app"),
    }
    first = document["version"]
    root.package_task("four")
    root.deploy().ok()
    root.deploy("rollback", first).ok()
    assert word(app_of(plane)) == "three"


def test_an_app_that_has_a_target_is_deployed_from_that(root, plane):
    """With its bundle and its image, although the task's bundle has its code too."""
    root.package_task("of the task", image=BUILT)
    root.package_app("of the app")
    document = root.deployed()
    assert set(registered(document)) == {"asks.train", "dashboard"}
    assert word(app_of(plane)) == "of the app"
    named = {
        task["address"]: [one["flyte_name"] for one in task["tasks"]]
        for task in root.version(document["version"])["tasks"]
    }
    assert named == {"services/ml:dashboard": ["dashboard"], "services/ml:train": ["asks.train"]}
    # Without it, the task's own bundle would have to have an image for the app.
    del root.links["dashboard"]
    root.deploy().failed(
        1, "environment dashboard has an Image that Flyte would have to build", "Write a flyte_app"
    )


def test_adding_a_target_for_an_app_gives_the_task_the_version_that_it_has_anywhere(
    root, plane, tmp_path
):
    task = root.links
    root.package_task()
    app = task.pop("dashboard")
    root.deploy().ok()
    root.links["dashboard"] = app
    after = root.deployed()
    fresh = Apps(tmp_path / "fresh", plane)
    fresh.package_task()
    fresh.package_app()
    fresh.uri = root.store
    other = (
        fresh.deploy(
            "--output",
            "json",
            plan={"store": f"file://{root.store}"},
            env={"XDG_CACHE_HOME": str(tmp_path / "c")},
        )
        .ok()
        .json
    )
    assert other["version"] == after["version"]


def test_two_apps_of_one_name_in_two_bundles_are_told(root, plane):
    root.package_task()
    root.package(
        "other",
        dedent(TASK).replace("train", "other").replace("asks", "also"),
        {"libs/words.py": "WORD = 'x'\n", "services/ml/dashboard.py": app_body()},
    )
    del root.links["dashboard"]
    root.deploy().failed(1, "both have the app dashboard", "write a flyte_app for it")


def test_a_control_plane_without_apps_says_so(tmp_path):
    with control_plane(tmp_path / "p", "--project", "flytesnacks", "--apps", "off") as plane:
        root = Apps(tmp_path / "repo", plane)
        root.package_app()
        root.deploy().failed(1, "dashboard: the control plane does not serve apps", "enable")


@pytest.mark.parametrize(
    ("method", "kind"),
    [("Get", "permission_denied"), ("Create", "unavailable"), ("Create", "drop")],
)
def test_faults_on_the_way_are_no_failure(root, plane, method, kind):
    root.package_app(f"{method}-{kind}")
    plane.fault(method, kind)
    root.deploy().ok()
    assert word(app_of(plane)) == f"{method}-{kind}"


def test_who_may_not_deploy_is_told(root, plane):
    root.package_app("forbidden")
    plane.fault("Create", "permission_denied")
    root.deploy().failed(1, "dashboard: you may not do this")


REFUSED = [
    ("app = 3", "services/ml/dashboard.py is of type int once it is imported, and no app"),
    (
        "import flyte\napp = flyte.TaskEnvironment(name='x')",
        "is of type TaskEnvironment once it is imported, and no app",
    ),
    (
        "import flyte.app\napp = flyte.app.AppEnvironment(name='x')",
        "app x has nothing to start: decorate a function",
    ),
    (
        "import flyte.app\napp = flyte.app.AppEnvironment(name='X', args='x')",
        "App name 'X' must consist of lower case",
    ),
    (
        "import flyte.app\napp = flyte.app.AppEnvironment(name='x', args='x', include=['page.html'])",
        "environment x includes 'page.html', and the bundle has no services/ml/page.html",
    ),
    (
        "import flyte.app\np = flyte.app.Parameter(name='m', value=flyte.app.RunOutput(type='file', run_name='r'))\n"
        "app = flyte.app.AppEnvironment(name='x', args='x', parameters=[p])",
        "the value of its parameter 'm' is a RunOutput",
    ),
    (
        "from libs.words import make\napp = make('x')\n@app.server\ndef serve(): pass",
        "app x is made in libs/words.py",
    ),
    (
        f"import flyte.app\napp = flyte.app.AppEnvironment(name='x', args='x', image={BUILT})",
        "an Image that Flyte would have to build",
    ),
]


@pytest.mark.parametrize(("body", "said"), REFUSED)
def test_what_cannot_be_deployed_is_told_before_anything_is_written(root, plane, body, said):
    before = plane.state()["requests"]
    library = "import flyte.app\ndef make(name):\n    return flyte.app.AppEnvironment(name=name)\n"
    image = None if BUILT in body else "registry.example/x:1"
    root.package("dashboard", f"{body}\n", {"libs/words.py": library}, image=image)
    root.make_app("dashboard")
    done = root.deploy().failed(1, "services/ml:dashboard: ", said)
    assert str(root.root) not in done.err
    assert plane.state()["requests"] == before


def test_a_command_of_its_own_is_warned_of(root):
    body = "import flyte.app\napp = flyte.app.AppEnvironment(name='x', command='serve')\n"
    root.package("dashboard", body)
    root.make_app("dashboard")
    assert "Flyte does not unpack the bundle in its container" in root.deploy().ok().err


def test_records_without_apps_are_as_they_were(tmp_path, plane):
    root = Registering(tmp_path / "repo", plane)
    root.package(
        "train",
        "import flyte\nenv = flyte.TaskEnvironment(name='e')\n@env.task\ndef train(): pass\n",
    )
    document = root.deployed()
    [task] = root.version(document["version"])["tasks"]
    assert "kind" not in task["tasks"][0]
    assert set(document["registered"][0]) == {"name", "version", "status"}
    assert json.dumps(document)


# --- removed apps --------------------------------------------------------------------------------


def states(plane):
    return {app["name"]: app["desired"] for app in plane.state()["apps"]}


STOPPED = "DESIRED_STATE_STOPPED"


@pytest.fixture
def two(tmp_path):
    """A deployment of the app `dashboard` and the task `score`, at a control plane of its own."""
    with control_plane(tmp_path / "own", "--project", "flytesnacks") as plane:
        root = Apps(tmp_path / "two", plane)
        root.package_app()
        root.package("score", body("score"))
        yield root


def test_an_app_that_is_removed_is_deactivated_after_the_plan_said_so(two):
    first = two.deployed()
    del two.links["dashboard"]
    told = two.deploy("--dry-run").ok().out
    assert "app services/ml:dashboard  removed" in told
    assert "app dashboard  not in this version: to be deactivated" in told
    assert states(two.plane)["dashboard"] != STOPPED
    done = two.deploy().ok()
    assert "app dashboard is deployed no more: it will be deactivated" in done.err
    assert "app dashboard  not in this version: deactivated" in done.out
    assert states(two.plane)["dashboard"] == STOPPED
    assert "Nothing to do" in two.deploy().ok().out
    # A rollback starts it again, and one forward stops it again.
    two.deploy("rollback", first["version"]).ok()
    assert states(two.plane)["dashboard"] != STOPPED
    back = two.deploy("rollback", "--output", "json").ok().json
    assert back["apps"] == ["dashboard"]
    assert states(two.plane)["dashboard"] == STOPPED


def test_an_app_that_somebody_else_has_now_runs_on(two, tmp_path):
    two.deployed()
    stranger = Apps(tmp_path / "stranger", two.plane)
    stranger.package_app("theirs")
    stranger.deployed()
    del two.links["dashboard"]
    assert two.deployed()["apps"] == []
    assert states(two.plane)["dashboard"] != STOPPED


def test_an_app_that_another_deployment_in_the_store_has_runs_on(two):
    two.deployed()
    two.deploy(plan={"address": "services:other"}).ok()
    del two.links["dashboard"]
    assert two.deployed()["apps"] == []
    assert states(two.plane)["dashboard"] != STOPPED


@pytest.mark.parametrize("method", ["Update", "DeployTask"])
def test_an_app_is_stopped_by_the_next_deployment_if_one_ends_halfway(two, method):
    two.deployed()
    del two.links["dashboard"]
    two.package("score", body("score", 2))
    two.plane.fault(method, "permission_denied", times=9)
    assert two.deploy().code == 1
    two.plane.fault_no_more()
    assert two.deployed()["apps"] == ["dashboard"]
    assert states(two.plane)["dashboard"] == STOPPED


def test_an_app_of_a_deployment_that_ended_halfway_is_stopped_if_it_is_taken_back(tmp_path):
    with control_plane(tmp_path / "own", "--project", "flytesnacks") as plane:
        root = Apps(tmp_path / "two", plane)
        root.package("score", triggered("score"))
        root.deployed()
        root.package_app()
        root.package("score", body("score"))
        plane.fault("UpdateTriggers", "permission_denied", times=9)
        assert root.deploy().code == 1
        plane.fault_no_more()
        assert states(plane)["dashboard"] != STOPPED
        del root.links["dashboard"]
        assert root.deployed()["apps"] == ["dashboard"]
        assert states(plane)["dashboard"] == STOPPED


def test_prune_keeps_what_an_active_app_runs(two):
    first = two.deployed()
    del two.links["dashboard"]
    two.deployed("--no-register")
    prune = ("prune", "--keep", "1", "--older-than", "0", "--output", "json")
    assert two.deploy(*prune).ok().json["versions"] == []
    two.package("score", body("score", 2))
    assert two.deployed()["apps"] == ["dashboard"]
    assert first["version"] in two.deploy(*prune).ok().json["versions"]


def test_prune_works_where_there_are_no_apps(tmp_path):
    with control_plane(tmp_path / "p", "--project", "flytesnacks", "--apps", "off") as plane:
        root = Registering(tmp_path / "repo", plane)
        root.package("score", body("score"))
        root.deployed()
        root.deploy("prune", "--keep", "1", "--older-than", "0").ok()
