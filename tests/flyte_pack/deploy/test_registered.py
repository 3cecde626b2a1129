"""Deployments that register their tasks: the deploy program, a real control plane, and the real Flyte in between."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from flyte_pack.deploy.records import VersionRecord
from flyte_shim.hashing import sha256_bytes, sha256_file
from tests.support.control_plane import control_plane
from tests.support.deploying import snapshot
from tests.support.fake_secrets import FAKES
from tests.support.registering import Registering, body, versions


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("plane"), "--project", "flytesnacks") as plane:
        yield plane


@pytest.fixture
def root(tmp_path, plane):
    # Each test has a domain's tasks for itself: versions depend on the store, and so on the directory.
    root = Registering(tmp_path / "repo", plane)
    root.package("train", body("train"))
    root.package("score", body("score"))
    return root


def in_flyte(plane):
    return {(task["name"], task["version"]) for task in plane.state()["tasks"]}


def test_every_task_is_registered_under_its_version_with_the_bundle_that_is_in_the_store(
    root, plane
):
    document = root.deployed()
    assert document["control_plane"] == plane.endpoint
    assert set(versions(document)) == {"train-env.train", "score-env.score"}
    assert set(versions(document).items()) <= in_flyte(plane)
    record = root.version(document["version"])
    for task in record["tasks"]:
        [one] = task["tasks"]
        assert versions(document)[one["flyte_name"]] == one["version"]
        archive = f"file://{root.store}/{task['bundle']['archive']}"
        assert one["command"][one["command"].index("--tgz") + 1] == archive
        assert one["command"][one["command"].index("--version") + 1] == one["version"]
    entry = json.loads((root.records() / "history" / "1.json").read_bytes())
    assert entry["registered"] == plane.endpoint


def test_a_secret_in_a_variable_is_refused_or_allowed(root, plane):
    token = FAKES["github-token"][0].partition(" ")[2]
    computed = f"{token[:9]!r} + {token[9:]!r}"
    root.package("train", body("train", more=f", env_vars={{'GH': {computed}}}"))
    refused = root.deploy()
    assert refused.code == 1
    assert "services/ml:train: task train-env.train: its variable GH: github-token" in refused.err
    assert '`allow_secrets=["env:NAME"]` of the target' in refused.err
    assert not root.store.exists() or not root.history()
    warned = root.deploy(plan={"secrets": "warn"}).ok()
    assert "warning: services:deploy: everyone who may see its tasks" in warned.err
    assert token[9:20] not in refused.err + warned.err
    root.package("train", body("train", 2, more=f", env_vars={{'GH': {computed}}}"))
    for plan in ({"allowed_variables": ["GH"]}, {"secrets": "ignore"}):
        assert "everyone" not in root.deploy(plan=plan).ok().err


def test_a_target_allows_a_variable_of_its_own_tasks(root, plane):
    token = FAKES["github-token"][0].partition(" ")[2]
    more = f", env_vars={{'GH': {token[:9]!r} + {token[9:]!r}}}"
    root.link("score", replace(root.package("score", body("score", more=more)), allowed_variables=("GH",)))  # fmt: skip
    train = root.package("train", body("train", more=more))
    refused = root.deploy()
    assert "services/ml:train: task train-env.train: its variable GH" in refused.err
    assert "score-env" not in refused.err
    root.link("train", replace(train, allowed_variables=("GH", "OTHER")))
    said = root.deploy().ok().err
    assert "everyone" not in said
    assert (
        "warning: services/ml:train: `allow_secrets` has 'env:OTHER', which allows nothing: no "
        "variable of that name holds what looks like a secret"
    ) in said
    assert "'env:GH'" not in said


def test_a_second_run_asks_nothing_of_flyte_and_imports_nothing(root, plane):
    root.deploy().ok()
    before, files = plane.state()["requests"], snapshot(root.store)
    # A Python that can do nothing: the tasks can't be imported any more.
    (root.dist / "python").write_text("#!/bin/sh\nexit 9\n")
    done = root.deploy().ok()
    assert "Nothing to do" in done.out
    assert plane.state()["requests"] == before
    assert snapshot(root.store) == files


def noted_starts(root):
    """The file that notes each process of the tasks' Python, as "PID ROLE"."""
    noted, program = root.root / "started", root.dist / "python"
    program.write_text(
        program.read_text().replace(
            "exec ", f'for role; do :; done\necho "$$ $role" >> {noted}\nexec '
        )
    )
    return noted


def test_flyte_is_imported_ahead_unless_all_of_it_was_deployed_before(root):
    noted = noted_starts(root)
    # What is wrong with the store is found before anything is asked of Flyte.
    root.deploy("--store", "file:///dev/null/store").failed(1, "/dev/null/store")
    started = [line.split() for line in noted.read_text().splitlines()]
    assert {role for _, role in started} <= {"describe", "client"}
    assert not [pid for pid, _ in started if Path(f"/proc/{pid}").exists()]
    (root.dist / "python").rename(root.dist / "aside")
    root.deploy("--store", "file:///dev/null/store").failed(1, "/dev/null/store")
    (root.dist / "aside").rename(root.dist / "python")
    noted.write_text("")
    root.deploy().ok()
    assert sorted(line.split()[1] for line in noted.read_text().splitlines()) == [
        *("client", "describe", "describe")  # one for each of two bundles
    ]
    noted.write_text("")
    assert "Nothing to do" in root.deploy().ok().out
    assert noted.read_text() == ""


def test_the_same_files_by_other_dependencies_are_described_and_registered_by_nobody(root, plane):
    noted = noted_starts(root)
    root.deploy().ok()
    before, files = plane.state()["requests"], snapshot(root.store)
    noted.write_text("")
    root.redescribe("train", "libs:other")
    assert "Nothing to do" in root.deploy().ok().out
    assert noted.read_text() == ""
    assert plane.state()["requests"] == before
    assert snapshot(root.store) == files


def test_another_machine_believes_no_history_that_the_tasks_are_registered(root, plane, tmp_path):
    document = root.deployed()
    count = plane.requests("DeployTask")
    other = {"XDG_CACHE_HOME": str(tmp_path / "other")}
    again = root.deploy("--output", "json", env=other).ok().json
    assert (again["version"], again["history"]) == (document["version"], 1)
    # Flyte is asked, and has them.
    assert plane.requests("DeployTask") == count
    assert {one["status"] for one in again["registered"]} == {"present"}
    asked = plane.state()["requests"]
    root.deploy(env=other).ok()
    assert plane.state()["requests"] == asked


def test_a_record_that_claims_other_specifications_for_the_same_inputs_is_not_kept(root, plane):
    document = root.deployed()
    path = root.records() / "versions" / f"{document['version']}.json"
    forged = VersionRecord.from_json(path.read_bytes())
    tasks = tuple(
        dataclasses.replace(
            task, tasks=tuple(dataclasses.replace(one, spec="0" * 64) for one in task.tasks)
        )
        for task in forged.tasks
    )
    forged = dataclasses.replace(forged, tasks=tasks, version="forged")
    data = forged.to_json()
    (path.parent / "forged.json").write_bytes(data)
    entry = json.loads((root.records() / "history" / "1.json").read_bytes())
    entry.update(number=2, version="forged", record=sha256_bytes(data))
    (root.records() / "history" / "2.json").write_text(json.dumps(entry))
    again = root.deployed()
    assert (again["version"], again["history"]) == (document["version"], 3)
    assert versions(again) == versions(document)


def test_only_what_changed_is_registered_anew(root, plane):
    first = versions(root.deployed())
    count = plane.requests("DeployTask")
    root.package("score", body("score", 2))
    second = root.deployed()
    assert versions(second)["train-env.train"] == first["train-env.train"]
    assert versions(second)["score-env.score"] != first["score-env.score"]
    assert {one["name"]: one["status"] for one in second["registered"]} == {
        "train-env.train": "unchanged",
        "score-env.score": "new",
    }
    assert plane.requests("DeployTask") == count + 1


def test_what_has_not_changed_is_not_imported_again(root, plane):
    first = root.deployed()
    (root.root / "imported").mkdir()
    # Each import leaves a mark behind, which is no part of what is registered.
    mark = f"open({str(root.root)!r} + '/imported/' + __name__.rpartition('.')[2], 'w')\n"
    root.package("train", mark + body("train"))
    root.package("score", mark + body("score"))
    second = root.deployed()
    assert sorted(os.listdir(root.root / "imported")) == ["score", "train"]
    shutil.rmtree(root.root / "imported")
    (root.root / "imported").mkdir()
    root.package("score", mark + body("score", 3))
    third = root.deployed()
    assert os.listdir(root.root / "imported") == ["score"]
    assert versions(third)["train-env.train"] == versions(second)["train-env.train"]
    assert len({versions(d)["score-env.score"] for d in (first, second, third)}) == 3
    assert set(versions(third).items()) <= in_flyte(plane)


def test_a_dry_run_imports_the_tasks_and_touches_nothing(root, plane, tmp_path):
    cache = root.root / ".cache"  # of its user, where what was compiled is kept
    cache.mkdir()
    before, requests = snapshot(tmp_path), plane.state()["requests"]
    document = root.deploy("--dry-run", "--output", "json").ok().json
    assert {one["status"] for one in document["registered"]} == {"new"}
    assert plane.state()["requests"] == requests
    plan = root.dist / "__deploy_plan.json"
    changed = {p for p, s in snapshot(tmp_path).items() if before.get(p) != s}
    assert {p for p in changed if not p.startswith(str(cache))} <= {str(plan), str(root.dist)}
    assert os.listdir(cache / "pants-flyte") == ["bytecode"]
    root.deploy().ok()
    assert set(versions(document).items()) <= in_flyte(plane)


def test_a_broken_import_is_told_before_anything_is_written_or_registered(root, plane, tmp_path):
    requests = plane.state()["requests"]
    root.package("train", "import flyte\n\nimport libs.fetures\n" + body("train"))
    done = root.deploy().failed(
        1, "services/ml:train", "services/ml/train.py", "line 3", "imports libs"
    )
    assert "Traceback" not in done.err
    assert plane.state()["requests"] == requests
    assert not root.store.exists()


def test_what_went_through_before_a_failure_is_told_and_the_next_run_does_the_rest(root, plane):
    root.package("other", body("other"))
    plane.fault("DeployTask", "permission_denied", times=1)
    done = root.deploy().failed(1, "you may not do this")
    assert root.records().joinpath("versions").exists()
    assert not root.records().joinpath("history").exists()
    through = {line.split()[1] for line in done.err.splitlines() if line.startswith("registered")}
    assert 0 < len(through) < 3
    document = root.deployed()
    assert {one["name"] for one in document["registered"] if one["status"] == "present"} == through
    assert set(versions(document).items()) <= in_flyte(plane)
    assert [action for action, _ in root.history()] == ["deploy"]


def test_an_answer_that_is_lost_is_no_failure(root, plane):
    plane.fault("DeployTask", "drop", times=1)
    document = root.deployed()
    assert set(versions(document).items()) <= in_flyte(plane)


def test_a_rollback_registers_what_was_recorded_even_where_flyte_never_saw_it(
    root, plane, tmp_path
):
    first = root.deployed()
    root.package("score", body("score", 2))
    root.deploy().ok()
    with control_plane(tmp_path / "other", "--project", "flytesnacks") as other:
        plan = {"endpoint": other.endpoint}
        done = root.deploy("rollback", first["version"], "--output", "json", plan=plan).ok()
        assert in_flyte(other) == set(versions(first).items())
        assert {one["status"] for one in done.json["registered"]} == {"new"}
    assert root.history()[-1] == ("rollback", first["version"])


def test_what_was_only_stored_is_registered_later_under_the_same_explicit_version(root, plane):
    root.deploy("--version", "r1", "--no-register").ok()
    document = root.deploy("--version", "r1", "--output", "json").ok().json
    assert versions(document) == {"train-env.train": "r1", "score-env.score": "r1"}
    assert {("train-env.train", "r1"), ("score-env.score", "r1")} <= in_flyte(plane)
    assert root.history() == [("deploy", "r1"), ("deploy", "r1")]
    assert "Nothing to do" in root.deploy("--version", "r1").ok().out


def test_another_control_plane_gets_the_tasks_too(root, plane, tmp_path):
    first = root.deployed()
    with control_plane(tmp_path / "other", "--project", "flytesnacks") as other:
        second = root.deploy("--output", "json", plan={"endpoint": other.endpoint}).ok().json
        assert second["version"] == first["version"]
        assert in_flyte(other) == set(versions(first).items())


def test_the_domain_that_modules_ask_for_is_the_deployments_and_specs_differ_by_it(root, plane):
    root.package("train", body("train", more=', env_vars={"D": flyte.current_domain()}'))
    documents = [
        root.deploy("--output", "json", plan={"domain": domain}).ok().json
        for domain in ("development", "staging")
    ]
    names = [versions(document)["train-env.train"] for document in documents]
    assert names[0] != names[1]
    found = {
        task["domain"]: task
        for task in plane.state()["tasks"]
        if task["name"] == "train-env.train" and task["version"] in names
    }
    assert set(found) == {"development", "staging"}


@pytest.mark.parametrize(
    ("given", "env", "changes"),
    [
        (["STAGE=one"], {}, True),
        (["STAGE"], {"STAGE": "one"}, True),
        (["STAGE"], {}, False),
        ([], {"STAGE": "one"}, False),
    ],
)
def test_modules_see_of_the_environment_what_they_are_given_and_it_counts(
    root, given, env, changes
):
    more = ', env_vars={"S": __import__("os").environ.get("STAGE", "none")}'
    root.package("train", body("train", more=more))
    before = versions(root.deployed())
    plan = {"import_env": given}
    after = versions(root.deploy("--output", "json", plan=plan, env=env).ok().json)
    assert (after["train-env.train"] != before["train-env.train"]) == changes
    assert after["score-env.score"] == before["score-env.score"]


def test_packages_that_change_no_specification_change_no_version(root, plane):
    before = root.deployed()
    tasks = sorted(link.address for link in root.links.values())
    environment = {
        "python": "python",
        "env": {},
        "identity": "packages-2",
        "known": None,
        "tasks": tasks,
    }
    after = root.deploy("--output", "json", plan={"environments": [environment]}).ok().json
    assert (after["version"], versions(after)) == (before["version"], versions(before))
    assert not after["writes"]


def test_two_targets_that_are_one_task_of_flytes_must_be_the_same(root):
    root.package("twin", body("train", 7))
    link = root.links["twin"]
    entry = link.entry_point.replace(":twin", ":train")
    tasks = (dataclasses.replace(link.tasks[0], name="train"),)
    root.link("twin", dataclasses.replace(link, entry_point=entry, tasks=tasks))
    root.deploy().failed(1, "services/ml:train", "services/ml:twin", "train-env.train")


def test_a_runs_children_are_found_under_its_own_version(root, plane):
    """A child is looked up under the version of its parent, in Flyte's pages for one."""
    score = body("score")
    head = "from services.ml.score import env as child\n"

    def train(value):
        source = head + body("train", value, more=", depends_on=[child]")
        root.package("train", source, {"services/ml/score.py": score})

    train(1)
    root.package("other", body("other"))
    first = root.deployed()
    one = versions(first)
    assert one["train-env.train"] == one["score-env.score"] != one["other-env.other"]
    assert set(one.items()) <= in_flyte(plane)
    assert "Nothing to do" in root.deploy().ok().out
    train(2)
    two = versions(root.deployed())
    assert two["train-env.train"] == two["score-env.score"] != one["score-env.score"]
    assert two["other-env.other"] == one["other-env.other"]
    root.deploy("rollback").ok()
    again = f"{one['train-env.train']}.again2"
    assert {("train-env.train", again), ("score-env.score", again)} <= in_flyte(plane)
    assert root.deploy("list", "--output", "json").ok().json["broken"] == 0


STARTS = """\
import flyte

env = flyte.TaskEnvironment(name="train-env")

@env.task(triggers=flyte.Trigger(name="hourly", automation=flyte.Cron("0 * * * *")))
async def fit(x: int = 1) -> int:
    return x

@env.task
async def train(x: int = {value}) -> int:
    return await fit(x)
"""


def test_what_a_task_starts_is_registered_under_its_version(tmp_path):
    with control_plane(tmp_path / "own", "--project", "flytesnacks") as plane:
        root = Registering(tmp_path / "repo", plane)
        for value in (1, 2):
            root.package("train", STARTS.format(value=value))
            document = root.deployed()
            there = versions(document)
            assert there.keys() == {"train-env.train", "train-env.fit"}
            assert there["train-env.train"] == there["train-env.fit"]
            assert set(there.items()) <= in_flyte(plane)
            assert plane.firing == {}
            assert "Nothing to do" in root.deploy().ok().out
        root.deploy("rollback").ok()
        [latest] = set(plane.latest.values())
        assert latest.endswith(".again2")


POOL = """\
import flyte

env = flyte.TaskEnvironment(
    name="pool", image="registry.example/trainer:1", reusable=flyte.ReusePolicy(replicas=1)
)
"""


def test_an_environment_whose_containers_are_reused_has_one_bundle(root, plane):
    def source(name):
        head = "from services.ml.envs import env\n\n@env.task\n"
        return f"{head}async def {name}(x: int = 1) -> int:\n    return x\n"

    files = {f"services/ml/{name}.py": source(name) for name in ("train", "score")}
    files["services/ml/envs.py"] = POOL
    for name in ("train", "score"):
        root.package(name, source(name), {"services/ml/envs.py": POOL})
    root.deploy().failed(
        1, "services/ml:score", "services/ml:train", "environment pool", "`bundle` of both targets"
    )
    del files["services/ml/train.py"]
    train = root.package("train", source("train"), files)
    root.link("score", dataclasses.replace(root.links["score"], bundle=train.bundle))
    document = root.deployed()
    pools = {
        task["request"]["spec"]["taskTemplate"]["custom"]["version"]
        for task in plane.state()["tasks"]
        if (task["name"], task["version"]) in versions(document).items()
    }
    assert len(pools) == 1


@pytest.mark.parametrize(
    ("plan", "config", "env"),
    [
        ({"endpoint": None}, "config.yaml", {}),
        ({"endpoint": None}, ".flyte/config.yaml", {}),
        ({"endpoint": None}, "elsewhere.yaml", {"FLYTECTL_CONFIG": "elsewhere.yaml"}),
        ({"endpoint": None, "flyte_config": "elsewhere.yaml"}, "elsewhere.yaml", {}),
    ],
)
def test_flytes_own_settings_say_where_it_is_too(root, plane, plan, config, env):
    path = root.root / config
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"admin:\n  endpoint: dns:///{plane.endpoint}\n  insecure: true\n")
    document = root.deploy("--output", "json", plan={"insecure": None, **plan}, env=env).ok().json
    assert document["control_plane"] == plane.endpoint
    assert set(versions(document).items()) <= in_flyte(plane)


@pytest.mark.parametrize(
    "typed", [("--no-register",), ("--no-register", "--endpoint", "flyte.example.com")]
)
def test_nothing_is_registered_where_that_is_not_wanted(root, plane, typed):
    before = plane.state()["requests"]
    document = root.deploy(*typed, "--output", "json").ok().json
    assert (document["control_plane"], document["registered"]) == (None, [])
    assert plane.state()["requests"] == before


@pytest.mark.parametrize("named", [{}, {"endpoint": "localhost:1"}])
def test_a_users_own_settings_send_no_directory_of_this_machine_to_others(root, named):
    (root.root / "config.yaml").write_text("admin:\n  endpoint: dns:///flyte.example.com\n")
    done = root.deploy(plan={"endpoint": None, **named})
    if named:
        done.failed(1, "localhost:1")
    else:
        assert "not registered at flyte.example.com" in done.ok().err
        assert "Deployed version" in done.out


def test_somebodys_config_file_that_is_not_flytes_is_none(root):
    (root.root / "config.yaml").write_text("endpoint: nowhere\n")
    document = root.deploy("--output", "json", plan={"endpoint": None}).ok().json
    assert document["control_plane"] is None


def test_an_unreachable_control_plane_leaves_a_version_that_the_next_run_registers(root, plane):
    done = root.deploy("--endpoint", "localhost:1").failed(1, "localhost:1")
    assert not root.store.exists()
    assert "Traceback" not in done.err
    # One that goes away in the middle.
    plane.fault("DeployTask", "unavailable", times=1000)
    root.deploy().failed(1, "cannot be reached")
    assert os.listdir(root.records()) == ["versions"]
    plane.fault_no_more()
    root.deploy().ok()
    assert len(root.history()) == 1


# --- through Flyte's data proxy ------------------------------------------------------------------


def test_who_may_not_write_to_a_bucket_ships_through_flytes_data_proxy(root, plane):
    document = root.deploy("--upload", "flyte", "--output", "json").ok().json
    for task in root.version(document["version"])["tasks"]:
        [one] = task["tasks"]
        uri = one["command"][one["command"].index("--tgz") + 1]
        assert uri == task["code_uri"]
        assert not uri.startswith(f"file://{root.store}")
        assert uri.endswith(f"/{task['bundle']['archive_hash']}.tar.gz")
        assert "?" not in uri
        uploaded = Path(unquote(urlsplit(uri).path))
        assert sha256_file(str(uploaded)) == task["bundle"]["archive_hash"]
    assert set(versions(document).items()) <= in_flyte(plane)
    before = plane.state()["requests"]
    again = root.deploy("--upload", "flyte").ok()
    assert "Nothing to do" in again.out
    assert plane.state()["requests"] == before


def test_what_was_uploaded_serves_the_same_files_by_other_dependencies(root, plane):
    root.deploy("--upload", "flyte").ok()
    before = plane.state()["requests"]
    root.redescribe("train", "libs:other")
    assert "Nothing to do" in root.deploy("--upload", "flyte").ok().out
    assert plane.state()["requests"] == before


def test_a_dry_run_uploads_nothing(root, plane):
    before = plane.state()["requests"]
    done = root.deploy("--upload", "flyte", "--dry-run").ok()
    assert "will be others" in done.err
    assert plane.state()["requests"] == before


def test_uploading_takes_a_control_plane(root):
    root.deploy("--upload", "flyte", "--no-register").failed(1, "--endpoint")


def test_a_rollback_finds_what_was_uploaded(root):
    first = root.deploy("--upload", "flyte", "--output", "json").ok().json
    root.package("score", body("score", 5))
    root.deploy("--upload", "flyte").ok()
    root.deploy("rollback", first["version"]).ok()
    assert root.history()[-1] == ("rollback", first["version"])
