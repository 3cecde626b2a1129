"""Starts the shim as a container does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import flyte_shim

PYTHON_PATH = str(Path(flyte_shim.__file__).parent.parent)


def environment(home: Path, **variables: str) -> dict[str, str]:
    """An environment that says nothing but where programs, the shim and HOME are."""
    path = os.pathsep.join([os.path.dirname(sys.executable), "/usr/bin", "/bin"])
    return {"PATH": path, "HOME": str(home), "PYTHONPATH": PYTHON_PATH, **variables}


def start_shim(
    *arguments: str | Path,
    home: Path,
    cwd: Path,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """`python -m flyte_shim ARGUMENTS`, with pipes for its output."""
    return subprocess.Popen(
        [python, "-m", "flyte_shim", *map(str, arguments)],
        cwd=cwd,
        env=environment(home, **(variables or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_shim(
    *arguments: str | Path,
    home: Path,
    cwd: Path,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    process = start_shim(*arguments, home=home, cwd=cwd, python=python, variables=variables)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
