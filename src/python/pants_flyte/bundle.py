"""Builds one code bundle: the closure, its layout, the checks on both, and the packer's process."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Dict, FrozenSet, List, Mapping, Optional, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.util_rules.pex import VenvPexProcess
from pants.engine.addresses import Address
from pants.engine.fs import Digest, PathGlobs
from pants.util.docutil import bin_name
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.bundle_plan import BundlePlan, BundleSummary, PlanFile
from flyte_pack.code.module_scan import ModuleScan
from flyte_pack.errors import listing
from flyte_pack.explain import Artifact, Graph
from flyte_pack.explain_text import blame, counted
from flyte_pack.guards import Sighting
from flyte_pack.inventory.plan import ENDING
from flyte_pack.manifest import source_of
from flyte_pack.manifest_graph import graph_of
from flyte_pack.progress import megabytes
from pants_flyte import engine, layout
from pants_flyte.artifact import (
    entries_of,
    kind_of,
    library_of,
    package_root_of,
    with_files,
    without_files,
)
from pants_flyte.build_types import (
    BuiltBundle,
    BundleRequest,
    Closure,
    ClosureRequest,
    Contents,
    Reason,
    SourceFile,
)
from pants_flyte.completeness import check_complete
from pants_flyte.entry_point import scan_source
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly
from pants_flyte.guards import check_files
from pants_flyte.ignored import ignored_files, left_out
from pants_flyte.inventory import BUNDLE_PLAN, bundle_inventory, linked
from pants_flyte.never_ships import everything_below
from pants_flyte.source_inputs import SOURCES, SourceInputs, source_inputs
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.tool import program_pex
from pants_flyte.unowned import OwnedFiles, warn_unowned

logger = logging.getLogger(__name__)

NEAR = 0.9  # of a budget: a warning
_MEMORY = ".cache/flyte_guards"


async def build_bundle(
    request: BundleRequest,
    entry_owners: FrozenSet[Address],
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    owned: OwnedFiles,
) -> BuiltBundle:
    """Pack what `request` asks for. Raises `FlyteTargetError` where it cannot work as asked."""
    contents = await contents_of(request, entry_owners, flyte)
    closure, placed = contents.closure, contents.placed
    entries = entry_owners or entries_of(request.address, closure.graph)
    await _check_budget(request, entries, contents, python_setup)
    if request.root_dir is not None and layout.moves_modules(closure.files, request.root_dir):
        await _check_imports(request, request.root_dir, closure)
    _warn(request.address, placed, closure)
    await check_complete(request.address, contents, request.resolve, flyte, "the bundle")
    if request.copy_style != "all":
        packed = {file.path for file in closure.files}
        await warn_unowned(request.address, closure.modules, packed, owned, flyte, "the bundle")
    known = await without_files(
        request.address, entries, closure.graph, request.resolve, python_setup
    )
    built, sighting = await _pack(request, placed, closure, known, flyte_pack, python_setup)
    (target,) = await engine.targets_at([request.address])
    owner_of = {file.path: file.owner for file in placed.values()}
    await check_files(target, "the bundle", placed, owner_of, sighting, flyte)
    return replace(built, left_out=left_out(contents.ignored))


async def _check_budget(
    request: BundleRequest,
    entries: FrozenSet[Address],
    contents: Contents,
    python_setup: PythonSetup,
) -> None:
    """Raises `FlyteTargetError` for a bundle over its budget, and warns of one that is near it."""
    if request.max_size is None and request.max_files is None:
        return
    known = await without_files(
        request.address, entries, contents.closure.graph, request.resolve, python_setup
    )
    artifact = await with_files(known, contents, "all")
    size, count = sum(file.size for file in artifact.files), len(artifact.files)
    for field, has, most in (
        ("max_size", size, request.max_size),
        ("max_files", count, request.max_files),
    ):
        if most is None or has < most * NEAR:
            continue
        budget = megabytes(most) if field == "max_size" else f"{most:,}"
        about = f"the bundle has {counted(count, size)}, and `{field}` is {budget}."
        if has <= most:
            logger.warning(f"{request.address}: {about}")
            continue
        heaviest = listing(blame(Graph(artifact), by_size=field == "max_size"))
        raise FlyteTargetError(
            request.address,
            f"{about} The heaviest ways:\n{heaviest}\nLet the code do without one of them, or "
            f"raise `{field}`. `{bin_name()} flyte-explain {request.address}` shows "
            "all that ships.",
        )


async def contents_of(
    request: BundleRequest, entry_owners: FrozenSet[Address], flyte: FlyteSubsystem
) -> Contents:
    """Raises `FlyteTargetError` where there can be no such bundle."""
    closure = await engine.closure(ClosureRequest(request.address, entry_owners, request.resolve))
    _check_entries(request, entry_owners, closure)
    files = closure.files
    ignored: Mapping[str, str] = {}
    if request.copy_style == "all":
        beside, ignored = await _everything_beside(request, entry_owners, closure, flyte)
        files = (*files, *beside)
    placed = layout.place_all(request.address, files, request.root_dir)
    if not placed:
        raise FlyteTargetError(
            request.address,
            "the bundle would be empty: no dependency leads to Python sources, resources or files.",
        )
    return Contents(closure, placed, ignored)


def _check_entries(
    request: BundleRequest, entry_owners: FrozenSet[Address], closure: Closure
) -> None:
    for owner in entry_owners:
        if owner not in closure.reasons:
            raise FlyteTargetError(
                request.address,
                f"the bundle does not hold the entry point: `dependencies` takes {owner} out "
                f"(`!{owner}`). Leave that line out.",
            )


def _plan(
    request: BundleRequest,
    placed: Mapping[str, SourceFile],
    closure: Closure,
    known: Artifact,
    inputs: SourceInputs,
) -> BundlePlan:
    root_dir = request.root_dir if request.root_dir != "" else "."
    owners = {file.owner for file in placed.values() if file.owner}
    return BundlePlan(
        copy_style=request.copy_style,
        root_dir=root_dir,
        entry_points=request.entry_points,
        files=tuple(
            PlanFile(
                source=inputs.place_of[file.path, _digest(file, closure)],
                path=path,
                owner=file.owner.spec if file.owner else None,
                reason=reason.kind,
                by=reason.by,
                kind=kind_of(file),
                package_root=(package_root := package_root_of(file)),
                origin=None if source_of(path, package_root, root_dir) == file.path else file.path,
                bare=file.path in closure.bare,
            )
            for path, file in sorted(placed.items())
            for reason in (_reason(file, closure),)
        ),
        graph=graph_of(known, {owner.spec: library_of(owner) for owner in owners}),
    )


async def _pack(
    request: BundleRequest,
    placed: Mapping[str, SourceFile],
    closure: Closure,
    known: Artifact,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
) -> Tuple[BuiltBundle, Sighting]:
    """Run the packer.

    Its arguments, environment and inputs hold no path of the checkout, so that its cache key is the
    same in every clone.
    """
    archive, manifest = f"{request.stem}.tar.gz", f"{request.stem}.manifest.json"
    sbom = f"{request.stem}{ENDING}"
    inputs = await source_inputs((f.path, _digest(f, closure)) for f in placed.values())
    plan = _plan(request, placed, closure, known, inputs)
    given = [await engine.create_digest({"plan.json": plan.to_json()}), inputs.digest]
    shipped: Tuple[str, ...] = (archive, manifest)
    command: Tuple[str, ...] = ("bundle",)
    if request.sbom:
        shipped = (*shipped, sbom)
        command = ("bundle-with-inventory", BUNDLE_PLAN, sbom)
        given.append(await bundle_inventory(request, closure, manifest, flyte_pack, python_setup))
    packed = await engine.run_venv_pex(
        VenvPexProcess(
            await engine.venv_pex(await program_pex(flyte_pack)),
            argv=(
                *(*command, "--plan", "plan.json", "--sources", SOURCES),
                *("--archive", archive, "--manifest", manifest, "--summary", "summary.json"),
                *("--seen", "seen.json", "--memory", _MEMORY),
            ),
            append_only_caches={"flyte_guards": _MEMORY},
            input_digest=await engine.merge_digests(given),
            output_files=(*shipped, "summary.json", "seen.json"),
            description=f"Pack {len(placed)} files for {request.address}",
            level=LogLevel.INFO,
        ),
        inputs.kept,
    )
    seen, summary = await engine.contents(
        await engine.subset(packed.output_digest, PathGlobs(["seen.json", "summary.json"]))
    )
    built = BuiltBundle(
        digest=await engine.subset(packed.output_digest, PathGlobs(shipped)),
        archive=archive,
        manifest=manifest,
        summary=BundleSummary.from_json(summary.content),
        modules=FrozenDict(
            {path: file.path for path, file in sorted(placed.items()) if file.python}
        ),
        sbom=await linked(packed.output_digest, sbom) if request.sbom else None,
    )
    return built, Sighting.from_json(seen.content)


def _digest(file: SourceFile, closure: Closure) -> Optional[Digest]:
    return closure.digest_of.get((file.path, file.owner))


def _reason(file: SourceFile, closure: Closure) -> Reason:
    if file.beside:
        return Reason("all", None)
    found = closure.reasons.get(file.owner) if file.owner else None
    return found or Reason("package", None)


async def _everything_beside(
    request: BundleRequest,
    entry_owners: FrozenSet[Address],
    closure: Closure,
    flyte: FlyteSubsystem,
) -> Tuple[List[SourceFile], Mapping[str, str]]:
    """For `all`: each file under the root that the closure does not have already.

    Not those that the repository ignores. They come by themselves, with the ignore file of each.

    Without a `root_dir` the roots are the source roots of the entry points, and a file that belongs
    to another source root further down stays out: it would need another place.
    """
    if request.root_dir is not None:
        roots = {request.root_dir}
    else:
        owners = entry_owners or {
            a for a, reason in closure.reasons.items() if reason.by == request.address.spec
        }
        roots = {
            file.source_root
            for file in closure.files
            if file.owner in owners and file.source_root is not None
        }
    found = await engine.files_matching(await everything_below(roots, flyte))
    have = {file.path for file in closure.files}
    others = [path for path in found.files if path not in have]
    root_of = await engine.source_roots(others) if request.root_dir is None else {}
    if request.root_dir is None:
        others = [path for path in others if layout.root_path(root_of[path]) in roots]
    ignored = await ignored_files(others)
    beside = [
        SourceFile(
            path,
            None,
            layout.root_path(root_of[path]) if root_of else None,
            python=path.endswith(".py"),
            beside=True,
        )
        for path in others
        if path not in ignored
    ]
    return beside, ignored


async def _check_imports(request: BundleRequest, root_dir: str, closure: Closure) -> None:
    """A set `root_dir` moves modules; an import of a moved module finds nothing."""
    modules = {file.path: file for file in closure.files if file.python}
    held = {digest for key, digest in closure.digest_of.items() if key[0] in modules}
    inside = await engine.subset(await engine.merge_digests(held), exactly(modules))
    sources = [
        *(await engine.contents(inside)),
        *(
            await engine.contents_matching(
                exactly(f.path for f in modules.values() if _digest(f, closure) is None)
            )
        ),
    ]
    scans: Dict[str, ModuleScan] = {}
    for source in sources:
        owner = modules[source.path].owner or request.address
        scans[source.path] = await scan_source(request.address, source.path, owner, source.content)
    broken = layout.broken_imports(tuple(modules.values()), scans, root_dir)
    if broken:
        raise layout.broken_imports_error(
            request.address, root_dir, broken, (file.source_root or "" for file in modules.values())
        )


def _warn(address: Address, placed: Mapping[str, SourceFile], closure: Closure) -> None:
    for group in layout.case_collisions(placed):
        logger.warning(
            f"{address}: the bundle holds files whose names differ only in case, which a file "
            f"system that ignores case (macOS, Windows) cannot unpack: {', '.join(group)}"
        )
    apart = layout.files_beside_modules(placed)
    if apart:
        (path, module), others = apart[0], len(apart) - 1
        logger.warning(
            f"{address}: {path} comes from a `files` target, which keeps its path from the build "
            f"root, while the module beside it in the repository is at {module} in the bundle. "
            "Code that opens it by a path relative to the working directory finds it; code that "
            "looks beside its own `__file__` does not: make it a `resource` for that."
            + (f" ({others} more files are parted in the same way.)" if others else "")
        )
    if closure.unowned_code:
        logger.warning(
            f"{address}: no target owns {', '.join(closure.unowned_code)}, which Python runs on "
            "the way to modules of the bundle. What they import is not known, and so not in the "
            "bundle: put `python_sources()` into the BUILD files beside them."
        )
