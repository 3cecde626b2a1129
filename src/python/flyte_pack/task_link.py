"""The task link: what `package` makes of a `flyte_task`, and what `run` and `deploy` start from.

It ties an entry point to its image and its code bundle (or to an image that embeds the code), and
holds the container's command. An argument that is `${VERSION}` or `${BUNDLE_URI}` is a hole in the
command, filled in by deploying.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Iterable, Optional, Sequence, Tuple

from flyte_pack.json_fields import Digest, Document, InvalidData, SafePath, Sha256, one_of
from flyte_pack.manifest import BundleHashes
from flyte_pack.names import TargetAddress

VERSION_HOLE = "${VERSION}"
BUNDLE_URI_HOLE = "${BUNDLE_URI}"
COPY_STYLES = ("auto", "all", "none")
CopyStyle = Annotated[str, one_of(*COPY_STYLES)]
Kind = Annotated[str, one_of("task", "environment", "app")]


@dataclass(frozen=True)
class LinkedFile:
    """path: relative to a directory that is given beside the link. size: in bytes."""

    path: SafePath
    size: int
    sha256: Sha256


@dataclass(frozen=True)
class LinkedBundle(BundleHashes):
    """A bundle's files, relative to a directory that is given beside the link, and their hashes.

    sbom: its inventory, where one was asked for.
    """

    OMITTED = ("sbom",)

    archive: SafePath
    manifest: SafePath
    sbom: Optional[LinkedFile] = None


@dataclass(frozen=True)
class LinkedImage:
    """An image that the build makes.

    address: its target. layout: the directory of its OCI layout, relative as a bundle's files are.
    digest: of its index or manifest. ref_name: what code may call it.
    """

    address: TargetAddress
    layout: SafePath
    digest: Digest
    ref_name: Optional[str]
    workdir: str


@dataclass(frozen=True)
class LinkedTask:
    """One Flyte task: its name in its module, and the container's command, with the holes."""

    name: str
    command: Tuple[str, ...]


def module_of(command: Sequence[str]) -> str:
    """The module that a container's command imports the task from; "" if it names none."""
    last = tuple(command[-4:])
    return last[1] if last[:1] == ("mod",) and last[2:3] == ("instance",) else ""


def more_modules(kind: str, module: str, commands: Iterable[Sequence[str]]) -> Tuple[str, ...]:
    """The modules to import after that of an entry point, so that all its tasks are known.

    There are some where an environment has no task in its own file.
    """
    found = tuple(dict.fromkeys(filter(None, map(module_of, commands))))
    return () if kind == "task" or module in found else found


@dataclass(frozen=True)
class TaskLink(Document):
    """Everything that is known of a `flyte_task` when it is packaged.

    address: the target. entry_point: `path:attribute`; the path is below the root of the bundle, or
    below the working directory of the image that embeds the code. kind: whether the attribute is a
    task, or an environment, whose tasks are then all in `tasks`, with their modules in their
    commands, or an app, which is then the only one in `tasks`. bundle: None if, and only if,
    copy_style is "none". image: a reference (it has a "/", ":" or "@"), or the name of one that is
    given when deploying; None where the image is `built_image`, or the code's own needs no build.
    published_by: the target whose `publish` pushes the reference `image`, if that is known.
    allowed_variables: names of those that hold no secret, whatever they look like.

    Raises `InvalidData` where these contradict each other.
    """

    NAME = "task link"
    OMITTED = ("allowed_variables",)

    address: TargetAddress
    entry_point: str
    kind: Kind
    module: str
    root_dir: Optional[str]
    copy_style: CopyStyle
    bundle: Optional[LinkedBundle]
    image: Optional[str]
    tasks: Tuple[LinkedTask, ...]
    built_image: Optional[LinkedImage] = None
    published_by: Optional[TargetAddress] = None
    allowed_variables: Optional[Tuple[str, ...]] = None

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise InvalidData(f"task link of {self.address}: {problem}")

    def _problem(self) -> str | None:
        if (self.bundle is None) != (self.copy_style == "none"):
            has = "has no bundle" if self.bundle is None else "has a bundle"
            return f"{has} with copy_style {self.copy_style!r}"
        if not (self.address and self.entry_point and self.module):
            return "address, entry_point or module is empty"
        if self.image is not None and self.built_image is not None:
            return "there are two images"
        if self.published_by is not None and not self.image_is_reference:
            return "no image is named that could be published"
        if not self.tasks or (self.kind != "environment" and len(self.tasks) > 1):
            return f"a {self.kind} with {len(self.tasks)} tasks"
        if len({task.name for task in self.tasks}) < len(self.tasks):
            return "two tasks have the same name"
        for task in self.tasks:
            if not task.name or not task.command:
                return "a task without a name or a command"
            if (self.bundle is None) == (BUNDLE_URI_HOLE in task.command):
                return (
                    f"task {task.name}: {BUNDLE_URI_HOLE} belongs in the command of a task with a "
                    "bundle, and in no other"
                )
        return None

    def undescribed(self) -> TaskLink:
        """Equal for equal content, whatever the manifest and the inventory say of it."""
        if self.bundle is None:
            return self
        plain = replace(self.bundle, manifest_hash=Sha256("0" * 64), manifest_size=0, sbom=None)
        return replace(self, bundle=plain)

    @property
    def image_is_reference(self) -> bool:
        """Whether `image` says where the image is, rather than naming a mapping that does."""
        return self.image is not None and any(c in self.image for c in "/:@")
