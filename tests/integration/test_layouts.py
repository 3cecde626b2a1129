"""The repository layouts of Flyte's guide: each is packaged, and a task runs out of its bundle.

One build root holds them all, a directory each. Each case says which files the bundle must hold
and what its task returns for n=2; the task runs under the real `a0`, in an empty directory.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.a0 import run_a0
from tests.support.build_root import BuildRoot, build_root
from tests.support.flyte_env import flyte_python

ENV = """\
import flyte

env = flyte.TaskEnvironment(name="{name}", image=flyte.Image.from_base("python:3.12"))
"""


def task(name: str, imports: str, expression: str, head: str = "") -> str:
    """A module with one task `main`, which returns `expression` of its input `n`."""
    return (
        f"{head}{ENV.format(name=name)}\n{imports}\n\n\n"
        f"@env.task\ndef main(n: int) -> int:\n    return {expression}\n"
    )


@dataclass(frozen=True)
class Layout:
    source_roots: list[str]
    files: dict[str, str]
    target: str
    bundle: list[str]
    module: str
    result: int
    local: bool = field(default=False)  # whether `pants run` runs it as well

    @property
    def dist(self) -> str:
        directory, _, name = self.target.partition(":")
        return f"dist/{directory.replace('/', '.')}/{name}"


LAYOUTS = {
    "single file": Layout(
        source_roots=["/single"],
        files={
            "single/BUILD": 'python_sources()\nflyte_task(name="t", entry_point="hello.py:main")\n',
            "single/hello.py": task("single", "", "n + 1"),
        },
        target="single:t",
        bundle=["hello.py"],
        module="hello",
        result=3,
    ),
    "package beside the script": Layout(
        source_roots=["/beside"],
        files={
            "beside/BUILD": (
                'python_sources()\nflyte_task(name="t", entry_point="script.py:main")\n'
            ),
            "beside/script.py": task("beside", "from besidepkg.add import add", "add(n)"),
            "beside/besidepkg/BUILD": "python_sources()\n",
            "beside/besidepkg/__init__.py": "",
            "beside/besidepkg/add.py": "def add(n: int) -> int:\n    return n + 2\n",
        },
        target="beside:t",
        bundle=["besidepkg/__init__.py", "besidepkg/add.py", "script.py"],
        module="script",
        result=4,
    ),
    "src layout with pyproject.toml": Layout(
        source_roots=["/dist_a/src"],
        files={
            "dist_a/pyproject.toml": "[project]\nname = 'dist-a'\nversion = '1'\n",
            "dist_a/src/dist_a/BUILD": (
                'python_sources(name="lib")\nflyte_task(name="t", entry_point="tasks.py:main")\n'
            ),
            "dist_a/src/dist_a/__init__.py": "",
            "dist_a/src/dist_a/tasks.py": task(
                "dist_a", "from dist_a.three import THREE", "n + THREE"
            ),
            "dist_a/src/dist_a/three.py": "THREE = 3\n",
        },
        target="dist_a/src/dist_a:t",
        bundle=["dist_a/__init__.py", "dist_a/tasks.py", "dist_a/three.py"],
        module="dist_a.tasks",
        result=5,
        local=True,
    ),
    "src/workflows and src/utils, src a source root": Layout(
        source_roots=["/rooted/src"],
        files={
            "rooted/src/workflows/BUILD": (
                'python_sources(name="lib")\nflyte_task(name="t", entry_point="flow.py:main")\n'
            ),
            "rooted/src/workflows/flow.py": task(
                "rooted", "from utils.four import FOUR", "n + FOUR"
            ),
            "rooted/src/utils/BUILD": "python_sources()\n",
            "rooted/src/utils/four.py": "FOUR = 4\n",
        },
        target="rooted/src/workflows:t",
        bundle=["utils/four.py", "workflows/flow.py"],
        module="workflows.flow",
        result=6,
    ),
    "src/workflows and src/utils, imported as src.utils": Layout(
        source_roots=["/top"],
        files={
            "top/src/flows/BUILD": (
                'python_sources(name="lib")\nflyte_task(name="t", entry_point="flow.py:main")\n'
            ),
            "top/src/flows/flow.py": task("top", "from src.helpers.five import FIVE", "n + FIVE"),
            "top/src/helpers/BUILD": "python_sources()\n",
            "top/src/helpers/five.py": "FIVE = 5\n",
        },
        target="top/src/flows:t",
        bundle=["src/flows/flow.py", "src/helpers/five.py"],
        module="src.flows.flow",
        result=7,
    ),
    "workspace/shared and workspace/project": Layout(
        source_roots=["/workspace"],
        files={
            "workspace/project/BUILD": (
                'python_sources(name="lib")\n'
                'flyte_task(name="t", entry_point="main.py:main", root_dir="workspace")\n'
            ),
            "workspace/project/main.py": task("workspace", "from shared.six import SIX", "n + SIX"),
            "workspace/shared/BUILD": "python_sources()\n",
            "workspace/shared/six.py": "SIX = 6\n",
        },
        target="workspace/project:t",
        bundle=["project/main.py", "shared/six.py"],
        module="project.main",
        result=8,
    ),
    "libs and services, imported from the top": Layout(
        source_roots=["/mono"],
        files={
            "mono/services/seven/BUILD": (
                'python_sources(name="lib")\nflyte_task(name="t", entry_point="job.py:main")\n'
            ),
            "mono/services/seven/job.py": task(
                "mono", "from libs.deep.seven import seven", "n + seven()"
            ),
            "mono/libs/deep/BUILD": "python_sources()\n",
            "mono/libs/deep/seven.py": (
                "def seven() -> int:\n    from libs.lazy.value import VALUE\n\n    return VALUE\n"
            ),
            "mono/libs/lazy/BUILD": "python_sources()\n",
            "mono/libs/lazy/value.py": "VALUE = 7\n",
            "mono/libs/unrelated/BUILD": "python_sources()\n",
            "mono/libs/unrelated/other.py": "OTHER = 0\n",
        },
        target="mono/services/seven:t",
        bundle=["libs/deep/seven.py", "libs/lazy/value.py", "services/seven/job.py"],
        module="services.seven.job",
        result=9,
        local=True,
    ),
    "several source roots": Layout(
        source_roots=["/several/apps", "/several/common"],
        files={
            "several/apps/BUILD": (
                'python_sources()\nflyte_task(name="t", entry_point="app.py:main")\n'
            ),
            "several/apps/app.py": task("several", "import eight", "n + eight.EIGHT"),
            "several/common/BUILD": "python_sources()\n",
            "several/common/eight.py": "EIGHT = 8\n",
        },
        target="several/apps:t",
        bundle=["app.py", "eight.py"],
        module="app",
        result=10,
    ),
    "a namespace package over two source roots": Layout(
        source_roots=["/space/one", "/space/two"],
        files={
            "space/one/acme/jobs/BUILD": (
                'python_sources(name="lib")\nflyte_task(name="t", entry_point="job.py:main")\n'
            ),
            "space/one/acme/jobs/job.py": task("space", "from acme.nine import NINE", "n + NINE"),
            "space/two/acme/BUILD": "python_sources()\n",
            "space/two/acme/nine.py": "NINE = 9\n",
        },
        target="space/one/acme/jobs:t",
        bundle=["acme/jobs/job.py", "acme/nine.py"],
        module="acme.jobs.job",
        result=11,
        local=True,
    ),
    "a task in __init__.py": Layout(
        source_roots=["/inits"],
        files={
            "inits/initpkg/BUILD": (
                'python_sources(name="lib")\nflyte_task(name="t", entry_point="__init__.py:main")\n'
            ),
            "inits/initpkg/__init__.py": task("inits", "from initpkg.ten import TEN", "n + TEN"),
            "inits/initpkg/ten.py": "TEN = 10\n",
        },
        target="inits/initpkg:t",
        bundle=["initpkg/__init__.py", "initpkg/ten.py"],
        module="initpkg",
        result=12,
        local=True,
    ),
}

NAMES = sorted(LAYOUTS)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildRoot]:
    """All layouts in one build root, packaged in one go."""
    roots = [root for layout in LAYOUTS.values() for root in layout.source_roots]
    with build_root(tmp_path_factory.mktemp("layouts"), roots) as root:
        for layout in LAYOUTS.values():
            root.write(layout.files)
        root.pants("package", *(layout.target for layout in LAYOUTS.values()))
        yield root


@pytest.mark.parametrize("name", NAMES)
def test_the_bundle_holds_the_closure_and_nothing_else(packaged: BuildRoot, name: str) -> None:
    with tarfile.open(packaged.path / f"{LAYOUTS[name].dist}.tar.gz") as archive:
        assert archive.getnames() == LAYOUTS[name].bundle


@pytest.mark.parametrize("name", NAMES)
def test_the_task_runs_out_of_its_bundle(packaged: BuildRoot, tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    run = run_a0(
        python=flyte_python(),
        archive=packaged.path / f"{layout.dist}.tar.gz",
        module=layout.module,
        task="main",
        inputs={"n": 2},
        directory=tmp_path / "a0",
    )
    assert (run.error, run.value) == (None, layout.result), run.log


@pytest.mark.parametrize("name", [n for n in NAMES if LAYOUTS[n].local])
def test_pants_run_runs_it_from_the_bundle(packaged: BuildRoot, name: str) -> None:
    done = packaged.pants("run", LAYOUTS[name].target, "--", "--n", "2")
    assert f"o0={LAYOUTS[name].result}" in done.stdout, done.stderr


def test_a_root_dir_above_a_src_layout_breaks_its_imports_and_the_error_says_which_root_would_do(
    packaged: BuildRoot,
) -> None:
    done = packaged.pants(
        "run", "dist_a/src/dist_a:t", "--", "--root-dir", ".", "--n", "2", check=False
    )
    assert done.returncode != 0
    assert "dist_a/src/dist_a/tasks.py:" in done.stderr
    assert "`from dist_a.three import THREE`" in done.stderr
    assert "root_dir='dist_a/src'" in done.stderr


def test_a_root_dir_that_is_the_source_root_gives_the_same_bundle(packaged: BuildRoot) -> None:
    done = packaged.pants("run", "inits/initpkg:t", "--", "--root-dir", "inits", "--n", "2")
    assert "o0=12" in done.stdout


def test_tasks_may_run_on_a_newer_python_than_the_oldest_that_is_known(packaged: BuildRoot) -> None:
    """The PEX tool that Pants 2.17 asks for cannot work with 3.12; that of ./pants can."""
    newer = "--python-interpreter-constraints=['CPython==3.12.*']"
    done = packaged.pants(newer, "run", "inits/initpkg:t", "--", "--n", "2")
    assert "o0=12" in done.stdout
