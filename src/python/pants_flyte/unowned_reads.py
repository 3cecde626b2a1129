"""Files that modules read by a constant path and that no target owns, for `tailor` to propose."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict, Iterator, Tuple

from pants.engine.fs import PathGlobs

from flyte_pack.code.data_reads import Read, named_in
from flyte_pack.code.paths import CWD, PACKAGE
from pants_flyte import engine
from pants_flyte.environments import is_test
from pants_flyte.globs import exactly
from pants_flyte.layout import root_path
from pants_flyte.unowned import OwnedFiles

_CODE = (".py", ".pyi")
# They run in the repository alone.
_NEVER_SHIPPED = ("setup.py", "noxfile.py")


@dataclass(frozen=True)
class UnownedRead:
    """A file that exists, and the module that reads it.

    beside: by its place beside modules, rather than from the working directory.
    """

    path: str
    module: str
    beside: bool


async def unowned_reads(globs: PathGlobs, owned: OwnedFiles) -> Tuple[UnownedRead, ...]:
    """What the modules that match read. One file may be read in both ways, by several modules."""
    found: Dict[str, Tuple[Read, ...]] = {
        file.path: named_in(file.content)
        for file in await engine.contents_matching(globs)
        if not is_test(file.path) and os.path.basename(file.path) not in _NEVER_SHIPPED
    }
    found = {path: of for path, of in found.items() if of}
    roots = await engine.source_roots(sorted(found))
    wanted = [
        UnownedRead(path, module, read.start != CWD)
        for module, of in found.items()
        for read in of
        for path in _paths(read, module, root_path(roots[module]))
        if not path.endswith(_CODE)
    ]
    existing = await engine.files_matching(exactly(sorted({one.path for one in wanted})))
    left = set(owned.without_owner(existing.files))
    return tuple(one for one in wanted if one.path in left)


def _paths(read: Read, module: str, root: str) -> Iterator[str]:
    """Where the file is, from the build root. Beside modules, only what moves with them."""
    if read.start == CWD:
        path, top = os.path.normpath(read.path), ""
    else:
        path = os.path.normpath(os.path.join(_directory(read, module, root), read.path))
        top = root
    if path.startswith(f"{top}/" if top else "") and not path.startswith(("../", "/")):
        yield path


def _directory(read: Read, module: str, root: str) -> str:
    if read.start != PACKAGE:
        return os.path.dirname(module)
    return os.path.join(root, *read.package.split("."))
