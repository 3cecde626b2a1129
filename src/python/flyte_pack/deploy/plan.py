"""What is to be deployed, and where: the plan that the build rules wrote, with what the user typed on top."""

from __future__ import annotations

from dataclasses import dataclass

from flyte_pack.deploy.options import DeployOptions
from flyte_pack.errors import UserError
from flyte_pack.json_fields import Fields, InvalidData, dump, load
from flyte_pack.names import (
    InvalidName,
    check_domain,
    check_endpoint,
    check_image,
    check_org,
    check_project,
    check_ref_name,
    check_version,
)
from flyte_pack.store.uris import check_store_uri
from flyte_pack.task_link import COPY_STYLES
from flyte_shim import shown
from flyte_shim.paths import path_problem

SCHEMA = 1
DEFAULT_STORE = "file://dist/flyte"


@dataclass(frozen=True)
class Environment:
    """An interpreter with the packages of some tasks' resolve, by which they are imported to be registered.

    python: a program, relative to the directory of the packaged files. env: what it wants in its environment. identity:
    another one where any package is another one. tasks: addresses.
    """

    python: str
    env: dict[str, str]
    identity: str
    tasks: tuple[str, ...]

    @classmethod
    def from_fields(cls, fields: Fields) -> Environment:
        environment = cls(
            python=fields.text("python"),
            env=fields.text_map("env"),
            identity=fields.text("identity"),
            tasks=fields.texts("tasks"),
        )
        fields.end()
        return environment


@dataclass(frozen=True)
class DeployPlan:
    """A `flyte_deployment` as the build rules have it: its fields, on top of settings from files and options.

    address: the target. images: image by ref name. tasks: files of task links, relative to a directory that is given
    beside the plan; none where nothing was packaged. pushes: files of the plans by which their images are pushed, likewise.
    insecure_registries: hosts that are spoken to over plain HTTP. environments: to register tasks in. import_env: variables
    of the environment, NAME or NAME=value, that tasks see while they are imported for that. The others are None where
    nothing says what they are.
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
    endpoint: str | None = None
    insecure: bool | None = None
    org: str | None = None
    flyte_config: str | None = None
    registry: str | None = None
    insecure_registries: tuple[str, ...] = ()
    environments: tuple[Environment, ...] = ()
    import_env: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """The plan as the build rules hand it over; equal plans give equal bytes."""
        environments = [vars(environment) for environment in self.environments]
        return dump({"schema": SCHEMA, **vars(self), "environments": environments})

    @classmethod
    def from_json(cls, data: bytes) -> DeployPlan:
        """Parse a plan. Raises `InvalidData`, `InvalidName` or `StoreError`."""
        fields = load(data, "deploy plan", SCHEMA)
        for name in ("tasks", "pushes", "insecure_registries", "environments", "import_env"):
            fields.default(name, [])
        for name in ("endpoint", "insecure", "org", "flyte_config", "registry"):
            fields.default(name, None)
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
            endpoint=fields.optional_text("endpoint"),
            insecure=fields.optional_boolean("insecure"),
            org=fields.optional_text("org"),
            flyte_config=fields.optional_text("flyte_config"),
            registry=fields.optional_text("registry"),
            insecure_registries=fields.texts("insecure_registries"),
            environments=tuple(map(Environment.from_fields, fields.nested_list("environments"))),
            import_env=fields.texts("import_env"),
        )
        fields.end()
        for name in (*plan.tasks, *plan.pushes, *(e.python for e in plan.environments)):
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
    endpoint: str | None
    insecure: bool | None
    org: str | None
    flyte_config: str | None
    registry: str | None
    insecure_registries: tuple[str, ...]
    environments: tuple[Environment, ...]
    import_env: tuple[str, ...]
    register: bool
    image_check: bool
    upload: str


def resolve(plan: DeployPlan, options: DeployOptions) -> Request:
    """Put what the user typed on top of the plan. Raises `UserError`, `InvalidName` or `StoreError`."""
    version = options.version or plan.version
    endpoint, org = options.endpoint or plan.endpoint, options.org or plan.org
    if plan.copy_style is not None and plan.copy_style not in COPY_STYLES:
        raise InvalidData(f"copy_style is {shown.name(plan.copy_style)}, not one of {COPY_STYLES}")
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
        endpoint=None if endpoint is None else check_endpoint(endpoint),
        insecure=True if options.insecure else plan.insecure,
        org=None if org is None else check_org(org),
        flyte_config=options.flyte_config or plan.flyte_config,
        registry=options.registry or plan.registry,
        insecure_registries=plan.insecure_registries,
        environments=plan.environments,
        import_env=plan.import_env,
        register=options.register,
        image_check=options.image_check,
        upload=options.upload or "store",
    )


def _fixed_or_typed(name: str, fixed: str | None, typed: str | None) -> str:
    if fixed is not None and typed is not None and fixed != typed:
        # The target's address may say where it goes (services:deploy@domain=staging): it must not go elsewhere.
        raise UserError(
            f"the target says {name}={shown.name(fixed)}, --{name} says {typed!r}: leave --{name} out, or leave the field "
            f"`{name}` open in the target"
        )
    value = fixed if fixed is not None else typed
    if value is None:
        raise UserError(
            f"which {name}? Set the field `{name}` in the target, or type --{name} NAME"
        )
    return value
