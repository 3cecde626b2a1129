"""What a lock file tells at a glance: names, versions, and what each distribution needs.

`flyte_pack.image.lock_files` reads lock files for good: for one Python and platform, with hashes.
This is to tell a person and for checks that install nothing, so what is not understood is left out.
What holds only on other platforms, or for an extra, counts too.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, Optional

from flyte_pack.lock_kinds import is_conda, is_toml, json_of
from flyte_pack.names import normalized

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
# A requirement of one version, or from one place.
_PIN = re.compile(
    rf"^ *({_NAME.pattern})[ \t]*(?:\[[^\]\n]*\][ \t]*)?(?:===?[ \t]*([\w.!+-]+)|@)([^\n]*)",
    re.MULTILINE,
)
_VIA = re.compile(r"via\b")
_PACKAGE = re.compile(r"^\[\[packages?\]\][ \t]*$", re.MULTILINE)
_TABLE = re.compile(r"^\[", re.MULTILINE)
_NAME_IS = re.compile(r'^name\s*=\s*"([^"\n]+)"', re.MULTILINE)
_VERSION_IS = re.compile(r'^version\s*=\s*"([^"\n]+)"', re.MULTILINE)
_UV_NEED = re.compile(r'\{ name = "([^"\n]+)"')
# A wheel's tag of platforms, and its size in bytes: in an inline table, or one of its own.
_WHEEL = re.compile(r'-([^-"/]+)\.whl"(?:[^}\n]|\n(?!\[))*?\bsize\s*=\s*(\d+)')
_OR = " or "  # several versions, for different platforms


@dataclass(frozen=True)
class Locked:
    """What a lock file has, by normalized names of distributions.

    needs: None where the lock file does not say who needs what: one of plain requirements, without
    the comments in which `uv pip compile` and `pip-compile` say it. A distribution that nothing
    reaches by them is certainly not installed. conditional: those that a marker of plain
    requirements restricts to some platforms or Pythons. sizes: bytes of the largest wheel for Linux
    on x86-64 that the lock file has, where it has sizes.
    """

    names: frozenset[str]
    versions: Mapping[str, str]
    needs: Optional[Mapping[str, frozenset[str]]]
    conditional: frozenset[str] = frozenset()
    sizes: Mapping[str, int] = field(default_factory=dict)

    def versions_of(self, name: str) -> list[str]:
        return self.versions[name].split(_OR) if name in self.versions else []

    def reached(self, starts: Iterable[str]) -> frozenset[str]:
        """`starts`, and all that they need in turn, as far as that is known."""
        found: set[str] = set()
        waiting = list(starts)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += (self.needs or {}).get(name, ())
        return frozenset(found)

    def way(self, starts: Iterable[str], wanted: str) -> Optional[Sequence[str]]:
        """A shortest way of needs from one of `starts` to `wanted`, both included."""
        before: dict[str, str] = {}
        waiting = deque(sorted(starts))
        known = set(waiting)
        while waiting and self.needs is not None:
            name = waiting.popleft()
            if name == wanted:
                found = [name]
                while found[-1] in before:
                    found.append(before[found[-1]])
                return found[::-1]
            for other in sorted(self.needs.get(name, frozenset()) - known):
                known.add(other)
                before[other] = name
                waiting.append(other)
        return None


class _Entry(NamedTuple):
    name: str
    version: str  # "" if it is not told, or is one to keep out of a message
    needs: Optional[Iterable[str]]
    conditional: bool = False
    size: Optional[int] = None


@lru_cache(maxsize=16)  # many bundles of a build have one lock file
def locked(lock: bytes) -> Locked:
    """What is in a lock file of that content; nothing, if it is of no kind that is understood."""
    names: dict[str, set[str]] = defaultdict(set)
    needs: dict[str, set[str]] = defaultdict(set)
    conditional = set()
    sizes: dict[str, int] = {}
    told = True
    for entry in _entries(lock.decode(errors="replace")):
        name = normalized(entry.name)
        names[name] |= {entry.version} - {""}
        needs[name].update(map(normalized, entry.needs or ()))
        if entry.conditional:
            conditional.add(name)
        told = told and entry.needs is not None
        if entry.size is not None:
            sizes[name] = max(entry.size, sizes.get(name, 0))
    return Locked(
        frozenset(names),
        {name: _OR.join(sorted(of)) for name, of in names.items() if of},
        {name: frozenset(of) for name, of in needs.items()} if told and names else None,
        frozenset(conditional),
        sizes,
    )


def _entries(text: str) -> Iterator[_Entry]:
    bare = json_of(text)
    if bare is not None:
        return _of_pex(bare)
    if is_toml(text):
        return _of_toml(text)
    return iter(()) if is_conda(text) else _of_requirements(text)


def _of_pex(text: str) -> Iterator[_Entry]:
    try:
        entries = [
            _Entry(
                str(one["project_name"]),
                _told(str(one.get("version", ""))),
                _names_of(one.get("requires_dists")),
            )
            for resolve in json.loads(text)["locked_resolves"]
            for one in resolve["locked_requirements"]
        ]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return iter(())  # whoever installs it has the error
    return iter(entries)


def _names_of(requirements: Sequence[str] | None) -> list[str] | None:
    if requirements is None:
        return None
    return [name[0] for one in requirements if (name := _NAME.match(one))]


def _of_toml(text: str) -> Iterator[_Entry]:
    """Each package is a table of its own, with its name and version before any other table."""
    parts = _PACKAGE.split(text)[1:]
    # PEP 751 has the same tables, and need not say what a package needs.
    told = any(_UV_NEED.search(part) for part in parts)
    for part in parts:
        head = _TABLE.split(part, maxsplit=1)[0]
        name, version = _NAME_IS.search(head), _VERSION_IS.search(head)
        if name:
            needs = _UV_NEED.findall(part) if told else None
            size = _size_of_wheel(part)
            yield _Entry(name[1], _told(version[1]) if version else "", needs, size=size)


def _size_of_wheel(package: str) -> Optional[int]:
    sizes = [
        int(size)
        for platforms, size in _WHEEL.findall(package)
        if platforms == "any" or ("manylinux" in platforms and "x86_64" in platforms)
    ]
    return max(sizes, default=None)


def _of_requirements(text: str) -> Iterator[_Entry]:
    pins = [(pin[1], pin[2] or "", ";" in pin[3]) for pin in _PIN.finditer(text)]
    needs = _needs_in_comments(text)
    for name, version, conditional in pins:
        yield _Entry(name, version, needs and needs[normalized(name)], conditional)


def _needs_in_comments(text: str) -> Mapping[str, set[str]] | None:
    """`# via a, b` behind a pin or below it; or a line `# via`, and then one for each name.

    By normalized names. None unless each pin has such a comment.
    """
    needs: dict[str, set[str]] = defaultdict(set)
    pinned: set[str] = set()
    told: set[str] = set()
    name, goes_on = "", False
    for line in text.splitlines():
        if pin := _PIN.match(line):
            name, goes_on = normalized(pin[1]), False
            pinned.add(name)
        comment = line.partition("#")[2].strip()
        is_via = _VIA.match(comment)
        if is_via:
            comment = comment[is_via.end() :]
        if not name or not (is_via or (goes_on and comment)):
            goes_on = False
            continue
        told.add(name)
        goes_on = True
        for one in comment.split(","):
            if by := _NAME.match(one.strip()):
                needs[normalized(by[0])].add(name)
    return needs if told and told == pinned else None


def _told(version: str) -> str:
    return version if version.isprintable() else ""
