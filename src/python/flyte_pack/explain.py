"""What ships, through which dependencies, and at what cost. Functions of values: a graph, files.

The graph of an artifact has two kinds of nodes: targets, and files. A target needs targets (an
import, or a declared dependency) and holds files. A module or resource needs the `__init__.py` of
each package above it: one with code brings what its target needs, an empty one only itself.
"""

from __future__ import annotations

import heapq
import os
import re
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple

from flyte_pack.locked import Locked
from flyte_pack.names import normalized

_NAME = re.compile(r"\s*([A-Za-z0-9][\w.-]*)")  # of a distribution: PEP 508
MOST_WAYS = 100  # that are told: there can be as many as there are paths in a net
HOLDS = "holds"  # from a target to its file: no step of a way
_CUT = ("declared", "imported")  # dependencies that a person can take away
NO_OWNER = "(no owner)"  # instead of the library of a file
_FREE, _SEVERAL = -1, -2  # reached without a direct dependency; by several


class Need(NamedTuple):
    """A dependency on the target `to`. kind: one of `flyte_pack.manifest.REASONS`."""

    to: str
    kind: str


class ShippedFile(NamedTuple):
    """A file that ships.

    path: where it goes. source: where it is in the repository. owner: the address of its target;
    None for a file that no target brings. beside: why that is in it (`all`, `copied`); None for an
    `__init__.py`. library: the target in the BUILD file that owns it. kind: module, resource
    or file. package_root: the directory that its packages start below, None where it is in none.
    alone: whether it is an `__init__.py` that brings nothing but itself. sha256: of its content.
    packed: bytes that it takes in the archive or layer, where that was packed.
    """

    path: str
    source: str
    size: int
    owner: Optional[str]
    library: Optional[str]
    kind: str
    package_root: Optional[str] = None
    alone: bool = False
    beside: Optional[str] = None
    sha256: Optional[str] = None
    executable: bool = False
    packed: Optional[int] = None


class InLayer(NamedTuple):
    """What a layer has of one distribution, Debian package or library.

    kind: `distribution`, `debian` or `library`; `other` for files of none, without a name. size,
    packed: bytes, on disk and in the layer.
    """

    kind: str
    name: str
    version: str
    files: int
    size: int
    packed: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip() or "other files"


class PackedLayer(NamedTuple):
    """A layer of an image that was built. what: for a person. packed: bytes of the blob.

    files, size: how many, and their bytes on disk; parts: the largest first. None for a layer of
    the base, which nobody looks into.
    """

    platform: str
    what: str
    digest: str
    packed: int
    files: Optional[int] = None
    size: Optional[int] = None
    parts: Optional[Tuple[InLayer, ...]] = None


class Requirement(NamedTuple):
    """Third-party requirements of one target, and the modules that they bring, as far as known.

    versions: those that a lock file pins, by normalized name of the distribution.
    """

    target: str
    texts: Tuple[str, ...]
    modules: Tuple[str, ...] = ()
    versions: Tuple[Tuple[str, str], ...] = ()

    def answers_to(self, asked: str) -> bool:
        """asked: a distribution, or a module of one, at any depth."""
        parts = asked.split(".")
        above = {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
        return not above.isdisjoint(self.modules) or normalized(asked) in self.distributions

    @property
    def distributions(self) -> Tuple[str, ...]:
        """Their normalized names."""
        return tuple(name for name in map(distribution, self.texts) if name)


def distribution(text: str) -> Optional[str]:
    """The normalized name of the distribution that a requirement asks for."""
    found = _NAME.match(text)
    return normalized(found[1]) if found else None


@dataclass(frozen=True)
class Artifact:
    """All that is known of an artifact.

    root: the address that was asked for. entries: the targets of its entry points, and tasks on the
    way to them. needs, libraries: by target. lock: what the lock file of its resolve tells.
    packed: bytes of the archive; layers: of an image, lowest first; None where it was not packed.
    """

    root: str
    entries: Tuple[str, ...]
    needs: Tuple[Tuple[str, Tuple[Need, ...]], ...]
    libraries: Tuple[Tuple[str, str], ...]
    files: Tuple[ShippedFile, ...]
    requirements: Tuple[Requirement, ...] = ()
    lock: Optional[Locked] = None
    packed: Optional[int] = None
    layers: Optional[Tuple[PackedLayer, ...]] = None


class Weight(NamedTuple):
    """Distributions as wheels. size: bytes, where it is known; unknown: of how many it is not."""

    distributions: int
    size: int
    unknown: int


class Step(NamedTuple):
    """A node on a way from the entry point, and how the one before it leads there.

    name: the path of a file in the repository, or an address.
    """

    name: str
    kind: str
    file: Optional[ShippedFile]


class Edge(NamedTuple):
    """Between nodes by their name, as a `Step` has it. kind: also `HOLDS`."""

    of: str
    to: str
    kind: str


class Total(NamedTuple):
    """Files of one library, or of one direct dependency; size in bytes.

    wheels: of its requirements and what they bring; None where the lock file has no sizes.
    packed: bytes in the archive or layer; None where that was not packed.
    """

    name: str
    files: int
    size: int
    requirements: Tuple[str, ...] = ()
    wheels: Optional[Weight] = None
    packed: Optional[int] = None


class Needed(NamedTuple):
    """A requirement, and the modules whose targets need it; the first is on a shortest way.

    wheels: of it and what it brings; None where the lock file has no sizes.
    """

    text: str
    target: str
    by: Tuple[str, ...]
    wheels: Optional[Weight] = None


class Graph:
    """The graph of a artifact, with a shortest way to each of its nodes.

    The shortest way has as few steps to a package as it can, since an import says more of why a
    file is there; then as few steps as it can.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.names: list[str] = []
        self.files: list[Optional[ShippedFile]] = []
        self.out: list[list[tuple[int, str]]] = []
        self.target: dict[str, int] = {}
        self._of_source: dict[str, list[int]] = {}
        self.requirements = {r.target: r.texts for r in artifact.requirements}
        self._add_all()
        self._cost, self._before = self._shortest()

    # --- making it ---

    def _node(self, name: str, file: Optional[ShippedFile]) -> int:
        self.names.append(name)
        self.files.append(file)
        self.out.append([])
        return len(self.names) - 1

    def _target(self, address: str) -> int:
        if address not in self.target:
            self.target[address] = self._node(address, None)
        return self.target[address]

    def _add_all(self) -> None:
        artifact = self.artifact
        self._target(artifact.root)
        sources = {file.owner: file.source for file in artifact.files if file.owner is not None}
        for address, needs in artifact.needs:
            at = self._target(address)
            for to, kind in needs:
                if kind == "imported" and _is_package(sources.get(to), sources.get(address)):
                    kind = "package"
                self.out[at].append((self._target(to), kind))
        for file in artifact.files:
            node = self._node(file.source, file)
            self._of_source.setdefault(file.source, []).append(node)
            if file.owner is not None and file.owner in self.target:
                self.out[self.target[file.owner]].append((node, HOLDS))
            elif file.beside is not None:
                self.out[0].append((node, file.beside))
        innermost: dict[tuple[str, str], tuple[int, ...]] = {}
        for source, nodes in self._of_source.items():
            for node in nodes:
                root = _known(self.files[node]).package_root
                if root is not None:
                    found = self._package_above(source, root, innermost)
                    self.out[node].extend((package, "package") for package in found)

    def _package_above(
        self, source: str, root: str, innermost: dict[tuple[str, str], tuple[int, ...]]
    ) -> tuple[int, ...]:
        """What stands for the innermost package above a file; that needs the next one itself.

        innermost: what is known of directories by now.
        """
        directory, name = os.path.split(source)
        if name == "__init__.py" and directory != root:
            directory = os.path.dirname(directory)
        passed = []
        found: tuple[int, ...] = ()
        while directory not in (root, ""):
            if (directory, root) in innermost:
                found = innermost[directory, root]
                break
            passed.append(directory)
            inits = self._of_source.get(os.path.join(directory, "__init__.py"))
            if inits:
                found = tuple(self._stands_for(init) for init in inits)
                break
            directory = os.path.dirname(directory)
        innermost.update({(one, root): found for one in passed})
        return found

    def _stands_for(self, init: int) -> int:
        file = _known(self.files[init])
        if file.alone or file.owner is None:
            return init
        return self.target.get(file.owner, init)

    # --- ways ---

    def _shortest(self) -> tuple[list[Optional[tuple[int, int]]], list[list[tuple[int, str]]]]:
        """The cost of each node, and what leads to it on the shortest ways, by which reason."""
        cost: list[Optional[tuple[int, int]]] = [None] * len(self.names)
        before: list[list[tuple[int, str]]] = [[] for _ in self.names]
        cost[0] = (0, 0)
        waiting = [((0, 0), 0)]
        done = [False] * len(self.names)
        while waiting:
            at_cost, at = heapq.heappop(waiting)
            if done[at]:
                continue
            done[at] = True
            of_file = self.files[at] is not None
            for to, kind in self.out[at]:
                packages, steps = at_cost
                # Only a file leads to a package by itself; Pants infers other steps from imports.
                new = (packages + of_file, steps + (kind != HOLDS))
                old = cost[to]
                if old is None or new < old:
                    cost[to] = new
                    before[to] = [(at, kind)]
                    heapq.heappush(waiting, (new, to))
                elif new == old and not done[to]:
                    before[to].append((at, kind))
        return cost, before

    def reached(self, node: int) -> bool:
        return self._cost[node] is not None

    def parent(self, node: int) -> tuple[int, str]:
        """The node before it on a shortest way, and how that leads to it."""
        return self._before[node][0]

    def chain(self, node: int) -> Tuple[tuple[int, str], ...]:
        """The nodes of a shortest way, from the root's neighbour on, each with what leads to it."""
        found = []
        while node != 0:
            before, kind = self.parent(node)
            found.append((node, kind))
            node = before
        return tuple(reversed(found))

    def ways_to(self, node: int) -> Iterator[Tuple[Step, ...]]:
        """All shortest ways to a node, from the entry point on."""
        waiting: list[tuple[int, tuple[tuple[int, str], ...]]] = [(node, ())]
        while waiting:
            at, after = waiting.pop()
            if at == 0:
                yield self._steps(after)
                continue
            waiting.extend(
                (before, ((at, kind), *after)) for before, kind in reversed(self._before[at])
            )

    def _steps(self, nodes: Sequence[tuple[int, str]]) -> Tuple[Step, ...]:
        """A target and the file of it are one step, and so are a file and what stands for it."""
        steps: list[Step] = []
        for at, kind in nodes:
            file = self.files[at]
            if kind == HOLDS and steps and steps[-1].file is None:
                steps[-1] = Step(_known(file).source, steps[-1].kind, file)
            else:
                why = "entry_point" if self.is_entry(at) else kind
                steps.append(Step(self.label(at), why, file))
        return tuple(steps)

    def is_entry(self, node: int) -> bool:
        return self.files[node] is None and self.names[node] in self.artifact.entries

    def find(self, asked: str) -> Tuple[int, ...]:
        """What an artifact has of that name: a path in the repository or the artifact, a module, a
        distribution, or the address of a target of these, or of the one that generates that.
        """
        directory, _, name = asked.rpartition(":")
        short = directory if name == os.path.basename(directory) else asked
        files = [
            node
            for node, file in self.file_nodes()
            if asked in (file.source, file.path, file.owner, _module(file))
            or (":" in asked and file.library in (asked, short))
        ]
        libraries = dict(self.artifact.libraries)
        required = [
            self.target[requirement.target]
            for requirement in self.artifact.requirements
            if not files
            and (
                requirement.answers_to(asked)
                or asked == requirement.target
                or libraries.get(requirement.target) in (asked, short)
            )
        ]
        return tuple(node for node in (*files, *required) if self.reached(node))

    def _only_file(self, target: int) -> Optional[ShippedFile]:
        held = [self.files[to] for to, kind in self.out[target] if kind == HOLDS]
        return held[0] if len(held) == 1 else None

    def label(self, node: int) -> str:
        """A target by its only file, if it has one."""
        only = None if self.files[node] else self._only_file(node)
        return only.source if only else self.names[node]

    def edges(self) -> Tuple[Edge, ...]:
        """All that is reached, each edge once. A target and its only file are one node."""
        labels = [self.label(node) for node in range(len(self.names))]
        edges = dict.fromkeys(
            Edge(labels[at], labels[to], "entry_point" if self.is_entry(to) and not at else kind)
            for at, needs in enumerate(self.out)
            if self.reached(at)
            for to, kind in needs
            if labels[at] != labels[to]
        )
        return tuple(edges)

    def file_nodes(self) -> Iterator[tuple[int, ShippedFile]]:
        for node, file in enumerate(self.files):
            if file is not None:
                yield node, file

    # --- cost ---

    def direct(self) -> Mapping[int, str]:
        """What each direct dependency of the entry points is counted under: its library; or its own
        address, where an entry point is of the same library.

        Where there is no entry point, or it is one of several roots, these roots are meant.
        """
        libraries = dict(self.artifact.libraries)
        own = {libraries.get(entry) for entry in self.artifact.entries}
        starts = self._starts()
        direct = {}
        for start in starts:
            for to, kind in self.out[start]:
                name = self.names[to]
                if to not in starts and kind in _CUT and name not in self.requirements:
                    library = libraries.get(name, name)
                    direct[to] = self.label(to) if library in own else library
        return direct

    def _starts(self) -> set[int]:
        return {0, *(self.target[entry] for entry in self.artifact.entries)}

    def exclusive(self) -> Tuple[Total, ...]:
        """For each direct dependency, what would not ship without it; the largest first.

        No file or distribution counts twice, so their sum is at most the whole.
        """
        totals = []
        for name, nodes in self.brought().items():
            targets = {self.names[node] for node in nodes} & self.requirements.keys()
            totals.append(
                Total(
                    name,
                    sum(self.files[node] is not None for node in nodes),
                    sum(file.size for file in map(self.files.__getitem__, nodes) if file),
                    tuple(sorted({text for one in targets for text in self.requirements[one]})),
                    self._weight(
                        self._distributions()
                        - self._distributions(self.requirements.keys() - targets)
                    )
                    if targets
                    else None,
                    packed_size(file for file in map(self.files.__getitem__, nodes) if file),
                )
            )
        return _largest_first(totals)

    def wheels(self) -> Optional[Weight]:
        """Of all that is required; None where the lock file has no sizes."""
        return self._weight(self._distributions())

    def _distributions(self, targets: Optional[Collection[str]] = None) -> frozenset[str]:
        """Normalized names of what these targets (by default all) require, and what that brings."""
        lock = self.artifact.lock
        asked = [
            name
            for one in self.artifact.requirements
            if targets is None or one.target in targets
            for name in one.distributions
        ]
        return frozenset(asked) if lock is None else lock.reached(asked)

    def _weight(self, names: Collection[str]) -> Optional[Weight]:
        lock = self.artifact.lock
        if lock is None or not lock.sizes or not names:
            return None
        known = [lock.sizes[name] for name in names if name in lock.sizes]
        return Weight(len(names), sum(known), len(names) - len(known))

    def brought(self) -> Mapping[str, Sequence[int]]:
        """The nodes that only one direct dependency brings, by what `direct` calls that."""
        direct = self.direct()
        starts = self._starts()
        # What the entry points reach by other ways is free. Whatever is not free is reached from a
        # free node through a direct dependency, and is lost without it if all its ways start so.
        color: dict[int, int] = dict.fromkeys(starts, _FREE)
        names = sorted(set(direct.values()))
        number = {name: at for at, name in enumerate(names)}
        waiting = deque(sorted(starts))
        while waiting:
            at = waiting.popleft()
            for to, kind in self.out[at]:
                cut = at in starts and to in direct and kind in _CUT
                if not cut and to not in color:
                    color[to] = _FREE
                    waiting.append(to)
        # From a free node that is no start, a direct dependency is free: no way is cut there.
        for to, name in direct.items():
            if to not in color:
                color[to] = number[name]
                waiting.append(to)
        while waiting:
            at = waiting.popleft()
            for to, _ in self.out[at]:
                known = color.get(to)
                if known in (_FREE, _SEVERAL) or known == color[at]:
                    continue
                color[to] = color[at] if known is None else _SEVERAL
                waiting.append(to)
        return {
            name: [node for node, of in color.items() if of == at] for name, at in number.items()
        }

    def by_library(self) -> Tuple[Total, ...]:
        return self._by(lambda file: file.library or NO_OWNER)

    def by_folder(self) -> Tuple[Total, ...]:
        return self._by(lambda file: file.path.partition("/")[0])

    def _by(self, group: Callable[[ShippedFile], str]) -> Tuple[Total, ...]:
        groups: dict[str, list[ShippedFile]] = defaultdict(list)
        for file in self.artifact.files:
            groups[group(file)].append(file)
        return _largest_first(
            Total(name, len(files), sum(file.size for file in files), packed=packed_size(files))
            for name, files in groups.items()
        )

    def needed(self) -> Tuple[Needed, ...]:
        """The requirements, with the modules that need them."""
        by: dict[int, list[int]] = defaultdict(list)
        wanted = {self.target[r.target] for r in self.artifact.requirements}
        for at, needs in enumerate(self.out):
            if at not in wanted:  # one list of requirements may bring another
                for to in {to for to, _ in needs if to in wanted}:
                    by[to].append(at)
        found = []
        for target, texts in self.requirements.items():
            node = self.target[target]
            closest = sorted(by[node], key=lambda at: (self._cost[at] or (0, 0), self.names[at]))
            names = tuple(self.label(at) for at in closest)
            for text in texts:
                own = distribution(text)
                lock = self.artifact.lock
                brings = lock.reached([own]) if lock and own else ()
                found.append(Needed(text, target, names, self._weight(brings)))
        return tuple(sorted(found))


def packed_size(files: Iterable[ShippedFile]) -> Optional[int]:
    """Of all of them in the archive or layer; None if they were not packed."""
    sizes = [file.packed for file in files]
    known = [size for size in sizes if size is not None]
    return sum(known) if known or not sizes else None


def _module(file: ShippedFile) -> Optional[str]:
    if file.kind != "module":
        return None
    name = file.path[: -len(".py")].replace("/", ".")
    return name[: -len(".__init__")] if name.endswith(".__init__") else name


def _known(file: Optional[ShippedFile]) -> ShippedFile:
    assert file is not None
    return file


def _is_package(package: Optional[str], module: Optional[str]) -> bool:
    """Whether `package` is the `__init__.py` of a directory above `module`."""
    if package is None or module is None or os.path.basename(package) != "__init__.py":
        return False
    return module.startswith(os.path.dirname(package) + "/")


def _largest_first(totals: Iterable[Total]) -> Tuple[Total, ...]:
    return tuple(sorted(totals, key=lambda total: (-total.size, -total.files, total.name)))
