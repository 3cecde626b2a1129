"""Becomes `fserve`, the program that serves apps in containers, where there is no control plane.

`flyte_pack.run.local` starts it in the environment of the app, in the directory that its bundle is
unpacked in. What it starts is the container's own command, so that what works here works there;
Flyte's `flyte serve --local` runs a server function, or `args`, in another way, and waits for a
page `/health`.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import contextlib
import dataclasses
import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

from . import apps, missing
from .private import private
from .words import NO_FLYTE, Refused, import_failure, not_named

# An app that is told to end gets this long, as in Kubernetes by default.
GRACE_SECONDS = 30.0
_HOST = "localhost"


def main(argv: list[str]) -> NoReturn:
    """Serve the app until it ends, or is ended; ends the process with its exit code.

    argv: `--` (what stands before it is for the shim), a JSON object, and what the user typed. The
    object is {"file": the entry point's file, "module": its name, "app": the name in it, "target":
    address, "tgz": where the bundle is, "known": a file for `missing.read`, or null}.
    """
    start = argv.index("--") + 1
    spec, arguments = json.loads(argv[start]), argv[start + 1 :]
    given = _options(spec, arguments)
    sys.path.insert(0, os.getcwd())
    try:
        _serve(spec, given)
    except ModuleNotFoundError as error:
        if error.name != "flyte":
            raise
        sys.exit(
            f"{spec['target']}: {NO_FLYTE}. If it is among them, name it in `dependencies`: "
            "nothing that the app reaches imports it"
        )
    except Refused as error:
        sys.exit(f"{spec['target']}: {error}")


def _options(spec: dict[str, Any], arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"./pants run {spec['target']} --",
        description=f"Serve {spec['file']}:{spec['app']} on this machine, from its bundle, as its "
        "container does. Ctrl-C ends it.",
        epilog="Before these, --root-dir DIR and --copy-style STYLE override the target's fields.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=_port, help="serve on this port instead of the app's own")
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="the value of a parameter of the app; may be given several times",
    )
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _serve(spec: dict[str, Any], given: argparse.Namespace) -> NoReturn:
    from flyte.models import CodeBundle, SerializationContext

    env = _app(spec)
    if given.port is not None:
        env.port = importlib.import_module("flyte.app").Port(given.port, env.get_port().name)
    env.parameters = _parameters(env, given.parameter)
    for warning in apps.check(env, spec["target"], has_bundle=True):
        print(f"warning: {warning}", file=sys.stderr)
    project = os.environ.get("FLYTE_TASK_PROJECT", "flytesnacks")
    domain = os.environ.get("FLYTE_TASK_DOMAIN", "development")
    context = SerializationContext(
        org="local",
        project=project,
        domain=domain,
        version="local",
        root_dir=Path.cwd(),
        code_bundle=CodeBundle(tgz=spec["tgz"], destination=".", computed_version="local"),
        image_cache=private("ImageCache")(image_lookup={env.name: "local"}),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        command = [*env.container_cmd(context), *env.container_args(context)]
    apps.check_found(os.getcwd(), env, spec["target"], command)
    # What a container of Flyte has; `flyte.ctx()` and endpoints of other apps go by the first.
    os.environ.update({"_RUN_MODE": "local", **_own_variables(env)})
    os.environ.setdefault("FLYTE_INTERNAL_EXECUTION_PROJECT", project)
    os.environ.setdefault("FLYTE_INTERNAL_EXECUTION_DOMAIN", domain)
    port = env.get_port().port
    _check_free(port)
    print(f"{env.name} is served at http://{_HOST}:{port} (Ctrl-C ends it)", file=sys.stderr)
    sys.stderr.flush()
    if command[0] != apps.STARTER:
        _become(command)
    _run_fserve(command, starts_shell=env._server is None)


def _own_variables(env: Any) -> dict[str, str]:
    """Its `env_vars`; the caller's own variables come before them."""
    return {k: v for k, v in (env.env_vars or {}).items() if k not in os.environ}


def _app(spec: dict[str, Any]) -> Any:
    try:
        module = importlib.import_module(spec["module"])
    except ModuleNotFoundError as error:
        if error.name == "flyte":
            raise
        known = missing.read(spec.get("known"))
        raise Refused(import_failure(os.getcwd(), spec["file"], error, known)) from error
    except Exception as error:
        raise Refused(import_failure(os.getcwd(), spec["file"], error)) from error
    found = getattr(module, spec["app"], None)
    if not isinstance(found, apps.environment_class()):
        raise Refused(f"`{spec['app']}` in {spec['file']} {not_named(found, 'app')}")
    return found


def _parameters(env: Any, given: list[str]) -> list[Any]:
    """The app's parameters with the values that were typed, and local endpoints."""
    values = dict(one.partition("=")[::2] for one in given if "=" in one)
    known = {one.name for one in env.parameters}
    for text in given:
        if "=" not in text or text.partition("=")[0] not in known:
            named = ", ".join(sorted(known)) or "none"
            raise Refused(
                f"--parameter {text}: write NAME=VALUE, NAME one of its parameters: {named}"
            )
    ports = {one.name: one.get_port().port for one in _apps_of(env)}
    found = []
    for one in env.parameters:
        value = values.get(one.name, one.value)
        kind, as_type = type(value).__name__, one.type
        if kind == "AppEndpoint" and value.app_name in ports:
            value = f"http://{_HOST}:{ports[value.app_name]}"
        elif value is None or kind in ("AppEndpoint", "ArtifactValue", "RunOutput"):
            raise Refused(
                f"parameter {one.name!r} of app {env.name} has no value on this machine "
                f"({'none is set' if value is None else kind}): give it one, "
                f"`-- --parameter {one.name}=VALUE`"
            )
        if as_type == "app_endpoint":
            as_type = None  # it is a plain address here
        elif one.name in values and as_type is None:
            as_type = _TYPES.get(type(one.value).__name__) or getattr(one.value, "type", None)
        found.append(dataclasses.replace(one, value=value, type=as_type))
    return found


# As `Parameter` calls them; others are strings.
_TYPES = {"File": "file", "Dir": "directory"}


def _apps_of(env: Any) -> list[Any]:
    found = [env]
    for one in found:
        found += [child for child in one.depends_on if not any(child is known for known in found)]
    return [one for one in found if isinstance(one, apps.environment_class())]


def _check_free(port: int) -> None:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError as error:
            raise Refused(
                f"port {port} cannot be used ({error.strerror}): end what uses it, or type "
                "`-- --port N` if the app takes its port from its environment"
            ) from None


def _become(command: list[str]) -> NoReturn:
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        raise Refused(
            f"its command {command[0]!r} cannot be run here: {error.strerror}. Name what provides "
            "it in `dependencies`"
        ) from None


class _Shell(subprocess.Popen):  # type: ignore[type-arg]
    """The shell by which `fserve` starts `args`: signals reach what it starts, too."""

    started: list[_Shell] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, start_new_session=True, **kwargs)
        self.started.append(self)

    def send_signal(self, sig: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, sig)


async def _leave_threads(*_: Any, **__: Any) -> None:
    """A server function in a thread does not hear of signals; it ends with the process."""


def _run_fserve(command: list[str], starts_shell: bool) -> NoReturn:
    """Run it in this process; one signal ends it, however it waits."""
    if starts_shell:
        subprocess.Popen = _Shell  # type: ignore[misc]
    asyncio.BaseEventLoop.shutdown_default_executor = _leave_threads  # type: ignore[method-assign]
    told: list[int] = []

    def end(number: int, _: Any) -> None:
        told.append(number)
        if told[1:]:
            _end_at_once(number)
        timer = threading.Timer(GRACE_SECONDS, _end_at_once, [number])
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, end)
    sys.argv = command
    code = 0
    try:
        # Not standalone, in which it would call Ctrl-C an error.
        private("fserve").main(command[1:], command[0], standalone_mode=False)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        code = 1
        if not told:
            traceback.print_exc()
    for shell in _Shell.started:
        shell.terminate()
        shell.wait()
    if told:
        code = 128 + told[0]
    # Not `sys.exit`, which waits for threads.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_at_once(number: int) -> None:
    for shell in _Shell.started:
        shell.kill()
    os._exit(128 + number)
