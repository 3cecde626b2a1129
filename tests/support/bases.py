"""Base images made by hand: what a lock file of an image holds, without a registry."""

from __future__ import annotations

from typing import Any

from flyte_pack.image.base import BaseImage, BasePlatform
from flyte_pack.json_fields import canonical
from flyte_pack.oci.model import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    digest_of,
)

PYTHON_IMAGE = "docker.io/library/python:3.12-slim"


def base_platform(
    platform: str = "linux/amd64",
    layers: tuple[str, ...] = ("debian", "python"),
    *,
    docker: bool = False,
    layer_type: str | None = None,
    more: dict[str, Any] | None = None,
    **config: Any,
) -> BasePlatform:
    """An image of layers that nobody has. docker: with Docker's media types. config: more of what a
    container starts with; more: of the document around it.
    """
    parsed = Platform.parse(platform)
    document = {
        **parsed.as_fields(),
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHON_VERSION=3.12.7"], **config},
        "rootfs": {
            "type": "layers",
            "diff_ids": [digest_of(f"{n} {platform}".encode()) for n in layers],
        },
        **(more or {}),
    }  # fmt: skip
    data = canonical(document)
    described = Descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, digest_of(data), len(data))
    kind = layer_type or (DOCKER_LAYER_GZIP if docker else OCI_LAYER_GZIP)
    blobs = [f"{name} {platform}, compressed".encode() for name in layers]
    manifest = Manifest(
        DOCKER_MANIFEST if docker else OCI_MANIFEST,
        described,
        tuple(Descriptor(kind, digest_of(blob), len(blob)) for blob in blobs),
    )
    return BasePlatform(parsed, manifest.to_json(), data)


def base_image(
    *platforms: BasePlatform, name: str | None = PYTHON_IMAGE, **fields: Any
) -> BaseImage:
    """The image of these platforms (linux/amd64 if none is given): an index for two and more."""
    platforms = platforms or (base_platform(),)
    index = None
    if len(platforms) > 1:
        entries = tuple(
            Descriptor(OCI_MANIFEST, p.digest, len(p.manifest), platform=p.platform)
            for p in platforms
        )
        index = Index(OCI_INDEX, entries).to_json()
    digest = platforms[0].digest if index is None else digest_of(index)
    return BaseImage(name, digest, index, platforms, **fields)
