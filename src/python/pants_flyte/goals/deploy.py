"""`run` and `experimental-deploy` for `flyte_deployment`: both start the same deploy program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Tuple, Union

from pants.core.goals.deploy import DeployFieldSet, DeployProcess, DeploySubsystem
from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest, RunSubsystem
from pants.core.util_rules.distdir import DistDir
from pants.engine.env_vars import EnvironmentVarsRequest
from pants.engine.fs import CreateDigest, Digest, FileContent
from pants.engine.process import InteractiveProcess
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import FieldSet
from pants.engine.unions import UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.deploy.options import DeployOptions, UsageError, parse
from flyte_pack.deploy.plan import DeployPlan
from pants_flyte.build_types import TaskRequest
from pants_flyte.engine import (
    build_tasks,
    create_digest,
    environment_variables,
    merge_digests,
    resolve_addresses,
    tool_environment,
)
from pants_flyte.engine.types import ToolEnvironment
from pants_flyte.goals.run import store_uri
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import (
    FlyteDeploymentCopyStyleField,
    FlyteDeploymentDomainField,
    FlyteDeploymentImagesField,
    FlyteDeploymentProjectField,
    FlyteDeploymentStoreField,
    FlyteDeploymentTasksField,
    FlyteDeploymentVersionField,
)
from pants_flyte.tool import program_pex

# What a program that reaches stores wants of the caller's environment; more by option.
_ENVIRONMENT = (
    *("HOME", "LANG", "LC_ALL", "PATH", "TERM", "TMPDIR", "USER", "XDG_CACHE_HOME"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
)
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


@dataclass(frozen=True)
class RunDeploymentFieldSet(DeploymentFieldSet, RunFieldSet):
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED


@dataclass(frozen=True)
class DeployDeploymentFieldSet(DeploymentFieldSet, DeployFieldSet):
    pass


@dataclass(frozen=True)
class DeployProgram:
    """The deploy program, ready to start in the build root with what the user typed behind `args`."""

    digest: Digest
    args: Tuple[str, ...]
    environment: ToolEnvironment


async def deploy_program(
    deployment: DeploymentFieldSet,
    options: Optional[DeployOptions],
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    dist_dir: DistDir,
) -> DeployProgram:
    """What `list`, `show`, `rollback` and a mistyped command line (`options` None) need packages nothing,
    so that they work where the code does not build."""
    options = options or DeployOptions(command="help")
    copy_style = options.copy_style or deployment.copy_style.value
    requests = []
    if options.packages:
        addresses = await resolve_addresses(deployment.tasks.to_unparsed_address_inputs())
        requests = [
            TaskRequest(address, copy_style=copy_style, root_dir=options.root_dir)
            for address in dict.fromkeys(addresses)
        ]
    tasks = await build_tasks(requests)
    plan = DeployPlan(
        address=deployment.address.spec,
        project=deployment.project.value or (None if options.project else flyte.project),
        domain=deployment.domain.value or (None if options.domain else flyte.domain),
        version=deployment.version.value,
        store=deployment.store.value or store_uri(flyte, dist_dir),
        images={**flyte.images, **(deployment.images.value or FrozenDict())},
        copy_style=deployment.copy_style.value,
        tasks=tuple(task.link_path for task in tasks),
    )
    plan_digest = await create_digest(CreateDigest([FileContent(_PLAN, plan.to_json())]))
    environment = await tool_environment(await program_pex(flyte_pack))
    return DeployProgram(
        digest=await merge_digests(
            [
                environment.digest,
                plan_digest,
                *(task.link_digest for task in tasks),
                *(task.bundle.digest for task in tasks if task.bundle),
            ]
        ),
        args=(
            f"{{chroot}}/{environment.argv0}",
            "deploy",
            *("--plan", f"{{chroot}}/{_PLAN}"),
            *("--dir", "{chroot}"),
            "--",
        ),
        environment=environment,
    )


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
    return RunRequest(
        digest=program.digest,
        args=program.args,
        extra_env=program.environment.env,
        append_only_caches=program.environment.append_only_caches,
    )


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
    env = await environment_variables(
        EnvironmentVarsRequest((*_ENVIRONMENT, *flyte.deploy_env_vars))
    )
    return DeployProcess(
        name=field_set.address.spec,
        process=InteractiveProcess(
            argv=(*program.args, *dry_run),
            env={**env, **program.environment.env},
            input_digest=program.digest,
            append_only_caches=program.environment.append_only_caches,
            run_in_workspace=True,
        ),
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        *RunDeploymentFieldSet.rules(),
        UnionRule(DeployFieldSet, DeployDeploymentFieldSet),
    ]
