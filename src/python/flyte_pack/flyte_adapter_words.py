"""What the registering processes say to the user: why modules can't be imported, what a linked image may lack.

For `flyte_adapter.py`, which loads this file by its path: it imports nothing of ours, and nothing of Flyte.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import sys
import traceback
from collections.abc import Iterable
from typing import Any


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


def lacking(root: str, image: Any, linked: str) -> Iterable[str]:
    """What the code's Image asks for that the linked image may lack, each with what to do about it."""
    if isinstance(image, str):
        if image not in ("auto", linked):
            yield f"it names the image {image}, and the linked image {linked} is used instead"
        return
    if image is None or (image._ref_name is not None and not image._layers):
        return
    check = "the linked image is used as it is; see that it has that, or drop it from the Image"
    stock = (image.base_image or "").startswith("ghcr.io/flyteorg/flyte:")
    if image.dockerfile:
        yield f"its Image has a Dockerfile ({without(root, str(image.dockerfile))}): {check}"
    elif image.base_image and not stock and image.base_image != linked:
        yield f"its Image is based on {image.base_image}: {check}"
    here = sys.version_info[:2]
    if stock and tuple(image.python_version) != here:
        wanted, ours = (".".join(map(str, v)) for v in (image.python_version, here))
        yield f"its Image wants Python {wanted}, and its resolve is for {ours}: that is what is in the linked image"
    for layer in image._layers:
        yield from _lacking_of_layer(root, layer, check)


def _lacking_of_layer(root: str, layer: Any, check: str) -> Iterable[str]:
    kind = type(layer).__name__

    def of(field: str) -> str:
        value = getattr(layer, field, None)
        several = isinstance(value, (tuple, list))
        return without(root, " ".join(map(str, value)) if several else str(value))  # type: ignore[arg-type]

    if kind == "PipPackages":
        missing = [one for one in layer.packages or () if not _installed(one)]
        if missing:
            yield (
                f"its Image declares pip packages that its resolve lacks: {', '.join(missing)}. Add them to the "
                "requirements of its resolve and make the lock file anew, or drop them from the Image"
            )
    elif kind == "Requirements" and _requirements(root, layer.file) is not None:
        missing = [one for one in _requirements(root, layer.file) or () if not _installed(one)]
        if missing:
            yield (
                f"its Image declares {of('file')}, and its resolve lacks {', '.join(missing)}. Add them to the "
                "requirements of its resolve and make the lock file anew"
            )
    elif kind == "AptPackages":
        yield f"its Image declares apt packages {of('packages')}: {check}"
    elif kind == "Commands":
        yield f"its Image declares commands ({'; '.join(map(str, layer.commands))}): {check}"
    elif kind == "Env":
        # Names alone: a value may be a secret.
        names = ", ".join(name for name, _ in layer.env_vars)
        yield f"its Image declares environment variables {names}: set them in `env` of the linked image"
    elif kind == "WorkDir":
        yield f"its Image declares the working directory {of('workdir')}: the linked image has its own (`workdir`)"
    elif kind == "CopyConfig":
        yield f"its Image copies {of('src')} to {of('dst')}: use `source_files` or `source_folders` of the linked image"
    elif kind not in ("CodeBundleLayer", "DockerIgnore"):
        fields = dataclasses.fields(layer) if dataclasses.is_dataclass(layer) else ()
        file = next(
            (of(f.name) for f in fields if f.name in ("pyproject", "manifest", "script", "file")),
            None,
        )
        what = f"{kind} ({file})" if file else kind
        yield f"its Image declares {what}: {check}"


def _requirements(root: str, file: Any) -> list[str] | None:
    path = os.path.join(root, str(file))
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as lines:
        return [line.strip() for line in lines if re.match(r"\s*[A-Za-z0-9]", line)]


def _installed(requirement: str) -> bool:
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    if name is None:
        return True
    try:
        importlib.metadata.distribution(name[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
