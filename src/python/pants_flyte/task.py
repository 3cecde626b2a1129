"""Builds a `flyte_task` or `flyte_app`: its bundle, and the link of code, image and command."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, Optional, Tuple, Type, Union

from pants.backend.docker.subsystems.docker_options import DockerOptions
from pants.backend.docker.target_types import DockerImageTarget
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.core.goals.package import OutputPathField
from pants.engine.addresses import Address
from pants.engine.fs import PathGlobs
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import (
    Field,
    FieldSet,
    InferDependenciesRequest,
    InferredDependencies,
    Target,
)
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack import task_link
from flyte_pack.code.entry_names import Kind
from flyte_pack.flyte_side.private import APP_RESOLVER, RESOLVER
from flyte_pack.manifest import EntryPoint
from flyte_pack.names import InvalidName, TargetAddress, check_image, check_ref_name
from pants_flyte import engine
from pants_flyte import target_types as types
from pants_flyte.asked_image import owners_of_lists
from pants_flyte.build_types import (
    AskedImageRequest,
    BuiltBundle,
    BuiltImage,
    BuiltTask,
    BundleRequest,
    ClosureRequest,
    ImageRequest,
    SourceFile,
    TaskRequest,
)
from pants_flyte.bundle import build_bundle
from pants_flyte.docker_image import pushed_reference
from pants_flyte.embedded import check_embedded
from pants_flyte.entry_point import (
    EntryModule,
    find_entry_module,
    included,
    name_app,
    name_tasks,
    repository_of,
    tasks_named,
)
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.globs import literal_glob
from pants_flyte.image_packages import requirements_of
from pants_flyte.image_target_types import FlyteImage, FlyteImageRefNameField
from pants_flyte.inventory import wants_sbom
from pants_flyte.layout import module_name, place, place_all, root_dir_of, root_path
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem, variables_among
from pants_flyte.targets import target_at, target_named_by
from pants_flyte.unowned import OwnedFiles

logger = logging.getLogger(__name__)


# --- dependency inference ------------------------------------------------------------------------


@dataclass(frozen=True)
class EntryPointFieldSet(FieldSet):
    required_fields = (
        types.FlyteEntryPointField,
        types.FlyteTaskDependenciesField,
        PythonResolveField,
    )

    entry_point: types.FlyteEntryPointField
    resolve: PythonResolveField


class InferEntryPointDependency(InferDependenciesRequest):  # type: ignore[type-arg]  # generic in later versions
    infer_from = EntryPointFieldSet


async def _owners_of_tasks(
    address: Address,
    module: EntryModule,
    resolve: str,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
) -> Tuple[Address, ...]:
    """The owners of the tasks that an entry point names, which may stand in other modules, and of
    the lists of packages that their Image names.
    """
    try:
        repository = await repository_of(address, module, resolve, modules, python_setup)
        named = await tasks_named(repository)
    except FlyteTargetError:
        return ()  # building the task reports it; a question about the graph needs an answer
    lists = await owners_of_lists(repository)
    return (*(task.owner for task in named.tasks), *lists) if named else lists


@rule(desc="Infer what a Flyte task or app depends on from its entry point", level=LogLevel.DEBUG)
async def infer_entry_point(
    request: InferEntryPointDependency, modules: FirstPartyModules, python_setup: PythonSetup
) -> InferredDependencies:
    fields = request.field_set
    resolve = fields.resolve.normalized_value(python_setup)
    module = await find_entry_module(
        fields.address, fields.entry_point.value, resolve, python_setup
    )
    tasks = await _owners_of_tasks(fields.address, module, resolve, modules, python_setup)
    owners = await included(fields.address, module, python_setup)
    return InferredDependencies(sorted({module.owner, *tasks, *owners}))


# --- building ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What the target says, with the overrides of a request, checked.

    path: of the entry point's module in the bundle. tasks: each with the path of its module there.
    stem: the output path without its ending.
    """

    target: Target
    resolve: str
    module: EntryModule
    kind: str
    tasks: Tuple[Tuple[EntryModule, str], ...]
    shared: Optional[Target]
    copy_style: str
    root_dir: Optional[str]
    stem: str
    path: str


# Pants looks for what a rule awaits while this module is loaded: so its helpers stand above it.


async def _shared_bundle(target: Target) -> Optional[Target]:
    shared = await target_named_by(target[types.FlyteTaskBundleField], types.FlyteBundle)
    if shared is None:
        return None
    allowed: Dict[Type[Field], Tuple[Any, ...]] = {
        types.FlyteTaskCopyStyleField: (None, "none"),
        types.FlyteRootDirField: (None,),
        types.FlyteMaxSizeField: (None,),
        types.FlyteMaxFilesField: (None,),
        types.FlyteSbomField: (None,),
        types.FlyteMissingField: (None,),
        types.FlyteProvidedModulesField: (None,),
    }
    for field_type, values in allowed.items():
        if target[field_type].value not in values:
            raise FlyteTargetError(
                target.address,
                f"`{field_type.alias}` and `bundle` are both set: a shared bundle has one "
                f"layout, budget and SBOM. Set `{field_type.alias}` on {shared.address} instead.",
            )
    return shared


async def _path_in_bundle(address: Address, module: EntryModule, root_dir: Optional[str]) -> str:
    root = root_path((await engine.source_roots([module.path]))[module.path])
    path = place(SourceFile(module.path, module.owner, source_root=root, python=True), root_dir)
    if path is None:
        raise FlyteTargetError(
            address,
            f"`root_dir` is {root_dir!r}, but the entry point is {module.path}. Set `root_dir` to "
            "a directory above it (`.` is the build root), or leave it unset.",
        )
    if "." in path[: -len(".py")]:
        raise FlyteTargetError(
            address,
            f"the entry point is at {path} in the bundle, and no module can be imported from "
            "there: in its name, dots part packages. Rename it, or set `root_dir` to a directory "
            "below.",
        )
    return path


async def _plan_of(
    request: TaskRequest,
    flyte: FlyteSubsystem,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
) -> _Plan:
    address = request.address
    target = await target_at(address, types.FlyteTask)
    resolve = target[PythonResolveField].normalized_value(python_setup)
    entry = target[types.FlyteEntryPointField].value
    module = await find_entry_module(address, entry, resolve, python_setup)
    repository = await repository_of(address, module, resolve, modules, python_setup)
    is_app = isinstance(target, types.FlyteApp)
    if is_app:
        named = await name_app(repository)
    else:
        named = await name_tasks(repository)
    if named.kind is Kind.UNKNOWN:
        logger.info(
            f"{address}: only an import shows whether {module.path}:{module.name} is "
            f"{'an app' if is_app else 'a task'}. `run` and deploying do that."
        )
    shared = await _shared_bundle(target)
    own = target[types.FlyteTaskCopyStyleField].value if shared else None  # nothing but `none`
    root_dir = root_dir_of(shared or target, flyte, request.root_dir)
    paths = {
        task.path: await _path_in_bundle(address, task, root_dir)
        for task in {one.path: one for one in (module, *named.tasks)}.values()
    }
    return _Plan(
        target=target,
        resolve=resolve,
        module=module,
        kind="app" if is_app else ("task" if named.kind is Kind.UNKNOWN else named.kind.value),
        tasks=tuple((task, paths[task.path]) for task in named.tasks),
        shared=shared,
        copy_style=task_copy_style(request.copy_style or own, shared or target, flyte),
        root_dir=root_dir,
        stem=output_stem(target[OutputPathField], "json"),
        path=paths[module.path],
    )


def _bundle_asked(
    plan: _Plan, flyte: FlyteSubsystem, python_setup: PythonSetup
) -> Tuple[BundleRequest, FrozenSet[Address]]:
    """The bundle, and the owners of what it is entered by: a shared one has no such."""
    address, module = plan.target.address, plan.module
    entry = EntryPoint(module_name(plan.path), module.name, plan.path, address.spec)
    request = bundle_request_of(
        plan.shared or plan.target,
        flyte,
        python_setup,
        copy_style=plan.copy_style,
        root_dir=plan.root_dir,
        entry_points=() if plan.shared else (entry,),
    )
    return request, frozenset() if plan.shared else _entry_owners(plan)


def _entry_owners(plan: _Plan) -> FrozenSet[Address]:
    return frozenset([plan.module.owner, *(task.owner for task, _ in plan.tasks)])


@dataclass(frozen=True)
class CodeAsked:
    """The code of a task. bundle: what it is packed by. embedded: whether it is in the image."""

    bundle: BundleRequest
    entry_owners: FrozenSet[Address]
    embedded: bool


async def code_asked(
    request: TaskRequest,
    flyte: FlyteSubsystem,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
) -> CodeAsked:
    """Raises `FlyteTargetError` for a task that cannot be packaged."""
    plan = await _plan_of(request, flyte, modules, python_setup)
    bundle, owners = _bundle_asked(plan, flyte, python_setup)
    return CodeAsked(bundle, owners, plan.copy_style == "none")


async def _bundle_of(
    plan: _Plan,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    owned: OwnedFiles,
) -> Optional[BuiltBundle]:
    if plan.copy_style == "none":
        return None
    address = plan.target.address
    request, owners = _bundle_asked(plan, flyte, python_setup)
    bundle = await build_bundle(request, owners, flyte, flyte_pack, python_setup, owned)
    for one, path in ((plan.module, plan.path), *plan.tasks):
        if bundle.modules.get(path) != one.path:
            raise FlyteTargetError(
                address,
                f"the bundle {request.address} does not hold {one.path}. Add {one.owner} to its "
                "`dependencies`, or drop `bundle` from this target.",
            )
    return bundle


async def _named_image(target: Target) -> Optional[str]:
    """The image that `image` names, unless it is an address."""
    image = target[types.FlyteTaskImageField].text
    if image is None or types.is_address(image):
        return None
    directory, colon, name = image.partition(":")
    if colon and "/" not in image and "@" not in image:
        found = await engine.files_matching(PathGlobs([f"{literal_glob(directory)}/BUILD*"]))
        if found.files:
            raise FlyteTargetError(
                target.address,
                f"`image={image!r}` is a target or an image on Docker Hub: write `//{image}` for "
                f"the target {name!r} of {found.files[0]}, or `docker.io/library/{image}`.",
            )
    try:
        return check_image(image) if any(c in image for c in "/:@") else check_ref_name(image)
    except InvalidName as error:
        raise FlyteTargetError(
            target.address,
            "`image` is neither an image reference such as `ghcr.io/org/name:tag` nor the name of "
            f"one that `[flyte].images` or a deployment's `images` maps: {error}",
        ) from None


async def _check_embedded(plan: _Plan, image: BuiltImage, python_setup: PythonSetup) -> None:
    """Check that the image holds all that the task reaches, where its imports look for it."""
    address = plan.target.address
    owners = _entry_owners(plan)
    closure = await engine.closure(ClosureRequest(address, owners, plan.resolve, reasons=False))
    placed = place_all(address, closure.files, plan.root_dir)
    check_embedded(address, plan.module.path, placed, image)


async def _warn_of_packages(plan: _Plan, image: Address, python_setup: PythonSetup) -> None:
    """Warn of third-party packages that the task asks for and its image is not made for."""
    address, resolve = plan.target.address, plan.resolve
    wanted = await requirements_of(address, resolve, python_setup)
    missing = sorted(set(wanted) - set(await requirements_of(image, resolve, python_setup)))
    if missing:
        logger.warning(
            f"{address}: its image {image} is not made for {', '.join(missing)}, which the task "
            f"reaches. Name the task in the `dependencies` of {image}, unless the base of the "
            "image has them."
        )


async def _build_image(plan: _Plan, image: Address, python_setup: PythonSetup) -> BuiltImage:
    embeds = plan.copy_style == "none"
    request = ImageRequest(image, True if embeds else None)
    built = (await engine.build_images([request]))[0]
    if embeds:
        await _check_embedded(plan, built, python_setup)
    await _warn_of_packages(plan, image, python_setup)
    await engine.compare_images([AskedImageRequest(plan.target.address, request)])
    return built


@rule(desc="Build a Flyte task", level=LogLevel.DEBUG)
async def build_task(
    request: TaskRequest,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
    owned: OwnedFiles,
    docker: DockerOptions,
    docker_env: DockerOptions.EnvironmentAware,
) -> BuiltTask:
    plan = await _plan_of(request, flyte, modules, python_setup)
    bundle = await _bundle_of(plan, flyte, flyte_pack, python_setup, owned)
    field = plan.target[types.FlyteTaskImageField]
    target = await target_named_by(field, FlyteImage, DockerImageTarget)
    published: Optional[DockerImageTarget] = None
    named: Optional[str]
    if isinstance(target, DockerImageTarget):
        published = target
        named = await pushed_reference(request.address, target, docker, docker_env)
    elif target:
        named = target[FlyteImageRefNameField].value
    else:
        named = await _named_image(plan.target)
    # After what is said here of addresses, in the words of our own fields.
    await engine.check_dependencies([plan.target[types.FlyteTaskDependenciesField]])
    image: Optional[BuiltImage] = None
    wanted = request.image or plan.copy_style == "none"
    if isinstance(target, FlyteImage) and wanted and named not in request.mapped:
        image = await _build_image(plan, target.address, python_setup)
    link = _link(plan, bundle, image, None if image else named, published)
    path = f"{plan.stem}.json"
    return BuiltTask(
        address=request.address,
        link=link,
        link_path=path,
        link_digest=await engine.create_digest({path: link.to_json()}),
        bundle=bundle,
        owns_bundle=plan.shared is None,
        image=image,
    )


def _link(
    plan: _Plan,
    bundle: Optional[BuiltBundle],
    image: Optional[BuiltImage],
    named: Optional[str],
    published: Optional[Target],
) -> task_link.TaskLink:
    """published: the target whose `publish` pushes the image that is named, if that is known."""
    module = module_name(plan.path)
    command = _app_command if plan.kind == "app" else _command
    linked_bundle = linked_image = None
    if bundle:
        linked_bundle = task_link.LinkedBundle(
            archive=bundle.archive,
            manifest=bundle.manifest,
            sbom=bundle.sbom,
            **bundle.summary.hashes,
        )
    if image:
        linked_image = task_link.LinkedImage(
            address=TargetAddress(image.address.spec),
            layout=image.layout,
            digest=image.image_digest,
            ref_name=image.ref_name,
            workdir=image.workdir,
        )
    return task_link.TaskLink(
        address=TargetAddress(plan.target.address.spec),
        entry_point=f"{plan.path}:{plan.module.name}",
        kind=plan.kind,
        module=module,
        root_dir=plan.root_dir if plan.root_dir != "" else ".",
        copy_style=plan.copy_style,
        bundle=linked_bundle,
        image=named,
        built_image=linked_image,
        published_by=TargetAddress(published.address.spec) if published else None,
        tasks=tuple(
            task_link.LinkedTask(
                task.name or "", command(module_name(path), task.name or "", bundle is not None)
            )
            for task, path in plan.tasks
        ),
        allowed_variables=variables_among(plan.target[types.FlyteAllowSecretsField].value or ())
        or None,
    )


def task_copy_style(override: Optional[str], target: Target, flyte: FlyteSubsystem) -> str:
    """An override, else the field, else the option. target: a task or the bundle that it shares."""
    is_bundle = isinstance(target, types.FlyteBundle)
    field = types.FlyteBundleCopyStyleField if is_bundle else types.FlyteTaskCopyStyleField
    style = override or target[field].value or flyte.copy_style
    if style not in types.COPY_STYLES:  # fields and command lines are checked before
        raise FlyteTargetError(
            target.address,
            f"`[flyte].copy_style` is {style!r}; it is one of {', '.join(types.COPY_STYLES)}.",
        )
    if is_bundle and not override and style not in types.BUNDLE_COPY_STYLES:
        return "auto"  # `[flyte].copy_style = "none"` is about tasks: this target asks for a bundle
    return style


def bundle_request_of(
    target: Target,
    flyte: FlyteSubsystem,
    python_setup: PythonSetup,
    *,
    copy_style: Optional[str] = None,
    root_dir: Optional[str] = None,
    entry_points: Tuple[EntryPoint, ...] = (),
) -> BundleRequest:
    """The bundle of a `flyte_bundle`, or a task's own."""
    return BundleRequest(
        address=target.address,
        copy_style=copy_style or task_copy_style(None, target, flyte),
        root_dir=root_dir if root_dir is not None else root_dir_of(target, flyte),
        entry_points=entry_points,
        stem=output_stem(
            target[OutputPathField], "tar.gz" if isinstance(target, types.FlyteBundle) else "json"
        ),
        resolve=target[PythonResolveField].normalized_value(python_setup),
        max_size=target[types.FlyteMaxSizeField].bytes or flyte.most_bytes,
        max_files=target[types.FlyteMaxFilesField].value or flyte.max_files,
        sbom=wants_sbom(target, flyte),
    )


def output_stem(field: OutputPathField, ending: str) -> str:
    """The output path without `.ending`."""
    path = field.value_or_default(file_ending=ending)
    if not path.endswith(f".{ending}"):
        raise FlyteTargetError(
            field.address, f"`output_path` is {path!r}; it must end in `.{ending}`."
        )
    return types.checked_output_path(field, path)[: -len(ending) - 1]


def _command(module: str, task: str, has_bundle: bool) -> Tuple[str, ...]:
    """The container's arguments, as flyte 2.12 serialises a task."""
    return (
        "a0",
        *("--inputs", "{{.input}}"),
        *("--outputs-path", "{{.outputPrefix}}"),
        *("--version", task_link.VERSION_HOLE),
        *("--raw-data-path", "{{.rawOutputDataPrefix}}"),
        *("--checkpoint-path", "{{.checkpointOutputPrefix}}"),
        *("--prev-checkpoint", "{{.prevCheckpointPrefix}}"),
        *("--run-name", "{{.runName}}"),
        *("--name", "{{.actionName}}"),
        *("--run-start-time", "{{.runStartTime}}"),
        *(("--tgz", task_link.BUNDLE_URI_HOLE, "--dest", ".") if has_bundle else ()),
        *("--resolver", RESOLVER, "mod", module, "instance", task),
    )


def _app_command(module: str, app: str, has_bundle: bool) -> Tuple[str, ...]:
    """The same for an app, up to its `args`; one that has a `command` is started by that."""
    return (
        *("fserve", "--version", task_link.VERSION_HOLE),
        *(("--tgz", task_link.BUNDLE_URI_HOLE, "--dest", ".") if has_bundle else ()),
        *("--raw-data-path", "{{.rawOutputDataPrefix}}"),
        *("--resolver", APP_RESOLVER, "--resolver-args", f"{module}:{app}", "--"),
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [*collect_rules(), UnionRule(InferDependenciesRequest, InferEntryPointDependency)]
