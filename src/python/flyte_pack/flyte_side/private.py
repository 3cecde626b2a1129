"""The private names of Flyte that we use. No other file knows any.

The build rules read `RESOLVER`, so this file needs no Flyte to be imported, and runs on Python 3.9.
"""

from __future__ import annotations

import importlib
from typing import Any

from .words import Refused

# Purpose, module, name, and versions that have it there. Newest first; an open end is the newest
# known version.
PRIVATE: tuple[tuple[str, str, str, str], ...] = (
    ("count_uses", "flyte._sentry", "count", "2.5-"),
    ("plan_deploy", "flyte._deploy", "plan_deploy", "2.5-"),
    ("deploy_task", "flyte._deploy", "_deploy_task", "2.5-"),
    ("deploy_app", "flyte.app._deploy", "_deploy_app", "2.5-"),
    ("deploy_app_status", "flyte.app._deploy", "status", "2.5-"),
    ("deploy_status", "flyte._deploy", "status", "2.5-"),
    ("init_config", "flyte._initialize", "_init_config", "2.5-"),
    ("get_init_config", "flyte._initialize", "get_init_config", "2.5-"),
    ("get_client", "flyte._initialize", "get_client", "2.5-"),
    ("ImageCache", "flyte._internal.image_cache", "ImageCache", "2.10.7-"),
    ("ImageCache", "flyte._internal.imagebuild.image_builder", "ImageCache", "2.5-2.10.6"),
    ("offload_inputs", "flyte._internal.runtime.trigger_serde", "offload_trigger_inputs", "2.5-"),
    ("ClientSet", "flyte.remote._client.controlplane", "ClientSet", "2.5-"),
    ("org_from_endpoint", "flyte._utils", "org_from_endpoint", "2.5-"),
    ("decode_api_key", "flyte.remote._client.auth._auth_utils", "decode_api_key", "2.5-"),
    ("env_log_level", "flyte._logging", "get_env_log_level", "2.5-"),
    ("env_user_log_level", "flyte._logging", "get_env_user_log_level", "2.5-"),
    ("CLIConfig", "flyte.cli._common", "CLIConfig", "2.5-"),
    ("RunRemoteTaskCommand", "flyte.cli._run", "RunRemoteTaskCommand", "2.5-"),
    ("RunArguments", "flyte.cli._run", "RunArguments", "2.5-"),
    ("ObjectsPerFileGroup", "flyte.cli._common", "ObjectsPerFileGroup", "2.0-"),
    ("to_inputs", "flyte._internal.runtime.convert", "convert_from_native_to_inputs", "2.0-"),
    ("from_outputs", "flyte._internal.runtime.convert", "convert_outputs_to_native", "2.0-"),
    ("Outputs", "flyte._internal.runtime.convert", "Outputs", "2.0-"),
    ("a0", "flyte._bin.runtime", "main", "2.0-"),
    ("create_controller", "flyte._internal.controllers", "create_controller", "2.0-"),
    ("resolver", "flyte._internal.resolvers.default", "DefaultTaskResolver", "2.0-"),
    ("app_resolver", "flyte._internal.resolvers.app_env", "AppEnvResolver", "2.5-"),
    ("fserve", "flyte._bin.serve", "main", "2.0-"),
)
# What a container's command names to find a task, or an app, in its module.
RESOLVER, APP_RESOLVER = (
    ".".join(next(row[1:3] for row in PRIVATE if row[0] == purpose))
    for purpose in ("resolver", "app_resolver")
)
# The module and function of the program that serves apps.
FSERVE = next(row[1:3] for row in PRIVATE if row[0] == "fserve")


def private(purpose: str) -> Any:
    """The object that `PRIVATE` names for a purpose, in the installed Flyte."""
    return getattr(*_place(purpose))


def homes(*purposes: str) -> tuple[str, ...]:
    """The modules that have what `PRIVATE` names, where it has one for each."""
    return tuple(path for purpose, path, _, _ in PRIVATE if purpose in purposes)


def replace(purpose: str, value: object) -> None:
    """Have Flyte use `value` instead."""
    setattr(*_place(purpose), value)


def moved(what: str) -> Refused:
    """The error that the installed Flyte does not have a private name."""
    import flyte

    return Refused(
        f"flyte {flyte.version()} moved {what}: this pants-flyte does not know it. "
        "Use an older flyte (2.5 to 2.12 are known), or a newer pants-flyte"
    )


def _place(purpose: str) -> tuple[Any, str]:
    places = [(path, name) for row, path, name, _ in PRIVATE if row == purpose]
    for path, name in places:
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError:
            continue
        if hasattr(module, name):
            return module, name
    raise moved(".".join(places[0]))
