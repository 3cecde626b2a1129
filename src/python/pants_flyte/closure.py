"""The files that a bundle needs, each with the target that owns it and the reason it is there."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonSourceField
from pants.core.target_types import FileSourceField, ResourceSourceField
from pants.engine.addresses import Address
from pants.engine.fs import Digest
from pants.engine.target import (
    Dependencies,
    HydratedSources,
    HydrateSourcesRequest,
    SourcesField,
    Target,
)

from pants_flyte import engine
from pants_flyte.changed import named_elsewhere
from pants_flyte.globs import exactly
from pants_flyte.layout import SourceFile, directories_above, root_path
from pants_flyte.taken import Taken, taken_by
from pants_flyte.targets import is_in_resolve

_SHIPPED = (PythonSourceField, ResourceSourceField, FileSourceField)


@dataclass(frozen=True)
class Reason:
    """Why a target is in a closure (see `flyte_pack.manifest.REASONS`), and who brought it."""

    kind: str
    by: Optional[str]


@dataclass(frozen=True)
class Closure:
    """Files, with digests that hold them at their paths.

    digest_of: the digest that holds a file, by its path and owner. Two digests may have different
        files at one path, and then cannot be merged.
    reasons: by address of the owner, if they were asked for. A file without an owner is part of a
        package.
    unowned_code: the `__init__.py` files that have code and no owner.
    bare: the `__init__.py` files that are there for the sake of other modules alone.
    """

    files: Tuple[SourceFile, ...]
    digest_of: Mapping[Tuple[str, Optional[Address]], Digest]
    reasons: Mapping[Address, Reason]
    unowned_code: Tuple[str, ...]
    bare: FrozenSet[str]

    @property
    def modules(self) -> Tuple[SourceFile, ...]:
        """Those that the graph reaches."""
        return tuple(file for file in self.files if file.python and file.path not in self.bare)


async def closure_of(
    address: Address,
    entry_owners: FrozenSet[Address],
    resolve: str,
    python_setup: PythonSetup,
    *,
    reasons: bool = True,
) -> Closure:
    """All that `address` reaches, and the `__init__.py` files above every module and resource.

    reasons: whether to find out why each file is there, which is most of the work.

    Python runs each `__init__.py` on the way to a module or to package data, whether or not Pants
    infers a dependency on it. One that has code is a root of its own: what it imports must be there
    as well. That can bring in new packages, so this repeats until nothing is new.
    """
    package_roots: Tuple[Address, ...] = ()
    while True:
        reached = await reached_from((address, *package_roots), python_setup)
        files, digest_of = await _files_of(reached)
        missing = _packages_above(files)
        bare, owned, unowned_code = await _owners_of_packages(missing, resolve, python_setup)
        if set(owned) <= set(package_roots):
            break
        package_roots = tuple(sorted({*package_roots, *owned}))

    if bare:
        found = await engine.snapshot(exactly(bare))
        for path, owner in bare.items():
            digest_of[path, owner] = found.digest
            files.append(SourceFile(path, owner, missing[path], python=True))
    why: Mapping[Address, Reason] = {}
    if reasons:
        target = next(target for target in reached if target.address == address)
        taken = await taken_by(target, python_setup)
        why = await _reasons(address, package_roots, entry_owners, reached, taken)
    return Closure(tuple(files), digest_of, why, tuple(unowned_code), frozenset(bare))


async def _files_of(
    reached: Sequence[Target],
) -> Tuple[List[SourceFile], Dict[Tuple[str, Optional[Address]], Digest]]:
    """The files of these targets, with the digest that holds each."""
    targets = [target for target in reached if target.has_field(SourcesField)]
    hydrated = await engine.hydrated_sources(
        [
            HydrateSourcesRequest(
                target[SourcesField], for_sources_types=_SHIPPED, enable_codegen=True
            )
            for target in targets
        ]
    )
    rooted = [s for s in hydrated if _has_source_root(s)]
    roots = await engine.source_roots(
        [path for sources in rooted for path in sources.snapshot.files]
    )
    files: List[SourceFile] = []
    digest_of: Dict[Tuple[str, Optional[Address]], Digest] = {}
    for target, sources in zip(targets, hydrated):
        if sources.sources_type is None:
            continue
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


async def _reasons(
    address: Address,
    package_roots: Iterable[Address],
    entry_owners: FrozenSet[Address],
    reached: Sequence[Target],
    taken: Taken,
) -> Dict[Address, Reason]:
    """Walk the graph breadth first, so that each target's reason is a shortest way to it.

    The way to what comes from a task leads through the task.
    """
    targets = sorted(reached, key=lambda t: t.address)
    fields = [target.get(Dependencies) for target in targets]
    direct = await engine.direct_dependencies(fields)
    explicit = await engine.explicit_dependencies(fields)
    in_closure = {target.address: target for target in targets}
    needs: Dict[Address, List[Tuple[Address, str]]] = {}
    for target, found, declared in zip(targets, direct, explicit):
        needs[target.address] = [
            (dep.address, "declared" if _is_any_of(dep.address, declared.includes) else "imported")
            for dep in found
            if dep.address in in_closure  # the others are excluded, by `!!`
        ]
    own = [(a, k) for a, k in needs[address] if k == "declared" or a not in taken.dependencies]
    needs[address] = sorted([*own, *((task, "declared") for task in taken.named)])

    reasons: Dict[Address, Reason] = {}
    waiting: Deque[Address] = deque()

    def reach(start: Address) -> None:
        waiting.append(start)
        while waiting:
            importer = waiting.popleft()
            for a, kind in needs.get(importer, ()):
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
