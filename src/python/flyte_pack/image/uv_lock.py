"""Reads `uv.lock`: a universal lock file of a project, a workspace or a script, with its graph.

uv's documentation has no specification of it. It may have several versions of a distribution: for
other environments, which markers tell apart, and for extras and groups that conflict
(`[tool.uv] conflicts`). Which of these is meant shows only in the graph, from the projects on.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flyte_pack.errors import UserError
from flyte_pack.image.pins import (
    DIRECT,
    Choice,
    Collected,
    Lock,
    Pin,
    check_environments,
    check_python,
    checked,
    decided,
    holds,
    wheel_at,
)
from flyte_pack.image.wheel_target import WheelTarget

_FORMAT = 1
# What uv writes for "this extra, or group, is chosen", with the length of the project's name.
_CHOSEN = re.compile(r"extra\s*(?P<operator>==|!=)\s*'(?P<item>(extra|group|project)-\d+-[^']*)'")
_PROJECT = (
    "it is a project of the lock file's own: its code gets into an image by targets in "
    "`dependencies`"
)


@dataclass(frozen=True)
class _Item:
    """An extra or a group of a project, or all of it."""

    kind: str
    project: str
    name: str = ""

    @property
    def encoded(self) -> str:
        name = f"-{self.name}" if self.name else ""
        return f"{self.kind}-{len(self.project)}-{self.project}{name}"

    def __str__(self) -> str:
        name, of = (f" `{self.name}`", f" of {self.project}") if self.name else ("", self.project)
        return f"{self.kind}{name} {of.strip()}".strip()


@dataclass
class _Package:
    """root: a project that the lock file is for. dependencies: also by item, as uv writes them."""

    pin: Pin
    source: Mapping[str, Any]
    root: bool
    markers: Sequence[str]
    dependencies: Mapping[_Item | None, Sequence[Mapping[str, Any]]]


def read_uv_lock(document: Mapping[str, Any], target: WheelTarget, choice: Choice) -> Lock:
    if document.get("version", _FORMAT) != _FORMAT:
        raise UserError(
            f"the lock file is of version {document['version']!r:.20} of uv.lock, and {_FORMAT} "
            "is understood"
        )
    check_python(document.get("requires-python"), target)
    check_environments(document.get("supported-markers", ()), target)
    return _Reading(document, target, choice).lock()


class _Reading:
    def __init__(self, document: Mapping[str, Any], target: WheelTarget, choice: Choice) -> None:
        self._target = target
        self._known: dict[str, bool] = {}  # markers
        manifest = document.get("manifest", {})
        members = frozenset(map(canonicalize_name, manifest.get("members", ())))
        self._packages = [_package(p, members) for p in document.get("package", ())]
        self._by_name: dict[str, list[int]] = {}
        for number, package in enumerate(self._packages):
            self._by_name.setdefault(package.pin.name, []).append(number)
        self._packages.append(_manifest(manifest))
        self._conflicts = [
            {_item(member) for member in these} for these in document.get("conflicts", ())
        ]
        own = {item for p in self._packages if p.root for item in p.dependencies if item}
        self._items = own.union(*self._conflicts)
        choice.check_known(
            (item.name for item in self._items if item.kind == "extra"),
            (item.name for item in self._items if item.kind == "group"),
        )
        self._chosen = {
            item
            for item in self._items
            if (item.kind == "extra" and item.name in choice.extras)
            or (item.kind == "group" and item.name in choice.groups)
        }
        for these in self._conflicts:
            if len(both := sorted(map(str, these & self._chosen))) > 1:
                raise UserError(f"{' and '.join(both)} conflict in the lock file: choose one")

    def lock(self) -> Lock:
        first = self._collected({})
        if first.several():
            # What else could be chosen: each of the others, in place of those it conflicts with.
            others = sorted(self._items - self._chosen, key=str)
            beside = {item: self._beside(item) for item in others}
            first = self._collected(beside)
        lock = first.lock(has_graph=True)
        return replace(lock, pins={n: self._agreeing(p, lock.pins) for n, p in lock.pins.items()})

    def _collected(self, others: Mapping[_Item, set[_Item]]) -> Collected:
        collected = Collected(self._target)
        chosen = self._reached(self._chosen)
        reached = {item: self._reached(these) - chosen for item, these in others.items()}
        conflicting = [self._beside(item) for item in self._conflicting()]
        for number, package in enumerate(self._packages[:-1]):
            now = self._is_here(package, self._chosen)
            collected.add(
                replace(package.pin, requires=self._requires(package), extras=_extras(package)),
                here=now or any(self._is_here(package, these) for these in conflicting),
                rank=2 if number in chosen else int(now),
                of=[
                    str(item)
                    for item, these in others.items()
                    if number in reached[item] or (not now and self._is_here(package, these))
                ],
            )
        return collected

    def _conflicting(self) -> list[_Item]:
        return sorted(set().union(*self._conflicts), key=str)

    def _beside(self, item: _Item) -> set[_Item]:
        hostile = {other for these in self._conflicts if item in these for other in these}
        return (self._chosen - hostile) | {item}

    def _is_here(self, package: _Package, items: Iterable[_Item]) -> bool:
        return not package.markers or any(self._holds(m, items) for m in package.markers)

    def _decided(self, marker: str, items: Iterable[_Item]) -> str:
        encoded = {item.encoded for item in items}
        encoded |= {_Item("project", item.project).encoded for item in items}
        return decided(
            marker, _CHOSEN, lambda found: (found["item"] in encoded) == (found["operator"] == "==")
        )

    def _holds(self, marker: str, items: Iterable[_Item]) -> bool:
        marker = self._decided(marker, items)
        if marker not in self._known:
            self._known[marker] = holds(Marker(marker), self._target)
        return self._known[marker]

    def _reached(self, items: Iterable[_Item]) -> set[int]:
        """Positions of the packages that the projects need, with these extras and groups."""
        queue: list[tuple[int, _Item | None]] = [
            (number, item)
            for number, package in enumerate(self._packages)
            if package.root
            for item in package.dependencies
            if item is None or item in items
        ]
        seen: set[tuple[int, _Item | None]] = set()
        while queue:
            number, item = queue.pop()
            if (number, item) in seen:
                continue
            seen.add((number, item))
            for edge in self._packages[number].dependencies.get(item, ()):
                if "marker" in edge and not self._holds(edge["marker"], items):
                    continue
                name = canonicalize_name(edge["name"])
                extras = [_Item("extra", name, canonicalize_name(e)) for e in edge.get("extra", ())]
                queue += [(n, e) for n in self._needed(edge, items) for e in (None, *extras)]
        return {number for number, _ in seen}

    def _needed(self, edge: Mapping[str, Any], items: Iterable[_Item]) -> Iterator[int]:
        for number in self._by_name.get(canonicalize_name(edge["name"]), ()):
            package = self._packages[number]
            if (
                package.pin.version == str(edge.get("version", package.pin.version))
                and package.source == edge.get("source", package.source)
                and self._is_here(package, items)
            ):
                yield number

    def _requires(self, package: _Package) -> tuple[Requirement, ...]:
        requires = []
        for item, edges in package.dependencies.items():
            for edge in edges:
                markers = [self._decided(edge["marker"], self._chosen)] if "marker" in edge else []
                markers += [f"extra == '{item.name}'"] if item else []
                requires.append(_requirement(edge, markers))
        return tuple(requires)

    def _agreeing(self, pin: Pin, pins: Mapping[str, Pin]) -> Pin:
        """`pin`, with a problem if it needs another version of something than the one taken."""
        for requirement in pin.requires or ():
            other = pins.get(canonicalize_name(requirement.name))
            if pin.problem or other is None or not other.version:
                continue
            asked = [specifier.version for specifier in requirement.specifier]
            if other.version not in (asked or [other.version]) and holds(
                requirement.marker, self._target
            ):
                problem = (
                    f"it needs {other.name} {asked[0]}, and the lock file has {other} for the "
                    "extras and groups that are chosen: `lock_extras` and `lock_groups` of the "
                    "`flyte_image` choose others"
                )
                return replace(pin, problem=problem)
        return pin


def _requirement(edge: Mapping[str, Any], markers: Sequence[str]) -> Requirement:
    extras = f"[{','.join(edge['extra'])}]" if edge.get("extra") else ""
    version = f"==={edge['version']}" if "version" in edge else ""
    marker = f" ; {' and '.join(f'({m})' for m in markers)}" if markers else ""
    return Requirement(f"{edge['name']}{extras}{version}{marker}")


def _extras(package: _Package) -> frozenset[str]:
    return frozenset(item.name for item in package.dependencies if item and item.kind == "extra")


def _package(package: Mapping[str, Any], members: Container[str]) -> _Package:
    name, version = canonicalize_name(package["name"]), str(package.get("version", ""))
    source = package.get("source", {})
    problem = None
    if name in members or {"editable", "virtual"} & source.keys():
        problem = _PROJECT
    elif "registry" not in source and not wheel_at(str(source.get("path", ""))):
        problem = DIRECT
    sdist = package.get("sdist")
    files = [*package.get("wheels", ()), *([sdist] if sdist else ())]
    hashes, problem = checked((file["hash"] for file in files if "hash" in file), problem)
    return _Package(
        Pin(name, version, hashes, problem=problem),
        source,
        name in members or "." in (source.get("editable"), source.get("virtual")),
        package.get("resolution-markers", ()),
        {
            None: package.get("dependencies", ()),
            **_items("extra", name, package.get("optional-dependencies", {})),
            **_items("group", name, package.get("dev-dependencies", {})),
        },
    )


def _manifest(manifest: Mapping[str, Any]) -> _Package:
    """What a script, or a workspace that is no project, requires."""
    groups = _items("group", "", manifest.get("dependency-groups", {}))
    return _Package(
        Pin("", "", ()), {}, True, (), {None: manifest.get("requirements", ()), **groups}
    )


def _items(
    kind: str, project: str, these: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[_Item | None, Sequence[Mapping[str, Any]]]:
    return {_Item(kind, project, canonicalize_name(name)): edges for name, edges in these.items()}


def _item(member: Mapping[str, Any]) -> _Item:
    kind = next((kind for kind in ("extra", "group") if kind in member), "project")
    return _Item(
        kind, canonicalize_name(member["package"]), canonicalize_name(member.get(kind, ""))
    )
