"""`tailor`: proposes a target for each environment and app, a deployment for each directory, and
targets for the data that modules read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Collection, Dict, Iterable, List, Mapping, Set, Tuple, Union

from pants.core.goals.tailor import PutativeTarget, PutativeTargets, PutativeTargetsRequest
from pants.core.target_types import FilesGeneratorTarget, ResourcesGeneratorTarget
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte.environments import Environment, environments_in
from pants_flyte.globs import literal_glob
from pants_flyte.subsystem import FlyteSubsystem
from pants_flyte.target_types import (
    FlyteApp,
    FlyteDeployment,
    FlyteEntryPointField,
    FlyteTask,
)
from pants_flyte.unowned import OwnedFiles
from pants_flyte.unowned_reads import UnownedRead, unowned_reads


@dataclass(frozen=True)
class PutativeFlyteTargetsRequest(PutativeTargetsRequest):
    """The directories that `tailor` looks into."""


@dataclass
class _Directory:
    """What a directory has already: the names of targets, and whether one is a deployment."""

    names: Set[str] = field(default_factory=set)
    entries: Set[str] = field(default_factory=set)  # `file.py:name`
    deployed: bool = False

    def take(self, *wanted: str) -> str:
        """The first of these names that is free, else the last with a number."""
        numbered = (f"{wanted[-1]}{number}" for number in range(2, 10_000))
        name = next(one for one in (*wanted, *numbered) if one not in self.names)
        self.names.add(name)
        return name


def proposals(
    found: Iterable[Environment], directories: Dict[str, _Directory]
) -> Iterable[PutativeTarget]:
    """What `tailor` is to write. directories: what is there, by path; it grows by what is new."""
    by_path: Dict[str, List[Environment]] = {}
    for one in found:
        by_path.setdefault(one.path, []).append(one)
    tasks: Dict[str, List[str]] = {}
    for path, of_file in sorted(by_path.items()):
        parent, file = os.path.split(path)
        here = _known(parent, directories)
        stem = file[: -len(".py")]
        for one in of_file:
            if here.entries & {file, *(f"{file}:{name}" for name in one.covers)}:
                continue
            name = here.take(*([stem] if len(of_file) == 1 else []), f"{stem}_{one.name}")
            tasks.setdefault(parent, []).append(f":{name}")
            yield PutativeTarget.for_target_type(
                FlyteApp if one.is_app else FlyteTask,
                path=parent,
                name=name,
                triggering_sources=(),
                kwargs={**_named(parent, name), "entry_point": f"{file}:{one.name}"},
            )
    for parent, names in tasks.items():
        if not directories[parent].deployed:
            name = directories[parent].take("deploy")
            yield PutativeTarget.for_target_type(
                FlyteDeployment,
                path=parent,
                name=name,
                triggering_sources=(),
                kwargs={**_named(parent, name), "tasks": tuple(names)},
            )


def data_proposals(
    found: Iterable[UnownedRead], directories: Dict[str, _Directory], searched: Collection[str]
) -> Iterable[PutativeTarget]:
    """`resources` for what is read beside a module, `files` for the rest, in these directories."""
    by_path: Dict[str, List[UnownedRead]] = {}
    for one in sorted(found, key=lambda one: (not one.beside, one.module)):
        by_path.setdefault(one.path, []).append(one)
    together: Dict[Tuple[str, bool], List[str]] = {}
    for path, by in sorted(by_path.items()):
        if literal_glob(path) == path:  # else a BUILD file can not say it
            together.setdefault((_home(by[0], directories), by[0].beside), []).append(path)
    for (home, beside), paths in sorted(together.items()):
        if home not in searched:
            continue
        kind = ResourcesGeneratorTarget if beside else FilesGeneratorTarget
        sources = tuple(os.path.relpath(path, home or ".") for path in paths)
        first, *others = sorted({one.module for path in paths for one in by_path[path]})
        more = f" and {len(others):,} more" if others else ""
        name = _known(home, directories).take("data", kind.alias)
        yield PutativeTarget.for_target_type(
            kind,
            path=home,
            name=name,
            triggering_sources=sources,
            kwargs={**_named(home, name), "sources": sources},
            comments=(f"# Read by {first}{more}, whose target has to depend on it.",),
        )


def _named(path: str, name: str) -> Dict[str, str]:
    """At the build root, Pants calls a target `root` whose name is not written out."""
    return {} if path else {"name": name}


def _known(path: str, directories: Dict[str, _Directory]) -> _Directory:
    here = directories.setdefault(path, _Directory())
    # Pants' own proposal for the sources has the name of the directory.
    here.names |= {os.path.basename(path) or "root", "tests", "test_utils"}
    return here


def _home(read: UnownedRead, directories: Mapping[str, _Directory]) -> str:
    """Where the target of a file goes: beside it, or beside the module above, if there is none."""
    home, module = os.path.dirname(read.path), os.path.dirname(read.module)
    below = home.startswith(f"{module}/") if module else read.beside
    return module if below and home not in directories else home


def _directories_of(targets: Iterable[Target]) -> Dict[str, _Directory]:
    found: Dict[str, _Directory] = {}
    for target in targets:
        here = found.setdefault(target.address.spec_path, _Directory())
        here.names.add(target.address.target_name)
        if target.has_field(FlyteEntryPointField):
            entry = target[FlyteEntryPointField].value
            directory, file = os.path.split(
                os.path.normpath(os.path.join(target.address.spec_path, entry))
            )
            found.setdefault(directory, _Directory()).entries.add(file)
        here.deployed |= isinstance(target, FlyteDeployment)
    return found


@rule(desc="Look for Flyte environments without a target", level=LogLevel.DEBUG)
async def propose_flyte_targets(
    request: PutativeFlyteTargetsRequest, flyte: FlyteSubsystem, owned: OwnedFiles
) -> PutativeTargets:
    """From the syntax trees alone; a file that does not parse is left to others."""
    if not flyte.tailor:
        return PutativeTargets()
    modules = request.path_globs("*.py")
    found = await environments_in(modules)
    data = await unowned_reads(modules, owned)
    if not found and not data:
        return PutativeTargets()
    directories = _directories_of(await engine.all_targets())
    return PutativeTargets(
        (*proposals(found, directories), *data_proposals(data, directories, request.dirs))
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        UnionRule(PutativeTargetsRequest, PutativeFlyteTargetsRequest),
    ]
