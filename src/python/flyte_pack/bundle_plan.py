"""What is exchanged with the packer: the plan of a bundle goes in, a summary of it comes out.

Both are JSON files, written and read by this module alone: the rules that compute a bundle from the
dependency graph write a `BundlePlan` and read a `BundleSummary`; `flyte_pack.bundle` does the
reverse. Both are parsed strictly.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from flyte_pack.json_fields import Fields, InvalidData, dump, load
from flyte_pack.manifest import COPY_STYLES, REASONS, EntryPoint

SCHEMA = 1
_Bytes = bytes  # a field of the summary has that name


class PlanFile(NamedTuple):
    """One file of a bundle; a named tuple because a plan has tens of thousands.

    `source` is where it is, below the directory of sources; `path` is where it goes in the bundle.
    `owner` is the address of the target that owns it, if one does; `reason`, one of `REASONS`, is
    why it is in the bundle; `by` is the address of the target that brought it in, if one did.
    """

    source: str
    path: str
    owner: str | None
    reason: str
    by: str | None


@dataclass(frozen=True)
class BundlePlan:
    """All that decides a bundle but the bytes of its files. `files` may come in any order."""

    copy_style: str
    root_dir: str | None
    entry_points: tuple[EntryPoint, ...]
    files: tuple[PlanFile, ...]

    def to_json(self) -> bytes:
        """The plan as JSON, in few bytes; equal plans give equal bytes."""
        document = {
            "schema": SCHEMA,
            "copy_style": self.copy_style,
            "root_dir": self.root_dir,
            "entry_points": [vars(point) for point in self.entry_points],
            "files": self.files,
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> BundlePlan:
        """Parse what `to_json` wrote. Raises `InvalidData`."""
        fields = load(data, "bundle plan", SCHEMA)
        plan = cls(
            copy_style=fields.choice("copy_style", tuple(sorted(COPY_STYLES))),
            root_dir=fields.optional_text("root_dir"),
            entry_points=tuple(map(_entry_point, fields.nested_list("entry_points"))),
            files=_plan_files(fields.values("files")),
        )
        fields.end()
        return plan


@dataclass(frozen=True)
class BundleSummary:
    """What came out: hashes are SHA-256 in lower-case hex, sizes are in bytes.

    files and bytes count the bundle's files and the sum of their sizes.
    """

    content_hash: str
    archive_hash: str
    archive_size: int
    manifest_hash: str
    manifest_size: int
    files: int
    bytes: int

    def to_json(self) -> _Bytes:
        """The summary as JSON."""
        return dump({"schema": SCHEMA, **vars(self)})

    @classmethod
    def from_json(cls, data: _Bytes) -> BundleSummary:
        """Parse what `to_json` wrote. Raises `InvalidData`."""
        fields = load(data, "bundle summary", SCHEMA)
        summary = cls(
            content_hash=fields.sha256("content_hash"),
            archive_hash=fields.sha256("archive_hash"),
            archive_size=fields.integer("archive_size"),
            manifest_hash=fields.sha256("manifest_hash"),
            manifest_size=fields.integer("manifest_size"),
            files=fields.integer("files"),
            bytes=fields.integer("bytes"),
        )
        fields.end()
        return summary


def _entry_point(fields: Fields) -> EntryPoint:
    point = EntryPoint(
        module=fields.text("module"),
        name=fields.optional_text("name"),
        path=fields.text("path"),
        target=fields.text("target"),
    )
    fields.end()
    return point


def _plan_files(rows: list[Any]) -> tuple[PlanFile, ...]:
    # Checked by columns, several times faster than row by row; only a wrong plan is gone through.
    if not _are_files(rows):
        wrong = next(row for row in rows if not _are_files([row]))
        raise InvalidData(f"bundle plan: not a file ([source, path, owner, reason, by]): {wrong!r}")
    return tuple(map(PlanFile._make, rows))


def _are_files(rows: list[Any]) -> bool:
    if not rows:
        return True
    if set(map(type, rows)) != {list} or set(map(len, rows)) != {5}:
        return False
    source, path, owner, reason, by = zip(*rows)
    types = set(map(type, source)) | set(map(type, path)) | set(map(type, reason))
    optional_types = set(map(type, owner)) | set(map(type, by))
    return types == {str} and optional_types <= {str, type(None)} and REASONS.issuperset(reason)
