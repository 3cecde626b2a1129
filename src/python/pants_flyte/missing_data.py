"""Finds the files that code opens, and that are not where it looks for them in what ships.

What a module opens says `flyte_pack.code.data_reads`; `completeness` asks, and tells.
"""

from __future__ import annotations

import posixpath
from typing import (
    Collection,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from pants.core.target_types import FileSourceField, ResourceSourceField
from pants.engine.fs import Digest
from pants.engine.target import Target

from flyte_pack.code.code_scan import CodeScan
from flyte_pack.code.completeness import (
    ERROR,
    QUIET,
    UNSURE,
    Finding,
)
from flyte_pack.code.data_reads import Read
from flyte_pack.code.dynamic_scan import SCRIPT
from flyte_pack.code.paths import CWD, HERE, PACKAGE
from pants_flyte.build_types import SourceFile
from pants_flyte.changed import ordinary_owners
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.globs import matching
from pants_flyte.named_in_code import files_of, place_read


async def missing_data(
    own: Mapping[str, SourceFile],
    scans: Mapping[str, CodeScan],
    placed: Mapping[str, Tuple[SourceFile, Optional[Digest]]],
    modules: FirstPartyModules,
) -> List[Finding]:
    """Files that the repository has, and that code does not find where it looks for them.

    own: the modules of the artifact, and placed: all of its files, by their paths in it. scans: of
    the modules, by their paths in the repository.
    """
    opened = [one for one in _opened(own, scans, modules) if not _is_placed(one, placed)]
    lacking = await _lacking(opened, placed)
    if not lacking:
        return []
    owners = await ordinary_owners(sorted({one.at for one in lacking}))
    elsewhere = {file.path: path for path, (file, _) in placed.items()}
    found = []
    for one in lacking:
        read = one.opened.read
        certain = read.start != CWD and read.sure and one.none
        certain = certain and (one.exists or not read.pattern)
        found.append(
            Finding(
                one.opened.importer.path,
                read.line,
                read.path,
                one.at,
                QUIET if read.optional else ERROR if certain else UNSURE,
                _about_data(one, owners[one.at], elsewhere.get(one.at)),
            )
        )
    return found


class _Opened(NamedTuple):
    """What is read. at: its path from the build root. expected: in the artifact."""

    importer: SourceFile
    read: Read
    at: str
    expected: str


def _opened(
    own: Mapping[str, SourceFile], scans: Mapping[str, CodeScan], modules: FirstPartyModules
) -> Iterator[_Opened]:
    for path, file in sorted(own.items()):
        if file.path not in scans:
            continue
        scan = scans[file.path]
        # A script that is started is read from the working directory as well.
        scripts = [
            Read(CWD, posixpath.normpath(one.name), one.line, optional=bool(one.guard))
            for one in scan.dynamic
            if one.kind == SCRIPT
        ]
        for read in (*scan.reads, *scripts):
            at = place_read(read, file.path, modules)
            if at is None:
                continue
            expected = read.path
            if read.start == HERE:
                expected = posixpath.normpath(posixpath.join(posixpath.dirname(path), read.path))
            elif read.start == PACKAGE:
                if path != file.stripped:  # `root_dir` parts names and places: an error of its own
                    continue
                expected = posixpath.join(read.package.replace(".", "/"), read.path)
            yield _Opened(file, read, at, expected)


class _Lacking(NamedTuple):
    """A file of the repository that is not where it is looked for. others: more of the directory.

    none: whether all of the directory lacks. exists: whether the repository has it.
    """

    opened: _Opened
    at: str
    expected: str
    others: int
    none: bool
    exists: bool = True


def _is_placed(one: _Opened, placed: Collection[str]) -> bool:
    if one.expected in placed:
        return True
    if not one.read.included:  # of a directory that is read, a part may be there
        return False
    inside = f"{one.expected}/"
    if any(path.startswith(inside) for path in placed):
        return True
    return one.read.pattern and bool(matching(placed, one.expected))


async def _lacking(opened: Sequence[_Opened], placed: Collection[str]) -> List[_Lacking]:
    by_place: Dict[Tuple[Read, str], _Opened] = {}
    for one in opened:
        # One read for each place: several modules may read the same.
        by_place.setdefault((one.read, one.at), one)
    found: List[_Lacking] = []
    there = await files_of(by_place)
    for key, one in by_place.items():
        files = there[key]
        # The same way down in the artifact as in the repository, below what they have in common.
        expected = {
            file: one.expected if file == one.at else _moved(file, one.at, one.expected)
            for file in files
        }
        gone = [file for file in files if expected[file] not in placed]
        if one.read.included and not files:
            found.append(_Lacking(one, one.at, one.expected, 0, none=True, exists=False))
        if gone:
            none = len(gone) == len(files)
            found.append(_Lacking(one, gone[0], expected[gone[0]], len(gone) - 1, none))
    return found


def _moved(file: str, at: str, expected: str) -> str:
    """Where a file of a directory is expected. at, expected: the directory or pattern of it."""
    common = len(posixpath.commonprefix([at[::-1], expected[::-1]]))
    before, after = at[: len(at) - common], expected[: len(expected) - common]
    return after + file[len(before) :]


def _about_data(one: _Lacking, owners: Sequence[Target], elsewhere: Optional[str]) -> str:
    directory, name = posixpath.split(one.at)
    build = posixpath.join(directory, "BUILD")
    if not one.exists:
        return (
            f"an environment includes it, and the repository has no {one.at}: `include` starts at "
            "the directory of its module"
        )
    from_cwd = one.opened.read.start == CWD
    more = f" (and {one.others:,} more)" if one.others else ""
    if one.others:
        name = f"*{posixpath.splitext(name)[1]}"
    if one.at.endswith((".py", ".pyi")):
        if not owners:
            return f"no target owns {one.at}{more}; write `python_sources()` into {build}"
        shown = ", ".join(owner.address.spec for owner in owners[:4])
        return f"{shown} has it{more}; add it to `dependencies` of the target that names it"
    kind = "files" if from_cwd else "resources"
    if elsewhere is not None:
        wanted = (
            "let `files` own it, which keeps its path"
            if from_cwd
            else "let `resources` own it, which move with the modules beside them"
        )
        return (
            f"{one.at}{more} is at {elsewhere}, and this looks for it at {one.expected}; {wanted}"
        )
    if not owners:
        return (
            f'no target owns {one.at}{more}; write `{kind}(name="data", sources=["{name}"])` into '
            f"{build}, and its address into `dependencies` of the target that reads it"
        )
    shown = ", ".join(owner.address.spec for owner in owners[:4])
    supplies = "supplies" if len(owners) == 1 else "supply"
    field = FileSourceField if kind == "files" else ResourceSourceField
    if not any(owner.has_field(field) for owner in owners):
        return (
            f"{shown} {supplies} it{more}, which would be found elsewhere in what ships; let "
            f'`{kind}(name="data", sources=["{name}"])` own it'
        )
    return f"{shown} {supplies} it{more}; add it to `dependencies` of the target that reads it"
