"""Digests, platforms, descriptors, manifests and indexes (OCI image specification 1.0).

A document may come from a registry or a file of unknown origin. The fields that we use are checked,
and others are ignored. Docker's older media types (image manifest version 2, schema 2) are
understood, as most registries still serve them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyte_pack.errors import UserError
from flyte_pack.json_fields import Digest, canonical
from flyte_shim.words import check_word

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
PLAIN_LAYERS = (OCI_LAYER, DOCKER_LAYER)
GZIP_LAYERS = (OCI_LAYER_GZIP, DOCKER_LAYER_GZIP)

# The annotations of the image specification ("Pre-Defined Annotation Keys") that we write or read.
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
DESCRIPTION = "org.opencontainers.image.description"
REF_NAME = "org.opencontainers.image.ref.name"
REVISION = "org.opencontainers.image.revision"
TITLE = "org.opencontainers.image.title"

# Bytes of a manifest or index; what registries accept (distribution specification, "Push").
MAX_DOCUMENT = 4 << 20

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PLATFORM_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What else architectures are called, with the variant that the name means, if it means one.
_ARCHITECTURES: dict[str, tuple[str, str | None]] = {
    "i386": ("386", ""),
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
# What else variants of an architecture are called.
_VARIANTS = {
    "amd64": {"v1": ""},
    "arm64": {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"},
    "arm": {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"},
}


class InvalidImage(UserError):
    """A document of an image, or a value in it, is invalid; the message says which and why."""


def digest_of(data: bytes) -> Digest:
    """`sha256:` and 64 lower-case hexadecimal digits (image specification, "Digests")."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def check_digest(text: object, what: str = "a digest") -> Digest:
    """`text`, if it is a SHA-256 digest, the only kind we take. Raises `InvalidImage`."""
    if not isinstance(text, str) or not DIGEST.fullmatch(text):
        raise InvalidImage(f"{what} is {text!a:.100}, not sha256: and 64 hexadecimal digits")
    return Digest(text)


def blob_path(digest: str) -> str:
    """Where a layout keeps the blob (image specification, "Image Layout")."""
    return f"blobs/{digest.replace(':', '/')}"


@dataclass(frozen=True, order=True)
class Platform:
    """`os/architecture[/variant]` by the names of the Go language, such as linux/amd64."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """What somebody wrote, as `normal` has it. Raises `InvalidImage`."""
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(map(_PLATFORM_PART.fullmatch, parts)):
            raise InvalidImage(
                f"{text!a:.80} is not a platform, such as linux/amd64 or linux/arm64"
            )
        return cls.normal(*parts)

    @classmethod
    def normal(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """One spelling of each platform, containerd's (its module platforms, `database.go`).

        A variant that an architecture has anyway is left out, as `v8` of arm64.
        """
        os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
        os = "darwin" if os == "macos" else os
        architecture, implied = _ARCHITECTURES.get(architecture, (architecture, None))
        variant = variant if implied is None else implied
        return cls(os, architecture, _VARIANTS.get(architecture, {}).get(variant, variant))

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def as_fields(self) -> dict[str, str]:
        fields = {"architecture": self.architecture, "os": self.os}
        return {**fields, "variant": self.variant} if self.variant else fields

    @classmethod
    def from_fields(cls, raw: object, where: str) -> Platform:
        if not isinstance(raw, dict):
            raise InvalidImage(f"{where}: the platform is not an object")
        values = [raw.get(key) or "" for key in ("os", "architecture", "variant")]
        if not all(isinstance(value, str) for value in values):
            raise InvalidImage(f"{where}: the platform is {raw!r:.100}")
        for value in values:
            check_word(value, f"{where}: the platform", longest=100, error=InvalidImage)
        return cls.normal(*values)


@dataclass(frozen=True)
class Descriptor:
    """What a blob or manifest is, and how to check it; size in bytes.

    Image specification, "Content Descriptors".
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None

    @classmethod
    def of(cls, media_type: str, data: bytes, platform: Platform | None = None) -> Descriptor:
        return cls(media_type, digest_of(data), len(data), platform=platform)

    def as_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            fields["annotations"] = dict(self.annotations)
        if self.platform is not None:
            fields["platform"] = self.platform.as_fields()
        return fields

    @classmethod
    def from_fields(cls, raw: object, where: str) -> Descriptor:
        """Raises `InvalidImage`."""
        if not isinstance(raw, dict):
            raise InvalidImage(f"{where}: not an object")
        media_type, size, platform = map(raw.get, ("mediaType", "size", "platform"))
        if not isinstance(media_type, str) or not media_type:
            raise InvalidImage(f"{where}: no mediaType")
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise InvalidImage(f"{where}: the size is {size!r:.80}")
        return cls(
            media_type,
            check_digest(raw.get("digest"), f"{where}: the digest"),
            size,
            string_map(raw.get("annotations"), f"{where}: annotations"),
            None if platform is None else Platform.from_fields(platform, where),
        )


@dataclass(frozen=True)
class Manifest:
    """An image of one platform: its config and its layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def to_json(self) -> bytes:
        """Equal manifests give equal bytes."""
        layers = [layer.as_fields() for layer in self.layers]
        return _to_json(self, config=self.config.as_fields(), layers=layers)


@dataclass(frozen=True)
class Index:
    """Images of several platforms under one digest."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def to_json(self) -> bytes:
        """Equal indexes give equal bytes."""
        return _to_json(self, manifests=[manifest.as_fields() for manifest in self.manifests])


def _to_json(document: Manifest | Index, **fields: object) -> bytes:
    if document.annotations:
        fields["annotations"] = dict(document.annotations)
    return canonical({"schemaVersion": 2, "mediaType": document.media_type, **fields})


def parse_document(data: bytes, what: str, media_type: str | None = None) -> Manifest | Index:
    """A manifest or index; `media_type` is that of the response. Raises `InvalidImage`."""
    document = parse_object(data, what)
    stated = document.get("mediaType", media_type)
    if stated is None:  # the specification only recommends the field
        stated = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if media_type in (*INDEX_TYPES, *MANIFEST_TYPES) and stated != media_type:
        raise InvalidImage(
            f"{what}: served as {media_type}, but it says that it is {stated!a:.100}"
        )
    if document.get("schemaVersion") != 2 or stated not in (*INDEX_TYPES, *MANIFEST_TYPES):
        raise InvalidImage(
            f"{what}: {stated!a:.100}, schema version {document.get('schemaVersion')!r:.20}, is no "
            "image manifest or index of the OCI specification or Docker's schema 2"
        )
    others = (
        ("config", "layers", "fsLayers") if stated in INDEX_TYPES else ("manifests", "fsLayers")
    )
    for other in filter(document.__contains__, others):
        # Others may take it for something else than we do (CVE-2021-41190).
        raise InvalidImage(f"{what}: ambiguous: {stated}, but it has {other!r}")
    annotations = string_map(document.get("annotations"), f"{what}: annotations")
    if stated in INDEX_TYPES:
        return Index(stated, _descriptors(document, "manifests", what), annotations)
    return Manifest(
        stated,
        Descriptor.from_fields(document.get("config"), f"{what}: config"),
        _descriptors(document, "layers", what),
        annotations,
    )


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object of an image. Raises `InvalidImage`."""
    if len(data) > MAX_DOCUMENT:
        raise InvalidImage(f"{what}: {len(data):,} bytes are too many for a document")
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidImage(f"{what}: not a JSON document: {str(error)!a:.100}") from None
    if not isinstance(document, dict):
        raise InvalidImage(f"{what}: not a JSON object")
    return document


def string_map(raw: object, what: str) -> dict[str, str]:
    """A JSON object of strings, empty where it is absent. Raises `InvalidImage`."""
    raw = raw or {}
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise InvalidImage(f"{what}: not an object of strings")
    return raw


def _descriptors(document: dict[str, Any], key: str, what: str) -> tuple[Descriptor, ...]:
    raw = document.get(key)
    if not isinstance(raw, list):
        raise InvalidImage(f"{what}: {key!r} is not a list")
    return tuple(Descriptor.from_fields(one, f"{what}: {key}[{i}]") for i, one in enumerate(raw))
