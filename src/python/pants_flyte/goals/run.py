"""`run` for `flyte_task`: here or in its image, or by Flyte, as it is or as it was deployed; for
`flyte_app`: here.

The rule is uncacheable for the reasons in `goals/deploy.py`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Iterable, List, Mapping, Optional, Sequence, Union

from pants.backend.python.target_types import EntryPoint
from pants.build_graph.address import Address
from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest, RunSubsystem
from pants.core.util_rules.distdir import DistDir
from pants.engine.fs import Digest
from pants.engine.rules import Rule, _uncacheable_rule, collect_rules
from pants.engine.target import Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.deploy.flyte_settings import NO_CONTROL_PLANE
from flyte_pack.deploy.options import DeployOptions, parse
from flyte_pack.deploy.plan import DeployPlan
from flyte_pack.errors import UsageError
from flyte_pack.names import TargetAddress
from flyte_pack.run.options import RunOptions, split
from pants_flyte import engine, loop
from pants_flyte import target_types as types
from pants_flyte.build_types import BuiltTask, TaskRequest
from pants_flyte.deployment import (
    DeploymentFieldSet,
    environments_of,
    options_in_plan,
    plan_of,
    pushes_of,
    settings_of,
    settings_without_target,
    store_uri,
)
from pants_flyte.docker_image import NO_DOCKER_IMAGES, DockerSettings, built_docker_images
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.known_modules import modules_in
from pants_flyte.loop import LoopTurn
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.task_packages import PackageSettings, package_source, packages_pex
from pants_flyte.tool import insecure_arguments, interactive_program

logger = logging.getLogger(__name__)

_PROGRAM_DIR = "__flyte_pack"
_PLAN = "__deploy_plan.json"
_KNOWN = "__known_modules.json"


@dataclass(frozen=True)
class RunTaskFieldSet(RunFieldSet):
    required_fields = (types.FlyteEntryPointField,)
    # The run starts from the caller's environment, and writes into the local store.
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED

    entry_point: types.FlyteEntryPointField


async def _in_image(
    task: BuiltTask, flyte: FlyteSubsystem, flyte_pack: FlytePackSubsystem
) -> RunRequest:
    digests = [task.link_digest]
    digests += [task.bundle.digest] if task.bundle else []
    digests += [task.image.digest] if task.image else []
    return await interactive_program(
        flyte_pack,
        (
            *("run-in-image", "--task", f"{{chroot}}/{task.link_path}", "--dir", "{chroot}"),
            *insecure_arguments(flyte),
            "--",
        ),
        digests,
    )


async def _here(
    task: BuiltTask,
    store: str,
    flyte: FlyteSubsystem,
    settings: PackageSettings,
    modules: FirstPartyModules,
) -> RunRequest:
    """Runs on this machine, in the task's own resolve."""
    (target,) = await engine.targets_at([task.address])
    source = await package_source(target, settings.python_setup)
    main = EntryPoint("flyte_pack.__main__")
    requirements = await packages_pex([target], source, settings, "environment.pex", main)
    environment = await engine.tool_environment(
        replace(requirements, additional_args=(*requirements.additional_args, "--no-strip-pex-env"))
    )
    known = {_KNOWN: await modules_in(source.resolve, modules, settings.python_setup)}
    digests = [environment.digest, task.link_digest, await engine.create_digest(known)]
    digests += [task.bundle.digest] if task.bundle else []
    return RunRequest(
        digest=await engine.merge_digests(digests),
        args=[
            *(f"{{chroot}}/{environment.argv0}", "run", "--task", f"{{chroot}}/{task.link_path}"),
            *("--dir", "{chroot}", "--store", store, "--known", f"{{chroot}}/{_KNOWN}"),
            *(("--standby",) if flyte.standby else ()),
            "--",
        ],
        extra_env={**environment.env, "PEX_EXTRA_SYS_PATH": f"{{chroot}}/{_PROGRAM_DIR}"},
        # Written once by a daemon, and not again for each run.
        immutable_input_digests={_PROGRAM_DIR: await engine.program_sources()},
        append_only_caches=environment.append_only_caches,
    )


async def _deployed(
    address: Address,
    options: RunOptions,
    flyte: FlyteSubsystem,
    packages: PackageSettings,
    dist_dir: DistDir,
) -> RunRequest:
    """Packages nothing: Flyte runs what a deployment has registered."""
    deploy_options = _deploy_options(address, options)
    deployments = await _deployments_of(address, options.deployment)
    if len(deployments) != 1:
        there = ", ".join(sorted(target.address.spec for target in deployments))
        raise FlyteTargetError(
            address,
            f"several deployments have it: say which by --deployment, of: {there}."
            if deployments
            else "no `flyte_deployment` has it in its `tasks`, so it was not deployed: write one, "
            "and deploy it; or leave out --deployed, to run the code as it is.",
        )
    deployment = DeploymentFieldSet.create(deployments[0])
    flyte_pack = packages.flyte_pack
    settings = await settings_of(deployment, deploy_options, flyte, flyte_pack, dist_dir)
    environments, installed = await environments_of(
        [address], deploy_options, deploy_options.settings.over(settings), packages
    )
    plan = plan_of(deployment, settings, flyte, environments=tuple(environments))
    return await _remote_program(address, plan, {}, installed, flyte_pack)


async def _shipped(
    address: Address,
    options: RunOptions,
    flyte: FlyteSubsystem,
    packages: PackageSettings,
    modules: FirstPartyModules,
    dist_dir: DistDir,
    docker: DockerSettings,
) -> RunRequest:
    """Flyte runs the code as it is, which is packaged here."""
    flyte_pack = packages.flyte_pack
    deploy_options = _deploy_options(address, options)
    deployments = await _deployments_of(address, options.deployment)
    if len(deployments) == 1:
        only = DeploymentFieldSet.create(deployments[0])
        settings = await settings_of(only, deploy_options, flyte, flyte_pack, dist_dir)
    else:
        settings = await settings_without_target(
            address, deploy_options, flyte, flyte_pack, dist_dir
        )
    settings = replace(settings, version=None)  # the run's version is that of its code
    wanted = deploy_options.settings.over(settings)
    environments, installed = await environments_of(
        [address], deploy_options, wanted, packages, modules=modules
    )
    several = deployments if len(deployments) > 1 else []
    others = ", ".join(sorted(target.address.spec for target in several))
    if not environments:
        instead = f"; or type --deployment ADDRESS, of: {others}" if others else ""
        raise FlyteTargetError(address, f"{NO_CONTROL_PLANE}{instead}.")
    if others:
        logger.info(
            f"{address}: several deployments have it ({others}), and the settings of none are "
            "used: --deployment ADDRESS uses those of one"
        )
    task = (
        await engine.build_tasks(
            [
                TaskRequest(
                    address,
                    copy_style=options.copy_style or wanted.copy_style,
                    root_dir=options.root_dir or wanted.root_dir,
                    mapped=tuple(name for name, _ in wanted.images),
                )
            ]
        )
    )[0]
    pushes = await pushes_of([task], wanted, flyte, packages.python_setup)
    images = NO_DOCKER_IMAGES
    if flyte.build_docker_images:
        images = await built_docker_images(address, [task], docker)
    plan = DeployPlan(
        address=TargetAddress(address.spec),
        # These two have done what they are for.
        settings=replace(settings, copy_style=None, root_dir=None),
        tasks=(task.link_path,),
        pushes=tuple(f"__push_{number}.json" for number in range(len(pushes))),
        environments=tuple(environments),
        docker_images=images.images or None,
        docker_path=images.search_path or None,
        **options_in_plan(flyte),
    )
    documents = {name: push.to_json() for name, push in zip(plan.pushes, pushes)}
    digests = [*installed, task.link_digest]
    digests += [task.bundle.digest] if task.bundle else []
    digests += [task.image.digest] if task.image else []
    return await _remote_program(address, plan, documents, digests, flyte_pack, images.env)


def _deploy_options(address: Address, options: RunOptions) -> DeployOptions:
    try:
        return parse(options.of_deploying)
    except UsageError as error:
        raise FlyteTargetError(address, str(error)) from None


async def _remote_program(
    address: Address,
    plan: DeployPlan,
    documents: Mapping[str, bytes],
    digests: Sequence[Digest],
    flyte_pack: FlytePackSubsystem,
    env: Optional[Mapping[str, str]] = None,
) -> RunRequest:
    document = await engine.create_digest({_PLAN: plan.to_json(), **documents})
    return await interactive_program(
        flyte_pack,
        (
            *("run-remote", "--plan", f"{{chroot}}/{_PLAN}", "--dir", "{chroot}"),
            *("--task", address.spec, "--"),
        ),
        [document, *digests],
        env,
    )


async def _deployments_of(address: Address, named: Optional[str]) -> List[Target]:
    """Each `flyte_deployment` that has the task; the one that is `named`, if one is."""
    found: List[Target] = []
    for target in await engine.all_targets():
        if isinstance(target, types.FlyteDeployment):
            unparsed = target[types.FlyteDeploymentTasksField].to_unparsed_address_inputs()
            if address in await engine.resolve_addresses(unparsed):
                found.append(target)
    chosen = [target for target in found if named in (None, target.address.spec)]
    if named is not None and not chosen:
        there = ", ".join(sorted(target.address.spec for target in found)) or "none"
        raise FlyteTargetError(
            address,
            f"no `flyte_deployment` {named} has it in its `tasks`; there are: {there}.",
        )
    return chosen


def _check_is_task(target: Target, options: RunOptions) -> None:
    if not isinstance(target, types.FlyteApp):
        return
    typed, instead = "--in-image", "leave it out, to serve it from its bundle on this machine"
    if options.remote:
        typed, instead = "--remote", "deploy it, by a `flyte_deployment` that has it in its `tasks`"
    raise FlyteTargetError(target.address, f"{typed} is for tasks, and this is an app: {instead}.")


async def _request(
    address: Address,
    typed: Sequence[str],
    flyte: FlyteSubsystem,
    packages: PackageSettings,
    modules: FirstPartyModules,
    dist_dir: DistDir,
    docker: DockerSettings,
) -> RunRequest:
    flyte_pack = packages.flyte_pack
    try:
        options = split(typed)
    except UsageError as error:
        raise FlyteTargetError(address, str(error)) from None
    if options.deployed is not None or options.remote or options.in_image:
        _check_is_task((await engine.targets_at([address]))[0], options)
    if options.deployed is not None:
        return await _deployed(address, options, flyte, packages, dist_dir)
    # Its inputs can be told without Flyte.
    if options.remote and not options.help:
        return await _shipped(address, options, flyte, packages, modules, dist_dir, docker)
    task_request = TaskRequest(
        address, options.copy_style, options.root_dir, image=options.in_image
    )
    task = (await engine.build_tasks([task_request]))[0]
    if options.in_image:
        return await _in_image(task, flyte, flyte_pack)
    return await _here(task, store_uri(flyte, dist_dir), flyte, packages, modules)


@_uncacheable_rule(desc="Prepare to run a Flyte task or app", level=LogLevel.DEBUG)
async def run_task(
    field_set: RunTaskFieldSet,
    run: RunSubsystem,
    flyte: FlyteSubsystem,
    packages: PackageSettings,
    modules: FirstPartyModules,
    dist_dir: DistDir,
    docker: DockerSettings,
    turn: LoopTurn,
) -> RunRequest:
    address = field_set.address
    request = await _request(address, run.args, flyte, packages, modules, dist_dir, docker)
    return loop.once(turn, address, request)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [*collect_rules(), *RunTaskFieldSet.rules()]
