"""Starts the processes that need Flyte as soon as a deployment seems to have something to do.

Their imports are the longest part of a deployment after an edit, and need nothing of what the
program does first. Whether there is something to do is a guess: a wrong one costs time only. What
goes wrong here is told where it counts, later.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flyte_pack.deploy.control_plane import find_control_plane
from flyte_pack.deploy.flyte_processes import Processes, import_environ
from flyte_pack.deploy.plan import Request
from flyte_pack.errors import UserError
from flyte_pack.progress import Say
from flyte_pack.remembered import Remembered
from flyte_pack.task_link import TaskLink


@contextmanager
def started_ahead(
    request: Request, directory: str, say: Say, each_time: bool = False
) -> Iterator[Processes]:
    """The processes, for the time of a `with` block. directory: of the packaged files.

    each_time: whether there is something to do even if nothing has changed.
    """
    processes = Processes(request.plan.standby)
    try:
        if _has_something_to_do(request, directory, each_time):
            environment = request.plan.environments[0]
            python, env = environment.command(directory), request.plan.import_env
            with suppress(UserError):
                processes.ahead(python, "describe", import_environ(env), say)
                processes.ahead(python, "client", {**os.environ, **environment.env}, say)
        yield processes
        processes.leave_one_of_each()
    finally:
        processes.end()


def nothing_to_do_next(request: Request, directory: str) -> None:
    """Remember that all of this is done."""
    fact, remembered = _all_of_it(request, directory), Remembered()
    if not remembered.has(*fact):
        remembered.add(*fact)


def _has_something_to_do(request: Request, directory: str, each_time: bool) -> bool:
    if not (request.options.packages and request.plan.environments):
        return False
    with suppress(UserError):
        if find_control_plane(request, os.getcwd(), os.environ) is not None:
            return each_time or not Remembered().has(*_all_of_it(request, directory))
    return False


def _all_of_it(request: Request, directory: str) -> tuple[str, ...]:
    """The fact that this was done: what was packaged, where it goes, what was typed.

    What describes a bundle is left out, as nothing is registered for that.
    """
    found = hashlib.sha256(repr(request).encode())
    for name in (*request.plan.tasks, *request.plan.pushes):
        with suppress(OSError, UserError), open(os.path.join(directory, name), "rb") as file:
            data = file.read()
            if name in request.plan.tasks:
                data = TaskLink.from_json(data, name).undescribed().to_json()
            found.update(hashlib.sha256(data).digest())
    return "done", found.hexdigest()
