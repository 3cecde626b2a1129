"""`run` for `flyte_base_image` (lock and check it) and for `flyte_image` (a command in it).

What reads the command line is uncacheable for the reasons in `goals/deploy.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.core.goals.run import RunFieldSet, RunInSandboxBehavior, RunRequest, RunSubsystem
from pants.engine.rules import Rule, _uncacheable_rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte import image_target_types as types
from pants_flyte.base_image import platforms_of, registry_reference
from pants_flyte.build_types import ImageRequest
from pants_flyte.image_apt import LOCK_APT, apt_lock_program
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.tool import insecure_arguments, interactive_program


@dataclass(frozen=True)
class RunBaseImageFieldSet(RunFieldSet):
    required_fields = (types.FlyteBasePlatformsField, types.FlyteBaseLockfileField)
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED


@dataclass(frozen=True)
class RunImageFieldSet(RunFieldSet):
    required_fields = (types.FlyteImageBaseField,)
    run_in_sandbox_behavior = RunInSandboxBehavior.NOT_SUPPORTED


@rule(desc="Prepare to lock a base image", level=LogLevel.DEBUG)
async def run_base_image(
    field_set: RunBaseImageFieldSet, flyte: FlyteSubsystem, flyte_pack: FlytePackSubsystem
) -> RunRequest:
    """Needs no lock file: this is what makes it."""
    target = (await engine.targets_at([field_set.address]))[0]
    python = target[types.FlyteBasePythonField].value
    return await interactive_program(
        flyte_pack,
        (
            *("base-lock", "--address", field_set.address.spec),
            *("--image", registry_reference(target)),
            *("--lockfile", target[types.FlyteBaseLockfileField].path),
            *(part for p in platforms_of(target) for part in ("--platform", str(p))),
            *(("--python", python) if python else ()),
            *insecure_arguments(flyte),
            "--",
        ),
        (),
    )


@_uncacheable_rule(desc="Prepare to run a command in an image", level=LogLevel.DEBUG)
async def run_image(
    field_set: RunImageFieldSet,
    run: RunSubsystem,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
) -> RunRequest:
    if run.args[:1] == (LOCK_APT,):  # without the image, which needs the lock file
        (target,) = await engine.targets_at([field_set.address])
        return await apt_lock_program(target, flyte, flyte_pack, python_setup)
    image = (await engine.build_images([ImageRequest(field_set.address)]))[0]
    return await interactive_program(
        flyte_pack,
        (
            *("image-run", "--layout", f"{{chroot}}/{image.layout}"),
            *("--address", field_set.address.spec),
            *insecure_arguments(flyte),
            "--",
        ),
        (image.digest,),
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [*collect_rules(), *RunBaseImageFieldSet.rules(), *RunImageFieldSet.rules()]
