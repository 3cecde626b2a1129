"""Builds a `flyte_task`: its bundle, and the link that ties it to entry point, image and command."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Iterable, Optional, Tuple, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.core.goals.package import OutputPathField
from pants.engine.addresses import Address
from pants.engine.fs import CreateDigest, FileContent, PathGlobs
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import FieldSet, InferDependenciesRequest, InferredDependencies, Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.manifest import EntryPoint
from flyte_pack.names import InvalidName, check_image, check_ref_name
from flyte_pack.task_link import (
    BUNDLE_URI_HOLE,
    VERSION_HOLE,
    LinkedBundle,
    LinkedImage,
    LinkedTask,
    TaskLink,
)
from flyte_shim.paths import path_problem
from pants_flyte.build_types import (
    BuiltBundle,
    BuiltImage,
    BuiltTask,
    BundleRequest,
    ImageRequest,
    TaskRequest,
)
from pants_flyte.bundle import build_bundle
from pants_flyte.closure import closure_of
from pants_flyte.embedded import check_embedded
from pants_flyte.engine import (
    build_images,
    create_digest,
    files_matching,
    resolve_addresses,
    source_roots,
    targets_at,
)
from pants_flyte.entry_point import (
    EntryModule,
    find_entry_module,
    included,
    name_tasks,
    scan_module,
)
from pants_flyte.errors import FlyteTargetError
from pants_flyte.image_packages import requirements_of
from pants_flyte.image_target_types import FlyteImage, FlyteImageRefNameField
from pants_flyte.layout import (
    SourceFile,
    check_root_dir,
    literal_glob,
    module_name,
    place,
    place_all,
    root_path,
)
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import (
    BUNDLE_COPY_STYLES,
    COPY_STYLES,
    FlyteBundle,
    FlyteBundleCopyStyleField,
    FlyteEntryPointField,
    FlyteRootDirField,
    FlyteTask,
    FlyteTaskBundleField,
    FlyteTaskCopyStyleField,
    FlyteTaskDependenciesField,
    FlyteTaskImageField,
    is_address,
)

logger = logging.getLogger(__name__)

_RESOLVER = "flyte._internal.resolvers.default.DefaultTaskResolver"


# --- dependency inference ------------------------------------------------------------------------


@dataclass(frozen=True)
class EntryPointFieldSet(FieldSet):
    required_fields = (FlyteEntryPointField, FlyteTaskDependenciesField, PythonResolveField)

    entry_point: FlyteEntryPointField
    resolve: PythonResolveField


class InferEntryPointDependency(InferDependenciesRequest):  # type: ignore[type-arg]  # generic only since later versions
    infer_from = EntryPointFieldSet


@rule(desc="Infer what a `flyte_task` depends on from its entry point", level=LogLevel.DEBUG)
async def infer_entry_point(
    request: InferEntryPointDependency, python_setup: PythonSetup
) -> InferredDependencies:
    fields = request.field_set
    module = await find_entry_module(
        fields.address,
        fields.entry_point.value,
        fields.resolve.normalized_value(python_setup),
        python_setup,
    )
    owners = await included(fields.address, module, python_setup)
    return InferredDependencies([module.owner, *owners])


# --- building ------------------------------------------------------------------------------------


# Pants looks for what a rule awaits while this module is loaded: so its helpers stand above it.


async def _shared_bundle(target: Target) -> Optional[Target]:
    field = target[FlyteTaskBundleField]
    if not field.value:
        return None
    address = target.address
    shared = (await targets_at(await resolve_addresses(field.to_unparsed_address_inputs())))[0]
    if not isinstance(shared, FlyteBundle):
        raise FlyteTargetError(
            address,
            f"`bundle` names {shared.address}, which is a `{shared.alias}`, not a `{FlyteBundle.alias}`.",
        )
    for field_type, allowed in ((FlyteTaskCopyStyleField, "none"), (FlyteRootDirField, None)):
        if target[field_type].value not in (None, allowed):
            raise FlyteTargetError(
                address,
                f"`{field_type.alias}` and `bundle` are both set: a shared bundle has one layout. "
                f"Set `{field_type.alias}` on {shared.address} instead.",
            )
    return shared


async def _path_in_bundle(address: Address, module: EntryModule, root_dir: Optional[str]) -> str:
    roots = await source_roots([module.path])
    root = root_path(roots[module.path])
    file = SourceFile(module.path, module.owner, source_root=root, python=True)
    path = place(file, root_dir)
    if path is None:
        raise FlyteTargetError(
            address,
            f"`root_dir` is {root_dir!r}, but the entry point is {module.path}. Set `root_dir` to a "
            "directory above it (`.` is the build root), or leave it unset.",
        )
    return path


async def _image(target: Target) -> Optional[str]:
    image = target[FlyteTaskImageField].text
    if image is None or is_address(image):
        return None
    directory, colon, name = image.partition(":")
    if colon and "/" not in image and "@" not in image:
        found = await files_matching(PathGlobs([f"{literal_glob(directory)}/BUILD*"]))
        if found.files:
            raise FlyteTargetError(
                target.address,
                f"`image={image!r}` is a target or an image on Docker Hub: write `//{image}` for the target {name!r} of "
                f"{found.files[0]}, or `docker.io/library/{image}`.",
            )
    try:
        return check_image(image) if any(c in image for c in "/:@") else check_ref_name(image)
    except InvalidName as error:
        raise FlyteTargetError(
            target.address,
            "`image` is neither an image reference such as `ghcr.io/org/name:tag` nor the name of one "
            f"that `[flyte].images` or a deployment's `images` maps: {error}",
        ) from None


async def _image_target(target: Target) -> Optional[Target]:
    """The `flyte_image` that `image` names, if it is an address."""
    addresses = await resolve_addresses(target[FlyteTaskImageField].to_unparsed_address_inputs())
    if not addresses:
        return None
    image = (await targets_at(addresses))[0]
    if not isinstance(image, FlyteImage):
        raise FlyteTargetError(
            target.address,
            f"`image` names {image.address}, which is a `{image.alias}`, not a `{FlyteImage.alias}`.",
        )
    return image


async def _check_embedded(
    address: Address,
    module: EntryModule,
    root_dir: Optional[str],
    resolve: str,
    image: BuiltImage,
    python_setup: PythonSetup,
) -> None:
    """The image must hold all that the task reaches, where its imports look for it. Raises `FlyteTargetError`."""
    owners = frozenset([module.owner])
    closure = await closure_of(address, owners, resolve, python_setup, reasons=False)
    placed = place_all(address, closure.files, root_dir)
    check_embedded(address, module.path, placed, image)


async def _warn_of_packages(
    address: Address, image: Address, resolve: str, python_setup: PythonSetup
) -> None:
    """Tell which third-party packages the task asks for and its image does not have, unless its base brings them."""
    wanted = await requirements_of(address, resolve, python_setup)
    missing = sorted(set(wanted) - set(await requirements_of(image, resolve, python_setup)))
    if missing:
        logger.warning(
            f"{address}: its image {image} is not made for {', '.join(missing)}, which the task reaches. Name the task in "
            f"the `dependencies` of {image}, unless the base of the image has them."
        )


@rule(desc="Build a Flyte task", level=LogLevel.DEBUG)
async def build_task(
    request: TaskRequest,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
) -> BuiltTask:
    address = request.address
    target = (await targets_at([address]))[0]
    if not isinstance(target, FlyteTask):
        raise FlyteTargetError(
            address, f"this is a `{target.alias}`, where a `{FlyteTask.alias}` is needed."
        )
    resolve = target[PythonResolveField].normalized_value(python_setup)
    entry = target[FlyteEntryPointField].value
    module = await find_entry_module(address, entry, resolve, python_setup)
    named = name_tasks(address, module, await scan_module(address, module, python_setup))
    shared = await _shared_bundle(target)
    own = target[FlyteTaskCopyStyleField].value if shared else None  # nothing but `none`
    copy_style = task_copy_style(request.copy_style or own, shared or target, flyte)
    root_dir = bundle_root_dir(request.root_dir, shared or target, flyte)
    stem = output_stem(target[OutputPathField], "json")
    in_bundle = await _path_in_bundle(address, module, root_dir)
    if "." in in_bundle[: -len(".py")]:
        raise FlyteTargetError(
            address,
            f"the entry point is at {in_bundle} in the bundle, and no module can be imported from "
            "there: in its name, dots part packages. Rename it, or set `root_dir` to a directory below.",
        )

    bundle: Optional[BuiltBundle] = None
    if copy_style != "none":
        if shared:
            bundle_request = bundle_request_of(
                shared, flyte, python_setup, copy_style=copy_style, root_dir=root_dir
            )
        else:
            bundle_request = BundleRequest(
                address=address,
                copy_style=copy_style,
                root_dir=root_dir,
                entry_points=(
                    EntryPoint(module_name(in_bundle), module.name, in_bundle, address.spec),
                ),
                stem=stem,
                resolve=resolve,
            )
        owners = frozenset() if shared else frozenset([module.owner])
        bundle = await build_bundle(bundle_request, owners, flyte, flyte_pack, python_setup)
        if bundle.modules.get(in_bundle) != module.path:
            raise FlyteTargetError(
                address,
                f"the bundle {bundle_request.address} does not hold {module.path}. Add "
                f"{module.owner} to its `dependencies`, or drop `bundle` from this target.",
            )

    image_target = await _image_target(target)
    ref_name = image_target[FlyteImageRefNameField].value if image_target else None
    image: Optional[BuiltImage] = None
    if image_target and ref_name not in request.mapped and (request.image or copy_style == "none"):
        code = True if copy_style == "none" else None
        image = (await build_images([ImageRequest(image_target.address, code)]))[0]
        if copy_style == "none":
            await _check_embedded(address, module, root_dir, resolve, image, python_setup)
        await _warn_of_packages(address, image_target.address, resolve, python_setup)

    link = TaskLink(
        address=address.spec,
        entry_point=f"{in_bundle}:{module.name}",
        kind=named.kind,
        module=module_name(in_bundle),
        root_dir=root_dir if root_dir != "" else ".",
        copy_style=copy_style,
        bundle=_linked(bundle) if bundle else None,
        image=ref_name if image_target and image is None else await _image(target),
        built_image=_linked_image(image) if image else None,
        tasks=tuple(
            LinkedTask(name, _command(module_name(in_bundle), name, bundle is not None))
            for name in named.tasks
        ),
    )
    link_path = f"{stem}.json"
    return BuiltTask(
        address=address,
        link=link,
        link_path=link_path,
        link_digest=await create_digest(CreateDigest([FileContent(link_path, link.to_json())])),
        bundle=bundle,
        owns_bundle=shared is None,
        image=image,
    )


def task_copy_style(override: Optional[str], target: Target, flyte: FlyteSubsystem) -> str:
    """An override, else the field, else the option. `target` is a task or the bundle that it shares."""
    field = (
        target.get(FlyteBundleCopyStyleField)
        if isinstance(target, FlyteBundle)
        else target.get(FlyteTaskCopyStyleField)
    )
    style = override or field.value or flyte.copy_style
    if style not in COPY_STYLES:  # fields and command lines are checked before
        raise FlyteTargetError(
            target.address,
            f"`[flyte].copy_style` is {style!r}; it is one of {', '.join(COPY_STYLES)}.",
        )
    if isinstance(target, FlyteBundle) and not override and style not in BUNDLE_COPY_STYLES:
        return "auto"  # `[flyte].copy_style = "none"` is about tasks: this target asks for a bundle
    return style


def bundle_root_dir(
    override: Optional[str], target: Target, flyte: FlyteSubsystem
) -> Optional[str]:
    """An override, else the field, else the option; "" is the build root, None strips source roots."""
    for value in (override, target[FlyteRootDirField].value, flyte.root_dir):
        if value is not None:
            return check_root_dir(target.address, value)
    return None


def bundle_request_of(
    target: Target,
    flyte: FlyteSubsystem,
    python_setup: PythonSetup,
    *,
    copy_style: Optional[str] = None,
    root_dir: Optional[str] = None,
) -> BundleRequest:
    """What a `flyte_bundle` asks for; the same for `package` and for the tasks that share it."""
    return BundleRequest(
        address=target.address,
        copy_style=copy_style or task_copy_style(None, target, flyte),
        root_dir=root_dir if root_dir is not None else bundle_root_dir(None, target, flyte),
        entry_points=(),
        stem=output_stem(target[OutputPathField], "tar.gz"),
        resolve=target[PythonResolveField].normalized_value(python_setup),
    )


def output_stem(field: OutputPathField, ending: str) -> str:
    """The output path without `.ending`. Raises `FlyteTargetError` where it ends otherwise."""
    path = field.value_or_default(file_ending=ending)
    if not path.endswith(f".{ending}"):
        raise FlyteTargetError(
            field.address, f"`output_path` is {path!r}; it must end in `.{ending}`."
        )
    problem = path_problem(path)
    if literal_glob(path) != path:  # Pants collects what a process writes by globs
        problem = "a path with one of the characters `*?[!`"
    if problem:
        raise FlyteTargetError(
            field.address, f"`output_path` is {problem}; give one below `--distdir`: {path!r}."
        )
    return path[: -len(ending) - 1]


def _linked(bundle: BuiltBundle) -> LinkedBundle:
    return LinkedBundle(archive=bundle.archive, manifest=bundle.manifest, **bundle.summary.hashes)


def _linked_image(image: BuiltImage) -> LinkedImage:
    return LinkedImage(
        address=image.address.spec,
        layout=image.layout,
        digest=image.image_digest,
        ref_name=image.ref_name,
        workdir=image.workdir,
    )


def _command(module: str, task: str, has_bundle: bool) -> Tuple[str, ...]:
    """The container's arguments, as Flyte's own serialisation of a task writes them (flyte 2.12)."""
    return (
        "a0",
        *("--inputs", "{{.input}}"),
        *("--outputs-path", "{{.outputPrefix}}"),
        *("--version", VERSION_HOLE),
        *("--raw-data-path", "{{.rawOutputDataPrefix}}"),
        *("--checkpoint-path", "{{.checkpointOutputPrefix}}"),
        *("--prev-checkpoint", "{{.prevCheckpointPrefix}}"),
        *("--run-name", "{{.runName}}"),
        *("--name", "{{.actionName}}"),
        *("--run-start-time", "{{.runStartTime}}"),
        *(("--tgz", BUNDLE_URI_HOLE, "--dest", ".") if has_bundle else ()),
        *("--resolver", _RESOLVER, "mod", module, "instance", task),
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [*collect_rules(), UnionRule(InferDependenciesRequest, InferEntryPointDependency)]
