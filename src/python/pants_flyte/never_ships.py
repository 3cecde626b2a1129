"""What stays out where whole directories ship: `copy_style="all"`, and folders that images copy."""

from __future__ import annotations

import os
from typing import Collection, List

from pants.engine.fs import PathGlobs

from pants_flyte import engine
from pants_flyte.globs import literal_glob, matcher
from pants_flyte.subsystem import FlyteSubsystem

# What an environment holds: one of Python (PEP 405), one of conda.
_MARKS = ("pyvenv.cfg", "conda-meta/history")


async def everything_below(roots: Collection[str], flyte: FlyteSubsystem) -> PathGlobs:
    """Globs for all below these directories but what never ships."""
    excludes = excluded_below(roots, flyte)
    for environment in await _environments(roots, excludes):
        excludes.append(f"!{os.path.join(literal_glob(environment), '**')}")
    return PathGlobs([*(os.path.join(literal_glob(r), "**") for r in sorted(roots)), *excludes])


def excluded_below(roots: Collection[str], flyte: FlyteSubsystem) -> List[str]:
    """`[flyte].all_excludes`, without those that would leave out a directory that is asked for."""
    names = [os.path.join(root, "-") for root in roots]
    return [
        f"!{pattern}"
        for pattern in flyte.all_excludes
        if not matcher([pattern], "[flyte].all_excludes").matches(names)
    ]


async def _environments(roots: Collection[str], excludes: Collection[str]) -> List[str]:
    """The virtual environments."""
    globs = [os.path.join(literal_glob(root), "**", mark) for root in roots for mark in _MARKS]
    found = await engine.files_matching(PathGlobs([*globs, *excludes]))
    return [
        path[: -len(mark)].rstrip("/")
        for path in found.files
        for mark in _MARKS
        if path.endswith(f"/{mark}")
    ]
