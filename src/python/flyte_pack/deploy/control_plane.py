"""Finds the control plane to register with: what was typed or configured for us, else what Flyte itself would use."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flyte_pack.deploy.plan import Refused, Request
from flyte_pack.deploy.registration import ControlPlane
from flyte_pack.names import InvalidName, check_endpoint

# Variables by which Flyte finds its settings: those of its config files, and what stands for an entry of one.
CONFIG_VARIABLES = ("UCTL_CONFIG", "FLYTECTL_CONFIG")
ENDPOINT_VARIABLE = "FLYTE_ADMIN_ENDPOINT"
KEY_VARIABLE = "FLYTE_API_KEY"
VARIABLES = (*CONFIG_VARIABLES, ENDPOINT_VARIABLE, KEY_VARIABLE, "HOME")
_ADMIN = re.compile(r"^admin\s*:", re.MULTILINE)
_LIMIT = 1 << 20
_SCHEME = re.compile(r"^(dns:///|https?://)", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """identity: the same for every way to name one control plane and organization; it goes into records."""

    control_plane: ControlPlane
    identity: str


def find_config(build_root: str, environ: Mapping[str, str]) -> str | None:
    """Flyte's own config.yaml, by Flyte's order of places; of those, one that names a control plane.

    (A `config.yaml` in the build root may be anybody's.)
    """
    return next((path for path in _places(build_root, environ) if _is_flytes(path)), None)


def is_known(
    endpoint: str | None, flyte_config: str | None, build_root: str, environ: Mapping[str, str]
) -> bool:
    """Whether tasks will be registered, as far as can be told without reading YAML."""
    named = (endpoint, flyte_config, environ.get(ENDPOINT_VARIABLE), environ.get(KEY_VARIABLE))
    return any(named) or find_config(build_root, environ) is not None


def find_control_plane(
    request: Request, build_root: str, environ: Mapping[str, str]
) -> Found | None:
    """None where nothing names an endpoint, or nothing is to be registered. Raises `Refused`."""
    if not request.register:
        return None
    config = request.flyte_config
    if config is not None:
        config = os.path.join(build_root, os.path.expanduser(config))
        if not os.path.isfile(config):
            raise Refused(f"there is no file {config}, which is named as Flyte's config.yaml")
    else:
        # It says how to log in, too: so it is of use even where the endpoint comes from elsewhere.
        config = find_config(build_root, environ)
    settings = _admin(config) if config else {}
    named = request.endpoint or environ.get(ENDPOINT_VARIABLE)
    endpoint = named or _of_key(environ.get(KEY_VARIABLE)) or settings.get("endpoint")
    if not endpoint:
        return None
    try:
        check_endpoint(str(endpoint))
    except InvalidName as error:
        raise Refused(str(error)) from None
    return Found(
        ControlPlane(
            endpoint=named,
            insecure=request.insecure,
            org=request.org,
            config=config,
        ),
        "/".join(filter(None, [_host(str(endpoint)), request.org])),
    )


def _of_key(key: str | None) -> str | None:
    """The endpoint that an API key of Flyte's is for: base64 of `endpoint:client:secret:organization`."""
    if not key:
        return None
    try:
        endpoint, _, _, _ = base64.b64decode(key).decode().split(":", 3)
    except ValueError:
        raise Refused(
            f"{KEY_VARIABLE} is no API key of Flyte: copy it once more, or unset it"
        ) from None
    return endpoint


def _host(endpoint: str) -> str:
    return _SCHEME.sub("", endpoint).rstrip("/").lower()


def _places(build_root: str, environ: Mapping[str, str]) -> Iterator[str]:
    yield os.path.join(build_root, "config.yaml")
    yield os.path.join(build_root, ".flyte", "config.yaml")
    top = build_root
    while not os.path.exists(os.path.join(top, ".git")) and top != os.path.dirname(top):
        top = os.path.dirname(top)
    yield os.path.join(top, ".flyte", "config.yaml")
    for name in CONFIG_VARIABLES:
        if environ.get(name):
            yield os.path.join(build_root, environ[name])
    home = environ.get("HOME")
    if home:
        yield os.path.join(home, ".union", "config.yaml")
        yield os.path.join(home, ".flyte", "config.yaml")


def _is_flytes(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return _ADMIN.search(file.read(_LIMIT)) is not None
    except (OSError, ValueError):
        return False


def _admin(path: str) -> dict[str, object]:
    # Only who registers pays for it.
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            admin = (yaml.safe_load(file) or {}).get("admin")
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        # What the parser says quotes the file, which may hold a secret.
        raise Refused(
            f"Flyte's settings in {path} can not be read: {type(error).__name__}"
        ) from None
    return admin if isinstance(admin, dict) else {}
