"""Becomes Flyte's own command that runs a deployed task, and follows the run."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from typing import Any, NoReturn

from .client import Client
from .private import private
from .words import NO_FLYTE, Refused


def main(argv: list[str]) -> NoReturn:
    """Run a deployed task with what the user typed; ends the process: 0 if the run succeeded.

    argv: a JSON object {"settings": as of `Client.settings`, "name": Flyte's name of the task,
    "version", "program": for help}, `--`, and what the user typed.
    """
    spec = json.loads(argv[0])
    try:
        import flyte
    except ModuleNotFoundError:
        sys.exit(NO_FLYTE)
    import flyte.remote

    client = Client()
    client.flyte = flyte
    try:
        client.settings(**spec["settings"])
        sys.exit(_run(client, spec, argv[argv.index("--") + 1 :]))
    except Refused as error:
        sys.exit(f"{spec['name']} (version {spec['version']}): {error}")


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

    class Command(private("RunRemoteTaskCommand")):  # type: ignore[misc]
        """Flyte's command, with its options and their help, which starts the run and follows it."""

        async def _execute_and_render(self, ctx: Any, config: Any) -> None:
            task = client.flyte.remote.Task.get(name, version=version)
            context = client.flyte.with_runcontext(mode="remote", **log_levels())
            started = await context.run.aio(task, **ctx.params)
            outcome.append(await _follow(started))

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


async def _follow(run: Any) -> int:
    """Say how a run goes until it ends; 0 if it succeeded."""
    print(f"Run {run.name}: {run.url}", flush=True)
    phase = ""
    try:
        async for details in run.action.watch():
            now = str(getattr(details.phase, "value", details.phase))
            if now != phase:
                phase = now
                print(f"Run {run.name} is {phase}", flush=True)
            if details.done():
                break
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"\nThe run goes on without you: {run.url}", file=sys.stderr, flush=True)
        raise KeyboardInterrupt from None
    if phase.lower() != "succeeded":
        details = await run.details.aio()
        info = details.action_details.error_info
        print(f"Run {run.name} {phase}: {info.message if info else ''}", file=sys.stderr)
        return 1
    outputs = await run.outputs.aio()
    print(f"Outputs: {outputs}", flush=True)
    return 0
