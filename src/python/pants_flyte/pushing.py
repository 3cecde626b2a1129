"""Finds the registries, repositories and tags of an image, from its target and options."""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Sequence, Tuple

from pants.build_graph.address import Address
from pants.engine.target import Target

from flyte_pack.names import InvalidName, TargetAddress
from flyte_pack.registry.plan import Destination, PushPlan, check_tag, parse_name
from flyte_shim import shown
from pants_flyte import engine
from pants_flyte import image_target_types as types
from pants_flyte.build_types import BuiltImage
from pants_flyte.errors import FlyteTargetError
from pants_flyte.holes import hole_values
from pants_flyte.subsystem import FlyteSubsystem

_HOLE = re.compile(r"\{([^{}]*)\}")
_WITH_CODE = "-with-code"


async def push_plan(
    target: Target,
    image: BuiltImage,
    flyte: FlyteSubsystem,
    *,
    registries: Sequence[str] = (),
    version: Optional[str] = None,
) -> PushPlan:
    """The plan of a push, without destinations if there is no registry.

    registries: if given, replace the target's. version: the value of `{version}`. Raises
    `FlyteTargetError` for an invalid name or tag.
    """
    tags = await _tags(target, image, flyte, version or flyte.version)
    names = _names(target, flyte, registries)
    siblings = [
        name
        for other in await engine.all_targets()
        if isinstance(other, types.FlyteImage) and other.address != target.address
        for name in _names_if_any(other, flyte, registries)
    ]
    return PushPlan(
        address=TargetAddress(target.address.spec),
        layout=image.layout,
        digest=image.image_digest,
        destinations=tuple(Destination(name, tags) for name in names),
        insecure=tuple(flyte.insecure_registries),
        siblings=tuple(sorted(set(siblings) - set(names))),
    )


def _names(target: Target, flyte: FlyteSubsystem, registries: Sequence[str]) -> List[str]:
    """`registry/repository` of each destination."""
    address = target.address
    template = target[types.FlyteImageRepositoryField].value or flyte.repository
    parts = {
        "directory": address.spec_path.rpartition("/")[2],
        "path": address.spec_path,
        "name": address.target_name,
    }
    repository = _fill(address, types.FlyteImageRepositoryField.alias, template, parts).strip("/")
    found = []
    own = target[types.FlyteImageRegistriesField].value
    for registry in registries or (flyte.registries if own is None else own):
        name = f"{registry.strip('/')}/{repository}"
        try:
            parse_name(name)
        except InvalidName as error:
            raise FlyteTargetError(
                address,
                f"The image cannot be pushed to {shown.name(name)}: {error}. "
                "Set `repository` (names are in lower case) or `registries`.",
            ) from None
        found.append(name)
    return list(dict.fromkeys(found))


def _names_if_any(target: Target, flyte: FlyteSubsystem, registries: Sequence[str]) -> List[str]:
    """`_names`; none for an invalid name, which is an error when that image is pushed."""
    try:
        return _names(target, flyte, registries)
    except FlyteTargetError:
        return []


async def _tags(
    target: Target, image: BuiltImage, flyte: FlyteSubsystem, version: Optional[str]
) -> Tuple[str, ...]:
    address = target.address
    own = target[types.FlyteImageTagsField].value
    templates = own if own is not None else tuple(flyte.image_tags)
    wanted = {hole for template in templates for hole in _HOLE.findall(template)}
    parts = {"content_hash": image.image_digest.partition(":")[2][:16]}
    parts.update(await hole_values(address, wanted, version))
    tags = []
    for template in templates:
        tag = _fill(address, types.FlyteImageTagsField.alias, template, parts)
        # The image without the code must not lose its tag to the one with the code.
        tag += "" if image.own_output else _WITH_CODE
        try:
            tags.append(check_tag(tag))
        except InvalidName as error:
            raise FlyteTargetError(address, f"`image_tags`: {error}") from None
    return tuple(dict.fromkeys(tags))


def _fill(address: Address, field: str, template: str, parts: Dict[str, str]) -> str:
    for hole in _HOLE.findall(template):
        if hole not in parts:
            advice = {"version": "give one: `--flyte-version=V`, or `version` of the deployment"}
            known = ", ".join(f"{{{name}}}" for name in sorted(parts))
            raise FlyteTargetError(
                address,
                f"`{field}` holds {{{hole}}}, which has no value: "
                f"{advice.get(hole, f'known are {known}')}.",
            )
    return _HOLE.sub(lambda match: parts[match[1]], template)
