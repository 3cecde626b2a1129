"""Reads the image that is to be pushed out of its layout: which documents and which blobs, in which order."""

from __future__ import annotations

import os
from dataclasses import dataclass

from flyte_pack.deploy.names import InvalidName
from flyte_pack.oci.model import (
    BASE_NAME,
    Descriptor,
    Index,
    InvalidImage,
    Manifest,
    blob_path,
    digest_of,
    parse_document,
    parse_object,
)
from flyte_pack.oci.reference import Reference
from flyte_pack.registry import RegistryError

_REMEDY = "remove the package and make it again"


@dataclass(frozen=True)
class Document:
    """A manifest or index."""

    media_type: str
    digest: str
    data: bytes


@dataclass(frozen=True)
class Blob:
    """path: the file with it; None where the layout has none, and `base` names the image that has it."""

    descriptor: Descriptor
    path: str | None
    base: Reference | None


@dataclass(frozen=True)
class Image:
    """documents: each after those that it names, so the last is the image's own. blobs: each once."""

    documents: tuple[Document, ...]
    blobs: tuple[Blob, ...]


def read_image(directory: str, digest: str) -> Image:
    """The image `digest` of the layout. Raises `RegistryError` where something of it is missing or damaged."""
    try:
        with open(os.path.join(directory, "index.json"), "rb") as file:
            raw = parse_object(file.read(), "index.json").get("manifests")
        tops = [
            Descriptor.from_fields(one, "index.json")
            for one in (raw if isinstance(raw, list) else [])
        ]
        top = next((one for one in tops if one.digest == digest), None)
        if top is None:
            raise RegistryError(f"{directory} does not hold the image {digest}: {_REMEDY}")
        reader = _Reader(directory)
        reader.add(top, depth=0)
    except OSError as error:
        raise RegistryError(f"{error.filename}: {error.strerror}: {_REMEDY}") from None
    except (InvalidImage, InvalidName) as error:
        raise RegistryError(f"{directory}: {error}: {_REMEDY}") from None
    return Image(tuple(reader.documents.values()), tuple(reader.blobs.values()))


class _Reader:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.documents: dict[str, Document] = {}
        self.blobs: dict[str, Blob] = {}

    def add(self, descriptor: Descriptor, depth: int) -> None:
        path = os.path.join(self._directory, blob_path(descriptor.digest))
        with open(path, "rb") as file:
            data = file.read()
        if digest_of(data) != descriptor.digest:
            raise InvalidImage(f"{descriptor.digest} is damaged")
        document = parse_document(data, descriptor.digest, descriptor.media_type)
        if isinstance(document, Manifest):
            self._add_blobs(document)
        elif depth:
            raise InvalidImage("an index in an index")
        elif isinstance(document, Index):
            for child in document.manifests:
                self.add(child, depth + 1)
        self.documents[descriptor.digest] = Document(document.media_type, descriptor.digest, data)

    def _add_blobs(self, manifest: Manifest) -> None:
        name = manifest.annotations.get(BASE_NAME)
        base = Reference.parse(name) if name else None
        for descriptor in (manifest.config, *manifest.layers):
            path = os.path.join(self._directory, blob_path(descriptor.digest))
            if os.path.exists(path):
                if os.path.getsize(path) != descriptor.size:
                    raise InvalidImage(
                        f"{descriptor.digest} has not the size that its manifest says"
                    )
                self.blobs[descriptor.digest] = Blob(descriptor, path, base)
            elif base is None or descriptor is manifest.config:
                raise InvalidImage(f"{descriptor.digest} is missing, and no base image has it")
            else:
                self.blobs[descriptor.digest] = Blob(descriptor, None, base)
