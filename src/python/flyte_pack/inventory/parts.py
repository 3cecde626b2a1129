"""What an inventory lists, before it has a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple


class File(NamedTuple):
    """A first-party file, and the target in a BUILD file, if one owns it."""

    path: str
    sha256: str
    target: str | None


@dataclass(frozen=True)
class Package:
    """A distribution, or a package of Debian.

    kind: as package URLs name it, `pypi` or `deb`. version: empty where nothing pins it. hashes:
    `algorithm:digits` of the files that the lock file allows. licences: names of its own making;
    expression: in the words of SPDX instead. requires: names of what it needs beside it.
    platforms: where it is, empty for all.
    """

    kind: str
    name: str
    version: str
    hashes: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    expression: str | None = None
    requires: tuple[str, ...] = ()
    qualifiers: Mapping[str, str] | None = None
    platforms: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
        return self.kind, self.name, self.version, tuple(sorted((self.qualifiers or {}).items()))


@dataclass(frozen=True)
class Base:
    """A base image of one platform; name: in a registry, or of its target."""

    name: str
    in_registry: bool
    digest: str
    platform: str


def merged(found: Mapping[str, list[Package]]) -> list[Package]:
    """The packages of all platforms, each once; found: by platform."""
    packages: dict[object, Package] = {}
    where: dict[object, list[str]] = {}
    for platform, those in sorted(found.items()):
        for one in those:
            known = packages.setdefault(one.key, one)
            requires = tuple(sorted({*known.requires, *one.requires}))
            hashes = tuple(sorted({*known.hashes, *one.hashes}))
            packages[one.key] = replace(known, requires=requires, hashes=hashes)
            where.setdefault(one.key, []).append(platform)
    return [
        one if len(where[key]) == len(found) else replace(one, platforms=tuple(where[key]))
        for key, one in packages.items()
    ]
