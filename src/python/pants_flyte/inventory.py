"""Has the inventory (SBOM) of a bundle or image written, where one is asked for."""

from __future__ import annotations

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
    PackagesWanted,
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
from pants_flyte.build_types import BundleRequest, Closure
from pants_flyte.image_code import Code
from pants_flyte.image_packages import PINS, lock_of
from pants_flyte.image_process import run_steps
from pants_flyte.image_target_types import FlyteImage, FlyteImageSbomField
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import FlyteSbomField
from pants_flyte.tool import program_pex

_LOCK = "resolve.lock"
_PLAN = "plan.json"
_PACKAGES = "packages.json"
BUNDLE_PLAN = "inventory.json"


def wants_sbom(target: Target, flyte: FlyteSubsystem) -> bool:
    field = FlyteImageSbomField if isinstance(target, FlyteImage) else FlyteSbomField
    own = target[field].value
    return flyte.sbom if own is None else own


async def bundle_inventory(
    request: BundleRequest,
    closure: Closure,
    manifest: str,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
) -> Digest:
    """What the packer needs to write the inventory of a bundle: `BUNDLE_PLAN` and what it names.

    manifest: the file of the manifest that it will have written. Raises `FlyteTargetError`.
    """
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
    wanted = PackagesWanted(
        requirements=tuple(requirements),
        lock=_LOCK if locked else None,
        python=constraints.minimum_python_version(universe) or universe[0],
    )
    files = {_PLAN: wanted.to_json(), **({_LOCK: locked.content} if locked else {})}
    packages = await _listed(
        request.address,
        ("--packages", _PLAN),
        _PACKAGES,
        await engine.create_digest(files),
        flyte_pack,
    )
    plan = BundleInventory(
        address=TargetAddress(request.address.spec),
        manifest=manifest,
        targets=tuple(sorted((owner.spec, _generator(owner)) for owner in owners)),
        packages=_PACKAGES,
    )
    return await engine.merge_digests(
        [packages, await engine.create_digest({BUNDLE_PLAN: plan.to_json()})]
    )


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
    path = f"{layout}{ENDING}"
    listed = await _listed(address, ("--image", _PLAN), path, merged, flyte_pack)
    return listed, await linked(listed, path)


async def linked(digest: Digest, path: str) -> LinkedFile:
    """The file `path` of what was written."""
    (entry,) = await engine.file_entries(await engine.subset(digest, PathGlobs([path])))
    found = entry.file_digest
    return LinkedFile(path, found.serialized_bytes_length, Sha256(found.fingerprint))


async def _listed(
    address: Address,
    argv: Tuple[str, ...],
    path: str,
    inputs: Digest,
    flyte_pack: FlytePackSubsystem,
) -> Digest:
    """path: of the file to be written."""
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
    return result.output_digest


def _generator(owner: Address) -> str:
    """The target in a BUILD file that an owner was generated from."""
    return owner.maybe_convert_to_target_generator().spec
