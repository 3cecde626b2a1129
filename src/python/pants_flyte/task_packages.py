"""The third-party packages of tasks on this machine: for `run`, and for what registers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Sequence, Tuple, Union

from pants.backend.docker.target_types import DockerImageTarget
from pants.backend.python.subsystems.repos import PythonRepos
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import MainSpecification, PythonResolveField
from pants.backend.python.util_rules.pex import PexRequest
from pants.backend.python.util_rules.pex_from_targets import PexFromTargetsRequest
from pants.engine.fs import FileContent
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule
from pants.option.global_options import GlobalOptions

from flyte_pack.lock_kinds import pants_reads
from pants_flyte import engine
from pants_flyte.image_packages import choice_of, lock_of, requirements_of, resolved_here
from pants_flyte.image_target_types import FlyteImage
from pants_flyte.subsystem import FlytePackSubsystem
from pants_flyte.target_types import FlyteTaskImageField
from pants_flyte.targets import target_named_by
from pants_flyte.tool import program_pex

_REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True)
class PackageSettings:
    """The options that decide where packages come from. certificates: `[GLOBAL].ca_certs_path`."""

    flyte_pack: FlytePackSubsystem
    python_setup: PythonSetup
    repos: PythonRepos
    certificates: Optional[str]


@rule
async def package_settings(
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    repos: PythonRepos,
    global_options: GlobalOptions,
) -> PackageSettings:
    return PackageSettings(flyte_pack, python_setup, repos, global_options.ca_certs_path)


@dataclass(frozen=True)
class PackageSource:
    """A resolve, and what its lock file is read for: tasks that agree share an environment.

    lock: where the lock file is one that Pants does not read, and we do.
    """

    resolve: str
    lock: Optional[FileContent] = None
    choice: Tuple[str, ...] = ()


async def package_source(task: Target, python_setup: PythonSetup) -> PackageSource:
    """As for an image, the extras and groups of a lock file are those of the task's image.

    Raises `FlyteTargetError` if there is no such file.
    """
    resolve = task[PythonResolveField].normalized_value(python_setup)
    if not python_setup.enable_resolves:
        return PackageSource(resolve)
    lock = await lock_of(task.address, resolve, python_setup)
    if pants_reads(lock.content):
        return PackageSource(resolve)
    field = task[FlyteTaskImageField]
    image = await target_named_by(field, FlyteImage, DockerImageTarget)
    choice = choice_of(image) if isinstance(image, FlyteImage) else ()
    return PackageSource(resolve, lock, choice)


async def packages_pex(
    tasks: Sequence[Target],
    source: PackageSource,
    settings: PackageSettings,
    output_filename: str,
    main: Optional[MainSpecification] = None,
) -> PexRequest:
    """What tasks of one source reach. Raises `FlyteTargetError`."""
    addresses = [task.address for task in tasks]
    if source.lock is None:
        return await engine.requirements_pex(
            PexFromTargetsRequest(
                addresses,
                output_filename=output_filename,
                internal_only=True,
                include_source_files=False,
                include_local_dists=True,
                main=main,
            )
        )
    constraints = await engine.interpreter_constraints(addresses)
    wanted = set()
    for address in addresses:
        wanted.update(await requirements_of(address, source.resolve, settings.python_setup))
    requirements = await resolved_here(
        addresses[0],
        source.lock,
        sorted(wanted),
        (await engine.find_python(constraints)).path,
        resolve=source.resolve,
        choice=source.choice,
        program=await engine.venv_pex(await program_pex(settings.flyte_pack, "image_lockfile")),
        repos=settings.repos,
        certificates=settings.certificates,
    )
    return PexRequest(
        output_filename=output_filename,
        internal_only=True,
        main=main,
        interpreter_constraints=constraints,
        additional_args=("--no-transitive", "--requirement", _REQUIREMENTS),
        additional_inputs=await engine.create_digest({_REQUIREMENTS: requirements.content}),
        description=f"Install the packages of {source.lock.path}",
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
