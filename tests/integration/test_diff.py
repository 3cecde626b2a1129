"""`--diff` in the example names what an edit changed, and nothing else; with a real `./pants`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bases import base_image, base_platform
from tests.support.build_root import BuildRoot
from tests.support.git import git
from tests.support.monorepo import edited, monorepo

TRAIN = "services/ml:train"
WORKFLOWS = "services/ml/workflows.py"
TREND = "libs/features/trend.py"
LOCK = "3rdparty/python/default.lock"
IMAGE = 'flyte_image(name="limits", base="images:pinned", dependencies=["libs/limits"], code=True)'

# An image on a base that nobody has: packaging needs no layer of it.
MORE = {
    "images/BUILD": """
        flyte_base_image(name="pinned", image="docker.io/library/python:3.12-slim")
        """,
    "images/pinned.lock.json": base_image().to_json().decode(),
    "services/BUILD": f"\n{IMAGE}\n",
}
OTHER_BASE = base_image(
    base_platform(layers=("debian", "newer python"), Env=["PYTHON_VERSION=3.12.8"])
)


@pytest.fixture(scope="module")
def example() -> Iterator[BuildRoot]:
    """What was packaged before any edit is in `old/`, which git ignores."""
    with monorepo(MORE) as root:
        root.pants("package", TRAIN, "services:limits")
        shutil.copytree(root.path / "dist", root.path / "dist" / "old")
        yield root


def difference(example: BuildRoot, old: str, target: str) -> dict[str, Any]:
    """What differs, without what is empty."""
    done = example.pants("flyte-explain", f"--diff={old}", "--format=json", target)
    (told,) = json.loads(done.stdout)["differences"]
    found = {
        key: told[key] for key in ("added", "removed", "changed", "packages", "layers", "settings")
    }
    edges = {f"{key} dependencies": value for key, value in told["dependencies"].items()}
    return {key: value for key, value in {**found, **edges}.items() if value}


def paths(groups: list[dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
    return [
        (one["by"]["from"], one["by"]["to"], [file["path"] for file in one["files"]])
        for one in groups
    ]


OLD = "dist/old/services.ml/train.manifest.json"


def test_nothing_differs_before_an_edit(example: BuildRoot) -> None:
    assert difference(example, OLD, TRAIN) == {}


def test_a_line_that_goes_takes_files_along(example: BuildRoot) -> None:
    line = "    from libs.reporting.render import headline as render  # only this task needs it\n"
    with edited(example, WORKFLOWS, line, ""):
        found = difference(example, OLD, TRAIN)
    assert set(found) == {"removed", "changed"}
    assert paths(found["removed"]) == [
        (
            WORKFLOWS,
            "libs/reporting/render.py",
            [
                "libs/reporting/__init__.py",
                "libs/reporting/labels.json",
                "libs/reporting/render.py",
            ],
        )
    ]
    assert [file["path"] for file in found["changed"]] == [WORKFLOWS]


def test_a_dependency_that_comes_brings_files(example: BuildRoot) -> None:
    with edited(example, TREND, "", "\nimport libs.billing.invoice\n"):
        found = difference(example, OLD, TRAIN)
    assert set(found) == {"added", "changed"}
    assert paths(found["added"]) == [
        (TREND, "libs/billing/invoice.py", ["libs/billing/__init__.py", "libs/billing/invoice.py"])
    ]
    assert [file["path"] for file in found["changed"]] == [TREND]


def test_a_newer_numpy_is_all_that_differs(example: BuildRoot) -> None:
    lock = (example.path / LOCK).read_text()
    (pin,) = (line.split()[0] for line in lock.splitlines() if "numpy==" in line and ">=" in line)
    with edited(example, LOCK, pin, "numpy==9.9.9"):
        found = difference(example, OLD, TRAIN)
    (numpy,) = found.pop("packages")
    assert found == {}
    assert numpy["name"] == "numpy"
    assert numpy["after"].endswith("9.9.9")
    assert numpy["needed_by"] == [TREND]


def test_another_base_is_told_by_its_layers_and_settings(example: BuildRoot) -> None:
    lock = Path("images/pinned.lock.json")
    before = (example.path / lock).read_text()
    with edited(example, str(lock), before, OTHER_BASE.to_json().decode()):
        found = difference(example, "dist/old/services/limits", "services:limits")
    assert set(found) == {"layers", "settings"}
    assert [one["after"]["what"] for one in found["layers"]] == ["base"]
    assert {one["name"] for one in found["settings"]} == {"base", "env PATH", "env PYTHON_VERSION"}


def test_a_revision_of_git_is_explained_by_a_pants_of_its_own(example: BuildRoot) -> None:
    before = git(example.path, "status", "--porcelain")
    line = "    from libs.reporting.render import headline as render  # only this task needs it\n"
    with edited(example, WORKFLOWS, line, ""):
        found = difference(example, "HEAD", TRAIN)
    assert set(found) == {"removed", "changed"}
    ((of, to, _),) = paths(found["removed"])
    assert (of, to) == (WORKFLOWS, "libs/reporting/render.py")
    assert [file["path"] for file in found["changed"]] == [WORKFLOWS]
    assert git(example.path, "status", "--porcelain") == before
    done = example.pants("flyte-explain", "--diff=no-such", TRAIN, check=False)
    assert done.returncode == 1
    assert "no-such is no revision of git here, no file, and no address of a target" in done.stderr


def test_the_report_has_what_differs_from_a_deployed_version(
    example: BuildRoot, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    example.pants("run", "services:deploy", "--", "--version", "before")
    line = "    from libs.reporting.render import headline as render  # only this task needs it\n"
    form = ("--format=html", f"--output-file={report}", "services:deploy")
    with edited(example, WORKFLOWS, line, ""):
        done = example.pants("flyte-explain", "--diff=version:before", *form)
    assert done.stdout == ""
    data = report.read_text().partition('id="data">')[2].partition("</script>")[0]
    told = json.loads(data)
    assert {one["address"] for one in told["artifacts"]} >= {TRAIN, "services/etl:pipeline"}
    (train,) = (one for one in told["differences"] if one["address"] == TRAIN)
    ((of, to, _),) = paths(train["removed"])
    assert (told["old"], of, to) == ("version:before", WORKFLOWS, "libs/reporting/render.py")
    report.unlink()
    done = example.pants("flyte-explain", "--diff=version:nope", *form, check=False)
    assert done.returncode == 1
    assert "there is no version nope" in done.stderr
    assert not report.exists()
