"""What a `flyte_base_image` stands for: read from its lock file, or made of what is at hand."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Optional, Tuple

from pants.backend.docker.target_types import DockerImageTarget
from pants.backend.python.subsystems.setup import PythonSetup
from pants.build_graph.address import Address
from pants.engine.fs import EMPTY_DIGEST, Digest, PathGlobs
from pants.engine.process import ProcessCacheScope
from pants.engine.target import Target
from pants.util.docutil import bin_name
from pants.util.frozendict import FrozenDict

from flyte_pack.image.base import BaseImage
from flyte_pack.image.environment import Environment, environment_of
from flyte_pack.json_fields import InvalidData
from flyte_pack.names import InvalidName
from flyte_pack.oci.model import InvalidImage, Platform
from flyte_pack.oci.reference import Reference
from pants_flyte import engine
from pants_flyte import image_target_types as types
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly, literal_glob
from pants_flyte.image_process import OUT, blobs, described, run_steps, step
from pants_flyte.subsystem import FlytePackSubsystem
from pants_flyte.target_types import FlyteTaskImageField
from pants_flyte.targets import checked, target_named_by
from pants_flyte.tool import program_pex


@dataclass(frozen=True)
class Base:
    """image: its documents. blobs: what belongs in a layout, if it is at hand.

    environments: what packages are installed for on each platform, in one minor version of Python.
    """

    address: Address
    image: BaseImage
    blobs: Digest
    environments: FrozenDict[Platform, Environment]

    @property
    def python(self) -> str:
        """`3.12`"""
        return next(iter(self.environments.values())).minor


def platforms_of(target: Target) -> Tuple[Platform, ...]:
    """The platforms that a base's target names. Raises `FlyteTargetError`."""
    return parse_platforms(target.address, target[types.FlyteBasePlatformsField].value or ())


def parse_platforms(address: Address, texts: Tuple[str, ...]) -> Tuple[Platform, ...]:
    try:
        return tuple(sorted({Platform.parse(text) for text in texts}))
    except InvalidImage as error:
        raise FlyteTargetError(address, f"`platforms`: {error}") from None


def registry_reference(target: Target) -> str:
    """The `image` of a base's target. Raises `FlyteTargetError` if it is not in a registry."""
    image = target[types.FlyteBaseImageField].value
    source = target[types.FlyteBaseSourceField].value
    if (image is None) == (source is None):
        raise FlyteTargetError(
            target.address,
            "give `image` (a reference) or `source` (a path, or `host`), one of them.",
        )
    if image is None:
        raise FlyteTargetError(
            target.address,
            f"only a base in a registry has a lock file; this one comes from {source!r}.",
        )
    try:
        Reference.parse(image)
    except InvalidName as error:
        raise FlyteTargetError(target.address, f"`image`: {error}") from None
    return image


async def load_base(
    target: Target, flyte_pack: FlytePackSubsystem, python_setup: PythonSetup
) -> Base:
    address = checked(target, types.FlyteBaseImage).address
    source = target[types.FlyteBaseSourceField].value
    if target[types.FlyteBaseRefField].value is not None and source in (None, types.HOST):
        raise FlyteTargetError(
            address, "`ref` names an image in a layout or archive: set `source` to its path."
        )
    if source is None or target[types.FlyteBaseImageField].value is not None:
        image, at_hand = await _locked(target), EMPTY_DIGEST
    elif source == types.HOST:
        image, at_hand = await _from_host(target, flyte_pack, python_setup)
    else:
        image, at_hand = await _from_source(target, flyte_pack)
    return Base(address, image, at_hand, _environments(target, image))


async def image_of(target: Target) -> Optional[Target]:
    """The image that runs the code, where it is one of ours: then it is known what is installed."""
    if isinstance(target, types.FlyteImage):
        return target
    if not target.has_field(FlyteTaskImageField):
        return None
    named = await target_named_by(target[FlyteTaskImageField], types.FlyteImage, DockerImageTarget)
    return named if isinstance(named, types.FlyteImage) else None


async def base_of(image: Target, flyte_pack: FlytePackSubsystem, python_setup: PythonSetup) -> Base:
    """Of a `flyte_image`. Raises `FlyteTargetError`."""
    named = image[types.FlyteImageBaseField].to_unparsed_address_inputs()
    (target,) = await engine.targets_at(await engine.resolve_addresses(named))
    return await load_base(target, flyte_pack, python_setup)


def _environments(target: Target, image: BaseImage) -> FrozenDict[Platform, Environment]:
    python = target[types.FlyteBasePythonField].value or image.python_path
    glibc = target[types.FlyteBaseGlibcField].value
    version = target[types.FlyteBasePythonVersionField].value
    found = {}
    for base in image.platforms:
        try:
            found[base.platform] = environment_of(base, python, glibc, version)
        except InvalidImage as error:
            raise FlyteTargetError(target.address, f"{error}.") from None
    if len({environment.minor for environment in found.values()}) > 1:
        versions = ", ".join(f"{e.version} on {platform}" for platform, e in found.items())
        raise FlyteTargetError(
            target.address, f"its Python is not the same on all platforms: {versions}."
        )
    return FrozenDict(found)


def image_platforms(target: Target, base: Base) -> Tuple[Platform, ...]:
    """Those of a `flyte_image` on the base. Raises `FlyteTargetError`."""
    has = [p.platform for p in base.image.platforms]
    wanted = target[types.FlyteImagePlatformsField].value
    if wanted is None:
        return tuple(sorted(has))
    platforms = parse_platforms(target.address, wanted)
    for platform in platforms:
        if platform not in has:
            raise FlyteTargetError(
                target.address,
                f"`platforms` asks for {platform}, and the base {base.address} has "
                f"{', '.join(map(str, has))}. Add it to the base's `platforms` and lock it, or "
                "leave it out here.",
            )
    if not platforms:
        raise FlyteTargetError(target.address, "`platforms` is empty.")
    return platforms


async def _locked(target: Target) -> BaseImage:
    reference = Reference.parse(registry_reference(target))
    path = target[types.FlyteBaseLockfileField].path
    found = await engine.contents_matching(exactly([path]))
    lock = f"`{bin_name()} run {target.address} -- lock`"
    if not found:
        raise FlyteTargetError(
            target.address, f"it is not locked: there is no file {path}. Run {lock}, and commit it."
        )
    try:
        image = BaseImage.from_json(found[0].content, path)
        locked = None if image.name is None else Reference.parse(image.name)
    except (InvalidData, InvalidImage, InvalidName) as error:
        raise FlyteTargetError(target.address, f"{error}. Run {lock} to write it anew.") from None
    same = locked is not None and (locked.name, locked.tag) == (reference.name, reference.tag)
    if not same or reference.digest not in (None, image.digest):
        raise FlyteTargetError(
            target.address,
            f"{path} is the lock file of {image.name}@{image.digest}, and `image` is {reference}. "
            f"Run {lock}.",
        )
    python = target[types.FlyteBasePythonField].value
    if python not in (None, image.python) and any(p.facts for p in image.platforms):
        raise FlyteTargetError(
            target.address,
            f"{path} was written for the Python {image.python or 'of PATH'}, and `python` is "
            f"{python}. Run {lock}.",
        )
    wanted = platforms_of(target)
    missing = [str(p) for p in wanted if image.for_platform(p) is None]
    if missing:
        raise FlyteTargetError(
            target.address, f"{path} does not lock {', '.join(missing)}. Run {lock}."
        )
    return replace(image, platforms=tuple(p for p in image.platforms if p.platform in wanted))


async def _from_host(
    target: Target, flyte_pack: FlytePackSubsystem, python_setup: PythonSetup
) -> Tuple[BaseImage, Digest]:
    python = await engine.find_python(engine.configured_constraints(target, python_setup))
    return await _base_from(
        target.address,
        flyte_pack,
        ("image-host-base", "--python", python.path, "--out", OUT),
        EMPTY_DIGEST,
        f"Put together a base image from this machine's {python.path}",
        # What it reads is the machine's, which Pants cannot see change.
        ProcessCacheScope.PER_RESTART_SUCCESSFUL,
    )


async def _from_source(target: Target, flyte_pack: FlytePackSubsystem) -> Tuple[BaseImage, Digest]:
    path = target[types.FlyteBaseSourceField].path or ""
    glob = literal_glob(path)
    found = await engine.snapshot(PathGlobs([glob, os.path.join(glob, "**")]))
    if not found.files:
        raise FlyteTargetError(
            target.address,
            f"`source`: there is nothing at {path}, or Pants ignores it (`[GLOBAL].pants_ignore`, "
            "`.gitignore`).",
        )
    python, ref = target[types.FlyteBasePythonField].value, target[types.FlyteBaseRefField].value
    argv = (
        *("image-local-base", "--source", path),
        *(part for p in platforms_of(target) for part in ("--platform", str(p))),
        *(("--python", python) if python else ()),
        *(("--ref", ref) if ref else ()),
        *("--out", OUT, "--address", target.address.spec),
    )
    return await _base_from(
        target.address, flyte_pack, argv, found.digest, f"Read the base image {path}"
    )


async def _base_from(
    address: Address,
    flyte_pack: FlytePackSubsystem,
    argv: Tuple[str, ...],
    files: Digest,
    description: str,
    cache_scope: ProcessCacheScope = ProcessCacheScope.SUCCESSFUL,
) -> Tuple[BaseImage, Digest]:
    tool = await engine.venv_pex(await program_pex(flyte_pack, "image_lockfile"))
    process = step(tool, argv, files, description, cache_scope=cache_scope)
    (result,) = await run_steps(address, [process])
    document = await described(result, "base.json")
    return BaseImage.from_json(document, "base.json"), await blobs(result)
