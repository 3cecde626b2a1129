"""A build root of a test's own, with this checkout's `./pants` and backend, and real runs of Pants
in it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any, Optional

# The repository, or the sandbox's copy of it: `//:checkout` is among the inputs of these tests.
CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLE = CHECKOUT / "examples" / "monorepo"

# What //:maps names.
MAPS = (
    *(".ci/run", ".github/workflows/ci.yml"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "README.md"),
)

PANTS_TOML = """\
[GLOBAL]
pants_version = "2.17.1"
pythonpath = [{src!r}]
backend_packages = ["pants.backend.python", "pants_flyte"]

[anonymous-telemetry]
enabled = false

[source]
root_patterns = {roots!r}

[python]
interpreter_constraints = ["CPython>=3.11,<3.14"]
enable_resolves = true
resolves_generate_lockfiles = false

[python.resolves]
python-default = "3rdparty/python/default.lock"

[python-bootstrap]
search_path = ["<PYENV>", "<PATH>"]

[python-infer]
use_rust_parser = true
"""

# What the surrounding test run sets for itself, and a user's shell would not have.
_NOT_INHERITED = ("PANTS_", "PEX", "PYTHON", "__PEX", "PYTEST", "COVERAGE")


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment of a shell on this machine, with `extra`."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_NOT_INHERITED) or name == "PANTS_PYTHON"
    }
    return {**inherited, **extra}


class BuildRoot:
    """A directory with a pants.toml. Its daemon, if one was started, ends with `stop`."""

    def __init__(
        self, path: Path, pants: Path = CHECKOUT / "pants", env: Optional[Mapping[str, str]] = None
    ) -> None:
        """env: for every run of Pants here, beside what a shell on this machine has."""
        self.path = path
        self._pants = pants
        self._env = env or {}

    @classmethod
    def create(cls, path: Path, source_roots: list[str], more: str = "", **how: Any) -> BuildRoot:
        """A new one whose resolve is the example's (so that all tests share its environment). how:
        as `BuildRoot` has it.
        """
        root = cls(path, **how)
        source = str(CHECKOUT / "src" / "python")
        root.write(
            {
                "pants.toml": PANTS_TOML.format(src=source, roots=source_roots) + dedent(more),
                "3rdparty/python/BUILD": 'python_requirements(name="reqs")\n',
            }
        )
        third_party = EXAMPLE / "3rdparty" / "python"
        for name in ("requirements.txt", "default.lock"):
            root.write({f"3rdparty/python/{name}": (third_party / name).read_text()})
        return root

    def write(self, files: Mapping[str, str]) -> None:
        """Write files, dedented, by their path from the build root."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content))

    def pants(
        self, *args: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `./pants ARGS` here; with `check`, a failure fails the test with all that was
        printed.
        """
        done = subprocess.run(
            [str(self._pants), *args],
            cwd=self.path,
            env={**clean_environment(), **self._env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if check:
            assert done.returncode == 0, f"pants {args}\n{done.stdout}\n{done.stderr}"
        return done

    def stop(self) -> None:
        """End the daemon, and wait until it is gone."""
        for pid_file in self.path.glob(".pids/*/pantsd/pid"):
            pid = int(pid_file.read_text())
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    os.kill(pid, 0)
                    time.sleep(0.05)
                os.kill(pid, signal.SIGKILL)


def clone_checkout(directory: Path) -> Path:
    """What a fresh clone of this repository holds, as far as a user needs it, in `directory`."""
    for name in ("build-support", "examples", "src"):
        shutil.copytree(
            CHECKOUT / name,
            directory / name,
            ignore=shutil.ignore_patterns("__pycache__", "dist", ".pants.d", ".pids", "*.pyc"),
        )
    tops = (
        ".gitignore",
        "BUILD",
        "LICENSE",
        "pants",
        "pants-flyte",
        "pants.toml",
        "pyproject.toml",
    )
    for name in tops:
        shutil.copy2(CHECKOUT / name, directory / name)
    for name in MAPS:
        # Empty, for an edit of them is no reason to run these tests again.
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    return directory


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """The umask of this process and of what it starts, for the time of a `with` block."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def build_root(
    path: Path, source_roots: list[str], more: str = "", **how: Any
) -> Iterator[BuildRoot]:
    """`BuildRoot.create` for the time of a `with` block."""
    root = BuildRoot.create(path, source_roots, more, **how)
    try:
        yield root
    finally:
        root.stop()
