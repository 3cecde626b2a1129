"""What to deploy and where: the plan of the build rules, with what the user typed on top."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Dict, Optional, Tuple

from flyte_pack.deploy.config import UNSET, Settings
from flyte_pack.deploy.options import DeployOptions
from flyte_pack.errors import UserError
from flyte_pack.json_fields import Document, SafePath
from flyte_pack.names import TargetAddress, check_image
from flyte_pack.provenance import Material

DEFAULTS = Settings(store="file://dist/flyte")
# What an address may say (services:deploy@domain=staging): the deployment must not go elsewhere.
FIXED = ("project", "domain")


@dataclass(frozen=True)
class Environment:
    """An interpreter with the packages of some tasks' resolve, which imports them to register them.

    python: a program, relative to the directory of the packaged files. env: its environment.
    identity: a hash of the packages. tasks: addresses. known: what the build knows of modules, for
    messages: a file, relative to the same directory.
    """

    OMITTED = ("known",)

    python: SafePath
    env: Dict[str, str]
    identity: str
    tasks: Tuple[str, ...]
    known: Optional[SafePath] = None

    def command(self, directory: str) -> Tuple[str, ...]:
        """The arguments that start the interpreter."""
        return (os.path.join(directory, self.python),)


@dataclass(frozen=True)
class DockerImage:
    """An image that Docker has built, and has under `names`, by which it is pushed.

    address: its target. image_id: as the build told it, perhaps shortened, or something else where
    it did not. names: `registry/repository:tag`; tasks get the image from the first one.
    """

    address: TargetAddress
    image_id: str
    names: Tuple[Annotated[str, check_image], ...]


@dataclass(frozen=True)
class DeployPlan(Document):
    """A `flyte_deployment` as the build rules have it.

    address: the target. settings: its own, on top of those of files and options. fixed: those that
    the target itself makes and a command line must not change. tasks: files of task links, relative
    to a directory that is given beside the plan; none where nothing was packaged. pushes: files of
    the plans by which their images are pushed, likewise. insecure_registries: hosts that are spoken
    to over plain HTTP. environments: to register tasks in. import_env: environment variables, NAME
    or NAME=value, that tasks see while they are imported. standby: whether processes may wait for
    the next deployment (`flyte_pack.deploy.standby`). secrets: whether those in variables of tasks
    are an "error", "warn" or "ignore". allowed_variables: names of variables that have none.
    materials: for a statement of what the version was made from; None: none is made.
    docker_images: to be pushed, and taken by digest; docker_path: directories to find Docker's
    client in.
    """

    NAME = "deploy plan"
    OMITTED = ("materials", "docker_images", "docker_path")

    address: TargetAddress
    settings: Settings = UNSET
    fixed: Tuple[str, ...] = ()
    tasks: Tuple[SafePath, ...] = ()
    pushes: Tuple[SafePath, ...] = ()
    insecure_registries: Tuple[str, ...] = ()
    environments: Tuple[Environment, ...] = ()
    import_env: Tuple[str, ...] = ()
    standby: bool = False
    secrets: str = "error"
    allowed_variables: Tuple[str, ...] = ()
    materials: Optional[Tuple[Material, ...]] = None
    docker_images: Optional[Tuple[DockerImage, ...]] = None
    docker_path: Optional[Tuple[str, ...]] = None


@dataclass(frozen=True)
class Request:
    """A plan and what was typed. settings: of both; project, domain and store: of those."""

    plan: DeployPlan
    options: DeployOptions
    settings: Settings
    project: str
    domain: str
    store: str

    @property
    def images(self) -> dict[str, str]:
        """The reference of each image by ref name."""
        return dict(self.settings.images)


def resolve(plan: DeployPlan, options: DeployOptions) -> Request:
    """Put what the user typed on top of the plan. Raises `UserError`."""
    typed = options.settings
    settings = typed.over(plan.settings).over(DEFAULTS)
    for name in FIXED:
        value, wanted = getattr(plan.settings, name), getattr(typed, name)
        if name in plan.fixed and wanted not in (None, value):
            raise UserError(
                f"the target says {name}={value!r}, --{name} says {wanted!r}: leave --{name} out, "
                f"or leave the field `{name}` open in the target"
            )
        if getattr(settings, name) is None:
            raise UserError(
                f"which {name}? Set the field `{name}` in the target, or type --{name} NAME"
            )
    assert settings.project is not None
    assert settings.domain is not None
    assert settings.store is not None
    return Request(plan, options, settings, settings.project, settings.domain, settings.store)
