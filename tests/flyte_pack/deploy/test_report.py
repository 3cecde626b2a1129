"""What scripts learn of a run: its exit code, where that is asked for, and a report in a file."""

from __future__ import annotations

import json

import pytest

from tests.support.deploying import BuildRoot


@pytest.fixture
def root(tmp_path):
    root = BuildRoot(tmp_path / "root")
    root.package("train", "v = 1\n", image=None)
    return root


def reported(root: BuildRoot, *typed: str):
    """The exit code, what was printed, and the report if there is one."""
    plan = root.plan()
    file = root.root / "dist" / "reports" / "deploy.json"
    file.unlink(missing_ok=True)
    done = root.run(
        *("deploy", "--plan", str(plan), "--dir", str(root.dist)),
        *("--report", "dist/reports/deploy.json", "--", *typed),
    )
    return done, json.loads(file.read_bytes()) if file.exists() else None


def test_the_exit_code_tells_changed_from_unchanged_where_that_is_asked(root):
    assert root.deploy("--exit-code", "--dry-run").code == 3
    assert root.deploy("--exit-code").code == 3
    assert root.deploy("--exit-code").code == 0
    assert root.deploy("--exit-code", "--dry-run").code == 0
    root.package("train", "v = 2\n", image=None)
    assert root.deploy("--dry-run").code == 0
    assert root.deploy("--exit-code", "--dry-run").code == 3
    root.deploy().ok()
    assert root.deploy("--exit-code", "rollback").code == 3
    root.deploy("--exit-code", "list").failed(2, "--exit-code is for deploying, rollback")


def test_a_report_says_what_json_says_and_nothing_more_is_printed(root):
    done, report = reported(root)
    assert done.ok().out.startswith("services:deploy in flytesnacks/development")
    assert report["deployed"] is True
    assert [task["status"] for task in report["tasks"]] == ["new"]
    assert [one["status"] for one in report["bundles"]] == ["new"]
    _, again = reported(root, "--output", "json")
    assert again["version"] == report["version"]
    assert [task["status"] for task in again["tasks"]] == ["unchanged"]
    assert again["writes"] == []


def test_a_failure_is_reported_and_a_look_is_not(root):
    root.deploy("--version", "v1").ok()
    root.package("train", "v = 2\n", image=None)
    done, report = reported(root, "--version", "v1")
    done.failed(1, "exists with other content")
    assert "exists with other content" in report["error"]
    _, report = reported(root, "list")
    assert report is None
