"""The engine port for Pants 2.30 and later: rules are called by their names.

The docstrings are at the twins in `by_get`. Pants parses this code before it runs it
(`pants/engine/internals/rule_visitor.py`), which asks three things of it: the argument of
`implicitly(name)` is a parameter whose annotation is a plain name; helpers stand above the rules of
a module; a rule is called by its name, not through a variable.
"""

from __future__ import annotations

import inspect
from typing import Collection, Iterable, Mapping, Sequence, Union

from pants.backend.python.dependency_inference.parse_python_dependencies import (
    ParsedPythonAssetPaths,
    ParsedPythonImportInfo,
    ParsedPythonImports,
)
from pants.backend.python.dependency_inference.rules import (
    PythonImportDependenciesInferenceFieldSet,
    ResolvedParsedPythonDependenciesRequest,
    _exec_parse_deps,
    resolve_parsed_dependencies,
)
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import InterpreterConstraintsField, PythonResolveField
from pants.backend.python.util_rules import pex, pex_from_targets
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex import PexRequest, VenvPex, VenvPexProcess, VenvPexRequest
from pants.backend.python.util_rules.pex_environment import (
    CompletePexEnvironment,
    PythonExecutable,
    find_pex_python,
)
from pants.backend.python.util_rules.pex_from_targets import (
    InterpreterConstraintsRequest,
    PexFromTargetsRequest,
)
from pants.build_graph.address import Address
from pants.core.environments.target_types import EnvironmentField as EnvironmentField
from pants.core.goals.package import (
    BuiltPackage,
    EnvironmentAwarePackageRequest,
    PackageFieldSet,
    environment_aware_package,
)
from pants.core.goals.test import TestResult, TestSubsystem
from pants.core.subsystems.python_bootstrap import python_bootstrap
from pants.core.util_rules.env_vars import environment_vars_subset
from pants.core.util_rules.subprocess_environment import get_subprocess_environment
from pants.core.util_rules.system_binaries import get_bash
from pants.engine import fs, intrinsics
from pants.engine.addresses import Addresses, UnparsedAddressInputs
from pants.engine.download_file import download_file
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.environment import EnvironmentName
from pants.engine.fs import PathGlobs
from pants.engine.internals import graph
from pants.engine.internals.graph import OwnersRequest
from pants.engine.process import (
    FallibleProcessResult,
    InteractiveProcess,
    Process,
    ProcessResult,
    execute_process_or_raise,
)
from pants.engine.rules import (
    Rule,
    _uncacheable_rule,
    collect_rules,
    concurrently,
    implicitly,
    rule,
)
from pants.engine.target import (
    AlwaysTraverseDeps,
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
from pants.engine.unions import UnionRule, union
from pants.source import source_root
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

if PANTS_SEMVER.release < (2, 32):
    from pants.backend.python.dependency_inference.parse_python_dependencies import (
        ParsedPythonDependencies,
    )
else:
    from pants.backend.python.dependency_inference.parse_python_dependencies import (
        ExplicitPythonDependencies,
        PythonFileDependencies,
    )

# 2.30.0 still asks for the interpreter itself.
_PYTHON_CONFIGURED = (
    "python_configured" in inspect.signature(CompletePexEnvironment.environment_dict).parameters
)


# --- the graph -----------------------------------------------------------------------------------


async def transitive_targets(roots: Iterable[Address]) -> TransitiveTargets:
    return await graph.transitive_targets(TransitiveTargetsRequest(roots), **implicitly())


async def direct_dependencies(fields: Sequence[Dependencies]) -> tuple[Targets, ...]:
    return await concurrently(
        graph.resolve_targets(**implicitly(DependenciesRequest(field))) for field in fields
    )


async def check_dependencies(fields: Sequence[Dependencies]) -> None:
    every = AlwaysTraverseDeps()
    await concurrently(
        graph.resolve_dependencies(
            DependenciesRequest(field, should_traverse_deps_predicate=every), **implicitly()
        )
        for field in fields
    )


async def explicit_dependencies(
    fields: Sequence[Dependencies],
) -> tuple[ExplicitlyProvidedDependencies, ...]:
    return await concurrently(
        graph.determine_explicitly_provided_dependencies(**implicitly(DependenciesRequest(field)))
        for field in fields
    )


async def resolve_addresses(inputs: UnparsedAddressInputs) -> Addresses:
    return await graph.resolve_unparsed_address_inputs(inputs, **implicitly())


async def targets_at(addresses: Iterable[Address]) -> Targets:
    return await graph.resolve_targets(**implicitly(Addresses(addresses)))


async def owners_of_each(paths: Sequence[str]) -> tuple[tuple[Address, ...], ...]:
    owners = await concurrently(
        graph.find_owners(OwnersRequest((path,)), **implicitly()) for path in paths
    )
    return tuple(tuple(found) for found in owners)


async def all_targets() -> Targets:
    try:
        return Targets(await graph.find_all_targets())
    except Exception as error:
        raise with_advice(error) from None


# --- files ---------------------------------------------------------------------------------------


async def hydrated_sources(
    requests: Sequence[HydrateSourcesRequest],
) -> tuple[HydratedSources, ...]:
    return await concurrently(graph.hydrate_sources(req, **implicitly()) for req in requests)


async def source_roots(paths: Collection[str]) -> dict[str, str]:
    request = source_roots_request(paths)
    return root_of_each(paths, await source_root.get_source_roots(request))


async def files_matching(globs: PathGlobs) -> fs.Paths:
    return await intrinsics.path_globs_to_paths(globs)


async def contents_matching(globs: PathGlobs) -> fs.DigestContents:
    return await intrinsics.get_digest_contents(**implicitly(globs))


async def snapshot(globs: PathGlobs) -> fs.Snapshot:
    return await intrinsics.digest_to_snapshot(**implicitly(globs))


async def digests_of(requests: Sequence[PathGlobs]) -> tuple[fs.Digest, ...]:
    return await concurrently(intrinsics.path_globs_to_digest(globs) for globs in requests)


async def contents(digest: fs.Digest) -> fs.DigestContents:
    return await intrinsics.get_digest_contents(digest)


async def file_entries(digest: fs.Digest) -> tuple[fs.FileEntry, ...]:
    found = await intrinsics.get_digest_entries(digest)
    return tuple(entry for entry in found if isinstance(entry, fs.FileEntry))


async def create_digest(files: Mapping[str, bytes]) -> fs.Digest:
    entries = [fs.FileContent(path, content) for path, content in files.items()]
    return await intrinsics.create_digest(fs.CreateDigest(entries))


async def merge_digests(digests: Iterable[fs.Digest]) -> fs.Digest:
    return await intrinsics.merge_digests(fs.MergeDigests(digests))


async def under_prefix(digest: fs.Digest, prefix: str) -> fs.Digest:
    return await intrinsics.add_prefix(fs.AddPrefix(digest, prefix))


async def without_prefix(digest: fs.Digest, prefix: str) -> fs.Digest:
    return await intrinsics.remove_prefix(fs.RemovePrefix(digest, prefix))


async def subset(digest: fs.Digest, globs: PathGlobs) -> fs.Digest:
    return await intrinsics.digest_subset_to_digest(fs.DigestSubset(digest, globs))


async def downloaded(files: Sequence[fs.DownloadFile]) -> tuple[fs.Digest, ...]:
    return await concurrently(download_file(file, **implicitly()) for file in files)


# --- Pants' own inference ------------------------------------------------------------------------


async def parsed_imports(
    field_set: PythonImportDependenciesInferenceFieldSet, python_setup: PythonSetup
) -> dict[str, ImportInfo]:
    parsed = await _exec_parse_deps(field_set, python_setup)
    return {name: ImportInfo(info.lineno, info.weak) for name, info in parsed.imports.items()}


async def suspects_in_each(requests: Sequence[PathGlobs]) -> tuple[SuspectSources, ...]:
    return await concurrently(suspects_in(globs) for globs in requests)


async def scans_in_each(requests: Sequence[PathGlobs]) -> tuple[CodeScans, ...]:
    return await concurrently(scans_in(globs) for globs in requests)


async def bound_in_each(requests: Sequence[PathGlobs]) -> tuple[Bound, ...]:
    return await concurrently(bound_in_file(globs) for globs in requests)


async def owners_of_imports(
    field_set: PythonImportDependenciesInferenceFieldSet,
    imports: Mapping[str, ImportInfo],
    resolve: str,
) -> ImportOwners:
    found = ParsedPythonImports(
        (name, ParsedPythonImportInfo(info.line, info.weak)) for name, info in imports.items()
    )
    if PANTS_SEMVER.release < (2, 32):
        parsed = ParsedPythonDependencies(found, ParsedPythonAssetPaths())
    else:
        parsed = PythonFileDependencies(
            found, ParsedPythonAssetPaths(), ExplicitPythonDependencies()
        )
    resolved = await resolve_parsed_dependencies(
        ResolvedParsedPythonDependenciesRequest(field_set, parsed, resolve), **implicitly()
    )
    return ImportOwners.of(resolved.resolve_results)


# --- processes and Python ------------------------------------------------------------------------


async def run_process(process: Process) -> FallibleProcessResult:
    return await intrinsics.execute_process(process, **implicitly())


async def run_interactive(process: InteractiveProcess) -> int:
    return (await intrinsics.run_interactive_process(process)).exit_code


async def run_venv_pex(process: VenvPexProcess, kept: Mapping[str, fs.Digest]) -> ProcessResult:
    bash = await get_bash(**implicitly())
    made = await pex.setup_venv_pex_process(process, **implicitly())
    started = started_by(bash, made, kept)
    return await execute_process_or_raise(**implicitly({started: Process}))


async def run_venv_pexes(
    processes: Sequence[VenvPexProcess], kept: Mapping[VenvPexProcess, Mapping[str, fs.Digest]]
) -> tuple[FallibleProcessResult, ...]:
    bash = await get_bash(**implicitly())
    made = await concurrently(
        pex.setup_venv_pex_process(process, **implicitly()) for process in processes
    )
    return await concurrently(
        intrinsics.execute_process(started_by(bash, one, kept.get(process)), **implicitly())
        for process, one in zip(processes, made)
    )


async def program_sources() -> fs.Digest:
    return (await read_program_sources()).digest


async def venv_pex(request: PexRequest) -> VenvPex:
    return await pex.create_venv_pex(**implicitly(request))


async def tool_environment(request: PexRequest) -> ToolEnvironment:
    pex_environment = await find_pex_python(**implicitly())
    complete = pex_environment.in_workspace()
    tool, python = await concurrently(
        pex.create_venv_pex(VenvPexRequest(request, complete), **implicitly()),
        pex.find_interpreter(request.interpreter_constraints, **implicitly()),
    )
    chosen = {"python_configured": True} if _PYTHON_CONFIGURED else {"python": python}
    return ToolEnvironment.of(tool, complete, complete.environment_dict(**chosen))


async def requirements_pex(request: PexFromTargetsRequest) -> PexRequest:
    return await pex_from_targets.create_pex_from_targets(request, **implicitly())


async def interpreter_constraints(addresses: Iterable[Address]) -> InterpreterConstraints:
    return await pex_from_targets.interpreter_constraints_for_targets(
        InterpreterConstraintsRequest(addresses), **implicitly()
    )


def configured_constraints(target: Target, python_setup: PythonSetup) -> InterpreterConstraints:
    field = target[InterpreterConstraintsField]
    if PANTS_SEMVER.release < (2, 31):
        return InterpreterConstraints(field.value_or_global_default(python_setup))
    resolve = target[PythonResolveField] if target.has_field(PythonResolveField) else None
    return InterpreterConstraints(field.value_or_configured_default(python_setup, resolve))


async def find_python(constraints: InterpreterConstraints) -> PythonExecutable:
    return await pex.find_interpreter(constraints, **implicitly())


async def interpreter_search_paths() -> tuple[str, ...]:
    return tuple((await python_bootstrap(**implicitly())).interpreter_search_paths)


async def environment_variables(names: Sequence[str]) -> EnvironmentVars:
    return await environment_vars_subset(EnvironmentVarsRequest(names), **implicitly())


async def subprocess_environment() -> EnvironmentVars:
    return EnvironmentVars((await get_subprocess_environment(**implicitly())).vars)


async def checked_out() -> CheckedOut:
    return await find_checked_out()


async def ignore_files_above() -> IgnoreFilesAbove:
    return await find_ignore_files_above()


def test_result(
    process: FallibleProcessResult, address: Address, subsystem: TestSubsystem
) -> TestResult:
    return TestResult.from_fallible_process_result((process,), address, subsystem.output)


async def build_packages(field_sets: Sequence[PackageFieldSet]) -> tuple[BuiltPackage, ...]:
    return await concurrently(
        environment_aware_package(EnvironmentAwarePackageRequest(field_set))
        for field_set in field_sets
    )


# --- our own rules, where they fan out -----------------------------------------------------------
#
# The modules of these rules import this one, so it cannot import them. It has stand-ins: Pants
# calls the rule that takes the member of the union and returns the same type.


async def closure(request: ClosureRequest) -> Closure:
    return await find_closure(**implicitly({request: AnyClosureRequest}))


async def completeness_of(request: CompletenessRequest) -> Completeness:
    return await check_completeness(**implicitly({request: AnyCompletenessRequest}))


async def build_tasks(requests: Sequence[TaskRequest]) -> tuple[BuiltTask, ...]:
    return await concurrently(
        build_task(**implicitly({request: AnyTaskRequest})) for request in requests
    )


async def build_images(requests: Sequence[ImageRequest]) -> tuple[BuiltImage, ...]:
    return await concurrently(
        build_image(**implicitly({request: AnyImageRequest})) for request in requests
    )


async def explain_each(requests: Sequence[ExplainRequest]) -> tuple[Explained, ...]:
    return await concurrently(
        explain(**implicitly({request: AnyExplainRequest})) for request in requests
    )


async def shipped_each(requests: Sequence[ShippedRequest]) -> tuple[Shipped, ...]:
    return await concurrently(
        find_shipped(**implicitly({request: AnyShippedRequest})) for request in requests
    )


async def packed(request: PackedRequest) -> Packed:
    return await measure_packed(**implicitly({request: AnyPackedRequest}))


async def compare_images(requests: Sequence[AskedImageRequest]) -> tuple[AskedImage, ...]:
    return await concurrently(
        compare_image(**implicitly({request: AnyAskedImageRequest})) for request in requests
    )


# --- rules of the port ---------------------------------------------------------------------------


@union(in_scope_types=[EnvironmentName])
class AnyClosureRequest:
    """Stands for `ClosureRequest`, its only member."""


@union(in_scope_types=[EnvironmentName])
class AnyCompletenessRequest:
    """Stands for `CompletenessRequest`, its only member."""


@union(in_scope_types=[EnvironmentName])
class AnyTaskRequest:
    """Stands for `TaskRequest`, its only member."""


@union(in_scope_types=[EnvironmentName])
class AnyImageRequest:
    """Stands for `ImageRequest`, its only member."""


@union(in_scope_types=[EnvironmentName])
class AnyExplainRequest:
    """Stands for `ExplainRequest`, its only member."""


@union(in_scope_types=[EnvironmentName])
class AnyShippedRequest:
    """Stands for `ShippedRequest`, its only member."""


@union(in_scope_types=[EnvironmentName])
class AnyPackedRequest:
    """Stands for `PackedRequest`, its only member."""


@union(in_scope_types=[EnvironmentName])
class AnyAskedImageRequest:
    """Stands for `AskedImageRequest`, its only member."""


@rule(polymorphic=True)
async def find_closure(request: AnyClosureRequest, environment: EnvironmentName) -> Closure:
    raise NotImplementedError


@rule(polymorphic=True)
async def check_completeness(
    request: AnyCompletenessRequest, environment: EnvironmentName
) -> Completeness:
    raise NotImplementedError


@rule(polymorphic=True)
async def build_task(request: AnyTaskRequest, environment: EnvironmentName) -> BuiltTask:
    raise NotImplementedError


@rule(polymorphic=True)
async def build_image(request: AnyImageRequest, environment: EnvironmentName) -> BuiltImage:
    raise NotImplementedError


@rule(polymorphic=True)
async def explain(request: AnyExplainRequest, environment: EnvironmentName) -> Explained:
    raise NotImplementedError


@rule(polymorphic=True)
async def find_shipped(request: AnyShippedRequest, environment: EnvironmentName) -> Shipped:
    raise NotImplementedError


@rule(polymorphic=True)
async def measure_packed(request: AnyPackedRequest, environment: EnvironmentName) -> Packed:
    raise NotImplementedError


@rule(polymorphic=True)
async def compare_image(request: AnyAskedImageRequest, environment: EnvironmentName) -> AskedImage:
    raise NotImplementedError


@rule
async def suspects_in(globs: PathGlobs) -> SuspectSources:
    found = await intrinsics.get_digest_contents(**implicitly(globs))
    return SuspectSources.among(found)


@rule
async def scans_in(globs: PathGlobs) -> CodeScans:
    found = await intrinsics.get_digest_contents(**implicitly(globs))
    return CodeScans.among(found)


@rule
async def bound_in_file(globs: PathGlobs) -> Bound:
    return bound_in_first(await intrinsics.get_digest_contents(**implicitly(globs)))


@rule
async def read_program_sources() -> ProgramSources:
    return ProgramSources(await create_digest(program_files()))


@_uncacheable_rule
async def find_checked_out() -> CheckedOut:
    return CheckedOut.in_build_root()


@_uncacheable_rule
async def find_ignore_files_above() -> IgnoreFilesAbove:
    return IgnoreFilesAbove.of_build_root()


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        UnionRule(AnyClosureRequest, ClosureRequest),
        UnionRule(AnyCompletenessRequest, CompletenessRequest),
        UnionRule(AnyTaskRequest, TaskRequest),
        UnionRule(AnyImageRequest, ImageRequest),
        UnionRule(AnyExplainRequest, ExplainRequest),
        UnionRule(AnyShippedRequest, ShippedRequest),
        UnionRule(AnyPackedRequest, PackedRequest),
        UnionRule(AnyAskedImageRequest, AskedImageRequest),
    ]
