"""Why something is not in a bundle or image, and what to write so that it is."""

from __future__ import annotations

import os
import shlex
from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    PythonRequirementResolveField,
    PythonRequirementsField,
    PythonResolveField,
    PythonSourceField,
    PythonTestSourceField,
)
from pants.base.build_environment import get_buildroot
from pants.build_graph.address import Address
from pants.engine.target import SourcesField, Target
from pants.util.docutil import bin_name

from flyte_pack.code.code_scan import TYPING, CodeScan
from flyte_pack.code.stdlib_modules import versions_with
from flyte_pack.explain import Requirement
from flyte_pack.names import normalized
from flyte_shim.paths import path_problem
from pants_flyte import engine
from pants_flyte import target_types as types
from pants_flyte.artifact import locked_of
from pants_flyte.base_image import Base, base_of, image_of
from pants_flyte.build_types import Explained
from pants_flyte.changed import ordinary_owners
from pants_flyte.code_scans import scans_of
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.globs import exactly
from pants_flyte.ignored import ignored_files
from pants_flyte.image_target_types import FlyteBaseImage, FlyteImage
from pants_flyte.targets import is_in_resolve
from pants_flyte.task_packages import PackageSettings

_LIKE_IT = 3  # how many files with that name are named
_OF_FLYTE = frozenset(
    kind.alias
    for kind in (
        *(FlyteBaseImage, FlyteImage, types.FlyteApp),
        *(types.FlyteBundle, types.FlyteDeployment, types.FlyteTask),
    )
)


async def why_missing(
    asked: str, explained: Explained, modules: FirstPartyModules, packages: PackageSettings
) -> str:
    """asked: a path, a module, an address or a distribution that the artifact does not have."""
    path, python_setup = asked, packages.python_setup
    if os.path.isabs(asked):
        return await _in_the_image(asked, explained, packages)
    if path_problem(asked) or not (await engine.files_matching(exactly([asked]))).files:
        found = modules.find(asked, explained.resolve)
        others = modules.by_name.get(asked, ())
        one = found or (others[0] if others else None)
        if one is None:
            named = await _targets_called(asked) if ":" in asked else []
            ours = [target.alias for target in named if target.alias in _OF_FLYTE]
            if ours:
                return f"it is a `{ours[0]}`, and no file. Ask for a file or module of its code."
            if named:
                return await _about_owners(asked, named, explained, modules, python_setup)
            return await _no_file(asked, explained, packages)
        path = one.path
    owners = (await ordinary_owners([path]))[path]
    return await _about_owners(path, owners, explained, modules, python_setup)


async def brought_by_others(
    asked: str, explained: Explained, python_setup: PythonSetup
) -> Optional[Tuple[Sequence[str], str, str]]:
    """How a distribution gets there that only other distributions need, as far as the lock file
    says: their names on a shortest way, the target that requires the first, and its own version.
    """
    wanted = normalized(asked)
    lock = await locked_of(explained.resolve, python_setup)
    if wanted not in lock.names:
        return None
    ways = []
    for one in explained.artifact.requirements:
        names = lock.way(one.distributions, wanted)
        if names is not None and len(names) > 1:
            ways.append((len(names), one.target, tuple(names)))
    if not ways:
        return None
    _, target, names = min(ways)
    return names, target, lock.versions.get(wanted, "")


async def _targets_called(asked: str) -> List[Target]:
    """Those with files, of that address, or generated from a target of that address."""
    return [
        target
        for target in await engine.all_targets()
        if asked in (target.address.spec, _spec(target.address))
        and (target.has_field(SourcesField) or target.alias in _OF_FLYTE)
    ]


async def _about_owners(
    path: str,
    owners: Sequence[Target],
    explained: Explained,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
) -> str:
    """path: of a file, or the address of a target that owns some."""
    root = explained.artifact.root
    if not owners:
        return await _unowned(path, explained)
    fitting = [t for t in owners if is_in_resolve(t, explained.resolve, python_setup)]
    if not fitting:
        theirs = owners[0][PythonResolveField].normalized_value(python_setup)
        return _of_another_resolve(owners[0].address, theirs, explained)
    excluded = _excluded((t.address for t in fitting), explained)
    if excluded:
        return excluded
    if not explained.artifact.files:
        return (
            f"the code of {root} comes in bundles. To have the code in the image, set `code=True`."
        )
    if all(t.has_field(PythonTestSourceField) for t in fitting):
        return (
            f"it is a test (of {_spec(fitting[0].address)}), and nothing that ships imports it. "
            "Code that ships belongs into a module of `python_sources`."
        )
    if len(fitting) > 1 and path == _spec(fitting[0].address):
        return (
            f"it is a target of {len(fitting)} files, and nothing that ships imports one of them "
            f"or names it in `dependencies`. Add {path} to `dependencies` of the target whose code "
            f"needs it, or of {root}."
        )
    if len(fitting) > 1 and fitting[0].has_field(PythonSourceField):
        return (
            f"several targets own it: {', '.join(sorted(t.address.spec for t in fitting))}. Pants "
            "infers no dependency on a module with several owners: name the one that is meant in "
            f"`dependencies` of {root} or of what imports it, or leave one owner."
        )
    owner = fitting[0].address
    how = "names it"
    importers = ""
    if fitting[0].has_field(PythonSourceField):
        how = "imports it or names it"
        importers = _said_of(await _importers(path, explained, modules))
    return (
        f"its owner is {owner}, and nothing that ships {how} in `dependencies`. {importers}Add "
        f"{owner} to `dependencies` of the target whose code needs it, or of {root}. "
        f"`{bin_name()} dependents {shlex.quote(owner.spec)}` lists what depends on it."
    )


class _Importer(NamedTuple):
    """A module with an import of what does not ship. guard: as of `code_scan.Imported`."""

    path: str
    line: int
    guard: str


async def _importers(
    path: str, explained: Explained, modules: FirstPartyModules
) -> List[_Importer]:
    """The modules of the resolve that import the one at `path`, by path, each once."""
    names = {
        name for name, found in modules.by_name.items() if any(one.path == path for one in found)
    }
    others = {
        one.path: (name, one.is_package)
        for name, found in modules.by_name.items()
        for one in found
        if one.is_for(explained.resolve) and one.path != path
    }
    scans = await scans_of(explained.address, dict.fromkeys(others))
    return [
        found
        for other, scan in sorted(scans.items())
        for found in (_first_import(other, *others[other], scan, names),)
        if found is not None
    ]


def _first_import(
    path: str, module: str, is_package: bool, scan: CodeScan, names: Iterable[str]
) -> Optional[_Importer]:
    """name, is_package: of the module at `path`. One that runs comes before one for types alone."""
    above = module.split(".") if is_package else module.split(".")[:-1]
    found = []
    for one in scan.imports:
        base = one.module
        if one.level:
            start = above[: len(above) - one.level + 1]
            base = ".".join([*start, *([base] if base else [])])
        if base in names or f"{base}.{one.name}" in names:
            found.append(_Importer(path, one.line, one.guard))
    return min(found, key=lambda one: (one.guard == TYPING, one.line)) if found else None


def _said_of(importers: Sequence[_Importer]) -> str:
    """A sentence, with a space behind it; "" of nothing."""
    if not importers:
        return ""
    only_types = all(one.guard == TYPING for one in importers)
    shown = [f"{one.path} (line {one.line})" for one in importers[:_LIKE_IT]]
    more = f" and {len(importers) - _LIKE_IT} more" if importers[_LIKE_IT:] else ""
    it = "them" if importers[1:] else "that"
    for_types = ", for types alone (under `TYPE_CHECKING`)" if only_types else ""
    return (
        f"It is imported by {', '.join(shown)}{more}{for_types}: nothing that ships leads to "
        f"{it} either. "
    )


async def _unowned(path: str, explained: Explained) -> str:
    directory, name = os.path.split(path)
    build = os.path.join(directory, "BUILD")
    if explained.copy_style == "all":
        by = (await ignored_files([path])).get(path)
        if by:
            return f"no target owns it, and {by} leaves it out. Take it out of that file."
    if name.endswith(".py"):
        return f"no target owns it. Write `python_sources()` into {build}."
    return (
        f'no target owns it. Write `resources(name="data", sources=["{name}"])` into {build}, and '
        '`dependencies=[":data"]` into the target of the module that reads it.'
    )


def _of_another_resolve(owner: Address, theirs: str, explained: Explained) -> str:
    ours = explained.resolve
    return (
        f"its owner {owner} belongs to the resolve `{theirs}`, and {explained.artifact.root} to "
        f'`{ours}`. For both, set `resolve=parametrize("{ours}", "{theirs}")` of the owner.'
    )


def _excluded(owners: Iterable[Address], explained: Explained) -> Optional[str]:
    root = explained.artifact.root
    for owner in owners:
        names = (owner, owner.maybe_convert_to_target_generator())
        for address, by, mark in explained.excluded:
            if address in names and mark == "!":
                # Pants counts what has `!!` in the target's own field among what has `!`.
                by_own = by == explained.address
                mark = f"`!` or `!!` before {address}" if by_own else f"`!{address}`"
                return f"`dependencies` of {by} takes it out, by {mark}. Leave that out."
            if address in names:
                return (
                    f"{by} depends on it, and `dependencies` of {root} takes it out, by `!!` "
                    f"before {address} or its target. Leave that out."
                )
    return None


async def _base_below(
    explained: Explained, packages: PackageSettings
) -> Optional[Tuple[Address, Base]]:
    """The image that runs the code, and its base; None where that is not built here, or cannot."""
    (target,) = await engine.targets_at([explained.address])
    try:
        image = await image_of(target)
        if image is None:
            return None
        return image.address, await base_of(image, packages.flyte_pack, packages.python_setup)
    except FlyteTargetError:  # building the image reports it
        return None


async def _in_the_image(asked: str, explained: Explained, packages: PackageSettings) -> str:
    """asked: an absolute path outside of the build root."""
    found = await _base_below(explained, packages)
    if found is None:
        return "it is outside of the build root. Ask for a path from there."
    image, base = found
    for environment in base.environments.values():
        for one in environment.distributions:
            for path in one.paths or ():
                if f"{asked}/".startswith(f"/{path}/"):
                    return (
                        f"it is in a layer of the base {base.address}, which has {one.name} "
                        f"{one.version}. Nothing in this repository brings it."
                    )
    return (
        "nothing in this repository puts a file there. If the image has it, it is in a layer of "
        f"the base {base.address}, whose files are not listed here: `{bin_name()} run "
        f"{shlex.quote(image.spec)} -- ls -ld {shlex.quote(asked)}` looks."
    )


async def _in_base(asked: str, explained: Explained, packages: PackageSettings) -> str:
    """What the base has of a distribution, as a sentence with a space behind it; "" for nothing."""
    found = await _base_below(explained, packages)
    for environment in found[1].environments.values() if found else ():
        for one in environment.distributions:
            if found and one.name == normalized(asked):
                return (
                    f"a layer of the base {found[1].address} has {one.name} {one.version}, in "
                    f"{one.place}, and the image adds none. "
                )
    return ""


async def _no_file(asked: str, explained: Explained, packages: PackageSettings) -> str:
    """Where there is no such file or module as far as Pants knows: perhaps a distribution."""
    python_setup = packages.python_setup
    pythons = versions_with(asked.partition(".")[0])
    if pythons:
        return f"it is of Python's standard library ({pythons} has it), which is in no bundle."
    required = [t for t in await engine.all_targets() if t.has_field(PythonRequirementsField)]
    named = [
        target
        for target in required
        if Requirement("", tuple(map(str, target[PythonRequirementsField].value))).answers_to(asked)
    ]
    ours = [t for t in named if _resolve(t, python_setup) == explained.resolve]
    base = await _in_base(asked, explained, packages)
    if ours:
        owner = ours[0].address
        return base + (
            _excluded([owner], explained)
            or f"{owner} requires it, and nothing that ships imports it. Add {owner} to "
            "`dependencies` of the target whose code needs it, or of "
            f"{explained.artifact.root}."
        )
    if named:
        theirs = _resolve(named[0], python_setup)
        return base + _of_another_resolve(named[0].address, theirs, explained)
    if base:
        return f"{base}To have one of the lock file, write a `python_requirement` for it."
    if os.path.lexists(os.path.join(get_buildroot(), asked)):
        if os.path.isdir(os.path.join(get_buildroot(), asked)):
            return "it is a directory. Ask for a file in it."
        return (
            "Pants ignores it, by `.gitignore` or `[GLOBAL].pants_ignore`. Take it out there, or "
            f'add "!{asked}" to `[GLOBAL].pants_ignore`.'
        )
    alike = _alike(asked, explained)
    return (
        "there is no file at that path from the build root, no module and no requirement of that "
        f"name.{' There is ' + ', '.join(alike) + '.' if alike else ''}"
    )


def _resolve(target: Target, python_setup: PythonSetup) -> str:
    return target[PythonRequirementResolveField].normalized_value(python_setup)


def _alike(asked: str, explained: Explained) -> List[str]:
    """Files that ship and end in the same name."""
    name = os.path.basename(asked)
    found = [f.source for f in explained.artifact.files if os.path.basename(f.source) == name]
    return found[:_LIKE_IT]


def _spec(address: Address) -> str:
    return address.maybe_convert_to_target_generator().spec
