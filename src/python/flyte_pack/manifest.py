"""The manifest of a bundle: what is in it, who owns each file, and why it is there.

It is JSON (UTF-8, sorted keys, one file or target a line), written beside the archive. Equal
manifests have equal bytes. Reading is strict: what `Manifest.from_json` accepts is a listing that
its content hash covers, and a graph whose numbers name what is there.

Schema 2 has the graph. Manifests of schema 1 are in stores for good; they are read, and written as
they were.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from json.encoder import encode_basestring
from operator import itemgetter
from typing import Annotated, Any, NamedTuple, Optional, Tuple

from flyte_pack.json_fields import OBJECT, Document, InvalidData, Raw, Sha256, one_of, safe_path
from flyte_shim.hashing import content_hash

REASONS = ("all", "declared", "entry_point", "imported", "package")
Reason = Annotated[str, one_of(*REASONS)]
KINDS = ("file", "module", "resource")
FileKind = Annotated[str, one_of(*KINDS)]
BundleCopyStyle = Annotated[str, one_of("all", "auto")]


def _root_dir(text: str) -> str:
    return text if text == "." else safe_path(text)


@dataclass(frozen=True)
class EntryPoint:
    """Where a bundle is entered: `module`, an attribute of it or None, its file, its target."""

    module: str
    name: Optional[str]
    path: str
    target: str


class ManifestFile(NamedTuple):
    """One file: its path in the bundle, size in bytes, mode, hash, and why it is there.

    A named tuple, because a manifest has tens of thousands and the packer makes them all at once.

    `owner` is the address of the target that owns it, None for a file that no target owns.
    `reason` is one of `REASONS`; `by` is the address of the target that caused it (the importer,
    say), None where nothing but the bundle itself did.

    The rest is there where the manifest has a graph. `package_root`: the directory in the
    repository that its packages start below, None where it is in none. `alone`: whether it is an
    `__init__.py` that brings nothing but itself. `source`: its path in the repository, where that
    is not as `source_of` has it.
    """

    path: Annotated[Raw, safe_path]
    size: int
    mode: Annotated[int, one_of(0o644, 0o755)]
    sha256: Sha256
    owner: Optional[Raw]
    reason: Reason
    by: Optional[Raw]
    kind: Optional[str] = None
    package_root: Optional[str] = None
    alone: bool = False
    source: Optional[str] = None


def source_of(path: str, package_root: str | None, root_dir: str | None) -> str:
    """Where a file of a bundle is in the repository, if nothing else says it."""
    root = package_root if root_dir is None else root_dir
    return path if root in (None, "", ".") else f"{root}/{path}"


class GraphTarget(NamedTuple):
    """A target that the bundle reaches. library: the number of the target in a BUILD file that it
    was generated from; imported, declared: the numbers of the targets that it needs.
    """

    address: Raw
    library: int
    imported: Tuple[int, ...]
    declared: Tuple[int, ...]


class GraphRequirement(NamedTuple):
    """What the target of that number requires. modules: that it brings, as far as known.

    versions: those that the lock file pins, by normalized name of the distribution.
    """

    target: int
    texts: Tuple[Raw, ...]
    modules: Tuple[Raw, ...]
    versions: Tuple[Tuple[Raw, Raw], ...]


@dataclass(frozen=True)
class ManifestGraph:
    """Who needs what. Targets and libraries have their places in these lists as numbers.

    root: what was packed. entries: the targets of its entry points, and tasks on the way to them.
    targets: sorted by address, as all that is sorted here. requirements: of targets that have some.
    """

    root: int
    entries: Tuple[int, ...]
    libraries: Tuple[Raw, ...]
    targets: Tuple[GraphTarget, ...]
    requirements: Tuple[GraphRequirement, ...]

    def check(self) -> None:
        """Raises `InvalidData` if a number names nothing, or an order is another."""
        most = len(self.targets)
        if not 0 <= self.root < most:
            raise InvalidData("manifest: root: names no target")
        lists = [self.entries, tuple(map(itemgetter(0), self.requirements))]
        for target in self.targets:
            lists += target.imported, target.declared
            if not 0 <= target.library < len(self.libraries):
                raise InvalidData("manifest: targets: a library that is not there")
        for numbers in lists:
            if numbers and (numbers[0] < 0 or numbers[-1] >= most or not _ascends(numbers)):
                raise InvalidData("manifest: targets are not sorted, or one is not there")
        addresses = tuple(target.address for target in self.targets)
        if not (_ascends(addresses) and _ascends(self.libraries)):
            raise InvalidData(
                "manifest: targets or libraries are not sorted, or one is there twice"
            )


@dataclass(frozen=True)
class BundleHashes:
    """What an archive and its manifest are; sizes are in bytes."""

    content_hash: Sha256
    archive_hash: Sha256
    archive_size: int
    manifest_hash: Sha256
    manifest_size: int

    @property
    def hashes(self) -> dict[str, Any]:
        """These fields, without those of a subclass."""
        return {field.name: getattr(self, field.name) for field in fields(BundleHashes)}


class _File1(NamedTuple):
    """A line of schema 1."""

    path: Annotated[Raw, safe_path]
    size: int
    mode: Annotated[int, one_of(0o644, 0o755)]
    sha256: Sha256
    owner: Optional[Raw]
    reason: Reason
    by: Optional[Raw]


class _File2(NamedTuple):
    """A line of schema 2. owner, by: numbers of targets. root: of a package root."""

    path: Annotated[Raw, safe_path]
    size: int
    mode: Annotated[int, one_of(0o644, 0o755)]
    sha256: Sha256
    owner: Optional[int]
    reason: Reason
    by: Optional[int]
    kind: FileKind
    root: Optional[int]


@dataclass(frozen=True)
class _Manifest1(Document):
    NAME = "manifest"

    copy_style: BundleCopyStyle
    root_dir: Optional[Annotated[str, _root_dir]]
    entry_points: Tuple[EntryPoint, ...]
    files: Tuple[Annotated[_File1, OBJECT], ...]
    content_hash: Sha256
    archive_hash: Sha256
    archive_size: int


@dataclass(frozen=True)
class _Manifest2(Document):
    """alone: numbers of files. sources: of the few files that have one."""

    NAME = "manifest"
    SCHEMA = 2
    OLDER = {1: _Manifest1}

    copy_style: BundleCopyStyle
    root_dir: Optional[Annotated[str, _root_dir]]
    entry_points: Tuple[EntryPoint, ...]
    files: Tuple[Annotated[_File2, OBJECT], ...]
    content_hash: Sha256
    archive_hash: Sha256
    archive_size: int
    alone: Tuple[int, ...]
    sources: Tuple[Tuple[int, Annotated[Raw, safe_path]], ...]
    root: int
    entries: Tuple[int, ...]
    libraries: Tuple[Raw, ...]
    package_roots: Tuple[Raw, ...]
    requirements: Tuple[GraphRequirement, ...]
    targets: Tuple[GraphTarget, ...]


@dataclass(frozen=True)
class Manifest:
    """A whole manifest; `files` are sorted by the UTF-8 bytes of their paths.

    `root_dir` is relative to the build root, which is "."; None where source roots were stripped.
    `graph` is None in schema 1.
    """

    copy_style: str
    root_dir: Optional[str]
    entry_points: Tuple[EntryPoint, ...]
    files: Tuple[ManifestFile, ...]
    content_hash: Sha256
    archive_hash: Sha256
    archive_size: int
    graph: Optional[ManifestGraph] = None

    @property
    def schema(self) -> int:
        return 1 if self.graph is None else _Manifest2.SCHEMA

    def to_json(self) -> bytes:
        """The canonical bytes, ending in a newline."""
        encode = json.JSONEncoder(
            ensure_ascii=False, sort_keys=True, separators=(", ", ": "), allow_nan=False
        ).encode
        values = {
            "archive_hash": encode(self.archive_hash),
            "archive_size": encode(self.archive_size),
            "content_hash": encode(self.content_hash),
            "copy_style": encode(self.copy_style),
            "entry_points": _lines(encode(vars(point)) for point in self.entry_points),
            "root_dir": encode(self.root_dir),
            "schema": encode(self.schema),
        }
        if self.graph is None:
            values["files"] = _lines(_lines_1(self.files))
        else:
            graph = self.graph
            roots = sorted({f.package_root for f in self.files if f.package_root is not None})
            values.update(
                {
                    "alone": encode([n for n, file in enumerate(self.files) if file.alone]),
                    "entries": encode(graph.entries),
                    "files": _lines(_lines_2(self.files, graph, roots)),
                    "libraries": _lines(map(encode, graph.libraries)),
                    "package_roots": encode(roots),
                    "requirements": _lines(map(encode, graph.requirements)),
                    "root": encode(graph.root),
                    "sources": _lines(
                        encode((n, file.source))
                        for n, file in enumerate(self.files)
                        if file.source is not None
                    ),
                    "targets": _lines(map(encode, graph.targets)),
                }
            )
        body = ",\n".join(f'  "{name}": {value}' for name, value in sorted(values.items()))
        return f"{{\n{body}\n}}\n".encode()

    @classmethod
    def from_json(cls, data: bytes, what: str | None = None) -> Manifest:
        """Read what `to_json` wrote and check that it is consistent. Raises `InvalidData`."""
        read: Any = _Manifest2.from_json(data, what)
        graph = _graph_of(read)
        manifest = cls(
            copy_style=read.copy_style,
            root_dir=read.root_dir,
            entry_points=read.entry_points,
            files=_files_of(read),
            content_hash=read.content_hash,
            archive_hash=read.archive_hash,
            archive_size=read.archive_size,
            graph=graph,
        )
        names = [file.path.encode() for file in manifest.files]
        for before, after in zip(names, names[1:]):
            if before >= after:
                path = after.decode()
                raise InvalidData(
                    f"manifest: the files are not sorted, or {path!a:.200} is there twice"
                )
        for path in {point.path for point in manifest.entry_points} - {
            f.path for f in manifest.files
        }:
            raise InvalidData(f"manifest: the entry point {path!a:.200} is not among the files")
        found = content_hash((f.path, f.mode, f.size, f.sha256) for f in manifest.files)
        if found != manifest.content_hash:
            raise InvalidData(
                f"manifest: its files have the content hash {found}, but it says "
                f"{manifest.content_hash}: it was changed after it was made"
            )
        return manifest


def _graph_of(read: Any) -> ManifestGraph | None:
    if isinstance(read, _Manifest1):
        return None
    graph = ManifestGraph(read.root, read.entries, read.libraries, read.targets, read.requirements)
    graph.check()
    return graph


def _files_of(read: Any) -> tuple[ManifestFile, ...]:
    if isinstance(read, _Manifest1):
        return tuple(ManifestFile(*file) for file in read.files)
    targets: list[Any] = [target.address for target in read.targets]
    roots: list[Any] = list(read.package_roots)
    if not _ascends(roots) or len(roots) > len({file.root for file in read.files} - {None}):
        raise InvalidData("manifest: package_roots: not sorted, or more than there are")
    alone, sources = set(read.alone), dict(read.sources)
    for numbers in (read.alone, tuple(map(itemgetter(0), read.sources))):
        if not _ascends(numbers) or (numbers and numbers[-1] >= len(read.files)):
            raise InvalidData("manifest: alone, sources: not sorted, or a file that is not there")
    try:
        return tuple(
            ManifestFile(
                path=file.path,
                size=file.size,
                mode=file.mode,
                sha256=file.sha256,
                owner=None if file.owner is None else targets[file.owner],
                reason=file.reason,
                by=None if file.by is None else targets[file.by],
                kind=file.kind,
                package_root=None if file.root is None else roots[file.root],
                alone=number in alone,
                source=sources.get(number),
            )
            for number, file in enumerate(read.files)
        )
    except IndexError:
        raise InvalidData("manifest: files: a target or root that is not there") from None


def _ascends(values: Any) -> bool:
    return all(before < after for before, after in zip(values, values[1:]))


def _lines_1(files: Iterable[ManifestFile]) -> Iterator[str]:
    """As `JSONEncoder.encode` would write them, in a quarter of the time."""
    for path, size, mode, sha256, owner, reason, by, *_ in files:
        yield (
            f'{{"by": {_optional(by)}, "mode": {mode}, "owner": {_optional(owner)}, '
            f'"path": {encode_basestring(path)}, "reason": "{reason}", "sha256": "{sha256}", '
            f'"size": {size}}}'
        )


def _lines_2(
    files: Iterable[ManifestFile], graph: ManifestGraph, roots: Iterable[str]
) -> Iterator[str]:
    """The same, with numbers for targets and package roots."""
    target: dict[str | None, str] = {t.address: str(n) for n, t in enumerate(graph.targets)}
    root: dict[str | None, str] = {one: str(n) for n, one in enumerate(roots)}
    target[None] = root[None] = "null"
    for path, size, mode, sha256, owner, reason, by, kind, package_root, _, _ in files:
        yield (
            f'{{"by": {target[by]}, "kind": "{kind}", "mode": {mode}, "owner": {target[owner]}, '
            f'"path": {encode_basestring(path)}, "reason": "{reason}", '
            f'"root": {root[package_root]}, "sha256": "{sha256}", "size": {size}}}'
        )


def _optional(text: str | None) -> str:
    return "null" if text is None else encode_basestring(text)


def _lines(items: Iterable[str]) -> str:
    body = ",\n    ".join(items)
    return f"[\n    {body}\n  ]" if body else "[]"
