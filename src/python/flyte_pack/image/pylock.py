"""Reads `pylock.toml` (PyPA, "pylock.toml Specification", version 1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from flyte_pack.errors import UserError
from flyte_pack.image.pins import (
    DIRECT,
    Choice,
    Collected,
    Lock,
    Pin,
    check_environments,
    check_python,
    checked,
    decided,
    holds,
    wheel_at,
)
from flyte_pack.image.wheel_target import WheelTarget
from flyte_shim import shown

# As in `"cpu" in extras`, which no value of a variable can answer.
_MEMBER = re.compile(
    r"(['\"])(?P<name>[^'\"]*)\1\s+(?P<no>not\s+)?in\s+(?P<variable>extras|dependency_groups)"
)


def read_pylock(document: Mapping[str, Any], target: WheelTarget, choice: Choice) -> Lock:
    version = str(document.get("lock-version", "1.0"))
    if version.partition(".")[0] != "1":
        raise UserError(f"the lock file's `lock-version` is {version!a:.20}, and 1 is understood")
    check_python(document.get("requires-python"), target)
    check_environments(document.get("environments", ()), target)
    extras, groups = document.get("extras", ()), document.get("dependency-groups", ())
    defaults = document.get("default-groups", ())
    choice.check_known(extras, [*groups, *defaults])
    # Groups that are chosen take the place of those that the lock file has by default.
    chosen = choice if choice.groups else Choice.of(choice.extras, defaults)
    others = {
        f"extra `{e}`": Choice(chosen.extras | {canonicalize_name(e)}, chosen.groups)
        for e in extras
    }
    others |= {
        f"group `{g}`": Choice(chosen.extras, chosen.groups | {canonicalize_name(g)})
        for g in groups
    }
    alone = {f"extra `{e}`": Choice.of([e], []) for e in extras}
    alone |= {f"group `{g}`": Choice.of([], [g]) for g in groups}
    collected = Collected(target)
    for package in document["packages"]:
        marker = package.get("marker")
        now = marker is None or _holds(marker, target, chosen)
        of = [
            what
            for what in others
            if not now
            and (_holds(marker, target, others[what]) or _holds(marker, target, alone[what]))
        ]
        collected.add(_pin(package, target), here=now or bool(of), rank=int(now), of=of)
    return collected.lock()


def _holds(marker: str, target: WheelTarget, choice: Choice) -> bool:
    def is_true(found: re.Match[str]) -> bool:
        names = choice.extras if found["variable"] == "extras" else choice.groups
        return (canonicalize_name(found["name"]) in names) != bool(found["no"])

    return holds(Marker(decided(marker, _MEMBER, is_true)), target)


def _pin(package: Mapping[str, Any], target: WheelTarget) -> Pin:
    name, version = canonicalize_name(package["name"]), str(package.get("version", ""))
    problem = None
    archive = package.get("archive", {})
    files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
    if {"vcs", "directory", "archive"} & package.keys():
        named = wheel_at(str(archive.get("path", archive.get("url", ""))))
        if named and named[0] == name:
            version, files = version or named[1], [archive]
        else:
            problem = DIRECT
    elif not version:
        problem = "the lock file has no version of it"
    if not target.satisfies(str(package.get("requires-python", ""))):
        specifier = shown.line(str(package["requires-python"]), longest=60)
        problem = f"it is for Python {specifier}, and {target.holder} has {target.python}"
    hashes, problem = checked(_hashes(files), problem)
    return Pin(name, version, hashes, problem=problem)


def _hashes(files: list[Mapping[str, Any]]) -> Iterator[str]:
    for file in files:
        for kind, digits in file["hashes"].items():
            yield f"{kind}:{digits}"
