"""The push program: command line in, exit code out. Whatever a user can cause ends here in one clear message."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from typing import TextIO

from flyte_pack.http import HttpError
from flyte_pack.json_fields import InvalidData, printable
from flyte_pack.names import InvalidName
from flyte_pack.registry.plan import PushPlan, check_host

EPILOG = "Credentials come from docker's config.json ($DOCKER_CONFIG or ~/.docker) and its credential helpers."


def main(argv: list[str]) -> int:
    """`push --plan PLAN.json --dir DIR [--dry-run] [--insecure HOST]...`; prints the references, one a line.

    Returns 0, or 1 where something can't be pushed, 2 for a wrong command line, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="push", description="Push an image to its registries.", epilog=EPILOG
    )
    parser.add_argument("--plan", required=True, help="the plan, as the rules wrote it")
    parser.add_argument("--dir", default=".", help="where the packaged files are")
    parser.add_argument("--dry-run", action="store_true", help="say what would be pushed")
    add_insecure(parser)
    try:
        options = parser.parse_args(argv)
    except SystemExit as error:
        return exit_code(error)
    return guarded("push", lambda: _push(options))


def _push(options: argparse.Namespace) -> int:
    from flyte_pack.registry.push import push_image

    with open(options.plan, "rb") as file:
        plan = PushPlan.from_json(file.read(), options.plan)
    insecure = tuple(map(check_host, options.insecure))
    result = push_image(plan, options.dir, say, dry_run=options.dry_run, insecure=insecure)
    for pushed in result.destinations:
        write(sys.stdout, f"{pushed.reference}\n")
    return 0


def add_insecure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--insecure",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="a registry that may be spoken to over plain HTTP; those on this machine may anyway",
    )


def exit_code(error: SystemExit) -> int:
    return error.code if isinstance(error.code, int) else 2


def guarded(name: str, work: Callable[[], int], failed: int = 1) -> int:
    """What `work` returns; `failed` and one message where it can't be done."""
    try:
        return work()
    except (HttpError, InvalidData, InvalidName) as error:
        say(f"{name}: {error}")
    except OSError as error:
        say(f"{name}: {error.filename or ''}: {error.strerror}")
    except KeyboardInterrupt:
        say(f"{name}: interrupted")
        return 130
    return failed


def say(line: str) -> None:
    """Something for the person who waits; standard output is for the result."""
    write(sys.stderr, f"{printable(line)}\n")


def write(stream: TextIO, text: str) -> None:
    if isinstance(stream, io.TextIOWrapper):
        # A name that the terminal's encoding lacks is no reason to fail.
        stream.reconfigure(errors="backslashreplace")
    stream.write(text)
    stream.flush()
