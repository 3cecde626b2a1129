"""One bundle, two ways: what the real `a0` writes to outputs.pb is what the local run returns.

`a0` gets the bundle by its own download, and by the shim as its exec wrapper.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.a0 import A0Run, run_a0
from tests.support.build_root import EXAMPLE, clean_environment
from tests.support.flyte_env import flyte_python
from tests.support.task_bundle import PYTHON_PATH, PackagedTask, package_task

ETL = "services/etl/pipeline.py"
KINDS = "services/kinds.py"
# Beside the example's code: results of several kinds, and the library that is imported inside
# functions.
KINDS_SOURCE = """\
import flyte

env = flyte.TaskEnvironment(name="kinds", image=flyte.Image.from_base("registry.example.com/x:1"))


@env.task
def headline(forecast: dict[str, float]) -> str:
    from libs.reporting.render import headline as render

    return render(forecast)


@env.task
def several(n: int, text: str = "a") -> tuple[int, str, bool, list[float]]:
    return n + 1, text * n, n > 1, [n / 8]


@env.task
def nothing(n: int) -> None:
    print(n)
"""


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> PackagedTask:
    """The code and data of the example that need no numpy, in one bundle."""
    files = {KINDS: KINDS_SOURCE}
    for top in ("services/etl", "libs", "data", "packages/geo/src/geo"):
        for path in sorted((EXAMPLE / top).rglob("*")):
            if path.suffix in (".py", ".json", ".csv"):
                name = path.relative_to(EXAMPLE).as_posix()
                files[name.replace("packages/geo/src/", "")] = path.read_text()
    return package_task(tmp_path_factory.mktemp("packaged"), files, f"{ETL}:distance")


class Locally:
    """Runs tasks by `flyte_pack run`, each once for all the ways that a0 runs it."""

    def __init__(self, packaged: PackagedTask, directory: Path) -> None:
        self.packaged, self.directory = packaged, directory
        self.done: dict[str, tuple[int, str]] = {}

    def __call__(self, module: str, task: str, inputs: Mapping[str, object]) -> tuple[int, str]:
        """The exit code, and the output without colours."""
        key = repr((module, task, inputs))
        if key not in self.done:
            cwd = self.directory / str(len(self.done))
            cwd.mkdir()
            self.done[key] = self._run(module, task, inputs, cwd)
        return self.done[key]

    def _run(
        self, module: str, task: str, inputs: Mapping[str, object], cwd: Path
    ) -> tuple[int, str]:
        link = replace(
            self.packaged.link,
            entry_point=f"{module}:{task}",
            module=module[: -len(".py")].replace("/", "."),
            tasks=(replace(self.packaged.link.tasks[0], name=task),),
        )
        link_file = cwd / "task.json"
        link_file.write_bytes(link.to_json())
        arguments = []
        for name, value in inputs.items():
            arguments += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
        done = subprocess.run(
            [
                *(flyte_python(), "-m", "flyte_pack", "run", "--task", str(link_file)),
                *("--dir", str(self.packaged.directory), "--store", "file://store"),
                *("--", *arguments),
            ],
            cwd=cwd,
            env=clean_environment(PYTHONPATH=PYTHON_PATH, COLUMNS="4000"),
            capture_output=True,
            text=True,
        )
        return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


@pytest.fixture(scope="module")
def locally(packaged: PackagedTask, tmp_path_factory: pytest.TempPathFactory) -> Locally:
    return Locally(packaged, tmp_path_factory.mktemp("local"))


def in_a0(
    way: str,
    packaged: PackagedTask,
    module: str,
    task: str,
    inputs: Mapping[str, object],
    tmp: Path,
) -> A0Run:
    # As in a store: the shim takes the hash from the name.
    assert packaged.link.bundle
    archive = tmp / "archives" / f"{packaged.link.bundle.archive_hash}.tar.gz"
    archive.parent.mkdir()
    shutil.copy(packaged.archive, archive)
    shim = {"PYTHONPATH": PYTHON_PATH, "_F_EXEC_WRAPPER": f"{flyte_python()} -m flyte_shim"}
    run = run_a0(
        python=flyte_python(),
        archive=archive,
        module=module[: -len(".py")].replace("/", "."),
        task=task,
        inputs=inputs,
        directory=tmp / "a0",
        env=shim if way == "shim" else {},
    )
    # It came the way that it was meant to come.
    assert (tmp / "a0" / ".cache" / "flyte-shim").exists() == (way == "shim"), run.log
    return run


@pytest.mark.parametrize("way", ["stock", "shim"])
@pytest.mark.parametrize(
    ("module", "task", "inputs"),
    [
        (ETL, "distance", {"station": "university"}),
        (ETL, "keep", {"rides": [1, 5000]}),
        (KINDS, "headline", {"forecast": {"harbour": 271.7, "market": 137.0}}),
        (KINDS, "several", {"n": 3}),
        (KINDS, "nothing", {"n": 3}),
    ],
)
def test_outputs_are_those_of_the_local_run(
    packaged: PackagedTask,
    locally: Locally,
    tmp_path: Path,
    way: str,
    module: str,
    task: str,
    inputs: dict[str, object],
) -> None:
    exit_code, output = locally(module, task, inputs)
    assert exit_code == 0, output
    run = in_a0(way, packaged, module, task, inputs, tmp_path)
    assert run.error is None, run.log
    assert run.shown
    assert f"Outputs: {run.shown}" in output


@pytest.mark.parametrize("way", ["stock", "shim"])
def test_the_error_is_that_of_the_local_run(
    packaged: PackagedTask, locally: Locally, tmp_path: Path, way: str
) -> None:
    inputs = {"station": "nowhere"}
    exit_code, output = locally(ETL, "distance", inputs)
    run = in_a0(way, packaged, ETL, "distance", inputs, tmp_path)
    assert run.error == "'nowhere'"
    assert f"Execution failed: {run.error}" in output
    assert exit_code == 1
