"""Hands files to a sandbox in groups, so that after an edit Pants writes one group there anew.

Having ten thousand files in a sandbox takes longer than packing them. Pants keeps what a process
gets as immutable inputs for as long as its daemon lives, and links it into each sandbox.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Optional, Set, Tuple

from pants.engine.fs import Digest

from pants_flyte import engine
from pants_flyte.globs import exactly

SOURCES = "sources"
_GROUP = 64  # files, roughly
_MOST = 256  # groups: each is a link in the sandbox
_HELD = "held"  # the group of files that come in digests


@dataclass(frozen=True)
class SourceInputs:
    """Inputs of a process that has files below the directory `SOURCES`.

    digest: written into each sandbox. kept: by its directory, what is linked there. place_of: where
    a file is below `SOURCES`, by its path and the digest that holds it.
    """

    digest: Digest
    kept: Mapping[str, Digest]
    place_of: Mapping[Tuple[str, Optional[Digest]], str]


async def source_inputs(files: Iterable[Tuple[str, Optional[Digest]]]) -> SourceInputs:
    """files: paths from the build root, each with the digest that holds it; None: the repository.

    Two digests must not have different files at one path.
    """
    held: Set[Digest] = set()
    in_repository: Dict[str, List[str]] = defaultdict(list)
    place_of: Dict[Tuple[str, Optional[Digest]], str] = {}
    for path, digest in files:
        if digest is None:
            in_repository[os.path.dirname(path)].append(path)
        else:
            held.add(digest)
            place_of[path, digest] = f"{_HELD}/{path}"
    groups: Dict[int, List[str]] = defaultdict(list)
    # A power of two, so that a few files more or less rarely move the others.
    total = sum(map(len, in_repository.values()))
    count = min(1 << (total // _GROUP).bit_length(), _MOST)
    for directory, paths in in_repository.items():
        number = hashlib.sha256(directory.encode()).digest()[0] % count
        groups[number] += paths
        place_of.update(((path, None), f"{number}/{path}") for path in paths)
    globs = [exactly(sorted(set(paths))) for _, paths in sorted(groups.items())]
    kept = dict(zip((f"{SOURCES}/{n}" for n in sorted(groups)), await engine.digests_of(globs)))
    digest = await engine.under_prefix(await engine.merge_digests(held), f"{SOURCES}/{_HELD}")
    return SourceInputs(digest, kept, place_of)
