"""`lint` and `check`: whether what ships has all that its code needs, without packing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, List, Optional, Tuple, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.build_graph.address import Address
from pants.core.goals.check import CheckRequest, CheckResult, CheckResults
from pants.core.goals.lint import LintResult, LintTargetsRequest
from pants.core.util_rules.partitions import PartitionerType
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import FieldSet, Target
from pants.engine.unions import UnionRule
from pants.option.option_types import SkipOption
from pants.option.subsystem import Subsystem
from pants.util.logging import LogLevel
from pants.util.strutil import help_text

from flyte_pack.code.completeness import ERROR, QUIET, UNSURE
from flyte_pack.errors import listing
from pants_flyte import engine
from pants_flyte import target_types as types
from pants_flyte.build_types import CompletenessRequest, ImageRequest, TaskRequest
from pants_flyte.bundle import contents_of
from pants_flyte.completeness import how_of, lines_of, message, request_of
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.image import wants_code
from pants_flyte.image_code import contents_of_image
from pants_flyte.image_target_types import FlyteImage, FlyteImageWorkdirField
from pants_flyte.subsystem import FlyteSubsystem, Missing
from pants_flyte.task import bundle_request_of, code_asked


class FlyteCompletenessSubsystem(Subsystem):
    options_scope = "flyte-completeness"
    name = "the check of completeness"
    help = help_text("""
        Whether each bundle, and each image with code, has the modules and files that its code needs
        when it runs. `package` checks that as well; `lint` and `check` pack nothing. What to do
        about it says `[flyte].missing`.
    """)

    skip = SkipOption("lint", "check")


@dataclass(frozen=True)
class CompletenessFieldSet(FieldSet):
    required_fields = (types.FlyteMissingField,)


class LintCompleteness(LintTargetsRequest):
    field_set_type = CompletenessFieldSet
    tool_subsystem = FlyteCompletenessSubsystem
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


class CheckCompleteness(CheckRequest[CompletenessFieldSet]):
    field_set_type = CompletenessFieldSet
    tool_name = FlyteCompletenessSubsystem.options_scope


async def _asked(
    target: Target, flyte: FlyteSubsystem, modules: FirstPartyModules, python_setup: PythonSetup
) -> Tuple[Optional[CompletenessRequest], str]:
    """None where another target ships the code. And what to call what ships it."""
    address = target.address
    resolve = target[PythonResolveField].normalized_value(python_setup)
    if isinstance(target, FlyteImage):
        if not wants_code(target, ImageRequest(address)):
            return None, ""
        workdir = target[FlyteImageWorkdirField].value or ""
        contents = await contents_of_image(target, True, workdir, flyte, python_setup)
        return request_of(address, contents, resolve, f"{workdir[1:]}/"), "the image"
    if isinstance(target, types.FlyteTask):
        asked = await code_asked(TaskRequest(address), flyte, modules, python_setup)
        if asked.embedded or asked.bundle.address != address:
            return None, ""
        contents = await contents_of(asked.bundle, asked.entry_owners, flyte)
    else:
        bundle = bundle_request_of(target, flyte, python_setup)
        contents = await contents_of(bundle, frozenset(), flyte)
    return request_of(address, contents, resolve), "the bundle"


async def _told(
    address: Address, request: CompletenessRequest, how: Missing, what: str
) -> Tuple[List[str], bool]:
    """What is said of one target, and whether it is an error."""
    found = await engine.completeness_of(request)
    errors, unsure = lines_of(found, ERROR), lines_of(found, UNSURE)
    if how is not Missing.ERROR:
        errors, unsure = [], [*errors, *unsure]
    said = []
    if errors:
        said.append(f"{address}: {message(errors, what)}")
    if unsure:
        said.append(f"{address}: {message(unsure, what, certain=False)}")
    if quiet := lines_of(found, QUIET):
        said.append(f"{address}: {what} lacks what its code does without:\n{listing(quiet)}")
    if found.unknown:
        said.append(
            f"{address}: its code finds modules by names that the source does not say. What they "
            f"are goes into `dependencies`:\n{listing(found.unknown)}"
        )
    return said, bool(errors)


async def _checked(
    field_sets: Iterable[CompletenessFieldSet],
    flyte: FlyteSubsystem,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
) -> Tuple[int, str]:
    """The exit code, and what is said."""
    said: List[str] = []
    failed = False
    for target in await engine.targets_at([one.address for one in field_sets]):
        how = how_of(target, flyte)
        if how is Missing.IGNORE:
            continue
        try:
            asked, what = await _asked(target, flyte, modules, python_setup)
        except FlyteTargetError as error:  # one that cannot be packed hides no other
            said.append(str(error))
            failed = True
            continue
        if asked is not None:
            lines, is_error = await _told(target.address, asked, how, what)
            said += lines
            failed = failed or is_error
    return int(failed), "\n".join(said)


@rule(desc="Check that what ships has what its code needs", level=LogLevel.DEBUG)
async def lint_completeness(
    request: LintCompleteness.Batch[CompletenessFieldSet, Any],
    flyte: FlyteSubsystem,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
) -> LintResult:
    exit_code, said = await _checked(request.elements, flyte, modules, python_setup)
    name = FlyteCompletenessSubsystem.options_scope
    return LintResult(exit_code=exit_code, stdout=said, stderr="", linter_name=name)


@rule(desc="Check that what ships has what its code needs", level=LogLevel.DEBUG)
async def check_completeness(
    request: CheckCompleteness,
    subsystem: FlyteCompletenessSubsystem,
    flyte: FlyteSubsystem,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
) -> CheckResults:
    results = []
    if not subsystem.skip:
        exit_code, said = await _checked(request.field_sets, flyte, modules, python_setup)
        results.append(CheckResult(exit_code=exit_code, stdout=said, stderr=""))
    return CheckResults(results, checker_name=FlyteCompletenessSubsystem.options_scope)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        *LintCompleteness.rules(),
        UnionRule(CheckRequest, CheckCompleteness),
    ]
