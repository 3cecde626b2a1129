"""An explanation for programs. docs/explain.md has the shape; a change of it gets a new number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Dict, Optional

from flyte_pack.explain import (
    MOST_WAYS,
    Artifact,
    Graph,
    PackedLayer,
    ShippedFile,
    Step,
    Total,
    Weight,
)
from flyte_pack.json_fields import InvalidData, as_json, dump, read
from flyte_pack.manifest import ManifestGraph
from flyte_pack.manifest_graph import artifact_with, graph_of

SCHEMA = 2  # 1 also had the edges of the graph, one by one


def content(**parts: Any) -> Dict[str, Any]:
    return {"schema": SCHEMA, **parts}


def document(content: Dict[str, Any]) -> str:
    return dump(content).decode()


def artifact(graph: Graph, copy_style: Optional[str]) -> Mapping[str, Any]:
    """copy_style: of a bundle, which a deployment may override."""
    artifact = graph.artifact
    return {
        "address": artifact.root,
        "copy_style": copy_style,
        "size": sum(file.size for file in artifact.files),
        "packed": artifact.packed,
        "files": [
            {
                "path": file.path,
                "source": file.source,
                "size": file.size,
                "packed": file.packed,
                "owner": file.owner,
                "library": file.library,
                "kind": file.kind,
                "sha256": file.sha256,
                "executable": file.executable,
                "package_root": file.package_root,
                "alone": file.alone,
                "beside": file.beside,
                "way": _way(next(graph.ways_to(node), ())),
            }
            for node, file in graph.file_nodes()
        ],
        "requirements": [
            {
                "requirement": one.text,
                "target": one.target,
                "needed_by": list(one.by),
                "wheels": _weight(one.wheels),
            }
            for one in graph.needed()
        ],
        "wheels": _weight(graph.wheels()),
        "layers": None if artifact.layers is None else list(map(_layer, artifact.layers)),
        "folders": _totals(graph.by_folder()),
        "owners": _totals(graph.by_library()),
        "direct": [
            {
                **total,
                "requirements": list(one.requirements),
                "wheels": _weight(one.wheels),
            }
            for one in graph.exclusive()
            for total in _totals([one])
        ],
        "graph": as_json(graph_of(artifact, _owners(artifact))),
    }


def _owners(artifact: Artifact) -> Mapping[str, str]:
    """Those of files that no target needs, with their libraries."""
    return {file.owner: file.library or file.owner for file in artifact.files if file.owner}


def read_artifact(told: Mapping[str, Any]) -> Artifact:
    """What `artifact` wrote, of this schema or an older one. Raises `InvalidData`."""
    try:
        graph = read(ManifestGraph, told["graph"], "graph")
        graph.check()
        names = [name for name in ShippedFile._fields if name not in ("library", "packed")]
        files = [
            ShippedFile(library=None, **{name: file[name] for name in names})
            for file in told["files"]
        ]
        return artifact_with(graph, files)
    except (KeyError, TypeError, IndexError, ValueError):
        raise InvalidData("an explanation of another pants-flyte, which has no graph") from None


def deployment(address: str, graphs: Iterable[Graph]) -> Mapping[str, Any]:
    return {
        "address": address,
        "artifacts": list(dict.fromkeys(graph.artifact.root for graph in graphs)),
    }


def found(graph: Graph, asked: str, every: bool) -> Mapping[str, Any]:
    """every: whether to tell all shortest ways, of which there can be very many."""
    most = MOST_WAYS if every else 1
    ways = [way for node in graph.find(asked) for way in islice(graph.ways_to(node), most)]
    return {
        "address": graph.artifact.root,
        "found": bool(ways),
        "ways": [_way(way) for way in ways],
    }


def found_brought(graph: Graph, names: Sequence[str], target: str) -> Mapping[str, Any]:
    """As `explain_text.why_brought`."""
    (steps,) = islice(graph.ways_to(graph.target[target]), 1)
    way = [*_way(steps), *({"name": name, "reason": "required"} for name in names[1:])]
    return {"address": graph.artifact.root, "found": True, "ways": [way]}


def _way(steps: Sequence[Step]) -> Sequence[Mapping[str, str]]:
    return [{"name": step.name, "reason": step.kind} for step in steps]


def _weight(weight: Optional[Weight]) -> Optional[Mapping[str, int]]:
    return None if weight is None else weight._asdict()


def _layer(layer: PackedLayer) -> Mapping[str, Any]:
    parts = None if layer.parts is None else [part._asdict() for part in layer.parts]
    return {**layer._asdict(), "parts": parts}


def _totals(totals: Iterable[Total]) -> Sequence[Mapping[str, Any]]:
    return [
        {"name": one.name, "files": one.files, "size": one.size, "packed": one.packed}
        for one in totals
    ]
