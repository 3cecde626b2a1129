"""The graph of a bundle, as an artifact to explain and as its manifest has it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Optional

from flyte_pack.explain import Artifact, Need, Requirement, ShippedFile
from flyte_pack.manifest import (
    GraphRequirement,
    GraphTarget,
    Manifest,
    ManifestFile,
    ManifestGraph,
    source_of,
)


def artifact_of(manifest: Manifest) -> Artifact:
    """Of schema 1: one way to each file, and no requirements."""
    graph = manifest.graph
    if graph is None:
        return _of_ways(manifest)
    libraries = {target.address: graph.libraries[target.library] for target in graph.targets}
    return artifact_with(
        graph,
        [
            ShippedFile(
                path=file.path,
                source=file.source or source_of(file.path, file.package_root, manifest.root_dir),
                size=file.size,
                owner=file.owner,
                library=libraries[file.owner] if file.owner else None,
                kind=file.kind or "file",
                package_root=file.package_root,
                alone=file.alone,
                beside="all" if file.reason == "all" else None,
                sha256=file.sha256,
                executable=file.mode == 0o755,
            )
            for file in manifest.files
        ],
    )


def artifact_with(graph: ManifestGraph, files: Sequence[ShippedFile]) -> Artifact:
    names = [target.address for target in graph.targets]
    return Artifact(
        root=names[graph.root],
        entries=tuple(names[entry] for entry in graph.entries),
        needs=tuple((target.address, _needs(target, names)) for target in graph.targets),
        libraries=tuple((t.address, graph.libraries[t.library]) for t in graph.targets),
        files=tuple(files),
        requirements=tuple(
            Requirement(names[one.target], one.texts, one.modules, one.versions)
            for one in graph.requirements
        ),
    )


def _needs(target: GraphTarget, names: Sequence[str]) -> tuple[Need, ...]:
    kinds = (("imported", target.imported), ("declared", target.declared))
    return tuple(sorted(Need(names[to], kind) for kind, numbers in kinds for to in numbers))


def graph_of(artifact: Artifact, owners: Mapping[str, str]) -> ManifestGraph:
    """owners: of files that no target needs, with their libraries."""
    library = {**dict(artifact.libraries), **owners}
    needs = dict(artifact.needs)
    every = {artifact.root, *artifact.entries, *library, *needs}
    every.update(need.to for its in needs.values() for need in its)
    names = sorted(every)
    number = {name: at for at, name in enumerate(names)}
    libraries = sorted({library.get(name, name) for name in names})
    place = {name: at for at, name in enumerate(libraries)}

    def numbers(address: str, kind: str) -> tuple[int, ...]:
        return tuple(sorted({number[to] for to, why in needs.get(address, ()) if why == kind}))

    return ManifestGraph(
        root=number[artifact.root],
        entries=tuple(sorted(number[entry] for entry in artifact.entries)),
        libraries=tuple(libraries),
        targets=tuple(
            GraphTarget(
                name,
                place[library.get(name, name)],
                numbers(name, "imported"),
                numbers(name, "declared"),
            )
            for name in names
        ),
        requirements=tuple(
            sorted(
                GraphRequirement(number[one.target], one.texts, one.modules, one.versions)
                for one in artifact.requirements
            )
        ),
    )


def _of_ways(manifest: Manifest) -> Artifact:
    owners = {file.owner for file in manifest.files}
    entries = tuple(
        sorted({f.owner for f in manifest.files if f.reason == "entry_point" and f.owner})
    )
    tops = sorted({file.by for file in manifest.files if file.by} - owners)
    root = next((point.target for point in manifest.entry_points), "")
    if not root:
        root = tops[0] if len(tops) == 1 else "the bundle"
    needs: dict[str, dict[str, str]] = defaultdict(dict)
    for top in tops:
        if top != root:
            needs[root][top] = "declared"
    for file in manifest.files:
        if file.by and file.owner:
            kind = "imported" if file.reason == "entry_point" else file.reason
            needs[file.by][file.owner] = kind
    return Artifact(
        root=root,
        entries=entries,
        needs=tuple(
            (address, tuple(Need(*need) for need in sorted(its.items())))
            for address, its in sorted(needs.items())
        ),
        libraries=(),
        files=tuple(map(_shipped, manifest.files)),
    )


def is_whole(manifest: Manifest) -> bool:
    """Whether it has all dependencies and requirements."""
    return manifest.graph is not None


def _shipped(file: ManifestFile) -> ShippedFile:
    python = file.path.endswith(".py")
    return ShippedFile(
        path=file.path,
        source=_source(file),
        size=file.size,
        owner=file.owner,
        library=None,
        kind="module" if python else "file",
        package_root="" if python else None,
        beside="all" if file.reason == "all" else None,
        sha256=file.sha256,
        executable=file.mode == 0o755,
    )


def _source(file: ManifestFile) -> str:
    """Where it is in the repository, as far as the address of its owner tells."""
    place: Optional[str] = re.split("[:#@]", file.owner)[0].lstrip("/") if file.owner else None
    return place if place and f"/{place}".endswith(f"/{file.path}") else file.path
