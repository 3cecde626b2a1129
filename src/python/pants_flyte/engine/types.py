"""What the port takes and returns where Pants' own type differs between Pants generations."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Collection, Dict, FrozenSet, Mapping, Tuple

from pants.backend.python.dependency_inference.rules import ImportOwnerStatus
from pants.backend.python.util_rules.pex import VenvPex
from pants.backend.python.util_rules.pex_environment import CompletePexEnvironment
from pants.base.build_environment import get_buildroot
from pants.build_graph.address import Address
from pants.engine.fs import Digest, DigestContents
from pants.source.source_root import SourceRootsRequest, SourceRootsResult
from pants.util.frozendict import FrozenDict

from flyte_pack.checkout import Checkout, Unknown, commit_of
from flyte_pack.ignore_files import IGNORE_FILES
from flyte_pack.import_scan import is_suspect
from flyte_pack.module_scan import may_have_tasks


@dataclass(frozen=True)
class ToolEnvironment:
    """A Python program ready to be started interactively.

    `argv0` and `python`, the interpreter with its packages, are relative to the sandbox. `env` is
    what PEX needs there.
    """

    digest: Digest
    argv0: str
    python: str
    env: FrozenDict[str, str]
    append_only_caches: FrozenDict[str, str]

    @classmethod
    def of(
        cls, tool: VenvPex, complete: CompletePexEnvironment, env: Mapping[str, str]
    ) -> ToolEnvironment:
        caches = {**complete.append_only_caches, **(tool.append_only_caches or FrozenDict())}
        return cls(
            tool.digest, tool.pex.argv0, tool.python.argv0, FrozenDict(env), FrozenDict(caches)
        )


@dataclass(frozen=True)
class SuspectSources:
    """Paths of sources: in which Pants' parser could have missed an import, and those that may
    define tasks.
    """

    paths: FrozenSet[str]
    tasks: FrozenSet[str] = frozenset()

    @classmethod
    def among(cls, files: DigestContents) -> SuspectSources:
        return cls(
            frozenset(file.path for file in files if is_suspect(file.content)),
            frozenset(file.path for file in files if may_have_tasks(file.content)),
        )


@dataclass(frozen=True)
class CheckedOut:
    """The commit that is checked out in the build root, or why it is unknown."""

    commit: str
    unknown: str = ""

    @classmethod
    def in_build_root(cls) -> CheckedOut:
        try:
            return cls(commit_of(get_buildroot()))
        except Unknown as why:
            return cls("", str(why))


@dataclass(frozen=True)
class IgnoreFilesAbove:
    """What the git checkout around the build root ignores, as far as that stands outside of it.

    prefix: the build root below the top of the checkout, with "/" at the end; "" without one.
    contents: ignore files in directories above the build root, by path from the top.
    exclude: what `.git/info/exclude` holds.
    """

    prefix: str
    contents: FrozenDict[str, bytes]
    exclude: bytes

    @classmethod
    def of_build_root(cls) -> IgnoreFilesAbove:
        try:
            checkout = Checkout.around(get_buildroot())
        except (OSError, Unknown):
            checkout = None
        if checkout is None:
            return cls("", FrozenDict(), b"")
        prefix = os.path.relpath(os.path.realpath(get_buildroot()), checkout.top)
        prefix = "" if prefix == os.curdir else f"{prefix}/"
        above = ["", *(prefix[: found.end()] for found in re.finditer("/", prefix))][:-1]
        paths = [f"{directory}{name}" for directory in above for name in IGNORE_FILES]
        found = {path: _content(os.path.join(checkout.top, path)) for path in paths}
        return cls(
            prefix,
            FrozenDict({path: content for path, content in found.items() if content}),
            _content(checkout.exclude_file),
        )


def _content(path: str) -> bytes:
    """The content of a file; empty where there is none."""
    return Path(path).read_bytes() if os.path.isfile(path) else b""


@dataclass(frozen=True)
class ImportInfo:
    """Where a module is imported. A weak import may have no owner."""

    line: int
    weak: bool


@dataclass(frozen=True)
class ImportOwners:
    """The owners of imported names, and the names that should have an owner and have none."""

    addresses: Tuple[Address, ...]
    unowned: FrozenSet[str]

    @classmethod
    def of(cls, resolved: Mapping[str, Any]) -> ImportOwners:
        """resolved: Pants' results by imported name."""
        return cls(
            tuple(sorted({address for result in resolved.values() for address in result.address})),
            frozenset(n for n, r in resolved.items() if r.status is ImportOwnerStatus.unowned),
        )


def source_roots_request(paths: Collection[str]) -> SourceRootsRequest:
    """Asks by directory: they are far fewer than files, and Pants sorts them as path objects."""
    return SourceRootsRequest((), {PurePath(d) for d in set(map(os.path.dirname, paths))})


def root_of_each(paths: Collection[str], found: SourceRootsResult) -> Dict[str, str]:
    """What `source_roots` returns, from the answer to `source_roots_request`."""
    roots = {str(directory): root.path for directory, root in found.path_to_root.items()}
    return {path: roots[os.path.dirname(path) or "."] for path in paths}
