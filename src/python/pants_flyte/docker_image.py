"""The `docker_image` targets of Pants' own that tasks run in: their names, and their build.

This uses modules of the Docker backend, and of its rules only the one that packages the target, as
each target's is found: so that backend need not be enabled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Iterator, List, Mapping, Sequence, Tuple, Union

from pants.backend.docker.goals.package_image import DockerPackageFieldSet
from pants.backend.docker.package_types import BuiltDockerImage
from pants.backend.docker.registries import DockerRegistryError, DockerRegistryOptions
from pants.backend.docker.subsystems.docker_options import DockerOptions
from pants.backend.docker.target_types import (
    DockerImageBuildArgsField,
    DockerImageSkipPushField,
    DockerImageTarget,
)
from pants.backend.docker.util_rules.docker_build_args import DockerBuildArgs
from pants.build_graph.address import Address
from pants.core.util_rules.system_binaries import BinaryNotFoundError
from pants.engine.addresses import UnparsedAddressInputs
from pants.engine.process import ProcessExecutionFailure
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.value_interpolation import InterpolationContext

from flyte_pack.deploy.plan import DockerImage
from flyte_pack.names import InvalidName, TargetAddress, check_image
from flyte_shim import shown
from pants_flyte import engine
from pants_flyte.build_types import BuiltTask
from pants_flyte.environment import Unshown
from pants_flyte.errors import FlyteTargetError

_INSTEAD = 'or set `image` to a reference such as "ghcr.io/org/name:tag"'
_ELSEWHERE = (
    "or publish it elsewhere, and set `[flyte].build_docker_images = false` to take what is there"
)


@dataclass(frozen=True)
class DockerSettings:
    options: DockerOptions
    environment: DockerOptions.EnvironmentAware


@dataclass(frozen=True)
class DockerImages:
    """What Docker has built, for the deploy program; env: what its client wants there."""

    images: Tuple[DockerImage, ...] = ()
    search_path: Tuple[str, ...] = ()
    env: Mapping[str, str] = FrozenDict()


NO_DOCKER_IMAGES = DockerImages()


async def built_docker_images(
    deployed: Address, tasks: Iterable[BuiltTask], docker: DockerSettings
) -> DockerImages:
    """Builds the `docker_image` of each task that has one, as `package` does.

    deployed: what needs them, for errors. Raises `FlyteTargetError`.
    """
    named = dict.fromkeys(t.link.published_by for t in tasks if t.link.published_by is not None)
    if not named:
        return NO_DOCKER_IMAGES
    addresses = await engine.resolve_addresses(
        UnparsedAddressInputs(
            list(named), owning_address=None, description_of_origin=f"the tasks of {deployed}"
        )
    )
    targets = await engine.targets_at(addresses)
    field_sets = [DockerPackageFieldSet.create(target) for target in targets]
    for field_set in field_sets:
        pushes = getattr(field_set, "pushes_on_package", None)  # of later versions
        if pushes is not None and pushes():
            raise FlyteTargetError(
                deployed,
                f"its image {field_set.address} is pushed while it is built, which a dry run must "
                f"not do: leave out its `output`, {_ELSEWHERE}.",
            )
    try:
        packages = await engine.build_packages(field_sets)
    except (BinaryNotFoundError, ProcessExecutionFailure) as error:
        wanted = " or ".join(str(address) for address in addresses)
        raise FlyteTargetError(
            deployed, f"its image {wanted} cannot be built: {_why_not_built(error)}, {_ELSEWHERE}."
        ) from None
    images: List[DockerImage] = []
    for address, package in zip(addresses, packages):
        made = [one for one in package.artifacts if isinstance(one, BuiltDockerImage)]
        if not made:
            raise FlyteTargetError(
                deployed,
                f"its image {address} is built into files, not into Docker: leave out "
                f"`output_files` and `output_directories`, {_ELSEWHERE}.",
            )
        names = tuple(name for one in made for name in one.tags if _is_pushed(name, docker.options))
        images.append(DockerImage(TargetAddress(address.spec), made[0].image_id, names))
    variables = await engine.environment_variables(docker.environment.env_vars)
    return DockerImages(
        images=tuple(images),
        search_path=tuple(docker.environment.executable_search_path),
        env=FrozenDict({name: Unshown(value) for name, value in variables.items()}),
    )


def _why_not_built(error: Exception) -> str:
    """The last line that Docker says, and what to do."""
    if not isinstance(error, ProcessExecutionFailure):
        return f"{error} Install Docker"
    lines = [line.strip() for line in error.stderr.decode(errors="replace").splitlines()]
    said = shown.line(next(filter(None, reversed(lines)), f"exit code {error.exit_code}"))
    if "Cannot connect to" in said:
        return (
            f"{said} Start Docker; if `DOCKER_HOST` or the like says where it is, name that in "
            "`[docker].env_vars`, as Pants gives it none of your environment"
        )
    return f"{said}. `./pants package` it, for all that Docker says"


def _is_pushed(name: str, options: DockerOptions) -> bool:
    """Whether `publish` pushes it, too."""
    for registry in options.registries().registries.values():
        if registry.skip_push and name.startswith(f"{registry.address}/"):
            return False
        if registry.use_local_alias and name.startswith(f"{registry.alias}/"):
            return False
    return True


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


# Below the helpers, which Pants would take for rules.
@rule
async def docker_settings(
    options: DockerOptions, environment: DockerOptions.EnvironmentAware
) -> DockerSettings:
    return DockerSettings(options, environment)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
