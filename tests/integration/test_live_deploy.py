"""The example for real: into an object store, a registry and a control plane, and then in a
container out of them.

Every step is what a user types. The servers are real ones of this test's own.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.support.a0 import read_outputs, write_inputs
from tests.support.build_root import BuildRoot
from tests.support.containers import DockerEngine
from tests.support.control_plane import RealControlPlane, control_plane
from tests.support.flyte_env import flyte_python
from tests.support.git import git
from tests.support.monorepo import edited, monorepo
from tests.support.object_stores import RealStore, proxied, seaweedfs
from tests.support.registries import RealRegistry, real_registry

STAGING, PRODUCTION = "services:live@domain=staging", "services:live@domain=production"
INTERFACE = """\
    import flyte

    @flyte.TaskEnvironment(name="ml").task
    def fit(station: str, n: int = 5) -> float: ...
    """
LABELS = "libs/reporting/labels.json"


@dataclass(frozen=True)
class Live:
    """The example in a clone, with servers to deploy to."""

    root: BuildRoot
    store: RealStore
    registry: RealRegistry
    plane: RealControlPlane

    def pants(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.root.pants(*args, check=check, env=self.env)

    @property
    def env(self) -> dict[str, str]:
        return self.store.env

    def deploy(self, target: str = STAGING, *typed: str) -> Any:
        done = self.pants("run", target, "--", "--output", "json", *typed)
        return json.loads(done.stdout)

    def tasks(self) -> set[tuple[str, str, str]]:
        return {(t["domain"], t["name"], t["version"]) for t in self.plane.state()["tasks"]}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    top = tmp_path_factory.mktemp("live")
    with ExitStack() as stack:
        registry = stack.enter_context(real_registry(top / "registry"))
        plane = stack.enter_context(control_plane(top / "plane", "--project", "flytesnacks"))
        root = stack.enter_context(monorepo())
        store = seaweedfs()
        settings = root.path / "services" / "live.yaml"
        text = settings.read_text()
        for old, new in (
            ("localhost:8090", plane.endpoint),
            ("localhost:5000", registry.host),
            ("s3://flyte/", f"{store.uri}/live/"),
        ):
            assert old in text
            text = text.replace(old, new)
        settings.write_text(text)
        options = root.path / "pants.toml"
        assert "localhost:5000" in options.read_text()
        options.write_text(options.read_text().replace("localhost:5000", registry.host))
        git(root.path, "commit", "--all", "--quiet", "--message", "Servers")
        yield Live(root, store, registry, plane)


def statuses(document: Any) -> dict[str, str]:
    return {one["name"]: one["status"] for one in document["registered"]}


def versions(document: Any) -> dict[str, str]:
    return {one["name"]: one["version"] for one in document["registered"]}


@pytest.fixture(scope="module")
def first(live: Live) -> Any:
    """What the first deployment said."""
    return live.deploy()


def test_one_command_puts_the_code_the_image_and_the_tasks_where_they_belong(
    live: Live, first: Any
) -> None:
    assert set(statuses(first).values()) == {"new"}
    assert {("staging", name, version) for name, version in versions(first).items()} <= live.tasks()
    repository, _, digest = first["images"][0]["reference"].partition("@")
    assert live.registry.holds(repository.partition("/")[2], digest)
    shown = json.loads(live.pants("run", STAGING, "--", "show", "--output", "json").stdout)
    [fit] = [t for t in shown["record"]["tasks"] if t["address"] == "services/ml:fit"]
    assert fit["image"] == first["images"][0]["reference"]
    checked = live.pants("run", STAGING, "--", "verify").stdout
    assert "missing" not in checked
    assert "damaged" not in checked


def test_the_second_time_there_is_nothing_to_do_and_nothing_is_written(
    live: Live, first: Any
) -> None:
    before = live.plane.state()["requests"]
    with proxied(live.store) as (store, proxy):
        done = live.root.pants("run", STAGING, env={**live.env, "AWS_ENDPOINT_URL": store.endpoint})
        written = [r for r in proxy.requests if r.method not in ("GET", "HEAD")]
    assert "Nothing to do" in done.stdout
    assert written == []
    assert proxy.requests
    assert live.plane.state()["requests"] == before


def test_after_an_edit_of_a_library_only_the_tasks_that_reach_it_get_another_version(
    live: Live, first: Any
) -> None:
    with edited(live.root, LABELS, "Busiest", "Most rides"):
        dry = live.deploy(STAGING, "--dry-run")
        assert live.deploy(STAGING)["version"] == dry["version"]
        after = live.deploy(STAGING)
    assert statuses(dry) == {
        name: "new" if name.startswith("ml.") else "unchanged" for name in versions(first)
    }
    changed = {n for n, version in versions(after).items() if version != versions(first)[n]}
    # `headline` has no target: it goes along with the others of its environment.
    assert changed == {"ml.train", "ml.fit", "ml.headline"}
    assert live.deploy(STAGING)["version"] == first["version"]


def test_each_domain_is_a_deployment_of_its_own(live: Live, first: Any) -> None:
    production = live.deploy(PRODUCTION)
    assert set(versions(production)) == set(versions(first))
    assert not set(versions(production).values()) & set(versions(first).values())
    assert production["store"] != first["store"]
    assert {
        ("production", name, version) for name, version in versions(production).items()
    } <= live.tasks()


def test_a_container_fetches_its_code_from_the_store_through_the_shim_and_completes_the_task(
    live: Live, first: Any, docker: DockerEngine, tmp_path: Path
) -> None:
    shown = json.loads(live.pants("run", STAGING, "--", "show", "--output", "json").stdout)
    [fit] = [t for t in shown["record"]["tasks"] if t["address"] == "services/ml:fit"]
    task = next(one for one in fit["tasks"] if one["name"] == "fit")
    io = tmp_path / "io"
    io.mkdir()
    # Inputs and outputs depend on a task's interface alone; what it imports need not be here.
    (tmp_path / "interface.py").write_text(dedent(INTERFACE))
    python = flyte_python()
    write_inputs(python, tmp_path, "interface", "fit", {"station": "central", "n": 3}, io)
    io.chmod(0o777)
    values = {"input": "/io/inputs.pb", "outputPrefix": "/io", "runName": "r1", "actionName": "a1"}

    def filled(argument: str) -> str:
        hole = re.fullmatch(r"\{\{\.(\w+)\}\}", argument)
        return values.get(hole[1], f"/io/{hole[1]}") if hole else argument

    command = [filled(argument) for argument in task["command"]]
    at = command.index("--run-start-time")
    del command[at : at + 2]
    environment = {
        **live.store.env,
        "FLYTE_SHIM_LOG": "json",
        "FLYTE_INTERNAL_EXECUTION_PROJECT": "flytesnacks",
        "FLYTE_INTERNAL_EXECUTION_DOMAIN": "staging",
        "_U_ORG_NAME": "o",
        "_U_RUN_BASE": "/io/base",
        "DO_NOT_TRACK": "1",
    }
    variables = tmp_path / "variables"
    variables.write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
    docker("pull", "--quiet", fit["image"])
    done = docker(
        *("run", "--rm", "--network", "host", "--volume", f"{io}:/io"),
        *("--env-file", str(variables), fit["image"], *command),
    )
    found = read_outputs(python, tmp_path, "interface", "fit", io)
    assert found["error"] is None, done.stderr
    assert ast.literal_eval(found["value"]) == pytest.approx(338.0)
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"')]
    hashes = {event.get("archive") or event.get("sha256") for event in events}
    assert fit["bundle"]["archive_hash"] in hashes, done.stderr
    for secret in (live.store.env["AWS_SECRET_ACCESS_KEY"], "Signature"):
        assert secret not in done.stderr + done.stdout


def test_flyte_runs_what_was_deployed(live: Live, first: Any) -> None:
    live.plane.outcome("ml.train", outputs={"o0": "well"})
    task = "services/ml:train"
    options = ("--remote", "--deployed", "--deployment", STAGING)
    done = live.pants("run", task, "--", *options, "--n", "3")
    assert "well" in done.stdout + done.stderr
    assert f"runs version {first['version']} of {STAGING}" in done.stderr
    [run] = [r for r in live.plane.state()["runs"] if r["by"] == "task_id"]
    assert run["version"] == versions(first)["ml.train"]
    several = live.pants("run", task, "--", "--remote", "--deployed", "--n", "3", check=False)
    assert several.returncode != 0
    assert "say which by --deployment" in several.stderr


def test_the_code_as_it_is_runs_in_one_step_where_only_the_endpoint_is_known(live: Live) -> None:
    live.plane.outcome("ml.train", outputs={"o0": "well"}, logs=["central: 338.0"])
    command = ("run", "services/ml:train", "--", "--remote", "--n", "3")
    env = {"FLYTE_ADMIN_ENDPOINT": live.plane.endpoint, "FLYTE_ADMIN_INSECURE": "true"}
    registered = live.tasks()
    started = []
    for text in ("Busiest", "Quietest"):
        with edited(live.root, LABELS, "Busiest", text):
            done = live.root.pants(*command, env=env)
        assert "central: 338.0" in done.stdout
        assert "well" in done.stdout
        [run] = [r for r in live.plane.state()["runs"] if r["name"] in done.stdout]
        started.append(run)
    first, second = started
    assert {run["by"] for run in started} == {"task_spec"}
    assert first["version"] != second["version"]
    bundles = []
    for run in started:
        uri = run["command"][run["command"].index("--tgz") + 1]
        with tarfile.open(uri[len("file://") :]) as bundle:
            labels = bundle.extractfile(LABELS)
            assert labels is not None
            bundles.append(labels.read().decode())
    assert ["Quietest" in labels for labels in bundles] == [False, True]
    repository, _, digest = first["image"].partition("@")
    assert live.registry.holds(repository.partition("/")[2], digest)
    assert live.tasks() == registered


def test_help_has_our_options_beside_the_inputs_of_the_task(live: Live) -> None:
    done = live.root.pants("run", "services/ml:train", "--", "--help")
    assert "--deployed [VERSION]" in done.stdout
    assert "--n" in done.stdout


def test_experimental_deploy_ships_what_a_branch_changed_and_its_dry_run_writes_nothing(
    live: Live, first: Any
) -> None:
    changed = ("--changed-since=HEAD", "--changed-dependents=transitive")
    # Of the example's deployments, these two have somewhere to go.
    only = "--filter-address-regex=services:live"
    with edited(live.root, LABELS, "Busiest", "Liveliest"):
        before = live.plane.state()["requests"]
        with proxied(live.store) as (store, proxy):
            env = {**live.env, "AWS_ENDPOINT_URL": store.endpoint}
            dry = live.root.pants("--flyte-dry-run", only, *changed, "experimental-deploy", env=env)
            assert [r for r in proxy.requests if r.method not in ("GET", "HEAD")] == []
        assert dry.stdout.count("Would deploy version") == 2
        assert live.plane.state()["requests"] == before
        done = live.pants(only, *changed, "experimental-deploy")
        assert done.stdout.count("Deployed version") == 2
    nothing = live.pants(only, *changed, "experimental-deploy", check=False)
    assert "No files or targets specified" in nothing.stderr
    for target in (STAGING, PRODUCTION):
        assert live.deploy(target)["deployed"]


def test_a_rollback_makes_an_earlier_version_the_one_that_runs(live: Live, first: Any) -> None:
    with edited(live.root, LABELS, "Busiest", "Fullest"):
        live.deploy(STAGING)
    back = json.loads(
        live.pants("run", STAGING, "--", "rollback", first["version"], "--output", "json").stdout
    )
    assert back["deployed"]
    # The tasks that the edit changed are registered again, so that they are the newest.
    statuses = {one["status"] for one in back["registered"]}
    assert {"again"} <= statuses <= {"again", "present"}
    assert "Nothing to do" in live.pants("run", STAGING).stdout


def test_a_reader_of_the_store_may_look_and_is_refused_to_deploy(live: Live, first: Any) -> None:
    env = {**live.env, **live.store.reader}
    assert first["version"] in live.root.pants("run", STAGING, "--", "list", env=env).stdout
    with edited(live.root, LABELS, "Busiest", "Emptiest"):
        refused = live.root.pants("run", STAGING, env=env, check=False)
    assert refused.returncode != 0
    assert "may not write" in refused.stderr
    assert "Traceback" not in refused.stderr
