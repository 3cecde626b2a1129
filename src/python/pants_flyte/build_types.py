"""Requests and results of the rules of this backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import FrozenSet, Optional, Tuple

from pants.engine.addresses import Address
from pants.engine.fs import Digest
from pants.util.frozendict import FrozenDict

from flyte_pack.bundle_plan import BundleSummary
from flyte_pack.json_fields import Digest as ImageDigest
from flyte_pack.manifest import EntryPoint
from flyte_pack.task_link import TaskLink


@dataclass(frozen=True)
class BundleRequest:
    """Asks for a code bundle: what `address` reaches, and for `all` what lies beside it.

    root_dir: "" is the build root, None strips source roots.
    stem: the output path without its ending.
    resolve: the Python resolve whose targets may own files.
    """

    address: Address
    copy_style: str
    root_dir: Optional[str]
    entry_points: Tuple[EntryPoint, ...]
    stem: str
    resolve: str


@dataclass(frozen=True)
class BuiltBundle:
    """`digest` holds the archive and the manifest at their output paths.

    modules: path in the bundle -> path from the build root. They show whether a shared bundle
        holds an entry point.
    left_out: each ignore file, and how many files it leaves out.
    """

    digest: Digest
    archive: str
    manifest: str
    summary: BundleSummary
    modules: FrozenDict[str, str]
    left_out: Tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageRequest:
    """Asks for a `flyte_image`.

    code: whether it holds its first-party code; None leaves that to the target.
    """

    address: Address
    code: Optional[bool] = None


@dataclass(frozen=True)
class BuiltImage:
    """`digest` holds the OCI image layout at `layout`, sparse where `base_name` is not None.

    image_digest: of its index, or its one manifest.
    embeds_code: whether it was made to hold its first-party code.
    own_output: whether the target's own package writes this very layout.
    code: first-party files in it: path in the image -> path from the build root.
    modules: first-party modules that its dependencies reach; its test imports them.
    notes: what of the base is not as it was.
    distributions: names of those that can be imported on every platform, as far as is known.
    pythons: minor versions, `3.12`.
    """

    address: Address
    digest: Digest
    layout: str
    image_digest: ImageDigest
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
    notes: Tuple[str, ...] = ()
    distributions: FrozenSet[str] = frozenset()
    pythons: Tuple[str, ...] = ()


@dataclass(frozen=True)
class AskedImageRequest:
    """Asks to compare what the code's own Image asks for with the image that a task is linked to.

    It has no results of other rules: with those, an earlier question could be asked again.
    """

    task: Address
    image: ImageRequest


@dataclass(frozen=True)
class AskedImage:
    """lines: what the linked image may lack, as it was said."""

    lines: Tuple[str, ...]


@dataclass(frozen=True)
class TaskRequest:
    """Asks for a `flyte_task`. `copy_style` and `root_dir` override the target's where not None.

    image: whether to build its `flyte_image`, if it has one.
    mapped: names of images that exist: a `flyte_image` with such a `ref_name` is not built.
    """

    address: Address
    copy_style: Optional[str] = None
    root_dir: Optional[str] = None
    image: bool = True
    mapped: Tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltTask:
    """The link, at `link_path` in `link_digest`, with the bundle and the image that it names.

    bundle: None where the code is in an image.
    owns_bundle: False where the bundle is that of a `flyte_bundle`.
    image: what was built for it, if anything.
    """

    address: Address
    link: TaskLink
    link_path: str
    link_digest: Digest
    bundle: Optional[BuiltBundle]
    owns_bundle: bool
    image: Optional[BuiltImage]
