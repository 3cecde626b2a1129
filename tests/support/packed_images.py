"""Reads an OCI image layout as its specification says, without any of our own code."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PackedLayer:
    """what: the history's word for it, without who made it. blob: None where the layout does not
    hold it.
    """

    what: str
    digest: str
    blob: Path | None

    def members(self) -> list[tarfile.TarInfo]:
        assert self.blob is not None, f"{self.what}: the layout does not hold it"
        with tarfile.open(self.blob) as tar:
            return tar.getmembers()


@dataclass(frozen=True)
class PackedImage:
    """An image of one platform."""

    digest: str
    platform: str
    manifest: dict[str, Any]
    config: dict[str, Any]
    layers: tuple[PackedLayer, ...]

    @property
    def own_layers(self) -> tuple[PackedLayer, ...]:
        """Those that pants-flyte made, a base of this machine's files included."""
        return tuple(layer for layer in self.layers if layer.what)


def read_images(layout: Path) -> list[PackedImage]:
    """The images of a layout with one name, by platform: more than one where that is an index."""

    def document(digest: str) -> Any:
        return json.loads(blob(digest).read_bytes())

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    (top,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    found = document(top["digest"])
    images = []
    for descriptor in found.get("manifests", [top]):
        manifest = document(descriptor["digest"])
        config = document(manifest["config"]["digest"])
        history = [e.get("created_by", "") for e in config["history"] if "empty_layer" not in e]
        assert len(history) == len(manifest["layers"]) == len(config["rootfs"]["diff_ids"])
        layers = []
        for layer, by in zip(manifest["layers"], history):
            who, _, what = by.partition(": ")
            path = blob(layer["digest"])
            layers.append(
                PackedLayer(
                    what if who == "pants-flyte" else "",
                    layer["digest"],
                    path if path.exists() else None,
                )
            )
        platform = f"{config['os']}/{config['architecture']}"
        images.append(PackedImage(descriptor["digest"], platform, manifest, config, tuple(layers)))
    return sorted(images, key=lambda image: image.platform)


def read_image(layout: Path) -> PackedImage:
    """The one image of a layout of one platform."""
    (image,) = read_images(layout)
    return image


def listing(image: PackedImage) -> str:
    """What a person reviews: each layer of ours with its members; of third-party packages, how many
    files there are.
    """
    lines = [f"image for {image.platform}"]
    for layer in image.own_layers:
        members = layer.members()
        if any("/site-packages/" in m.name and ".dist-info/" in m.name for m in members):
            names = sorted(
                m.name.split("/")[-2][: -len(".dist-info")]
                for m in members
                if m.name.endswith(".dist-info/METADATA")
            )
            files = sum(not m.isdir() for m in members)
            lines.append(f"\nlayer: {layer.what} ({files} files)")
            lines.extend(f"  {name}" for name in names if len(names) > 1)
            continue
        lines.append(f"\nlayer: {layer.what}")
        lines.extend(
            f"  {_mode(m)} {m.uid}:{m.gid} {m.name}{_end(m)}"
            for m in sorted(members, key=lambda m: m.name)
        )
    return "\n".join(lines) + "\n"


def _mode(member: tarfile.TarInfo) -> str:
    return f"{'d' if member.isdir() else 'l' if member.issym() else '-'} {member.mode:04o}"


def _end(member: tarfile.TarInfo) -> str:
    return "/" if member.isdir() else f" -> {member.linkname}" if member.issym() else ""
