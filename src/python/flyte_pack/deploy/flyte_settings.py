"""Where a control plane may be named: by settings, by variables, by a file of Flyte's own.

The build rules and the deploy program ask the same function. Only the program reads the file's
YAML: the file may hold secrets, which must not get into the cache of a build.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flyte_pack.deploy.config import Settings

# Variables by which Flyte finds its config files, and those that stand for an entry of one.
CONFIG_VARIABLES = ("UCTL_CONFIG", "FLYTECTL_CONFIG")
ENDPOINT_VARIABLE = "FLYTE_ADMIN_ENDPOINT"
KEY_VARIABLE = "FLYTE_API_KEY"
VARIABLES = (*CONFIG_VARIABLES, ENDPOINT_VARIABLE, KEY_VARIABLE, "HOME")
NO_CONTROL_PLANE = (
    "no control plane is known: type --endpoint HOST, or set `endpoint` in a deployment, in its "
    "settings file or in `[flyte]`, or write a config.yaml of Flyte's"
)
_ADMIN = re.compile(r"^admin\s*:", re.MULTILINE)
_LIMIT = 1 << 20


@dataclass(frozen=True)
class Named:
    """Who names a control plane: an endpoint, an API key, and a config.yaml of Flyte's own."""

    endpoint: str | None
    key: str | None
    config: str | None

    def __bool__(self) -> bool:
        """Whether anything does; otherwise nothing is registered."""
        return any(vars(self).values())


def named(settings: Settings, build_root: str, environ: Mapping[str, str]) -> Named:
    """Who names the control plane to register with."""
    config = settings.flyte_config
    if config is not None:
        config = os.path.join(build_root, os.path.expanduser(config))
    else:
        config = next((p for p in _places(build_root, environ) if _is_flytes(p)), None)
    endpoint = settings.endpoint or environ.get(ENDPOINT_VARIABLE)
    return Named(endpoint or None, environ.get(KEY_VARIABLE) or None, config)


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
