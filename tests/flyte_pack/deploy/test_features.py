"""Whatever a task module asks of Flyte, we ask in the same words as `flyte deploy` itself."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.control_plane import (
    RealControlPlane,
    code,
    control_plane,
    entry,
    registrar,
    unpacked,
)
from tests.support.features import FEATURES
from tests.support.flyte_versions import MATRIX, NEWEST, python_with_flyte

# The fields that must differ, each with the reason.
APART = {
    r"spec\.(taskTemplate\.)?metadata\.codeBundleUri|metadata\.codeBundleUri": "each has a bundle "
    "of its own, at its own address",
    r".*\.--tgz": "the same address, as the command of a container has it",
    r".*\.--image-cache\..*": "our bundle has all environments, a plan of Flyte's those of one",
    r".*\.env\._F_SYS_PATH\..*": "Flyte tells where its own machine has modules; a bundle of ours "
    "has them at its top",
    r"spec\.taskTemplate\.custom\.version": "the pool of a reusable environment is told by a hash, "
    "which has the bundle and the variables in it",
    r"triggers\..*\.offloadedInputData\.uri": "each control plane of the test has a directory",
}
Requests = dict[str, dict[str, Any]]  # by feature and name: each field, by its path


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The requests of Flyte's own program, and ours, for all features that a line has."""

    @functools.cache
    def of(line: str) -> tuple[dict[str, Requests], dict[str, Requests]]:
        return _both(tmp_path_factory.mktemp("features"), line)

    return of


def _both(directory: Path, line: str) -> tuple[dict[str, Requests], dict[str, Requests]]:
    has = {name: one for name, one in FEATURES.items() if one.is_in(line)}
    modules = {f"services/{name}.py": one.module for name, one in has.items()}
    root = unpacked(directory / "code", {**modules, "services/page.html": "<p>"})
    points = [
        entry(f"services/{name}.py:env", one.kind, None, f"services:{name}")
        for name, one in has.items()
    ]
    with (
        control_plane(directory / "theirs", line=line) as theirs,
        control_plane(directory / "ours", line=line) as ours,
        registrar(ours, line) as process,
    ):
        _flyte_deploy(theirs, line, root)
        described = process.describe([code(root, *points)])
        list(process.register({one.name: "v1" for one in described.tasks}))
        features = {one.name: one.address.partition(":")[2] for one in described.tasks}
        return _requests(theirs, features), _requests(ours, features)


def _flyte_deploy(plane: RealControlPlane, line: str, root: str) -> None:
    flyte = str(python_with_flyte(line).with_name("flyte"))
    where = ["--project", "bikes", "--domain", "development", "--root-dir", root]
    if line != NEWEST:
        # Otherwise these lose the environment of each task, with its name and its plugin's settings.
        where.append("--no-sync-local-sys-paths")
    typed = ("deploy", *where, "--version", "v1", "--recursive", "services")
    done = subprocess.run(
        [flyte, "--endpoint", plane.endpoint, "--insecure", *typed],
        cwd=root,
        env={"PATH": os.defpath, "HOME": str(plane.directory), "DO_NOT_TRACK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def _requests(plane: RealControlPlane, of: dict[str, str]) -> dict[str, Requests]:
    """By feature, what each of its tasks and apps was deployed with. of: their features."""
    state = plane.state()
    found: dict[str, Requests] = {}
    for one in [*state["tasks"], *state["apps"]]:
        fields = dict(_fields(one["request"].get("create", one["request"])))
        found.setdefault(of.get(one["name"], one["name"]), {})[one["name"]] = fields
    return found


def _fields(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field of a request, by its path: what has a name in a list by that, not by its place."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _fields(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        option = ""
        for at, one in enumerate(value):
            key = str(at)
            if isinstance(one, dict):
                key = str(one.get("key") or one.get("name") or at)
            elif option in ("--image-cache", "--parameters"):
                key, one = option, json.loads(gzip.decompress(base64.b64decode(one)))
            elif str(option).startswith("--"):
                key = option
            option = one if isinstance(one, str) else ""
            yield from _fields(one, f"{path}.{key}")
    else:
        yield path, value


def _differing(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        path: (theirs.get(path), ours.get(path))
        for path in theirs.keys() | ours.keys()
        if theirs.get(path) != ours.get(path)
    }


def _apart(path: str) -> list[str]:
    return [pattern for pattern in APART if re.fullmatch(pattern, path)]


@pytest.mark.parametrize(
    ("line", "name"),
    [(line, name) for line in MATRIX for name, one in FEATURES.items() if one.is_in(line)],
)
def test_each_feature_is_asked_for_as_flyte_deploy_asks(both, line, name):
    theirs, ours = (requests[name] for requests in both(line))
    assert theirs.keys() == ours.keys()
    for task, fields in theirs.items():
        differing = _differing(fields, ours[task])
        assert {path: told for path, told in differing.items() if not _apart(path)} == {}
        # What is more in our cache is not of this task's environments.
        cached = {path for path in fields if "--image-cache.image_lookup" in path}
        assert not cached & differing.keys()


def test_nothing_is_set_apart_that_does_not_differ(both):
    theirs, ours = both(NEWEST)
    differing = {
        path
        for name, tasks in theirs.items()
        for task, fields in tasks.items()
        for path in _differing(fields, ours[name][task])
    }
    assert {pattern for path in differing for pattern in _apart(path)} == set(APART)
