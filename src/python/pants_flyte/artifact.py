"""What goes into a bundle or image, as the graph that explains it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import FrozenSet, Mapping, Optional

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonRequirementsField
from pants.build_graph.address import Address
from pants.engine.fs import Digest
from pants.engine.target import Target

from flyte_pack.explain import Artifact, Need, Requirement, ShippedFile
from flyte_pack.locked import Locked, locked
from pants_flyte import engine
from pants_flyte.build_types import ClosureGraph, Contents, SourceFile
from pants_flyte.globs import exactly
from pants_flyte.known_modules import provided


async def with_files(artifact: Artifact, contents: Contents, beside: str) -> Artifact:
    """artifact: of `without_files`. beside: why files are in it that no target brings."""
    closure = contents.closure
    digest = await _digest_of(contents)
    held = {entry.path: entry for entry in await engine.file_entries(digest)}
    alone = closure.bare | await _empty_packages(contents, digest)
    return replace(
        artifact,
        files=tuple(
            ShippedFile(
                path=path,
                source=file.path,
                size=held[file.path].file_digest.serialized_bytes_length,
                owner=file.owner.spec if file.owner else None,
                library=library_of(file.owner) if file.owner else None,
                kind=kind_of(file),
                package_root=package_root_of(file),
                alone=file.path in alone,
                beside=beside if file.beside else None,
                sha256=held[file.path].file_digest.fingerprint,
                executable=held[file.path].is_executable,
            )
            for path, file in sorted(contents.placed.items())
        ),
    )


async def without_files(
    root: Address,
    entries: FrozenSet[Address],
    graph: ClosureGraph,
    resolve: str,
    python_setup: PythonSetup,
) -> Artifact:
    """What is known before any file is looked at. resolve: of its requirements."""
    lock = await locked_of(resolve, python_setup)
    return Artifact(
        root=root.spec,
        entries=tuple(sorted(address.spec for address in entries)),
        needs=tuple(
            (address.spec, tuple(Need(to.spec, kind) for to, kind in needs))
            for address, needs in graph.needs.items()
        ),
        libraries=tuple((t.address.spec, library_of(t.address)) for t in graph.targets),
        files=(),
        requirements=tuple(
            _requirement(t, lock.versions)
            for t in graph.targets
            if t.has_field(PythonRequirementsField)
        ),
        lock=lock,
    )


def _requirement(target: Target, versions: Mapping[str, str]) -> Requirement:
    texts = tuple(map(str, target[PythonRequirementsField].value))
    names = sorted(set(Requirement("", texts).distributions))
    return Requirement(
        target.address.spec,
        texts,
        tuple(sorted({module for module, _ in provided(target)})),
        tuple((name, versions[name]) for name in names if name in versions),
    )


async def locked_of(resolve: str, python_setup: PythonSetup) -> Locked:
    """As far as the lock file of the resolve is understood; nothing without one."""
    path = python_setup.resolves.get(resolve) if python_setup.enable_resolves else None
    found = await engine.contents_matching(exactly([path] if path else []))
    return locked(found[0].content) if found else locked(b"")


async def _digest_of(contents: Contents) -> Digest:
    """The files at their own paths: those of the repository as they are, and those held."""
    keys = [(file.path, file.owner) for file in contents.placed.values()]
    digests = contents.closure.digest_of
    plain = exactly(sorted({key[0] for key in keys if key not in digests}))
    held = {digests[key] for key in keys if key in digests}
    return await engine.merge_digests([*(await engine.digests_of([plain])), *held])


async def _empty_packages(contents: Contents, digest: Digest) -> FrozenSet[str]:
    """The `__init__.py` files that bring nothing but themselves where only modules need them."""
    inits = [
        file.path
        for file in contents.placed.values()
        if file.python and os.path.basename(file.path) == "__init__.py"
    ]
    if not inits:
        return frozenset()
    found = await engine.contents(await engine.subset(digest, exactly(inits)))
    return frozenset(file.path for file in found if not file.content.strip())


def library_of(owner: Address) -> str:
    """The target in a BUILD file that an owner was generated from."""
    target = owner.maybe_convert_to_target_generator()
    named = f":{target.target_name}"
    # `libs/plots` is another way to write `libs/plots:plots`, and how people think of it.
    short = os.path.basename(target.spec_path) == target.target_name
    return target.spec.replace(named, "", 1) if short else target.spec


def kind_of(file: SourceFile) -> str:
    if file.python:
        return "module"
    return "file" if file.source_root is None or file.beside else "resource"


def package_root_of(file: SourceFile) -> Optional[str]:
    return None if file.beside else file.source_root


def entries_of(root: Address, graph: ClosureGraph) -> FrozenSet[Address]:
    """Where a bundle or image is entered: by the code of its tasks; or by its only root."""
    tasks = set(graph.through)
    entered = [to for task in {root, *tasks} for to, _ in graph.needs.get(task, ())]
    code = {to for to in entered if to not in tasks}
    return frozenset(tasks | code) if tasks or len(code) == 1 else frozenset()
