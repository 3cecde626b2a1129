"""Finds the control plane to register with: as typed or configured, else as Flyte would find it."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from flyte_pack.deploy.flyte_settings import KEY_VARIABLE, Named, named
from flyte_pack.deploy.plan import Request
from flyte_pack.deploy.registration import ControlPlane
from flyte_pack.errors import UserError
from flyte_pack.names import check_endpoint
from flyte_pack.progress import Say
from flyte_shim import shown

_LOCAL = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?$")
_SCHEME = re.compile(r"^(dns:///|https?://)", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """identity: the same however one names a control plane and organization; for the records."""

    control_plane: ControlPlane
    identity: str


def find_control_plane(
    request: Request, build_root: str, environ: Mapping[str, str], say: Say = lambda line: None
) -> Found | None:
    """None where nothing names an endpoint, or nothing is to be registered. Raises `UserError`.

    A store in a directory of this machine is registered elsewhere only if the endpoint is meant for
    the deployment, or code goes there by Flyte's data proxy: a user's own settings of Flyte are no
    reason. say: is told so.
    """
    if not request.options.register:
        return None
    settings = request.settings
    who = named(settings, build_root, environ)
    is_chosen = settings.flyte_config is not None
    endpoint = _endpoint(who, is_chosen)
    if endpoint is None:
        return None
    host = _SCHEME.sub("", endpoint).rstrip("/").lower()
    is_meant = who.endpoint is not None or is_chosen or request.options.upload == "flyte"
    if not is_meant and request.store.startswith("file:") and not _LOCAL.match(host):
        say(
            f"not registered at {host}, which Flyte's own settings name: its containers could not "
            f"read {request.store}. Name a store that they reach; or, where they have that "
            "directory, type --endpoint HOST"
        )
        return None
    plane = ControlPlane(
        endpoint=who.endpoint, insecure=settings.insecure, org=settings.org, config=who.config
    )
    return Found(plane, "/".join(filter(None, [host, settings.org])))


def _endpoint(who: Named, is_chosen: bool) -> str | None:
    """is_chosen: whether the deployment's settings name the file of Flyte's."""
    if is_chosen and not os.path.isfile(who.config or ""):
        raise UserError(
            f"there is no file {shown.name(who.config or '')}, which is named as Flyte's "
            "config.yaml"
        )
    # The file says how to log in, too: read it even if the endpoint comes from elsewhere.
    admin = _admin(who.config) if who.config else {}
    endpoint = who.endpoint or _of_key(who.key) or admin.get("endpoint")
    if endpoint:
        return check_endpoint(str(endpoint))
    if is_chosen:
        raise UserError(
            f"{who.config} names no control plane: write `admin.endpoint` into it, type "
            "--endpoint HOST, or type --no-register to store and record only"
        )
    return None


def _of_key(key: str | None) -> str | None:
    """The endpoint of an API key, which is base64 of `endpoint:client:secret:organization`."""
    if not key:
        return None
    try:
        endpoint, _, _, _ = base64.b64decode(key).decode().split(":", 3)
    except ValueError:
        raise UserError(
            f"{KEY_VARIABLE} is not an API key of Flyte: copy it once more, or unset it"
        ) from None
    return endpoint


def _admin(path: str) -> dict[str, object]:
    # Only who registers pays for it.
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            admin = (yaml.safe_load(file) or {}).get("admin")
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        # What the parser says quotes the file, which may hold a secret.
        raise UserError(
            f"Flyte's settings in {path} cannot be read: {type(error).__name__}"
        ) from None
    return admin if isinstance(admin, dict) else {}
