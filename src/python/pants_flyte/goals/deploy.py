"""`run` and `experimental-deploy` for `flyte_deployment`: both start the same deploy program.

The rules take a `RunId`, so that they are run anew each time: whether Flyte's own settings file is there is no input of
theirs that Pants knows of.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Iterable, List, Optional, Sequence, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.core.goals.deploy import DeployFieldSet, DeployProcess, DeploySubsystem
from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest, RunSubsystem
from pants.core.util_rules.distdir import DistDir
from pants.engine.fs import CreateDigest, Digest, FileContent
from pants.engine.internals.session import RunId
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import FieldSet
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.deploy.config import Settings
from flyte_pack.deploy.options import DeployOptions, UsageError, parse
from flyte_pack.deploy.plan import DeployPlan, Environment
from flyte_pack.registry.plan import PushPlan
from pants_flyte.build_types import BuiltTask, TaskRequest
from pants_flyte.engine import build_tasks, create_digest, resolve_addresses, targets_at
from pants_flyte.goals.run import store_uri
from pants_flyte.pushing import push_plan
from pants_flyte.registration import environments_of, file_settings, is_registered, of_options
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import (
    FlyteDeploymentConfigField,
    FlyteDeploymentCopyStyleField,
    FlyteDeploymentDomainField,
    FlyteDeploymentEndpointField,
    FlyteDeploymentImagesField,
    FlyteDeploymentInsecureField,
    FlyteDeploymentOrgField,
    FlyteDeploymentProjectField,
    FlyteDeploymentRegistryField,
    FlyteDeploymentStoreField,
    FlyteDeploymentTasksField,
    FlyteDeploymentVersionField,
)
from pants_flyte.tool import Program, callers_environment, interactive_program

_PLAN = "__deploy_plan.json"


@dataclass(frozen=True)
class DeploymentFieldSet(FieldSet):
    required_fields = (FlyteDeploymentTasksField,)

    tasks: FlyteDeploymentTasksField
    copy_style: FlyteDeploymentCopyStyleField
    project: FlyteDeploymentProjectField
    domain: FlyteDeploymentDomainField
    version: FlyteDeploymentVersionField
    store: FlyteDeploymentStoreField
    images: FlyteDeploymentImagesField
    registry: FlyteDeploymentRegistryField
    endpoint: FlyteDeploymentEndpointField
    insecure: FlyteDeploymentInsecureField
    org: FlyteDeploymentOrgField
    config: FlyteDeploymentConfigField


@dataclass(frozen=True)
class RunDeploymentFieldSet(DeploymentFieldSet, RunFieldSet):
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED


@dataclass(frozen=True)
class DeployDeploymentFieldSet(DeploymentFieldSet, DeployFieldSet):
    pass


async def deploy_program(
    deployment: DeploymentFieldSet,
    options: Optional[DeployOptions],
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    dist_dir: DistDir,
) -> Program:
    """The deploy program and all that it ships.

    What does not deploy (`list`, `show`, ..., or a mistyped command line: `options` None) packages nothing, so that it
    works where the code does not build.
    """
    options = options or DeployOptions(command="help")
    settings = await _settings(deployment, options, flyte, flyte_pack)
    addresses = list(
        dict.fromkeys(await resolve_addresses(deployment.tasks.to_unparsed_address_inputs()))
    )
    requests = [
        TaskRequest(
            address,
            copy_style=options.copy_style or deployment.copy_style.value,
            root_dir=options.root_dir,
            mapped=tuple(sorted({**dict(settings.images), **dict(options.images)})),
        )
        for address in addresses
    ]
    tasks = await build_tasks(requests if options.packages else [])
    pushes = await _pushes(deployment, options, tasks, settings, flyte)
    environments: List[Environment] = []
    packages: List[Digest] = []
    if (
        options.registers
        and addresses
        and await is_registered(
            options.endpoint or settings.endpoint, options.flyte_config or settings.flyte_config
        )
    ):
        environments, packages = await environments_of(addresses, python_setup)
    plan = DeployPlan(
        address=deployment.address.spec,
        project=deployment.project.value
        or settings.project
        or (None if options.project else flyte.project),
        domain=deployment.domain.value or (None if options.domain else flyte.domain),
        version=deployment.version.value,
        store=settings.store or store_uri(flyte, dist_dir),
        images=dict(settings.images),
        copy_style=deployment.copy_style.value,
        tasks=tuple(task.link_path for task in tasks),
        pushes=tuple(f"__push_{number}.json" for number in range(len(pushes))),
        endpoint=settings.endpoint,
        insecure=settings.insecure,
        org=settings.org,
        flyte_config=settings.flyte_config,
        registry=settings.registry,
        insecure_registries=tuple(flyte.insecure_registries),
        environments=tuple(environments),
        import_env=tuple(flyte.import_env_vars),
    )
    documents = await create_digest(
        CreateDigest(
            [
                FileContent(_PLAN, plan.to_json()),
                *(FileContent(name, push.to_json()) for name, push in zip(plan.pushes, pushes)),
            ]
        )
    )
    return await interactive_program(
        flyte_pack,
        ("deploy", "--plan", f"{{chroot}}/{_PLAN}", "--dir", "{chroot}", "--"),
        (
            documents,
            *(task.link_digest for task in tasks),
            *(task.bundle.digest for task in tasks if task.bundle),
            *(task.image.digest for task in tasks if task.image),
            *packages,
        ),
    )


async def _settings(
    deployment: DeploymentFieldSet,
    options: DeployOptions,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
) -> Settings:
    """The target's own, on top of its settings file's, on top of `[flyte]`'s. (What was typed is the program's.)"""
    if options.command == "help":
        return of_options(flyte)
    own = Settings(
        endpoint=deployment.endpoint.value,
        insecure=deployment.insecure.value,
        org=deployment.org.value,
        store=deployment.store.value,
        registry=deployment.registry.value,
        project=deployment.project.value,
        images=tuple(sorted((deployment.images.value or {}).items())),
    )
    address = deployment.address
    path, origin = flyte.deploy_config, "`[flyte].deploy_config`"
    if options.config is not None:
        path, origin = options.config, "--config"
    elif deployment.config.value is not None:
        path = os.path.normpath(os.path.join(address.spec_path, deployment.config.value))
        origin = "`config`"
    domain = deployment.domain.value or options.domain or flyte.domain
    in_file = await file_settings(address, path, origin, domain, flyte_pack)
    return own.over(in_file).over(of_options(flyte))


async def _pushes(
    deployment: DeploymentFieldSet,
    options: DeployOptions,
    tasks: Sequence[BuiltTask],
    settings: Settings,
    flyte: FlyteSubsystem,
) -> List[PushPlan]:
    """Where each image goes that the tasks run in, each image once."""
    images = {task.image.image_digest: task.image for task in tasks if task.image}
    registry = options.registry or settings.registry
    plans = []
    for image in images.values():
        target = (await targets_at([image.address]))[0]
        plans.append(
            await push_plan(
                target,
                image,
                flyte,
                registries=(registry,) if registry else (),
                version=options.version or deployment.version.value,
            )
        )
    return plans


@rule(desc="Prepare a Flyte deployment", level=LogLevel.DEBUG)
async def run_deployment(
    field_set: RunDeploymentFieldSet,
    run: RunSubsystem,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    dist_dir: DistDir,
    run_id: RunId,
) -> RunRequest:
    options: Optional[DeployOptions]
    try:
        options = parse(run.args)
    except UsageError:
        options = None  # the program says what is wrong
    program = await deploy_program(field_set, options, flyte, flyte_pack, python_setup, dist_dir)
    return program.run_request()


@rule(desc="Prepare a Flyte deployment", level=LogLevel.DEBUG)
async def deploy_deployment(
    field_set: DeployDeploymentFieldSet,
    deploy: DeploySubsystem,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    dist_dir: DistDir,
    run_id: RunId,
) -> DeployProcess:
    # `experimental-deploy` has no arguments after `--`. Its own dry run came after Pants 2.17.
    dry_run = ("--dry-run",) if getattr(deploy, "dry_run", False) else ()
    program = await deploy_program(
        field_set, parse(dry_run), flyte, flyte_pack, python_setup, dist_dir
    )
    return DeployProcess(
        name=field_set.address.spec,
        process=program.interactive_process(await callers_environment(flyte), *dry_run),
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        *RunDeploymentFieldSet.rules(),
        UnionRule(DeployFieldSet, DeployDeploymentFieldSet),
    ]
