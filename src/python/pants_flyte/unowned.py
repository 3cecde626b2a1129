"""Files beside packed modules that no target owns: what Python code most often misses at run time.

Each of them could be a dependency that someone forgot, or something that no code reads.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import Collection, Dict, FrozenSet, Iterable, List, Set, Tuple, Union

from pants.build_graph.address import Address
from pants.engine.fs import PathGlobs
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import MultipleSourcesField, SingleSourceField, SourcesField
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte.build_types import SourceFile
from pants_flyte.globs import literal_glob, matcher
from pants_flyte.ignored import ignored_files
from pants_flyte.named_files import NamedFilesField
from pants_flyte.subsystem import FlyteSubsystem, UnownedFiles

logger = logging.getLogger(__name__)

_BESIDE = ("*", "*/*")
_SHOWN = 3  # how many a warning names before it only counts them
# What nobody reads at run time: no extension (Dockerfile, LICENSE), modules, prose, settings of
# tools. docs/bundles.md has the same list.
_NO_DATA = re.compile(
    r"[^.]+|.*\.(?:py|pyi|ipynb|md|rst|lock)"
    r"|BUILD\..*|Dockerfile\..*|requirements.*\.(?:txt|in)"
    r"|pyproject\.toml|(?:pylock|pants)\b.*\.toml|(?:setup|tox|pytest|mypy)\.(?:cfg|ini)"
)


@dataclass(frozen=True)
class OwnedFiles:
    """Files that a target owns or names, and fields that own files by globs."""

    paths: FrozenSet[str]
    globs: Tuple[MultipleSourcesField, ...]

    def without_owner(self, paths: Iterable[str]) -> List[str]:
        left = [path for path in paths if path not in self.paths]
        for field in self.globs if left else ():
            owned = set(field.filespec_matcher.matches(left))
            left = [path for path in left if path not in owned]
        return left


@rule(desc="Look for files without an owner", level=LogLevel.DEBUG)
async def find_owned_files() -> OwnedFiles:
    """A rule, since each artifact needs it: found once."""
    paths: Set[str] = set()
    globs: List[MultipleSourcesField] = []
    for target in await engine.all_targets():
        if not target.has_field(SourcesField):
            continue
        field = target[SourcesField]
        if isinstance(field, NamedFilesField):
            # A directory that a field names is no owner of what else is in it.
            paths.update(field.named)
        elif isinstance(field, MultipleSourcesField):
            globs.append(field)
        elif isinstance(field, SingleSourceField) and field.value is not None:
            paths.add(field.file_path)
    return OwnedFiles(frozenset(paths), tuple(globs))


async def warn_unowned(
    address: Address,
    modules: Iterable[SourceFile],
    packed: Collection[str],
    owned: OwnedFiles,
    flyte: FlyteSubsystem,
    what: str,
) -> None:
    """Say in one line what has no owner beside the modules of `what`, a bundle or an image.

    packed: paths of all files that are in it.
    """
    if flyte.unowned_files == UnownedFiles.IGNORE:
        return
    directories = {os.path.dirname(file.path) for file in modules if not file.generated}
    found = await _unowned_beside(directories, set(packed), owned, flyte)
    if found:
        more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        count = "1 file has" if len(found) == 1 else f"{len(found):,} files have"
        logger.warning(
            f"{address}: {count} no owner beside packed modules, and so no place in {what}: "
            f"{', '.join(found[:_SHOWN])}{more}. If the code reads them, let "
            '`resources(name="data", sources=[...])` in the BUILD file there own them, and '
            '`dependencies=[":data"]` of the modules\' target bring them. If not: '
            "`[flyte].unowned_files`."
        )


async def _unowned_beside(
    directories: Collection[str], packed: Collection[str], owned: OwnedFiles, flyte: FlyteSubsystem
) -> List[str]:
    """In the directories, and in folders of these that have neither modules nor a BUILD file."""
    globs = [
        os.path.join(literal_glob(d), pattern) for d in sorted(directories) for pattern in _BESIDE
    ]
    inside: Dict[str, List[str]] = {}
    for path in (await engine.files_matching(PathGlobs(globs))).files if globs else ():
        inside.setdefault(os.path.dirname(path), []).append(os.path.basename(path))
    candidates = [
        path
        for directory, names in inside.items()
        if directory in directories or not any(map(_is_code, names))
        for path in (
            os.path.join(directory, name) for name in names if not _NO_DATA.fullmatch(name)
        )
        if path not in packed
    ]
    excluded = set(matcher(flyte.all_excludes, "[flyte].all_excludes").matches(candidates))
    left = owned.without_owner(path for path in candidates if path not in excluded)
    ignored = await ignored_files(left) if left else {}
    return sorted(path for path in left if path not in ignored)


def _is_code(name: str) -> bool:
    """Whether its folder is one of other code, or a virtual environment."""
    return name.endswith((".py", ".pyi", "pyvenv.cfg")) or name.partition(".")[0] == "BUILD"


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
