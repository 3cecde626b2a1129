"""What the port takes and returns where Pants' own type differs between Pants generations."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Collection, Dict, FrozenSet, Mapping, Optional, Tuple

from pants.backend.python.dependency_inference.rules import ImportOwnerStatus
from pants.backend.python.util_rules.pex import VenvPex
from pants.backend.python.util_rules.pex_environment import CompletePexEnvironment
from pants.base.build_environment import get_buildroot
from pants.build_graph.address import Address
from pants.core.util_rules.system_binaries import BashBinary
from pants.engine.fs import Digest, DigestContents
from pants.engine.process import Process
from pants.source.source_root import SourceRootsRequest, SourceRootsResult
from pants.util.frozendict import FrozenDict

from flyte_pack.checkout import Checkout, Unknown, commit_of
from flyte_pack.code.bound_names import UNKNOWN, Bound, bound_in
from flyte_pack.code.code_scan import CodeScan, names_without_import, scan_code
from flyte_pack.code.import_scan import is_suspect
from flyte_pack.code.module_scan import may_have_tasks
from flyte_pack.errors import UserError
from flyte_pack.ignore_files import IGNORE_FILES


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
class ProgramSources:
    """The modules of the program, `flyte_pack` with `flyte_shim`."""

    digest: Digest


def program_files() -> Dict[str, bytes]:
    """The content of the program's modules by path, from a checkout or a wheel."""
    files: Dict[str, bytes] = {}
    for package in ("flyte_pack", "flyte_shim"):
        top = Path(str(importlib.import_module(package).__file__)).parent
        for path in sorted(top.rglob("*.py")):
            name = os.path.join(package, path.relative_to(top).as_posix())
            files[name] = path.read_bytes()
    return files


@dataclass(frozen=True)
class SuspectSources:
    """Paths of sources: in which Pants' parser could have missed an import, those that may define
    tasks, and those that may name modules or files without an import statement.
    """

    paths: FrozenSet[str]
    tasks: FrozenSet[str] = frozenset()
    naming: FrozenSet[str] = frozenset()

    @classmethod
    def among(cls, files: DigestContents) -> SuspectSources:
        return cls(
            frozenset(file.path for file in files if is_suspect(file.content)),
            frozenset(file.path for file in files if may_have_tasks(file.content)),
            frozenset(file.path for file in files if names_without_import(file.content)),
        )


@dataclass(frozen=True)
class CodeScans:
    """What each module of a directory needs, by path. Tests are left out: they seldom ship."""

    by_path: FrozenDict[str, CodeScan]

    @classmethod
    def among(cls, files: DigestContents) -> CodeScans:
        return cls(
            FrozenDict(
                {
                    file.path: _scanned(file.content, file.path)
                    for file in files
                    if file.path.endswith(".py")
                    and not _TEST.fullmatch(os.path.basename(file.path))
                }
            )
        )


_TEST = re.compile(r"test_.*\.py|.*_test\.py|tests\.py|conftest\.py")


def _scanned(source: bytes, path: str) -> CodeScan:
    try:
        return scan_code(source, path)
    except (SyntaxError, ValueError) as error:
        return CodeScan(problem=str(error))


def bound_in_first(files: DigestContents) -> Bound:
    """What a module binds. files: it alone; none if it is gone."""
    return next((bound_in(file.content, file.path) for file in files), UNKNOWN)


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


def started_by(bash: BashBinary, process: Process, kept: Optional[Mapping[str, Digest]]) -> Process:
    """The process of a `VenvPexProcess`, with immutable inputs, for which that has no field.

    Pants has the kernel execute the PEX's shim, which it has just written: that fails (ETXTBSY)
    where another process was forked meanwhile, and its second attempt always fails (EINVAL: it
    makes a session twice). Bash reads the shim instead, which nothing keeps from it.
    """
    return replace(
        process,
        argv=(bash.path, *process.argv),
        immutable_input_digests=FrozenDict(kept or process.immutable_input_digests),
    )


def source_roots_request(paths: Collection[str]) -> SourceRootsRequest:
    """Asks by directory: they are far fewer than files, and Pants sorts them as path objects."""
    return SourceRootsRequest((), {PurePath(d) for d in set(map(os.path.dirname, paths))})


def root_of_each(paths: Collection[str], found: SourceRootsResult) -> Dict[str, str]:
    """What `source_roots` returns, from the answer to `source_roots_request`."""
    roots = {str(directory): root.path for directory, root in found.path_to_root.items()}
    return {path: roots[os.path.dirname(path) or "."] for path in paths}


def with_advice(error: Exception) -> Exception:
    """What to write where Pants met a link that it refuses, most often one of an environment."""
    found = re.search(r'Failed to read link "([^"]+)": Absolute symlink', str(error))
    if found is None:
        return error
    link = os.path.relpath(found[1], get_buildroot())
    directory = os.path.dirname(link)
    if os.path.basename(directory) == "bin":
        directory = os.path.dirname(directory)
    return UserError(
        f"{link} is an absolute symbolic link, as virtual environments have them. Pants refuses "
        f"these wherever it looks for BUILD files. Have it pass by the directory, in pants.toml:"
        f'\n\n[GLOBAL]\npants_ignore.add = ["/{directory}/"]\n'
    )
