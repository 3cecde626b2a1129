"""The layers of code and of the shim. Code is packed in parts: an edit changes one of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.backend.python.util_rules.pex import VenvPex, VenvPexProcess
from pants.build_graph.address import Address
from pants.engine.fs import Digest, PathGlobs
from pants.engine.process import FallibleProcessResult
from pants.engine.target import Target

from flyte_pack.flyte_side.private import FSERVE
from flyte_pack.image.assemble import ImageSettings
from flyte_pack.image.copy_rules import DockerIgnore, file_destination, folder_destination
from flyte_pack.image.environment import Environment, LeftOut
from flyte_pack.image.filesystem import (
    BASE_PATHS,
    HOME,
    VENV,
    base_paths,
    console_script,
    pyvenv_cfg,
    site_packages,
)
from flyte_pack.image.layer_plan import PART, LayerPlan
from flyte_pack.oci.parts import layer_path_problem, whiteout_problem
from flyte_shim.fserve import ORIGINAL
from pants_flyte import engine
from pants_flyte.closure import Closure, closure_of
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly, literal_glob
from pants_flyte.image_process import OUT, run_steps, step
from pants_flyte.image_target_types import FlyteImageSourceFilesField, FlyteImageSourceFoldersField
from pants_flyte.layout import SourceFile, module_name, place_all, root_dir_of
from pants_flyte.named_files import path_from_root
from pants_flyte.subsystem import FlyteSubsystem
from pants_flyte.tool import program_sources
from pants_flyte.unowned import OwnedFiles, warn_unowned

logger = logging.getLogger(__name__)

_PART = 1000  # files in a part of a layer, roughly


@dataclass(frozen=True)
class Code:
    """What of the repository goes into an image.

    files: path in the image -> path from the build root. digest_of: of each, a digest that holds
    it. modules: names of those that the graph reaches.
    """

    files: Mapping[str, str]
    digest_of: Mapping[str, Digest]
    modules: Tuple[str, ...]


async def shim_processes(
    environments: Iterable[Tuple[Environment, bool]], tool: VenvPex, address: Address
) -> Tuple[VenvPexProcess, ...]:
    """For each: the virtual environment itself, and the program that fetches bundles.

    environments: each with whether Flyte is, or may be, in the image.
    """
    sources = await engine.subset(await program_sources(), PathGlobs(["flyte_shim/**/*.py"]))
    files = [content.path for content in await engine.contents(sources)]
    processes = []
    for environment, has_flyte in environments:
        packages = site_packages(environment.minor)
        on_path = base_paths(environment.packages, environment.after)
        plan = LayerPlan(
            what="flyte-shim",
            owner=(0, 0),
            directories=((VENV, 0o755),),
            files=tuple((f"{packages}/{path}", path) for path in sorted(files)),
            texts=(
                (
                    f"{VENV}/pyvenv.cfg",
                    pyvenv_cfg(environment.interpreter, environment.minor, environment.isolated),
                    0o644,
                ),
                (f"{VENV}/bin/flyte-shim", console_script("flyte_shim.cli", "main"), 0o755),
                *(((f"{packages}/{BASE_PATHS}", on_path, 0o644),) if on_path else ()),
                *(_fserve() if has_flyte else ()),
            ),
            links=(
                (f"{VENV}/bin/python", environment.interpreter),
                (f"{VENV}/bin/python3", "python"),
                (f"{VENV}/bin/python{environment.minor}", "python"),
            ),
        )
        about = f"Pack the shim for {address}"
        processes.append(await _layer_process(plan, sources, tool, about))
    return tuple(processes)


def _fserve() -> Tuple[Tuple[str, str, int], ...]:
    """What starts apps: ours in the place of Flyte's, which lies in a layer below."""
    return (
        (f"{VENV}/bin/fserve", console_script("flyte_shim.fserve", "main"), 0o755),
        (f"{VENV}/bin/{ORIGINAL}", console_script(*FSERVE), 0o755),
    )


async def hiding_process(left_out: LeftOut, tool: VenvPex, address: Address) -> VenvPexProcess:
    """The layer that hides what of the base is not in the image."""
    plan = LayerPlan(
        what=left_out.what,
        owner=(0, 0),
        directories=(),
        texts=tuple((path, text, 0o644) for path, text in left_out.texts),
        hidden=left_out.paths,
    )
    sources = await engine.create_digest({})
    return await _layer_process(plan, sources, tool, f"Hide what {address} has not of its base")


async def _layer_process(
    plan: LayerPlan, sources: Digest, tool: VenvPex, description: str, part: bool = False
) -> VenvPexProcess:
    plan_digest = await engine.create_digest({"plan.json": plan.to_json()})
    under = await engine.under_prefix(sources, "sources")
    inputs = await engine.merge_digests([under, plan_digest])
    argv = ("image-layer", "--plan", "plan.json", "--sources", "sources", "--out", OUT)
    return step(tool, (*argv, "--part") if part else argv, inputs, description)


async def code_layer(
    address: Address,
    code: Code,
    settings: ImageSettings,
    others: Sequence[VenvPexProcess],
    tool: VenvPex,
) -> Tuple[Sequence[FallibleProcessResult], FallibleProcessResult]:
    """Run `others`, and pack the code meanwhile: in one process, or in parts that are joined.

    An edit packs one part anew. What takes the time is not packing but having files in a sandbox.
    """
    user, _, group = settings.user.partition(":")
    directories = {HOME[1:], settings.workdir[1:]}
    whole = LayerPlan(
        what=f"{len(code.files):,} files of code" if code.files else "working directory",
        owner=(int(user), int(group or user)),
        directories=tuple((path, 0o755) for path in sorted(directories)),
        files=tuple(sorted(code.files.items())),
    )
    about = f"Pack the code of {address}"
    if len(code.files) <= 2 * _PART:
        sources = await engine.merge_digests(set(code.digest_of.values()))
        packed = await _layer_process(whole, sources, tool, about)
        results = await run_steps(address, [*others, packed])
        return results[:-1], results[-1]

    processes: List[VenvPexProcess] = []
    for plan in whole.in_parts(_PART):
        sources = await engine.merge_digests({code.digest_of[path] for path, _ in plan.files})
        said = f"{about}: part {len(processes) + 1}"
        processes.append(await _layer_process(plan, sources, tool, said, part=True))
    results = await run_steps(address, [*others, *processes])
    others_results, parts = results[: len(others)], results[len(others) :]
    names = [f"part{number}" for number in range(len(parts))]
    inputs = [await engine.under_prefix(part.output_digest, n) for n, part in zip(names, parts)]
    paths = [f"{name}/{OUT}/{PART}" for name in names]
    join = step(
        tool,
        ("image-join", "--what", whole.what, "--out", OUT, *paths),
        await engine.merge_digests(inputs),
        f"{about}: join {len(parts)} parts",
    )
    (joined,) = await run_steps(address, [join])
    return others_results, joined


async def code_of(
    target: Target,
    by_graph: bool,
    workdir: str,
    flyte: FlyteSubsystem,
    python_setup: PythonSetup,
    owned: OwnedFiles,
) -> Code:
    """All that goes in from the repository. Raises `FlyteTargetError`."""
    address = target.address
    files: Dict[str, str] = {}
    digest_of: Dict[str, Digest] = {}
    modules: Tuple[str, ...] = ()
    by_import: Tuple[SourceFile, ...] = ()
    if by_graph:
        closure = await closure_of(
            address,
            frozenset(),
            target[PythonResolveField].normalized_value(python_setup),
            python_setup,
            reasons=False,
        )
        placed = place_all(address, closure.files, root_dir_of(target, flyte), "the image")
        if not placed:
            raise FlyteTargetError(
                address, "no dependency leads to code that could go into the image."
            )
        _warn_unowned(address, closure)
        for path, file in placed.items():
            if problem := whiteout_problem(path):
                owner = file.owner or "no target"
                raise FlyteTargetError(
                    address,
                    f"{file.path} (owner: {owner}) cannot be in an image: it has {problem}.",
                )
            files[f"{workdir[1:]}/{path}"] = file.path
            digest_of[f"{workdir[1:]}/{path}"] = closure.digest_of[file.path, file.owner]
        modules, by_import = _modules(placed), closure.modules
    for field_type in (FlyteImageSourceFilesField, FlyteImageSourceFoldersField):
        for row in target[field_type].value:
            copied, digest = await _copied(address, row, field_type.alias, workdir, flyte)
            for path, source in copied.items():
                if files.setdefault(path, source) != source:
                    raise FlyteTargetError(
                        address,
                        f"two files would be at /{path} in the image: {files[path]} and {source}. "
                        f"Change `dst` in `{field_type.alias}`.",
                    )
                digest_of.setdefault(path, digest)
    if by_import:
        await warn_unowned(address, by_import, files.values(), owned, flyte, "the image")
    return Code(files, digest_of, modules)


async def _copied(
    address: Address, row: Mapping[str, Any], alias: str, workdir: str, flyte: FlyteSubsystem
) -> Tuple[Dict[str, str], Digest]:
    src, dst = row["src"], row.get("dst", ".")
    path = path_from_root(address, src)
    if path is None:
        raise FlyteTargetError(address, f"`{alias}`: {src!r} leaves the build root.")
    if alias == FlyteImageSourceFilesField.alias:
        found = await engine.snapshot(exactly([path]))
        copied = {file_destination(path, dst, workdir): path for path in found.files}
    else:
        found, copied = await _copied_folder(row, path, dst, workdir, flyte)
    if not copied:
        raise FlyteTargetError(
            address,
            f"`{alias}`: there is nothing to copy at {path or 'the build root'}, or all of it is "
            "ignored (`.dockerignore`, `[flyte].all_excludes`, `.gitignore`).",
        )
    for place in copied:
        if problem := layer_path_problem(place):
            raise FlyteTargetError(address, f"`{alias}`: `dst={dst!r}` makes {problem}: {place!r}.")
    return copied, found.digest


async def _copied_folder(
    row: Mapping[str, Any], path: str, dst: str, workdir: str, flyte: FlyteSubsystem
) -> Tuple[Any, Dict[str, str]]:
    inside = "" if path == "." else f"{path}/"
    excludes = [f"!{pattern}" for pattern in flyte.all_excludes]
    found = await engine.snapshot(PathGlobs([f"{literal_glob(inside)}**", *excludes]))
    ignore = await engine.contents_matching(PathGlobs([f"{literal_glob(inside)}.dockerignore"]))
    rules = DockerIgnore.parse(ignore[0].content.decode(errors="replace") if ignore else "")
    only_contents = row.get("copy_contents_only", False)
    top = folder_destination(path, dst, only_contents, workdir)
    kept = rules.kept(file[len(inside) :] for file in found.files)
    return found, {f"{top}/{file}" if top else file: f"{inside}{file}" for file in kept}


def _modules(placed: Mapping[str, SourceFile]) -> Tuple[str, ...]:
    names = {module_name(path) for path, file in placed.items() if file.python}
    return tuple(sorted(name for name in names if all(map(str.isidentifier, name.split(".")))))


def _warn_unowned(address: Address, closure: Closure) -> None:
    if closure.unowned_code:
        logger.warning(
            f"{address}: no target owns {', '.join(closure.unowned_code)}; what they import is not "
            "in the image."
        )
