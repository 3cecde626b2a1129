"""The example monorepo as a new user would use it: a fresh clone, its `./pants`, and nothing else.

One clone serves all tests, which build on one another no further than that: each brings the code
back to what it was.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyte_pack.manifest import Manifest
from tests.support.a0 import run_a0
from tests.support.build_root import BuildRoot
from tests.support.flyte_env import flyte_python
from tests.support.git import git
from tests.support.monorepo import edited, monorepo

TREND = "libs/features/trend.py"
WORKFLOWS = "services/ml/workflows.py"

BUNDLES = {
    "services.board/app": [
        "data/rides.csv",
        "libs/__init__.py",
        "libs/limits/__init__.py",
        "libs/limits/limits.json",
        "libs/limits/plausible.py",
        "services/__init__.py",
        "services/board/__init__.py",
        "services/board/board.py",
        "services/board/page.html",
    ],
    "services.etl/pipeline": [
        "data/stations.csv",
        "geo/__init__.py",
        "geo/distance.py",
        "libs/__init__.py",
        "libs/limits/__init__.py",
        "libs/limits/limits.json",
        "libs/limits/plausible.py",
        "services/__init__.py",
        "services/etl/__init__.py",
        "services/etl/pipeline.py",
    ],
    "services.ml/train": [
        "data/rides.csv",
        "libs/__init__.py",
        "libs/features/trend.py",
        "libs/limits/__init__.py",
        "libs/limits/limits.json",
        "libs/limits/plausible.py",
        "libs/reporting/__init__.py",
        "libs/reporting/labels.json",
        "libs/reporting/render.py",
        "services/__init__.py",
        "services/ml/__init__.py",
        "services/ml/workflows.py",
    ],
}


@pytest.fixture(scope="module")
def example() -> Iterator[BuildRoot]:
    with monorepo() as root:
        root.pants("package", "::")
        yield root


def content_hashes(root: BuildRoot) -> dict[str, str]:
    return {
        str(path.relative_to(root.path / "dist")): json.loads(path.read_text())["content_hash"]
        for path in sorted((root.path / "dist").glob("services.*/*.manifest.json"))
    }


def archives(root: BuildRoot) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root.path / "dist").glob("services.*/*.gz")}


def everything_in(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Every path below with its inode, size and time of change: any write shows."""
    found = {}
    for path in sorted(directory.rglob("*")):
        stat = path.lstat()
        found[str(path)] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


# --- package -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bundle", sorted(BUNDLES))
def test_a_bundle_lists_exactly_the_closure(example: BuildRoot, bundle: str) -> None:
    listing = subprocess.run(
        ["tar", "tzf", str(example.path / "dist" / f"{bundle}.tar.gz")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert listing.stdout.splitlines() == BUNDLES[bundle]


def test_the_manifest_says_who_brought_each_file(example: BuildRoot) -> None:
    data = (example.path / "dist/services.ml/train.manifest.json").read_bytes()
    files = {f.path: (f.reason, f.by, f.owner) for f in Manifest.from_json(data).files}
    assert files[WORKFLOWS] == ("entry_point", "services/ml:train", WORKFLOWS)
    assert files["libs/reporting/render.py"][:2] == ("imported", WORKFLOWS)
    assert files["libs/reporting/labels.json"][:2] == ("declared", "libs/reporting/render.py")
    assert files["libs/__init__.py"][0] == "package"


def test_a_changed_library_changes_the_bundles_that_reach_it_and_no_other(
    example: BuildRoot,
) -> None:
    before = content_hashes(example)
    with edited(example, TREND, "", "\nCHANGED = True\n"):
        example.pants("package", "::")
        after = content_hashes(example)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"services.ml/fit.manifest.json", "services.ml/train.manifest.json"}
    example.pants("package", "::")
    assert content_hashes(example) == before


def test_touching_a_file_changes_no_archive(example: BuildRoot) -> None:
    before = archives(example)
    os.utime(example.path / TREND, (0, 0))
    example.pants("package", "::")
    assert archives(example) == before


# --- flyte-explain -------------------------------------------------------------------------------


def test_what_is_explained_is_what_ships_and_each_file_has_a_way(example: BuildRoot) -> None:
    told = json.loads(example.pants("flyte-explain", "--format=json", "services::").stdout)
    bundles = {one["address"]: one["files"] for one in told["artifacts"]}
    for bundle, paths in BUNDLES.items():
        files = bundles[bundle.replace("/", ":").replace(".", "/")]
        assert [file["path"] for file in files] == paths
        for file in files:
            assert file["way"][0]["reason"] == "entry_point"
            assert file["way"][-1]["name"] == file["source"]
    assert {one["address"] for one in told["deployments"]} >= {
        "services:deploy",
        "services:release",
    }


def test_scripts_can_ask_whether_something_ships(example: BuildRoot) -> None:
    train = "services/ml:train"
    done = example.pants("flyte-explain", "--why=libs/limits/limits.json", train)
    assert done.stdout.splitlines()[1] == (
        "  services/ml/workflows.py -> libs/limits/plausible.py -> libs/limits/limits.json "
        "[resource, declared]"
    )
    done = example.pants("flyte-explain", "--why=libs/billing/invoice.py", train, check=False)
    assert done.returncode == 1
    assert f"{train} does not have libs/billing/invoice.py: its owner is" in done.stdout


def test_what_a_change_reaches_can_be_explained(example: BuildRoot) -> None:
    with edited(example, TREND, "", "\nCHANGED = True\n"):
        done = example.pants(
            *("--changed-since=HEAD", "--changed-dependents=transitive"),
            *("flyte-explain", "--format=json", "--output-file=told.json"),
        )
    told = json.loads((example.path / "told.json").read_text())
    (example.path / "told.json").unlink()
    addresses = {one["address"] for one in told["artifacts"]}
    assert {"services/ml:train", "services/ml:fit"} <= addresses
    assert done.stdout == ""


# --- run -----------------------------------------------------------------------------------------


def test_a_parent_runs_its_children_and_maps_over_them(example: BuildRoot) -> None:
    done = example.pants("run", "services/ml:train", "--", "--n", "3")
    assert 'o0="Busiest tomorrow: central, 338.0 rides"' in done.stdout
    assert "\x1b" not in done.stdout  # no terminal, no colours
    assert "harbour: 271.7" in done.stdout


def test_an_environment_lets_its_tasks_be_picked(example: BuildRoot) -> None:
    done = example.pants("run", "services/etl:pipeline", "--", "tour", "--longest", "5")
    assert "km" in done.stdout


def test_help_shows_the_inputs_of_the_task(example: BuildRoot) -> None:
    done = example.pants("run", "services/ml:train", "--", "--help")
    assert "--n" in done.stdout
    assert "INTEGER" in done.stdout
    assert "Usage: ./pants run services/ml:train -- [OPTIONS]" in done.stdout


def test_a_wrong_argument_is_refused_as_flyte_refuses_it(example: BuildRoot) -> None:
    done = example.pants("run", "services/ml:train", "--", "--m", "3", check=False)
    assert done.returncode != 0
    assert "No such option" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


# --- deploy --------------------------------------------------------------------------------------


class Deployment:
    """`./pants run services:deploy` with a store of the test's own."""

    def __init__(self, root: BuildRoot, store: Path) -> None:
        self.root = root
        self.store = store

    def __call__(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        store = f"--store=file://{self.store}"
        return self.root.pants("run", "services:deploy", "--", *args, store, check=check)

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "--output", "json").stdout)


@pytest.fixture
def deploy(example: BuildRoot, tmp_path: Path) -> Deployment:
    return Deployment(example, tmp_path / "store")


def test_deploy_again_edit_deploy_list_and_roll_back(
    example: BuildRoot, deploy: Deployment
) -> None:
    first = deploy.json()["version"]
    before = everything_in(deploy.store)

    again = deploy()
    assert "Nothing to do" in again.stdout
    assert everything_in(deploy.store) == before

    with edited(example, TREND, "", "\nCHANGED = True\n"):
        assert deploy.json()["version"] != first

    deploy("rollback", first)
    listed = deploy.json("list")
    assert listed["current"] == first
    assert [entry["action"] for entry in listed["history"]] == ["deploy", "deploy", "rollback"]
    files = {path: facts for path, facts in before.items() if Path(path).is_file()}
    assert files.items() <= everything_in(deploy.store).items()


def test_a_dry_run_writes_nothing(deploy: Deployment) -> None:
    done = deploy("--dry-run")
    assert "nothing was written" in done.stdout
    assert not deploy.store.exists()


def test_the_record_names_the_commit_and_whether_files_were_changed(
    example: BuildRoot, deploy: Deployment
) -> None:
    commit = git(example.path, "rev-parse", "HEAD")
    deploy("--version", "clean")
    with edited(example, WORKFLOWS, "", "\n"):
        deploy("--version", "changed")
    history = deploy.json("list")["history"]
    assert [(e["version"], e["commit"], e["dirty"]) for e in history] == [
        ("clean", commit, False),
        ("changed", commit, True),
    ]


def test_list_show_and_rollback_work_where_the_code_does_not(
    example: BuildRoot, deploy: Deployment
) -> None:
    deploy("--version", "good")
    with edited(example, WORKFLOWS, "", "\ndef broken(:\n"):
        assert deploy(check=False).returncode != 0
        assert "good" in deploy("list").stdout
        assert "services/ml:train" in deploy("show").stdout
        assert "already" in deploy("rollback", "good").stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--copy-style", "none"], "--version"),
        (["--image", "nobody=registry.example.com/x:1"], "nobody"),
        (["--image", "ml=not a uri"], "is not an image"),
        (["--version", "../up"], "version"),
        (["--domain", "production"], "domain"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_what_can_not_be_deployed_is_refused_before_anything_is_written(
    deploy: Deployment, args: list[str], says: str
) -> None:
    done = deploy(*args, check=False)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not deploy.store.exists()


def test_a_version_keeps_its_content(example: BuildRoot, deploy: Deployment) -> None:
    deploy("--version", "v1")
    before = everything_in(deploy.store)
    with edited(example, TREND, "", "\nCHANGED = True\n"):
        done = deploy("--version", "v1", check=False)
    assert done.returncode != 0
    assert "v1" in done.stderr
    assert everything_in(deploy.store) == before


def test_experimental_deploy_reaches_the_same_code(example: BuildRoot, tmp_path: Path) -> None:
    option = f"--flyte-store=file://{tmp_path / 'store'}"
    # Not "::": `services:release` wants a registry and a version.
    done = example.pants(option, "experimental-deploy", "services:deploy")
    assert "services:deploy deployed" in done.stderr
    shown = example.pants(option, "run", "services:deploy", "--", "list", "--output", "json")
    assert len(json.loads(shown.stdout)["history"]) == 1


# --- what the example itself promises ------------------------------------------------------------


def test_its_own_tests_pass(example: BuildRoot) -> None:
    example.pants("test", "::")
    # Also after the edit that its README asks for.
    with edited(example, "libs/reporting/labels.json", "Busiest tomorrow", "Most rides tomorrow"):
        example.pants("test", "libs/tests::")


def test_help_teaches_what_to_write(example: BuildRoot) -> None:
    task = example.pants("help", "flyte_task").stdout
    assert 'entry_point="workflows.py:train"' in task
    assert "flyte_task" in example.pants("help", "flyte").stdout


def test_the_bundle_has_no_member_but_plain_files(example: BuildRoot) -> None:
    for path in (example.path / "dist").glob("services.*/*.tar.gz"):
        with tarfile.open(path) as archive:
            assert all(member.isreg() and member.mtime == 0 for member in archive)


# Last, as the daemon ends when its build root goes away.
def test_the_bundle_runs_without_the_checkout(example: BuildRoot, tmp_path: Path) -> None:
    archive = tmp_path / "pipeline.tar.gz"
    archive.write_bytes((example.path / "dist/services.etl/pipeline.tar.gz").read_bytes())
    clone = example.path.parents[1]
    away = clone.with_name("away")
    clone.rename(away)
    try:
        run = run_a0(
            python=flyte_python(),
            archive=archive,
            module="services.etl.pipeline",
            task="distance",
            inputs={"station": "harbour"},
            directory=tmp_path / "a0",
        )
    finally:
        away.rename(clone)
    assert (run.error, run.value) == (None, 2.9), run.log
