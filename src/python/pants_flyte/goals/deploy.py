"""`run` and `experimental-deploy` for `flyte_deployment`: both start the same deploy program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, List, Optional, Sequence, Union

from pants.core.goals.deploy import DeployFieldSet, DeployProcess, DeploySubsystem
from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest, RunSubsystem
from pants.core.util_rules.distdir import DistDir
from pants.engine.fs import CreateDigest, FileContent
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import FieldSet
from pants.engine.unions import UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.deploy.options import DeployOptions, UsageError, parse
from flyte_pack.deploy.plan import DeployPlan
from flyte_pack.registry.plan import PushPlan
from pants_flyte.build_types import BuiltTask, TaskRequest
from pants_flyte.engine import build_tasks, create_digest, resolve_addresses, targets_at
from pants_flyte.goals.run import store_uri
from pants_flyte.pushing import push_plan
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import (
    FlyteDeploymentCopyStyleField,
    FlyteDeploymentDomainField,
    FlyteDeploymentImagesField,
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
    dist_dir: DistDir,
) -> Program:
    """The deploy program and all that it ships.

    What `list`, `show`, `rollback` and a mistyped command line (`options` None) need packages nothing,
    so that they work where the code does not build.
    """
    options = options or DeployOptions(command="help")
    copy_style = options.copy_style or deployment.copy_style.value
    mapped = {**flyte.images, **(deployment.images.value or FrozenDict()), **dict(options.images)}
    requests = []
    if options.packages:
        addresses = await resolve_addresses(deployment.tasks.to_unparsed_address_inputs())
        requests = [
            TaskRequest(
                address,
                copy_style=copy_style,
                root_dir=options.root_dir,
                mapped=tuple(sorted(mapped)),
            )
            for address in dict.fromkeys(addresses)
        ]
    tasks = await build_tasks(requests)
    pushes = await _pushes(deployment, options, tasks, flyte)
    plan = DeployPlan(
        address=deployment.address.spec,
        project=deployment.project.value or (None if options.project else flyte.project),
        domain=deployment.domain.value or (None if options.domain else flyte.domain),
        version=deployment.version.value,
        store=deployment.store.value or store_uri(flyte, dist_dir),
        images={**flyte.images, **(deployment.images.value or FrozenDict())},
        copy_style=deployment.copy_style.value,
        tasks=tuple(task.link_path for task in tasks),
        pushes=tuple(f"__push_{number}.json" for number in range(len(pushes))),
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
        ),
    )


async def _pushes(
    deployment: DeploymentFieldSet,
    options: DeployOptions,
    tasks: Sequence[BuiltTask],
    flyte: FlyteSubsystem,
) -> List[PushPlan]:
    """Where each image goes that the tasks run in, each image once."""
    images = {task.image.image_digest: task.image for task in tasks if task.image}
    registry = options.registry or deployment.registry.value
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
    dist_dir: DistDir,
) -> RunRequest:
    options: Optional[DeployOptions]
    try:
        options = parse(run.args)
    except UsageError:
        options = None  # the program says what is wrong
    program = await deploy_program(field_set, options, flyte, flyte_pack, dist_dir)
    return program.run_request()


@rule(desc="Prepare a Flyte deployment", level=LogLevel.DEBUG)
async def deploy_deployment(
    field_set: DeployDeploymentFieldSet,
    deploy: DeploySubsystem,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    dist_dir: DistDir,
) -> DeployProcess:
    # `experimental-deploy` has no arguments after `--`. Its own dry run came after Pants 2.17.
    dry_run = ("--dry-run",) if getattr(deploy, "dry_run", False) else ()
    program = await deploy_program(field_set, parse(dry_run), flyte, flyte_pack, dist_dir)
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
