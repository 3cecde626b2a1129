"""Runs a task in its image, as a cluster would: `python -m flyte_pack run-in-image`.

The image's entry point is the shim, which verifies the bundle and unpacks it in the working
directory. Then Flyte's command line reads what was typed (`flyte_side/run_here.py`), and `a0` runs
the task. One directory of this machine is mounted: it holds the bundle, a copy of `flyte_side`, and
what goes in and out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence

from flyte_pack import command
from flyte_pack.deploy.bundles import check_files
from flyte_pack.errors import UserError
from flyte_pack.flyte_side import MAIN
from flyte_pack.image.run import image_runner
from flyte_pack.image.running import Command, Mount
from flyte_pack.progress import write
from flyte_pack.run.local import SETTINGS, runner_arguments
from flyte_pack.run.options import HELP, split
from flyte_pack.scratch import scratch_place
from flyte_pack.task_link import TaskLink

_INSIDE = "/tmp/flyte-run"  # noqa: S108  # in the image, which mounts ours there


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit code of the task, or that of a failure."""
    parser = command.parser("python -m flyte_pack run-in-image")
    parser.add_argument("--task", required=True, help="the packaged task's link")
    parser.add_argument("--dir", required=True, help="the directory that its files are in")
    command.add_insecure(parser)
    return command.run(parser, argv, _run)


def _run(given: argparse.Namespace) -> int:
    options = split(given.typed)
    if options.help:
        write(sys.stdout, f"{HELP}\n")
    with open(given.task, "rb") as file:
        link = TaskLink.from_json(file.read(), given.task)
    if link.built_image is None:
        raise UserError(
            f"{link.address} has no image that is built here: "
            "set `image` to the address of a `flyte_image`"
        )
    # Others cannot enter this directory, so what is in it may be open to the image's user.
    top = tempfile.mkdtemp(prefix="flyte-run-in-image-", dir=scratch_place())
    try:
        shared = os.path.join(top, "shared")
        os.mkdir(shared)
        argv = _prepare(link, given.dir, shared, options.rest)
        layout = os.path.join(given.dir, link.built_image.layout)
        engine, address = options.engine or "auto", link.built_image.address
        with image_runner(layout, address, engine, given.insecure) as runner:
            return runner.run(
                Command(
                    argv,
                    env={"DO_NOT_TRACK": "1", "UCTL_CONFIG": f"{_INSIDE}/config.yaml"},
                    mounts=(Mount(shared, _INSIDE),),
                    stdin=sys.stdin.fileno() if sys.stdin else None,
                )
            )
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _prepare(
    link: TaskLink, directory: str, shared: str, arguments: Sequence[str]
) -> tuple[str, ...]:
    """Put what the container needs into `shared`; returns what its entry point runs."""
    files = os.path.join(shared, "io")
    os.mkdir(files)
    # The image may run as another user.
    os.chmod(shared, 0o755)  # noqa: S103
    os.chmod(files, 0o777)  # noqa: S103
    shutil.copytree(
        os.path.dirname(MAIN),
        os.path.join(shared, "flyte_side"),
        ignore=shutil.ignore_patterns("__pycache__"),
        copy_function=shutil.copyfile,
    )
    with open(os.path.join(shared, "config.yaml"), "w") as file:
        file.write(SETTINGS)
    bundle: tuple[str, ...] = ()
    if link.bundle is not None:
        check_files(directory, link.address, link.bundle)
        name = f"{link.bundle.archive_hash}.tar.gz"
        shutil.copyfile(os.path.join(directory, link.bundle.archive), os.path.join(shared, name))
        bundle = ("--tgz", f"file://{_INSIDE}/{name}", "--dest", ".")
    config = f"{_INSIDE}/config.yaml"
    ours = runner_arguments(link, config, arguments, a0=f"{_INSIDE}/io", bundle=bundle)
    # The shim finds the bundle in the command, as in a0's; the runner skips what is before "--".
    return ("python", f"{_INSIDE}/flyte_side/__main__.py", "run_here", *bundle, "--", *ours)
