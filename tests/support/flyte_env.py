"""An environment with the real Flyte SDK, made once from a lock with hashes and kept between runs.

It is a virtual environment of a CPython that Flyte runs on, 3.11 or newer, made with pip alone; so
pip's own configuration says where the packages come from. It lies in
`${XDG_CACHE_HOME:-~/.cache}/pants-flyte/test-envs/`, under a name that changes with the lock and
the interpreter.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("flyte.lock")
# Newest first is not best: wheels for a new CPython come late.
VERSIONS = ("3.12", "3.13", "3.11", "3.14")


@functools.cache
def flyte_python() -> Path:
    """The `python` of the environment; `a0` and `flyte` lie beside it.

    Made by the first who asks.
    """
    return environment(LOCK)


def environment(lock_file: Path) -> Path:
    """The `python` of a virtual environment with what `lock_file` pins."""
    base, version = base_python()
    key = hashlib.sha256(b"%b\0%b" % (version.encode(), lock_file.read_bytes())).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(cache) / "pants-flyte" / "test-envs" / key
    directory.parent.mkdir(parents=True, exist_ok=True)
    complete = directory / "complete"
    with open(f"{directory}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            # Scripts name their interpreter by its path, so it is made in its place: what has no
            # mark of completion was left by one that was interrupted.
            shutil.rmtree(directory, ignore_errors=True)
            _run(base, "-I", "-m", "venv", str(directory))
            _run(
                *(str(directory / "bin/python"), "-I", "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", "--no-input", "--no-deps", "--require-hashes"),
                *("--requirement", str(lock_file)),
            )
            complete.touch()
    return directory / "bin/python"


def base_python() -> tuple[str, str]:
    """A CPython that Flyte runs on, and its whole version, from pyenv or PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in VERSIONS:
        for candidate in (
            *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), reverse=True),
            shutil.which(f"python{version}"),
            sys.executable,
        ):
            # One of pyenv's shims on PATH can be there and not work.
            found = (
                candidate
                and subprocess.run(
                    [candidate, "-I", "-c", "import sys, ensurepip; print(sys.version.split()[0])"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                ).stdout.strip()
            )
            if found and found.startswith(f"{version}."):
                return candidate, found
    raise AssertionError(f"These tests need one of CPython {', '.join(VERSIONS)}: none was found.")


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
