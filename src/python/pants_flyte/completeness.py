"""Checks that a bundle or image has all that its code imports and reads, before it is packed.

What a module needs says `flyte_pack.code.code_scan`, by directory and kept while a directory does
not change; what is missing says `flyte_pack.code.completeness`.
"""

from __future__ import annotations

import logging
import os
import posixpath
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import (
    Collection,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

from pants.backend.python.dependency_inference.default_module_mapping import (
    DEFAULT_MODULE_MAPPING,
)
from pants.backend.python.dependency_inference.subsystem import PythonInferSubsystem
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    InterpreterConstraintsField,
    PythonRequirementResolveField,
    PythonRequirementsField,
)
from pants.build_graph.address import Address
from pants.core.target_types import FileSourceField, ResourceSourceField
from pants.engine.fs import Digest
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Dependencies, Target
from pants.engine.unions import UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.code.bound_names import Bound
from flyte_pack.code.code_scan import CodeScan
from flyte_pack.code.completeness import (
    ERROR,
    QUIET,
    UNSURE,
    Checker,
    Finding,
    Module,
    Owner,
    Surroundings,
    ThirdParty,
    in_order,
    names_of,
)
from flyte_pack.code.data_reads import Read
from flyte_pack.code.dynamic_scan import GROUP, SCRIPT, UNKNOWN
from flyte_pack.code.paths import CWD, HERE, PACKAGE
from flyte_pack.code.wheel_modules import Question
from flyte_pack.errors import listing
from flyte_pack.locked import locked
from flyte_pack.names import normalized
from pants_flyte import engine
from pants_flyte.artifact import Contents
from pants_flyte.base_image import base_of, image_of
from pants_flyte.build_types import Completeness, CompletenessRequest, SourceFile
from pants_flyte.changed import ordinary_owners
from pants_flyte.closure import reached_from
from pants_flyte.code_scans import answer_of, bound_by, scans_of
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.flyte_modules import MODULES
from pants_flyte.globs import exactly, matching
from pants_flyte.known_modules import mapped_modules, provided
from pants_flyte.layout import module_name
from pants_flyte.named_in_code import files_of, place_read
from pants_flyte.registered import Registered
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


# --- what there is --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResolvesKnown:
    """The distributions of each resolve, without what an artifact requires of them.

    locks: the contents of their lock files.
    """

    of: FrozenDict[str, ThirdParty]
    locks: FrozenDict[str, bytes]


def _mapped() -> Dict[str, Tuple[str, ...]]:
    """Module -> the distributions that are known to have it."""
    found: Dict[str, Set[str]] = defaultdict(set)
    for distribution, modules in (*DEFAULT_MODULE_MAPPING.items(), *MODULES.items()):
        for module in modules:
            found[module].add(normalized(distribution))
    return {module: tuple(sorted(names)) for module, names in found.items()}


def _with_patterns(
    mapped: FrozenDict[str, Tuple[str, ...]], locked: FrozenSet[str]
) -> FrozenDict[str, Tuple[str, ...]]:
    """And what patterns of Pants' mapping say of the distributions in a lock file."""
    more: Dict[str, Tuple[str, ...]] = {}
    for distribution in sorted(locked):
        for module in mapped_modules(distribution):
            if distribution not in mapped.get(module, ()):
                more[module] = (*more.get(module, mapped.get(module, ())), distribution)
    return FrozenDict({**mapped, **more}) if more else mapped


@rule(desc="Look for the modules of requirements", level=LogLevel.DEBUG)
async def find_resolves_known(python_setup: PythonSetup) -> ResolvesKnown:
    """A rule, since each artifact needs it: found once."""
    modules: Dict[str, Dict[str, List[Tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    targets = await engine.all_targets()
    one_of_each = {type(target): target for target in targets}  # the question is slow
    kinds = {kind for kind, one in one_of_each.items() if one.has_field(PythonRequirementsField)}
    for target in targets:
        if type(target) in kinds:
            resolve = target[PythonRequirementResolveField].normalized_value(python_setup)
            for module, distribution in provided(target):
                modules[resolve][module].append((target.address.spec, distribution))
    locks = dict(python_setup.resolves) if python_setup.enable_resolves else {}
    contents = {
        file.path: file.content
        for file in await engine.contents_matching(exactly(sorted(set(locks.values()))))
    }
    mapped = FrozenDict(_mapped())
    known, held = {}, {}
    for resolve in sorted({*modules, *locks}):
        path = locks.get(resolve)
        content = contents.get(path) if path is not None else None
        pinned = None if content is None else locked(content)
        if content is not None:
            held[resolve] = content
        known[resolve] = ThirdParty(
            resolve=resolve if python_setup.enable_resolves else "",
            lock=path,
            modules=FrozenDict({m: tuple(of) for m, of in modules[resolve].items()}),
            locked=None if pinned is None else pinned.names,
            needs=FrozenDict(pinned.needs) if pinned and pinned.needs is not None else None,
            mapped=mapped if pinned is None else _with_patterns(mapped, pinned.names),
            having=FrozenDict(),
        )
    return ResolvesKnown(FrozenDict(known), FrozenDict(held))


async def _with_base(
    known: ThirdParty, target: Target, flyte_pack: FlytePackSubsystem, python_setup: PythonSetup
) -> ThirdParty:
    """With what the base image has, if that is known. Asked only where something is missing."""
    image = await image_of(target)
    if image is None:
        return known
    try:
        base = await base_of(image, flyte_pack, python_setup)
    except FlyteTargetError:  # building the image reports it
        return replace(known, is_known=False)
    environments = base.environments.values()
    return replace(
        known,
        in_base=frozenset(one.name for e in environments for one in e.distributions),
        is_known=all(e.has_flyte is not None for e in environments),
    )


async def _with_wheels(
    known: ThirdParty, target: Target, content: Optional[bytes], modules: Collection[str]
) -> ThirdParty:
    """With what the wheels that are at hand say of modules that nothing else is known of."""
    if content is None or not modules:
        return known
    lock = locked(content)
    installed = known.installed()
    needed = (lock.names if installed is None else installed & lock.names) - lock.conditional
    question = Question(
        sorted(names_of(modules)),
        {name: lock.versions_of(name) for name in sorted(lock.names)},
        sorted(needed),
    )
    found = await answer_of(target.address, question)
    return replace(known, having=found.having, all_at_hand=found.is_all and bool(needed))


async def _third_party(
    target: Target,
    resolve: str,
    known: ResolvesKnown,
    python_setup: PythonSetup,
) -> ThirdParty:
    required: Set[str] = set()
    for one in await reached_from([target.address], python_setup):
        if one.has_field(PythonRequirementsField):
            required.add(one.address.spec)
    (explicit,) = await engine.explicit_dependencies([target.get(Dependencies)])
    excluded = {address.spec for address in explicit.ignores}
    return replace(
        known.of.get(resolve, ThirdParty()),
        required=frozenset(required),
        excluded=frozenset(excluded),
        is_known=await image_of(target) is not None,
    )


def _minors(target: Target, python_setup: PythonSetup) -> Tuple[int, ...]:
    if not target.has_field(InterpreterConstraintsField):
        return ()
    versions = engine.configured_constraints(
        target, python_setup
    ).partition_into_major_minor_versions(
        # More than the universe of this Pants, which may be older than what runs the code.
        [*python_setup.interpreter_versions_universe, *(f"3.{minor}" for minor in range(7, 16))]
    )
    return tuple(int(v.partition(".")[2]) for v in versions if v.startswith("3."))


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


# --- data -----------------------------------------------------------------------------------------


class _Opened(NamedTuple):
    """What is read. at: its path from the build root. expected: in the artifact."""

    importer: SourceFile
    read: Read
    at: str
    expected: str


def _opened(
    own: Mapping[str, SourceFile], scans: Mapping[str, CodeScan], modules: FirstPartyModules
) -> Iterator[_Opened]:
    for path, file in sorted(own.items()):
        if file.path not in scans:
            continue
        scan = scans[file.path]
        # A script that is started is read from the working directory as well.
        scripts = [
            Read(CWD, posixpath.normpath(one.name), one.line, optional=bool(one.guard))
            for one in scan.dynamic
            if one.kind == SCRIPT
        ]
        for read in (*scan.reads, *scripts):
            at = place_read(read, file.path, modules)
            if at is None:
                continue
            expected = read.path
            if read.start == HERE:
                expected = posixpath.normpath(posixpath.join(posixpath.dirname(path), read.path))
            elif read.start == PACKAGE:
                if path != file.stripped:  # `root_dir` parts names and places: an error of its own
                    continue
                expected = posixpath.join(read.package.replace(".", "/"), read.path)
            yield _Opened(file, read, at, expected)


class _Lacking(NamedTuple):
    """A file of the repository that is not where it is looked for. others: more of the directory.

    none: whether all of the directory lacks. exists: whether the repository has it.
    """

    opened: _Opened
    at: str
    expected: str
    others: int
    none: bool
    exists: bool = True


def _is_placed(one: _Opened, placed: Collection[str]) -> bool:
    if one.expected in placed:
        return True
    if not one.read.included:  # of a directory that is read, a part may be there
        return False
    inside = f"{one.expected}/"
    if any(path.startswith(inside) for path in placed):
        return True
    return one.read.pattern and bool(matching(placed, one.expected))


async def _lacking(opened: Sequence[_Opened], placed: Collection[str]) -> List[_Lacking]:
    by_place: Dict[Tuple[Read, str], _Opened] = {}
    for one in opened:
        # One read for each place: several modules may read the same.
        by_place.setdefault((one.read, one.at), one)
    found: List[_Lacking] = []
    there = await files_of(by_place)
    for key, one in by_place.items():
        files = there[key]
        # The same way down in the artifact as in the repository, below what they have in common.
        expected = {
            file: one.expected if file == one.at else _moved(file, one.at, one.expected)
            for file in files
        }
        gone = [file for file in files if expected[file] not in placed]
        if one.read.included and not files:
            found.append(_Lacking(one, one.at, one.expected, 0, none=True, exists=False))
        if gone:
            none = len(gone) == len(files)
            found.append(_Lacking(one, gone[0], expected[gone[0]], len(gone) - 1, none))
    return found


def _moved(file: str, at: str, expected: str) -> str:
    """Where a file of a directory is expected. at, expected: the directory or pattern of it."""
    common = len(posixpath.commonprefix([at[::-1], expected[::-1]]))
    before, after = at[: len(at) - common], expected[: len(expected) - common]
    return after + file[len(before) :]


async def _missing_data(
    own: Mapping[str, SourceFile],
    scans: Mapping[str, CodeScan],
    request: CompletenessRequest,
    modules: FirstPartyModules,
) -> List[Finding]:
    """Files that the repository has, and that code does not find where it looks for them."""
    placed = request.placed
    opened = [one for one in _opened(own, scans, modules) if not _is_placed(one, placed)]
    lacking = await _lacking(opened, placed)
    if not lacking:
        return []
    owners = await ordinary_owners(sorted({one.at for one in lacking}))
    elsewhere = {file.path: path for path, (file, _) in placed.items()}
    found = []
    for one in lacking:
        read = one.opened.read
        certain = read.start != CWD and read.sure and one.none
        certain = certain and (one.exists or not read.pattern)
        found.append(
            Finding(
                one.opened.importer.path,
                read.line,
                read.path,
                one.at,
                QUIET if read.optional else ERROR if certain else UNSURE,
                _about_data(one, owners[one.at], elsewhere.get(one.at)),
            )
        )
    return found


def _about_data(one: _Lacking, owners: Sequence[Target], elsewhere: Optional[str]) -> str:
    directory, name = posixpath.split(one.at)
    build = posixpath.join(directory, "BUILD")
    if not one.exists:
        return (
            f"an environment includes it, and the repository has no {one.at}: `include` starts at "
            "the directory of its module"
        )
    from_cwd = one.opened.read.start == CWD
    more = f" (and {one.others:,} more)" if one.others else ""
    if one.others:
        name = f"*{posixpath.splitext(name)[1]}"
    if one.at.endswith((".py", ".pyi")):
        if not owners:
            return f"no target owns {one.at}{more}; write `python_sources()` into {build}"
        shown = ", ".join(owner.address.spec for owner in owners[:4])
        return f"{shown} has it{more}; add it to `dependencies` of the target that names it"
    kind = "files" if from_cwd else "resources"
    if elsewhere is not None:
        wanted = (
            "let `files` own it, which keeps its path"
            if from_cwd
            else "let `resources` own it, which move with the modules beside them"
        )
        return (
            f"{one.at}{more} is at {elsewhere}, and this looks for it at {one.expected}; {wanted}"
        )
    if not owners:
        return (
            f'no target owns {one.at}{more}; write `{kind}(name="data", sources=["{name}"])` into '
            f"{build}, and its address into `dependencies` of the target that reads it"
        )
    shown = ", ".join(owner.address.spec for owner in owners[:4])
    supplies = "supplies" if len(owners) == 1 else "supply"
    field = FileSourceField if kind == "files" else ResourceSourceField
    if not any(owner.has_field(field) for owner in owners):
        return (
            f"{shown} {supplies} it{more}, which would be found elsewhere in what ships; let "
            f'`{kind}(name="data", sources=["{name}"])` own it'
        )
    return f"{shown} {supplies} it{more}; add it to `dependencies` of the target that reads it"


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
        third_party=await _third_party(target, request.resolve, known, python_setup),
        resolve=request.resolve,
        compiled=frozenset(map(_compiled_name, filter(_is_compiled, request.placed))),
        provided=frozenset(
            (
                *flyte.provided_modules,
                *(_own_provided(target)),
                *python_infer.ignored_unowned_imports,
            )
        ),
        minors=_minors(target, python_setup),
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
            third_party = await _with_base(around.third_party, target, flyte_pack, python_setup)
            held = known.locks.get(request.resolve)
            third_party = await _with_wheels(third_party, target, held, unsure)
            around = replace(around, third_party=third_party)
        if unsure or there:
            findings, _ = await _findings(here, around, digests, bound)
    findings = await _without_excluded(findings, own, target, modules)
    unowned = {file.path for file in own.values() if file.owner is None}
    findings = [_of_unowned(one) if one.path in unowned else one for one in findings]
    findings += _lost_entry_points(here, registered)
    findings += await _missing_data(own, scans, request, modules)
    unknown = (
        f"{module.path}:{called.line}: `{called.said}`"
        for module in here
        for called in module.scan.dynamic
        if called.kind == UNKNOWN
    )
    return Completeness(tuple(findings), tuple(unknown))


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
