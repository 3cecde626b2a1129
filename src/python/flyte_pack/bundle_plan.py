"""The input of the packer, a `BundlePlan`, and its output, a `BundleSummary`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple

from flyte_pack.json_fields import Document, Raw
from flyte_pack.manifest import BundleCopyStyle, BundleHashes, EntryPoint, ManifestGraph, Reason


class PlanFile(NamedTuple):
    """One file of a bundle; a named tuple because a plan has tens of thousands.

    `source` is where it is, below the directory of sources; `path` is where it goes in the bundle.
    `owner` is the address of the target that owns it, if one does; `reason`, one of `REASONS`, is
    why it is in the bundle; `by` is the address of the target that brought it in, if one did.
    `kind`, `package_root` and `origin` are as of a `ManifestFile`, where `origin` is `source`.
    `bare`: whether it is an `__init__.py` that no target needs.
    """

    source: Raw
    path: Raw
    owner: Optional[Raw]
    reason: Reason
    by: Optional[Raw]
    kind: Optional[Raw] = None
    package_root: Optional[Raw] = None
    origin: Optional[Raw] = None
    bare: bool = False


@dataclass(frozen=True)
class BundlePlan(Document):
    """All that decides a bundle but the bytes of its files. `files` may come in any order.

    graph: has every owner and `by` of a file among its targets. Without it the manifest has
    schema 1.
    """

    NAME = "bundle plan"
    COMPACT = True
    OMITTED = ("graph",)

    copy_style: BundleCopyStyle
    root_dir: Optional[str]
    entry_points: Tuple[EntryPoint, ...]
    files: Tuple[PlanFile, ...]
    graph: Optional[ManifestGraph] = None


@dataclass(frozen=True)
class BundleSummary(Document, BundleHashes):
    """The packed bundle; `files` and `bytes` are their number and the sum of their sizes."""

    NAME = "bundle summary"

    files: int
    bytes: int
