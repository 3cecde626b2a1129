"""Types of our own for what differs between Pants generations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import FrozenSet, Mapping, Tuple

from pants.build_graph.address import Address
from pants.engine.fs import Digest
from pants.util.frozendict import FrozenDict


@dataclass(frozen=True)
class ToolEnvironment:
    """A Python program ready to be started interactively.

    `argv0` is relative to the sandbox; `env` is what PEX needs there. python: the interpreter with its packages, likewise
    relative.
    """

    digest: Digest
    argv0: str
    python: str
    env: FrozenDict[str, str]
    append_only_caches: FrozenDict[str, str]

    def __init__(
        self,
        *,
        digest: Digest,
        argv0: str,
        python: str,
        env: Mapping[str, str],
        append_only_caches: Mapping[str, str],
    ) -> None:
        object.__setattr__(self, "digest", digest)
        object.__setattr__(self, "argv0", argv0)
        object.__setattr__(self, "python", python)
        object.__setattr__(self, "env", FrozenDict(env))
        object.__setattr__(self, "append_only_caches", FrozenDict(append_only_caches))


@dataclass(frozen=True)
class SearchPath:
    """The directories that Pants looks for programs in."""

    directories: Tuple[str, ...]


@dataclass(frozen=True)
class SuspectSources:
    """Sources of which Pants' parser could have lost an import, by their paths."""

    paths: FrozenSet[str]


@dataclass(frozen=True)
class ImportInfo:
    """Where a module is imported, and whether only perhaps: no owner is then no mistake of the user's."""

    line: int
    weak: bool


@dataclass(frozen=True)
class ImportOwners:
    """What Pants makes of imported names: their owners, and the names that should have one and have none."""

    addresses: Tuple[Address, ...]
    unowned: FrozenSet[str]
