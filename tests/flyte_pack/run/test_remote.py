"""`run path:task -- --remote`: the code as it is goes to Flyte, or what was deployed runs there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from textwrap import dedent

import pytest

from flyte_pack.deploy.records import deployment_key
from flyte_pack.store.file import FileStore
from tests.support.control_plane import control_plane
from tests.support.deploying import BuildRoot
from tests.support.flyte_versions import python_with_flyte
from tests.support.git import git

TASK = """\
    import flyte

    env = flyte.TaskEnvironment(name="ml", image="registry.example/trainer:1")

    @env.task{triggers}
    async def train(n: int, name: str = "a") -> int:
        return n + {value}

    @env.task
    async def score(n: int = 1) -> int:
        return n
"""
HOURLY = "(triggers=(flyte.Trigger(name='hourly', automation=flyte.Cron('0 * * * *')),))"
ADDRESS = "services/ml:train"


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("plane"), "--project", "flytesnacks") as plane:
        plane.outcome("ml.train", outputs={"o0": 42}, logs=["reading"])
        yield plane


class OneStep(BuildRoot):
    """A task that is packaged again by `edit`, and run by `remote`, as the rules would have it."""

    def __init__(self, root, plane):
        super().__init__(root)
        self.plane = plane
        self.home = root / "home"
        self.home.mkdir()
        program = self.dist / "python"
        program.write_text(f'#!/bin/sh\nexec {python_with_flyte()} "$@"\n')
        program.chmod(0o755)
        self.edit(1)

    def edit(self, value, triggers="", **changes):
        self.package("train", dedent(TASK.format(value=value, triggers=triggers)), **changes)

    def plan(self, **changes):
        environment = {
            "python": "python",
            "env": {},
            "identity": "x",
            "tasks": [ADDRESS],
            "known": None,
        }
        given = {
            "endpoint": self.plane.endpoint,
            "insecure": True,
            "environments": [environment],
            **changes,
        }
        return super().plan(**given)

    def remote(self, *typed, plan=None, env=None, address=ADDRESS):
        path = self.plan(**{"address": address, "fixed": [], **(plan or {})})
        return self.run(
            *("run-remote", "--plan", str(path), "--dir", str(self.dist), "--task", ADDRESS),
            *("--", "--remote", "--no-image-check", *typed),
            env={**self.env, **(env or {})},
        )

    def deployed(self, *typed, plan=None):
        path = self.plan(**(plan or {}))
        return self.run(
            *("run-remote", "--plan", str(path), "--dir", str(self.dist), "--task", ADDRESS),
            *("--", "--remote", "--deployed", *typed),
            env=self.env,
        )

    def ship(self, *typed):
        return self.deploy("--no-image-check", *typed, env=self.env).ok()

    @property
    def env(self):
        return {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache")}

    def runs(self):
        """The runs of this test's own code, the oldest first."""
        found = sorted(
            (self.plane.directory / "runs").iterdir(), key=lambda file: file.stat().st_mtime_ns
        )
        return [json.loads(file.read_text()) for file in found]

    def history_of_runs(self):
        place = self.store / deployment_key("flytesnacks", "development", ADDRESS)
        entries = [json.loads(file.read_bytes()) for file in (place / "history").iterdir()]
        return sorted(entries, key=lambda entry: entry["number"])


@pytest.fixture
def root(tmp_path, plane):
    return OneStep(tmp_path / "root", plane)


def archive(run):
    """The bundle that a run's container fetches."""
    return run["command"][run["command"].index("--tgz") + 1]


# --- the code as it is ---------------------------------------------------------------------------


def test_the_code_as_it_is_runs_without_a_deployment_and_after_an_edit_with_the_edit(root, plane):
    tasks = plane.state()["tasks"]
    done = root.remote("--n", "5").ok()
    first = root.runs()[-1]
    assert done.out.splitlines()[0].startswith(f"Run {first['name']}: http")
    assert "reading" in done.out
    assert "42" in done.out.splitlines()[-1]
    root.edit(2)
    root.remote("--n", "5").ok()
    second = root.runs()[-1]
    assert (first["by"], first["task"], first["domain"]) == ("task_spec", "ml.train", "development")
    assert first["version"] != second["version"]
    archives = [root.links["train"].bundle.archive_hash in archive(run) for run in (first, second)]
    assert archives == [False, True]
    # Nothing is registered by that, so no other run gets this code.
    assert plane.state()["tasks"] == tasks


def test_what_is_there_already_is_not_sent_again_and_each_start_is_recorded(root, plane):
    root.remote("--n", "5").ok()
    before = plane.requests("upload")
    root.remote("--n", "6").ok()
    assert plane.requests("upload") == before
    first, second = root.runs()[-2:]
    assert first["version"] == second["version"]
    entries = root.history_of_runs()
    assert [(e["number"], e["action"], e["registered"]) for e in entries] == [
        (1, "run", None),
        (2, "run", None),
    ]
    assert len({entry["version"] for entry in entries}) == 1


def test_a_bundle_that_was_uploaded_a_day_ago_is_uploaded_again(root, plane):
    root.remote("--n", "5").ok()
    before = plane.requests("upload")
    for fact in (root.home / "cache").rglob("*"):
        if fact.is_file():
            os.utime(fact, (1_000_000_000, 1_000_000_000))
    root.remote("--n", "5").ok()
    assert plane.requests("upload") == before + 1


def test_a_record_that_somebody_changed_names_no_place_to_fetch_from(root, plane):
    root.remote("--n", "5").ok()
    place = root.store / deployment_key("flytesnacks", "development", ADDRESS)
    [record] = (place / "versions").iterdir()
    honest = archive(root.runs()[-1])
    evil = honest.replace("uploads/", "uploads/evil/")
    record.chmod(0o644)
    record.write_text(record.read_text().replace(honest, evil))
    [entry] = (place / "history").iterdir()
    entry.unlink()
    root.remote("--repair", "--n", "5").ok()
    assert archive(root.runs()[-1]) == honest


def test_a_store_that_containers_reach_has_the_bundle(root, plane):
    before = plane.requests("upload")
    root.remote("--upload", "store", "--n", "5").ok()
    assert plane.requests("upload") == before
    assert archive(root.runs()[-1]) == f"file://{root.store}/archives/" + (
        f"{root.links['train'].bundle.archive_hash}.tar.gz"
    )


def test_flytes_own_config_is_enough_even_if_only_this_machine_has_the_store(root):
    config = root.home / ".flyte" / "config.yaml"
    config.parent.mkdir()
    config.write_text(f"admin:\n  endpoint: dns:///{root.plane.endpoint}\n  insecure: true\n")
    root.remote("--n", "5", plan={"endpoint": None, "insecure": None}).ok()
    assert root.runs()[-1]["task"] == "ml.train"


def test_what_is_typed_comes_before_the_settings(root):
    root.remote("--domain", "staging", "--n", "5").ok()
    assert root.runs()[-1]["domain"] == "staging"


def test_a_trigger_of_the_code_is_not_registered_by_a_run(root, plane):
    root.edit(3, triggers=HOURLY)
    before = plane.requests("DeployTask")
    root.remote("--n", "5").ok()
    assert plane.requests("DeployTask") == before


def test_a_detached_run_says_its_url_and_no_more(root, plane):
    done = root.remote("--detach", "--n", "5").ok()
    [line] = done.out.splitlines()
    assert root.runs()[-1]["name"] in line


def test_a_run_that_fails_ends_with_1_and_its_message(root, plane):
    plane.outcome("ml.train", error="ValueError: no data for that day", logs=["reading"])
    try:
        done = root.remote("--n", "5").failed(1, "ValueError: no data for that day")
    finally:
        plane.outcome("ml.train", outputs={"o0": 42}, logs=["reading"])
    assert "reading" in done.out


def test_an_environment_takes_the_name_of_the_task_first(root, plane):
    root.edit(1, kind="environment", entry_point="services/ml/train.py:env")
    link = root.links["train"]
    plane.outcome("ml.score", outputs={"o0": 7})
    root.remote("score", "--n", "5").ok()
    assert root.runs()[-1]["task"] == "ml.score"
    assert link.kind == "environment"
    runs = len(root.runs())
    for typed in ((), ("other",), ("--n", "5")):
        root.remote(*typed).failed(2, "which task of the environment?", "score, train")
    assert len(root.runs()) == runs


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (("--n", "x"), 2, "'x' is not a valid integer"),
        (("--m", "1"), 2, "No such option"),
        (("--n", "5", "--detach"), 2, "Type --detach before the inputs of the task."),
        (("--domain", "nowhere", "--n", "5"), 1, "has no domain nowhere, only"),
        (("--endpoint", "localhost:1", "--n", "5"), 1, "cannot be reached"),
        (("--org", "a/b", "--n", "5"), 2, "--org"),
    ],
)
def test_what_cannot_be_run_is_told_and_not_run(root, typed, code, said):
    runs = len(root.runs())
    done = root.remote(*typed).failed(code)
    assert said in done.err + done.out
    assert len(root.runs()) == runs


def test_without_a_control_plane_nothing_is_shipped(root):
    plan = {"endpoint": None, "insecure": None, "environments": []}
    root.remote("--n", "5", plan=plan).failed(1, "no control plane is known: type --endpoint HOST")
    assert not root.store.exists()


# --- prune ---------------------------------------------------------------------------------------


def aged(directory: Path, days: int) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            when = path.stat().st_mtime - days * 86400
            os.utime(path, (when, when))


def versions_of_runs(root):
    place = root.store / deployment_key("flytesnacks", "development", ADDRESS)
    return {path.stem for path in (place / "versions").iterdir()}


def test_prune_drops_what_was_run_long_ago_but_the_last_of_each_task(root):
    for value in (1, 2):
        root.edit(value)
        root.remote("--n", "5").ok()
    first, second = (entry["version"] for entry in root.history_of_runs())
    aged(root.store, 10)
    root.deploy("prune", "--yes", env=root.env).ok()
    assert versions_of_runs(root) == {first, second}
    aged(root.store, 21)
    done = root.deploy("prune", "--yes", "--output", "json", env=root.env).ok().json
    assert done["runs_older_than_days"] == 30
    assert {one["kind"] for one in done["objects"]} == {
        *("history", "record", "index", "archive", "manifest")
    }
    assert versions_of_runs(root) == {second}
    assert [entry["number"] for entry in root.history_of_runs()] == [2]
    # What is left still runs, and the next start takes the next number.
    root.remote("--n", "5").ok()
    assert [entry["number"] for entry in root.history_of_runs()] == [2, 3]
    store = FileStore(str(root.store))
    assert len(list(store.names("archives"))) == 1


def test_prune_keeps_what_was_run_again_lately(root):
    for value in (1, 2, 1):
        root.edit(value)
        root.remote("--n", "5").ok()
        aged(root.store, 20)
    first = root.history_of_runs()[-1]["version"]
    root.deploy("prune", "--yes", env=root.env).ok()
    assert versions_of_runs(root) == {first}


def test_prune_of_a_deployment_leaves_runs_alone(root):
    root.ship()
    root.remote("--n", "5").ok()
    aged(root.store, 2)
    root.deploy("prune", "--keep", "1", "--yes", env=root.env).ok()
    assert len(versions_of_runs(root)) == 1
    root.deployed("--n", "5").ok()


# --- what was deployed ---------------------------------------------------------------------------


def test_what_was_deployed_runs_and_says_what_it_is(root):
    root.ship()
    version = root.history()[-1][1]
    root.edit(2)
    done = root.deployed("--n", "5").ok()
    run = root.runs()[-1]
    assert (run["by"], run["task"]) == ("task_id", "ml.train")
    assert f"runs version {version} of services:deploy, which was deployed just now" in done.err
    assert "from commit unknown" in done.err
    assert "warning: the checkout" in done.err
    assert done.out.startswith("Run ")


def test_an_earlier_version_is_named(root):
    root.ship()
    first = root.history()[-1][1]
    root.edit(2)
    root.ship()
    root.deployed(first[:6], "--n", "5").ok()
    earlier = root.runs()[-1]
    root.deployed("--n", "5").ok()
    assert earlier["version"] != root.runs()[-1]["version"]
    root.deployed("nothing", "--n", "5").failed(1, "there is no version nothing")


def test_a_checkout_of_the_same_commit_gives_no_warning(root):
    (root.root / ".gitignore").write_text("*\n!f\n")
    (root.root / "f").write_text("1")
    git(root.root, "init", "--quiet")
    git(root.root, "add", "f")
    git(root.root, "commit", "--quiet", "--message", "one")
    root.ship()
    done = root.deployed("--n", "5").ok()
    assert "warning" not in done.err
    (root.root / "f").write_text("2")
    assert "(dirty), and may differ from what runs" in root.deployed("--n", "5").ok().err
    git(root.root, "commit", "--all", "--quiet", "--message", "two")
    done = root.deployed("--n", "5").ok()
    assert "warning: the checkout is at commit" in done.err
    assert "leave out --deployed to run the code as it is" in done.err


def test_the_name_of_a_task_may_follow_deployed(root, plane):
    plane.outcome("ml.score", outputs={"o0": 7})
    root.edit(1, kind="environment", entry_point="services/ml/train.py:env")
    root.ship()
    root.deployed("score", "--n", "5").ok()
    assert root.runs()[-1]["task"] == "ml.score"


@pytest.mark.parametrize("version", [None, "v1"])
def test_a_task_whose_name_was_changed_in_the_record_is_not_run(root, version):
    root.edit(1, kind="environment", entry_point="services/ml/train.py:env")
    root.ship(*(("--version", version) if version else ()))
    current = root.history()[-1][1]
    path = root.records() / "versions" / f"{current}.json"
    record = json.loads(path.read_bytes())
    by_name = {one["name"]: one for one in record["tasks"][0]["tasks"]}
    by_name["train"]["flyte_name"], by_name["score"]["flyte_name"] = "ml.score", "ml.train"
    path.chmod(0o644)
    path.write_text(json.dumps(record))
    [entry] = (root.records() / "history").iterdir()
    entry.unlink()
    runs = len(root.runs())
    changed = root.deployed(current, "train", "--n", "5").failed(1)
    assert ("has no such version of the task" in changed.err) or (
        "has another command under that name and version than the record" in changed.err
    )
    assert len(root.runs()) == runs


def test_a_record_that_claims_another_archive_is_not_run(root):
    root.ship("--version", "v2")
    path = root.records() / "versions" / "v2.json"
    record = json.loads(path.read_bytes())
    record["tasks"][0]["bundle"]["content_hash"] = "0" * 64
    path.chmod(0o644)
    path.write_text(json.dumps(record))
    [entry] = (root.records() / "history").iterdir()
    entry.unlink()
    root.deployed("v2", "--n", "5").failed(1, "The record is false")
