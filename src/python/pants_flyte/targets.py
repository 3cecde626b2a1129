"""Finds a target, and checks its type and resolve."""

from __future__ import annotations

from typing import Optional, Type, TypeVar

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.build_graph.address import Address
from pants.engine.target import SpecialCasedDependencies, Target

from pants_flyte import engine
from pants_flyte.errors import FlyteTargetError

T = TypeVar("T", bound=Target)


def is_in_resolve(target: Target, resolve: str, python_setup: PythonSetup) -> bool:
    """Whether it belongs to the resolve, or to none in particular."""
    if not target.has_field(PythonResolveField):
        return True
    return target[PythonResolveField].normalized_value(python_setup) == resolve


async def target_at(address: Address, kind: Type[T]) -> T:
    return checked((await engine.targets_at([address]))[0], kind)


def checked(target: Target, kind: Type[T]) -> T:
    if not isinstance(target, kind):
        raise FlyteTargetError(
            target.address, f"this is a `{target.alias}`, where a `{kind.alias}` is needed."
        )
    return target


async def target_named_by(field: SpecialCasedDependencies, *kinds: Type[T]) -> Optional[T]:
    """The target that a field names, of one of these kinds, or None if the field is not set."""
    addresses = await engine.resolve_addresses(field.to_unparsed_address_inputs())
    if not addresses:
        return None
    target = (await engine.targets_at(addresses))[0]
    if not isinstance(target, kinds):
        needed = " or a ".join(f"`{kind.alias}`" for kind in kinds)
        raise FlyteTargetError(
            field.address,
            f"`{field.alias}` names {target.address}, which is a `{target.alias}`, not a {needed}.",
        )
    return target
