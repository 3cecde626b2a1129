"""docs/ci-cd.md, block by block, in a repository with a history."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.build_root import CHECKOUT, BuildRoot, clean_environment
from tests.support.git import git

PAGE = (CHECKOUT / "docs" / "ci-cd.md").read_text()
TASK = """\
import flyte

env = flyte.TaskEnvironment(name="{name}")


@env.task
def {name}() -> int:
    return {value}
"""


def block(section: str, language: str = "bash") -> str:
    text = PAGE.partition(f"## {section}\n")[2] if section else PAGE
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)
    assert found
    return found[1]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[BuildRoot]:
    root = BuildRoot.create(tmp_path / "root", ["/"], more=f"\n{block('', 'toml')}")
    root.write(
        {
            "pants": f'#!/bin/sh\nexec {CHECKOUT}/pants "$@"\n',
            "services/BUILD": block("", "python"),
            "services/one.py": TASK.format(name="one", value=1),
            "services/two.py": TASK.format(name="two", value=1),
            ".gitignore": "/dist/\n/.pants.d/\n/.pids/\n",
        }
    )
    (root.path / "pants").chmod(0o755)
    git(root.path, "init", "-q")
    yield root
    root.stop()


def commit(root: BuildRoot) -> str:
    git(root.path, "add", "-A")
    git(root.path, "commit", "-qm", "x")
    return git(root.path, "rev-parse", "HEAD")


def run(root: BuildRoot, section: str, base: str = "") -> str:
    done = subprocess.run(
        ["bash", "-ec", block(section)],
        cwd=root.path,
        env=clean_environment(BASE=base),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{section}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def reports(root: BuildRoot) -> dict[str, Any]:
    found = {}
    for file in (root.path / "dist" / "reports").iterdir():
        found[file.name] = json.loads(file.read_bytes())
        file.unlink()
    return found


STAGING, PRODUCTION = (
    f"deploy.services.deploy@@domain={domain}.json" for domain in ("staging", "production")
)


def test_the_page_from_a_pull_request_to_production_and_back(root: BuildRoot) -> None:
    base = commit(root)
    root.write({"services/one.py": TASK.format(name="one", value=2)})
    first = commit(root)
    assert "Would deploy version" in run(root, "On a pull request", base)
    run(root, "After a merge", base)
    made = reports(root)
    assert list(made) == [STAGING]
    assert made[STAGING]["deployed"]

    run(root, "Into production")
    promoted = reports(root)[PRODUCTION]
    assert promoted["from"] == f"flytesnacks/staging {made[STAGING]['version']}"
    assert {one["status"] for one in promoted["bundles"]} == {"unchanged"}

    root.write({"services/two.py": TASK.format(name="two", value=2)})
    second = commit(root)
    run(root, "After a merge", first)
    changed = {one["address"]: one["status"] for one in reports(root)[STAGING]["tasks"]}
    assert changed == {"services:tasks#one.env": "unchanged", "services:tasks#two.env": "changed"}

    root.write({"README": "no code"})
    commit(root)
    assert "Deployed" not in run(root, "After a merge", second)

    run(root, "Into production")
    reports(root)
    root.write({"services/one.py": "broken ("})
    assert "Rolled back to version" in run(root, "Back")
    assert reports(root)[PRODUCTION]["version"] == promoted["version"]
