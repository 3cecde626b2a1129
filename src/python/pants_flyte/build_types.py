"""What the rules of this backend ask of each other, and get: requests and results, no rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from pants.engine.addresses import Address
from pants.engine.fs import Digest
from pants.util.frozendict import FrozenDict

from flyte_pack.bundle_plan import BundleSummary
from flyte_pack.task_link import TaskLink
from flyte_shim.manifest import EntryPoint


@dataclass(frozen=True)
class BundleRequest:
    """A code bundle: what `address` reaches in the graph, and for `all` what lies beside it.

    root_dir: "" is the build root, None strips source roots. stem: the output path without its
    ending. resolve: the Python resolve whose targets may own files.
    """

    address: Address
    copy_style: str
    root_dir: Optional[str]
    entry_points: Tuple[EntryPoint, ...]
    stem: str
    resolve: str


@dataclass(frozen=True)
class BuiltBundle:
    """`digest` holds the archive and the manifest at their output paths; `modules` are the bundle's
    modules, path in the bundle -> path from the build root, by which a shared bundle proves that it
    holds an entry point."""

    digest: Digest
    archive: str
    manifest: str
    summary: BundleSummary
    modules: FrozenDict[str, str]


@dataclass(frozen=True)
class TaskRequest:
    """A `flyte_task`; `copy_style` and `root_dir`, where not None, override what it says."""

    address: Address
    copy_style: Optional[str] = None
    root_dir: Optional[str] = None


@dataclass(frozen=True)
class BuiltTask:
    """The link at `link_path` in `link_digest`, and the bundle it names (None: the code is in an image).

    `owns_bundle` is False where the bundle is that of a `flyte_bundle`.
    """

    address: Address
    link: TaskLink
    link_path: str
    link_digest: Digest
    bundle: Optional[BuiltBundle]
    owns_bundle: bool
