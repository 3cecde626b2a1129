"""The deploy program: command line in, exit code out; every failure is one clear message.

It imports little, so that processes that need Flyte are on their way before `commands` is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from flyte_pack.command import CHANGED, DONE, FAILED, cut, guarded
from flyte_pack.deploy.ahead import started_ahead
from flyte_pack.deploy.options import HELP, parse
from flyte_pack.deploy.plan import DeployPlan, resolve
from flyte_pack.errors import UsageError
from flyte_pack.fresh import write_report
from flyte_pack.json_fields import dump
from flyte_pack.progress import Console, write

_SCHEMA = 1


def main(argv: Sequence[str]) -> int:
    """`--plan PLAN.json ... -- WHAT THE USER TYPED`, in the build root; gives the exit code."""
    _forget_the_callers_python()
    say = Console(sys.stderr)  # standard output is for the result
    hint = "./pants run path:deploy -- --help"
    return guarded("", lambda: _main(argv, say), hint=hint, tell=say)


def _main(argv: Sequence[str], say: Console) -> int:
    ours, typed = cut(argv)
    plan_file, directory, report_file, output_file = _arguments(ours)
    options = parse(typed)
    if options.command == "help":
        _print(HELP)
        return DONE
    address = ""

    def work() -> int:
        nonlocal address
        with open(plan_file, "rb") as file:
            plan = DeployPlan.from_json(file.read())
        address = plan.address
        request = resolve(plan, options)
        with started_ahead(request, directory, say) as processes:
            from flyte_pack.deploy.commands import Commands

            document = {
                "schema": _SCHEMA,
                **Commands(request, directory, say, processes).document(),
            }
        say.draw("")  # of a transfer that turned out not to be needed
        if options.ships:
            write_report(report_file, dump(document))
        told = dump(document).decode() if options.output == "json" else _text(document)
        if output_file is not None:
            with open(output_file, "w") as file:
                file.write(told)
        else:
            _print(told)
        if options.exit_code and _changes(document):
            return CHANGED
        return FAILED if document.get("broken") else DONE

    def tell(message: str) -> None:
        say(message)
        failure = dump({"schema": _SCHEMA, "error": message})
        if options.ships:
            write_report(report_file, failure)
        if options.output == "json":
            _print(failure.decode())

    interrupted = "interrupted: what was written is whole, and running it again does the rest"
    return guarded(lambda: address, work, interrupted=interrupted, tell=tell)


def _changes(document: dict[str, Any]) -> bool:
    """Whether a run changed something, or a dry run would."""
    parts = [*document.get("images", ()), *document["registered"]]
    moved = any(one["status"] != "unchanged" for one in parts)
    return bool(document["writes"] or moved or document["triggers"] or document.get("apps"))


def _text(document: dict[str, Any]) -> str:
    from flyte_pack.deploy import report

    return report.text(document)


def _arguments(words: list[str]) -> tuple[str, str, str | None, str | None]:
    """(plan file, directory of the packaged files, file for a report, file for the output)."""
    ours = dict(zip(words[::2], words[1::2]))
    known = {"--plan", "--dir", "--report", "--output-file"}
    if len(words) % 2 or "--plan" not in ours or ours.keys() - known:
        raise UsageError(
            "usage: python -m flyte_pack deploy --plan PLAN.json [--dir DIR] [--report FILE] "
            "[--output-file FILE] -- [what a user types]"
        )
    plan = ours["--plan"]
    directory = ours.get("--dir", os.path.dirname(plan))
    return plan, directory, ours.get("--report"), ours.get("--output-file")


def _forget_the_callers_python() -> None:
    """Keep the settings of this Python from the programs that it starts."""
    for name in list(os.environ):
        if name in ("PYTHONPATH", "PYTHONHOME") or name.startswith("PEX_"):
            del os.environ[name]


def _print(text: str) -> None:
    write(sys.stdout, text if text.endswith("\n") else f"{text}\n")
