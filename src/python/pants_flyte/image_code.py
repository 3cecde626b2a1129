"""The layers of code and of the shim."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.backend.python.util_rules.pex import VenvPex, VenvPexProcess
from pants.build_graph.address import Address
from pants.engine.fs import Digest, PathGlobs
from pants.engine.process import FallibleProcessResult
from pants.engine.target import Target

from flyte_pack.flyte_side.private import FSERVE
from flyte_pack.guards import Sighting
from flyte_pack.image.assemble import ImageSettings
from flyte_pack.image.compiler import Compiler, compiled_path, minor_of
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
from flyte_pack.image.layer_plan import LayerPlan
from flyte_pack.oci.parts import layer_path_problem, whiteout_problem
from flyte_shim.fserve import ORIGINAL
from pants_flyte import engine
from pants_flyte.build_types import Closure, ClosureRequest, Contents, SourceFile
from pants_flyte.completeness import check_complete
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly, literal_glob
from pants_flyte.image_process import OUT, described, run_steps, step
from pants_flyte.image_target_types import FlyteImageSourceFilesField, FlyteImageSourceFoldersField
from pants_flyte.layout import module_name, place_all, root_dir_of
from pants_flyte.named_files import path_from_root
from pants_flyte.never_ships import everything_below
from pants_flyte.source_inputs import SOURCES, source_inputs
from pants_flyte.subsystem import FlyteSubsystem
from pants_flyte.unowned import OwnedFiles, warn_unowned

logger = logging.getLogger(__name__)

_SEEN = "seen.json"


@dataclass(frozen=True)
class Code:
    """What of the repository goes into an image.

    files: path in the image -> path from the build root. digest_of: of each, the digest that holds
    it; None: the repository. modules: names of those that the graph reaches. owners: of each file
    the target that brings it, if one does.
    """

    files: Mapping[str, str]
    digest_of: Mapping[str, Optional[Digest]]
    modules: Tuple[str, ...]
    owners: Mapping[str, Optional[Address]]


async def shim_processes(
    environments: Iterable[Tuple[Environment, bool, Optional[Compiler]]],
    tool: VenvPex,
    address: Address,
) -> Tuple[VenvPexProcess, ...]:
    """For each: the virtual environment itself, and the program that fetches bundles.

    environments: each with whether Flyte is, or may be, in the image, and what compiles.
    """
    sources = await engine.subset(await engine.program_sources(), PathGlobs(["flyte_shim/**/*.py"]))
    files = [content.path for content in await engine.contents(sources)]
    processes = []
    for environment, has_flyte, compiler in environments:
        packages = site_packages(environment.minor)
        on_path = base_paths(environment.packages, environment.after)
        modules = {f"{packages}/{path}": path for path in sorted(files)}
        plan = LayerPlan(
            what="flyte-shim",
            owner=(0, 0),
            directories=((VENV, 0o755),),
            files=(*modules.items(), *_bytecode(modules, compiler).items()),
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
        under = await engine.under_prefix(sources, SOURCES)
        processes.append(await _layer_process(plan, under, tool, about, compiler))
    return tuple(processes)


def _bytecode(files: Mapping[str, str], compiler: Optional[Compiler]) -> Dict[str, str]:
    """Path in the image of the bytecode of each module -> its source."""
    if compiler is None:
        return {}
    minor = minor_of(compiler.release)
    found = {compiled_path(p, minor): s for p, s in files.items() if p.endswith(".py")}
    return {path: source for path, source in found.items() if path not in files}


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
    sources = await engine.under_prefix(await engine.create_digest({}), SOURCES)
    return await _layer_process(plan, sources, tool, f"Hide what {address} has not of its base")


async def _layer_process(
    plan: LayerPlan,
    sources: Digest,
    tool: VenvPex,
    description: str,
    compiler: Optional[Compiler] = None,
    guarded: bool = False,
) -> VenvPexProcess:
    """sources: in the directory `SOURCES`. guarded: as for `sighting_of`."""
    plan_digest = await engine.create_digest({"plan.json": plan.to_json()})
    inputs = await engine.merge_digests([sources, plan_digest])
    seen = ("--seen", f"{OUT}/{_SEEN}") if guarded else ()
    argv = ("image-layer", "--plan", "plan.json", "--sources", SOURCES, "--out", OUT, *seen)
    return step(tool, argv, inputs, description, compiler=compiler)


async def code_layer(
    address: Address,
    code: Code,
    settings: ImageSettings,
    others: Sequence[VenvPexProcess],
    tool: VenvPex,
    compiler: Optional[Compiler],
) -> Tuple[Sequence[FallibleProcessResult], Sequence[FallibleProcessResult]]:
    """Run `others`, and pack the code meanwhile: the layers of its bytecode, and of it."""
    user, _, group = settings.user.partition(":")
    directories = {HOME[1:], settings.workdir[1:]}
    files = sorted(code.files.items())
    inputs = await source_inputs((source, code.digest_of[path]) for path, source in files)
    plan = LayerPlan(
        what=f"{len(code.files):,} files of code" if code.files else "working directory",
        owner=(int(user), int(group or user)),
        directories=tuple((path, 0o755) for path in sorted(directories)),
        files=tuple(
            (path, inputs.place_of[source, code.digest_of[path]]) for path, source in files
        ),
    )
    about = f"Pack the code of {address}"
    processes = [await _layer_process(plan, inputs.digest, tool, about, guarded=True)]
    if bytecode := _bytecode(dict(plan.files), compiler):
        assert compiler is not None
        compiled = replace(
            plan,
            what=f"bytecode of {len(bytecode):,} modules{compiler.note}",
            files=tuple(sorted(bytecode.items())),
        )
        about = f"Compile the code of {address}"
        processes.insert(0, await _layer_process(compiled, inputs.digest, tool, about, compiler))
    results = await run_steps(address, [*others, *processes], dict.fromkeys(processes, inputs.kept))
    return results[: len(others)], results[len(others) :]


async def sighting_of(code: FallibleProcessResult) -> Sighting:
    """What guards saw in the layer of code, the last that `code_layer` gives."""
    return Sighting.from_json(await described(code, _SEEN))


async def code_of(
    target: Target,
    by_graph: bool,
    workdir: str,
    flyte: FlyteSubsystem,
    python_setup: PythonSetup,
    owned: OwnedFiles,
) -> Code:
    """All that goes in from the repository. Raises `FlyteTargetError`."""
    contents = await contents_of_image(target, by_graph, workdir, flyte, python_setup)
    closure, placed = contents.closure, contents.placed
    files = {path: file.path for path, file in placed.items()}
    if by_graph:
        _warn_unowned(target.address, closure)
        by_import = closure.modules
        await warn_unowned(target.address, by_import, files.values(), owned, flyte, "the image")
        resolve = target[PythonResolveField].normalized_value(python_setup)
        inside = f"{workdir[1:]}/"
        await check_complete(target.address, contents, resolve, flyte, "the image", inside)
    below = len(workdir)  # which has a "/" before it, that paths do not have, and none after it
    imported = [path[below:] for path, file in placed.items() if file.python and not file.beside]
    return Code(
        files,
        {path: closure.digest_of.get((file.path, file.owner)) for path, file in placed.items()},
        _modules(imported),
        {path: file.owner for path, file in placed.items()},
    )


async def contents_of_image(
    target: Target,
    by_graph: bool,
    workdir: str,
    flyte: FlyteSubsystem,
    python_setup: PythonSetup,
    reasons: bool = False,
) -> Contents:
    """By path in the image: what the graph brings, if that goes in, and what fields copy.

    reasons: as of `ClosureRequest`; then the closure is there whatever goes in.
    """
    address = target.address
    closure = Closure()
    if by_graph or reasons:
        resolve = target[PythonResolveField].normalized_value(python_setup)
        closure = await engine.closure(ClosureRequest(address, frozenset(), resolve, reasons))
    placed: Dict[str, SourceFile] = {}
    if by_graph:
        root_dir = root_dir_of(target, flyte)
        for path, file in place_all(address, closure.files, root_dir, "the image").items():
            if problem := whiteout_problem(path):
                owner = file.owner or "no target"
                raise FlyteTargetError(
                    address,
                    f"{file.path} (owner: {owner}) cannot be in an image: it has {problem}.",
                )
            placed[f"{workdir[1:]}/{path}"] = file
        if not placed:
            raise FlyteTargetError(
                address, "no dependency leads to code that could go into the image."
            )
    for kind in (FlyteImageSourceFilesField, FlyteImageSourceFoldersField):
        for row in target[kind].value:
            copied = await _copied(address, row, kind.alias, workdir, flyte)
            for path, source in copied.items():
                file = SourceFile(source, None, None, python=False, beside=True)
                if placed.setdefault(path, file).path != source:
                    raise FlyteTargetError(
                        address,
                        f"two files would be at /{path} in the image: {placed[path].path} and "
                        f"{source}. Change `dst` in `{kind.alias}`.",
                    )
    return Contents(closure, placed, {})


async def _copied(
    address: Address, row: Mapping[str, Any], alias: str, workdir: str, flyte: FlyteSubsystem
) -> Dict[str, str]:
    src, dst = row["src"], row.get("dst", ".")
    path = path_from_root(address, src)
    if path is None:
        raise FlyteTargetError(address, f"`{alias}`: {src!r} leaves the build root.")
    if alias == FlyteImageSourceFilesField.alias:
        found = await engine.files_matching(exactly([path]))
        copied = {file_destination(path, dst, workdir): path for path in found.files}
    else:
        copied = await _copied_folder(row, path, dst, workdir, flyte)
    if not copied:
        raise FlyteTargetError(
            address,
            f"`{alias}`: there is nothing to copy at {path or 'the build root'}, or all of it is "
            "ignored (`.dockerignore`, `[flyte].all_excludes`, `.gitignore`).",
        )
    for place in copied:
        if problem := layer_path_problem(place):
            raise FlyteTargetError(address, f"`{alias}`: `dst={dst!r}` makes {problem}: {place!r}.")
    return copied


async def _copied_folder(
    row: Mapping[str, Any], path: str, dst: str, workdir: str, flyte: FlyteSubsystem
) -> Dict[str, str]:
    inside = "" if path == "." else f"{path}/"
    found = await engine.files_matching(
        await everything_below(["" if path == "." else path], flyte)
    )
    ignore = await engine.contents_matching(PathGlobs([f"{literal_glob(inside)}.dockerignore"]))
    rules = DockerIgnore.parse(ignore[0].content.decode(errors="replace") if ignore else "")
    only_contents = row.get("copy_contents_only", False)
    top = folder_destination(path, dst, only_contents, workdir)
    kept = rules.kept(file[len(inside) :] for file in found.files)
    return {f"{top}/{file}" if top else file: f"{inside}{file}" for file in kept}


def _modules(paths: Iterable[str]) -> Tuple[str, ...]:
    names = {module_name(path) for path in paths}
    return tuple(sorted(name for name in names if all(map(str.isidentifier, name.split(".")))))


def _warn_unowned(address: Address, closure: Closure) -> None:
    if closure.unowned_code:
        logger.warning(
            f"{address}: no target owns {', '.join(closure.unowned_code)}; what they import is not "
            "in the image."
        )
