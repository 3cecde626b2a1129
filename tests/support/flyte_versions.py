"""The versions of Flyte that registration is tested with: the oldest line that is supported, one between, the newest.

Each is an environment like that of `flyte_env.py`, with a server for the control plane, made once from a lock with
hashes in build-support/locks and kept between runs.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.support.flyte_env import base_python

LOCKS = Path(__file__).resolve().parents[2] / "build-support" / "locks"
MATRIX = ("2.5", "2.8", "2.12")
OLDEST, NEWEST = MATRIX[0], MATRIX[-1]


@functools.cache
def python_with_flyte(line: str = NEWEST) -> Path:
    """The `python` of the environment with the last Flyte of a line, e.g. "2.5". Made by the first who asks."""
    return environment(LOCKS / f"flyte-{line}.lock")


def pinned(line: str) -> str:
    """The whole version of Flyte that the lock of a line has."""
    lines = (LOCKS / f"flyte-{line}.lock").read_text().splitlines()
    return next(one for one in lines if one.startswith("flyte==")).split()[0].partition("==")[2]


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
            # Scripts name their interpreter by its path, so it is made in its place: what has no mark
            # of completion was left by one that was interrupted.
            shutil.rmtree(directory, ignore_errors=True)
            _run(base, "-I", "-m", "venv", str(directory))
            _run(
                *(str(directory / "bin/python"), "-I", "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", "--no-input", "--no-deps", "--require-hashes"),
                *("--requirement", str(lock_file)),
            )
            complete.touch()
    return directory / "bin/python"


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
