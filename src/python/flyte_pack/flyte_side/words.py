"""What the processes say to the user, above all why a module cannot be imported."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable
from typing import Any

from . import missing

NO_FLYTE = (
    "there is no `flyte` among the requirements of the resolve. "
    "Add flyte 2.5 or newer to them, and make the lock file anew"
)
TAKES_TIME = (
    "What takes time, or waits for something, belongs in the task, not at the top of its module"
)


def again(version: str, number: int) -> str:
    """A further version of the same content: Flyte's "latest" is what was registered last."""
    return f"{version}.again{number}"


class Refused(Exception):
    """Why a request cannot be done, and what to do about it."""


def not_named(found: Any, kind: str = "task") -> str:
    """What a name is that was to be a `kind`, and is none once its module is imported; and what to
    write. found: what it is bound to; None if to nothing. kind: "task", "environment" or
    "app".
    """
    import flyte
    import flyte.extend

    if found is None:
        return (
            "is not there once the module is imported. Bind it when the module is imported, or "
            "name another one in `entry_point`"
        )
    if isinstance(found, flyte.TaskEnvironment) and kind != "app":
        return (
            "is an environment once it is imported, which the source does not show. Assign it from "
            "`flyte.TaskEnvironment(...)` or from a function that is annotated to return one, or "
            "name one of its tasks in `entry_point`"
        )
    if isinstance(found, flyte.extend.TaskTemplate) and kind == "task":
        return (
            "is a task without an environment. Write `env = flyte.TaskEnvironment.from_task(NAME, "
            "THE_TASK)`, and name `env` in `entry_point`"
        )
    is_app = any(base.__name__ == "AppEnvironment" for base in type(found).__mro__)
    what = "an app environment" if is_app else f"of type {type(found).__name__}"
    if is_app and kind != "app":
        instead = "Write a `flyte_app` instead of the `flyte_task`"
    elif kind == "app":
        instead = "Name a `flyte.app.AppEnvironment` in `entry_point`"
    else:
        instead = "Name a function under `@ENV.task`, or an environment of tasks, in `entry_point`"
    return f"is {what} once it is imported, and no {kind}. {instead}"


def import_failure(
    root: str, file: str, error: BaseException, known: dict[str, Any] | None = None
) -> str:
    """Why the module could not be imported: where, through which imports, and what to do.

    known: what the build knows of modules, as `missing.read` has it.
    """
    places = [f"{path}, line {line}" if line else path for path, line in _places(root, file, error)]
    at, by = places[-1], ""
    for importer in dict.fromkeys(reversed(places[:-1])):
        by += f" (imported by {importer})"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing_module(root, at, by, error, known)
    if isinstance(error, SystemExit):
        return (
            f"{at}, ends the program (SystemExit: {error.code}) when it is imported.{by} "
            "Put that below `if __name__ == '__main__':`"
        )
    detail = error.msg if isinstance(error, SyntaxError) else without(root, str(error))
    return (
        f"{at}: {type(error).__name__}: {detail}.{by} Task modules are imported to register them: "
        "they must import without what only a run has"
    )


def _places(root: str, file: str, error: BaseException) -> list[tuple[str, int | None]]:
    """The files of the bundle that import one another, down to the failure, with lines."""
    below = f"{root}{os.sep}"
    found: list[tuple[str, int | None]] = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(below)
    ]
    if isinstance(error, SyntaxError) and (error.filename or "").startswith(below):
        found.append((error.filename or "", error.lineno))
    return [(without(root, path), line) for path, line in found] or [(file, None)]


def _missing_module(
    root: str, at: str, by: str, error: ModuleNotFoundError, known: dict[str, Any] | None
) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    if (
        last
        and "site-packages" in last.filename
        and not last.filename.startswith(f"{root}{os.sep}")
    ):
        package = last.filename.rpartition(f"site-packages{os.sep}")[2]
        return (
            f"{at}, imports a package that needs {error.name} ({package}, line {last.lineno}), "
            f"which is not among the requirements of its resolve.{by} "
            "Add it to the requirements, and make the lock file anew"
        )
    if wheel := _wheel_of(root, error):
        name = distribution_of_file(wheel)
        return (
            f"{at}, imports {error.name}, which its code means to install from the wheel {wheel}."
            f"{by} The resolve lacks {name}. {instead_of_file(name)}"
        )
    return (
        f"{at}, imports {error.name}, which is neither in the bundle nor among its packages.{by} "
        f"{missing.advice(error.name or '', known)}"
    )


# Names of distributions and files: "Binary distribution format" and "Source distribution format" of
# the Python packaging user guide.
_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._]*?)-[^/-]+(?:-[^/]+\.whl|\.tar\.gz|\.zip)")
_WHEEL = re.compile(r"""["']([^"'\n]*\.whl)["']""")


def distribution_of_file(requirement: str) -> str | None:
    """The distribution in the wheel or archive that a requirement names by path or address."""
    place = requirement.partition("#")[0].partition("?")[0].strip()
    found = _FILE.fullmatch(place.rpartition("/")[2].replace("\\", "/").rpartition("/")[2])
    return found[1].replace("_", "-").lower() if found else None


def instead_of_file(name: str | None) -> str:
    """What to do where code wants a package from a file, for which nothing is built here."""
    return (
        "Is it built from this repository? Then drop it from the Image, and add the targets of its "
        f"sources to `dependencies`. Else add `{name} @ file:///...` (or its release on an index) "
        "to the requirements of the resolve and make the lock file anew"
    )


def _wheel_of(root: str, error: ModuleNotFoundError) -> str | None:
    """The wheel that a file of the bundle names and that may hold the missing module."""
    wanted = missing.normalized((error.name or "").partition(".")[0])
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(f"{root}{os.sep}"):
            continue
        with open(frame.filename, encoding="utf-8", errors="replace") as file:
            named = _WHEEL.findall(file.read())
        for wheel in named:
            if distribution_of_file(wheel) == wanted:
                return without(root, os.path.basename(wheel) if "://" in wheel else wheel)
    return None


def without(root: str, text: str) -> str:
    """`text` without the temporary directory that the bundle is unpacked in."""
    return text.replace(f"{root}{os.sep}", "").replace(root, ".")


def causes(error: BaseException) -> Iterable[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
