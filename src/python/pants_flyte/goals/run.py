"""`run` for `flyte_task`: the task out of its own bundle, with Flyte's local runner, here or in its image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable, Union

from pants.backend.python.target_types import EntryPoint
from pants.backend.python.util_rules.pex_from_targets import PexFromTargetsRequest
from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest, RunSubsystem
from pants.core.util_rules.distdir import DistDir
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.run_options import RunUsageError, split
from pants_flyte.build_types import BuiltTask, TaskRequest
from pants_flyte.engine import (
    build_tasks,
    merge_digests,
    requirements_pex,
    tool_environment,
    under_prefix,
)
from pants_flyte.errors import FlyteTargetError
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import FlyteEntryPointField
from pants_flyte.tool import insecure_arguments, interactive_program, program_sources

_PROGRAM_DIR = "__flyte_pack"


@dataclass(frozen=True)
class RunTaskFieldSet(RunFieldSet):
    required_fields = (FlyteEntryPointField,)
    # The run starts from the caller's environment, and writes into the local store.
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED

    entry_point: FlyteEntryPointField


async def _in_image(
    task: BuiltTask, flyte: FlyteSubsystem, flyte_pack: FlytePackSubsystem
) -> RunRequest:
    digests = [task.link_digest]
    digests += [task.bundle.digest] if task.bundle else []
    digests += [task.image.digest] if task.image else []
    program = await interactive_program(
        flyte_pack,
        (
            *("run-in-image", "--task", f"{{chroot}}/{task.link_path}", "--dir", "{chroot}"),
            *insecure_arguments(flyte),
            "--",
        ),
        digests,
    )
    return program.run_request()


@rule(desc="Prepare to run a Flyte task", level=LogLevel.DEBUG)
async def run_task(
    field_set: RunTaskFieldSet,
    run: RunSubsystem,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    dist_dir: DistDir,
) -> RunRequest:
    address = field_set.address
    try:
        options = split(run.args)
    except RunUsageError as error:
        raise FlyteTargetError(address, str(error)) from None
    task = (
        await build_tasks(
            [
                TaskRequest(
                    address,
                    copy_style=options.copy_style,
                    root_dir=options.root_dir,
                    image=options.in_image,
                )
            ]
        )
    )[0]
    if options.in_image:
        return await _in_image(task, flyte, flyte_pack)
    requirements = await requirements_pex(
        PexFromTargetsRequest(
            [address],
            output_filename="environment.pex",
            internal_only=True,
            include_source_files=False,
            include_local_dists=True,
            main=EntryPoint("flyte_pack.__main__"),
        )
    )
    environment = await tool_environment(
        replace(requirements, additional_args=(*requirements.additional_args, "--no-strip-pex-env"))
    )
    program = await under_prefix(await program_sources(), _PROGRAM_DIR)
    bundle = [task.bundle.digest] if task.bundle else []
    return RunRequest(
        digest=await merge_digests([environment.digest, program, task.link_digest, *bundle]),
        args=[
            f"{{chroot}}/{environment.argv0}",
            "run",
            *("--task", f"{{chroot}}/{task.link_path}"),
            *("--dir", "{chroot}"),
            *("--store", store_uri(flyte, dist_dir)),
            "--",
        ],
        extra_env={**environment.env, "PEX_EXTRA_SYS_PATH": f"{{chroot}}/{_PROGRAM_DIR}"},
        append_only_caches=environment.append_only_caches,
    )


def store_uri(flyte: FlyteSubsystem, dist_dir: DistDir) -> str:
    """The store of whoever names none: `[flyte].store`, else a directory below `--distdir`."""
    return flyte.store or f"file://{dist_dir.relpath / 'flyte'}"


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [*collect_rules(), *RunTaskFieldSet.rules()]
