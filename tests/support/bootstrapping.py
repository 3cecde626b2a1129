"""Starts `./pants` as a stranger would: a copy of the launcher, an empty HOME, a build root
elsewhere.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BOOTSTRAP = TOP / "build-support" / "bootstrap"
VERSION = "2.17.1"

# The CPython 3.9 below the virtual environment that tests run in.
PYTHON = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@dataclass(frozen=True)
class Stranger:
    """Somebody's empty home, his checkout of this repository and a build root of his own."""

    home: Path
    pants: Path
    root: Path
    path: str
    """PATH; the first directory on it holds `python3.9` and no other Python."""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "pants-flyte" / f"pants-{VERSION}"

    def environment(self, **changes: str | None) -> dict[str, str]:
        """What his shell exports, and no more; None takes a variable away."""
        env = {
            "HOME": str(self.home),
            "PATH": self.path,
            # One process per command; a test of the daemon turns this off.
            "PANTS_PANTSD": "false",
            **self.variables,
        }
        for name, value in changes.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        return env

    def start(self, *arguments: str, **changes: str | None) -> Start:
        """Begins `./pants ARGUMENTS` in the build root, in a process group of its own."""
        process = subprocess.Popen(
            [str(self.pants), *(arguments or ("--version",))],
            cwd=self.root,
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            umask=0o077,  # he is a careful person
        )
        return Start(process)

    def run(self, *arguments: str, **changes: str | None) -> Finished:
        return self.start(*arguments, **changes).finish()

    def reaches_pants(self, **changes: str | None) -> bool:
        """Whether the real Pants answers, and nobody else says a word.

        A bad value for an option of Pants is refused in 0.3 s; a goal would take ten.
        """
        err = self.run("--level=nonsense", **changes).err
        return "pants.option.errors.ParseError" in err and "\npants: " not in "\n" + err


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


class Start:
    """A `./pants` under way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.seen = ""

    def until(self, text: str) -> Start:
        """Waits for a line on stderr that has `text` in it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.seen += line
            if text in line:
                return self
        raise AssertionError(f"no {text!r} in:\n{self.seen}")

    def kill_all(self) -> None:
        """SIGKILL for it and all that it started, as when a machine is switched off."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def kill_bootstrap_alone(self) -> list[int]:
        """SIGKILL for the bootstrap, but not for the program that it is running: that is only
        stopped, and lives until somebody kills it. Its process id comes back."""
        (bootstrap,) = _children(self.process.pid)
        while not (running := _children(bootstrap)):
            """It has said what it will do and is about to."""
        for pid in running:
            os.kill(pid, signal.SIGSTOP)
        os.kill(bootstrap, signal.SIGKILL)
        self.process.wait()
        return running

    def finish(self, timeout: float = 600) -> Finished:
        out, err = self.process.communicate(timeout=timeout)
        return Finished(self.process.returncode, out, self.seen + err)


def _children(parent: int) -> list[int]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True
    )
    pairs = (map(int, line.split()) for line in listing.stdout.splitlines())
    return [pid for pid, of in pairs if of == parent]


def stranger(directory: Path, **variables: str) -> Stranger:
    """Everything in directories whose names have spaces, as some people's have."""
    home = directory / "home of a stranger"
    checkout = directory / "his check out"
    root = directory / "his own build root"
    bin_directory = directory / "only python"
    for made in (home, root, bin_directory, checkout / "build-support"):
        made.mkdir(parents=True)
    shutil.copy(TOP / "pants", checkout)
    shutil.copytree(
        BOOTSTRAP,
        checkout / "build-support" / "bootstrap",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (root / "pants.toml").write_text(f'[GLOBAL]\npants_version = "{VERSION}"\n')
    (bin_directory / "python3.9").symlink_to(PYTHON)
    return Stranger(
        home=home,
        pants=checkout / "pants",
        root=root,
        path=f"{bin_directory}:{tools_without_python(directory / 'tools')}",
        variables=variables,
    )


def tools_without_python(directory: Path) -> Path:
    """What a machine without any Python has."""
    directory.mkdir(exist_ok=True)
    for name in (
        "sh",
        "readlink",
        "cksum",
        "tr",
        "env",
        "bash",
        "ls",
        "cat",
        "mkdir",
        "cp",
        "touch",
    ):
        found = shutil.which(name)
        assert found, f"this machine has no {name}"
        link = directory / name
        if not link.exists():
            link.symlink_to(found)
    return directory
