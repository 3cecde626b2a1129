"""The layer of an image's Debian packages, from the lock file, and the program that writes that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterable, Mapping, Optional, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.util_rules.pex import VenvPex
from pants.core.goals.run import RunRequest
from pants.engine.fs import Digest, DownloadFile, FileDigest
from pants.engine.target import Target
from pants.util.docutil import bin_name

from flyte_pack.image.apt_lock import AptLock, LockedDeb, mirrored, repository_problem
from flyte_pack.json_fields import InvalidData
from flyte_pack.oci.model import InvalidImage, Platform
from flyte_pack.oci.parts import Layer
from flyte_shim import shown
from pants_flyte import engine
from pants_flyte import image_target_types as types
from pants_flyte.base_image import Base, image_platforms, load_base
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly
from pants_flyte.image_process import OUT, blobs, layers_of, run_steps, step
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.tool import insecure_arguments, interactive_program

LOCK_APT = "lock-apt"
_LOCK = "apt.lock.json"
_BASE = "base.json"
_DEBS = "debs"


@dataclass(frozen=True)
class AptLayers:
    """layers: of each platform, none where the base has all the packages."""

    layers: Mapping[Platform, Tuple[Layer, ...]]
    blobs: Tuple[Digest, ...]


async def apt_layers(
    target: Target,
    base: Base,
    platforms: Iterable[Platform],
    flyte: FlyteSubsystem,
    program: VenvPex,
) -> Optional[AptLayers]:
    """None without `apt_packages`. Raises `FlyteTargetError`, also if their lock is out of date."""
    if not target[types.FlyteImageAptPackagesField].value:
        return None
    lock, content = await _locked(target, base, platforms)
    wanted = {one.platform: one.debs for one in lock.platforms if one.platform in set(platforms)}
    unique = {deb.sha256: deb for debs in wanted.values() for deb in debs}
    files = dict(zip(unique, await _downloaded(target, tuple(unique.values()), flyte)))
    file = await engine.create_digest({_LOCK: content})
    processes = []
    for platform, debs in wanted.items():
        digest = await engine.merge_digests([files[deb.sha256] for deb in debs])
        inputs = await engine.merge_digests([file, await engine.under_prefix(digest, _DEBS)])
        if debs:
            processes.append(
                step(
                    program,
                    (
                        *("image-apt", "--lock", _LOCK, "--platform", str(platform)),
                        *("--debs", _DEBS, "--out", OUT),
                    ),
                    inputs,
                    f"Pack the Debian packages of {target.address} for {platform}",
                )
            )
    results = await run_steps(target.address, processes)
    left = iter(results)
    layers: Dict[Platform, Tuple[Layer, ...]] = {}
    for platform, debs in wanted.items():
        layers[platform] = await layers_of(next(left)) if debs else ()
    return AptLayers(layers, tuple([await blobs(result) for result in results]))


async def _downloaded(
    target: Target, debs: Tuple[LockedDeb, ...], flyte: FlyteSubsystem
) -> Tuple[Digest, ...]:
    mirrors = _mirrors(target, flyte)
    requests = [
        DownloadFile(
            mirrored(f"{deb.repository}/{deb.path}", mirrors),
            FileDigest(deb.sha256, deb.size),
        )
        for deb in debs
    ]
    try:
        return await engine.downloaded(requests)
    except Exception as error:  # Pants has no class for it
        reason = shown.line(str(error), longest=500)
        raise FlyteTargetError(
            target.address,
            f"a Debian package cannot be fetched: {reason}. Repositories drop what they have "
            f"replaced: run {_command(target)}, or name a mirror that keeps it in "
            "`[flyte].apt_mirrors`.",
        ) from None


def _mirrors(target: Target, flyte: FlyteSubsystem) -> Dict[str, str]:
    for uri in flyte.apt_mirrors.values():
        if problem := repository_problem(uri):  # Pants logs where it fetches from
            raise FlyteTargetError(
                target.address,
                f"`[flyte].apt_mirrors` cannot have {shown.uri(uri)}: {problem}.",
            )
    return flyte.apt_mirrors


def _command(target: Target) -> str:
    return f"`{bin_name()} run {target.address} -- {LOCK_APT}`"


async def _locked(
    target: Target, base: Base, platforms: Iterable[Platform]
) -> Tuple[AptLock, bytes]:
    path = target[types.FlyteImageAptLockfileField].path
    found = await engine.contents_matching(exactly([path]))
    command = _command(target)
    if not found:
        raise FlyteTargetError(
            target.address,
            f"its `apt_packages` are not locked: there is no file {path}. Run {command}, and "
            "commit it.",
        )
    try:
        lock = AptLock.from_json(found[0].content, path)
    except (InvalidData, InvalidImage) as error:
        raise FlyteTargetError(
            target.address, f"{error}. Run {command} to write it anew."
        ) from None
    missing = [str(p) for p in platforms if lock.for_platform(p) is None]
    problem = None
    if lock.base != base.image.digest:
        problem = f"is for another base than {base.address} is now"
    elif lock.packages != target[types.FlyteImageAptPackagesField].value:
        problem = "is for other `apt_packages`"
    elif lock.skipped_scripts != target[types.FlyteImageAptSkipScriptsField].value:
        problem = "is for other `apt_skip_scripts`"
    elif missing:
        problem = f"does not lock {', '.join(missing)}"
    if problem:
        raise FlyteTargetError(target.address, f"{path} {problem}. Run {command}.")
    return lock, found[0].content


async def apt_lock_program(
    target: Target,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
) -> RunRequest:
    """Needs no lock file: this is what makes it."""
    address = target.address
    packages = target[types.FlyteImageAptPackagesField].value
    if not packages:
        raise FlyteTargetError(address, f"`{LOCK_APT}` locks its `apt_packages`, and it has none.")
    named = target[types.FlyteImageBaseField].to_unparsed_address_inputs()
    (base_target,) = await engine.targets_at(await engine.resolve_addresses(named))
    base = await load_base(base_target, flyte_pack, python_setup)
    skipped = target[types.FlyteImageAptSkipScriptsField].value
    return await interactive_program(
        flyte_pack,
        (
            *("apt-lock", "--address", address.spec),
            *("--base", f"{{chroot}}/{_BASE}", "--layers", "{chroot}"),
            *("--lockfile", target[types.FlyteImageAptLockfileField].path),
            *(word for p in image_platforms(target, base) for word in ("--platform", str(p))),
            *(word for package in packages for word in ("--package", package)),
            *(word for package in skipped for word in ("--skip-scripts", package)),
            *(
                word
                for pair in sorted(_mirrors(target, flyte).items())
                for word in ("--mirror", *pair)
            ),
            *insecure_arguments(flyte),
            "--",
        ),
        (await engine.create_digest({_BASE: base.image.to_json()}), base.blobs),
    )
