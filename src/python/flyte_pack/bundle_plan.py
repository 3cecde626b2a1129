"""What is exchanged with the packer: the plan of a bundle going in, the summary of the result coming out.

Both are JSON files, written and read by this module alone: the rules that compute a bundle from the
dependency graph write a `BundlePlan` and read a `BundleSummary`; `flyte_pack.bundle` does the
reverse. Both are parsed strictly: an unknown schema, a missing or superfluous key or a value of
another type is a `PlanError`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from flyte_shim.paths import is_sha256
from flyte_shim.manifest import COPY_STYLES, REASONS, EntryPoint

SCHEMA = 1
_Bytes = bytes  # a field of the summary has that name


class PlanError(Exception):
    """A plan or summary that cannot be used; the message names the entry at fault."""


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
        """The plan as canonical UTF-8 JSON: equal plans give equal bytes."""
        return _dump(
            {
                "schema": SCHEMA,
                "copy_style": self.copy_style,
                "root_dir": self.root_dir,
                "entry_points": [
                    {"module": e.module, "name": e.name, "path": e.path, "target": e.target}
                    for e in self.entry_points
                ],
                "files": self.files,
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> BundlePlan:
        """Parse what `to_json` wrote. Raises `PlanError`."""
        raw = _load(data, "plan", {"copy_style", "root_dir", "entry_points", "files"})
        if raw["copy_style"] not in COPY_STYLES:
            raise PlanError(
                f"plan: copy_style is {raw['copy_style']!r}, not one of {sorted(COPY_STYLES)}"
            )
        if not _is_optional_str(raw["root_dir"]):
            raise PlanError(f"plan: root_dir is {raw['root_dir']!r}, not a string or null")
        for key in ("entry_points", "files"):
            if not isinstance(raw[key], list):
                raise PlanError(f"plan: {key} is not a list")
        return cls(
            copy_style=raw["copy_style"],
            root_dir=raw["root_dir"],
            entry_points=tuple(_entry_point(e) for e in raw["entry_points"]),
            files=_plan_files(raw["files"]),
        )


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
        """The summary as canonical UTF-8 JSON."""
        return _dump({"schema": SCHEMA, **self.__dict__})

    @classmethod
    def from_json(cls, data: _Bytes) -> BundleSummary:
        """Parse what `to_json` wrote. Raises `PlanError`."""
        hashes = {"content_hash", "archive_hash", "manifest_hash"}
        numbers = {"archive_size", "manifest_size", "files", "bytes"}
        raw = _load(data, "summary", hashes | numbers)
        for key in sorted(hashes):
            if not isinstance(raw[key], str) or not is_sha256(raw[key]):
                raise PlanError(f"summary: {key} is {raw[key]!r}, not 64 lower-case hex digits")
        for key in sorted(numbers):
            if type(raw[key]) is not int or raw[key] < 0:
                raise PlanError(f"summary: {key} is {raw[key]!r}, not a number of 0 or more")
        del raw["schema"]
        return cls(**raw)


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _load(data: bytes, what: str, keys: set[str]) -> dict[str, Any]:
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise PlanError(f"{what}: not JSON: {e}") from e
    if not isinstance(raw, dict):
        raise PlanError(f"{what}: not a JSON object")
    if raw.get("schema") != SCHEMA:
        raise PlanError(f"{what}: schema is {raw.get('schema')!r}, this packer knows {SCHEMA}")
    if raw.keys() != keys | {"schema"}:
        wrong = sorted(raw.keys() ^ (keys | {"schema"}))
        raise PlanError(f"{what}: missing or unknown keys: {', '.join(wrong)}")
    return raw


def _entry_point(raw: object) -> EntryPoint:
    if not isinstance(raw, dict) or raw.keys() != {"module", "name", "path", "target"}:
        raise PlanError(f"plan: not an entry point (module, name, path, target): {raw!r}")
    if not _is_optional_str(raw["name"]):
        raise PlanError(f"plan: entry point name is {raw['name']!r}, not a string or null")
    for key in ("module", "path", "target"):
        if not isinstance(raw[key], str):
            raise PlanError(f"plan: entry point {key} is {raw[key]!r}, not a string")
    return EntryPoint(**raw)


def _plan_files(rows: list[Any]) -> tuple[PlanFile, ...]:
    # Checked by columns, several times faster than row by row; only a wrong plan is gone through.
    if not _are_files(rows):
        wrong = next(row for row in rows if not _are_files([row]))
        raise PlanError(f"plan: not a file ([source, path, owner, reason, by]): {wrong!r}")
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


def _is_optional_str(value: object) -> bool:
    return value is None or isinstance(value, str)
