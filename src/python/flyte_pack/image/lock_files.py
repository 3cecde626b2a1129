"""Reads lock files: what they pin for one Python and platform, with hashes.

The content tells the kind: requirements with hashes (pip's "Requirements File Format"; pip-tools
and uv write them), PEX's JSON (bare, or below the `//` comments of Pants), `uv.lock`, and
`pylock.toml` (PyPA, "pylock.toml"). Some have the graph too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flyte_pack.errors import UserError
from flyte_pack.image.pins import DIRECT, NO_CHOICE, Choice, Collected, Lock, Pin, checked, wheel_at
from flyte_pack.image.pip_lock import decoded, read_requirements
from flyte_pack.image.pylock import read_pylock
from flyte_pack.image.uv_lock import read_uv_lock
from flyte_pack.image.wheel_target import WheelTarget
from flyte_pack.lock_kinds import is_conda, is_toml, json_of
from flyte_shim import shown

_POETRY = (
    "it is Poetry's lock file, which is not understood. `poetry export --all-groups --all-extras "
    "--output requirements.lock` (of poetry-plugin-export) makes one that is"
)
_PDM = (
    "it is PDM's lock file, which is not understood. `pdm export --format pylock --output "
    "pylock.toml` makes one that is"
)
_PIPENV = (
    "it is Pipenv's lock file, which is not understood. `pipenv requirements --hash > "
    "requirements.lock` makes one that is"
)
_CONDAS = (
    "it is a lock file of conda, and an image takes wheels from a package index only. Lock what "
    "it needs with `uv pip compile --universal --generate-hashes`, for example"
)
_PROJECT = "it is a pyproject.toml, and no lock file: `uv lock` makes that, for example"


def read_lock_file(path: str, target: WheelTarget, choice: Choice = NO_CHOICE) -> Lock:
    """What the lock file at `path` pins for `target`. Raises `UserError` or `OSError`."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return read_lock(decoded(data), target, choice)
    except UnicodeDecodeError:
        raise UserError(f"{path}: the lock file is not in UTF-8") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_lock(text: str, target: WheelTarget, choice: Choice = NO_CHOICE) -> Lock:
    """What a lock file pins for `target`. Raises `UserError`, without the file's name."""
    try:
        return _read(text, target, choice)
    except (
        *(KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError),
        ArithmeticError,
    ) as error:
        reason = shown.line(f"{type(error).__name__}: {error}", longest=200)
        raise UserError(f"the lock file cannot be understood: {reason}") from None


def _read(text: str, target: WheelTarget, choice: Choice) -> Lock:
    if is_toml(text):
        document = _toml(text)
        _check_foreign(document)
        return (read_uv_lock if "package" in document or "version" in document else read_pylock)(
            document, target, choice
        )
    if choice:
        raise UserError(
            "`lock_extras` and `lock_groups` choose from a uv.lock or a pylock.toml, and this is "
            "neither"
        )
    if (bare := json_of(text)) is not None:
        return _read_pex(json.loads(bare), target)
    if is_conda(text):
        raise UserError(_CONDAS)
    return read_requirements(text, target)


def _check_foreign(document: Mapping[str, Any]) -> None:
    """Raises `UserError` for the TOML of others."""
    metadata = document.get("metadata", {})
    if "lock_version" in metadata or "lock_version" in document:
        raise UserError(_PDM)
    if {"lock-version", "content-hash", "python-versions"} & metadata.keys():
        raise UserError(_POETRY)
    if {"project", "tool", "build-system"} & document.keys() and "lock-version" not in document:
        raise UserError(_PROJECT)


def _read_pex(document: dict[str, Any], target: WheelTarget) -> Lock:
    if "_meta" in document and "default" in document:
        raise UserError(_PIPENV)
    if not isinstance(document.get("locked_resolves"), list):
        raise UserError("the lock file is JSON, but not what PEX writes")
    chosen = [r for r in document["locked_resolves"] if _is_for(r.get("platform_tag"), target)]
    if not chosen:
        raise UserError(
            f"the lock file was made for other platforms than {target}: make one of the style "
            "`universal`"
        )
    collected = Collected(target)
    for locked in chosen[0]["locked_requirements"]:
        name, version = canonicalize_name(str(locked["project_name"])), str(locked["version"])
        # A wheel from `--find-links` is in a directory, here maybe in another one.
        taken = [
            artifact
            for artifact in locked["artifacts"]
            if re.match(r"https?:", url := str(artifact["url"]))
            or ((named := wheel_at(url)) and named[0] == name)
        ]
        hashes = (f"{artifact['algorithm']}:{artifact['hash']}" for artifact in taken)
        known, problem = checked(hashes, None if taken else DIRECT)
        requires = tuple(map(Requirement, locked["requires_dists"]))
        collected.add(Pin(name, version, known, requires, problem))
    excluded = {canonicalize_name(Requirement(r).name) for r in document.get("excluded") or ()}
    return collected.lock(excluded, has_graph=True)


def _is_for(platform_tag: list[str] | None, target: WheelTarget) -> bool:
    """Whether a tag of the lock's maker is of the target's kind.

    Such as (`cp312`, `cp312`, `manylinux_2_36_x86_64`).
    """
    if platform_tag is None:
        return True
    python, _, platform = platform_tag
    return (
        python == "cp" + target.minor.replace(".", "")
        and "linux" in platform
        and platform.endswith(f"_{target.machine}")
    )


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
