"""Goals of Pants that ask about targets or rewrite BUILD files, with ours, in the example."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.build_root import BuildRoot
from tests.support.monorepo import edited, monorepo

DEPLOYMENTS = {
    "services:deploy",
    "services:live@domain=production",
    "services:live@domain=staging",
    "services:release",
    "services/board:deploy",
}
TASKS = {"services/ml:train", "services/ml:fit", "services/etl:pipeline"}
UNTIDY = "flyte_tasks( name = 'all', image=':image',\n  files=['*.py'] )\n"


@pytest.fixture(scope="module")
def root() -> Iterator[BuildRoot]:
    with monorepo() as root:
        yield root


def told(root: BuildRoot, *arguments: str) -> set[str]:
    return set(root.pants(*arguments).stdout.split())


def test_list_filters_by_the_type_of_target(root: BuildRoot) -> None:
    assert told(root, "--filter-target-type=flyte_task", "list", "::") == TASKS
    both = "--filter-target-type=flyte_deployment,flyte_base_image"
    assert told(root, both, "list", "::") == {*DEPLOYMENTS, "images:host"}


def test_peek_shows_fields_as_they_are_written(root: BuildRoot) -> None:
    (task, live) = json.loads(
        root.pants("peek", "services/ml:train", "services:live@domain=staging").stdout
    )[::-1]
    assert task["target_type"] == "flyte_task"
    assert task["entry_point"] == "workflows.py:train"
    assert task["image"] == [":image"]
    assert "services/ml/workflows.py" in task["dependencies"]
    assert live["domain"] == "staging"
    assert set(live["tasks"]) == TASKS


def test_dependencies_and_dependents_follow_each_field(root: BuildRoot) -> None:
    direct = told(root, "dependencies", "services/ml:train")
    assert {"services/ml/workflows.py", "services/ml:image"} <= direct
    assert "libs/features/trend.py" not in direct
    # A module's data, the module, its task, the app, the image for them, and what deploys them.
    found = told(root, "dependents", "--transitive", "data:rides")
    assert {*DEPLOYMENTS, "services/ml:train", "services/ml:image", "services/board:app"} <= found
    assert "services/etl:pipeline" not in found


def test_paths_lead_from_a_deployment_to_a_file(root: BuildRoot) -> None:
    said = root.pants("paths", "--from=services:deploy", "--to=libs/limits:data").stdout
    paths = json.loads(said)
    assert {(path[0], path[-1]) for path in paths} == {
        ("services:deploy", "libs/limits/limits.json:data")
    }
    assert any("services/ml/workflows.py" in path for path in paths)


def test_an_edit_selects_the_deployments_that_it_reaches(root: BuildRoot) -> None:
    with edited(root, "data/rides.csv", "", "\n"):
        found = told(
            root,
            "--changed-since=HEAD",
            "--changed-dependents=transitive",
            "--filter-target-type=flyte_deployment",
            "list",
        )
    assert found == DEPLOYMENTS


def test_build_files_with_our_targets_are_rewritten(root: BuildRoot) -> None:
    """Of all CPythons from 3.7 on, Black might be given one that is too new for it."""
    black = "--black-interpreter-constraints=['CPython>=3.11,<3.14']"
    path = root.path / "services" / "ml" / "BUILD"
    with edited(root, "services/ml/BUILD", "", UNTIDY):
        checked = root.pants(black, "update-build-files", "--check", "::", check=False)
        assert checked.returncode == 1
        assert "services/ml/BUILD" in checked.stderr + checked.stdout
        root.pants(black, "update-build-files", "services/ml:")
        assert 'flyte_tasks(name="all", image=":image", files=["*.py"])' in path.read_text()
        assert "services/ml:all#workflows.env" in told(root, "list", "services/ml:")
