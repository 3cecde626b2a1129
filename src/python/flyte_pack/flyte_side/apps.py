"""What Flyte is told of an app: `flyte.app.AppEnvironment`.

Flyte starts an app by `fserve`, with the bundle and where in it the environment is; an app with a
`command` of its own is started by that, and gets no bundle.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from typing import Any

from . import words
from .private import private
from .words import Refused

STARTER = "fserve"
_RESOLVER_ARGS = "--resolver-args"


def environment_class() -> Any:
    """The class of apps' environments; that of connectors is one below it."""
    return importlib.import_module("flyte.app").AppEnvironment


def check(env: Any, address: str, has_bundle: bool) -> list[str]:
    """Warnings. Raises `Refused` for an app that could not start, or not be described here."""
    for parameter in env.parameters:
        kind = type(parameter.value).__name__
        if kind in ("RunOutput", "ArtifactValue"):
            raise Refused(
                f"{address}: app {env.name}: the value of its parameter {parameter.name!r} is a "
                f"{kind}, which has to be asked of the control plane, and task and app modules are "
                "imported here without one. Give it as the URI of a file or directory "
                "(`flyte.io.File(path=...)`), or read it when the app starts (`@env.on_startup`)"
            )
    if env._server is not None and not has_bundle and env.command is None:
        raise Refused(
            f"{address}: app {env.name} has a server function, which {STARTER} finds only in a "
            'bundle, and copy_style is "none": set `copy_style="auto"` on it and on what is '
            "deployed with it, or start the server by `args` or `command`"
        )
    starts = env.command is not None or env.args is not None or env._server is not None
    if not starts and not _makes_arguments(env):
        raise Refused(
            f"{address}: app {env.name} has nothing to start: decorate a function with "
            "`@env.server`, or set `args` or `command`"
        )
    if env.command is not None and has_bundle and not _starts_by_fserve(env):
        return [
            f"{address}: app {env.name} has a `command` of its own, so Flyte does not unpack the "
            f"bundle in its container: use `args`, which {STARTER} starts in the bundle's "
            'directory, or have the code in the image (`copy_style="none"`)'
        ]
    return []


def _makes_arguments(env: Any) -> bool:
    """Whether it is of a kind that has arguments of its own, as a connector is."""
    return type(env).container_args is not environment_class().container_args


def _starts_by_fserve(env: Any) -> bool:
    words_of = env.command.split() if isinstance(env.command, str) else env.command
    return bool(words_of) and words_of[0] == STARTER


async def deploy(env: Any, context: Any) -> None:
    """Have Flyte deploy it, by the client that it has."""
    # It prints the version.
    with contextlib.redirect_stdout(io.StringIO()):
        await private("deploy_app")(env, context)


def check_found(root: str, env: Any, address: str, command: list[str]) -> None:
    """Refuse an app that its container would not find: Flyte looks for it in the module that makes
    it.
    """
    where = _after(command, _RESOLVER_ARGS)
    if command[:1] != [STARTER] or where is None:
        if env._server is not None and env.command is None:
            raise _not_found(root, env, address)
        return
    module, _, name = where.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if found is not env and env._server is not None:
        raise _not_found(root, env, address)


def _not_found(root: str, env: Any, address: str) -> Refused:
    frame = env._caller_frame
    made = words.without(root, frame.filename) if frame else "a file that is not in the bundle"
    return Refused(
        f"{address}: app {env.name} is made in {made}, and Flyte looks for it in that file's own "
        "names, where it is not: make it at the top level of the module that it is named in"
    )


def attribute(command: list[str], name: str) -> str:
    """Its name in its module, as far as the command says it."""
    return (_after(command, _RESOLVER_ARGS) or "").rpartition(":")[2] or name


def container(spec: Any) -> tuple[list[str], str]:
    """The whole command and the image of the container that serves an app."""
    if not spec.HasField("pod"):
        return [*spec.container.command, *spec.container.args], spec.container.image
    from google.protobuf.json_format import MessageToDict

    containers = MessageToDict(spec.pod.pod_spec).get("containers") or [{}]
    # Flyte takes no other name for the container of the app.
    primary = next((one for one in containers if one.get("name") == "app"), containers[0])
    command = [*(primary.get("command") or []), *(primary.get("args") or [])]
    return command, primary.get("image") or ""


def _after(command: list[str], option: str) -> str | None:
    options = command[: command.index("--")] if "--" in command else command
    return next((b for a, b in zip(options, options[1:]) if a == option), None)
