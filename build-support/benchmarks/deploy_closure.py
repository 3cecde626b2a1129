"""A generated repository with one task that reaches a given part of it, deployed by us and by
`flyte deploy` to the same control plane and store.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.build_root import EXAMPLE, BuildRoot, build_root, clean_environment
from tests.support.control_plane import control_plane
from tests.support.flyte_env import environment
from tests.support.object_stores import RealStore, seaweedfs

OURS, PEER = "staging", "development"  # a domain each: they don't see one another's tasks
PER_PACKAGE = 50
# Nobody pulls it: what is measured ends when the task is registered.
IMAGE = "ghcr.io/org/nothing@sha256:" + 64 * "0"
JOB = f"""
import flyte

from pkg0000.mod00000 import value

env = flyte.TaskEnvironment(name="closure", image=flyte.Image.from_base("{IMAGE}"))

@env.task
def main(n: int = 1) -> int:
    return value(n)
"""
BUILD = f"""
python_sources(name="lib")
flyte_task(name="task", entry_point="job.py:main", image="{IMAGE}")
flyte_deployment(name="deploy", tasks=[":task"], domain="{OURS}", project="flytesnacks")
"""
# Some 20 lines, as modules have.
BODY = "\n".join(f"def step{n}(x: int) -> int:\n    return x * {n} + 1\n" for n in range(7))


def populate(root: BuildRoot, modules: int, reached: int) -> None:
    """Packages of 50 modules. Of those that are reached, each imports two that follow: a chain would
    be deeper than Python can import.
    """
    names = [(f"pkg{n // PER_PACKAGE:04}", f"mod{n:05}") for n in range(modules)]
    files = {"app/BUILD": BUILD, "app/job.py": JOB}
    for n, (package, module) in enumerate(names):
        last = reached if n < reached else modules
        follow = [m for m in (2 * n + 1, 2 * n + 2) if m < last] if n < reached else []
        imports = "".join(f"from {'.'.join(names[m])} import value as v{m}\n" for m in follow)
        total = " + ".join(["x", *(f"v{m}(x)" for m in follow)])
        files[f"{package}/BUILD"] = "python_sources()\n"
        files[f"{package}/{module}.py"] = (
            f"{imports}\n{BODY}\ndef value(x: int) -> int:\n    return {total}\n"
        )
    root.write(files)


@dataclass(frozen=True)
class Closure:
    """The repository, and what it is deployed to."""

    root: BuildRoot
    scratch: Path
    store: RealStore
    endpoint: str
    modules: int
    reached: int
    _edits: Iterator[int]

    def edit(self) -> None:
        """One line of a module in the middle of what the task reaches."""
        n = self.reached // 2
        file = self.root.path / f"pkg{n // PER_PACKAGE:04}" / f"mod{n:05}.py"
        with file.open("a") as module:
            module.write(f"# {next(self._edits)}\n")

    def version(self) -> None:
        self.root.pants("--version")

    def ours(self) -> str:
        options = ("--endpoint", self.endpoint, "--insecure", "--no-image-check")
        store = ("--store", f"{self.store.uri}/closure-{self.modules}")
        done = self.root.pants("run", "app:deploy", "--", *options, *store, env=self.store.env)
        return done.stdout

    def peer(self, style: str) -> str:
        python = environment(EXAMPLE / "3rdparty/python/default.lock")
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        env = clean_environment(HOME=str(home), PYTHONPATH=".", DO_NOT_TRACK="1", **self.store.env)
        done = subprocess.run(
            [
                str(python.parent / "flyte"),
                *("--endpoint", self.endpoint, "--insecure", "deploy"),
                *("--project", "flytesnacks", "--domain", PEER, "--copy-style", style),
                *("app/job.py", "env"),
            ],
            cwd=self.root.path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"flyte deploy\n{done.stdout}\n{done.stderr}")
        return done.stdout


@contextmanager
def closure(scratch: Path, modules: int, reached: int) -> Iterator[Closure]:
    with ExitStack() as stack:
        store = seaweedfs()
        uploads = ("--uploads", f"{store.uri}/uploads")
        plane = stack.enter_context(
            control_plane(
                scratch / "plane", "--project", "flytesnacks", *uploads, environ=store.env
            )
        )
        root = stack.enter_context(build_root(scratch / "root", ["/"]))
        populate(root, modules, reached)
        yield Closure(root, scratch, store, plane.endpoint, modules, reached, itertools.count())
