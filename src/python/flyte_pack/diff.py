"""What differs between two artifacts, and which dependencies made the difference.

A file that is there on one side only has a shortest way to it there. The first step of that way
which leads to something that the other side does not reach is the dependency that brought the file,
or the one that is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Tuple

from flyte_pack.explain import Artifact, Graph, ShippedFile, distribution

BASE = "base"  # begins what a layer of the base is called
ADDED, REMOVED, CHANGED, UNCHANGED = "added", "removed", "changed", "unchanged"


class LayerPart(NamedTuple):
    """A layer of an image. what: for a person. size: in bytes, compressed."""

    platform: str
    what: str
    digest: str
    size: int

    @property
    def of_base(self) -> bool:
        return self.what == BASE or self.what.startswith(f"{BASE}: ")


@dataclass(frozen=True)
class Side:
    """What is known of a task, bundle or image on one side of a comparison.

    artifact: None where its files are not known. whole: whether all its dependencies and
    requirements are known. settings: by name. layers: of an image, lowest first; None: not known.
    specifications: settings that follow from all the rest, and are told where nothing else differs.
    """

    address: str
    artifact: Optional[Artifact] = None
    whole: bool = True
    settings: Tuple[Tuple[str, str], ...] = ()
    layers: Optional[Tuple[LayerPart, ...]] = None
    specifications: Tuple[Tuple[str, str], ...] = ()


class Dependency(NamedTuple):
    """before, after: what it leads from and to, as `Step.name`; reason: as `Step.kind`."""

    before: str
    after: str
    reason: str


def compare(old: Optional[Side], new: Optional[Side]) -> dict[str, Any]:
    """How `new` differs from `old`, in the shape that docs/explain.md has. One may be None."""
    one = new or old
    assert one is not None
    before, after = _graph(old), _graph(new)
    told: dict[str, Any] = {
        "address": one.address,
        "old_address": old.address if old else None,
        "files": _pair(before, after, len),
        "size": _pair(before, after, lambda files: sum(file.size for file in files)),
        "added": [],
        "removed": [],
        "changed": [],
        "dependencies": {"added": [], "removed": []},
        "packages": [],
        "layers": [],
        "settings": [],
    }
    if before and after:
        told["added"], told["removed"] = _moved(after, before), _moved(before, after)
        told["changed"] = _changed(before.artifact.files, after.artifact.files)
    if before and after and old and new and old.whole and new.whole:
        told["dependencies"] = {
            "added": _dependencies(after, before),
            "removed": _dependencies(before, after),
        }
        told["packages"] = _packages(before, after)
    if old and new:
        told["settings"] = _settings(dict(old.settings), dict(new.settings))
        if old.layers is not None and new.layers is not None:
            told["layers"] = _layers(old.layers, new.layers)
    differs = any(told[key] for key in _LISTS) or any(told["dependencies"].values())
    if old and new and not differs:
        told["settings"] = _settings(dict(old.specifications), dict(new.specifications))
        differs = bool(told["settings"])
    status = ADDED if old is None else REMOVED if new is None else UNCHANGED
    told["status"] = CHANGED if differs and status == UNCHANGED else status
    return told


_LISTS = ("added", "removed", "changed", "packages", "layers", "settings")


def compare_all(old: Sequence[Side], new: Sequence[Side]) -> list[dict[str, Any]]:
    """Each of one side with that of the same address; two that are alone, with one another."""
    if len(old) == len(new) == 1:
        return [compare(old[0], new[0])]
    before, after = {one.address: one for one in old}, {one.address: one for one in new}
    return [
        compare(before.get(address), after.get(address)) for address in sorted({*before, *after})
    ]


def _graph(side: Optional[Side]) -> Optional[Graph]:
    return Graph(side.artifact) if side is not None and side.artifact is not None else None


def _pair(before: Optional[Graph], after: Optional[Graph], measure: Any) -> Mapping[str, Any]:
    return {
        "before": measure(before.artifact.files) if before else None,
        "after": measure(after.artifact.files) if after else None,
    }


# --- files ---------------------------------------------------------------------------------------


def _moved(has: Graph, lacks: Graph) -> list[dict[str, Any]]:
    """The files that only `has` has, by the dependency that makes the difference."""
    known = _known(lacks)
    there = {file.path for file in lacks.artifact.files}
    groups: dict[Optional[Dependency], list[tuple[int, ShippedFile]]] = defaultdict(list)
    for node, file in has.file_nodes():
        if file.path not in there:
            groups[_by(has, node, known)].append((node, file))
    ordered = sorted(groups.items(), key=lambda item: (item[0] is None, item[0] or ()))
    return [
        {
            "by": dependency and _told(dependency),
            "files": [
                {
                    "path": file.path,
                    "source": file.source,
                    "size": file.size,
                    "owner": file.owner,
                    "kind": file.kind,
                    "way": [
                        {"name": step.name, "reason": step.kind}
                        for step in next(has.ways_to(node), ())
                    ],
                }
                for node, file in files
            ],
        }
        for dependency, files in ordered
    ]


def _known(graph: Graph) -> set[str]:
    """What it reaches: addresses of targets, paths of files in the artifact."""
    return {_identity(graph, node) for node in range(len(graph.names)) if graph.reached(node)}


def _identity(graph: Graph, node: int) -> str:
    """No address begins as that of a file does here."""
    file = graph.files[node]
    return f"\0{file.path}" if file else graph.names[node]


def _by(graph: Graph, node: int, known: set[str]) -> Optional[Dependency]:
    """The first step on the way to the node that leads out of what is known."""
    if not graph.reached(node):
        return None
    last = 0
    for at, kind in graph.chain(node):
        if _identity(graph, at) not in known:
            reason = "entry_point" if graph.is_entry(at) else kind
            return Dependency(graph.label(last), graph.label(at), reason)
        last = at
    return None


def _changed(old: Iterable[ShippedFile], new: Iterable[ShippedFile]) -> list[dict[str, Any]]:
    before = {file.path: file for file in old}
    changed: list[dict[str, Any]] = []
    for file in new:
        was = before.get(file.path)
        if was and (was.sha256, was.executable) != (file.sha256, file.executable):
            changed.append(
                {
                    "path": file.path,
                    "source": file.source,
                    "before": _content(was),
                    "after": _content(file),
                }
            )
    return changed


def _content(file: ShippedFile) -> Mapping[str, Any]:
    return {"size": file.size, "sha256": file.sha256, "executable": file.executable}


# --- dependencies --------------------------------------------------------------------------------


def _dependencies(has: Graph, lacks: Graph) -> list[Mapping[str, str]]:
    """Those between what both reach, that only `has` has."""
    known = _known(lacks)
    edges = {
        (lacks.names[at], lacks.names[to])
        for at in lacks.target.values()
        for to, _ in lacks.out[at]
    }
    found = set()
    for address, at in has.target.items():
        if not has.reached(at) or address not in known:
            continue
        for to, kind in has.out[at]:
            name = has.names[to]
            if has.files[to] is None and name in known and (address, name) not in edges:
                found.add(Dependency(has.label(at), has.label(to), kind))
    return [_told(one) for one in sorted(found)]


def _told(dependency: Dependency) -> Mapping[str, str]:
    return {
        "from": dependency.before,
        "to": dependency.after,
        "reason": dependency.reason,
    }


# --- packages ------------------------------------------------------------------------------------


def _packages(before: Graph, after: Graph) -> list[dict[str, Any]]:
    old, new = _needed(before), _needed(after)
    told: list[dict[str, Any]] = []
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if was and now:
            # Without a lock file on both sides, what is asked for tells.
            same = was[0] == now[0] if was[0] and now[0] else was[1] == now[1]
            if same:
                continue
        last = now or was
        assert last is not None
        told.append(
            {
                "name": name,
                "before": was and (was[0] or was[1]),
                "after": now and (now[0] or now[1]),
                "needed_by": list(last[2]),
            }
        )
    return told


def _needed(graph: Graph) -> Mapping[str, tuple[Optional[str], str, tuple[str, ...]]]:
    """By distribution: the locked version, what is asked for, and who needs it."""
    pinned = {
        name: version for one in graph.artifact.requirements for name, version in one.versions
    }
    found: dict[str, tuple[Optional[str], str, tuple[str, ...]]] = {}
    for needed in graph.needed():
        name = distribution(needed.text) or needed.text
        _, text, by = found.get(name, (None, "", ()))
        texts = ", ".join(filter(None, (text, needed.text)))
        found[name] = pinned.get(name), texts, tuple(dict.fromkeys((*by, *needed.by)))
    return found


# --- images and settings -------------------------------------------------------------------------


def _layers(old: Sequence[LayerPart], new: Sequence[LayerPart]) -> list[dict[str, Any]]:
    """Those that only one side has; two for the same thing on one platform are one change."""
    gone = [one for one in old if one.digest not in {other.digest for other in new}]
    come = [one for one in new if one.digest not in {other.digest for other in old}]
    told = []
    for layer in come:
        subject = _subject(layer)
        was = next((one for one in gone if _subject(one) == subject), None)
        if was:
            gone.remove(was)
        told.append(_layer(was, layer))
    return [*told, *(_layer(layer, None) for layer in gone)]


def _subject(layer: LayerPart) -> tuple[str, str]:
    """What a layer is of, without a version or number: `numpy 2.0`, `12 smaller distributions`."""
    words = [word for word in layer.what.split() if not word[:1].isdigit()]
    return layer.platform, " ".join(words)


def _layer(old: Optional[LayerPart], new: Optional[LayerPart]) -> dict[str, Any]:
    one = new or old
    assert one is not None
    return {
        "platform": one.platform,
        "before": old and {"what": old.what, "digest": old.digest, "size": old.size},
        "after": new and {"what": new.what, "digest": new.digest, "size": new.size},
    }


def _settings(old: Mapping[str, str], new: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "before": old.get(name), "after": new.get(name)}
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
