"""The plan of a layer of files at hand, which rules write and `image-layer` reads."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Annotated, Tuple

from flyte_pack.json_fields import Document, InvalidData, Raw, SafePath
from flyte_pack.oci.parts import layer_path_problem

_MAX_OWNER = (1 << 32) - 1  # Linux has no such user


def _check_owner(number: int) -> int:
    if number >= _MAX_OWNER:
        raise InvalidData("not a user or group")
    return number


def _check_mode(mode: int) -> int:
    if mode > 0o7777:
        raise InvalidData("not a mode")
    return mode


_Owner = Annotated[int, _check_owner]
_Mode = Annotated[int, _check_mode]


@dataclass(frozen=True)
class LayerPlan(Document):
    """All that decides a layer but the bytes and executable bits of its files.

    what: for a person. owner: user and group of all. directories: path -> mode. Other directories
    above a file are made if they are below one of these. files: path in the image -> path below the
    directory of sources. texts: path -> content, mode. links: path -> target. hidden: what lower
    layers have there is hidden. Paths are relative to the image's root.
    """

    NAME = "layer plan"
    COMPACT = True

    what: str
    owner: Tuple[_Owner, _Owner]
    directories: Tuple[Tuple[Raw, _Mode], ...]
    files: Tuple[Tuple[Raw, Raw], ...] = ()
    texts: Tuple[Tuple[Raw, Raw, _Mode], ...] = ()
    links: Tuple[Tuple[Raw, Raw], ...] = ()
    hidden: Tuple[SafePath, ...] = ()

    @classmethod
    def from_json(cls, data: bytes, what: str | None = None) -> LayerPlan:
        """Read what `to_json` wrote. Raises `InvalidData`, also for unsafe paths."""
        plan = super().from_json(data, what)
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

    def _check_paths(self) -> None:
        seen: set[str] = set()
        for rows in (self.directories, self.files, self.texts, self.links):
            for row in rows:
                path = str(row[0])
                problem = layer_path_problem(path)
                if path in seen:
                    problem = "there twice"
                if problem:
                    raise InvalidData(f"layer plan: {problem}: {path!r:.200}")
                seen.add(path)
        leaves = seen.difference(path for path, _ in self.directories)
        parents = {path.rpartition("/")[0] for path in seen}
        while parents:
            blocked = min(parents & leaves, default=None)
            if blocked is not None:
                raise InvalidData(
                    f"layer plan: {blocked!r:.200} is a file, and a directory of others"
                )
            parents = {path.rpartition("/")[0] for path in parents if path}
