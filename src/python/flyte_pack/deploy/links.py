"""The task links of a deployment: reads them, checks them together, says what to register."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from flyte_pack.deploy.plan import Request
from flyte_pack.deploy.registering import Shipped, Source
from flyte_pack.deploy.task_images import Images
from flyte_pack.errors import UserError
from flyte_pack.task_link import TaskLink


def read_links(directory: str, names: Iterable[str]) -> tuple[TaskLink, ...]:
    """The task links in these files of `directory`, sorted by address. Raises `UserError`."""
    links = []
    for name in names:
        try:
            with open(os.path.join(directory, name), "rb") as file:
                links.append(TaskLink.from_json(file.read(), name))
        except OSError as error:
            raise UserError(f"the packaged task {name} cannot be read: {error.strerror}") from None
    links.sort(key=lambda link: link.address)
    for before, after in zip(links, links[1:]):
        if before.address == after.address:
            raise UserError(f"{after.address} is among the tasks twice: name it once")
    return tuple(links)


def one_copy_style(request: Request, links: Iterable[TaskLink], needs_version: bool = True) -> str:
    """How all of them are shipped. Raises `UserError` if they or the request differ.

    needs_version: whether code in images takes a named version.
    """
    by_style = {link.copy_style: link.address for link in links}
    if not by_style:
        raise UserError("it has no tasks: name some in the field `tasks` of the target")
    if len(by_style) > 1:
        found = ", ".join(f"{address} has {style!r}" for style, address in sorted(by_style.items()))
        raise UserError(
            f"its tasks differ in copy_style ({found}), and a parent hands its own code to its "
            "children: set `copy_style` in the target, or type --copy-style"
        )
    style = next(iter(by_style))
    if request.settings.copy_style not in (None, style):
        raise UserError(
            f"the tasks were packaged with copy_style={style!r}, "
            f"not {request.settings.copy_style!r}: package them again"
        )
    for link in links:
        if request.settings.root_dir is not None and link.root_dir != request.settings.root_dir:
            raise UserError(
                f"{link.address} was packaged with root_dir={link.root_dir!r}, "
                f"not {request.settings.root_dir!r}: package it again"
            )
    if style == "none" and request.settings.version is None and needs_version:
        raise UserError(
            "with copy_style='none' the code is in the images, so that no version can be computed "
            "from it: type --version V, or set `version` in the target"
        )
    return style


def shipped_of(
    links: Iterable[TaskLink], directory: str, uris: Mapping[str, str], images: Images
) -> Sequence[Shipped]:
    """What to register. directory: of the packaged files. uris: of the bundles, by content hash.

    Raises `UserError` for code that is nowhere here.
    """
    return [
        Shipped.of(link, images[link.address][0], _code(link, directory, uris)) for link in links
    ]


def _code(link: TaskLink, directory: str, uris: Mapping[str, str]) -> Source:
    if link.bundle is not None:
        # What is in the store under another hash is the same content by another compressor.
        path = os.path.join(directory, link.bundle.archive)
        return Source(path, link.bundle.archive_hash, uri=uris[link.bundle.content_hash])
    if link.built_image is not None:
        layout = os.path.join(directory, link.built_image.layout)
        return Source(layout, link.built_image.digest, workdir=link.built_image.workdir)
    raise UserError(
        f"{link.address} has copy_style='none' and an image that is not built here, so there is no "
        "code to register it from: set `image` to the `flyte_image` that holds it, and map no "
        "other in its place; or deploy with --no-register"
    )
