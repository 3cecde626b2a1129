"""Infers dependencies on what code names by constants, not by import statements.

`importlib.import_module("a.b")`, tables of lazy modules, `python -m a.b`, plugins that `pkgutil`
finds, files beside `__file__`: `dynamic_scan` and `data_reads` in `flyte_pack.code` say what they
look like.
"""

from __future__ import annotations

import os
import posixpath
from functools import lru_cache
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Set, Tuple, Union

from pants.backend.python.dependency_inference.rules import (
    PythonImportDependenciesInferenceFieldSet,
)
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonSourceField
from pants.build_graph.address import Address
from pants.core.target_types import FileSourceField, ResourceSourceField
from pants.engine.fs import PathGlobs
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import InferDependenciesRequest, InferredDependencies, Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.code.code_scan import CodeScan, scan_code
from flyte_pack.code.completeness import root_of
from flyte_pack.code.data_reads import Read
from flyte_pack.code.dynamic_scan import GROUP, MAYBE, MODULE, SCRIPT, SUBMODULES, Dynamic
from flyte_pack.code.paths import CWD, HERE
from flyte_pack.code.values import absolute
from pants_flyte import engine
from pants_flyte.changed import ordinary_owners
from pants_flyte.code_scans import scanned_elsewhere
from pants_flyte.engine.types import ImportInfo, SuspectSources
from pants_flyte.first_party import FirstPartyModules, dotted_name
from pants_flyte.globs import exactly, literal_glob, matching
from pants_flyte.layout import root_path
from pants_flyte.registered import Registered
from pants_flyte.subsystem import FlyteSubsystem

_CODE = (".py", ".pyi")


class InferNamedInCode(InferDependenciesRequest):  # type: ignore[type-arg]  # generic only since later versions
    infer_from = PythonImportDependenciesInferenceFieldSet


# --- data -----------------------------------------------------------------------------------------


def place_read(read: Read, path: str, modules: FirstPartyModules) -> Optional[str]:
    """Where a file is that the module at `path` reads, from the build root; None outside of it."""
    if read.start == CWD:
        found = read.path
    elif read.start == HERE:
        found = posixpath.join(posixpath.dirname(path), read.path)
    else:
        directory = _directory_of(read.package, modules)
        if directory is None:
            return None
        found = posixpath.join(directory, read.path)
    found = posixpath.normpath(found)
    return None if found.startswith(("..", "/")) else found


def _directory_of(package: str, modules: FirstPartyModules) -> Optional[str]:
    """The only directory of a package, with or without an `__init__.py`."""
    for name, found in modules.by_name.items():
        if name == package and len(found) == 1 and found[0].is_package:
            return os.path.dirname(found[0].path)
    directories = {
        posixpath.join(root_of(one.path, name), package.replace(".", "/"))
        for name, found in modules.by_name.items()
        if name.startswith(f"{package}.")
        for one in found
    }
    if not directories and "." in package:  # a directory with nothing but data in a package
        above, _, last = package.rpartition(".")
        parent = _directory_of(above, modules)
        directories = set() if parent is None else {posixpath.join(parent, last)}
    return directories.pop() if len(directories) == 1 else None


def keeps_place(owner: Target, source_root: str, from_cwd: bool) -> bool:
    """Whether what reads a file finds it where the owner puts it, if all roots are stripped."""
    is_resource = owner.has_field(ResourceSourceField) or owner.has_field(PythonSourceField)
    if source_root == "":
        return is_resource or owner.has_field(FileSourceField)
    return owner.has_field(FileSourceField) if from_cwd else is_resource


async def files_of(wanted: Iterable[Tuple[Read, str]]) -> Dict[Tuple[Read, str], Tuple[str, ...]]:
    """The files that the repository has of what is read. wanted: with what `place_read` says.

    A path may be a directory, and then all in it is meant: not code, which is imported or not.
    """
    globs: Set[str] = set()
    wanted = list(wanted)
    for read, place in wanted:
        escaped = literal_glob(place)
        if read.pattern:
            globs.add(place.replace("[", "[[]"))
        else:
            globs.add(escaped)
            if _may_be_directory(read):
                globs.add(posixpath.join(escaped, "**"))
    there = (await engine.files_matching(PathGlobs(sorted(globs)))).files if globs else ()
    return {(read, place): tuple(_among(there, read, place)) for read, place in wanted}


def _may_be_directory(read: Read) -> bool:
    """One above the module may have all that there is."""
    return read.start != CWD and not read.path.startswith("..")


def _among(there: Iterable[str], read: Read, place: str) -> Iterator[str]:
    takes_code = read.pattern and read.path.endswith(_CODE)
    inside = matching(there, place) if read.pattern else there
    for path in inside:
        if path == place:
            yield path
        elif path.endswith(_CODE) and not takes_code:
            continue
        elif read.pattern or path.startswith(f"{place}/"):
            yield path


async def _data_of(reads: Iterable[Read], path: str, modules: FirstPartyModules) -> List[Address]:
    placed = ((read, place_read(read, path, modules)) for read in reads)
    from_cwd: Dict[str, bool] = {}
    for (read, _), files in (
        await files_of((read, place) for read, place in placed if place is not None)
    ).items():
        from_cwd.update((file, read.start == CWD) for file in files)
    if not from_cwd:
        return []
    owners = await ordinary_owners(sorted(from_cwd))
    roots = await engine.source_roots(sorted(from_cwd))
    addresses = []
    for file, is_from_cwd in from_cwd.items():
        fitting = [
            one.address
            for one in owners[file]
            if keeps_place(one, root_path(roots[file]), is_from_cwd)
        ]
        addresses += fitting if len(fitting) == 1 else []
    return addresses


# --- modules --------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _by_path(modules: FirstPartyModules) -> Mapping[str, str]:
    """Path -> name. Kept: many modules ask."""
    return {one.path: name for name, of in modules.by_name.items() for one in of}


def _one_of(name: str, modules: FirstPartyModules, resolve: str) -> Iterator[Address]:
    """The only owner in the resolve that is no test."""
    found = [
        one for one in modules.by_name.get(name, ()) if one.is_for(resolve) and not one.is_test
    ]
    if len(found) == 1:
        yield found[0].owner


def _named_by(
    called: Dynamic,
    path: str,
    package: str,
    modules: FirstPartyModules,
    registered: Registered,
    resolve: str,
) -> Iterator[Address]:
    if called.kind == MAYBE:
        inner = called.name.lstrip(".")
        names = [f"{package}.{inner}" if package else inner]
        names += [] if called.name.startswith(".") else [called.name]
        for name in names:
            exact = list(_one_of(name, modules, resolve))
            # The string may name something in a module.
            parent = name.rpartition(".")[0]
            yield from exact or (
                _one_of(parent, modules, resolve) if parent not in ("", package) else ()
            )
    elif called.kind == SUBMODULES:
        base = absolute(called.name, package) if called.name else package
        start, deep = f"{base}.", called.said.startswith("walk")
        for name in modules.by_name:
            if base and name.startswith(start) and (deep or "." not in name[len(start) :]):
                yield from _one_of(name, modules, resolve)
    elif called.kind == SCRIPT:
        for place in (called.name, posixpath.join(posixpath.dirname(path), called.name)):
            found = _by_path(modules).get(posixpath.normpath(place))
            if found is not None:
                yield from _one_of(found, modules, resolve)
                return
    elif called.kind == GROUP:
        for name, _ in registered.by_group.get(called.name, ()):
            yield from _one_of(name, modules, resolve)
    elif called.kind == MODULE and called.said.startswith("python -m"):
        yield from _one_of(f"{called.name}.__main__", modules, resolve)


async def _scan(address: Address, path: str) -> CodeScan:
    found = await engine.contents_matching(exactly([path]))
    if not found:
        return CodeScan()
    try:
        return scan_code(found[0].content, path)
    except (SyntaxError, ValueError):
        scans = await scanned_elsewhere(address, {path: found[0].content})
        return scans.get(path, CodeScan())


@rule(desc="Infer what code names without importing it", level=LogLevel.DEBUG)
async def infer_named_in_code(
    request: InferNamedInCode,
    suspects: SuspectSources,
    modules: FirstPartyModules,
    registered: Registered,
    flyte: FlyteSubsystem,
    python_setup: PythonSetup,
) -> InferredDependencies:
    fields = request.field_set
    path = fields.source.file_path
    if path not in suspects.naming or not flyte.infer_named_in_code:
        return InferredDependencies([])
    scan = await _scan(fields.address, path)
    if not scan.dynamic and not scan.reads:
        return InferredDependencies([])
    resolve = fields.resolve.normalized_value(python_setup)
    name = dotted_name(path, root_path((await engine.source_roots([path]))[path]))
    is_package = os.path.basename(path) == "__init__.py"
    package = name if is_package else name.rpartition(".")[0]
    owners: Set[Address] = set(await _data_of(scan.reads, path, modules))
    imports: Dict[str, ImportInfo] = {}
    for called in scan.dynamic:
        if called.kind == MODULE:
            imports[absolute(called.name, package)] = ImportInfo(called.line, weak=True)
        owners.update(_named_by(called, path, package, modules, registered, resolve))
    if imports:
        owners.update((await engine.owners_of_imports(fields, imports, resolve)).addresses)
    owners.discard(fields.address)
    return InferredDependencies(sorted(owners))


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [*collect_rules(), UnionRule(InferDependenciesRequest, InferNamedInCode)]
