"""The versions of Flyte that registration is tested with: the oldest line that is supported, one
between, the newest.

Each is an environment like that of `flyte_env.py`, with a server for the control plane, made once
from a lock with hashes in build-support/locks and kept between runs.
"""

from __future__ import annotations

import functools
from pathlib import Path

from tests.support.flyte_env import environment

LOCKS = Path(__file__).resolve().parents[2] / "build-support" / "locks"
MATRIX = ("2.5", "2.8", "2.12")
OLDEST, NEWEST = MATRIX[0], MATRIX[-1]


@functools.cache
def python_with_flyte(line: str = NEWEST) -> Path:
    """The `python` of the environment with the last Flyte of a line, e.g.

    "2.5". Made by the first who asks.
    """
    return environment(LOCKS / f"flyte-{line}.lock")


def pinned(line: str) -> str:
    """The whole version of Flyte that the lock of a line has."""
    lines = (LOCKS / f"flyte-{line}.lock").read_text().splitlines()
    return next(one for one in lines if one.startswith("flyte==")).split()[0].partition("==")[2]
