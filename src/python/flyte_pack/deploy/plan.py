"""What is to be deployed, and where: the plan that the build rules wrote, with what the user typed on top."""

from __future__ import annotations

from dataclasses import dataclass

from flyte_pack.deploy.options import DeployOptions
from flyte_pack.json_fields import InvalidData, dump, load
from flyte_pack.names import (
    InvalidName,
    check_domain,
    check_image,
    check_project,
    check_ref_name,
    check_version,
)
from flyte_pack.store import check_store_uri
from flyte_pack.task_link import COPY_STYLES
from flyte_shim.paths import path_problem

SCHEMA = 1
DEFAULT_STORE = "file://dist/flyte"


class Refused(Exception):
    """Deploying would do harm or cannot be done; the message says why and what to change. Nothing was written."""


@dataclass(frozen=True)
class DeployPlan:
    """The fields of a `flyte_deployment`, and the task links that were packaged for it.

    address: the target. images: image by ref name. tasks: files of task links, relative to a directory that is given
    beside the plan; none where nothing was packaged. pushes: files of the plans by which their images are pushed, likewise. The others are None where the target leaves the field open.
    """

    address: str
    project: str | None
    domain: str | None
    version: str | None
    store: str | None
    images: dict[str, str]
    copy_style: str | None
    tasks: tuple[str, ...]
    pushes: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """The plan as the build rules hand it over; equal plans give equal bytes."""
        return dump({"schema": SCHEMA, **vars(self)})

    @classmethod
    def from_json(cls, data: bytes) -> DeployPlan:
        """Parse a plan. Raises `InvalidData`, `InvalidName` or `StoreError`."""
        fields = load(data, "deploy plan", SCHEMA)
        fields.default("tasks", [])
        fields.default("pushes", [])
        plan = cls(
            address=fields.text("address"),
            project=fields.optional_text("project"),
            domain=fields.optional_text("domain"),
            version=fields.optional_text("version"),
            store=fields.optional_text("store"),
            images=fields.text_map("images"),
            copy_style=fields.optional_text("copy_style"),
            tasks=fields.texts("tasks"),
            pushes=fields.texts("pushes"),
        )
        fields.end()
        for name in (*plan.tasks, *plan.pushes):
            problem = path_problem(name)
            if problem:
                raise InvalidData(f"deploy plan: {problem} among the files: {name!a:.200}")
        return plan


@dataclass(frozen=True)
class Request:
    """Plan and options together, checked: every name is valid, nothing contradicts."""

    address: str
    project: str
    domain: str
    version: str | None
    store: str
    images: dict[str, str]
    typed_images: frozenset[str]
    copy_style: str | None
    root_dir: str | None
    tasks: tuple[str, ...]
    pushes: tuple[str, ...]


def resolve(plan: DeployPlan, options: DeployOptions) -> Request:
    """Put what the user typed on top of the plan. Raises `Refused`, `InvalidName` or `StoreError`."""
    version = options.version or plan.version
    if plan.copy_style is not None and plan.copy_style not in COPY_STYLES:
        raise InvalidData(f"copy_style is {plan.copy_style!r:.80}, not one of {COPY_STYLES}")
    for name, image in plan.images.items():
        check_ref_name(name)
        try:
            check_image(image)
        except InvalidName as error:
            raise InvalidName(f"images: {name}: {error}") from None
    return Request(
        address=plan.address,
        project=check_project(_fixed_or_typed("project", plan.project, options.project)),
        domain=check_domain(_fixed_or_typed("domain", plan.domain, options.domain)),
        version=None if version is None else check_version(version),
        store=check_store_uri(options.store or plan.store or DEFAULT_STORE),
        images={**plan.images, **dict(options.images)},
        typed_images=frozenset(name for name, _ in options.images),
        copy_style=options.copy_style or plan.copy_style,
        root_dir=options.root_dir,
        tasks=plan.tasks,
        pushes=plan.pushes,
    )


def _fixed_or_typed(name: str, fixed: str | None, typed: str | None) -> str:
    if fixed is not None and typed is not None and fixed != typed:
        # The target's address may say where it goes (services:deploy@domain=staging): it must not go elsewhere.
        raise Refused(
            f"the target says {name}={fixed!r:.80}, --{name} says {typed!r}: leave --{name} out, or leave the field "
            f"`{name}` open in the target"
        )
    value = fixed if fixed is not None else typed
    if value is None:
        raise Refused(f"which {name}? Set the field `{name}` in the target, or type --{name} NAME")
    return value
