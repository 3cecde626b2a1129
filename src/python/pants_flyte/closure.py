"""The files that a bundle needs, each with the target that owns it and the reason it is there."""

from __future__ import annotations

import os
from collections import deque
from typing import (
    Deque,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    Type,
    Union,
)

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonSourceField
from pants.core.target_types import FileSourceField, ResourceSourceField
from pants.engine.addresses import Address
from pants.engine.fs import Digest
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import (
    Dependencies,
    GenerateSourcesRequest,
    HydratedSources,
    HydrateSourcesRequest,
    SingleSourceField,
    SourcesField,
    Target,
)
from pants.engine.unions import UnionMembership, UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte.build_types import Closure, ClosureGraph, ClosureRequest, Reason, SourceFile
from pants_flyte.changed import named_elsewhere
from pants_flyte.globs import exactly, literal_glob
from pants_flyte.layout import directories_above, root_path
from pants_flyte.taken import taken_by
from pants_flyte.targets import is_in_resolve

_SHIPPED = (PythonSourceField, ResourceSourceField, FileSourceField)


async def _files_of(
    reached: Sequence[Target], plain: Sequence[Type[SingleSourceField]]
) -> Tuple[List[SourceFile], Dict[Tuple[str, Optional[Address]], Digest]]:
    """The files of these targets, with the digest that holds each where one had to be made.

    plain: fields that nothing generates code from. They tell the path of their file, so that one
    question does for all. A file that is missing is left to Pants, which has the error message.
    """
    targets = [target for target in reached if target.has_field(SourcesField)]
    named = {t: path for t in targets if (path := _path_of(t[SourcesField], plain))}
    found = await engine.files_matching(exactly(sorted(set(named.values()))))
    there = set(found.files)
    others = [target for target in targets if named.get(target) not in there]
    requests = [
        HydrateSourcesRequest(t[SourcesField], for_sources_types=_SHIPPED, enable_codegen=True)
        for t in others
    ]
    hydrated = dict(zip(others, await engine.hydrated_sources(requests)))
    rooted = [path for t, path in named.items() if t not in hydrated and not _keeps_path(t)]
    for one in hydrated.values():
        rooted += one.snapshot.files if _has_source_root(one) else ()
    roots = await engine.source_roots(rooted)
    files: List[SourceFile] = []
    digest_of: Dict[Tuple[str, Optional[Address]], Digest] = {}
    for target in targets:
        sources = hydrated.get(target)
        if sources is None:
            path, python = named[target], target.has_field(PythonSourceField)
            root = None if _keeps_path(target) else root_path(roots[path])
            files.append(SourceFile(path, target.address, root, python))
        elif sources.sources_type is not None:
            for path in sources.snapshot.files:
                digest_of[path, target.address] = sources.snapshot.digest
                files.append(
                    SourceFile(
                        path=path,
                        owner=target.address,
                        source_root=root_path(roots[path]) if _has_source_root(sources) else None,
                        python=issubclass(sources.sources_type, PythonSourceField),
                        generated=not isinstance(target[SourcesField], _SHIPPED),
                    )
                )
    return files, digest_of


def _path_of(field: SourcesField, plain: Sequence[Type[SingleSourceField]]) -> Optional[str]:
    """Where the field's file is; None if only Pants knows."""
    if not isinstance(field, SingleSourceField) or type(field) not in plain or not field.value:
        return None
    path = field.file_path
    return path if path == literal_glob(path) else None


async def reached_from(roots: Sequence[Address], python_setup: PythonSetup) -> Tuple[Target, ...]:
    """The closure of `roots`, without dependencies that exist only for `--changed-since`.

    The first root has those on files that its fields name. The fields put these files where they
    belong. The tasks that it takes from are in the closure, so that their `!!` hold.
    """
    (target,) = await engine.targets_at([roots[0]])
    others = (*roots[1:], *(await taken_by(target, python_setup)).through)
    whole = await engine.transitive_targets([roots[0], *others])
    named = {
        owner.address for owners in (await named_elsewhere(target)).values() for owner in owners
    }
    if not named:
        return tuple(whole.closure)
    (declared,) = await engine.explicit_dependencies([target.get(Dependencies)])
    (direct,) = await engine.direct_dependencies([target.get(Dependencies)])
    needed = [
        dependency.address
        for dependency in direct
        if dependency.address not in named or _is_any_of(dependency.address, declared.includes)
    ]
    kept = set((await engine.transitive_targets([*needed, *others])).closure)
    # Pants applies `!!` to the whole closure only.
    return tuple(t for t in whole.closure if t in kept or t.address in roots)


def _keeps_path(target: Target) -> bool:
    return target.has_field(FileSourceField)


def _has_source_root(sources: HydratedSources) -> bool:
    """Modules and resources have one, generated or not; `files` keep their path."""
    return sources.sources_type is not None and not issubclass(
        sources.sources_type, FileSourceField
    )


def _packages_above(files: Sequence[SourceFile]) -> Dict[str, str]:
    """Paths of `__init__.py` files that could be above the files, with their source roots.

    Those in a source root itself are part of no package.
    """
    have = {file.path for file in files}
    possible: Dict[str, str] = {}
    done: Set[str] = set()
    for file in files:
        root = file.source_root
        if root is None:
            continue
        for directory in directories_above(file.path):
            if directory == root or directory in done:
                break
            done.add(directory)
            init = os.path.join(directory, "__init__.py")
            if init not in have:
                possible[init] = root
    return possible


async def _owners_of_packages(
    possible: Mapping[str, str], resolve: str, python_setup: PythonSetup
) -> Tuple[Dict[str, Optional[Address]], List[Address], List[str]]:
    """Sorts the `__init__.py` files that exist: bare ones, owners of the others, unowned code.

    A bare one is empty or has no owner. It is shipped as a file, without what its target depends
    on for the sake of other files. Unowned code: the bare ones that are not empty.
    """
    if not possible:
        return {}, [], []
    existing = await engine.contents_matching(exactly(sorted(possible)))
    paths = [content.path for content in existing]
    owners = await engine.owners_of_each(paths)
    targets = await engine.targets_at(sorted({owner for found in owners for owner in found}))
    fitting = {
        target.address
        for target in targets
        if target.has_field(PythonSourceField) and is_in_resolve(target, resolve, python_setup)
    }
    bare: Dict[str, Optional[Address]] = {}
    with_code: List[Address] = []
    unowned_code: List[str] = []
    for content, found in zip(existing, owners):
        owner = next((a for a in sorted(found) if a in fitting), None)
        empty = not content.content.strip()
        if owner is None or empty:
            bare[content.path] = owner
        else:
            with_code.append(owner)
        if owner is None and not empty:
            unowned_code.append(content.path)
    return bare, with_code, unowned_code


async def _graph_of(
    address: Address, reached: Sequence[Target], python_setup: PythonSetup
) -> ClosureGraph:
    """The way to what comes from a task leads through the task."""
    targets = sorted(reached, key=lambda t: t.address)
    fields = [target.get(Dependencies) for target in targets]
    direct = await engine.direct_dependencies(fields)
    explicit = await engine.explicit_dependencies(fields)
    in_closure = {target.address: target for target in targets}
    taken = await taken_by(in_closure[address], python_setup)
    needs: Dict[Address, Tuple[Tuple[Address, str], ...]] = {}
    excluded: Dict[Address, Tuple[Address, str]] = {}
    for target, found, declared in zip(targets, direct, explicit):
        excluded.update(dict.fromkeys(declared.ignores, (target.address, "!")))
        needs[target.address] = tuple(
            (dep.address, "declared" if _is_any_of(dep.address, declared.includes) else "imported")
            for dep in found
            if dep.address in in_closure
        )
        if target.address != address:  # the root's may be those for `--changed-since`
            gone = (dep.address for dep in found if dep.address not in in_closure)
            excluded.update(dict.fromkeys(gone, (target.address, "!!")))
    own = [(a, k) for a, k in needs[address] if k == "declared" or a not in taken.dependencies]
    needs[address] = tuple(sorted([*own, *((task, "declared") for task in taken.named)]))
    return ClosureGraph(tuple(targets), FrozenDict(needs), FrozenDict(excluded), taken.through)


def _reasons(
    address: Address,
    package_roots: Iterable[Address],
    entry_owners: FrozenSet[Address],
    graph: ClosureGraph,
) -> Dict[Address, Reason]:
    """Walk the graph breadth first, so that each target's reason is a shortest way to it."""
    in_closure = {target.address: target for target in graph.targets}
    reasons: Dict[Address, Reason] = {}
    waiting: Deque[Address] = deque()

    def reach(start: Address) -> None:
        waiting.append(start)
        while waiting:
            importer = waiting.popleft()
            for a, kind in graph.needs.get(importer, ()):
                if a in reasons or a == address:
                    continue
                if importer == address and a in entry_owners:
                    reasons[a] = Reason("entry_point", address.spec)
                elif kind == "imported" and _is_package_of(in_closure[a], in_closure[importer]):
                    reasons[a] = Reason("package", importer.spec)
                else:
                    reasons[a] = Reason(kind, importer.spec)
                waiting.append(a)

    reach(address)
    for root in package_roots:
        if root not in reasons:
            reasons[root] = Reason("package", None)
            reach(root)
    return reasons


def _is_any_of(dependency: Address, written: Iterable[Address]) -> bool:
    """Whether a BUILD file means this target: itself, its generator, or with fewer parameters."""
    generator = dependency.maybe_convert_to_target_generator()
    return any(
        address.is_parametrized_subset_of(dependency)
        or address.is_parametrized_subset_of(generator)
        for address in written
    )


def _is_package_of(package: Target, module: Target) -> bool:
    """Whether `package` is the `__init__.py` of a directory above `module`."""
    if not package.has_field(PythonSourceField) or not module.has_field(PythonSourceField):
        return False
    init, path = package[PythonSourceField].file_path, module[PythonSourceField].file_path
    return os.path.basename(init) == "__init__.py" and path.startswith(os.path.dirname(init) + "/")


@rule(desc="Find what a Flyte target reaches", level=LogLevel.DEBUG)
async def find_closure(
    request: ClosureRequest, python_setup: PythonSetup, union_membership: UnionMembership
) -> Closure:
    """A rule that an edit does not run again: it depends on the bytes of no plain file.

    Python runs each `__init__.py` on the way to a module or to package data, whether or not Pants
    infers a dependency on it. One that has code is a root of its own: what it imports must be there
    as well. That can bring in new packages, so this repeats until nothing is new.
    """
    address = request.address
    generators = union_membership.get(GenerateSourcesRequest)
    plain = [f for f in _SHIPPED if not any(issubclass(f, one.input) for one in generators)]
    package_roots: Tuple[Address, ...] = ()
    while True:
        reached = await reached_from((address, *package_roots), python_setup)
        files, digest_of = await _files_of(reached, plain)
        missing = _packages_above(files)
        bare, owned, unowned_code = await _owners_of_packages(
            missing, request.resolve, python_setup
        )
        if set(owned) <= set(package_roots):
            break
        package_roots = tuple(sorted({*package_roots, *owned}))

    files += [SourceFile(path, bare[path], missing[path], python=True) for path in bare]
    why: Mapping[Address, Reason] = {}
    graph = ClosureGraph()
    if request.reasons:
        graph = await _graph_of(address, reached, python_setup)
        why = _reasons(address, package_roots, request.entry_owners, graph)
    return Closure(
        tuple(files),
        FrozenDict(digest_of),
        FrozenDict(why),
        tuple(unowned_code),
        frozenset(bare),
        graph,
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
