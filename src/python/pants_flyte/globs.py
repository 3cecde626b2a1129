"""Globs for paths that are meant literally."""

from __future__ import annotations

from typing import Iterable

from pants.engine.fs import PathGlobs


def literal_glob(path: str) -> str:
    """A path from the build root as a glob that matches it alone."""
    literal = "".join(f"[{c}]" if c in "*?[" else c for c in path)
    return f"./{literal}" if path.startswith("!") else literal  # where it would mean "but not"


def exactly(paths: Iterable[str]) -> PathGlobs:
    """Matches the files at these paths, if they exist."""
    return PathGlobs([literal_glob(path) for path in paths])
