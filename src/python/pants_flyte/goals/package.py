"""`package` for `flyte_bundle`, `flyte_image`, `flyte_task` and `flyte_app`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.core.goals.package import (
    BuiltPackage,
    BuiltPackageArtifact,
    OutputPathField,
    PackageFieldSet,
)
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte.build_types import (
    AskedImageRequest,
    BuiltBundle,
    BuiltImage,
    ImageRequest,
    TaskRequest,
)
from pants_flyte.bundle import build_bundle
from pants_flyte.flyte_in_image import tasks_linked_to
from pants_flyte.image_target_types import FlyteImageBaseField
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import FlyteBundleDependenciesField, FlyteEntryPointField
from pants_flyte.task import bundle_request_of
from pants_flyte.unowned import OwnedFiles


@dataclass(frozen=True)
class _PackageFieldSet(PackageFieldSet):
    output_path: OutputPathField
    environment: engine.EnvironmentField


class PackageBundleFieldSet(_PackageFieldSet):
    required_fields = (FlyteBundleDependenciesField,)


class PackageTaskFieldSet(_PackageFieldSet):
    required_fields = (FlyteEntryPointField,)


class PackageImageFieldSet(_PackageFieldSet):
    required_fields = (FlyteImageBaseField,)


@rule(desc="Package a Flyte bundle", level=LogLevel.DEBUG)
async def package_bundle(
    field_set: PackageBundleFieldSet,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    owned: OwnedFiles,
) -> BuiltPackage:
    target = (await engine.targets_at([field_set.address]))[0]
    request = bundle_request_of(target, flyte, python_setup)
    bundle = await build_bundle(request, frozenset(), flyte, flyte_pack, python_setup, owned)
    return BuiltPackage(bundle.digest, _artifacts(bundle))


@rule(desc="Package a Flyte task", level=LogLevel.DEBUG)
async def package_task(field_set: PackageTaskFieldSet) -> BuiltPackage:
    task = (await engine.build_tasks([TaskRequest(field_set.address)]))[0]
    digests, artifacts = [task.link_digest], [BuiltPackageArtifact(task.link_path)]
    if task.bundle is not None and task.owns_bundle:
        digests.append(task.bundle.digest)
        artifacts.extend(_artifacts(task.bundle))
    if task.image is not None and not task.image.own_output:
        digests.append(task.image.digest)
        artifacts.extend(_image_artifacts(task.image))
    return BuiltPackage(await engine.merge_digests(digests), tuple(artifacts))


@rule(desc="Package a Flyte image", level=LogLevel.DEBUG)
async def package_image(field_set: PackageImageFieldSet) -> BuiltPackage:
    request = ImageRequest(field_set.address)
    image = (await engine.build_images([request]))[0]
    tasks = await tasks_linked_to(field_set.address, await engine.all_targets())
    await engine.compare_images([AskedImageRequest(task, request) for task in tasks])
    return BuiltPackage(image.digest, _image_artifacts(image))


def _image_artifacts(image: BuiltImage) -> tuple[BuiltPackageArtifact, ...]:
    about = (
        f"  {image.image_digest}, {' '.join(image.platforms)}: {image.layers} layers of its own, "
        f"{image.bytes:,} bytes"
    )
    lines = [about]
    if image.base_name is not None:
        lines.append(f"  on {image.base_name}, whose layers it does not hold")
    lines += [f"  {note}" for note in image.notes]
    if not image.production:
        lines.append("  NOT FOR PRODUCTION: its base is made of this machine's own files")
    layout = BuiltPackageArtifact(image.layout, extra_log_lines=tuple(lines))
    return layout, *_listed(image)


def _artifacts(bundle: BuiltBundle) -> tuple[BuiltPackageArtifact, ...]:
    summary = bundle.summary
    lines = [f"  {summary.files} files, {summary.bytes} bytes, content {summary.content_hash[:12]}"]
    if bundle.left_out:
        lines.append(f"  left out, by ignore file: {', '.join(bundle.left_out)}")
    return (
        BuiltPackageArtifact(bundle.archive, extra_log_lines=tuple(lines)),
        BuiltPackageArtifact(bundle.manifest),
        *_listed(bundle),
    )


def _listed(built: BuiltBundle | BuiltImage) -> tuple[BuiltPackageArtifact, ...]:
    return () if built.sbom is None else (BuiltPackageArtifact(built.sbom.path),)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        UnionRule(PackageFieldSet, PackageBundleFieldSet),
        UnionRule(PackageFieldSet, PackageImageFieldSet),
        UnionRule(PackageFieldSet, PackageTaskFieldSet),
    ]
