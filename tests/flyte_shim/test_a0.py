"""The real a0 of Flyte runs a task out of a bundle that the shim has put in place, in every way."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.a0 import A0Run, run_a0
from tests.support.archives import Archive, archive_of
from tests.support.flyte_env import flyte_python
from tests.support.object_stores import REAL_STORES, unique
from tests.support.shim import PYTHON_PATH
from tests.support.shim_stores import behind_proxy, publish, signed_url

FILES = {
    "services/ml/workflows.py": """\
import flyte
from libs.common import read_factor

env = flyte.TaskEnvironment(name="ml", image=flyte.Image.from_base("python:3.12"))


@env.task
async def scale(n: int) -> int:
    with open("written", "w") as file:
        file.write("by the task")
    return n * read_factor()
""",
    "libs/common.py": """\
def read_factor() -> int:
    with open("data/factor.csv") as file:
        return int(file.read())
""",
    "data/factor.csv": "21\n",
}


class Container:
    """Empty working directories, one after another, with one cache; a0 finds no working tar."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bundle: Archive = archive_of(root / "store", FILES)
        self.runs = 0
        (root / "bin").mkdir()
        (root / "bin/tar").write_text("#!/bin/sh\nexit 1\n")
        (root / "bin/tar").chmod(0o755)

    @property
    def workdir(self) -> Path:
        return self.root / str(self.runs) / "work"

    def run(self, env=None, prefix=()) -> A0Run:
        python = flyte_python()
        self.runs += 1
        return run_a0(
            python=python,
            archive=self.bundle.path,
            module="services.ml.workflows",
            task="scale",
            inputs={"n": 2},
            directory=self.root / str(self.runs),
            env={
                "PATH": f"{self.root}/bin:{python.parent}:/usr/bin:/bin",
                "PYTHONPATH": PYTHON_PATH,
                "FLYTE_SHIM_CACHE": str(self.root / "cache"),
                **(env or {}),
            },
            prefix=prefix,
        )

    def explicit(self) -> A0Run:
        archive = ["--archive", str(self.bundle.path), "--sha256", self.bundle.sha256]
        return self.run(prefix=[str(flyte_python()), "-m", "flyte_shim", *archive, "--"])

    def entrypoint(self) -> A0Run:
        return self.run(prefix=[str(flyte_python()), "-m", "flyte_shim", "--"])

    def wrapped(self) -> A0Run:
        return self.run({"_F_EXEC_WRAPPER": f"{shlex.quote(str(flyte_python()))} -m flyte_shim"})


@pytest.fixture
def container(tmp_path) -> Container:
    return Container(tmp_path)


WAYS = pytest.mark.parametrize("way", [Container.explicit, Container.entrypoint, Container.wrapped])


def test_without_the_shim_a0_unpacks_the_bundle_itself(container):
    """What the other tests rest on: it needs tar for that, and there is none."""
    done = container.run()
    assert done.value is None
    assert done.exit_code != 0 or done.error


@WAYS
def test_a_task_runs_out_of_the_cache(container, way):
    done = way(container)
    assert (done.exit_code, done.error, done.value) == (0, None, 42), done.log
    assert os.path.islink(container.workdir / "services")
    assert (container.workdir / "written").read_text() == "by the task"
    # a0 leaves its lock where it downloads.
    assert not (container.workdir / f".{container.bundle.path.name}.lock").exists()


def tamper(container: Container) -> None:
    """Put another archive under the name of the bundle."""
    other = archive_of(container.root / "other", {**FILES, "data/factor.csv": "1000\n"})
    other.path.replace(container.bundle.path)


@WAYS
def test_a_second_start_does_not_read_the_archive(container, way):
    assert way(container).value == 42
    tamper(container)
    assert way(container).value == 42


@WAYS
def test_no_code_of_a_bundle_that_was_tampered_with_is_run(container, way):
    tamper(container)
    done = way(container)
    assert done.exit_code == 65
    assert "was expected" in done.log
    assert done.value is None
    assert os.listdir(container.workdir) == []


# Puts another address into the command line of a0, and becomes it.
_ELSEWHERE = (
    "import os, sys; uri, *a = sys.argv[1:]; a[a.index('--tgz') + 1] = uri; os.execvp(a[0], a)"
)


@pytest.mark.parametrize("way", ["entry point", "wrapper"])
@pytest.mark.parametrize("scheme", [*REAL_STORES, "signed"])
def test_a_task_runs_out_of_a_bundle_in_an_object_store(container, scheme, way):
    """It is asked for once, by the shim alone: not by a0, and not at the second start."""
    store = REAL_STORES["s3" if scheme == "signed" else scheme]()
    key = f"{unique()}/{container.bundle.path.name}"
    uri = publish(store, key, container.bundle.path.read_bytes())
    shim = [str(flyte_python()), "-m", "flyte_shim"]
    with behind_proxy(store) as (reached, proxy):
        env = dict(reached.env)
        if scheme == "signed":
            uri, env = signed_url(reached, key, 60), {}
        prefix = [sys.executable, "-c", _ELSEWHERE, uri]
        if way == "wrapper":
            env["_F_EXEC_WRAPPER"] = shlex.join(shim)
        else:
            prefix += [*shim, "--"]
        for _ in range(2):
            done = container.run(env, prefix)
            assert (done.exit_code, done.error, done.value) == (0, None, 42), done.log
            assert [(request.method, request.writes) for request in proxy.requests] == [
                ("GET", False)
            ]
