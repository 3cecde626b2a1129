"""The manifest of a bundle: what is in it, who owns each file, and why it is there.

It is JSON (UTF-8, sorted keys, one file a line), written beside the archive. Equal manifests have
equal bytes. Reading is strict: what `Manifest.from_json` accepts is a listing that its content hash
covers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from flyte_pack.errors import UserError
from flyte_shim.hashing import content_hash
from flyte_shim.paths import is_sha256, path_problem

SCHEMA = 1
COPY_STYLES = frozenset({"auto", "all"})
REASONS = frozenset({"entry_point", "imported", "declared", "package", "all"})
MODES = frozenset({0o644, 0o755})


class ManifestError(UserError):
    """The bytes are no manifest that this version can read; the message says what is wrong."""


@dataclass(frozen=True)
class EntryPoint:
    """Where a bundle is entered: `module`, an attribute of it or None, its file, its target."""

    module: str
    name: str | None
    path: str
    target: str


class ManifestFile(NamedTuple):
    """One file: its path in the bundle, size in bytes, mode, hash, and why it is there.

    A named tuple, because a manifest has tens of thousands and the packer makes them all at once.

    `owner` is the address of the target that owns it, None for a file that no target owns.
    `reason` is one of `REASONS`; `by` is the address of the target that caused it (the importer,
    say), None where nothing but the bundle itself did.
    """

    path: str
    size: int
    mode: int
    sha256: str
    owner: str | None
    reason: str
    by: str | None


@dataclass(frozen=True)
class Manifest:
    """A whole manifest; `files` are sorted by the UTF-8 bytes of their paths.

    `root_dir` is relative to the build root, which is "."; None where source roots were stripped.
    """

    copy_style: str
    root_dir: str | None
    entry_points: tuple[EntryPoint, ...]
    files: tuple[ManifestFile, ...]
    content_hash: str
    archive_hash: str
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
            "schema": encode(SCHEMA),
        }
        body = ",\n".join(f'  "{name}": {value}' for name, value in values.items())
        return f"{{\n{body}\n}}\n".encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Parse and check `data`; raises ManifestError for anything that `to_json` can not mean."""
        try:
            raw = json.loads(
                data.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
            )
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"The manifest is not JSON: {error}") from None
        _object(raw, "the manifest", _MANIFEST)
        if raw["schema"] != SCHEMA:
            raise ManifestError(
                f"The manifest has schema {raw['schema']}; this version reads schema {SCHEMA}. "
                "Use the flyte-shim that belongs to the pants-flyte that made the bundle, or newer."
            )
        _one_of(raw["copy_style"], COPY_STYLES, "copy_style")
        if raw["root_dir"] not in (None, "."):
            _path(raw["root_dir"], "root_dir")
        _sha256(raw["content_hash"], "content_hash")
        _sha256(raw["archive_hash"], "archive_hash")
        manifest = cls(
            copy_style=raw["copy_style"],
            root_dir=raw["root_dir"],
            entry_points=tuple(_entry_point(point) for point in raw["entry_points"]),
            files=tuple(_file(file) for file in raw["files"]),
            content_hash=raw["content_hash"],
            archive_hash=raw["archive_hash"],
            archive_size=_size(raw["archive_size"], "archive_size"),
        )
        names = [file.path.encode() for file in manifest.files]
        for before, after in zip(names, names[1:]):
            if before >= after:
                raise ManifestError(
                    f"The manifest's files are not sorted, or {after.decode()!r} is there twice."
                )
        known = {file.path for file in manifest.files}
        for point in manifest.entry_points:
            if point.path not in known:
                raise ManifestError(f"The entry point {point.path!r} is not among the files.")
        found = content_hash((f.path, f.mode, f.size, f.sha256) for f in manifest.files)
        if found != manifest.content_hash:
            raise ManifestError(
                f"The manifest's files have the content hash {found}, "
                f"but it says {manifest.content_hash}: it was changed after it was made."
            )
        return manifest


def _file_lines(files: Iterable[ManifestFile]) -> Iterator[str]:
    """As `JSONEncoder.encode` would write them, in a quarter of the time: it is a part of packing."""
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


_Fields = dict[str, tuple[type, ...]]
_NONE = type(None)
_MANIFEST: _Fields = {
    "archive_hash": (str,),
    "archive_size": (int,),
    "content_hash": (str,),
    "copy_style": (str,),
    "entry_points": (list,),
    "files": (list,),
    "root_dir": (str, _NONE),
    "schema": (int,),
}
_ENTRY_POINT: _Fields = {
    "module": (str,),
    "name": (str, _NONE),
    "path": (str,),
    "target": (str,),
}
_FILE: _Fields = {
    "path": (str,),
    "size": (int,),
    "mode": (int,),
    "sha256": (str,),
    "owner": (str, _NONE),
    "reason": (str,),
    "by": (str, _NONE),
}


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _object(raw: Any, what: str, fields: _Fields) -> None:
    if type(raw) is not dict:
        raise ManifestError(f"Expected {what} to be an object, got {raw!r:.60}.")
    if raw.keys() != fields.keys():
        wrong = sorted(raw.keys() ^ fields.keys())
        raise ManifestError(
            f"In {what} these keys are missing or unknown: {', '.join(wrong):.200}."
        )
    for name, types in fields.items():
        # By exact type: True is an int for isinstance.
        if type(raw[name]) not in types:
            raise ManifestError(f"In {what}, {name!r} has a wrong type: {raw[name]!r:.60}.")


def _entry_point(raw: Any) -> EntryPoint:
    _object(raw, "an entry point", _ENTRY_POINT)
    return EntryPoint(**raw)


def _file(raw: Any) -> ManifestFile:
    _object(raw, "a file", _FILE)
    _path(raw["path"], "path")
    _size(raw["size"], "size")
    if raw["mode"] not in MODES:
        raise ManifestError(f"The mode of {raw['path']!r} is {raw['mode']}, not 420 or 493.")
    _sha256(raw["sha256"], "sha256")
    _one_of(raw["reason"], REASONS, "reason")
    return ManifestFile(**raw)


def _path(path: str, what: str) -> None:
    problem = path_problem(path)
    if problem:
        raise ManifestError(f"The manifest has {problem} as a {what}: {path!r:.200}.")


def _size(size: int, what: str) -> int:
    if not 0 <= size < 1 << 63:
        raise ManifestError(f"The manifest has {size} as {what}, which is no size in bytes.")
    return size


def _sha256(text: str, what: str) -> None:
    if not is_sha256(text):
        raise ManifestError(f"The manifest has {text!r:.80} as {what}, which is no SHA-256.")


def _one_of(text: str, choices: frozenset[str], what: str) -> None:
    if text not in choices:
        raise ManifestError(
            f"The manifest has {text!r:.80} as {what}; known: {', '.join(sorted(choices))}."
        )
