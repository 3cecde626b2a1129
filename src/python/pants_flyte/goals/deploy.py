"""`run` and `experimental-deploy` for `flyte_deployment`: both start the same deploy program.

The rules are uncacheable, which has them run anew in each session, for two reasons. They look for
Flyte's own settings file, of which Pants knows nothing. And before Pants runs a *cacheable* rule
again, it checks all that hangs below at once, and stops where one thing is new (a `RunId`, what was
typed after `--`); what it had not come to is run again, too, and not only checked.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Iterable, List, Optional, Sequence, Union

from pants.build_graph.address import Address
from pants.core.goals.deploy import DeployFieldSet, DeployProcess, DeploySubsystem
from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest, RunSubsystem
from pants.core.util_rules.distdir import DistDir
from pants.engine.rules import Rule, _uncacheable_rule, collect_rules
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.deploy.options import DeployOptions, parse
from flyte_pack.errors import UsageError
from pants_flyte import engine, loop
from pants_flyte.build_types import TaskRequest
from pants_flyte.deployment import (
    DeploymentFieldSet,
    environments_of,
    materials_of_tasks,
    plan_of,
    pushes_of,
    settings_of,
    wants_provenance,
)
from pants_flyte.docker_image import NO_DOCKER_IMAGES, DockerSettings, built_docker_images
from pants_flyte.environment import callers_environment
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.loop import LoopTurn
from pants_flyte.registries import address_of
from pants_flyte.subsystem import FlyteDeploySubsystem, FlyteSubsystem
from pants_flyte.task_packages import PackageSettings
from pants_flyte.tool import interactive_process, interactive_program, report_arguments

_PLAN = "__deploy_plan.json"


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
    package_settings: PackageSettings,
    modules: FirstPartyModules,
    dist_dir: DistDir,
    docker: Optional[DockerSettings] = None,
    more: Sequence[str] = (),
) -> RunRequest:
    """The deploy program and all that it ships. docker: how images are built by it, if they are to
    be. more: arguments before what was typed.

    What does not deploy (`list`, `show`, ..., or a mistyped command line: `options` None) packages
    nothing, so that it works even if the code does not build.
    """
    options = options or DeployOptions(command="help")
    flyte_pack = package_settings.flyte_pack
    settings = await settings_of(deployment, options, flyte, flyte_pack, dist_dir)
    wanted = options.settings.over(settings)
    addresses: List[Address] = []
    if options.packages or options.registers:
        unparsed = deployment.tasks.to_unparsed_address_inputs()
        named = await engine.targets_at(await engine.resolve_addresses(unparsed))
        addresses = list(dict.fromkeys(target.address for target in named))
        await engine.check_dependencies([deployment.dependencies])
    requests = [
        TaskRequest(
            address,
            copy_style=wanted.copy_style,
            root_dir=wanted.root_dir,
            mapped=tuple(name for name, _ in wanted.images),
        )
        for address in addresses
    ]
    tasks = await engine.build_tasks(requests if options.packages else [])
    python_setup = package_settings.python_setup
    provenance = bool(tasks) and wants_provenance(deployment, flyte)
    pushes = await pushes_of(tasks, wanted, flyte, python_setup, provenance=provenance)
    images = NO_DOCKER_IMAGES
    if docker is not None and options.ships and flyte.build_docker_images:
        images = await built_docker_images(deployment.address, tasks, docker)
    environments, packages = await environments_of(
        addresses, options, wanted, package_settings, modules=modules if options.packages else None
    )
    registry = address_of(deployment.address, settings.registry, flyte.named_registries)
    plan = plan_of(
        deployment,
        dataclasses.replace(settings, registry=registry),
        flyte,
        tasks=tuple(task.link_path for task in tasks),
        pushes=tuple(f"__push_{number}.json" for number in range(len(pushes))),
        environments=tuple(environments),
        materials=await materials_of_tasks(tasks, python_setup) if provenance else None,
        docker=images,
    )
    documents = await engine.create_digest(
        {_PLAN: plan.to_json(), **{name: push.to_json() for name, push in zip(plan.pushes, pushes)}}
    )
    return await interactive_program(
        flyte_pack,
        (
            *("deploy", "--plan", f"{{chroot}}/{_PLAN}", "--dir", "{chroot}"),
            *(*report_arguments(flyte, "deploy", deployment.address), *more, "--"),
        ),
        (
            documents,
            *(task.link_digest for task in tasks),
            *(task.bundle.digest for task in tasks if task.bundle),
            *(task.image.digest for task in tasks if task.image),
            *packages,
        ),
        images.env,
    )


@_uncacheable_rule(desc="Prepare a Flyte deployment", level=LogLevel.DEBUG)
async def run_deployment(
    field_set: RunDeploymentFieldSet,
    run: RunSubsystem,
    flyte: FlyteSubsystem,
    packages: PackageSettings,
    modules: FirstPartyModules,
    dist_dir: DistDir,
    docker: DockerSettings,
    turn: LoopTurn,
) -> RunRequest:
    options: Optional[DeployOptions]
    try:
        options = parse(run.args)
    except UsageError:
        options = None  # the program says what is wrong
    program = await deploy_program(field_set, options, flyte, packages, modules, dist_dir, docker)
    # In a loop it starts with each turn: it may have failed, or something else have been deployed.
    return loop.restarted(turn, program)


@_uncacheable_rule(desc="Prepare a Flyte deployment", level=LogLevel.DEBUG)
async def deploy_deployment(
    field_set: DeployDeploymentFieldSet,
    deploy: DeploySubsystem,
    flyte: FlyteSubsystem,
    flyte_deploy: FlyteDeploySubsystem,
    packages: PackageSettings,
    modules: FirstPartyModules,
    dist_dir: DistDir,
    docker: DockerSettings,
) -> DeployProcess:
    # Its own dry run came after Pants 2.17.
    dry_run = ("--dry-run",) if flyte.dry_run or getattr(deploy, "dry_run", False) else ()
    typed = (*dry_run, *flyte_deploy.args)
    options = _deploying(field_set.address, typed)
    program = await deploy_program(field_set, options, flyte, packages, modules, dist_dir, docker)
    process = interactive_process(program, await callers_environment(flyte), *typed)
    return DeployProcess(name=field_set.address.spec, process=process)


def _deploying(address: Address, typed: Sequence[str]) -> DeployOptions:
    """What follows `--`; an error if it is not for deploying."""
    try:
        options = parse(typed)
    except UsageError as error:
        raise FlyteTargetError(address, f"What follows `--` cannot be used: {error}.") from None
    if not options.ships or not options.packages:
        raise FlyteTargetError(
            address,
            f"`experimental-deploy` only deploys. For `{options.command}` write: "
            f"./pants run {address.spec} -- {' '.join(typed)}",
        )
    return options


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        *RunDeploymentFieldSet.rules(),
        UnionRule(DeployFieldSet, DeployDeploymentFieldSet),
    ]
