"""Starts the shim as a container does, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import flyte_shim

PYTHON_PATH = str(Path(flyte_shim.__file__).parent.parent)

PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"


def interpreters() -> dict[str, str]:
    """CPythons from 3.9 on, by version: the one that runs the tests, and pyenv's."""
    found = {".".join(map(str, sys.version_info[:3])): sys.executable}
    for path in PYENV.glob("3.*/bin/python"):
        version = path.parent.parent.name
        if re.fullmatch(r"3\.(9|\d\d)\.\d+", version):
            found.setdefault(version, str(path))
    return dict(sorted(found.items()))


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
