"""Reads lock files: what they pin for one Python and platform, with hashes.

The content tells the kind: requirements with hashes (pip's "Requirements File Format"; pip-tools
and uv write them), PEX's JSON (bare, or below the `//` comments of Pants), `uv.lock`, and
`pylock.toml` (PyPA, "pylock.toml"). Some have the graph too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flyte_pack.errors import UserError
from flyte_pack.image.wheel_target import WheelTarget
from flyte_shim import shown

# Options that say where or how to look, which the settings of this machine say instead.
_IGNORED = re.compile(
    r"(-i|-f|--(index-url|extra-index-url|no-index|find-links|trusted-host|no-binary|only-binary"
    r"|prefer-binary|pre|use-feature|require-hashes))(\s|=|$)"
)
_HASH = re.compile(r"(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})")


@dataclass(frozen=True)
class Pin:
    """A locked distribution; name: normalized. requires: what it asks for, where the lock says so.

    problem: why it cannot be installed; that matters only to those who need it.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    requires: tuple[Requirement, ...] | None = None
    problem: str | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


@dataclass(frozen=True)
class Lock:
    """What a lock file pins for a target.

    elsewhere: names that it has for other targets only. excluded: names that its maker was told to
    leave out. has_graph: each pin knows what it requires.
    """

    pins: Mapping[str, Pin]
    elsewhere: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()
    has_graph: bool = False


@dataclass
class _Reader:
    target: WheelTarget
    pins: dict[str, Pin] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)

    def add(self, pin: Pin, markers: Iterable[Marker | None]) -> None:
        """Take `pin` if any of the markers holds, or there is none."""
        markers = list(markers)
        if markers and not any(holds(marker, self.target) for marker in markers):
            self.elsewhere.add(pin.name)
            return
        other = self.pins.setdefault(pin.name, pin)
        if other.version != pin.version:
            raise UserError(
                f"the lock file pins {pin.name} twice for {self.target}: {other.version} and "
                f"{pin.version}"
            )
        if other is not pin:
            hashes = tuple(dict.fromkeys(other.hashes + pin.hashes))
            self.pins[pin.name] = Pin(pin.name, pin.version, hashes, pin.requires, pin.problem)

    def lock(self, excluded: Iterable[str] = (), has_graph: bool = False) -> Lock:
        elsewhere = frozenset(self.elsewhere - self.pins.keys())
        return Lock(self.pins, elsewhere, frozenset(excluded), has_graph)


def read_lock(text: str, target: WheelTarget) -> Lock:
    """What a lock file pins for `target`. Raises `UserError`, without the file's name."""
    # Pants puts comments before a JSON document, which has no such thing.
    bare = re.sub(r"\A(\s*//[^\n]*\n|\s+)*", "", text)
    try:
        if bare.startswith("{"):
            return _read_pex(json.loads(bare), target)
        if re.search(r"^\[\[packages?\]\]", text, re.MULTILINE):
            return _read_toml(_toml(text), target)
        return _read_requirements(text, target)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        reason = shown.line(f"{type(error).__name__}: {error}", longest=200)
        raise UserError(f"the lock file cannot be understood: {reason}") from None


def holds(marker: Marker | None, target: WheelTarget, extra: str = "") -> bool:
    """Whether the environment marker is true for `target`; a missing one is."""
    return marker is None or marker.evaluate({**target.marker_environment, "extra": extra})


def _read_requirements(text: str, target: WheelTarget) -> Lock:
    reader = _Reader(target)
    for number, line in _logical_lines(text):
        if line.startswith("-"):
            if _IGNORED.match(line):
                continue
            raise UserError(
                f"line {number}: {line.split()[0]!r} is nothing for a lock file: it pins all that "
                "it needs itself"
            )
        specification, *options = re.split(r"\s+(?=--)", line)
        hashes = [o[6:].lstrip("= ") for o in options if o.startswith("--hash")]
        try:
            requirement = Requirement(specification)
        except InvalidRequirement:
            raise UserError(
                f"line {number}: {shown.line(specification, longest=120)} is not a pinned "
                "requirement, such as numpy==2.2.1"
            ) from None
        reader.add(_pin(requirement, hashes), [requirement.marker] if requirement.marker else [])
    return reader.lock()


def _pin(requirement: Requirement, hashes: list[str]) -> Pin:
    name, problem = canonicalize_name(requirement.name), None
    specifiers = list(requirement.specifier)
    pinned = len(specifiers) == 1 and specifiers[0].operator in ("==", "===")
    version = specifiers[0].version if pinned else ""
    if requirement.url is not None:
        problem = _DIRECT
    elif not version or version.endswith(".*"):
        problem = "it is not pinned to one version (==): make the lock file anew"
    return Pin(name, version, *_checked(hashes, problem))


_DIRECT = (
    "it comes from a URL, a repository or a path, and an image takes wheels from a package index "
    "only: build its wheel and put that on an index, or in a directory of wheels (UV_FIND_LINKS)"
)


def _checked(
    hashes: Iterable[str], problem: str | None
) -> tuple[tuple[str, ...], None, str | None]:
    """The last three fields of a pin that requires nothing known."""
    known = tuple(dict.fromkeys(h for h in hashes if _HASH.fullmatch(h)))
    if not known and problem is None:
        problem = (
            "it has no SHA-256 in the lock file: make that anew with hashes (--generate-hashes)"
        )
    return known, None, problem


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines, numbered from 1: without comments, and joined where one ends in a backslash."""
    start, pieces = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if not pieces:
            start = number
        comment = line.lstrip().startswith("#")
        line = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if line.endswith("\\") and not comment:
            pieces += line[:-1] + " "
            continue
        whole, pieces = (pieces + line).strip(), ""
        if whole:
            yield start, whole


def _read_pex(document: dict[str, Any], target: WheelTarget) -> Lock:
    if not isinstance(document.get("locked_resolves"), list):
        raise UserError("the lock file is JSON, but not what PEX writes")
    chosen = [r for r in document["locked_resolves"] if _is_for(r.get("platform_tag"), target)]
    if not chosen:
        raise UserError(
            f"the lock file was made for other platforms than {target}: make one of the style "
            "`universal`"
        )
    reader = _Reader(target)
    for locked in chosen[0]["locked_requirements"]:
        artifacts = locked["artifacts"]
        direct = [a for a in artifacts if not str(a["url"]).startswith(("https:", "http:"))]
        problem = _DIRECT if len(direct) == len(artifacts) else None
        hashes = [f"{a['algorithm']}:{a['hash']}" for a in artifacts if a not in direct]
        known, _, problem = _checked(hashes, problem)
        name, version = canonicalize_name(str(locked["project_name"])), str(locked["version"])
        requires = tuple(map(Requirement, locked["requires_dists"]))
        reader.add(Pin(name, version, known, requires, problem), [])
    excluded = {canonicalize_name(Requirement(r).name) for r in document.get("excluded") or ()}
    return reader.lock(excluded, has_graph=True)


def _is_for(platform_tag: list[str] | None, target: WheelTarget) -> bool:
    """Whether a tag of the lock's maker is of the target's kind.

    Such as (`cp312`, `cp312`, `manylinux_2_36_x86_64`).
    """
    if platform_tag is None:
        return True
    python, _, platform = platform_tag
    return (
        python == "cp" + target.minor.replace(".", "")
        and "linux" in platform
        and platform.endswith(f"_{target.machine}")
    )


def _read_toml(document: dict[str, Any], target: WheelTarget) -> Lock:
    """`uv.lock`, or `pylock.toml`."""
    reader, of_uv = _Reader(target), "package" in document
    for package in document["package" if of_uv else "packages"]:
        name, version = canonicalize_name(package["name"]), str(package.get("version", ""))
        source = package.get("source", {"registry": ""}) if of_uv else {"registry": ""}
        if "editable" in source or "virtual" in source:
            continue  # the project that the lock was made for
        direct = "registry" not in source or {"vcs", "directory", "archive"} & package.keys()
        files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
        hashes = [
            *(f["hash"] for f in files if "hash" in f),
            *(f"{kind}:{digits}" for f in files for kind, digits in f.get("hashes", {}).items()),
        ]
        markers = package.get("resolution-markers", [])
        if "marker" in package:
            markers = [package["marker"]]
        pin = Pin(name, version, *_checked(hashes, _DIRECT if direct else None))
        reader.add(pin, map(Marker, markers))
    return reader.lock()


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
