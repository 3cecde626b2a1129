"""The manifest of a bundle: what is in it, who owns each file, and why it is there.

It is JSON (UTF-8, sorted keys, one file a line), written beside the archive. Equal manifests have
equal bytes. Reading is strict: what `Manifest.from_json` accepts is a listing that its content hash
covers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from json.encoder import encode_basestring
from typing import Annotated, Any, NamedTuple, Optional, Tuple

from flyte_pack.json_fields import OBJECT, Document, InvalidData, Raw, Sha256, one_of, safe_path
from flyte_shim.hashing import content_hash

REASONS = ("all", "declared", "entry_point", "imported", "package")
Reason = Annotated[str, one_of(*REASONS)]
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
    """

    path: Annotated[Raw, safe_path]
    size: int
    mode: Annotated[int, one_of(0o644, 0o755)]
    sha256: Sha256
    owner: Optional[Raw]
    reason: Reason
    by: Optional[Raw]


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


@dataclass(frozen=True)
class Manifest(Document):
    """A whole manifest; `files` are sorted by the UTF-8 bytes of their paths.

    `root_dir` is relative to the build root, which is "."; None where source roots were stripped.
    """

    NAME = "manifest"

    copy_style: BundleCopyStyle
    root_dir: Optional[Annotated[str, _root_dir]]
    entry_points: Tuple[EntryPoint, ...]
    files: Tuple[Annotated[ManifestFile, OBJECT], ...]
    content_hash: Sha256
    archive_hash: Sha256
    archive_size: int

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
            "files": _lines(_file_lines(self.files)),
            "root_dir": encode(self.root_dir),
            "schema": encode(self.SCHEMA),
        }
        body = ",\n".join(f'  "{name}": {value}' for name, value in values.items())
        return f"{{\n{body}\n}}\n".encode()

    @classmethod
    def from_json(cls, data: bytes, what: str | None = None) -> Manifest:
        """Read what `to_json` wrote and check that it is consistent. Raises `InvalidData`."""
        manifest = super().from_json(data, what)
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


def _file_lines(files: Iterable[ManifestFile]) -> Iterator[str]:
    """As `JSONEncoder.encode` would write them, in a quarter of the time."""
    for path, size, mode, sha256, owner, reason, by in files:
        yield (
            f'{{"by": {_optional(by)}, "mode": {mode}, "owner": {_optional(owner)}, '
            f'"path": {encode_basestring(path)}, "reason": "{reason}", "sha256": "{sha256}", '
            f'"size": {size}}}'
        )


def _optional(text: str | None) -> str:
    return "null" if text is None else encode_basestring(text)


def _lines(items: Iterable[str]) -> str:
    body = ",\n    ".join(items)
    return f"[\n    {body}\n  ]" if body else "[]"
