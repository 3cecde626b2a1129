"""What the rules of this backend ask of each other, and get: requests and results, no rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from pants.engine.addresses import Address
from pants.engine.fs import Digest
from pants.util.frozendict import FrozenDict

from flyte_pack.bundle_plan import BundleSummary
from flyte_pack.manifest import EntryPoint
from flyte_pack.task_link import TaskLink


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
class ImageRequest:
    """A `flyte_image`; code: whether it holds its first-party code, where None asks for what the target says."""

    address: Address
    code: Optional[bool] = None


@dataclass(frozen=True)
class BuiltImage:
    """`digest` holds the OCI image layout at `layout`, sparse where `base_name` is not None.

    image_digest: of its index, or its one manifest. code: path in the image -> path from the build root of each first-party
    file that is in it. modules: names of the first-party modules that its dependencies reach, by which it is tested.
    embeds_code: whether it was made to hold them. own_output: whether the target's own package writes this very layout.
    """

    address: Address
    digest: Digest
    layout: str
    image_digest: str
    base_name: Optional[str]
    production: bool
    platforms: Tuple[str, ...]
    workdir: str
    ref_name: Optional[str]
    embeds_code: bool
    own_output: bool
    code: FrozenDict[str, str]
    modules: Tuple[str, ...]
    layers: int
    bytes: int


@dataclass(frozen=True)
class TaskRequest:
    """A `flyte_task`; `copy_style` and `root_dir`, where not None, override what it says.

    image: whether to build its image, where that is a `flyte_image`. mapped: names that stand for images that
    are there already: a `flyte_image` with such a `ref_name` is not built.
    """

    address: Address
    copy_style: Optional[str] = None
    root_dir: Optional[str] = None
    image: bool = True
    mapped: Tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltTask:
    """The link at `link_path` in `link_digest`, and the bundle it names (None: the code is in an image).

    `owns_bundle` is False where the bundle is that of a `flyte_bundle`. image: what was built for it, if that was
    asked for and `image` names a `flyte_image`.
    """

    address: Address
    link: TaskLink
    link_path: str
    link_digest: Digest
    bundle: Optional[BuiltBundle]
    owns_bundle: bool
    image: Optional[BuiltImage]
