"""Requests and results of the rules of this backend."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import FrozenSet, Mapping, Optional, Tuple

from pants.engine.addresses import Address
from pants.engine.fs import Digest
from pants.engine.target import Target
from pants.util.frozendict import FrozenDict

from flyte_pack.bundle_plan import BundleSummary
from flyte_pack.code.completeness import Finding
from flyte_pack.explain import Artifact, PackedLayer
from flyte_pack.json_fields import Digest as ImageDigest
from flyte_pack.manifest import EntryPoint
from flyte_pack.task_link import LinkedFile, TaskLink


@dataclass(frozen=True)
class ClosureRequest:
    """Asks for all that `address` reaches, and the `__init__.py` files above that.

    entry_owners: the targets of its entry points, for reasons. resolve: the Python resolve whose
    targets may own files. reasons: whether to find out why each file is there, which is most of the
    work.
    """

    address: Address
    entry_owners: FrozenSet[Address]
    resolve: str
    reasons: bool = True


@dataclass(frozen=True)
class Reason:
    """Why a target is in a closure (see `flyte_pack.manifest.REASONS`), and who brought it."""

    kind: str
    by: Optional[str]


@dataclass(frozen=True)
class SourceFile:
    """A file of a bundle, before it has a place there.

    path: from the build root, as hydrated (so a generated file has its generated path).
    owner: the target that brings it; None for a file that no target owns.
    source_root: the root that Pants knows for it; None where it keeps its path (`files` targets).
    python: whether it is a module.
    generated: whether it comes from a rule rather than from the file of that path.
    beside: whether it is there only for `copy_style="all"`.
    """

    path: str
    owner: Optional[Address]
    source_root: Optional[str]
    python: bool
    generated: bool = False
    beside: bool = False

    @property
    def stripped(self) -> str:
        """The path below its source root: for a module, the one that importers know it by."""
        if self.source_root in (None, "", "."):
            return self.path
        return os.path.relpath(self.path, self.source_root)


@dataclass(frozen=True)
class ClosureGraph:
    """The targets of a closure, and what each needs in it, with the kind of reason.

    excluded: dependencies that are not in the closure, each with a target that takes it out and the
        mark by which it does: `!`, or `!!`, which may stand in the root.
    through: the tasks, and groups of them, that the root takes its dependencies from.
    """

    targets: Tuple[Target, ...] = ()
    needs: FrozenDict[Address, Tuple[Tuple[Address, str], ...]] = field(default_factory=FrozenDict)
    excluded: FrozenDict[Address, Tuple[Address, str]] = field(default_factory=FrozenDict)
    through: Tuple[Address, ...] = ()


@dataclass(frozen=True)
class Closure:
    """Files, without the bytes of those that are in the repository as they are.

    digest_of: the digest that holds a file, by its path and owner, where its target had to be
        hydrated. Two digests may have different files at one path, and then cannot be merged.
    reasons: by address of the owner, if they were asked for. A file without an owner is part of a
        package.
    unowned_code: the `__init__.py` files that have code and no owner.
    bare: the `__init__.py` files that are there for the sake of other modules alone.
    graph: what the reasons were found in, if they were asked for.
    """

    files: Tuple[SourceFile, ...] = ()
    digest_of: FrozenDict[Tuple[str, Optional[Address]], Digest] = field(default_factory=FrozenDict)
    reasons: FrozenDict[Address, Reason] = field(default_factory=FrozenDict)
    unowned_code: Tuple[str, ...] = ()
    bare: FrozenSet[str] = frozenset()
    graph: ClosureGraph = field(default_factory=ClosureGraph)

    @property
    def modules(self) -> Tuple[SourceFile, ...]:
        """Those that the graph reaches."""
        return tuple(file for file in self.files if file.python and file.path not in self.bare)


@dataclass(frozen=True)
class Contents:
    """What a bundle is packed from, or what an image has of the repository.

    placed: the files by their path in it.
    ignored: what `copy_style="all"` leaves out, with the ignore file that says so.
    """

    closure: Closure
    placed: Mapping[str, SourceFile]
    ignored: Mapping[str, str]


@dataclass(frozen=True)
class BundleRequest:
    """Asks for a code bundle: what `address` reaches, and for `all` what lies beside it.

    root_dir: "" is the build root, None strips source roots.
    stem: the output path without its ending.
    resolve: the Python resolve whose targets may own files.
    max_size, max_files: its budget, in bytes and files. sbom: whether to list what is in it.
    """

    address: Address
    copy_style: str
    root_dir: Optional[str]
    entry_points: Tuple[EntryPoint, ...]
    stem: str
    resolve: str
    max_size: Optional[int] = None
    max_files: Optional[int] = None
    sbom: bool = False


@dataclass(frozen=True)
class CompletenessRequest:
    """Asks what the code of an artifact needs, and the artifact does not have.

    address: the target that it is made for. placed: its files by path, from where imports start,
    each with the digest that holds it; None: the repository.
    """

    address: Address
    resolve: str
    placed: FrozenDict[str, Tuple[SourceFile, Optional[Digest]]]


@dataclass(frozen=True)
class Completeness:
    """findings: what is missing. unknown: what is found by a name that the source does not say."""

    findings: Tuple[Finding, ...]
    unknown: Tuple[str, ...] = ()


@dataclass(frozen=True)
class BuiltBundle:
    """`digest` holds the archive and the manifest at their output paths, and the SBOM, if any.

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
    sbom: Optional[LinkedFile] = None


@dataclass(frozen=True)
class ExplainRequest:
    """Asks what a target ships, and why. `copy_style` overrides the target's, where not None.

    packed: whether to pack it, for the sizes that files have then.
    """

    address: Address
    copy_style: Optional[str] = None
    packed: bool = False


@dataclass(frozen=True)
class PackedRequest:
    """Asks for the sizes in the bundle or image of a target; as `ExplainRequest`."""

    address: Address
    copy_style: Optional[str] = None


@dataclass(frozen=True)
class Packed:
    """archive: bytes of that of a bundle, None for an image. files: those in it or in layers, by
    path: bytes there. layers: of an image; what they hold of no package has paths as names.
    workdir: of an image, below which its code is.
    """

    archive: Optional[int]
    files: FrozenDict[str, int]
    layers: Tuple[PackedLayer, ...] = ()
    workdir: str = ""


@dataclass(frozen=True)
class ShippedRequest:
    """Asks what a target ships, whatever the bytes of the files are; else as `ExplainRequest`."""

    address: Address
    copy_style: Optional[str] = None


@dataclass(frozen=True)
class Shipped:
    """what, resolve, copy_style: as of `Explained`. beside: why files are there that no target
    brings. artifact: what is known of it without its files.
    """

    what: str
    resolve: str
    copy_style: Optional[str]
    beside: str
    contents: Contents
    artifact: Artifact


@dataclass(frozen=True)
class Explained:
    """what: says what the artifact of `address` is.

    resolve, copy_style: of the artifact; an image has none of the latter.
    excluded: targets that something takes out: the address, who, and the mark, `!` or `!!`.
    """

    address: Address
    what: str
    artifact: Artifact
    resolve: str
    copy_style: Optional[str]
    excluded: Tuple[Tuple[Address, Address, str], ...]


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
    sbom: in `digest`, if it was asked for. base_digest: of its base.
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
    sbom: Optional[LinkedFile] = None
    base_digest: Optional[ImageDigest] = None


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
