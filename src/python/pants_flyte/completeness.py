"""Checks that a bundle or image has all that its code imports and reads, before it is packed.

What a module needs says `flyte_pack.code.code_scan`, by directory and kept while a directory does
not change; what is missing says `flyte_pack.code.completeness`.
"""

from __future__ import annotations

import logging
import os
import posixpath
from dataclasses import replace
from functools import lru_cache
from typing import (
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

from pants.backend.python.dependency_inference.subsystem import PythonInferSubsystem
from pants.backend.python.subsystems.setup import PythonSetup
from pants.build_graph.address import Address
from pants.engine.fs import Digest
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Dependencies, Target
from pants.engine.unions import UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.code.bound_names import Bound
from flyte_pack.code.completeness import (
    ERROR,
    QUIET,
    UNSURE,
    Checker,
    Finding,
    Module,
    Owner,
    Surroundings,
    in_order,
    names_of,
)
from flyte_pack.code.dynamic_scan import GROUP, UNKNOWN
from flyte_pack.errors import listing
from pants_flyte import engine
from pants_flyte.build_types import Completeness, CompletenessRequest, Contents, SourceFile
from pants_flyte.code_scans import bound_by, scans_of
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.globs import exactly
from pants_flyte.layout import module_name
from pants_flyte.missing_data import missing_data
from pants_flyte.registered import Registered
from pants_flyte.resolve_modules import (
    ResolvesKnown,
    minors_of,
    third_party_of,
    with_base,
    with_wheels,
)
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem, Missing
from pants_flyte.target_types import (
    FlyteMissingField,
    FlyteProvidedModulesField,
)

logger = logging.getLogger(__name__)

_COMPILED = (".so", ".pyd", ".pyc")
_TOLD = 50  # each has to be dealt with
_SHOWN = 3  # how many a line names before it only counts them


async def check_complete(
    address: Address,
    contents: Contents,
    resolve: str,
    flyte: FlyteSubsystem,
    what: str,
    below: str = "",
) -> None:
    """Raises `FlyteTargetError` where `what` lacks what its code needs, or warns, as it is set.

    below: the directory of the artifact that imports start from, with "/" at its end.
    """
    (target,) = await engine.targets_at([address])
    how = how_of(target, flyte)
    if how is Missing.IGNORE:
        return
    found = await engine.completeness_of(request_of(address, contents, resolve, below))
    errors = lines_of(found, ERROR)
    if errors and how is Missing.ERROR:
        raise FlyteTargetError(address, message(errors, what))
    unsure = [*(errors if how is not Missing.ERROR else ()), *lines_of(found, UNSURE)]
    if unsure:
        logger.warning(f"{address}: {message(unsure, what, certain=False)}")
    quiet = lines_of(found, QUIET)
    if quiet:
        more = f" and {len(quiet) - _SHOWN:,} more" if len(quiet) > _SHOWN else ""
        logger.debug(
            f"{address}: {what} lacks what its code does without: {'; '.join(quiet[:_SHOWN])}{more}"
        )


def message(lines: Iterable[str], what: str, certain: bool = True) -> str:
    may = "lacks" if certain else "may lack"
    return (
        f"{what} {may} what its code needs when it runs:\n{listing(lines, _TOLD)}\n"
        "What the container has by itself goes into `provided_modules`; `# flyte: missing-ok` "
        'settles one line, and `missing="warn"` or `missing="ignore"` one target '
        "(`[flyte].missing`: all)."
    )


def how_of(target: Target, flyte: FlyteSubsystem) -> Missing:
    """What to do about what is missing: the field, else the option."""
    own = target[FlyteMissingField].value if target.has_field(FlyteMissingField) else None
    return flyte.missing if own is None else Missing(own)


def lines_of(found: Completeness, certainty: str) -> List[str]:
    return [str(one) for one in found.findings if one.certainty == certainty]


def request_of(
    address: Address, contents: Contents, resolve: str, below: str = ""
) -> CompletenessRequest:
    digests = contents.closure.digest_of
    return CompletenessRequest(
        address,
        resolve,
        FrozenDict(
            {
                path[len(below) :]: (file, digests.get((file.path, file.owner)))
                for path, file in contents.placed.items()
                if path.startswith(below)
            }
        ),
    )


def _is_source(path: str, file: SourceFile) -> bool:
    return path.endswith(".py") and (file.python or file.beside)


def _shipped(placed: Mapping[str, Tuple[SourceFile, Optional[Digest]]]) -> FrozenSet[str]:
    """The names of modules: where they are, and where importers know them from.

    A set `root_dir` parts the two, which has an error of its own.
    """
    names: Set[str] = set()
    for path, (file, _) in placed.items():
        if _is_source(path, file):
            names.add(module_name(path))
            root = f"{file.source_root}/" if file.source_root else ""
            if not path.endswith(file.path[len(root) :]):
                names.add(module_name(file.stripped))
        elif _is_compiled(path):
            names.add(_compiled_name(path))
    return names_of(names)


def _is_compiled(path: str) -> bool:
    return path.endswith(_COMPILED)


def _compiled_name(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, name.partition(".")[0]).replace("/", ".")


@lru_cache(maxsize=4)
def _repository(modules: FirstPartyModules) -> Mapping[str, Tuple[Owner, ...]]:
    """Kept, since each artifact asks, and the repository may have ten thousand."""
    return {
        name: tuple(Owner(one.path, one.owner.spec, one.resolve) for one in of)
        for name, of in modules.by_name.items()
    }


def _own_provided(target: Target) -> Tuple[str, ...]:
    return tuple(target.get(FlyteProvidedModulesField).value or ())


async def _without_excluded(
    findings: Sequence[Finding],
    own: Mapping[str, SourceFile],
    root: Target,
    modules: FirstPartyModules,
) -> List[Finding]:
    """What `!` or `!!` takes out is a warning: whoever wrote that knows of the import."""
    importers = {one.path for one in findings if one.certainty == ERROR}
    if not importers:
        return list(findings)
    owner_of = {file.path: file.owner for file in own.values() if file.path in importers}
    targets = [
        root,
        *(await engine.targets_at(sorted({a for a in owner_of.values() if a is not None}))),
    ]
    explicit = await engine.explicit_dependencies([one.get(Dependencies) for one in targets])
    ignored = {one.address: set(found.ignores) for one, found in zip(targets, explicit)}
    # An image with code, or a shared bundle, has the tasks below it, with what they take out.
    tasks = await engine.targets_at(explicit[0].includes)
    of_root = ignored[root.address]
    for one in (root, *tasks):
        excludes = one.get(Dependencies).unevaluated_transitive_excludes
        of_root = of_root | set(await engine.resolve_addresses(excludes))
    told = []
    for one in findings:
        owner = owner_of.get(one.path)
        out = of_root | (ignored.get(owner, set()) if owner is not None else set())
        names = {
            address
            for module in modules.by_name.get(one.name, ())
            for address in (module.owner, module.owner.maybe_convert_to_target_generator())
        }
        if one.certainty == ERROR and names & out:
            shown = min(names & out)
            one = replace(
                one, certainty=UNSURE, advice=f"`dependencies` takes it out, by `!` before {shown}"
            )
        told.append(one)
    return told


def _of_unowned(finding: Finding) -> Finding:
    """Pants infers nothing from the imports of a file without owner."""
    build = posixpath.join(posixpath.dirname(finding.path), "BUILD")
    return replace(
        finding,
        advice=f"{finding.advice}. No target owns {finding.path} itself, so that Pants does not "
        f"see this import: write `python_sources()` into {build}",
    )


def _lost_entry_points(modules: Iterable[Module], registered: Registered) -> Iterator[Finding]:
    """Where code asks for those of the repository's own distributions, of which modules ship."""
    for module in modules:
        for called in module.scan.dynamic:
            of = registered.by_group.get(called.name, ()) if called.kind == GROUP else ()
            if of:
                names = ", ".join(f"`{name}`" for name in sorted({name for name, _ in of})[:_SHOWN])
                yield Finding(
                    module.path,
                    called.line,
                    called.said,
                    called.name,
                    QUIET if called.guard else UNSURE,
                    f"{of[0][1]} registers {names} there, and code that is not installed has no "
                    "entry points, so that this finds none of them; import them by their names as "
                    "well, or let the container have that distribution",
                )


async def _findings(
    modules: Sequence[Module],
    around: Surroundings,
    files: Mapping[str, Optional[Digest]],
    bound: Dict[str, Bound],
) -> Tuple[List[Finding], Set[str]]:
    """Also the modules that a wheel may have. files: as of `scans_of`. bound: what is known of
    modules, by path; takes what is added.
    """
    checker = Checker(modules, around, bound)
    found = list(checker.findings())
    while checker.asked:
        more = await bound_by({path: files[path] for path in sorted(checker.asked)})
        bound.update(more)
        found += checker.settled(more)
    return in_order(found), checker.unsure & {f.name for f in found if f.certainty != QUIET}


@rule(desc="Check that an artifact has what its code needs", level=LogLevel.DEBUG)
async def check_completeness(
    request: CompletenessRequest,
    modules: FirstPartyModules,
    known: ResolvesKnown,
    registered: Registered,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_infer: PythonInferSubsystem,
    python_setup: PythonSetup,
) -> Completeness:
    (target,) = await engine.targets_at([request.address])
    own = {path: file for path, (file, _) in request.placed.items() if _is_source(path, file)}
    digests = {
        file.path: digest
        for path, (file, digest) in request.placed.items()
        if _is_source(path, file)
    }
    scans = await scans_of(request.address, digests)
    for file in own.values():
        # What lies beside the code for `copy_style="all"` may never be imported.
        if file.beside and file.path in scans:
            scans[file.path] = replace(scans[file.path], imports=(), dynamic=(), reads=())
    here = [
        Module(file.path, module_name(path), path.endswith("__init__.py"), scans[file.path])
        for path, file in sorted(own.items())
        if file.path in scans
    ]
    around = Surroundings(
        shipped=_shipped(request.placed),
        repository=_repository(modules),
        third_party=await third_party_of(target, request.resolve, known, python_setup),
        resolve=request.resolve,
        compiled=frozenset(map(_compiled_name, filter(_is_compiled, request.placed))),
        provided=frozenset(
            (
                *flyte.provided_modules,
                *(_own_provided(target)),
                *python_infer.ignored_unowned_imports,
            )
        ),
        minors=minors_of(target, python_setup),
        roots=sorted({f.source_root for f in own.values() if f.source_root is not None}),
    )
    asked: Set[str] = set()

    def exists(path: str) -> bool:
        asked.add(path)
        return False

    bound: Dict[str, Bound] = {}
    findings, unsure = await _findings(here, replace(around, exists=exists), digests, bound)
    if asked or unsure:
        there = frozenset((await engine.files_matching(exactly(sorted(asked)))).files)
        around = replace(around, exists=there.__contains__)
        if unsure:
            third_party = await with_base(around.third_party, target, flyte_pack, python_setup)
            held = known.locks.get(request.resolve)
            third_party = await with_wheels(third_party, target, held, unsure)
            around = replace(around, third_party=third_party)
        if unsure or there:
            findings, _ = await _findings(here, around, digests, bound)
    findings = await _without_excluded(findings, own, target, modules)
    unowned = {file.path for file in own.values() if file.owner is None}
    findings = [_of_unowned(one) if one.path in unowned else one for one in findings]
    findings += _lost_entry_points(here, registered)
    findings += await missing_data(own, scans, request.placed, modules)
    unknown = (
        f"{module.path}:{called.line}: `{called.said}`"
        for module in here
        for called in module.scan.dynamic
        if called.kind == UNKNOWN
    )
    return Completeness(tuple(findings), tuple(unknown))


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
