"""The images of environments as they are registered, and the files that environments include."""

from __future__ import annotations

import base64
import dataclasses
import glob
import importlib.metadata
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import asked
from .words import Refused, without


def choose(
    root: str,
    roots: list[tuple[dict[str, Any], Any]],
    envs: dict[str, Any],
    owners: dict[str, str],
    own: Callable[[Any, str], str | None],
    depends_on: Callable[[Any], list[Any]],
) -> tuple[dict[str, str], list[str]]:
    """The image of each environment, by its name, and warnings.

    roots: entries, and the environment of each. envs: all that were found, by name. owners:
    addresses, by name. own: the image that the code names, or None if Flyte would have to build it.
    depends_on: the environments that one depends on.
    """
    linked = _linked(roots)
    lookup = {name: image for name, (image, _) in linked.items()}
    warnings = [
        f"{address}: environment {name}: {line}"
        for name, (image, address) in linked.items()
        for line in lacking(root, envs[name].image, image)
    ]
    waiting = [env for _, env in roots]
    named = {env.name for env in waiting}
    # Breadth first: an environment without an image takes that of the nearest one that depends on
    # it.
    for env in waiting:
        if env.name not in lookup:
            address = owners.get(env.name, "")
            image = own(env, address)
            if image is None:
                raise _needs_a_build(address, env, env.name in named)
            lookup[env.name] = image
        for child in depends_on(env):
            if child.name not in lookup:
                if child.image in ("auto", None):
                    lookup[child.name] = lookup[env.name]
                waiting.append(child)
    return lookup, warnings


def _linked(roots: list[tuple[dict[str, Any], Any]]) -> dict[str, tuple[str, str]]:
    """By environment: the image that its entry is linked to, and the entry's address."""
    linked: dict[str, tuple[str, str]] = {}
    for entry, env in roots:
        image, address = entry["image"], entry["address"]
        if image is None:
            continue
        other, where = linked.setdefault(env.name, (image, address))
        if other != image:
            raise Refused(
                f"{address}: environment {env.name} has another image there than in {where}: "
                f"{image}, {other}. An environment has one image: set the same `image` on both"
            )
    return linked


def _needs_a_build(address: str, env: Any, is_entry: bool) -> Refused:
    target = "flyte_task" if hasattr(env, "tasks") else "flyte_app"
    fix = (
        "Set `image` on this target to a flyte_image with what it needs"
        if is_entry
        else f"Write a {target} with the environment {env.name} as its entry_point and a "
        "flyte_image as its `image`, and add it to the deployment's `tasks`"
    )
    return Refused(
        f"{address}: environment {env.name} has an Image that Flyte would have to build, "
        f"and nothing is built here. {fix}"
    )


def own_image(stock: Any, given: dict[str, str], env: Any, address: str) -> str | None:
    """The reference of the image that the code names, if that needs no build.

    stock: the Image of an environment without one. given: references, by names for
    `Image.from_ref_name`.
    """
    image = env.image
    if image in ("auto", None):
        image = stock
    if isinstance(image, str):
        return image
    if image._layers or image.dockerfile:
        return None
    if image._ref_name is None:
        return str(image.base_image) if image.base_image else None
    if image._ref_name not in given:
        raise Refused(
            f"{address}: environment {env.name} uses the image name {image._ref_name!r}, which is "
            f"not mapped to an image. Map it: `images={{'{image._ref_name}': 'REFERENCE'}}` on the "
            f"deployment, `--image {image._ref_name}=REFERENCE`, or `images:` in its "
            "configuration file"
        )
    return given[image._ref_name]


def transported(lookup: str) -> str:
    """An image cache as Flyte hands it to a container: base64 of gzip, here without a time."""
    data = lookup.encode()
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    member = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + deflate.compress(data) + deflate.flush()
    return base64.b64encode(member + struct.pack("<LL", zlib.crc32(data), len(data))).decode()


def container(template: Any) -> tuple[list[str], str]:
    """The arguments and the image of the container that runs a task."""
    if not template.HasField("k8s_pod"):
        return list(template.container.args), template.container.image
    from google.protobuf.json_format import MessageToDict

    containers = MessageToDict(template.k8s_pod.pod_spec).get("containers") or [{}]
    name = dict(template.config).get("primary_container_name")
    primary = next((one for one in containers if one.get("name") == name), containers[0])
    return list(primary.get("args") or []), primary.get("image") or ""


def check_includes(root: str, env: Any, address: str) -> None:
    """Refuse a bundle that lacks what an environment includes, relative to its own file."""
    for wanted in env.include:
        anchor = os.path.dirname(env._declaring_file or "")
        pattern = os.path.normpath(os.path.join(anchor, wanted))
        if os.path.isdir(pattern):
            found = any(path.is_file() for path in Path(pattern).glob("**/*"))
        else:
            found = any(map(os.path.isfile, (pattern, *glob.glob(pattern))))
        if not found or not pattern.startswith(f"{root}{os.sep}"):
            raise Refused(
                f"{address}: environment {env.name} includes {wanted!r}, and the bundle has no "
                f"{without(root, pattern)}. Add the target that owns it (files or resources) to "
                f"`dependencies` of {address}"
            )


def lacking(root: str, image: Any, linked: str) -> Iterable[str]:
    """What the code's Image asks for and the linked image may lack, with what to do about it."""
    if isinstance(image, str):
        if image not in ("auto", linked):
            yield f"it names the image {image}, and the linked image {linked} is used instead"
        return
    if image is None or (image._ref_name is not None and not image._layers):
        return
    stock = (image.base_image or "").startswith("ghcr.io/flyteorg/flyte:")
    if image.dockerfile:
        file = without(root, str(image.dockerfile))
        yield f"its Image has a Dockerfile ({file}): {asked.CHECK}"
    elif image.base_image and not stock and image.base_image != linked:
        yield f"its Image is based on {image.base_image}: {asked.CHECK}"
    here = sys.version_info[:2]
    if stock and tuple(image.python_version) != here:
        yield asked.python(image.python_version, ".".join(map(str, here)))
    for layer in image._layers:
        yield from (without(root, line) for line in _lacking_of_layer(root, layer))


_FILES = ("pyproject", "manifest", "script", "file")
_READERS = {
    "Requirements": ("file", asked.requirements_in),
    "UVProject": ("pyproject", asked.project_dependencies),
}


def _lacking_of_layer(root: str, layer: Any) -> Iterable[str]:
    kind = type(layer).__name__
    fields = [f.name for f in dataclasses.fields(layer)] if dataclasses.is_dataclass(layer) else []
    if kind in _READERS:
        name, requirements_in = _READERS[kind]
        file = str(getattr(layer, name))
        text = _content(root, file)
        if text is None:
            yield f"its Image declares {kind} ({file}): {asked.CHECK}"
        else:
            declared = requirements_in(text)
            yield from asked.packages_of_file(file, _not_installed(declared))
    elif kind == "PipPackages":
        yield from asked.packages(_not_installed(layer.packages or ()))
    elif kind == "AptPackages":
        yield asked.apt(layer.packages)
    elif kind == "Commands":
        yield asked.commands(map(str, layer.commands))
    elif kind == "Env":
        yield asked.variables(name for name, _ in layer.env_vars)
    elif kind == "WorkDir":
        yield asked.workdir(layer.workdir)
    elif kind == "CopyConfig":
        field = "`source_folders`" if layer.path_type else "`source_files`"
        yield asked.copied(str(layer.src), layer.dst, field, "")
    elif kind not in ("CodeBundleLayer", "DockerIgnore"):
        files = [str(getattr(layer, name)) for name in fields if name in _FILES]
        what = f"{kind} ({files[0]})" if files else kind
        yield f"its Image declares {what}: {asked.CHECK}"


def _content(root: str, file: str) -> str | None:
    """Of a file of the bundle."""
    path = os.path.join(root, file)
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8", errors="replace") as text:
        return text.read()


def _not_installed(requirements: Iterable[str]) -> list[str]:
    return [one for one in requirements if not _installed(one)]


def _installed(requirement: str) -> bool:
    name = asked.distribution_of(requirement)
    if name is None:
        return False
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
