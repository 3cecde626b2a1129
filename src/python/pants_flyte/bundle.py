"""Builds one code bundle: the closure, its layout, the checks on both, and the packer's process."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Dict, FrozenSet, List, Mapping, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.util_rules.pex import VenvPexProcess
from pants.engine.addresses import Address
from pants.engine.fs import Digest, PathGlobs
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.bundle_plan import BundlePlan, BundleSummary, PlanFile
from flyte_pack.module_scan import ModuleScan
from pants_flyte import engine, layout
from pants_flyte.build_types import BuiltBundle, BundleRequest
from pants_flyte.closure import Closure, Reason, closure_of
from pants_flyte.entry_point import scan_source
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly, literal_glob
from pants_flyte.ignored import ignored_files, left_out
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.tool import program_pex
from pants_flyte.unowned import OwnedFiles, warn_unowned

logger = logging.getLogger(__name__)


async def build_bundle(
    request: BundleRequest,
    entry_owners: FrozenSet[Address],
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    owned: OwnedFiles,
) -> BuiltBundle:
    """Pack what `request` asks for. Raises `FlyteTargetError` where it cannot work as asked."""
    closure = await closure_of(request.address, entry_owners, request.resolve, python_setup)
    _check_entries(request, entry_owners, closure)
    files, digests = closure.files, tuple(set(closure.digest_of.values()))
    ignored: Mapping[str, str] = {}
    if request.copy_style == "all":
        beside, beside_digest, ignored = await _everything_beside(
            request, entry_owners, closure, flyte
        )
        files, digests = (*files, *beside), (*digests, beside_digest)
    placed = layout.place_all(request.address, files, request.root_dir)
    if not placed:
        raise FlyteTargetError(
            request.address,
            "the bundle would be empty: no dependency leads to Python sources, resources or files.",
        )
    digest = await engine.merge_digests(digests)
    if request.root_dir is not None and layout.moves_modules(closure.files, request.root_dir):
        await _check_imports(request, request.root_dir, closure, digest)
    _warn(request.address, placed, closure)
    if request.copy_style != "all":
        packed = {file.path for file in files}
        await warn_unowned(request.address, closure.modules, packed, owned, flyte, "the bundle")
    built = await _pack(request, placed, _plan(request, placed, closure), digest, flyte_pack)
    return replace(built, left_out=left_out(ignored))


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
    request: BundleRequest, placed: Mapping[str, layout.SourceFile], closure: Closure
) -> BundlePlan:
    return BundlePlan(
        copy_style=request.copy_style,
        root_dir=request.root_dir if request.root_dir != "" else ".",
        entry_points=request.entry_points,
        files=tuple(
            PlanFile(
                source=file.path,
                path=path,
                owner=file.owner.spec if file.owner else None,
                reason=reason.kind,
                by=reason.by,
            )
            for path, file in sorted(placed.items())
            for reason in (_reason(file, closure),)
        ),
    )


async def _pack(
    request: BundleRequest,
    placed: Mapping[str, layout.SourceFile],
    plan: BundlePlan,
    digest: Digest,
    flyte_pack: FlytePackSubsystem,
) -> BuiltBundle:
    """Run the packer.

    Its arguments, environment and inputs hold no path of the checkout, so that its cache key is the
    same in every clone.
    """
    archive, manifest = f"{request.stem}.tar.gz", f"{request.stem}.manifest.json"
    plan_digest = await engine.create_digest({"plan.json": plan.to_json()})
    sources = await engine.under_prefix(digest, "sources")
    packed = await engine.run_venv_pex(
        VenvPexProcess(
            await engine.venv_pex(await program_pex(flyte_pack)),
            argv=(
                *("bundle", "--plan", "plan.json", "--sources", "sources"),
                *("--archive", archive, "--manifest", manifest, "--summary", "summary.json"),
            ),
            input_digest=await engine.merge_digests([plan_digest, sources]),
            output_files=(archive, manifest, "summary.json"),
            description=f"Pack {len(placed)} files for {request.address}",
            level=LogLevel.INFO,
        )
    )
    summary = await engine.contents(
        await engine.subset(packed.output_digest, PathGlobs(["summary.json"]))
    )
    return BuiltBundle(
        digest=await engine.subset(packed.output_digest, PathGlobs([archive, manifest])),
        archive=archive,
        manifest=manifest,
        summary=BundleSummary.from_json(summary[0].content),
        modules=FrozenDict(
            {path: file.path for path, file in sorted(placed.items()) if file.python}
        ),
    )


def _reason(file: layout.SourceFile, closure: Closure) -> Reason:
    if file.beside:
        return Reason("all", None)
    found = closure.reasons.get(file.owner) if file.owner else None
    return found or Reason("package", None)


async def _everything_beside(
    request: BundleRequest,
    entry_owners: FrozenSet[Address],
    closure: Closure,
    flyte: FlyteSubsystem,
) -> Tuple[List[layout.SourceFile], Digest, Mapping[str, str]]:
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
    globs = PathGlobs(
        [
            *(os.path.join(literal_glob(root), "**") for root in sorted(roots)),
            *(f"!{pattern}" for pattern in flyte.all_excludes),
        ]
    )
    found = await engine.snapshot(globs)
    have = {file.path for file in closure.files}
    others = [path for path in found.files if path not in have]
    root_of = await engine.source_roots(others) if request.root_dir is None else {}
    if request.root_dir is None:
        others = [path for path in others if layout.root_path(root_of[path]) in roots]
    ignored = await ignored_files(others)
    beside = [
        layout.SourceFile(
            path,
            None,
            layout.root_path(root_of[path]) if root_of else None,
            python=path.endswith(".py"),
            beside=True,
        )
        for path in others
        if path not in ignored
    ]
    kept = await engine.subset(found.digest, exactly(file.path for file in beside))
    return beside, kept, ignored


async def _check_imports(
    request: BundleRequest, root_dir: str, closure: Closure, digest: Digest
) -> None:
    """A set `root_dir` moves modules; an import of a moved module finds nothing."""
    modules = {file.path: file for file in closure.files if file.python}
    sources = await engine.contents(await engine.subset(digest, exactly(modules)))
    scans: Dict[str, ModuleScan] = {}
    for source in sources:
        owner = modules[source.path].owner or request.address
        scans[source.path] = await scan_source(request.address, source.path, owner, source.content)
    broken = layout.broken_imports(tuple(modules.values()), scans, root_dir)
    if broken:
        raise layout.broken_imports_error(
            request.address, root_dir, broken, (file.source_root or "" for file in modules.values())
        )


def _warn(address: Address, placed: Mapping[str, layout.SourceFile], closure: Closure) -> None:
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
