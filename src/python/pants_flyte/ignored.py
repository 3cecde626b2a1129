"""What `copy_style="all"` leaves out because the repository ignores it, and by which file."""

from __future__ import annotations

import os
from typing import Collection, Dict, Mapping, Tuple

from pants.engine.fs import PathGlobs

from flyte_pack.ignore_files import EXCLUDE, IGNORE_FILES, IgnoreFiles
from pants_flyte import engine
from pants_flyte.globs import literal_glob
from pants_flyte.layout import directories_above


async def ignored_files(paths: Collection[str]) -> Dict[str, str]:
    """Those of the files that are ignored, with the ignore file that says so.

    All paths are from the build root.
    """
    above = await engine.ignore_files_above()
    directories = {"", *(d for path in paths for d in directories_above(path))}
    globs = [os.path.join(literal_glob(d), name) for d in directories for name in IGNORE_FILES]
    found = await engine.contents_matching(PathGlobs(sorted(globs)))
    inside = {f"{above.prefix}{file.path}": file.content for file in found}
    files = IgnoreFiles({**above.contents, **inside}, above.exclude)
    decided = ((path, files.ignored_by(f"{above.prefix}{path}")) for path in paths)
    return {path: _as_named(by, above.prefix) for path, by in decided if by is not None}


def _as_named(ignore_file: str, prefix: str) -> str:
    """An ignore file as it is named from the build root."""
    return ignore_file if ignore_file == EXCLUDE else os.path.relpath(ignore_file, prefix or ".")


def left_out(ignored: Mapping[str, str]) -> Tuple[str, ...]:
    """For reports: each ignore file, and how many files it leaves out."""
    by = list(ignored.values())
    return tuple(f"{name} ({by.count(name):,})" for name in sorted(set(by)))
