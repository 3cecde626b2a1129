"""What an image or a bundle takes from the tasks that it names: their dependencies, not themselves.

A task names its image, and the image names the task for its requirements. As dependencies, the two
would be a cycle, which Pants' goals refuse (`paths`, `dependencies --transitive`). So the way back
is cut here: an image depends on what its tasks depend on. Under `--changed-since`, an edit of that
still selects the image, and an edit of the image its tasks and their deployments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, FrozenSet, Iterable, List, Optional, Set, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.build_graph.address import Address
from pants.core.target_types import GenericTarget
from pants.engine.target import Dependencies, Field, Target

from pants_flyte import engine
from pants_flyte.image_target_types import FlyteImage
from pants_flyte.target_types import (
    FlyteBundle,
    FlyteDeployment,
    FlyteDeploymentTasksField,
    FlyteTask,
)

# Others that can stand for tasks in `dependencies`.
_GROUPS = (FlyteDeployment, GenericTarget)


@dataclass(frozen=True)
class Taken:
    """named: the tasks, and the groups of tasks, that `dependencies` names. through: these, and the
    tasks that they lead to. dependencies: what those depend on. cut: what must be no dependency.
    """

    named: Tuple[Address, ...] = ()
    through: Tuple[Address, ...] = ()
    dependencies: FrozenSet[Address] = frozenset()
    cut: FrozenSet[Address] = frozenset()


async def taken_by(target: Target, python_setup: PythonSetup) -> Taken:
    """Empty for what is neither an image nor a bundle."""
    if not isinstance(target, (FlyteImage, FlyteBundle)):
        return Taken()
    (declared,) = await engine.explicit_dependencies([target.get(Dependencies)])
    if not declared.includes:
        return Taken()
    places = {_place(address) for address in declared.includes}
    there = [t for t in await engine.all_targets() if _place(t.address) in places and _passes(t)]
    named = [_meant(address, target, there, python_setup) for address in declared.includes]
    needs: Dict[Target, Tuple[Target, ...]] = {}
    waiting = [t for t in named if t]
    while waiting:
        for one, found in zip(waiting, await _direct(waiting)):
            needs[one] = found
        inside = {t for found in needs.values() for t in found if _passes(t)}
        waiting = sorted(inside - needs.keys(), key=lambda t: t.address)
    through = _leading_to_tasks(needs)
    addresses = {t.address for t in through}
    return Taken(
        named=tuple(t.address for t in named if t in through),
        through=tuple(sorted(addresses)),
        dependencies=frozenset(
            found.address
            for one in through
            for found in needs[one]
            if found.address not in addresses and found.address != target.address
        ),
        # Pants fills in parameters by itself, and a file of a task means the task.
        cut=frozenset(
            address
            for one in through
            for address in (*declared.includes, *(t.address for t in there))
            if _place(address) == _place(one.address)
        ),
    )


def _passes(target: Target) -> bool:
    return isinstance(target, (FlyteTask, *_GROUPS))


async def _direct(targets: List[Target]) -> List[Tuple[Target, ...]]:
    """What each depends on; of a deployment, its tasks too."""
    found = await engine.direct_dependencies([target.get(Dependencies) for target in targets])
    needs: List[Tuple[Target, ...]] = []
    for target, direct in zip(targets, found):
        tasks: Tuple[Target, ...] = ()
        if isinstance(target, FlyteDeployment):
            unparsed = target[FlyteDeploymentTasksField].to_unparsed_address_inputs()
            tasks = tuple(await engine.targets_at(await engine.resolve_addresses(unparsed)))
        needs.append((*direct, *tasks))
    return needs


def _leading_to_tasks(needs: Dict[Target, Tuple[Target, ...]]) -> Set[Target]:
    """A group of other things, or an empty one, is an ordinary dependency."""
    leading: Set[Target] = {target for target in needs if isinstance(target, FlyteTask)}
    while True:
        more = {t for t, found in needs.items() if t not in leading and leading & set(found)}
        if not more:
            return leading
        leading |= more


def _place(address: Address) -> Tuple[str, str]:
    return address.spec_path, address.target_name


def _meant(
    address: Address, consumer: Target, targets: Iterable[Target], python_setup: PythonSetup
) -> Optional[Target]:
    """Which of the targets Pants takes an address in `dependencies` of `consumer` for.

    Parameters that the address leaves open are those of `consumer`.
    """
    same_place = [t for t in targets if _place(t.address) == _place(address)]
    exact = [t for t in same_place if not t.address.parameters or t.address == address]
    if exact:
        return exact[0]
    group = consumer.address.parameters.get("parametrize")
    fitting = [
        target
        for target in same_place
        if address.is_parametrized_subset_of(target.address)
        and all(
            _agree(consumer, field, python_setup)
            for field in target.field_values.values()
            if field.alias in target.address.parameters and field.alias not in address.parameters
        )
    ]
    fitting.sort(key=lambda t: t.address.parameters.get("parametrize") != group)
    return fitting[0] if fitting else None


def _agree(consumer: Target, field: Field, python_setup: PythonSetup) -> bool:
    if not consumer.has_field(type(field)):
        return False
    own = consumer[type(field)]
    if isinstance(field, PythonResolveField) and isinstance(own, PythonResolveField):
        return own.normalized_value(python_setup) == field.normalized_value(python_setup)
    return bool(own.value == field.value)
