"""Reads from a layout what is to be pushed: documents and blobs, in order."""

from __future__ import annotations

import os
from dataclasses import dataclass

from flyte_pack.names import InvalidName
from flyte_pack.oci import model
from flyte_pack.oci.layout import Layout, open_layout
from flyte_pack.oci.model import Descriptor, InvalidImage, Manifest, blob_path
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
    """path: its file; None if it is not in the layout, but in the image `base`."""

    descriptor: Descriptor
    path: str | None
    base: Reference | None


@dataclass(frozen=True)
class Image:
    """documents: each after those that it names; the last is the image's own. blobs: each once."""

    documents: tuple[Document, ...]
    blobs: tuple[Blob, ...]


def read_image(directory: str, digest: str) -> Image:
    """The image `digest` of the layout. Raises `RegistryError` if it is incomplete or damaged."""
    try:
        reader = _Reader(open_layout(directory))
        reader.add(_top(reader.layout, digest), nested=False)
    except OSError as error:
        raise RegistryError(f"{error.filename}: {error.strerror}: {_REMEDY}") from None
    except (InvalidImage, InvalidName) as error:
        raise RegistryError(f"{error}: {_REMEDY}") from None
    return Image(tuple(reader.documents.values()), tuple(reader.blobs.values()))


def _top(layout: Layout, digest: str) -> Descriptor:
    for descriptor in layout.tops():
        if descriptor.digest == digest:
            return descriptor
    raise InvalidImage(f"{layout.name}: does not hold the image {digest}")


class _Reader:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.documents: dict[str, Document] = {}
        self.blobs: dict[str, Blob] = {}

    def add(self, descriptor: Descriptor, nested: bool) -> None:
        data, what = self.layout.document(descriptor), f"{self.layout.name}: {descriptor.digest}"
        document = model.parse_document(data, what, descriptor.media_type)
        if isinstance(document, Manifest):
            self._add_blobs(document)
        elif nested:
            raise InvalidImage(f"{what}: an index in an index")
        else:
            for child in document.manifests:
                self.add(child, nested=True)
        self.documents[descriptor.digest] = Document(document.media_type, descriptor.digest, data)

    def _add_blobs(self, manifest: Manifest) -> None:
        name = manifest.annotations.get(model.BASE_NAME)
        base = Reference.parse(name) if name else None
        blobs = (manifest.config, *manifest.layers)
        absent = {one.digest for one in self.layout.missing(blobs)}
        for one in blobs:
            path = os.path.join(self.layout.name, blob_path(one.digest))
            if one.digest in absent and (base is None or one is manifest.config):
                raise InvalidImage(
                    f"{self.layout.name}: {one.digest} is missing, and no base has it"
                )
            self.blobs[one.digest] = Blob(one, None if one.digest in absent else path, base)
