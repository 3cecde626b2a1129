"""The document of `explain_json`, smaller: each text stands once, and each step of a way.

The ways of ten thousand files say the same steps over and over. Here a way is its last step, which
knows the one before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flyte_pack.explain import Graph

NONE = -1  # no text, no step


def compact(document: Mapping[str, Any], graphs: Sequence[Graph]) -> Mapping[str, Any]:
    """graphs: of the artifacts, in their order.

    `names` has the texts that numbers stand for in `files`, `steps`, `edges`, `requirements`.

    `files`: a list for each column, `packed` only where it was packed. `steps`: name, reason, and
    number of the step before, one after the other. `edges`: from, to, reason, alike; they stand for
    the targets of the document's graph.
    """
    names = _Numbered()
    artifacts = [_artifact(*one, names) for one in zip(document["artifacts"], graphs)]
    return {**document, "artifacts": artifacts, "names": list(names.all)}


class _Numbered:
    """Texts, or other values, by the number that each got when it first came."""

    def __init__(self) -> None:
        self.all: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:
        return NONE if value is None else self.all.setdefault(value, len(self.all))


def _artifact(artifact: Mapping[str, Any], graph: Graph, names: _Numbered) -> Mapping[str, Any]:
    steps = _Numbered()
    files = artifact["files"]
    columns: dict[str, list[Any]] = {
        name: [names(file[name]) for file in files]
        for name in ("path", "source", "owner", "library", "kind")
    }
    columns["size"] = [file["size"] for file in files]
    if artifact["packed"] is not None or artifact["layers"] is not None:
        columns["packed"] = [file["packed"] for file in files]
    columns["step"] = [_last_step(file["way"], names, steps) for file in files]
    return {
        **{name: value for name, value in artifact.items() if name != "graph"},
        "files": columns,
        "steps": _flat(steps.all),
        "edges": _flat(
            (names(edge.of), names(edge.to), names(edge.kind)) for edge in graph.edges()
        ),
        "requirements": [
            {
                "requirement": one["requirement"],
                "target": names(one["target"]),
                "needed_by": [names(name) for name in one["needed_by"]],
                "wheels": one["wheels"],
            }
            for one in artifact["requirements"]
        ],
    }


def _last_step(way: Sequence[Mapping[str, str]], names: _Numbered, steps: _Numbered) -> int:
    step = NONE
    for one in way:
        step = steps((names(one["name"]), names(one["reason"]), step))
    return step


def _flat(rows: Iterable[Sequence[int]]) -> Sequence[int]:
    return [number for row in rows for number in row]
