"""The engine port for Pants 2.17 to 2.29: by `Get` and `MultiGet`.

Each function has a twin of the same name and signature in `by_name`; a test compares them.
The docstrings are here; comments in the twin are about call-by-name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Collection, Iterable, Mapping, Sequence, Union

from pants.backend.python.dependency_inference.parse_python_dependencies import (
    ParsedPythonAssetPaths,
    ParsedPythonDependencies,
    ParsedPythonImportInfo,
    ParsedPythonImports,
)
from pants.backend.python.dependency_inference.rules import (
    PythonImportDependenciesInferenceFieldSet,
    ResolvedParsedPythonDependencies,
    ResolvedParsedPythonDependenciesRequest,
    _exec_parse_deps,
)
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import InterpreterConstraintsField
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex import PexRequest, VenvPex, VenvPexProcess, VenvPexRequest
from pants.backend.python.util_rules.pex_environment import PexEnvironment, PythonExecutable
from pants.backend.python.util_rules.pex_from_targets import (
    InterpreterConstraintsRequest,
    PexFromTargetsRequest,
)
from pants.build_graph.address import Address
from pants.core.goals.package import BuiltPackage, EnvironmentAwarePackageRequest, PackageFieldSet
from pants.core.goals.test import TestResult, TestSubsystem
from pants.core.subsystems.python_bootstrap import PythonBootstrap
from pants.core.util_rules.subprocess_environment import SubprocessEnvironmentVars
from pants.core.util_rules.system_binaries import BashBinary
from pants.engine import fs
from pants.engine.addresses import Addresses, UnparsedAddressInputs
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import PathGlobs
from pants.engine.internals.graph import Owners, OwnersRequest
from pants.engine.process import (
    FallibleProcessResult,
    InteractiveProcess,
    InteractiveProcessResult,
    Process,
    ProcessResult,
)
from pants.engine.rules import Effect, Get, MultiGet, Rule, _uncacheable_rule, collect_rules, rule
from pants.engine.target import (
    AllTargets,
    Dependencies,
    DependenciesRequest,
    ExplicitlyProvidedDependencies,
    HydratedSources,
    HydrateSourcesRequest,
    Target,
    Targets,
    TransitiveTargets,
    TransitiveTargetsRequest,
)
from pants.engine.unions import UnionRule
from pants.source.source_root import SourceRootsRequest, SourceRootsResult
from pants.version import PANTS_SEMVER

from flyte_pack.code.bound_names import Bound
from pants_flyte.build_types import (
    AskedImage,
    AskedImageRequest,
    BuiltImage,
    BuiltTask,
    Closure,
    ClosureRequest,
    Completeness,
    CompletenessRequest,
    Explained,
    ExplainRequest,
    ImageRequest,
    Packed,
    PackedRequest,
    Shipped,
    ShippedRequest,
    TaskRequest,
)
from pants_flyte.engine.types import (
    CheckedOut,
    CodeScans,
    IgnoreFilesAbove,
    ImportInfo,
    ImportOwners,
    ProgramSources,
    SuspectSources,
    ToolEnvironment,
    bound_in_first,
    program_files,
    root_of_each,
    source_roots_request,
    started_by,
    with_advice,
)

if TYPE_CHECKING or PANTS_SEMVER.release < (2, 28):
    from pants.core.util_rules.environments import EnvironmentField as EnvironmentField
else:
    from pants.core.environments.target_types import EnvironmentField as EnvironmentField

_SPECIAL_CASED_TOO: dict[str, Any]
if TYPE_CHECKING or PANTS_SEMVER.release < (2, 18):
    _SPECIAL_CASED_TOO = {"include_special_cased_deps": True}
else:
    from pants.engine.target import AlwaysTraverseDeps

    _SPECIAL_CASED_TOO = {"should_traverse_deps_predicate": AlwaysTraverseDeps()}


# --- the graph -----------------------------------------------------------------------------------


async def transitive_targets(roots: Iterable[Address]) -> TransitiveTargets:
    return await Get(TransitiveTargets, TransitiveTargetsRequest(roots))


async def direct_dependencies(fields: Sequence[Dependencies]) -> tuple[Targets, ...]:
    """What each field's target depends on, inferred and declared, generators expanded."""
    return await MultiGet(Get(Targets, DependenciesRequest(field)) for field in fields)


async def check_dependencies(fields: Sequence[Dependencies]) -> None:
    """Pants' own checks of what each field's target depends on, such as its visibility rules.

    It checks those of fields like `image` only if they are asked for along with the others.
    """
    await MultiGet(
        Get(Addresses, DependenciesRequest(field, **_SPECIAL_CASED_TOO)) for field in fields
    )


async def explicit_dependencies(
    fields: Sequence[Dependencies],
) -> tuple[ExplicitlyProvidedDependencies, ...]:
    """What each BUILD file declares."""
    return await MultiGet(
        Get(ExplicitlyProvidedDependencies, DependenciesRequest(field)) for field in fields
    )


async def resolve_addresses(inputs: UnparsedAddressInputs) -> Addresses:
    return await Get(Addresses, UnparsedAddressInputs, inputs)


async def targets_at(addresses: Iterable[Address]) -> Targets:
    """The targets of these addresses, generators expanded."""
    return await Get(Targets, Addresses(addresses))


async def owners_of_each(paths: Sequence[str]) -> tuple[tuple[Address, ...], ...]:
    """For each path, the addresses that own it; none is no error."""
    owners = await MultiGet(Get(Owners, OwnersRequest((path,))) for path in paths)
    return tuple(tuple(found) for found in owners)


async def all_targets() -> Targets:
    try:
        return Targets(await Get(AllTargets))
    except Exception as error:
        raise with_advice(error) from None


# --- files ---------------------------------------------------------------------------------------


async def hydrated_sources(
    requests: Sequence[HydrateSourcesRequest],
) -> tuple[HydratedSources, ...]:
    """The files of each field, generated ones too."""
    return await MultiGet(Get(HydratedSources, HydrateSourcesRequest, req) for req in requests)


async def source_roots(paths: Collection[str]) -> dict[str, str]:
    """The source root of each file, as a path; the build root is "."."""
    request = source_roots_request(paths)
    return root_of_each(paths, await Get(SourceRootsResult, SourceRootsRequest, request))


async def files_matching(globs: PathGlobs) -> fs.Paths:
    """Names only."""
    return await Get(fs.Paths, PathGlobs, globs)


async def contents_matching(globs: PathGlobs) -> fs.DigestContents:
    return await Get(fs.DigestContents, PathGlobs, globs)


async def snapshot(globs: PathGlobs) -> fs.Snapshot:
    return await Get(fs.Snapshot, PathGlobs, globs)


async def digests_of(requests: Sequence[PathGlobs]) -> tuple[fs.Digest, ...]:
    """What matches each."""
    return await MultiGet(Get(fs.Digest, PathGlobs, globs) for globs in requests)


async def contents(digest: fs.Digest) -> fs.DigestContents:
    return await Get(fs.DigestContents, fs.Digest, digest)


async def file_entries(digest: fs.Digest) -> tuple[fs.FileEntry, ...]:
    """Each file with its size, without reading it."""
    found = await Get(fs.DigestEntries, fs.Digest, digest)
    return tuple(entry for entry in found if isinstance(entry, fs.FileEntry))


async def create_digest(files: Mapping[str, bytes]) -> fs.Digest:
    return await Get(
        fs.Digest,
        fs.CreateDigest([fs.FileContent(path, content) for path, content in files.items()]),
    )


async def merge_digests(digests: Iterable[fs.Digest]) -> fs.Digest:
    return await Get(fs.Digest, fs.MergeDigests(digests))


async def under_prefix(digest: fs.Digest, prefix: str) -> fs.Digest:
    return await Get(fs.Digest, fs.AddPrefix(digest, prefix))


async def without_prefix(digest: fs.Digest, prefix: str) -> fs.Digest:
    return await Get(fs.Digest, fs.RemovePrefix(digest, prefix))


async def subset(digest: fs.Digest, globs: PathGlobs) -> fs.Digest:
    return await Get(fs.Digest, fs.DigestSubset(digest, globs))


async def downloaded(files: Sequence[fs.DownloadFile]) -> tuple[fs.Digest, ...]:
    """Each file by itself, checked by size and SHA-256; none that Pants' store has is fetched."""
    return tuple(await MultiGet(Get(fs.Digest, fs.DownloadFile, file) for file in files))


# --- Pants' own inference ------------------------------------------------------------------------


async def parsed_imports(
    field_set: PythonImportDependenciesInferenceFieldSet, python_setup: PythonSetup
) -> dict[str, ImportInfo]:
    """What Pants' own parser finds in a file, by dotted name.

    `_exec_parse_deps` is Pants' own helper, from 2.17 to 2.33 with this signature; what it asks the
    parser differs, and its result has `imports` in all of them.
    """
    parsed = await _exec_parse_deps(field_set, python_setup)
    return {name: ImportInfo(info.lineno, info.weak) for name, info in parsed.imports.items()}


async def suspects_in_each(requests: Sequence[PathGlobs]) -> tuple[SuspectSources, ...]:
    """For each, the matching sources that are worth a closer look, and what for."""
    return await MultiGet(Get(SuspectSources, PathGlobs, globs) for globs in requests)


async def scans_in_each(requests: Sequence[PathGlobs]) -> tuple[CodeScans, ...]:
    """For each, what the matching modules need."""
    return await MultiGet(Get(CodeScans, PathGlobs, globs) for globs in requests)


async def bound_in_each(requests: Sequence[PathGlobs]) -> tuple[Bound, ...]:
    """For each, what the top level of the one module that matches binds."""
    return await MultiGet(Get(Bound, PathGlobs, globs) for globs in requests)


async def owners_of_imports(
    field_set: PythonImportDependenciesInferenceFieldSet,
    imports: Mapping[str, ImportInfo],
    resolve: str,
) -> ImportOwners:
    """The owners of imported names, as Pants resolves them, with its warnings."""
    parsed = ParsedPythonDependencies(
        ParsedPythonImports(
            (name, ParsedPythonImportInfo(info.line, info.weak)) for name, info in imports.items()
        ),
        ParsedPythonAssetPaths(),
    )
    request = ResolvedParsedPythonDependenciesRequest(field_set, parsed, resolve)
    resolved = await Get(
        ResolvedParsedPythonDependencies, ResolvedParsedPythonDependenciesRequest, request
    )
    return ImportOwners.of(resolved.resolve_results)


# --- processes and Python ------------------------------------------------------------------------


async def run_process(process: Process) -> FallibleProcessResult:
    """Run to completion, whatever the exit code."""
    return await Get(FallibleProcessResult, Process, process)


async def run_interactive(process: InteractiveProcess) -> int:
    """Its exit code. Only for a goal."""
    return (await Effect(InteractiveProcessResult, InteractiveProcess, process)).exit_code


async def run_venv_pex(process: VenvPexProcess, kept: Mapping[str, fs.Digest]) -> ProcessResult:
    """Run a tool in a sandbox; a failure is an error.

    kept: inputs, by directory, that Pants keeps for other sandboxes too.
    """
    bash = await Get(BashBinary)
    made = await Get(Process, VenvPexProcess, process)
    return await Get(ProcessResult, Process, started_by(bash, made, kept))


async def run_venv_pexes(
    processes: Sequence[VenvPexProcess], kept: Mapping[VenvPexProcess, Mapping[str, fs.Digest]]
) -> tuple[FallibleProcessResult, ...]:
    """Run tools in sandboxes at the same time, each to completion, whatever the exit code.

    kept: of some of them, inputs as in `run_venv_pex`.
    """
    bash = await Get(BashBinary)
    made = await MultiGet(Get(Process, VenvPexProcess, process) for process in processes)
    return await MultiGet(
        Get(FallibleProcessResult, Process, started_by(bash, one, kept.get(process)))
        for process, one in zip(processes, made)
    )


async def program_sources() -> fs.Digest:
    """The modules of `flyte_pack` and `flyte_shim`."""
    return (await Get(ProgramSources)).digest


async def venv_pex(request: PexRequest) -> VenvPex:
    return await Get(VenvPex, PexRequest, request)


async def tool_environment(request: PexRequest) -> ToolEnvironment:
    """A PEX made ready for an interactive process, with the environment that it wants there."""
    pex_environment = await Get(PexEnvironment)
    complete = pex_environment.in_workspace()
    pex, python = await MultiGet(
        Get(VenvPex, VenvPexRequest(request, complete)),
        Get(PythonExecutable, InterpreterConstraints, request.interpreter_constraints),
    )
    return ToolEnvironment.of(pex, complete, complete.environment_dict(python=python))


async def requirements_pex(request: PexFromTargetsRequest) -> PexRequest:
    """The third-party part of targets, from their resolve."""
    return await Get(PexRequest, PexFromTargetsRequest, request)


async def interpreter_constraints(addresses: Iterable[Address]) -> InterpreterConstraints:
    """What the closure of `addresses` allows."""
    return await Get(InterpreterConstraints, InterpreterConstraintsRequest(addresses))


def configured_constraints(target: Target, python_setup: PythonSetup) -> InterpreterConstraints:
    """What the target's own field allows, or else the options of `[python]`."""
    field = target[InterpreterConstraintsField]
    return InterpreterConstraints(field.value_or_global_default(python_setup))


async def find_python(constraints: InterpreterConstraints) -> PythonExecutable:
    return await Get(PythonExecutable, InterpreterConstraints, constraints)


async def interpreter_search_paths() -> tuple[str, ...]:
    """Where Pants looks for CPythons: directories, and some interpreters."""
    return tuple((await Get(PythonBootstrap)).interpreter_search_paths)


async def environment_variables(names: Sequence[str]) -> EnvironmentVars:
    return await Get(EnvironmentVars, EnvironmentVarsRequest(names))


async def subprocess_environment() -> EnvironmentVars:
    """What `[subprocess-environment]` hands to every process."""
    return EnvironmentVars((await Get(SubprocessEnvironmentVars)).vars)


async def checked_out() -> CheckedOut:
    """The commit of the build root. The engine does not see what `.git` holds, so each run asks."""
    return await Get(CheckedOut)


async def ignore_files_above() -> IgnoreFilesAbove:
    """From outside of what the engine sees, so each run reads them anew."""
    return await Get(IgnoreFilesAbove)


def test_result(
    process: FallibleProcessResult, address: Address, subsystem: TestSubsystem
) -> TestResult:
    tries: Any = process if PANTS_SEMVER.release < (2, 19) else (process,)
    return TestResult.from_fallible_process_result(tries, address, subsystem.output)


async def build_packages(field_sets: Sequence[PackageFieldSet]) -> tuple[BuiltPackage, ...]:
    """What other backends make of their targets, each in the environment that it names."""
    return await MultiGet(
        Get(BuiltPackage, EnvironmentAwarePackageRequest(field_set)) for field_set in field_sets
    )


# --- our own rules, where they fan out -----------------------------------------------------------


async def closure(request: ClosureRequest) -> Closure:
    return await Get(Closure, ClosureRequest, request)


async def completeness_of(request: CompletenessRequest) -> Completeness:
    return await Get(Completeness, CompletenessRequest, request)


async def build_tasks(requests: Sequence[TaskRequest]) -> tuple[BuiltTask, ...]:
    return await MultiGet(Get(BuiltTask, TaskRequest, request) for request in requests)


async def build_images(requests: Sequence[ImageRequest]) -> tuple[BuiltImage, ...]:
    return await MultiGet(Get(BuiltImage, ImageRequest, request) for request in requests)


async def explain_each(requests: Sequence[ExplainRequest]) -> tuple[Explained, ...]:
    return await MultiGet(Get(Explained, ExplainRequest, request) for request in requests)


async def shipped_each(requests: Sequence[ShippedRequest]) -> tuple[Shipped, ...]:
    return await MultiGet(Get(Shipped, ShippedRequest, request) for request in requests)


async def packed(request: PackedRequest) -> Packed:
    return await Get(Packed, PackedRequest, request)


async def compare_images(requests: Sequence[AskedImageRequest]) -> tuple[AskedImage, ...]:
    return await MultiGet(Get(AskedImage, AskedImageRequest, request) for request in requests)


# --- rules of the port ---------------------------------------------------------------------------


@rule
async def suspects_in(globs: PathGlobs) -> SuspectSources:
    """A rule, so that an edit repeats the search of one directory only."""
    found = await Get(fs.DigestContents, PathGlobs, globs)
    return SuspectSources.among(found)


@rule
async def scans_in(globs: PathGlobs) -> CodeScans:
    """A rule, so that an edit repeats the scan of one directory only."""
    found = await Get(fs.DigestContents, PathGlobs, globs)
    return CodeScans.among(found)


@rule
async def bound_in_file(globs: PathGlobs) -> Bound:
    """A rule, so that a file is looked at once."""
    return bound_in_first(await Get(fs.DigestContents, PathGlobs, globs))


@rule
async def read_program_sources() -> ProgramSources:
    """A rule, so that a daemon reads the files once."""
    return ProgramSources(await create_digest(program_files()))


@_uncacheable_rule
async def find_checked_out() -> CheckedOut:
    return CheckedOut.in_build_root()


@_uncacheable_rule
async def find_ignore_files_above() -> IgnoreFilesAbove:
    return IgnoreFilesAbove.of_build_root()


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
