"""The plan of a layer of files at hand, which rules write and `image-layer` reads."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from flyte_pack.json_fields import InvalidData, load
from flyte_shim.paths import path_problem

SCHEMA = 1
PART = "part.gz"  # a part of a layer, as a file
_MAX_OWNER = (1 << 32) - 1  # what Linux has no user for


@dataclass(frozen=True)
class LayerPlan:
    """All that decides a layer but the bytes and executable bits of its files.

    what: for a person. owner: user and group of all. directories: path -> mode. Other directories
    above a file are made if they are below one of these. files: path in the image -> path below the
    directory of sources. texts: path -> content, mode. links: path -> target. Paths are relative to
    the image's root.
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
        """Parse what `to_json` wrote. Raises `InvalidData`, also for unsafe paths."""
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
        plan._check_numbers()
        plan._check_paths()
        return plan

    def in_parts(self, size: int) -> list[LayerPlan]:
        """Plans of parts that make the same layer, of about `size` files; an edit changes one.

        The first has all but the files, and all directories. The name of a file's directory decides
        which part it is in.
        """
        count = 1 << max(1, (len(self.files) // size).bit_length())
        directories = dict(self.directories)
        top = tuple(f"{directory}/" for directory in directories)
        files: dict[int, list[tuple[str, str]]] = defaultdict(list)
        number_of: dict[str, int] = {}
        for path, source in self.files:
            directory = path.rpartition("/")[0]
            if directory not in number_of:
                digest = hashlib.sha256(directory.encode()).digest()
                number_of[directory] = int.from_bytes(digest[:4], "big") % count
                above = directory
                while above not in directories and above.startswith(top):
                    directories[above] = 0o755
                    above = above.rpartition("/")[0]
            files[number_of[directory]].append((path, source))
        head = replace(self, directories=tuple(sorted(directories.items())), files=())
        parts = (tuple(group) for _, group in sorted(files.items()))
        return [head, *(LayerPlan("part", self.owner, (), part) for part in parts)]

    def _check_numbers(self) -> None:
        if not all(0 <= number < _MAX_OWNER for number in self.owner):
            raise InvalidData(f"layer plan: the owner is {self.owner}")
        modes = (*(row[1] for row in self.directories), *(row[2] for row in self.texts))
        for mode in modes:
            if not 0 <= mode <= 0o7777:
                raise InvalidData(f"layer plan: a mode is {mode}")

    def _check_paths(self) -> None:
        seen: set[str] = set()
        for rows in (self.directories, self.files, self.texts, self.links):
            for row in rows:
                path = str(row[0])
                problem = path_problem(path)
                if path in seen:
                    problem = "there twice"
                if problem:
                    raise InvalidData(f"layer plan: {problem}: {path!r}")
                seen.add(path)
        leaves = seen.difference(path for path, _ in self.directories)
        parents = {path.rpartition("/")[0] for path in seen}
        while parents:
            blocked = min(parents & leaves, default=None)
            if blocked is not None:
                raise InvalidData(f"layer plan: {blocked!r} is a file, and a directory of others")
            parents = {path.rpartition("/")[0] for path in parents if path}


def _rows(key: str, rows: list[Any], *types: type) -> Any:
    return tuple(_row(key, row, *types) for row in rows)


def _row(key: str, row: Any, *types: type) -> Any:
    if type(row) is not list or tuple(map(type, row)) != types:
        raise InvalidData(f"layer plan: {key!r} holds {row!r:.100}")
    return tuple(row)
