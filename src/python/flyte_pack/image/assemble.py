"""Assembles an image from a base and layers: writes its config, manifests and index.

No layer's bytes are touched. Image specification 1.0: "Image Configuration", "Image Manifest",
"Image Index", "Image Layout".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flyte_pack.image.base import BaseImage, BasePlatform
from flyte_pack.image.filesystem import VENV
from flyte_pack.json_fields import Digest
from flyte_pack.oci import model
from flyte_pack.oci.config import DEFAULT_PATH, ImageConfig, history_entry
from flyte_pack.oci.layout import layout_files
from flyte_pack.oci.model import Descriptor, Index, Manifest, Platform, blob_path
from flyte_pack.oci.parts import Layer

NOT_FOR_PRODUCTION = "dev.pants-flyte.not-for-production"
_OCI_LAYER_TYPES = {
    model.DOCKER_LAYER: model.OCI_LAYER,
    model.DOCKER_LAYER_GZIP: model.OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    ),
}
# What the base would run is not what we run. Its ports, volumes and signals still hold.
_OF_THE_BASES_COMMAND = ("Healthcheck", "ArgsEscaped", "OnBuild", "Image")
# What would have the interpreter look for modules elsewhere than in the environment, or before it
# (Python's documentation, "Command line and environment"). A target's `env` may set them.
_OF_THE_BASES_PYTHON = (
    *("PYTHONPATH", "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONUSERBASE", "PYTHONSAFEPATH"),
    *("PYTHONEXECUTABLE", "PYTHONSTARTUP", "PYTHONINSPECT", "VIRTUAL_ENV_PROMPT"),
)


@dataclass(frozen=True)
class ImageSettings:
    """What the image's config says.

    env: on top of the base's variables. labels: on top of the base's; also annotations of the
    manifest.
    """

    env: Mapping[str, str]
    labels: Mapping[str, str]
    user: str
    workdir: str
    entrypoint: tuple[str, ...]


@dataclass(frozen=True)
class AssembledImage:
    """documents: the files of an image layout without the layers' blobs, by path.

    digest: of the index, or of the only manifest. manifests: of each platform.
    """

    documents: Mapping[str, bytes]
    digest: Digest
    manifests: Mapping[Platform, Descriptor]


def assemble(
    base: BaseImage, layers: Mapping[Platform, Sequence[Layer]], settings: ImageSettings
) -> AssembledImage:
    """The image of these platforms; `layers`, lowest first, are on top of the base's.

    The base must have each of the platforms.
    """
    documents: dict[str, bytes] = {}
    manifests: dict[Platform, Descriptor] = {}

    def add(document: bytes, media_type: str, platform: Platform | None = None) -> Descriptor:
        descriptor = Descriptor.of(media_type, document, platform)
        documents[blob_path(descriptor.digest)] = document
        return descriptor

    for platform in sorted(layers):
        below = base.for_platform(platform)
        assert below is not None, f"the base has no {platform}"
        config = _config(base, below, layers[platform], settings).to_json()
        manifest = Manifest(
            model.OCI_MANIFEST,
            add(config, model.OCI_CONFIG),
            (*map(_as_oci, below.layers), *(layer.descriptor for layer in layers[platform])),
            _annotations(base, below, settings),
        )
        manifests[platform] = add(manifest.to_json(), model.OCI_MANIFEST, platform)

    top = next(iter(manifests.values()))
    if len(manifests) > 1:
        labels = {**settings.labels, **_production(base)}
        top = add(
            Index(model.OCI_INDEX, tuple(manifests.values()), labels).to_json(), model.OCI_INDEX
        )
    # The name that tools look for where they are given none (umoci insists on it).
    named = replace(top, annotations={model.REF_NAME: "latest"})
    documents.update(layout_files([named]))
    return AssembledImage(documents, top.digest, manifests)


def _config(
    base: BaseImage, below: BasePlatform, layers: Sequence[Layer], settings: ImageSettings
) -> ImageConfig:
    inherited = below.parsed_config
    base_env = {n: v for n, v in inherited.env.items() if n not in _OF_THE_BASES_PYTHON}
    path = _path(settings.env.get("PATH"), base_env.get("PATH"))
    # Sorted, because mappings are equal in whatever order they are written.
    ours = {name: path if name == "PATH" else v for name, v in sorted(settings.env.items())}
    entries = (history_entry(f"pants-flyte: {layer.what}") for layer in layers)
    return replace(
        inherited,
        platform=below.platform,
        diff_ids=(*inherited.diff_ids, *(layer.diff_id for layer in layers)),
        history=(*_history(inherited), *entries),
        env={**base_env, "PATH": path, "VIRTUAL_ENV": f"/{VENV}", **ours},
        entrypoint=settings.entrypoint,
        cmd=(),
        user=settings.user,
        workdir=settings.workdir,
        labels={**inherited.labels, **settings.labels, **_production(base)},
        other={key: v for key, v in inherited.other.items() if key not in _OF_THE_BASES_COMMAND},
    )


def _path(ours: str | None, bases: str | None) -> str:
    """The PATH that begins with the environment's programs, unless the target has it elsewhere."""
    programs = f"/{VENV}/bin"
    if ours and programs in ours.split(":"):
        return ours
    rest = (ours or bases or DEFAULT_PATH).split(":")
    return ":".join([programs, *(part for part in rest if part != programs)])


def _history(inherited: ImageConfig) -> Sequence[Mapping[str, Any]]:
    """The base's, if it accounts for each of its layers: some tools insist on that."""
    layers = len(inherited.diff_ids)
    if sum(not entry.get("empty_layer") for entry in inherited.history) == layers:
        return inherited.history
    return [history_entry("base image")] * layers


def _annotations(base: BaseImage, below: BasePlatform, settings: ImageSettings) -> dict[str, str]:
    named = {} if base.name is None else {model.BASE_NAME: base.name}
    return {**settings.labels, **_production(base), **named, model.BASE_DIGEST: below.digest}


def _production(base: BaseImage) -> dict[str, str]:
    if base.production:
        return {}
    return {NOT_FOR_PRODUCTION: "the base is made of files of the machine that built it"}


def _as_oci(layer: Descriptor) -> Descriptor:
    """A base's layer in an OCI manifest, which has no media types of Docker's."""
    media_type = _OCI_LAYER_TYPES.get(layer.media_type, layer.media_type)
    return Descriptor(media_type, layer.digest, layer.size)
