"""`publish` for `flyte_image`: pushes it to its registries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.core.goals.publish import (
    PublishFieldSet,
    PublishOutputData,
    PublishPackages,
    PublishProcesses,
    PublishRequest,
)
from pants.engine.rules import Rule, _uncacheable_rule, collect_rules
from pants.engine.unions import UnionRule

from pants_flyte import engine
from pants_flyte.build_types import ImageRequest
from pants_flyte.environment import callers_environment
from pants_flyte.image_target_types import FlyteImageBaseField, FlyteImageSkipPushField
from pants_flyte.pushing import push_plan
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.tool import interactive_process, interactive_program, report_arguments

_PLAN = "__push_plan.json"


class PublishImageRequest(PublishRequest):  # type: ignore[type-arg]  # generic only since later versions
    pass


@dataclass(frozen=True)
class PublishImageFieldSet(PublishFieldSet):  # type: ignore[type-arg]
    publish_request_type = PublishImageRequest
    required_fields = (FlyteImageBaseField,)

    skip_push: FlyteImageSkipPushField

    def get_output_data(self) -> PublishOutputData:
        return PublishOutputData({"publisher": "flyte", **super().get_output_data()})


@_uncacheable_rule
async def publish_image(
    request: PublishImageRequest,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
) -> PublishProcesses:
    address = request.field_set.address
    if request.field_set.skip_push.value:
        skipped = "(by `skip_push` of the target)"
        return PublishProcesses([PublishPackages((address.spec,), description=skipped)])
    target = (await engine.targets_at([address]))[0]
    image = (await engine.build_images([ImageRequest(address)]))[0]
    plan = await push_plan(
        target, image, flyte, provenance=flyte.provenance, python_setup=python_setup
    )
    if not plan.destinations:
        skipped = "(no registry is known: set `registries` of the target, or `[flyte].registries`)"
        return PublishProcesses([PublishPackages((address.spec,), description=skipped)])
    plan_digest = await engine.create_digest({_PLAN: plan.to_json()})
    program = await interactive_program(
        flyte_pack,
        (
            *("push", "--plan", f"{{chroot}}/{_PLAN}", "--dir", "{chroot}"),
            *report_arguments(flyte, "publish", address),
        ),
        (plan_digest, image.digest),
    )
    names = tuple(
        f"{destination.name}:{tag}" if tag else f"{destination.name}@{plan.digest}"
        for destination in plan.destinations
        for tag in destination.tags or ("",)
    )
    registries = dict.fromkeys(d.reference.registry for d in plan.destinations)
    return PublishProcesses(
        [
            PublishPackages(
                names=names,
                process=interactive_process(program, await callers_environment(flyte)),
                description=", ".join(registries),
                data=PublishOutputData({"digest": plan.digest}),
            )
        ]
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [*collect_rules(), *PublishImageFieldSet.rules()]
