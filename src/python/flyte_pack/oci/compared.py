"""An image as one side of a comparison: its layers, and what its config says."""

from __future__ import annotations

import shlex
from itertools import islice

from flyte_pack.diff import BASE, LayerPart, Side
from flyte_pack.explain import Artifact
from flyte_pack.oci.layout import Layout, LayoutImage
from flyte_pack.oci.model import BASE_DIGEST, BASE_NAME

OURS = "pants-flyte: "  # what the history of our own layers begins with
_LONGEST = 72


def side_of(address: str, layout: Layout, artifact: Artifact | None = None) -> Side:
    """artifact: what it ships of the repository, where that is known. Raises `InvalidImage`."""
    images = [image for top in layout.tops() for image in layout.images(top)]
    several = len(images) > 1
    settings: dict[str, str] = {}
    layers: list[LayerPart] = []
    for image in images:
        layers += _layers(image)
        of = f" ({image.platform})" if several else ""
        settings.update({f"{name}{of}": value for name, value in _settings(image).items()})
    settings["platforms"] = ", ".join(sorted(str(image.platform) for image in images))
    return Side(
        address,
        artifact,
        whole=artifact is not None,
        settings=tuple(sorted(settings.items())),
        layers=tuple(layers),
    )


def _layers(image: LayoutImage) -> list[LayerPart]:
    history = [one for one in image.parsed_config.history if not one.get("empty_layer")]
    said = (one.get("created_by") for one in history)
    what = list(islice((str(one) if one else "" for one in said), len(image.manifest.layers)))
    what += [""] * (len(image.manifest.layers) - len(what))
    return [
        LayerPart(str(image.platform), _what(one), layer.digest, layer.size)
        for one, layer in zip(what, image.manifest.layers)
    ]


def _what(created_by: str) -> str:
    if created_by.startswith(OURS):
        return created_by[len(OURS) :]
    words = " ".join(created_by.split()).removeprefix("/bin/sh -c ").removeprefix("#(nop) ")
    if words in ("", "base image"):
        return BASE
    return f"{BASE}: {words if len(words) <= _LONGEST else f'{words[:_LONGEST]}...'}"


def _settings(image: LayoutImage) -> dict[str, str]:
    config, notes = image.parsed_config, image.manifest.annotations
    settings = {
        "base": " ".join(filter(None, (notes.get(BASE_NAME), notes.get(BASE_DIGEST)))),
        "user": config.user or "",
        "workdir": config.workdir or "",
        "entrypoint": shlex.join(config.entrypoint),
        "command": shlex.join(config.cmd),
    }
    settings.update((f"env {name}", value) for name, value in config.env.items())
    settings.update((f"label {name}", value) for name, value in config.labels.items())
    return {name: value for name, value in settings.items() if value}
