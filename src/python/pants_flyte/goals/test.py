"""`test` for `flyte_image`: imports its modules inside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Union

from pants.backend.python.util_rules.pex import VenvPexProcess
from pants.core.goals.multi_tool_goal_helper import SkippableSubsystem
from pants.core.goals.test import TestFieldSet, TestRequest, TestResult, TestSubsystem
from pants.engine.process import ProcessCacheScope
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte.build_types import ImageRequest
from pants_flyte.environment import plain_environment
from pants_flyte.image_target_types import FlyteImageBaseField, FlyteImageSmokeTestField
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.tool import insecure_arguments, program_pex


class FlyteSmokeTestSubsystem(Subsystem):
    options_scope = "flyte-smoke-test"
    name = "Flyte's smoke test of images"
    help = "Imports the first-party modules of each `flyte_image` with `smoke_test=True` inside it."

    skip = SkipOption("test")


@dataclass(frozen=True)
class SmokeTestFieldSet(TestFieldSet):
    required_fields = (FlyteImageBaseField, FlyteImageSmokeTestField)

    smoke_test: FlyteImageSmokeTestField

    @classmethod
    def opt_out(cls, target: Target) -> bool:
        return not target[FlyteImageSmokeTestField].value


class SmokeTestRequest(TestRequest):
    tool_subsystem: type[SkippableSubsystem] = FlyteSmokeTestSubsystem  # type: ignore[misc]
    field_set_type = SmokeTestFieldSet


@rule(desc="Smoke-test a Flyte image", level=LogLevel.DEBUG)
async def smoke_test(
    batch: SmokeTestRequest.Batch[SmokeTestFieldSet, Any],
    test: TestSubsystem,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
) -> TestResult:
    """What is tested is packages, so the image holds code even where bundles bring that."""
    address = batch.single_element.address
    image = (await engine.build_images([ImageRequest(address, code=True)]))[0]
    modules = "".join(f"{module}\n" for module in image.modules)
    files = await engine.create_digest({"modules.txt": modules.encode()})
    tool = await engine.venv_pex(await program_pex(flyte_pack, "deploy_lockfile"))
    env = await plain_environment()
    result = await engine.run_venv_pexes(
        [
            VenvPexProcess(
                tool,
                argv=(
                    *("image-smoke", "--layout", image.layout, "--address", address.spec),
                    *("--modules", "modules.txt", "--commands", "a0"),
                    *insecure_arguments(flyte),
                ),
                input_digest=await engine.merge_digests([image.digest, files]),
                extra_env=env,
                description=f"Import {len(image.modules)} modules in {address}",
                level=LogLevel.INFO,
                cache_scope=ProcessCacheScope.PER_SESSION
                if test.force
                else ProcessCacheScope.SUCCESSFUL,
            )
        ],
        {},
    )
    return engine.test_result(result[0], address, test)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [*collect_rules(), *SmokeTestRequest.rules()]
