"""`flyte-explain`: what a target ships, through which dependencies, and at what cost."""

from __future__ import annotations

import logging
import os
from enum import Enum
from typing import Any, Dict, Iterable, Mapping, Sequence, Tuple, Union

from pants.base.build_environment import get_buildroot
from pants.core.util_rules.distdir import DistDir
from pants.engine.console import Console
from pants.engine.goal import Goal, GoalSubsystem, Outputting
from pants.engine.rules import Rule, collect_rules, goal_rule
from pants.engine.target import Targets
from pants.engine.unions import UnionRule
from pants.option.option_types import BoolOption, EnumOption, StrOption
from pants.util.docutil import bin_name
from pants.util.strutil import help_text

from flyte_pack import diff_text, explain_json
from flyte_pack.command import no_garbage
from flyte_pack.errors import UserError
from flyte_pack.explain import Graph
from flyte_pack.explain_text import summary, text, why, why_brought, why_held
from flyte_pack.report.page import page
from pants_flyte.build_types import Explained, ExplainRequest
from pants_flyte.explain import Asked, asked_about, explain_each
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.goals.diff import (
    Deploying,
    deployed,
    differences,
    since_revision,
    since_version,
)
from pants_flyte.old_sides import Kind, parse
from pants_flyte.subsystem import FlyteSubsystem
from pants_flyte.task_packages import PackageSettings
from pants_flyte.why_missing import brought_by_others, why_missing

logger = logging.getLogger(__name__)

_MORE = (
    "Sizes are those on disk: `--packed` adds those in the archive, or the layers of an image.\n"
)
_KINDS = "`flyte_task`, `flyte_app`, `flyte_bundle`, `flyte_image` or `flyte_deployment`"


class ExplainFormat(Enum):
    TEXT = "text"
    JSON = "json"
    HTML = "html"


class FlyteExplainSubsystem(Outputting, GoalSubsystem):
    name = "flyte-explain"
    help = help_text(f"""
        Show what a {_KINDS}
        ships, through which dependencies, and at what cost. No code is run, and nothing is packed
        unless `--packed` asks for that.

            {bin_name()} flyte-explain path/to:train
            {bin_name()} flyte-explain --why=libs/limits/limits.json path/to:train
            {bin_name()} flyte-explain --why=numpy path/to:train
            {bin_name()} flyte-explain --packed path/to:image
            {bin_name()} flyte-explain --diff=current path/to:deploy
            {bin_name()} flyte-explain --format=html --output-file=r.html path/to:train

        Each file stands below the one that brings it: a module that imports it, or whose target
        declares it in `dependencies`. Then come third-party requirements with the modules that need
        them, totals by folder and by target, and what the bundle would lose without each direct
        dependency of its entry point.
    """)

    format = EnumOption(
        default=ExplainFormat.TEXT,
        help="`text` for people; `json` for programs, in the shape that docs/explain.md has; "
        "`html` for a browser: one file that needs no network, with sizes, imports and a search.",
    )
    why = StrOption(
        default=None,
        metavar="PATH|MODULE|DISTRIBUTION",
        help="Show only why this is there: the shortest path of dependencies from the entry point "
        "to a file (by its path in the repository or in the bundle), a module "
        "(`libs.features.trend`) or a third-party distribution (`numpy`). Where it is not there, "
        "say why not and what to write; if no target has it, exit with 1. "
        "`--format=html` reports everything, with this selected.",
    )
    diff = StrOption(
        default=None,
        metavar="OLD",
        help="Show only what differs from OLD: files with the dependency that brought or dropped "
        "them, third-party requirements, layers and settings. OLD is a manifest "
        "(`dist/services.ml/train.manifest.json`) or the layout of an image; a deployed version of "
        "a `flyte_deployment`, as `current` or `version:V`; another target; or a revision of git.",
    )
    packed = BoolOption(
        default=False,
        help="Pack it as `package` does, which costs nothing right after that, and show what each "
        "file takes in the archive, too; of an image, which layer has which distributions and "
        "targets, and what they take there. With `--diff` it counts for `--format=html` alone.",
    )
    all = BoolOption(
        default=False,
        help="With `--why`: all shortest paths, not only the first.",
    )


class FlyteExplain(Goal):
    subsystem_cls = FlyteExplainSubsystem
    environment_behavior = Goal.EnvironmentBehavior.LOCAL_ONLY


def _told(
    options: FlyteExplainSubsystem,
    asked: Sequence[Asked],
    explained: Mapping[ExplainRequest, Explained],
    answers: Mapping[str, Any],
) -> str:
    """Each artifact once, however many deployments have it.

    answers: what a document has of `--why` or `--diff`.
    """
    graphs = {request: Graph(one.artifact) for request, one in explained.items()}
    artifacts = {
        (one.artifact.root, one.copy_style): graphs[request] for request, one in explained.items()
    }
    deployments = {
        one.address.spec: [graphs[request] for request in one.requests]
        for one in asked
        if one.is_deployment
    }
    if options.format is not ExplainFormat.TEXT:
        content = explain_json.content(
            artifacts=[
                explain_json.artifact(graph, copy_style)
                for (_, copy_style), graph in artifacts.items()
            ],
            deployments=[explain_json.deployment(*one) for one in deployments.items()],
            **answers,
        )
        html = options.format is ExplainFormat.HTML
        return page(content, list(artifacts.values())) if html else explain_json.document(content)
    texts: Dict[str, None] = {}
    for one in asked:
        if one.is_deployment:
            texts[summary(one.address.spec, deployments[one.address.spec])] = None
        texts.update((text(explained[r].what, graphs[r]), None) for r in one.requests)
    if texts and not options.packed:
        texts[_MORE] = None
    return "\n".join(texts)


async def _whys(
    options: FlyteExplainSubsystem,
    explained: Iterable[Explained],
    modules: FirstPartyModules,
    packages: PackageSettings,
) -> Tuple[str, Mapping[str, Any]]:
    """The answers, in words and for a document."""
    wanted = _from_build_root(options.why or "")
    answers: Dict[str, Mapping[str, Any]] = {}
    for one in explained:
        graph = Graph(one.artifact)
        said, told = why(graph, wanted, options.all), explain_json.found(graph, wanted, options.all)
        brought = None
        if not said:
            brought = await brought_by_others(wanted, one, packages.python_setup)
        if brought is not None:
            names, target, version = brought
            said = why_brought(graph, names, target, version)
            told = explain_json.found_brought(graph, names, target)
        elif not said and (held := why_held(graph, wanted)):
            said, told = held, {**told, "found": True}
        elif not said:
            reason = await why_missing(wanted, one, modules, packages)
            said = f"{one.artifact.root} does not have {wanted}: {reason}\n"
            told = {**told, "why_not": reason}
        answers[said] = told
    return "\n".join(answers), {"asked": wanted, "why": list(answers.values())}


def _from_build_root(asked: str) -> str:
    """A path as Pants writes it; whatever else was asked for stays as it is.

    An absolute one outside of the build root may be one in an image.
    """
    if os.path.isabs(asked):
        relative = os.path.relpath(asked, get_buildroot())
        asked = asked if relative.startswith("../") else relative
    return os.path.normpath(asked) if "/" in asked and ":" not in asked else asked


async def _diff(
    options: FlyteExplainSubsystem,
    asked: Sequence[Asked],
    console: Console,
    deploying: Deploying,
) -> int:
    """The exit code. Raises `UserError`."""
    typed, as_json = options.diff or "", options.format is ExplainFormat.JSON
    old = parse(typed)
    addresses = [one.address for one in asked]
    if old.kind is Kind.DEPLOYED and options.format is not ExplainFormat.HTML:
        return await deployed(typed, old, addresses, deploying, as_json, options.output_file)
    requests = tuple(dict.fromkeys(request for one in asked for request in one.requests))
    explained = await explain_each(requests)
    if old.kind is Kind.DEPLOYED:
        found = await since_version(typed, old, addresses, deploying)
    elif old.kind is Kind.REVISION:
        found = await since_revision(old, addresses, explained, deploying)
    else:
        found = await differences(typed, old, explained)
    answers = {"old": typed, "differences": found}
    if options.format is ExplainFormat.HTML:
        told = _told(options, asked, dict(zip(requests, explained)), answers)
    elif as_json:
        told = explain_json.document(explain_json.content(**answers))
    else:
        told = diff_text.text(found, f"against {typed}")
    with options.output(console) as write:
        write(told)
    return 0


@goal_rule
async def flyte_explain(
    console: Console,
    targets: Targets,
    options: FlyteExplainSubsystem,
    flyte: FlyteSubsystem,
    packages: PackageSettings,
    modules: FirstPartyModules,
    dist_dir: DistDir,
) -> FlyteExplain:
    is_html = options.format is ExplainFormat.HTML
    # Words and JSON about what differs have no such sizes.
    asked = await asked_about(targets, options.packed and (is_html or not options.diff))
    for name in ("why", "diff"):
        if getattr(options, name) == "":  # a variable of a script, say, that is not set
            console.print_stderr(f"flyte-explain: --{name} is empty: say what it is about")
            return FlyteExplain(exit_code=1)
    if options.why and options.diff:
        console.print_stderr("flyte-explain: --why and --diff are two questions: ask one of them")
        return FlyteExplain(exit_code=1)
    if not asked:
        logger.warning(f"flyte-explain: none of the targets is a {_KINDS}.")
    if options.diff:
        deploying = Deploying(flyte, packages, modules, dist_dir)
        try:
            return FlyteExplain(await _diff(options, asked, console, deploying))
        except UserError as error:
            console.print_stderr(f"flyte-explain: {error}")
            return FlyteExplain(exit_code=1)
    requests = tuple(dict.fromkeys(request for one in asked for request in one.requests))
    explained = dict(zip(requests, await explain_each(requests)))
    told, found = "", True
    answers: Mapping[str, Any] = {}
    if options.why:
        told, answers = await _whys(options, explained.values(), modules, packages)
        found = any(answer["found"] for answer in answers["why"])
    if is_html or not options.why:
        with no_garbage():  # looking for it takes a quarter of the time
            told = _told(options, asked, explained, answers)
    elif options.format is ExplainFormat.JSON:
        told = explain_json.document(explain_json.content(**answers))
    with options.output(console) as write:
        write(told)
    return FlyteExplain(exit_code=0 if found else 1)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
