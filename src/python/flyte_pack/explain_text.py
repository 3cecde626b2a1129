"""An explanation for a person to read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Optional

from flyte_pack.explain import (
    HOLDS,
    MOST_WAYS,
    NO_OWNER,
    Artifact,
    Graph,
    PackedLayer,
    ShippedFile,
    Step,
    Total,
    Weight,
    distribution,
    packed_size,
)
from flyte_pack.names import normalized
from flyte_pack.progress import megabytes
from flyte_shim import shown

_WIDEST = 64  # columns of a name; what is longer moves the rest of its line
_DEEPEST = 24  # levels that are indented
_BLAMED = 3
_MODULES = 2  # how many modules that need a requirement are named before they are only counted


def text(what: str, graph: Graph) -> str:
    """what: says what the artifact is, after its address."""
    artifact = graph.artifact
    files = artifact.files
    holds = f" of {counted(len(files), _size(files))}" if files else ", with no files of its own"
    lines = [f"{artifact.root}: {what}{holds}{_packed(artifact.packed, ', packed ')}"]
    if files:
        lines += ["", "Each file below the one that brings it:", *_tree(graph)]
    if artifact.requirements:
        lines += ["", f"Third-party requirements{_sized(graph)}:", *_requirements(graph)]
    lines += _totals(graph)
    lines += _layers(artifact.layers or ())
    return "".join(f"{shown.printable(line).rstrip()}\n" for line in lines)


def summary(address: str, graphs: Sequence[Graph]) -> str:
    """A deployment: each bundle counts once, and so does a file of several bundles."""
    artifacts = {graph.artifact.root: graph.artifact for graph in graphs}.values()
    files = {file.source: file.size for artifact in artifacts for file in artifact.files}
    lines = [f"{address}: a deployment of {counted(len(files), sum(files.values()))}"]
    for artifact in artifacts:
        about = counted(len(artifact.files), _size(artifact.files))
        lines.append(f"  {artifact.root}: {about}{_packed(artifact.packed, ', packed ')}")
    return "".join(f"{shown.printable(line)}\n" for line in lines)


def why(graph: Graph, asked: str, every: bool) -> str:
    """The shortest ways to what was asked for; "" where it is not there. every: whether all."""
    artifact = graph.artifact
    lines = []
    for node in graph.find(asked):
        file = graph.files[node]
        size = (
            f" ({megabytes(file.size)}{_packed(file.packed, ', packed ')}{_moved(file)})"
            if file
            else ""
        )
        texts = graph.requirements.get(graph.names[node])
        what = f"needs {', '.join(texts)}" if texts else f"ships {graph.label(node)}{size}"
        lines.append(f"{artifact.root} {what}:")
        ways = list(islice(graph.ways_to(node), MOST_WAYS + 1))
        told = ways[:MOST_WAYS] if every else ways[:1]
        lines += [f"  {way(steps)}" for steps in told]
        lines += _holding(artifact, [name for name in map(distribution, texts or ()) if name])
        if len(ways) > len(told):
            more = f"{len(ways) - len(told):,} more" if len(ways) <= MOST_WAYS else "many more"
            lines.append(f"  and {more} as short{'' if every else ': `--all`'}")
    return "".join(f"{shown.printable(line)}\n" for line in lines)


def why_brought(graph: Graph, names: Sequence[str], target: str, version: str) -> str:
    """What a distribution is there for that only other distributions need. names: from the one that
    `target` requires to that. version: "" if it is not known.
    """
    asked = f"{names[-1]} {version}".rstrip()
    (steps,) = islice(graph.ways_to(graph.target[target]), 1)
    before = " -> ".join([*(step.name for step in steps), *names[1:-1]])
    lines = [
        f"{graph.artifact.root} needs {asked}:",
        f"  {before} -> {names[-1]} [required by {names[-2]}, as the lock file says]",
        *_holding(graph.artifact, names[-1:]),
    ]
    return "".join(f"{shown.printable(line)}\n" for line in lines)


def why_held(graph: Graph, asked: str) -> str:
    """For a distribution that a layer has, where nothing says who needs it; else ""."""
    lines = _holding(graph.artifact, [normalized(asked)])
    if lines:
        nobody = "neither the code nor the lock file says who needs it"
        lines.insert(0, f"{graph.artifact.root} has {asked}; {nobody}:")
    return "".join(f"{shown.printable(line)}\n" for line in lines)


def _holding(artifact: Artifact, names: Collection[str]) -> list[str]:
    """The layers that have distributions. names: normalized."""
    return [
        f"  {part} is in the layer `{layer.what}` on {layer.platform}: {megabytes(part.size)}, "
        f"packed {megabytes(part.packed)}"
        for layer in artifact.layers or ()
        for part in layer.parts or ()
        if part.kind == "distribution" and part.name in names
    ]


def blame(graph: Graph, *, by_size: bool) -> list[str]:
    """The three direct dependencies, or other single files, that weigh most, with ways to them."""
    files = dict(graph.file_nodes())
    groups = [
        (name, [node for node in nodes if node in files])
        for name, nodes in graph.brought().items()
    ]  # fmt: skip
    grouped = {node for _, nodes in groups for node in nodes}
    groups += [("", [node]) for node in files if node not in grouped]
    weighed = [
        ((size, len(nodes)) if by_size else (len(nodes), size), name, nodes)
        for name, nodes in groups
        if nodes
        for size in [_size(files[node] for node in nodes)]
    ]
    lines = []
    for _, name, nodes in sorted(weighed, reverse=True)[:_BLAMED]:
        largest = max(nodes, key=lambda node: files[node].size)
        about = f"{counted(len(nodes), _size(files[node] for node in nodes))}"
        only = f", only by `{name}`" if name else ""
        lines.append(f"{about}{only}: {way(next(graph.ways_to(largest)))}")
    return lines


def _size(files: Iterable[ShippedFile]) -> int:
    return sum(file.size for file in files)


def counted(files: int, size: int) -> str:
    return f"{files:,} file{_s(files)}, {megabytes(size)}"


def way(steps: Sequence[Step]) -> str:
    """`services/ml/workflows.py -> libs/limits/limits.json [resource, declared]`"""
    last = steps[-1]
    words = [last.file.kind] if last.file else []
    return f"{' -> '.join(step.name for step in steps)} [{', '.join([*words, said(last.kind)])}]"


def said(kind: str) -> str:
    return _SAID.get(kind, kind)


_SAID = {
    "all": 'copy_style="all"',
    "copied": "copied by a field of the image",
    "entry_point": "entry point",
    "package": "package above",
}


def _tree(graph: Graph) -> list[str]:
    """The files by the tree of shortest ways."""
    rows = [
        ("  " * min(depth, _DEEPEST) + step.name, step)
        for depth, step in branches(graph)
    ]  # fmt: skip
    width = min(_WIDEST, max(len(name) for name, _ in rows))
    packed = packed_size(graph.artifact.files) is not None
    lines = _heads(width) if packed else []
    for name, (_, kind, file) in rows:
        about = f"{file.kind}, {said(kind)}" if file else said(kind)
        sizes = _sizes(file.size, file.packed, packed) if file else _sizes(None, None, packed)
        lines.append(f"  {name:<{width}}  {sizes}  [{about}]  {_place(file)}")
    return lines


def _heads(width: int) -> list[str]:
    """Above columns of sizes, behind a name of this width."""
    return [f"  {'':<{width}}  {'on disk':>9}  {'packed':>9}"]


def _sizes(size: Optional[int], packed: Optional[int], both: bool) -> str:
    sizes = [size, packed] if both else [size]
    return "  ".join(f"{'' if one is None else megabytes(one):>9}" for one in sizes)


def _packed(size: Optional[int], before: str, after: str = "") -> str:
    return "" if size is None else f"{before}{megabytes(size)}{after}"


def _place(file: Optional[ShippedFile]) -> str:
    if file is None:
        return ""
    return f"{file.library or NO_OWNER} {_moved(file)}"


def _moved(file: ShippedFile) -> str:
    return f" as {file.path}" if file.path != file.source else ""


def branches(graph: Graph) -> Iterator[tuple[int, Step]]:
    """Each file once, and the targets without one file that ways lead through, with their depth."""
    below: dict[int, list[int]] = defaultdict(list)
    seen = {0}
    for node, _ in graph.file_nodes():
        at = node
        while at not in seen and graph.reached(at):
            seen.add(at)
            before, _ = graph.parent(at)
            below[before].append(at)
            at = before
    waiting = [(child, 0) for child in _in_order(graph, below[0])]
    while waiting:
        node, depth = waiting.pop()
        file, kind = graph.files[node], graph.parent(node)[1]
        held = [child for child in below[node] if graph.parent(child)[1] == HOLDS]
        children = list(below[node])
        if len(held) == 1:
            file = graph.files[held[0]]
            children.remove(held[0])
            children += below[held[0]]
        kind = "entry_point" if graph.is_entry(node) else kind
        yield depth, Step(file.source if file else graph.names[node], kind, file)
        waiting += [(child, depth + 1) for child in _in_order(graph, children)]


def _in_order(graph: Graph, nodes: Iterable[int]) -> list[int]:
    """The last comes first, as they wait."""
    return sorted(nodes, key=lambda node: (graph.files[node] is not None, graph.label(node)))[::-1]


def _requirements(graph: Graph) -> list[str]:
    needed = graph.needed()
    versions = {r.target: dict(r.versions) for r in graph.artifact.requirements}
    texts = [_with_version(one.text, versions[one.target]) for one in needed]
    width = min(_WIDEST, max(map(len, texts)))
    with_sizes = any(one.wheels for one in needed)
    lines = []
    for one, wanted in zip(needed, texts):
        named, others = one.by[:_MODULES], len(one.by) - _MODULES
        more = f" and {others:,} more" if others > 0 else ""
        size = f"  {wheels(one.wheels):>9}" if with_sizes else ""
        lines.append(
            f"  {wanted:<{width}}{size}  needed by {', '.join(named)}{more}  ({one.target})"
        )
    return lines


def _sized(graph: Graph) -> str:
    """What they weigh with all that they bring, as far as the lock file says; "" if it does not."""
    weight = graph.wheels()
    if weight is None:
        return ""
    plural = "" if weight.distributions == 1 else "s"
    return f", {weight.distributions:,} distribution{plural}, {wheels(weight, ' as wheels')}"


def wheels(weight: Optional[Weight], what: str = "") -> str:
    """what: stands behind the size."""
    if weight is None or weight.unknown == weight.distributions:
        return "unknown"
    more = f", {weight.unknown:,} unknown" if weight.unknown else ""
    return f"{megabytes(weight.size)}{what}{more}"


def _with_version(text: str, versions: Mapping[str, str]) -> str:
    """A requirement, with the version of the lock file, if it does not say that itself."""
    version = versions.get(distribution(text) or "")
    return text if version is None or version in text else f"{text} ({version})"


def _totals(graph: Graph) -> list[str]:
    lines = []
    if graph.artifact.files:
        lines += ["", "By top folder:", *_table(graph.by_folder())]
        lines += ["", "By the target that owns them:", *_table(graph.by_library())]
    exclusive = [total for total in graph.exclusive() if total.files or total.requirements]
    if exclusive:
        lines += ["", "What only one direct dependency of the entry point brings:"]
        for name, files, size, requirements, weight, packed in exclusive:
            less = _packed(packed, " (packed ", ")")
            saved = [f"{megabytes(size)}{less} in {files:,} file{_s(files)}"] * bool(files)
            of_wheels = f" ({wheels(weight, ' as wheels')})" if weight else ""
            saved += [f"the need of {', '.join(requirements)}{of_wheels}"] * bool(requirements)
            lines.append(f"  dropping `{name}` saves {', and '.join(saved)}")
    return lines


def _table(totals: Sequence[Total]) -> list[str]:
    width = min(_WIDEST, max(len(total.name) for total in totals))
    both = any(total.packed is not None for total in totals)
    rows = [
        f"  {one.name:<{width}}  {_sizes(one.size, one.packed, both)}  "
        f"{one.files:>6,} file{_s(one.files)}"
        for one in totals
    ]
    return [*(_heads(width) if both else ()), *rows]


def _layers(layers: Sequence[PackedLayer]) -> list[str]:
    """By platform, lowest first, each with what it holds, the largest first."""
    lines = []
    for platform in dict.fromkeys(layer.platform for layer in layers):
        here = [layer for layer in layers if layer.platform == platform]
        rows = [row for layer in here for row in _layer(layer)]
        width = min(_WIDEST, max(len(name) for name, *_ in rows))
        total = megabytes(sum(layer.packed for layer in here))
        lines += ["", f"Layers on {platform}, packed {total}, the lowest first:", *_heads(width)]
        for name, size, packed, files in rows:
            count = "" if files is None else f"  {files:>6,} file{_s(files)}"
            lines.append(f"  {name:<{width}}  {_sizes(size, packed, True)}{count}")
    return lines


def _layer(layer: PackedLayer) -> list[tuple[str, Optional[int], int, Optional[int]]]:
    """For each line a name, the sizes on disk and packed, and how many files."""
    parts = list(layer.parts or ())
    named = [part for part in parts if part.name]
    if len(named) == 1 and layer.what.partition(",")[0] == str(named[0]):
        parts = [part for part in parts if part not in named]
    elif not named:
        parts = []
    return [
        (layer.what, layer.size, layer.packed, layer.files),
        *((f"  {part}", part.size, part.packed, part.files) for part in parts),
    ]


def _s(count: int) -> str:
    return "" if count == 1 else "s"
