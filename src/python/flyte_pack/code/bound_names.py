"""What a module's top level binds: nearly all of it from the text, all of it from the syntax tree.

Nearly each name that is imported from a module is found by `names_at_a_glance`, which costs little
enough for each module of a repository. `bound_in` is for the few others. Nothing is imported or
run. Standard library alone, as `flyte_pack.code.code_scan` has it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any, Iterator

from flyte_pack.code.module_scan import scan

_STATEMENT = re.compile(
    rb"""
    \n (?:
        (?: (?: async[ ] )? def | class ) [ ] (\w+)
      | ([A-Za-z_]\w*) [ ]? (?: = (?!=) | : )
      | (?: from[ ] [\w.]+ [ ] )? import [ ] ( \( [^)]* | [^\n(]* )
    )
    """,
    re.VERBOSE,
)
_COMMENT = re.compile(rb"#[^\n]*")
_IMPORTED = re.compile(rb"([\w.]+)(?:\s+as\s+(\w+))?")
_DOCSTRING = re.compile(rb'(?:\s|#[^\n]*\n)*[rRuU]?("""|\'\'\')')

# How modules bind names that no statement of theirs shows: their members become names
# (`global_enum`, `_convert_`), by `sys.modules[__name__]`, by a frame.
_HIDES = re.compile(rb"global_enum|_convert_?\(|sys\.modules|\bmodules\[|f_globals|__dict__")

# `module.name = 1`, `setattr(module, "name", 1)`.
_SETS = re.compile(rb"""(?<!\bself)(?<!\bcls)\.(\w+)[ \t]*=(?!=)|\bsetattr\([^,)]*,\s*["'](\w+)""")


@dataclass(frozen=True)
class Bound:
    """stars: the modules of `from module import *`, with their leading dots. is_all: whether it has
    no names besides these, and theirs. sets: names that it may bind in other modules.
    """

    names: frozenset[str] = frozenset()
    stars: tuple[str, ...] = ()
    is_all: bool = True
    sets: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        return {
            "names": sorted(self.names),
            "stars": self.stars,
            "is_all": self.is_all,
            "sets": sorted(self.sets),
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Bound:
        """The inverse of `to_json`, for output of this same module."""
        stars = tuple(raw["stars"])
        return cls(frozenset(raw["names"]), stars, raw["is_all"], frozenset(raw["sets"]))


UNKNOWN = Bound(is_all=False)


def names_at_a_glance(source: bytes) -> tuple[str, ...]:
    """What the plain statements of its top level bind. A text in quotes may look like one."""
    start = _DOCSTRING.match(source)
    after = source.find(start[1], start.end()) if start else 0
    names = dict.fromkeys(_glanced(b"\n" + source[max(after, 0) :]))
    return tuple(sys.intern(name.decode()) for name in names)


def _glanced(source: bytes) -> Iterator[bytes]:
    for defined, assigned, imported in _STATEMENT.findall(source):
        if imported:
            if b"#" in imported:
                imported = _COMMENT.sub(b"", imported)
            for name, alias in _IMPORTED.findall(imported):
                yield alias or name.partition(b".")[0]
        else:
            yield defined or assigned


def bound_in(source: bytes, path: str) -> Bound:
    """All of it. `UNKNOWN` where this Python cannot parse it."""
    if not source.strip():
        return Bound()
    sets = frozenset((plain or called).decode() for plain, called in _SETS.findall(source))
    if _HIDES.search(source):
        return Bound(is_all=False, sets=sets)
    try:
        found = scan(source, path)
    except (SyntaxError, ValueError):
        return UNKNOWN
    names = frozenset(name for name, _ in found.bindings)
    return Bound(names, found.stars, not found.hides_names, sets)
