"""What the registering processes say to the user: why a module can't be imported, above all.

For `adapter.py`, which loads this file by its path: it imports nothing of ours, and nothing of Flyte.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable


class Refused(Exception):
    """What keeps a request from being done, and what to do about it: for the user."""


def import_failure(root: str, file: str, error: BaseException) -> str:
    """Why the module could not be imported: where in the bundle, who imports that, what it is, what to do."""
    frames = traceback.extract_tb(error.__traceback__)
    chain = [
        (without(root, frame.filename), frame.lineno)
        for frame in frames
        if frame.filename.startswith(f"{root}{os.sep}")
    ]
    if isinstance(error, SyntaxError) and (error.filename or "").startswith(f"{root}{os.sep}"):
        chain.append((without(root, error.filename or ""), error.lineno))
    where, line = chain[-1] if chain else (file, None)
    at = f"{where}, line {line}" if line else where
    importers = list(
        dict.fromkeys(f"{path}, line {number}" for path, number in reversed(chain[:-1]))
    )
    by = "".join(f" (imported by {one})" for one in importers)
    detail = without(root, str(error)) if not isinstance(error, SyntaxError) else error.msg
    if isinstance(error, ModuleNotFoundError) and error.name:
        text = f"{at}, imports {error.name}, which is neither in the bundle nor among the requirements of its resolve.{by} "
        outside = frames and not frames[-1].filename.startswith((f"{root}{os.sep}", "<frozen"))
        if outside and "site-packages" in frames[-1].filename:
            package = frames[-1].filename.rpartition("site-packages" + os.sep)[2]
            text = f"{at}, imports a package that needs {error.name} ({package}, line {frames[-1].lineno}), which is not among the requirements of its resolve.{by} "
            return text + "Add it to the requirements, and make the lock file anew"
        return text + (
            "First-party code that is not inferred goes into `dependencies`, third-party code into the resolve's "
            "requirements"
        )
    if isinstance(error, SystemExit):
        return f"{at}, ends the program (SystemExit: {error.code}) when it is imported.{by} Put that below `if __name__ == '__main__':`"
    return f"{at}: {type(error).__name__}: {detail}.{by} Task modules are imported to register them: they must import without what only a run has"


def without(root: str, text: str) -> str:
    """Paths in the bundle, without the temporary directory that it is unpacked in."""
    return text.replace(f"{root}{os.sep}", "").replace(root, ".")


def causes(error: BaseException) -> Iterable[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
