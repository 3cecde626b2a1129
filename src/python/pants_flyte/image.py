"""Builds a `flyte_image`: base, third-party packages, shim and code become layers, and an OCI image layout is put together."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple, Union

from pants.backend.python.subsystems.repos import PythonRepos
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    PythonRequirementResolveField,
    PythonRequirementsField,
    PythonResolveField,
)
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex import VenvPex, VenvPexProcess
from pants.base.build_environment import get_buildroot
from pants.build_graph.address import Address
from pants.core.goals.package import OutputPathField
from pants.engine.env_vars import EnvironmentVarsRequest
from pants.engine.fs import CreateDigest, Digest, DigestSubset, FileContent, PathGlobs
from pants.engine.process import FallibleProcessResult
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule
from pants.option.global_options import GlobalOptions
from pants.util.docutil import bin_name
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.image.assemble import AssembledImage, ImageSettings, assemble
from flyte_pack.image.copy_rules import DockerIgnore, file_destination, folder_destination
from flyte_pack.image.filesystem import (
    HOME,
    VENV,
    console_script,
    pyvenv_cfg,
    site_packages,
)
from flyte_pack.image.layer_plan import LayerPlan
from flyte_pack.oci.model import TITLE, Platform
from flyte_pack.oci.parts import Layer, layers_from_json
from flyte_shim.paths import path_problem
from pants_flyte.base_image import Base, load_base, parse_platforms
from pants_flyte.build_types import BuiltImage, ImageRequest
from pants_flyte.closure import Closure, closure_of
from pants_flyte.engine import (
    contents,
    contents_matching,
    create_digest,
    environment_variables,
    find_python,
    merge_digests,
    resolve_addresses,
    snapshot,
    subprocess_environment,
    subset,
    targets_at,
    transitive_targets,
    under_prefix,
    venv_pex,
)
from pants_flyte.errors import FlyteTargetError
from pants_flyte.image_process import OUT, blobs, described, run_image_step
from pants_flyte.image_target_types import (
    FlyteImage,
    FlyteImageBaseField,
    FlyteImageBytecodeField,
    FlyteImageCodeField,
    FlyteImageEnvField,
    FlyteImageLabelsField,
    FlyteImagePlatformsField,
    FlyteImageRefNameField,
    FlyteImageSourceFilesField,
    FlyteImageSourceFoldersField,
    FlyteImageUserField,
    FlyteImageWorkdirField,
)
from pants_flyte.layout import SourceFile, check_root_dir, literal_glob, module_name, place_all
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import FlyteRootDirField
from pants_flyte.tool import program_pex, program_sources

logger = logging.getLogger(__name__)

_UV_CACHE = ".cache/flyte_uv"
_VARIABLE = re.compile(r"\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
_USER = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?")


@dataclass(frozen=True)
class _Code:
    """What of the repository goes into an image. files: path in the image -> where it is among the sources."""

    files: Mapping[str, str]
    sources: Digest
    modules: Tuple[str, ...]


# --- third-party packages ------------------------------------------------------------------------


async def _requirements(address: Address, resolve: str, python_setup: PythonSetup) -> List[str]:
    """What the closure asks for, as it is written, sorted. Raises `FlyteTargetError` for another resolve's."""
    found: Set[str] = set()
    for target in (await transitive_targets([address])).closure:
        if not target.has_field(PythonRequirementsField):
            continue
        its = target[PythonRequirementResolveField].normalized_value(python_setup)
        if its != resolve:
            raise FlyteTargetError(
                address,
                f"it depends on {target.address}, which belongs to the resolve `{its}`, while the image's is `{resolve}`. "
                "Set `resolve`, or depend on the requirement of that resolve.",
            )
        found.update(str(requirement) for requirement in target[PythonRequirementsField].value)
    return sorted(found)


async def _lock_of(address: Address, resolve: str, python_setup: PythonSetup) -> FileContent:
    path = python_setup.resolves.get(resolve) if python_setup.enable_resolves else None
    if path is None:
        raise FlyteTargetError(
            address,
            "third-party packages of an image come from a lock file: set `[python].enable_resolves = true` and name one in "
            f"`[python.resolves]` for `{resolve}`.",
        )
    found = await contents_matching(PathGlobs([literal_glob(path)]))
    if not found:
        raise FlyteTargetError(
            address,
            f"the lock file of the resolve `{resolve}`, {path}, is not there. `{bin_name()} generate-lockfiles "
            f"--resolve={resolve}` makes it.",
        )
    return found[0]


async def _package_layers(
    request: ImageRequest,
    target: Target,
    base: Base,
    platforms: Sequence[Platform],
    tool: VenvPex,
    python_setup: PythonSetup,
    repos: PythonRepos,
    certificates: Optional[str],
) -> Tuple[Tuple[Tuple[Layer, ...], ...], Tuple[Digest, ...]]:
    """The layers for each platform, and the digests of their blobs."""
    address = request.address
    resolve = target[PythonResolveField].normalized_value(python_setup)
    roots = await _requirements(address, resolve, python_setup)
    if not roots:
        return ((),) * len(platforms), ()
    lock = await _lock_of(address, resolve, python_setup)
    inputs = await create_digest(
        CreateDigest(
            [
                FileContent("resolve.lock", lock.content),
                FileContent("roots.txt", "".join(f"{root}\n" for root in roots).encode()),
            ]
        )
    )
    env = {**(await subprocess_environment()), **_index_environment(repos, certificates)}
    common = ("--python", base.python, "--address", address.spec)
    resolved = await run_image_step(
        address,
        [
            VenvPexProcess(
                tool,
                argv=(
                    *("image-resolve", "--lock", "resolve.lock", "--roots", "roots.txt"),
                    *("--platform", str(platform), "--out", "subset.txt", *common),
                ),
                input_digest=inputs,
                output_files=("subset.txt",),
                extra_env=env,
                append_only_caches={"flyte_uv": _UV_CACHE},
                description=f"Find the packages that {address} needs on {platform}",
                level=LogLevel.INFO,
            )
            for platform in platforms
        ],
    )
    bytecode: Tuple[str, ...] = ()
    if target[FlyteImageBytecodeField].value:
        python = await find_python(InterpreterConstraints([f"CPython=={base.python}.*"]))
        bytecode = ("--bytecode-python", python.path)
    installed = await run_image_step(
        address,
        [
            VenvPexProcess(
                tool,
                argv=(
                    *("image-install", "--requirements", "subset.txt", "--out", OUT),
                    *("--platform", str(platform), *common, *bytecode),
                ),
                input_digest=result.output_digest,
                output_directories=(OUT,),
                extra_env=env,
                append_only_caches={"flyte_uv": _UV_CACHE},
                description=f"Install the packages of {address} for {platform}",
                level=LogLevel.INFO,
            )
            for platform, result in zip(platforms, resolved)
        ],
    )
    layers = [await _layers(result) for result in installed]
    return tuple(layers), tuple([await blobs(result) for result in installed])


def _index_environment(repos: PythonRepos, certificates: Optional[str]) -> Dict[str, str]:
    """`[python-repos]` and `[GLOBAL].ca_certs_path` as uv's settings.

    In the environment, as URLs may hold credentials, and arguments show up in errors.
    """
    env = {"UV_CACHE_DIR": _UV_CACHE, "UV_NO_CONFIG": "1", "UV_NO_PROGRESS": "1"}
    indexes = repos.indexes
    if indexes:
        env["UV_DEFAULT_INDEX"] = indexes[0]
        # As pip does: the hashes of the lock file say which file it must be.
        env["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    else:
        env["UV_NO_INDEX"] = "1"
    if indexes[1:]:
        env["UV_INDEX"] = " ".join(indexes[1:])
    if repos.find_links:
        env["UV_FIND_LINKS"] = ",".join(repos.find_links)
    if certificates:  # as Pants' own downloads and PEX have it
        env["SSL_CERT_FILE"] = os.path.join(get_buildroot(), certificates)
    return env


async def _layers(result: FallibleProcessResult) -> Tuple[Layer, ...]:
    return layers_from_json(await described(result, "layers.json"))


# --- the shim and the code -----------------------------------------------------------------------


async def _shim_process(base: Base, tool: VenvPex, address: Address) -> VenvPexProcess:
    """The virtual environment itself, and the program that fetches bundles."""
    packages = site_packages(base.python)
    sources = await subset(DigestSubset(await program_sources(), PathGlobs(["flyte_shim/**/*.py"])))
    files = [content.path for content in await contents(sources)]
    plan = LayerPlan(
        what="flyte-shim",
        owner=(0, 0),
        directories=((VENV, 0o755),),
        files=tuple((f"{packages}/{path}", path) for path in sorted(files)),
        texts=(
            (f"{VENV}/pyvenv.cfg", pyvenv_cfg(base.interpreter, base.python), 0o644),
            (f"{VENV}/bin/flyte-shim", console_script("flyte_shim.cli", "main"), 0o755),
        ),
        links=(
            (f"{VENV}/bin/python", base.interpreter),
            (f"{VENV}/bin/python3", "python"),
            (f"{VENV}/bin/python{base.python}", "python"),
        ),
    )
    return await _layer_process(plan, sources, tool, f"Pack the shim for {address}")


async def _layer_process(
    plan: LayerPlan, sources: Digest, tool: VenvPex, description: str
) -> VenvPexProcess:
    plan_digest = await create_digest(CreateDigest([FileContent("plan.json", plan.to_json())]))
    sources = await merge_digests([await under_prefix(sources, "sources"), plan_digest])
    return VenvPexProcess(
        tool,
        argv=("image-layer", "--plan", "plan.json", "--sources", "sources", "--out", OUT),
        input_digest=sources,
        output_directories=(OUT,),
        description=description,
        level=LogLevel.INFO,
    )


async def _code(
    request: ImageRequest,
    target: Target,
    workdir: str,
    flyte: FlyteSubsystem,
    python_setup: PythonSetup,
) -> _Code:
    """All that goes in from the repository. Raises `FlyteTargetError`, for two files on one path too."""
    address = request.address
    files: Dict[str, str] = {}
    digests: List[Digest] = []
    modules: Tuple[str, ...] = ()
    if request.code:
        closure = await closure_of(
            address,
            frozenset(),
            target[PythonResolveField].normalized_value(python_setup),
            python_setup,
        )
        placed = place_all(address, closure.files, _root_dir(target, flyte), "the image")
        if not placed:
            raise FlyteTargetError(
                address, "no dependency leads to code that could go into the image."
            )
        _warn_unowned(address, closure)
        files = {f"{workdir[1:]}/{path}": file.path for path, file in placed.items()}
        digests.extend(closure.digests)
        modules = _modules(placed)
    for field_type in (FlyteImageSourceFilesField, FlyteImageSourceFoldersField):
        for row in target[field_type].value:
            copied, digest = await _copied(address, row, field_type.alias, workdir, flyte)
            for path, source in copied.items():
                if files.setdefault(path, source) != source:
                    raise FlyteTargetError(
                        address,
                        f"two files would be at /{path} in the image: {files[path]} and {source}. Change `dst` in "
                        f"`{field_type.alias}`.",
                    )
            digests.append(digest)
    return _Code(files, await merge_digests(digests), modules)


async def _copied(
    address: Address, row: Mapping[str, Any], alias: str, workdir: str, flyte: FlyteSubsystem
) -> Tuple[Dict[str, str], Digest]:
    src, dst = row["src"], row.get("dst", ".")
    start = "" if src.startswith("//") else address.spec_path
    path = os.path.normpath(os.path.join(start, src.lstrip("/") if not start else src))
    if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
        raise FlyteTargetError(address, f"`{alias}`: {src!r} leaves the build root.")
    if alias == FlyteImageSourceFilesField.alias:
        found = await snapshot(PathGlobs([literal_glob(path)]))
        copied = {file_destination(path, dst, workdir): path for path in found.files}
    else:
        found, copied = await _copied_folder(row, path, dst, workdir, flyte)
    if not copied:
        raise FlyteTargetError(
            address,
            f"`{alias}`: there is nothing to copy at {path or 'the build root'}, or all of it is ignored (`.dockerignore`, "
            "`[flyte].all_excludes`, `.gitignore`).",
        )
    for place in copied:
        if problem := path_problem(place):
            raise FlyteTargetError(address, f"`{alias}`: `dst={dst!r}` makes {problem}: {place!r}.")
    return copied, found.digest


async def _copied_folder(
    row: Mapping[str, Any], path: str, dst: str, workdir: str, flyte: FlyteSubsystem
) -> Tuple[Any, Dict[str, str]]:
    inside = "" if path == "." else f"{path}/"
    excludes = [f"!{pattern}" for pattern in flyte.all_excludes]
    found = await snapshot(PathGlobs([f"{literal_glob(inside)}**", *excludes]))
    ignore = await contents_matching(PathGlobs([f"{literal_glob(inside)}.dockerignore"]))
    rules = DockerIgnore.parse(ignore[0].content.decode(errors="replace") if ignore else "")
    only_contents = row.get("copy_contents_only", False)
    top = folder_destination(path, dst, only_contents, workdir)
    kept = rules.kept(file[len(inside) :] for file in found.files)
    return found, {f"{top}/{file}" if top else file: f"{inside}{file}" for file in kept}


def _root_dir(target: Target, flyte: FlyteSubsystem) -> Optional[str]:
    root = target[FlyteRootDirField].value
    return check_root_dir(target.address, flyte.root_dir if root is None else root)


def _modules(placed: Mapping[str, SourceFile]) -> Tuple[str, ...]:
    names = {module_name(path) for path, file in placed.items() if file.python}
    return tuple(sorted(name for name in names if all(map(str.isidentifier, name.split(".")))))


def _warn_unowned(address: Address, closure: Closure) -> None:
    if closure.unowned_code:
        logger.warning(
            f"{address}: no target owns {', '.join(closure.unowned_code)}; what they import is not in the image."
        )


# --- the image -----------------------------------------------------------------------------------


async def _settings(target: Target, flyte: FlyteSubsystem) -> ImageSettings:
    address = target.address
    user, workdir = target[FlyteImageUserField].value, target[FlyteImageWorkdirField].value
    if not _USER.fullmatch(user or ""):
        raise FlyteTargetError(
            address, f"`user` is {user!r}; give numbers of user and group, such as `1000:1000`."
        )
    if not workdir or not workdir.startswith("/") or path_problem(workdir[1:]):
        raise FlyteTargetError(
            address,
            f"`workdir` is {workdir!r}; give an absolute path below `/`, such as `/home/flyte/work`.",
        )
    labels = {**flyte.image_labels, **(target[FlyteImageLabelsField].value or {})}
    return ImageSettings(
        env={"HOME": HOME, **await _filled(address, target[FlyteImageEnvField].value or {})},
        labels={TITLE: address.spec, **await _filled(address, labels)},
        user=user or "",
        workdir=workdir,
        entrypoint=("flyte-shim", "--"),
    )


async def _filled(address: Address, values: Mapping[str, str]) -> Dict[str, str]:
    """With `{env.NAME}` replaced by the caller's variable. Raises `FlyteTargetError` for one that is not set."""
    names = {name for value in values.values() for name in _VARIABLE.findall(value)}
    if not names:
        return dict(values)
    variables = await environment_variables(EnvironmentVarsRequest(sorted(names)))
    for name in sorted(names - variables.keys()):
        raise FlyteTargetError(address, f"`{{env.{name}}}`: the variable {name} is not set.")
    return {k: _VARIABLE.sub(lambda m: variables[m[1]], v) for k, v in values.items()}


async def _base_target(target: Target) -> Target:
    field = target[FlyteImageBaseField]
    return (await targets_at(await resolve_addresses(field.to_unparsed_address_inputs())))[0]


async def _layout(image: AssembledImage, path: str, parts: Iterable[Digest]) -> Digest:
    documents = await create_digest(
        CreateDigest([FileContent(name, data) for name, data in image.documents.items()])
    )
    return await under_prefix(await merge_digests([documents, *parts]), path)


@rule(desc="Build a Flyte image", level=LogLevel.DEBUG)
async def build_image(
    request: ImageRequest,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    repos: PythonRepos,
    global_options: GlobalOptions,
) -> BuiltImage:
    address = request.address
    target = (await targets_at([address]))[0]
    if not isinstance(target, FlyteImage):
        raise FlyteTargetError(
            address, f"this is a `{target.alias}`, where a `{FlyteImage.alias}` is needed."
        )
    own_code = target[FlyteImageCodeField].value
    wants_code = bool(own_code)
    if own_code is None and not target[FlyteImageSourceFoldersField].value:
        wants_code = bool(request.code)
    request = ImageRequest(address, wants_code)
    settings = await _settings(target, flyte)
    base = await load_base(await _base_target(target), flyte_pack, python_setup)
    platforms = _platforms(target, base)
    tool = await venv_pex(await program_pex(flyte_pack, "image_lockfile"))

    code = await _code(request, target, settings.workdir, flyte, python_setup)
    plan = _code_plan(code, settings)
    shim, embedded = await run_image_step(
        address,
        [
            await _shim_process(base, tool, address),
            await _layer_process(plan, code.sources, tool, f"Pack the code of {address}"),
        ],
    )
    packages, package_blobs = await _package_layers(
        request, target, base, platforms, tool, python_setup, repos, global_options.ca_certs_path
    )
    ours = (*await _layers(shim), *await _layers(embedded))
    layers = {platform: (*of_platform, *ours) for platform, of_platform in zip(platforms, packages)}
    image = assemble(base.image, layers, settings)
    layout = target[OutputPathField].value_or_default(file_ending=None)
    if wants_code != bool(own_code):
        layout += "-with-code"
    return BuiltImage(
        address=address,
        digest=await _layout(
            image, layout, [base.blobs, *package_blobs, await blobs(shim), await blobs(embedded)]
        ),
        layout=layout,
        image_digest=image.digest,
        base_name=base.image.name,
        production=base.image.production,
        platforms=tuple(map(str, platforms)),
        workdir=settings.workdir,
        ref_name=target[FlyteImageRefNameField].value,
        embeds_code=wants_code,
        own_output=wants_code == bool(own_code),
        code=FrozenDict(code.files),
        modules=code.modules,
        layers=len(next(iter(layers.values()))),
        bytes=sum({layer.digest: layer.size for of in layers.values() for layer in of}.values()),
    )


def _platforms(target: Target, base: Base) -> Tuple[Platform, ...]:
    has = [p.platform for p in base.image.platforms]
    wanted = target[FlyteImagePlatformsField].value
    if wanted is None:
        return tuple(sorted(has))
    platforms = parse_platforms(target.address, wanted)
    for platform in platforms:
        if platform not in has:
            raise FlyteTargetError(
                target.address,
                f"`platforms` asks for {platform}, and the base {base.address} has {', '.join(map(str, has))}. Add it to "
                "the base's `platforms` and lock it, or leave it out here.",
            )
    if not platforms:
        raise FlyteTargetError(target.address, "`platforms` is empty.")
    return platforms


def _code_plan(code: _Code, settings: ImageSettings) -> LayerPlan:
    user, _, group = settings.user.partition(":")
    directories = (HOME[1:], settings.workdir[1:])
    return LayerPlan(
        what=f"{len(code.files):,} files of code" if code.files else "working directory",
        owner=(int(user), int(group or user)),
        directories=tuple((path, 0o755) for path in dict.fromkeys(directories)),
        files=tuple(sorted(code.files.items())),
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
