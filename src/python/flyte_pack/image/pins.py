"""What a lock file pins for one Python and platform, and which extras and groups it is read for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from packaging.markers import Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flyte_pack.errors import UserError
from flyte_pack.image.wheel_target import WheelTarget
from flyte_shim import shown

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_VERSION = re.compile(r"[A-Za-z0-9.!+_*-]*")
_HASH = re.compile(r"(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})")
DIRECT = (
    "it comes from a URL, a repository or a path, and an image takes wheels from a package index "
    "only: build its wheel and put that on an index, or in a directory of wheels "
    "(`[python-repos].find_links`)"
)
UNPINNED = "it is not pinned to one version (==): make the lock file anew"


@dataclass(frozen=True)
class Pin:
    """A locked distribution; name: normalized. requires: what it asks for, where the lock says so.

    problem: why it cannot be installed; that matters only to those who need it. extras: those that
    `requires` tells of; None: all that there are.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    requires: tuple[Requirement, ...] | None = None
    problem: str | None = None
    extras: frozenset[str] | None = None

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


@dataclass(frozen=True)
class Choice:
    """The extras and dependency groups that a lock file of projects is read for; normalized."""

    extras: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @classmethod
    def of(cls, extras: Iterable[str], groups: Iterable[str]) -> Choice:
        return cls(
            frozenset(map(canonicalize_name, extras)), frozenset(map(canonicalize_name, groups))
        )

    def __bool__(self) -> bool:
        return bool(self.extras or self.groups)

    def check_known(self, extras: Iterable[str], groups: Iterable[str]) -> None:
        """Raises `UserError` for what the lock file does not have."""
        for kind, chosen, known in (
            ("extra", self.extras, extras),
            ("dependency group", self.groups, groups),
        ):
            there = set(map(canonicalize_name, known))
            for name in sorted(chosen - there):
                has = f"it has {', '.join(sorted(there))}" if there else "it has none"
                raise UserError(f"the lock file has no {kind} {name!a:.80}: {has}")


NO_CHOICE = Choice()


class Collected:
    """Gathers the pins of a lock file for a target.

    Of one distribution the lock file may have several versions, for extras and groups that
    conflict. Those of the highest rank count, which must be one.
    """

    def __init__(self, target: WheelTarget) -> None:
        self._target = target
        self._pins: dict[str, list[tuple[Pin, int, tuple[str, ...]]]] = {}
        self._elsewhere: set[str] = set()

    def add(self, pin: Pin, here: bool = True, rank: int = 0, of: Iterable[str] = ()) -> None:
        """here: it is for the target. rank: higher for what fits what is chosen better. of: which
        extras and groups have it, for a person. Raises `UserError` for what is no name or version.
        """
        if not _NAME.fullmatch(pin.name) or not _VERSION.fullmatch(pin.version):
            raise UserError(f"the lock file pins {str(pin)!a:.80}, which is no name and version")
        if here:
            self._pins.setdefault(pin.name, []).append((pin, rank, tuple(of)))
        else:
            self._elsewhere.add(pin.name)

    def several(self) -> bool:
        """Whether there are several versions of anything."""
        return any(len({p.version for p, _, _ in these}) > 1 for these in self._pins.values())

    def lock(self, excluded: Iterable[str] = (), has_graph: bool = False) -> Lock:
        pins = {name: self._pin_of(name) for name in self._pins}
        elsewhere = frozenset(self._elsewhere - pins.keys())
        return Lock(pins, elsewhere, frozenset(excluded), has_graph)

    def _pin_of(self, name: str) -> Pin:
        these = self._pins[name]
        highest = max(rank for _, rank, _ in these)
        these = [row for row in these if row[1] == highest]
        first = these[0][0]
        if all(pin.version == first.version for pin, _, _ in these):
            hashes = dict.fromkeys(h for pin, _, _ in these for h in pin.hashes)
            fine = any(pin.problem is None for pin, _, _ in these)
            return replace(first, hashes=tuple(hashes), problem=None if fine else first.problem)
        has = {pin.version + (f" ({', '.join(of)})" if of else "") for pin, _, of in these}
        problem = (
            f"the lock file pins {name} more than once for {self._target}: "
            f"{' and '.join(sorted(has))}"
        )
        if any(of for _, _, of in these):
            problem += ". Say which is meant by `lock_extras` or `lock_groups` of the `flyte_image`"
        return Pin(name, "", (), problem=problem)


def holds(marker: Marker | None, target: WheelTarget, extra: str = "") -> bool:
    """Whether the environment marker is true for `target`; a missing one is.

    So is one that compares what has no order (`os_name ~= "posix"`), as for uv, which installs.
    """
    try:
        return marker is None or marker.evaluate({**target.marker_environment, "extra": extra})
    except (UndefinedComparison, UndefinedEnvironmentName):
        return True


def decided(marker: str, pattern: re.Pattern[str], is_true: Callable[[re.Match[str]], bool]) -> str:
    """The marker with what matches `pattern` replaced by what is always true, or never.

    For the comparisons that only lock files have, and that need not hold a single value.
    """
    return pattern.sub(
        lambda found: f"python_version {'>=' if is_true(found) else '<'} '0'", marker
    )


def checked(
    hashes: Iterable[str], problem: str | None = None
) -> tuple[tuple[str, ...], str | None]:
    """The hashes that uv can check, and the problem, which may be that there are none."""
    known = tuple(dict.fromkeys(h for h in hashes if _HASH.fullmatch(h)))
    if not known and problem is None:
        problem = (
            "it has no SHA-256 in the lock file: make that anew with hashes (--generate-hashes; "
            "uv.lock has none for a directory of wheels, only for an index)"
        )
    return known, problem


def wheel_at(place: str) -> tuple[str, str] | None:
    """Name and version of a wheel file at a path or `file:` URL, or None if it is none.

    Such a wheel is taken from wherever this machine is told to look for wheels.
    """
    if re.match(r"(?!file:)[a-z0-9+.-]{2,}:", place, re.IGNORECASE):
        return None
    name = re.split(r"[/\\]", place.partition("#")[0].partition("?")[0])[-1]
    name = name.replace("%2B", "+").replace("%2b", "+")
    found = re.fullmatch(
        r"(?P<name>\w[\w.]*)-(?P<version>[\w.!+]+)(-\d\w*)?-[^-]+-[^-]+-[^-]+\.whl", name
    )
    return (canonicalize_name(found["name"]), found["version"]) if found else None


def check_python(specifier: object, target: WheelTarget) -> None:
    """Raises `UserError` if the lock file was not made for the target's Python."""
    if specifier is not None and not target.satisfies(str(specifier)):
        raise UserError(
            f"the lock file is for Python {shown.line(str(specifier), longest=60)}, and "
            f"{target.holder} has {target.python}"
        )


def check_environments(markers: Iterable[str], target: WheelTarget) -> None:
    """Raises `UserError` if the lock file was made for other environments."""
    markers = list(markers)
    if markers and not any(holds(Marker(marker), target) for marker in markers):
        raise UserError(
            f"the lock file was made for other environments than {target}: "
            f"{shown.line('; '.join(markers), longest=200)}"
        )
