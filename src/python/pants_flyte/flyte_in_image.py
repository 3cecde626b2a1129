"""Checks that an image for tasks has flyte, whose command `a0` starts tasks."""

from __future__ import annotations

import re
from typing import Iterable, List, Sequence, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    PythonRequirementResolveField,
    PythonRequirementsField,
    PythonResolveField,
)
from pants.build_graph.address import Address
from pants.engine.target import Target

from flyte_pack.image.environment import Environment
from pants_flyte import engine
from pants_flyte.closure import reached_from
from pants_flyte.errors import FlyteTargetError
from pants_flyte.target_types import FlyteTask, FlyteTaskImageField

_FLYTE = re.compile(r"\s*flyte(?![\w.-])", re.IGNORECASE)
_NAMED = 5


async def check_flyte(
    image: Target,
    roots: Sequence[str],
    environments: Iterable[Environment],
    python_setup: PythonSetup,
) -> None:
    """Raises `FlyteTargetError` for an image of tasks in which nothing could start them.

    roots: the requirements that it was made for. environments: those where none of them led to it.
    """
    # A lock file from before the base's files were looked at leaves it open.
    if all(environment.has_flyte is not False for environment in environments):
        return
    everything = await engine.all_targets()
    tasks = await _tasks_of(image, everything, python_setup)
    if not tasks:
        return
    problem = f"it is for {tasks[0]} and has no `flyte`, whose `a0` starts tasks"
    asked = [root for root in roots if _FLYTE.match(root)]
    if asked:
        raise FlyteTargetError(
            image.address,
            f"{problem}: `{asked[0]}` does not ask for it on the platform and Python of the image.",
        )
    resolve = image[PythonResolveField].normalized_value(python_setup)
    here, elsewhere = _requirements_of_flyte(everything, resolve, python_setup)
    if len(here) > 1:
        advice = (
            f"{', '.join(here[:_NAMED])} own the module, so that Pants infers no dependency on it. "
            f"Add the one that is meant to the `dependencies` of {tasks[0]} or of this image."
        )
    elif here:
        advice = (
            f"no dependency leads to {here[0]}. Add it to the `dependencies` of {tasks[0]} or of "
            "this image."
        )
    else:
        of_others = f"; {elsewhere[0]} is of another" if elsewhere else ""
        named = f', resolve="{resolve}"' if python_setup.enable_resolves else ""
        advice = (
            f"no target of the resolve `{resolve}` requires it{of_others}. Write "
            f'`python_requirement(name="flyte", requirements=["flyte"]{named})`, and make the lock '
            "file anew."
        )
    raise FlyteTargetError(image.address, f"{problem}: {advice}")


async def _tasks_of(
    image: Target, everything: Iterable[Target], python_setup: PythonSetup
) -> List[Address]:
    """The tasks that the image takes from, or that name it."""
    reached = await reached_from([image.address], python_setup)
    tasks = {target.address for target in reached if isinstance(target, FlyteTask)}
    return sorted({*tasks, *await tasks_linked_to(image.address, everything)})


async def tasks_linked_to(image: Address, everything: Iterable[Target]) -> List[Address]:
    """Those that name the image, of these targets."""
    tasks = []
    for target in everything:
        if isinstance(target, FlyteTask):
            unparsed = target[FlyteTaskImageField].to_unparsed_address_inputs()
            if unparsed.values and image in await engine.resolve_addresses(unparsed):
                tasks.append(target.address)
    return sorted(tasks)


def _requirements_of_flyte(
    everything: Iterable[Target], resolve: str, python_setup: PythonSetup
) -> Tuple[List[str], List[str]]:
    """The targets that require flyte: of the resolve, and of others."""
    here: List[str] = []
    elsewhere: List[str] = []
    for target in everything:
        if not target.has_field(PythonRequirementsField):
            continue
        if any(_FLYTE.match(str(one)) for one in target[PythonRequirementsField].value):
            its = target[PythonRequirementResolveField].normalized_value(python_setup)
            (here if its == resolve else elsewhere).append(target.address.spec)
    return sorted(here), sorted(elsewhere)
