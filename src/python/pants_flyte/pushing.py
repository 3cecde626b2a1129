"""Finds the registries, repositories and tags of an image, from its target and options."""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.build_graph.address import Address
from pants.engine.target import Target

from flyte_pack.json_fields import Sha256
from flyte_pack.names import InvalidName, TargetAddress
from flyte_pack.provenance import Material
from flyte_pack.registry.plan import Destination, PushPlan, check_tag, parse_name
from flyte_shim import shown
from pants_flyte import engine
from pants_flyte import image_target_types as types
from pants_flyte.build_types import BuiltImage
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly
from pants_flyte.holes import hole_values
from pants_flyte.registries import Registry, registries
from pants_flyte.subsystem import FlyteSubsystem

_HOLE = re.compile(r"\{([^{}]*)\}")
_WITH_CODE = "-with-code"


async def push_plan(
    target: Target,
    image: BuiltImage,
    flyte: FlyteSubsystem,
    *,
    wanted: Sequence[str] = (),
    version: Optional[str] = None,
    provenance: bool = False,
    python_setup: PythonSetup,
) -> PushPlan:
    """The plan of a push, without destinations if there is no registry.

    wanted: registries that, if given, replace the target's. version: the value of `{version}`.
    provenance: whether what it was made from is to be said beside it.

    Raises `FlyteTargetError` for an invalid name or tag.
    """
    into = _destinations(target, flyte, wanted)
    tags = [await _tags(target, image, flyte, to, version or flyte.version) for _, to in into]
    siblings = {
        name
        for other in await engine.all_targets()
        if isinstance(other, types.FlyteImage) and other.address != target.address
        for name in _names_if_any(other, flyte, wanted)
    }
    return PushPlan(
        address=TargetAddress(target.address.spec),
        layout=image.layout,
        digest=image.image_digest,
        destinations=tuple(Destination(name, of) for (name, _), of in zip(into, tags)),
        insecure=tuple(flyte.insecure_registries),
        siblings=tuple(sorted(siblings.difference(name for name, _ in into))),
        sbom=None if image.sbom is None else image.sbom.path,
        materials=await materials_of([target], [image], python_setup) if provenance else None,
    )


async def materials_of(
    targets: Iterable[Target], images: Iterable[BuiltImage], python_setup: PythonSetup
) -> Tuple[Material, ...]:
    """What these were built from: lock files and bases. targets: those of the images, too."""
    locks = set()
    for target in targets:
        if python_setup.enable_resolves:
            resolve = target[PythonResolveField].normalized_value(python_setup)
            locks.add(python_setup.resolves[resolve])
        if target.has_field(types.FlyteImageAptLockfileField):
            locks.add(target[types.FlyteImageAptLockfileField].path)
    found = await engine.snapshot(exactly(sorted(locks)))
    bases = {
        Material(image.base_name or "a base without a registry", Sha256(image.base_digest[7:]))
        for image in images
        if image.base_digest
    }
    return (
        *(
            Material(entry.path, Sha256(entry.file_digest.fingerprint))
            for entry in await engine.file_entries(found.digest)
        ),
        *sorted(bases),
    )


def _destinations(
    target: Target, flyte: FlyteSubsystem, wanted: Sequence[str]
) -> List[Tuple[str, Registry]]:
    """`registry/repository` of each destination, and the registry. wanted: if any, these."""
    address = target.address
    own = target[types.FlyteImageRegistriesField].value
    found: Dict[str, Registry] = {}
    for registry in registries(
        address, wanted or (flyte.registries if own is None else own), flyte.named_registries
    ):
        if registry.skip_push:
            continue
        name = f"{registry.address.strip('/')}/{_repository(target, flyte, registry)}"
        try:
            parse_name(name)
        except InvalidName as error:
            raise FlyteTargetError(
                address,
                f"The image cannot be pushed to {shown.name(name)}: {error}. "
                "Set `repository` (names are in lower case) or `registries`.",
            ) from None
        found.setdefault(name, registry)
    return list(found.items())


def _repository(target: Target, flyte: FlyteSubsystem, registry: Registry) -> str:
    address = target.address
    above, _, directory = address.spec_path.rpartition("/")
    parts = {
        "directory": directory,
        "parent_directory": above.rpartition("/")[2],
        "full_directory": address.spec_path,
        "path": address.spec_path,
        "name": address.target_name,
    }
    field = types.FlyteImageRepositoryField.alias
    parts["default_repository"] = _fill(address, field, flyte.repository, parts)
    template = target[types.FlyteImageRepositoryField].value or flyte.repository
    parts["target_repository"] = _fill(address, field, template, parts)
    return _fill(address, field, registry.repository or "{target_repository}", parts).strip("/")


def _names_if_any(target: Target, flyte: FlyteSubsystem, wanted: Sequence[str]) -> List[str]:
    """The names of its destinations; none for an invalid one, which is an error when that image is
    pushed.
    """
    try:
        return [name for name, _ in _destinations(target, flyte, wanted)]
    except FlyteTargetError:
        return []


async def _tags(
    target: Target,
    image: BuiltImage,
    flyte: FlyteSubsystem,
    registry: Registry,
    version: Optional[str],
) -> Tuple[str, ...]:
    address = target.address
    own = target[types.FlyteImageTagsField].value
    templates = own if own is not None else tuple(flyte.image_tags)
    templates = (*templates, *registry.extra_image_tags)
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
