"""Puts an image together from a base and layers: writes the config, the manifest and the index. No layer's bytes are touched.

Image specification 1.0: "Image Configuration", "Image Manifest", "Image Index", "Image Layout".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flyte_pack.image.base import BaseImage, BasePlatform
from flyte_pack.image.filesystem import VENV
from flyte_pack.oci.model import (
    BASE_DIGEST,
    BASE_NAME,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    REF_NAME,
    Descriptor,
    Index,
    Manifest,
    Platform,
    blob_path,
    canonical,
    digest_of,
)
from flyte_pack.oci.parts import Layer

# Nothing that differs from one build to the next may be in it.
CREATED = "1970-01-01T00:00:00Z"
NOT_FOR_PRODUCTION = "dev.pants-flyte.not-for-production"
_OCI_LAYER_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    ),
}
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class ImageSettings:
    """What the image's config says. env: on top of the base's. labels: likewise; they are annotations of the manifest too."""

    env: Mapping[str, str]
    labels: Mapping[str, str]
    user: str
    workdir: str
    entrypoint: tuple[str, ...]


@dataclass(frozen=True)
class AssembledImage:
    """documents: the files of an image layout but for the layers' blobs, by path. digest: of the index, or the one manifest.

    manifests: of each platform; layers: their layers that are at hand.
    """

    documents: Mapping[str, bytes]
    digest: str
    manifests: Mapping[Platform, Descriptor]


def assemble(
    base: BaseImage, layers: Mapping[Platform, Sequence[Layer]], settings: ImageSettings
) -> AssembledImage:
    """The image of these platforms, each of which the base must have, with its layers on top, lowest first."""
    documents: dict[str, bytes] = {"oci-layout": canonical({"imageLayoutVersion": "1.0.0"})}
    manifests: dict[Platform, Descriptor] = {}

    def add(document: bytes, media_type: str, platform: Platform | None = None) -> Descriptor:
        digest = digest_of(document)
        documents[blob_path(digest)] = document
        return Descriptor(media_type, digest, len(document), platform=platform)

    for platform in sorted(layers):
        below = base.for_platform(platform)
        assert below is not None, f"the base has no {platform}"
        config = _config(base, below, layers[platform], settings)
        manifest = Manifest(
            OCI_MANIFEST,
            add(canonical(config), OCI_CONFIG),
            (*map(_as_oci, below.layers), *(layer.descriptor for layer in layers[platform])),
            _annotations(base, below, settings),
        )
        manifests[platform] = add(manifest.to_json(), OCI_MANIFEST, platform)

    top = next(iter(manifests.values()))
    if len(manifests) > 1:
        labels = {**settings.labels, **_production(base)}
        top = add(Index(OCI_INDEX, tuple(manifests.values()), labels).to_json(), OCI_INDEX)
    # The name that tools look for where they are given none (umoci insists on it).
    named = replace(top, annotations={REF_NAME: "latest"})
    documents["index.json"] = Index(OCI_INDEX, (named,)).to_json()
    return AssembledImage(documents, top.digest, manifests)


def environment(base: BasePlatform) -> dict[str, str]:
    """The variables that a base's config sets."""
    variables = (base.parsed_config.get("config") or {}).get("Env") or []
    return dict(str(variable).partition("=")[::2] for variable in variables)


def _config(
    base: BaseImage, below: BasePlatform, layers: Sequence[Layer], settings: ImageSettings
) -> dict[str, Any]:
    inherited = below.parsed_config
    before = dict(inherited.get("config") or {})
    env = environment(below)
    path = settings.env.get("PATH") or env.get("PATH") or _DEFAULT_PATH
    if f"/{VENV}/bin" not in path.split(":"):  # the entry point is there
        path = f"/{VENV}/bin:{path}"
    # Sorted, because mappings are equal in whatever order they are written.
    ours = dict(sorted(settings.env.items()))
    env = {**env, "PATH": path, "VIRTUAL_ENV": f"/{VENV}", **ours}
    env["PATH"] = path
    # What a base would run is not what we do; what it says of ports, volumes and signals still holds.
    for key in ("Entrypoint", "Cmd", "Healthcheck", "ArgsEscaped", "OnBuild", "Image"):
        before.pop(key, None)
    config = {
        **before,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Entrypoint": list(settings.entrypoint),
        "User": settings.user,
        "WorkingDir": settings.workdir,
        "Labels": {**(before.get("Labels") or {}), **settings.labels, **_production(base)},
    }
    history = [{"created": CREATED, "created_by": f"pants-flyte: {layer.what}"} for layer in layers]
    return {
        "created": CREATED,
        **below.platform.as_fields(),
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": [*inherited["rootfs"]["diff_ids"], *(layer.diff_id for layer in layers)],
        },
        "history": [*_history(inherited, len(below.layers)), *history],
    }


def _history(inherited: Mapping[str, Any], layers: int) -> list[Any]:
    """The base's, if it accounts for each of its layers: some tools insist on that."""
    history = inherited.get("history")
    entries = history if isinstance(history, list) else []
    told = sum(not (isinstance(entry, dict) and entry.get("empty_layer")) for entry in entries)
    if told == layers:
        return entries
    return [{"created": CREATED, "created_by": "base image"}] * layers


def _annotations(base: BaseImage, below: BasePlatform, settings: ImageSettings) -> dict[str, str]:
    named = {} if base.name is None else {BASE_NAME: base.name}
    return {**settings.labels, **_production(base), **named, BASE_DIGEST: below.digest}


def _production(base: BaseImage) -> dict[str, str]:
    if base.production:
        return {}
    return {NOT_FOR_PRODUCTION: "the base is made of files of the machine that built it"}


def _as_oci(layer: Descriptor) -> Descriptor:
    """A base's layer in an OCI manifest: Docker's media types have no place there. The blob is the same."""
    media_type = _OCI_LAYER_TYPES.get(layer.media_type, layer.media_type)
    return Descriptor(media_type, layer.digest, layer.size)
