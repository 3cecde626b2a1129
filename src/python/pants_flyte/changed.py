"""For `--changed-since`: dependencies on files that a target reads from outside its directory.

A target's own `NamedFilesField` sees files below its BUILD file. For a file elsewhere, the target
depends on the file's owner. Files that options name are owned by targets that this backend makes,
as Pants does for lock files.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from dataclasses import dataclass
from typing import Dict, Iterable, List, Optional, Sequence, Tuple, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.build_graph.address import Address
from pants.core.target_types import LockfileSourceField
from pants.engine.fs import PathGlobs
from pants.engine.internals.synthetic_targets import SyntheticAddressMaps, SyntheticTargetsRequest
from pants.engine.internals.target_adaptor import TargetAdaptor
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import FieldSet, InferDependenciesRequest, InferredDependencies, Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.errors import listing
from flyte_pack.ignore_files import IGNORE_FILES
from pants_flyte import engine
from pants_flyte import target_types as types
from pants_flyte.globs import exactly
from pants_flyte.image_target_types import FlyteBaseImage, FlyteImage
from pants_flyte.named_files import FileNamingTarget, NamedFilesField, globs_of
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.taken import taken_by

logger = logging.getLogger(__name__)

# Which lock file of `[flyte-pack]` the rules for a target use.
_TOOL_LOCKS = (
    ("lockfile", (types.FlyteTask, types.FlyteBundle)),
    ("image_lockfile", (FlyteImage, FlyteBaseImage)),
    ("deploy_lockfile", (types.FlyteDeployment,)),
)

# A regular expression does: a settings file is flat, apart from its domains.
_FLYTE_CONFIG = re.compile(rb"""\bflyte_config["']?:[ \t]*["']?([^\s"',}#]+)""")


# --- files that options name ---------------------------------------------------------------------


def _in_build_root(path: Optional[str]) -> Tuple[str, ...]:
    """The path that an option names, if it is in the build root."""
    if not path or "://" in path:
        return ()
    path = os.path.normpath(path)
    return () if os.path.isabs(path) or path.split(os.sep)[0] in (os.pardir, ".") else (path,)


def _option_files_of(
    target: Target, flyte: FlyteSubsystem, flyte_pack: FlytePackSubsystem, python_setup: PythonSetup
) -> Tuple[str, ...]:
    """The files in the build root that options name and the rules for this target read."""
    found = [
        getattr(flyte_pack, option) for option, kinds in _TOOL_LOCKS if isinstance(target, kinds)
    ]
    if (
        isinstance(target, types.FlyteDeployment)
        and target[types.FlyteDeploymentConfigField].value is None
    ):
        found.append(flyte.deploy_config)
    if isinstance(target, (types.FlyteTask, FlyteImage)) and python_setup.enable_resolves:
        resolve = target[PythonResolveField].normalized_value(python_setup)
        found.append(python_setup.resolves.get(resolve))
    return tuple(path for one in found for path in _in_build_root(one))


# --- owners --------------------------------------------------------------------------------------


# Pants looks for what a rule awaits while this module is loaded: so its helpers stand above it.


async def ordinary_owners(paths: Sequence[str]) -> Dict[str, Tuple[Target, ...]]:
    """The owners of each file, without the targets that only name it in a field."""
    found = await engine.owners_of_each(paths)
    targets = await engine.targets_at(sorted(set(itertools.chain.from_iterable(found))))
    ordinary = {t.address: t for t in targets if not t.has_field(NamedFilesField)}
    return {
        path: tuple(ordinary[owner] for owner in sorted(owners) if owner in ordinary)
        for path, owners in zip(paths, found)
    }


async def named_elsewhere(target: Target) -> Dict[str, Tuple[Target, ...]]:
    """The files that a target's fields name and that are not below its BUILD file, with owners.

    And the ignore files above it that hold for what it takes.
    """
    if not isinstance(target, FileNamingTarget):
        return {}
    top = target.address.spec_path
    paths = [path for path in target.named_paths() if not _is_below(path, top)]
    ignoring = target.ignore_files_above()
    if not paths and not ignoring:
        return {}
    found = await engine.files_matching(
        PathGlobs([*(glob for path in paths for glob in globs_of(path)), *ignoring])
    )
    return await ordinary_owners([path for path in found.files if not _is_below(path, top)])


async def _named_in_settings(path: Optional[str]) -> Dict[str, Tuple[Target, ...]]:
    """The files that a settings file of deployments names, with their owners."""
    settings = await engine.contents_matching(exactly(_in_build_root(path)))
    named = [
        inside
        for file in settings
        for found in _FLYTE_CONFIG.findall(file.content)
        for inside in _in_build_root(found.decode(errors="replace"))
    ]
    existing = await engine.files_matching(exactly(named))
    return await ordinary_owners(existing.files)


def _is_below(path: str, directory: str) -> bool:
    return not directory or f"{path}/".startswith(f"{directory}/")


# --- rules ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OptionFilesRequest(SyntheticTargetsRequest):
    """Asks for all at once: no directory needs a look."""

    path: str = SyntheticTargetsRequest.SINGLE_REQUEST_FOR_ALL_TARGETS


@rule(desc="Make targets for the files that options of Flyte name", level=LogLevel.DEBUG)
async def option_files(
    request: OptionFilesRequest,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
) -> SyntheticAddressMaps:
    files: List[Tuple[str, str, Optional[str]]] = [
        ("[flyte].deploy_config", "_flyte_deploy_config", flyte.deploy_config)
    ]
    for option, _ in _TOOL_LOCKS:
        path = getattr(flyte_pack, option)
        files.append((f"[flyte-pack].{option}", f"_flyte_pack_{option}", path))
    if python_setup.enable_resolves and not python_setup.enable_synthetic_lockfiles:
        for resolve, path in python_setup.resolves.items():
            files.append(("[python].resolves", f"_flyte_{resolve}_lockfile", path))
    adaptors: Dict[str, List[TargetAdaptor]] = {}
    for origin, name, path in files:
        for inside in _in_build_root(path):
            # Pants' type for files that only the graph needs, and that may be missing.
            adaptor = TargetAdaptor(
                "_lockfiles",
                name=name,
                sources=[os.path.basename(inside)],
                __description_of_origin__=f"the option `{origin}`",
            )
            adaptors.setdefault(os.path.dirname(inside), []).append(adaptor)
    return SyntheticAddressMaps.for_targets_request(
        request,
        [(os.path.join(path, "BUILD.flyte-options"), of) for path, of in sorted(adaptors.items())],
    )


@dataclass(frozen=True)
class NamedFilesFieldSet(FieldSet):
    required_fields = (NamedFilesField,)


class InferNamedFiles(InferDependenciesRequest):  # type: ignore[type-arg]  # generic only since later versions
    infer_from = NamedFilesFieldSet


@rule(desc="Infer what a Flyte target reads and takes", level=LogLevel.DEBUG)
async def infer_named_files(
    request: InferNamedFiles,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
) -> InferredDependencies:
    target = (await engine.targets_at([request.field_set.address]))[0]
    elsewhere = await named_elsewhere(target)
    if isinstance(target, types.FlyteDeployment):
        path = target[types.FlyteDeploymentConfigField].path or flyte.deploy_config
        elsewhere.update(await _named_in_settings(path))
    unowned = [path for path, owners in elsewhere.items() if not owners]
    # Few repositories have an owner for ignore files, and most edits of them change no bundle.
    _warn_of_unowned(
        target.address, [p for p in unowned if os.path.basename(p) not in IGNORE_FILES]
    )
    owners = {owner.address for found in elsewhere.values() for owner in found}
    options = _option_files_of(target, flyte, flyte_pack, python_setup)
    for found in (await ordinary_owners(options)).values():
        owners.update(owner.address for owner in found if owner.has_field(LockfileSourceField))
    taken = await taken_by(target, python_setup)
    return InferredDependencies(sorted(owners | taken.dependencies), exclude=sorted(taken.cut))


def _warn_of_unowned(address: Address, paths: Sequence[str]) -> None:
    if not paths:
        return
    directory, name = os.path.split(paths[0])
    build = os.path.join(directory, "BUILD")
    logger.warning(
        f"{address}: `--changed-since` does not see that an edit of these files matters to this "
        f"target, as no target owns them:\n{listing(paths)}\n"
        f'Give them an owner, such as `files(name="named", sources=["{name}"])` in {build}.'
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        *OptionFilesRequest.rules(),
        UnionRule(InferDependenciesRequest, InferNamedFiles),
    ]
