"""The task link: what `package` makes of a `flyte_task`, and what `run` and `deploy` start from.

It ties an entry point to its code bundle (or to an image that embeds the code) and its image, and holds the container's
command. The command has two holes, filled in when it is deployed: an argument that is `${VERSION}` or `${BUNDLE_URI}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flyte_pack.json_fields import Fields, InvalidData, dump, load
from flyte_shim.paths import is_sha256, path_problem

SCHEMA = 1
VERSION_HOLE = "${VERSION}"
BUNDLE_URI_HOLE = "${BUNDLE_URI}"
COPY_STYLES = ("auto", "all", "none")
KINDS = ("task", "environment")


@dataclass(frozen=True)
class LinkedBundle:
    """The files of a bundle, relative to the directory that whoever uses the link is given, and what they must be.

    Hashes are SHA-256 in lower-case hexadecimal digits, sizes are in bytes.
    """

    archive: str
    manifest: str
    content_hash: str
    archive_hash: str
    archive_size: int
    manifest_hash: str
    manifest_size: int

    def __post_init__(self) -> None:
        for name in ("archive", "manifest"):
            problem = path_problem(getattr(self, name))
            if problem:
                raise InvalidData(f"bundle: {name} is {problem}")
        for name in ("content_hash", "archive_hash", "manifest_hash"):
            if not is_sha256(getattr(self, name)):
                raise InvalidData(f"bundle: {name} is no SHA-256")


@dataclass(frozen=True)
class LinkedImage:
    """An image that the build makes. address: its target. layout: the directory of its OCI layout, as of a bundle's files.

    digest: of its index or manifest, `sha256:...`. ref_name: what code may call it. workdir: its working directory.
    """

    address: str
    layout: str
    digest: str
    ref_name: str | None
    workdir: str

    def __post_init__(self) -> None:
        problem = path_problem(self.layout)
        if problem:
            raise InvalidData(f"image: layout is {problem}")
        if not is_sha256(self.digest.partition("sha256:")[2]):
            raise InvalidData("image: digest is no sha256:...")

    @classmethod
    def from_fields(cls, fields: Fields) -> LinkedImage:
        image = cls(
            address=fields.text("address"),
            layout=fields.text("layout"),
            digest=fields.text("digest"),
            ref_name=fields.optional_text("ref_name"),
            workdir=fields.text("workdir"),
        )
        fields.end()
        return image


@dataclass(frozen=True)
class LinkedTask:
    """One Flyte task, by the name it has in its module, and the container's command (with the holes)."""

    name: str
    command: tuple[str, ...]

    @classmethod
    def from_fields(cls, fields: Fields) -> LinkedTask:
        task = cls(name=fields.text("name"), command=fields.texts("command"))
        fields.end()
        return task


@dataclass(frozen=True)
class TaskLink:
    """Everything that is known of a `flyte_task` when it is packaged.

    address: the target. entry_point: `path:attribute`, the path being the one in the bundle (with an embedded code, in
    the image below its working directory). kind: whether the attribute is a task, or an environment, whose tasks are
    then all in `tasks`. bundle: None where, and only where, copy_style is "none". image: a reference (it has a "/", ":"
    or "@"), the name of one that is given when deploying, or None (it is built_image, or the code's own image needs no build).

    Raises `InvalidData` where these do not fit together.
    """

    address: str
    entry_point: str
    kind: str
    module: str
    root_dir: str | None
    copy_style: str
    bundle: LinkedBundle | None
    image: str | None
    tasks: tuple[LinkedTask, ...]
    built_image: LinkedImage | None = None

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise InvalidData(f"task link of {self.address}: {problem}")

    def _problem(self) -> str | None:
        if self.kind not in KINDS:
            return f"kind is {self.kind!r}, not one of {', '.join(KINDS)}"
        if self.copy_style not in COPY_STYLES:
            return f"copy_style is {self.copy_style!r}, not one of {', '.join(COPY_STYLES)}"
        if (self.bundle is None) != (self.copy_style == "none"):
            return f"copy_style is {self.copy_style!r}, yet there is {'no' if self.bundle is None else 'a'} bundle"
        if not (self.address and self.entry_point and self.module):
            return "address, entry_point or module is empty"
        if self.image is not None and self.built_image is not None:
            return "there are two images"
        if not self.tasks or (self.kind == "task" and len(self.tasks) > 1):
            return f"a {self.kind} with {len(self.tasks)} tasks"
        if len({task.name for task in self.tasks}) < len(self.tasks):
            return "two tasks have the same name"
        for task in self.tasks:
            if not task.name or not task.command:
                return "a task without a name or a command"
            if (self.bundle is None) == (BUNDLE_URI_HOLE in task.command):
                return (
                    f"task {task.name}: {BUNDLE_URI_HOLE} belongs in the command of a task with a bundle, "
                    "and in no other"
                )
        return None

    @property
    def image_is_reference(self) -> bool:
        """Whether `image` says where the image is, rather than naming a mapping that does."""
        return self.image is not None and any(c in self.image for c in "/:@")

    def to_json(self) -> bytes:
        """The link as JSON; equal links give equal bytes."""
        return dump(
            {
                "schema": SCHEMA,
                **vars(self),
                "bundle": None if self.bundle is None else vars(self.bundle),
                "built_image": None if self.built_image is None else vars(self.built_image),
                "tasks": [vars(task) for task in self.tasks],
            }
        )

    @classmethod
    def from_json(cls, data: bytes, what: str = "task link") -> TaskLink:
        """Parse what `to_json` wrote; `what` names it in errors. Raises `InvalidData`."""
        fields = load(data, what, SCHEMA)
        fields.default("built_image", None)
        bundle = fields.optional_nested("bundle")
        image = fields.optional_nested("built_image")
        values: dict[str, Any] = {
            "address": fields.text("address"),
            "entry_point": fields.text("entry_point"),
            "kind": fields.choice("kind", KINDS),
            "module": fields.text("module"),
            "root_dir": fields.optional_text("root_dir"),
            "copy_style": fields.choice("copy_style", COPY_STYLES),
            "image": fields.optional_text("image"),
            "built_image": None if image is None else LinkedImage.from_fields(image),
            "tasks": tuple(LinkedTask.from_fields(task) for task in fields.nested_list("tasks")),
        }
        fields.end()
        try:
            return cls(bundle=None if bundle is None else _bundle(bundle), **values)
        except InvalidData as error:
            raise InvalidData(f"{what}: {error}") from None


def _bundle(fields: Fields) -> LinkedBundle:
    bundle = LinkedBundle(
        archive=fields.text("archive"),
        manifest=fields.text("manifest"),
        content_hash=fields.sha256("content_hash"),
        archive_hash=fields.sha256("archive_hash"),
        archive_size=fields.integer("archive_size"),
        manifest_hash=fields.sha256("manifest_hash"),
        manifest_size=fields.integer("manifest_size"),
    )
    fields.end()
    return bundle
