"""What the container of `run-in-image` is given: here it runs without the container, beside the real Flyte."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from flyte_pack.run import in_image
from tests.support.flyte_versions import MATRIX, python_with_flyte
from tests.support.task_bundle import package_task

WORKFLOWS = """\
    import importlib.util
    import flyte

    env = flyte.TaskEnvironment(name="ml")

    @env.task
    def leaf(n: int) -> int:
        if n > 10:
            raise ValueError("that is too much")
        return n * 2

    @env.task
    def parent(n: int) -> list[int]:
        for name in ("flyte_pack", "flyte_side", "run_a0", "words"):
            assert importlib.util.find_spec(name) is None, name
        return [leaf(n=n), leaf(n=n + 1)]
"""


@pytest.mark.parametrize("line", MATRIX)
def test_a0_runs_the_task_and_its_children(tmp_path: Path, monkeypatch, line: str) -> None:
    task = package_task(tmp_path / "task", {"w.py": WORKFLOWS}, "w.py:parent")
    shared = tmp_path / "shared"
    monkeypatch.setattr(in_image, "_INSIDE", str(shared))

    def run(*inputs: str) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir()
        command = in_image._prepare(task.link, str(task.directory), str(shared), inputs)
        work = tmp_path / "work"
        with tarfile.open(task.archive) as archive:
            archive.extractall(work)
        return subprocess.run(
            [str(python_with_flyte(line)), *command[1:]],
            cwd=work,
            env={"PATH": os.defpath, "DO_NOT_TRACK": "1", "UCTL_CONFIG": f"{shared}/config.yaml"},
            capture_output=True,
            text=True,
        )

    done = run("--n", "3")
    assert done.returncode == 0, done.stderr
    assert "[6, 8]" in done.stdout
    assert not list((shared / "flyte_side").rglob("*.pyc"))
    failed = run("--n", "10")
    assert failed.returncode == 1
    assert "that is too much" in failed.stdout + failed.stderr
