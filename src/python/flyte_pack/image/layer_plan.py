"""The plan of a layer that is made of files at hand: written by the build rules, read by `python -m flyte_pack image-layer`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flyte_pack.json_fields import InvalidData, load
from flyte_shim.paths import path_problem

SCHEMA = 1


@dataclass(frozen=True)
class LayerPlan:
    """All that decides a layer but the bytes and executable bits of its files.

    what: what is in it, for a person. owner: user and group of all. directories: path -> mode, where it is to be known; those
    above a file are made where they are below one of these. files: path in the image -> where it is below the directory
    of sources. texts: path -> content, mode. links: path -> target. Paths are relative to the image's root.
    """

    what: str
    owner: tuple[int, int]
    directories: tuple[tuple[str, int], ...]
    files: tuple[tuple[str, str], ...] = ()
    texts: tuple[tuple[str, str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> bytes:
        """The plan in few bytes; equal plans give equal bytes."""
        document = {"schema": SCHEMA, **vars(self)}
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> LayerPlan:
        """Parse what `to_json` wrote. Raises `InvalidData`, also for a path that is not one or is there twice."""
        fields = load(data, "layer plan", SCHEMA)
        plan = cls(
            what=fields.text("what"),
            owner=_row("owner", fields.values("owner"), int, int),
            directories=_rows("directories", fields.values("directories"), str, int),
            files=_rows("files", fields.values("files"), str, str),
            texts=_rows("texts", fields.values("texts"), str, str, int),
            links=_rows("links", fields.values("links"), str, str),
        )
        fields.end()
        plan._check_paths()
        return plan

    def _check_paths(self) -> None:
        seen = set()
        for rows in (self.directories, self.files, self.texts, self.links):
            for path, *_ in rows:
                problem = path_problem(path)
                if path in seen:
                    problem = "there twice"
                if problem:
                    raise InvalidData(f"layer plan: {problem}: {path!r}")
                seen.add(path)


def _rows(key: str, rows: list[Any], *types: type) -> Any:
    return tuple(_row(key, row, *types) for row in rows)


def _row(key: str, row: Any, *types: type) -> Any:
    if type(row) is not list or tuple(map(type, row)) != types:
        raise InvalidData(f"layer plan: {key!r} holds {row!r:.100}")
    return tuple(row)
