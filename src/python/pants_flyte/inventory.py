"""Has the inventory (SBOM) of a bundle or image written, where one is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Sequence, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonRequirementsField
from pants.backend.python.util_rules.pex import VenvPexProcess
from pants.build_graph.address import Address
from pants.engine.fs import Digest, PathGlobs
from pants.engine.target import Target
from pants.util.logging import LogLevel

from flyte_pack.image.environment import Environment
from flyte_pack.inventory.plan import (
    ENDING,
    BundleInventory,
    CodeFile,
    ImageInventory,
    PlatformPart,
)
from flyte_pack.json_fields import Digest as ImageDigest
from flyte_pack.json_fields import Sha256
from flyte_pack.names import TargetAddress
from flyte_pack.oci.model import Platform
from flyte_pack.oci.parts import Layer
from flyte_pack.task_link import LinkedFile
from pants_flyte import engine
from pants_flyte.base_image import Base
from pants_flyte.build_types import BuiltBundle, BundleRequest, Closure
from pants_flyte.image_code import Code
from pants_flyte.image_packages import PINS, lock_of
from pants_flyte.image_process import run_steps
from pants_flyte.image_target_types import FlyteImage, FlyteImageSbomField
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import FlyteSbomField
from pants_flyte.tool import program_pex

_LOCK = "resolve.lock"
_PLAN = "plan.json"


def wants_sbom(target: Target, flyte: FlyteSubsystem) -> bool:
    field = FlyteImageSbomField if isinstance(target, FlyteImage) else FlyteSbomField
    own = target[field].value
    return flyte.sbom if own is None else own


async def with_sbom(
    built: BuiltBundle,
    request: BundleRequest,
    closure: Closure,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
) -> BuiltBundle:
    """The bundle with its inventory. Raises `FlyteTargetError`."""
    requirements = sorted(
        {
            str(requirement)
            for target in closure.graph.targets
            if target.has_field(PythonRequirementsField)
            for requirement in target[PythonRequirementsField].value
        }
    )
    locked = None
    if requirements and python_setup.enable_resolves:
        locked = await lock_of(request.address, request.resolve, python_setup)
    constraints = await engine.interpreter_constraints([request.address])
    universe = python_setup.interpreter_versions_universe
    owners = {file.owner for file in closure.files if file.owner is not None}
    plan = BundleInventory(
        address=TargetAddress(request.address.spec),
        manifest=built.manifest,
        targets=tuple(sorted((owner.spec, _generator(owner)) for owner in owners)),
        requirements=tuple(requirements),
        lock=_LOCK if locked else None,
        python=constraints.minimum_python_version(universe) or universe[0],
    )
    files = {_PLAN: plan.to_json(), **({_LOCK: locked.content} if locked else {})}
    manifest = await engine.subset(built.digest, PathGlobs([built.manifest]))
    inputs = await engine.merge_digests([manifest, await engine.create_digest(files)])
    argv = ("--bundle", _PLAN)
    digest, sbom = await _listed(request.address, request.stem, argv, inputs, flyte_pack)
    return replace(built, digest=await engine.merge_digests([built.digest, digest]), sbom=sbom)


async def image_sbom(
    address: Address,
    digest: ImageDigest,
    layout: str,
    *,
    base: Base,
    layers: Mapping[Platform, Sequence[Layer]],
    environments: Mapping[Platform, Environment],
    code: Code,
    pins: Sequence[Digest],
    blobs: Sequence[Digest],
    flyte_pack: FlytePackSubsystem,
) -> Tuple[Digest, LinkedFile]:
    """pins: of each platform, or none. blobs: of `layers`. Raises `FlyteTargetError`."""
    platforms = []
    inputs = [*blobs]
    for number, (platform, ours) in enumerate(layers.items()):
        below = base.image.for_platform(platform)
        assert below is not None
        environment = environments[platform]
        if pins:
            inputs.append(await engine.under_prefix(pins[number], f"pins/{number}"))
        platforms.append(
            PlatformPart(
                platform=platform,
                base=ImageDigest(below.digest),
                layers=tuple(layer.digest for layer in ours),
                python=environment.version,
                libc=environment.libc,
                pins=f"pins/{number}/{PINS}" if pins else None,
            )
        )
    plan = ImageInventory(
        address=TargetAddress(address.spec),
        digest=digest,
        base=base.image.name or base.address.spec,
        in_registry=base.image.name is not None,
        platforms=tuple(platforms),
        files=tuple(
            CodeFile(path, None if owner is None else _generator(owner))
            for path, owner in sorted(code.owners.items())
        ),
    )
    inputs.append(await engine.create_digest({_PLAN: plan.to_json()}))
    merged = await engine.merge_digests(inputs)
    return await _listed(address, layout, ("--image", _PLAN), merged, flyte_pack)


async def _listed(
    address: Address,
    stem: str,
    argv: Tuple[str, ...],
    inputs: Digest,
    flyte_pack: FlytePackSubsystem,
) -> Tuple[Digest, LinkedFile]:
    """stem: of the output path."""
    path = f"{stem}{ENDING}"
    (result,) = await run_steps(
        address,
        [
            VenvPexProcess(
                await engine.venv_pex(await program_pex(flyte_pack, "image_lockfile")),
                argv=("inventory", *argv, "--out", path),
                input_digest=inputs,
                output_files=(path,),
                description=f"List what is in {address}",
                level=LogLevel.INFO,
            )
        ],
    )
    (entry,) = await engine.file_entries(result.output_digest)
    digest = entry.file_digest
    return result.output_digest, LinkedFile(
        path, digest.serialized_bytes_length, Sha256(digest.fingerprint)
    )


def _generator(owner: Address) -> str:
    """The target in a BUILD file that an owner was generated from."""
    return owner.maybe_convert_to_target_generator().spec
