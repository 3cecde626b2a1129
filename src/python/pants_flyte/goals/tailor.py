"""`tailor`: proposes a target for each environment and app, and a deployment for each directory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Dict, Iterable, List, Set, Union

from pants.core.goals.tailor import PutativeTarget, PutativeTargets, PutativeTargetsRequest
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte.environments import Environment, environments_in
from pants_flyte.subsystem import FlyteSubsystem
from pants_flyte.target_types import (
    FlyteApp,
    FlyteDeployment,
    FlyteEntryPointField,
    FlyteTask,
)


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
        # Pants' own proposal for the sources has the name of the directory.
        here = directories.setdefault(parent, _Directory())
        here.names |= {os.path.basename(parent), "tests", "test_utils"}
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
                kwargs={"entry_point": f"{file}:{one.name}"},
            )
    for parent, names in tasks.items():
        if not directories[parent].deployed:
            yield PutativeTarget.for_target_type(
                FlyteDeployment,
                path=parent,
                name=directories[parent].take("deploy"),
                triggering_sources=(),
                kwargs={"tasks": tuple(names)},
            )


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
    request: PutativeFlyteTargetsRequest, flyte: FlyteSubsystem
) -> PutativeTargets:
    """From the syntax trees alone; a file that does not parse is left to others."""
    if not flyte.tailor:
        return PutativeTargets()
    found = await environments_in(request.path_globs("*.py"))
    if not found:
        return PutativeTargets()
    return PutativeTargets(proposals(found, _directories_of(await engine.all_targets())))


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        UnionRule(PutativeTargetsRequest, PutativeFlyteTargetsRequest),
    ]
