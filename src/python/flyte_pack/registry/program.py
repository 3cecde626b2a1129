"""Pushes an image: `python -m flyte_pack push`."""

from __future__ import annotations

import argparse
import os
import sys

from flyte_pack import command
from flyte_pack.command import say
from flyte_pack.fresh import write_report
from flyte_pack.json_fields import dump
from flyte_pack.progress import write
from flyte_pack.registry.plan import PushPlan
from flyte_pack.signing import signer_of

EPILOG = (
    "Credentials come from docker's config.json ($DOCKER_CONFIG or ~/.docker) and its credential "
    "helpers."
)


def main(argv: list[str]) -> int:
    """The command; prints the references, and returns its exit code."""
    parser = command.parser(
        "python -m flyte_pack push", "Push an image to its registries.", epilog=EPILOG
    )
    parser.add_argument("--plan", required=True, help="the plan, as the rules wrote it")
    parser.add_argument("--dir", default=".", help="where the packaged files are")
    parser.add_argument("--report", help="a file for what was pushed, in JSON")
    return command.run(parser, argv, _push)


def _push(options: argparse.Namespace) -> None:
    from flyte_pack.registry.push import push_image

    with open(options.plan, "rb") as file:
        plan = PushPlan.from_json(file.read(), options.plan)
    every = push_image(plan, options.dir, say, signer=signer_of(os.environ))
    for pushed in every:
        write(sys.stdout, f"{pushed.reference}\n")
    document = {
        "schema": 1,
        "command": "publish",
        "address": plan.address,
        "digest": plan.digest,
        "images": [pushed.told() for pushed in every],
    }
    write_report(options.report, dump(document))
