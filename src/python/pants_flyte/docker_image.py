"""Where `publish` of Pants' own Docker backend pushes a `docker_image`, found without Docker.

This uses modules of that backend and none of its rules: it need not be enabled.
"""

from __future__ import annotations

from typing import Iterator, Sequence

from pants.backend.docker.goals.package_image import DockerPackageFieldSet
from pants.backend.docker.registries import DockerRegistryError, DockerRegistryOptions
from pants.backend.docker.subsystems.docker_options import DockerOptions
from pants.backend.docker.target_types import (
    DockerImageBuildArgsField,
    DockerImageSkipPushField,
    DockerImageTarget,
)
from pants.backend.docker.util_rules.docker_build_args import DockerBuildArgs
from pants.build_graph.address import Address
from pants.util.value_interpolation import InterpolationContext

from flyte_pack.names import InvalidName, check_image
from pants_flyte import engine
from pants_flyte.errors import FlyteTargetError

_INSTEAD = 'or set `image` to a reference such as "ghcr.io/org/name:tag"'


async def pushed_reference(
    task: Address,
    image: DockerImageTarget,
    docker: DockerOptions,
    docker_env: DockerOptions.EnvironmentAware,
) -> str:
    """`registry/repository:tag`: of the first registry that it is pushed to, and of its tags the
    first that is known before a build.

    task: whose image it is, for errors. Raises `FlyteTargetError`.
    """
    registry = _registry(task, image, docker)
    known = await _build_args(image, docker, docker_env)
    name = next(_names(image, docker, registry, known), None)
    if name is None:
        raise FlyteTargetError(
            task,
            f"no name of its image {image.address} is known before it is built: in `image_tags` "
            "and `repository`, only placeholders of build args that have a value can be filled in "
            f'here. Give it one more tag, such as "latest", {_INSTEAD}.',
        )
    try:
        return check_image(name)
    except InvalidName as error:
        raise FlyteTargetError(task, f"its image {image.address}: {error}.") from None


def _registry(
    task: Address, image: DockerImageTarget, docker: DockerOptions
) -> DockerRegistryOptions:
    problem = f"its image {image.address} is pushed nowhere"
    if image[DockerImageSkipPushField].value:
        raise FlyteTargetError(task, f"{problem}: remove `skip_push`, {_INSTEAD}.")
    wanted: Sequence[str] = DockerPackageFieldSet.create(image).registries.value or ()
    try:
        found = list(docker.registries().get(*wanted))
    except DockerRegistryError as error:
        words = " ".join(str(error).split())
        raise FlyteTargetError(task, f"{problem}: {words}") from None
    pushed = [registry for registry in found if not registry.skip_push]
    if not pushed:
        raise FlyteTargetError(
            task,
            f"{problem}: set its `registries` (Docker Hub is `docker.io`) or a default one in "
            f"`[docker].registries`, without `skip_push`; {_INSTEAD}.",
        )
    return pushed[0]


def _names(
    image: DockerImageTarget,
    docker: DockerOptions,
    registry: DockerRegistryOptions,
    known: InterpolationContext,
) -> Iterator[str]:
    fields = DockerPackageFieldSet.create(image)
    for tag in (*(fields.tags.value or ()), *registry.extra_image_tags):
        try:
            repository = fields.format_repository(docker.default_repository, known, registry)
            yield f"{registry.address}/{repository}:{fields.format_tag(tag, known)}"
        except (ValueError, IndexError):  # what Pants and `str.format` raise for a placeholder
            continue


async def _build_args(
    image: DockerImageTarget, docker: DockerOptions, docker_env: DockerOptions.EnvironmentAware
) -> InterpolationContext:
    """Those that options, fields and the environment give a value; what the Dockerfile says is
    known when it is built.
    """
    extra = image[DockerImageBuildArgsField].value or ()
    args = DockerBuildArgs.from_strings(*docker.build_args, *extra)
    inherited = [arg for arg in args if "=" not in arg]
    environment = await engine.environment_variables([*inherited, *docker_env.env_vars])
    values = {name: value for name, value in args.to_dict(environment.get).items() if value}
    return InterpolationContext.from_dict({"build_args": values})
