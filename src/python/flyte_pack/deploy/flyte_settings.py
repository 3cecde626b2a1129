"""Finds Flyte's own settings file, as Flyte does; by its presence alone, since the build rules have no reader of YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

# Variables by which Flyte finds its settings: those of its config files, and what stands for an entry of one.
CONFIG_VARIABLES = ("UCTL_CONFIG", "FLYTECTL_CONFIG")
ENDPOINT_VARIABLE = "FLYTE_ADMIN_ENDPOINT"
KEY_VARIABLE = "FLYTE_API_KEY"
VARIABLES = (*CONFIG_VARIABLES, ENDPOINT_VARIABLE, KEY_VARIABLE, "HOME")
_ADMIN = re.compile(r"^admin\s*:", re.MULTILINE)
_LIMIT = 1 << 20


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
