"""Globs for paths that are meant literally."""

from __future__ import annotations

import re
import unicodedata
from typing import Iterable, Sequence

from pants.engine.fs import PathGlobs
from pants.source.filespec import FilespecMatcher

from flyte_pack.errors import UserError


def literal_glob(path: str) -> str:
    """A path from the build root as a glob that matches it alone."""
    literal = "".join(f"[{c}]" if c in "*?[" else c for c in path)
    return f"./{literal}" if path.startswith("!") else literal  # where it would mean "but not"


def composed(path: str) -> str:
    """A path in NFC, the one spelling of those in which a letter and its accent may be apart."""
    return unicodedata.normalize("NFC", path)


def alike_glob(path: str) -> str:
    """Matches the path in each of its spellings, and others: see `composed`."""
    return re.sub(r"[^\x00-\x7f]+", "*", literal_glob(composed(path)))


def exactly(paths: Iterable[str]) -> PathGlobs:
    """Matches the files at these paths, if they exist."""
    return PathGlobs([literal_glob(path) for path in paths])


def matching(paths: Iterable[str], pattern: str) -> Sequence[str]:
    """Those that a pattern of `*`, `**` and `?` means, as globs do; brackets mean themselves."""
    return FilespecMatcher([pattern.replace("[", "[[]")], ()).matches(tuple(paths))


def matcher(globs: Iterable[str], option: str) -> FilespecMatcher:
    """Of the paths from the build root. Raises `UserError`, which names the option or field."""
    wanted = list(globs)
    try:
        return FilespecMatcher(wanted, ())
    except ValueError:
        pass
    for glob in wanted:
        try:
            FilespecMatcher([glob], ())
        except ValueError:
            raise UserError(
                f"`{option}` has {glob!r}, which is no glob from the build root such as "
                "`libs/data/*.pem`."
            ) from None
    raise AssertionError(wanted)
