"""`flyte_tasks`: a `flyte_task` for each environment that its files make."""

from __future__ import annotations

import os
from typing import Iterable, Union

from pants.engine.fs import PathGlobs
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import GeneratedTargets, GenerateTargetsRequest
from pants.engine.unions import UnionMembership, UnionRule
from pants.util.logging import LogLevel

from pants_flyte.environments import environments_in
from pants_flyte.errors import FlyteTargetError
from pants_flyte.target_types import (
    FlyteEntryPointField,
    FlyteTask,
    FlyteTasks,
    FlyteTasksFilesField,
)


class GenerateFlyteTasksRequest(GenerateTargetsRequest[FlyteTasks]):
    generate_from = FlyteTasks


@rule(desc="Look for Flyte environments of `flyte_tasks` targets", level=LogLevel.DEBUG)
async def generate_flyte_tasks(
    request: GenerateFlyteTasksRequest, union_membership: UnionMembership
) -> GeneratedTargets:
    generator = request.generator
    base = generator.address.spec_path
    globs = generator[FlyteTasksFilesField].value or ()
    paths = [
        f"!{os.path.join(base, one[1:])}" if one.startswith("!") else os.path.join(base, one)
        for one in globs
    ]
    overrides = request.require_unparametrized_overrides()
    targets = []
    for found in await environments_in(PathGlobs(paths)):
        if found.is_app:
            continue
        file = os.path.relpath(found.path, base or ".")
        name = f"{file[: -len('.py')]}.{found.name}"
        fields = {
            **request.template,
            **overrides.pop(name, {}),
            FlyteEntryPointField.alias: f"{file}:{found.name}",
        }
        address = request.template_address.create_generated(name)
        targets.append(FlyteTask(fields, address, union_membership))
    known = ", ".join(sorted(target.address.generated_name or "" for target in targets)) or "none"
    if overrides:
        unknown = ", ".join(sorted(overrides))
        raise FlyteTargetError(
            generator.address, f"`overrides` names no task: {unknown}. There are: {known}."
        )
    if not targets:
        raise FlyteTargetError(
            generator.address,
            f"`files={list(globs)}` hold no `flyte.TaskEnvironment` with tasks: name others.",
        )
    return GeneratedTargets(generator, targets)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [*collect_rules(), UnionRule(GenerateTargetsRequest, GenerateFlyteTasksRequest)]
