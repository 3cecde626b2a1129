"""The parts of an image, and the files that hand them from process to process.

A process that makes layers writes each to `blobs/sha256/<digits>` in its output directory, and
describes them in `layers.json`. The rules merge such directories, and `assemble` adds the documents
of an image layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flyte_pack.json_fields import Fields, dump, load
from flyte_pack.oci.model import OCI_LAYER_GZIP, Descriptor, check_digest

SCHEMA = 1


@dataclass(frozen=True)
class Layer:
    """A layer whose blob is at hand.

    diff_id: digest of the tar without compression (image specification, "Layer DiffID"). size: of
    the blob, in bytes. what: for a person; it goes into the image's history.
    """

    digest: str
    size: int
    diff_id: str
    what: str
    media_type: str = OCI_LAYER_GZIP

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, self.size)

    @classmethod
    def from_fields(cls, fields: Fields) -> Layer:
        layer = cls(
            digest=check_digest(fields.text("digest")),
            size=fields.integer("size"),
            diff_id=check_digest(fields.text("diff_id")),
            what=fields.text("what"),
            media_type=fields.text("media_type"),
        )
        fields.end()
        return layer


def layers_to_json(layers: Sequence[Layer]) -> bytes:
    """`layers.json`, lowest first; equal layers give equal bytes."""
    return dump({"schema": SCHEMA, "layers": [vars(layer) for layer in layers]})


def layers_from_json(data: bytes) -> tuple[Layer, ...]:
    """Parse what `layers_to_json` wrote. Raises `InvalidData` or `InvalidImage`."""
    fields = load(data, "layers.json", SCHEMA)
    layers = tuple(map(Layer.from_fields, fields.nested_list("layers")))
    fields.end()
    return layers
