"""Becomes Flyte's own command that runs a task on the control plane, and follows the run.

The task is one that is registered, or one that goes along with the run, as with `flyte run`.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

from . import images
from .client import Client
from .private import private
from .words import NO_FLYTE, Refused

# A log stream may stay open when its pod has ended; this is how long its last lines may take.
LAST_LINES_SECONDS = 10.0


def main(argv: list[str]) -> NoReturn:
    """Run a task with what the user typed; ends the process: 0 if the run succeeded.

    argv: the number of an open file, `--`, and what the user typed. The file holds a JSON object:
    {"settings": as of `Client.settings`, "name": Flyte's name of the task, "version", "program":
    for help, "ours": options of ours, "follow": whether to, "request": the task as it would be
    registered, in base64, or "command": what is registered must run}.
    """
    with open(int(argv[0]), "rb") as file:
        file.seek(0)
        spec = json.load(file)
    try:
        import flyte
    except ModuleNotFoundError:
        sys.exit(NO_FLYTE)
    import flyte.remote

    client = Client()
    client.flyte = flyte
    try:
        client.settings(**spec["settings"])
        code = _run(client, spec, argv[argv.index("--") + 1 :])
    except Refused as error:
        print(f"{spec['name']} (version {spec['version']}): {error}", file=sys.stderr)
        code = 1
    # Threads of Flyte's client, which are not Python's own, may abort an interpreter that ends in
    # the usual way, now and then: the exit code is that of the run.
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _run(client: Client, spec: dict[str, Any], arguments: list[str]) -> int:
    import rich_click as click

    outcome: list[int] = []
    command, state = _command(client, spec, outcome)
    try:
        code = command.main(
            args=arguments, prog_name=spec["program"], obj=state, standalone_mode=False
        )
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except click.NoSuchOption as error:
        error.show()
        if error.option_name in spec["ours"]:
            print(f"Type {error.option_name} before the inputs of the task.", file=sys.stderr)
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return int(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        raise Refused(client.explain(error)) from None
    return outcome[0] if outcome else int(code or 0)


def _command(client: Client, spec: dict[str, Any], outcome: list[int]) -> tuple[Any, Any]:
    """Flyte's command, and the state of its command line. The exit code goes into `outcome`."""
    settings, name, version = spec["settings"], spec["name"], spec["version"]
    where = {"project": settings["project"], "domain": settings["domain"]}
    if spec["request"] is not None:
        # Flyte's command asks for the task's interface by this.
        local = _Local(client.flyte, spec["request"])
        client.flyte.remote.Task.get = lambda *_, **__: local

    class Command(private("RunRemoteTaskCommand")):  # type: ignore[misc]
        """Flyte's command, with its options and their help, which starts the run and follows it."""

        async def _execute_and_render(self, ctx: Any, config: Any) -> None:
            if spec["request"] is not None:
                task = local.fetch()
            else:
                task = client.flyte.remote.Task.get(name, version=version)
                _check(spec, await task.fetch.aio())
            context = client.flyte.with_runcontext(mode="remote", **log_levels())
            started = await context.run.aio(task, **ctx.params)
            print(f"Run {started.name}: {started.url}", flush=True)
            outcome.append(await _follow(started, spec) if spec["follow"] else 0)

    command = Command(
        task_name=name,
        run_args=private("RunArguments")(**where),
        version=version,
        name=name,
        help=f"Run {name} (version {version}) on the control plane at {client.endpoint}.",
    )
    config = replace(client.config, task=replace(client.config.task, **where))
    return command, client.cli_config(config)


def log_levels() -> dict[str, int]:
    """What a run logs, for `with_runcontext`: as Flyte's own command line has it by default.

    Without it, Flyte gives the run the level of this process, whose client keeps silent.
    """
    return {
        "log_level": private("env_log_level")(),
        "user_log_level": private("env_user_log_level")(),
    }


class _Local:
    """A task that is not registered: it goes along with the run, as one that was changed does."""

    def __init__(self, flyte: Any, request: str) -> None:
        from flyteidl2.task.task_definition_pb2 import TaskDetails
        from flyteidl2.task.task_service_pb2 import DeployTaskRequest

        made = DeployTaskRequest.FromString(base64.b64decode(request))
        details = TaskDetails(task_id=made.task_id, spec=made.spec)
        self._task = flyte.remote.TaskDetails(details, overridden=True)

    def fetch(self) -> Any:
        return self._task


def _check(spec: dict[str, Any], task: Any) -> None:
    """Raise `Refused` unless what is registered runs what the deployment's record says.

    Whoever may write to the store may have put another task's name into the record.
    """
    registered, _ = images.container(task.pb2.spec.task_template)
    if _comparable(registered) != _comparable(spec["command"]):
        raise Refused(
            "the control plane has another command under that name and version than the record "
            "of the deployment: one of the two was changed. Deploy it again"
        )


def _comparable(command: list[str]) -> list[Any]:
    """Without the compression of the images, which differs between machines."""
    found: list[Any] = list(command)
    for at, word in enumerate(command[:-1]):
        if word == "--image-cache":
            with suppress(ValueError, OSError):
                found[at + 1] = json.loads(gzip.decompress(base64.b64decode(command[at + 1])))
    return found


# --- following -----------------------------------------------------------------------------------


async def _follow(run: Any, spec: dict[str, Any]) -> int:
    """Say how a run goes until it ends, and what it logs; 0 if it succeeded."""
    logs = _Logs(run)
    phase, done = "", False
    try:
        while not done:  # the stream may end before the run does
            async for details in run.action.watch():
                now, done = str(getattr(details.phase, "value", details.phase)), details.done()
                if now != phase:
                    phase = now
                    print(f"Run {run.name} is {phase}", flush=True)
                logs.follow(details)
                if done:
                    break
            else:
                await asyncio.sleep(1)
        await logs.end()
    except (KeyboardInterrupt, asyncio.CancelledError):
        where = spec["settings"]
        print(
            f"\nThe run goes on without you: {run.url}\nTo stop it: flyte abort run {run.name} "
            f"--project {where['project']} --domain {where['domain']}",
            file=sys.stderr,
            flush=True,
        )
        raise KeyboardInterrupt from None
    if phase.lower() != "succeeded":
        details = await run.details.aio()
        info = details.action_details.error_info
        print(f"Run {run.name} {phase}: {info.message if info else ''}", file=sys.stderr)
        return 1
    outputs = await run.outputs.aio()
    print(f"Outputs: {outputs}", flush=True)
    return 0


class _Logs:
    """Prints what each attempt of a run's first action logs, by Flyte's own means."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self._attempts: dict[int, asyncio.Task[None]] = {}

    def follow(self, details: Any) -> None:
        """Follow the attempt that runs, or has run, if it is a new one."""
        attempt = max(1, int(details.attempts))
        if (details.is_running or details.done()) and attempt not in self._attempts:
            self._attempts[attempt] = asyncio.ensure_future(self._show(attempt))

    async def end(self) -> None:
        """Wait for the last lines, not for ever."""
        if self._attempts:
            _, late = await asyncio.wait(self._attempts.values(), timeout=LAST_LINES_SECONDS)
            for one in late:
                one.cancel()

    async def _show(self, attempt: int) -> None:
        try:
            # (What Flyte's own viewer prints is cut to the width of a terminal, in a pipe too.)
            async for line in self._run.get_logs.aio(attempt, show_ts=True):
                print(line.rstrip("\n"), flush=True)
        except Exception as error:
            # The run is not over for that, and its page has the logs.
            print(f"No logs here ({type(error).__name__}): see {self._run.url}", file=sys.stderr)
