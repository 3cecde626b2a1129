"""A `flyte_deployment` for the deploy program: its settings, and what registers its tasks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.util_rules.pex import VenvPexProcess
from pants.build_graph.address import Address
from pants.core.util_rules.distdir import DistDir
from pants.engine.fs import Digest
from pants.engine.target import FieldSet, Target
from pants.util.logging import LogLevel

from flyte_pack.deploy.config import UNSET, DeployConfig, Settings
from flyte_pack.deploy.flyte_settings import VARIABLES, named
from flyte_pack.deploy.options import DeployOptions
from flyte_pack.deploy.plan import FIXED, DeployPlan, Environment
from flyte_pack.json_fields import InvalidData
from flyte_pack.names import TargetAddress
from flyte_pack.provenance import Material
from flyte_pack.registry.plan import PushPlan
from flyte_pack.store.uris import check_store_uri
from pants_flyte import engine
from pants_flyte import target_types as types
from pants_flyte.build_types import BuiltTask
from pants_flyte.docker_image import NO_DOCKER_IMAGES, DockerImages
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.globs import exactly
from pants_flyte.image_process import run_steps
from pants_flyte.known_modules import modules_in
from pants_flyte.pushing import materials_of, push_plan
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.task_packages import (
    PackageSettings,
    PackageSource,
    package_source,
    packages_pex,
)
from pants_flyte.tool import program_pex

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class DeploymentFieldSet(FieldSet):
    required_fields = (types.FlyteDeploymentTasksField,)

    dependencies: types.FlyteDeploymentDependenciesField
    tasks: types.FlyteDeploymentTasksField
    copy_style: types.FlyteDeploymentCopyStyleField
    project: types.FlyteDeploymentProjectField
    domain: types.FlyteDeploymentDomainField
    version: types.FlyteDeploymentVersionField
    store: types.FlyteDeploymentStoreField
    images: types.FlyteDeploymentImagesField
    registry: types.FlyteDeploymentRegistryField
    endpoint: types.FlyteDeploymentEndpointField
    insecure: types.FlyteDeploymentInsecureField
    org: types.FlyteDeploymentOrgField
    config: types.FlyteDeploymentConfigField
    provenance: types.FlyteDeploymentProvenanceField


async def settings_of(
    deployment: DeploymentFieldSet,
    options: DeployOptions,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    dist_dir: DistDir,
) -> Settings:
    """The target's own, on top of its settings file's, on top of `[flyte]`'s.

    What was typed comes on top: see `flyte_pack.deploy.plan.resolve`.
    """
    of_options = _option_settings(flyte, dist_dir)
    if options.command == "help":
        return of_options
    own = _own_settings(deployment)
    return own.over(
        await _below(
            deployment.address,
            own.domain,
            deployment.config.path,
            options,
            of_options,
            flyte,
            flyte_pack,
        )
    )


async def settings_without_target(
    address: Address,
    options: DeployOptions,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    dist_dir: DistDir,
) -> Settings:
    """Where no `flyte_deployment` has any: a settings file's, on top of `[flyte]`'s.

    address: of the task, for errors.
    """
    of_options = _option_settings(flyte, dist_dir)
    return await _below(address, None, None, options, of_options, flyte, flyte_pack)


def _option_settings(flyte: FlyteSubsystem, dist_dir: DistDir) -> Settings:
    return Settings(
        endpoint=flyte.endpoint,
        insecure=flyte.insecure or None,
        org=flyte.org,
        store=store_uri(flyte, dist_dir),
        project=flyte.project,
        domain=flyte.domain,
        images=tuple(sorted(flyte.images.items())),
    )


async def _below(
    address: Address,
    domain: Optional[str],
    field: Optional[str],
    options: DeployOptions,
    of_options: Settings,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
) -> Settings:
    """A settings file's, on top of `of_options`. domain, field: the target's, and its `config`."""
    path, origin = flyte.deploy_config, "`[flyte].deploy_config`"
    if options.config is not None:
        path, origin = options.config, "--config"
    elif field is not None:
        path, origin = field, "`config`"
    domain = domain or options.settings.domain or of_options.domain
    in_file = await _file_settings(address, path, origin, domain, flyte_pack)
    return in_file.over(of_options)


def _own_settings(deployment: DeploymentFieldSet) -> Settings:
    """Those that the target itself makes: by its fields that are called like a setting."""
    values = {}
    for name in vars(UNSET).keys() & vars(deployment).keys():
        value = getattr(deployment, name).value
        if value is None or value == "":
            continue
        try:
            raw = dict(value) if isinstance(value, Mapping) else value
            values[name] = Settings.read(name, raw, f"`{name}`")
        except InvalidData as error:
            raise FlyteTargetError(deployment.address, f"{error}.") from None
    return Settings(**values)


def options_in_plan(flyte: FlyteSubsystem) -> Dict[str, Any]:
    """What `[flyte]` says in each `DeployPlan`."""
    return {
        "insecure_registries": tuple(flyte.insecure_registries),
        "import_env": tuple(flyte.import_env_vars),
        "standby": flyte.standby,
        "secrets": flyte.secrets.value,
        "allowed_variables": flyte.allowed_variables,
    }


def plan_of(
    deployment: DeploymentFieldSet,
    settings: Settings,
    flyte: FlyteSubsystem,
    *,
    tasks: Tuple[str, ...] = (),
    pushes: Tuple[str, ...] = (),
    environments: Tuple[Environment, ...] = (),
    materials: Optional[Tuple[Material, ...]] = None,
    docker: DockerImages = NO_DOCKER_IMAGES,
) -> DeployPlan:
    """tasks, pushes: files that were packaged for it. materials: of `materials_of_tasks`."""
    return DeployPlan(
        address=TargetAddress(deployment.address.spec),
        settings=settings,
        fixed=tuple(name for name in FIXED if getattr(deployment, name).value),
        tasks=tasks,
        pushes=pushes,
        environments=environments,
        materials=materials,
        docker_images=docker.images or None,
        docker_path=docker.search_path or None,
        **options_in_plan(flyte),
    )


def wants_provenance(deployment: DeploymentFieldSet, flyte: FlyteSubsystem) -> bool:
    own = deployment.provenance.value
    return flyte.provenance if own is None else own


async def materials_of_tasks(
    tasks: Sequence[BuiltTask], python_setup: PythonSetup
) -> Tuple[Material, ...]:
    images = [task.image for task in tasks if task.image]
    addresses = dict.fromkeys([*(t.address for t in tasks), *(image.address for image in images)])
    return await materials_of(await engine.targets_at(list(addresses)), images, python_setup)


def store_uri(flyte: FlyteSubsystem, dist_dir: DistDir) -> str:
    """The store of whoever names none: `[flyte].store`, else a directory below `--distdir`.

    It is on command lines, so it must hold no password. Raises `StoreError`.
    """
    return check_store_uri(flyte.store or f"file://{dist_dir.relpath / 'flyte'}")


async def environments_of(
    addresses: Sequence[Address],
    options: DeployOptions,
    settings: Settings,
    packages: PackageSettings,
    *,
    modules: Optional[FirstPartyModules] = None,
) -> Tuple[List[Environment], List[Digest]]:
    """For each resolve of the tasks: an interpreter with the packages that they reach, its files.

    None where nothing will be registered. settings: with what was typed. modules: those of
    the checkout, for messages, if the tasks are of it.
    """
    environ = await engine.environment_variables(VARIABLES)
    if not options.registers or not named(settings, os.getcwd(), environ):
        return [], []
    by_source: Dict[PackageSource, List[Target]] = {}
    for target in await engine.targets_at(addresses):
        source = await package_source(target, packages.python_setup)
        by_source.setdefault(source, []).append(target)
    environments: List[Environment] = []
    digests: List[Digest] = []
    ordered = sorted(by_source.items(), key=lambda item: (item[0].resolve, item[0].choice))
    for number, (source, tasks) in enumerate(ordered):
        request = await packages_pex(tasks, source, packages, f"tasks_{number}.pex")
        tool = await engine.tool_environment(request)
        file = None
        if modules is not None:
            file = f"known_modules_{number}.json"
            content = await modules_in(source.resolve, modules, packages.python_setup)
            digests.append(await engine.create_digest({file: content}))
        environments.append(
            Environment(
                python=os.path.normpath(tool.python),
                env=dict(tool.env),
                identity=tool.digest.fingerprint,
                tasks=tuple(sorted(task.address.spec for task in tasks)),
                known=file,
            )
        )
        digests.append(tool.digest)
    return environments, digests


async def pushes_of(
    tasks: Sequence[BuiltTask],
    settings: Settings,
    flyte: FlyteSubsystem,
    python_setup: PythonSetup,
    *,
    provenance: bool = False,
) -> List[PushPlan]:
    """Where each image goes that the tasks run in, each image once. provenance: as `push_plan`."""
    images = {task.image.image_digest: task.image for task in tasks if task.image}
    wanted = (settings.registry,) if settings.registry else ()
    version, plans = settings.version, []
    for image in images.values():
        (target,) = await engine.targets_at([image.address])
        plans.append(
            await push_plan(
                target,
                image,
                flyte,
                wanted=wanted,
                version=version,
                provenance=provenance,
                python_setup=python_setup,
            )
        )
    return plans


async def _file_settings(
    address: Address,
    path: Optional[str],
    origin: str,
    domain: Optional[str],
    flyte_pack: FlytePackSubsystem,
) -> Settings:
    """What the settings file says for a domain. path: from the build root. origin: who names it."""
    if path is None:
        return Settings()
    found = await engine.snapshot(exactly([path]))
    if found.files != (path,):
        raise FlyteTargetError(address, f"{origin} names the file {path!r}, and there is none.")
    # The rules have no reader of YAML.
    (result,) = await run_steps(
        address,
        [
            VenvPexProcess(
                await engine.venv_pex(await program_pex(flyte_pack, "deploy_lockfile")),
                argv=("deploy-config", "--file", path, "--output", _SETTINGS),
                input_digest=found.digest,
                output_files=(_SETTINGS,),
                description=f"Read {path}",
                level=LogLevel.DEBUG,
            )
        ],
    )
    data = (await engine.contents(result.output_digest))[0].content
    return DeployConfig.from_json(data, path).for_domain(domain)
