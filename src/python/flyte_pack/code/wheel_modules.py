"""Finds the locked distributions that have a module, by the files of wheels at hand.

A program in a sandbox that has the caches in which Pants and uv keep unpacked wheels. Nothing is
fetched or imported. Standard library alone, as `flyte_pack.code.code_scan` has it.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import sys
from dataclasses import asdict, dataclass, field
from typing import Iterable, Iterator, Mapping, Sequence

# Of Pants' named caches: where uv unpacks wheels, and where PEX does, of late below a version.
_PLACES = (
    "archive-v*/*/*.dist-info",
    "installed_wheels/[0-9]/*/*.whl/*.dist-info",
    "installed_wheels/*/*.whl/*.dist-info",
)
_MODULES = (".py", ".so", ".pyd")


@dataclass(frozen=True)
class Question:
    """modules: by their whole names. versions: of each locked distribution, by normalized name.
    needed: those of them that are certainly installed."""

    modules: Sequence[str]
    versions: Mapping[str, Sequence[str]]
    needed: Sequence[str]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()


@dataclass(frozen=True)
class Answer:
    """having: of each module that was asked for, the distributions that have it. is_all: whether
    each needed distribution is at hand."""

    having: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_all: bool = False

    @classmethod
    def from_json(cls, text: bytes) -> Answer:
        """The inverse of what the program prints."""
        return cls(**json.loads(text))


def answer(asked: Question, caches: Iterable[str]) -> Answer:
    wanted = {(name, v) for name, versions in asked.versions.items() for v in versions}
    at_hand: dict[str, set[str]] = {}
    for info in _infos(caches):
        name, _, version = os.path.basename(info)[: -len(".dist-info")].rpartition("-")
        name = re.sub(r"[-_.]+", "-", name).lower()
        if name not in at_hand and (name, version) in wanted:
            files = _files(info)
            if files:
                at_hand[name] = {_module_of(file) for file in files if file.endswith(_MODULES)}
    having = {}
    for module in asked.modules:
        having[module] = sorted(n for n, known in at_hand.items() if _has(module, known))
    return Answer(having, is_all=at_hand.keys() >= set(asked.needed))


def _infos(caches: Iterable[str]) -> Iterator[str]:
    for cache in caches:
        for place in _PLACES:
            yield from sorted(glob.glob(os.path.join(glob.escape(cache), place)))


def _files(info: str) -> list[str]:
    """By its list of files; PEX leaves that out of what it unpacks: what is there, then."""
    try:
        with open(os.path.join(info, "RECORD"), encoding="utf-8", newline="") as file:
            return [row[0] for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error):
        top = os.path.dirname(info)
        return [
            os.path.relpath(os.path.join(directory, name), top)
            for directory, _, names in os.walk(top)
            for name in names
            if name.endswith(_MODULES)
        ]


def _module_of(file: str) -> str:
    """`a.b` of `a/b.py`, `a/b/__init__.py` or `a/b.cpython-311-x86_64-linux-gnu.so`."""
    directory, _, name = file.rpartition("/")
    parts = directory.split("/") if directory else []
    stem = name.partition(".")[0]
    return ".".join(parts if stem == "__init__" else [*parts, stem])


def _has(module: str, known: set[str]) -> bool:
    """Whether it, or a regular package above it, is known: that may have modules without files."""
    while module:
        if module in known:
            return True
        module = module.rpartition(".")[0]
    return False


def main(argv: list[str]) -> int:
    """`QUESTION CACHE...`: print the `Answer`. 1: only a part is at hand, so that it may change."""
    with open(argv[0], encoding="utf-8") as file:
        found = answer(Question(**json.load(file)), argv[1:])
    json.dump(asdict(found), sys.stdout)
    return 0 if found.is_all else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
