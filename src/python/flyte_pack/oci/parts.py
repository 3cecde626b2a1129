"""The parts that an image is put together of, and the files by which processes hand them on.

A process that makes layers writes each as `blobs/sha256/<digits>` in its output directory, and a
`layers.json` that says what they are. The rules merge such directories. `assemble` adds the
documents that make them an image layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from flyte_pack.json_fields import Digest, Document
from flyte_pack.oci.model import OCI_LAYER_GZIP, Descriptor


@dataclass(frozen=True)
class Layer:
    """A layer whose blob is at hand.

    diff_id: digest of the tar without compression (image specification, "Layer DiffID"). size: of
    the blob, in bytes. what: what is in it, for a person; it goes into the image's history.
    """

    digest: Digest
    size: int
    diff_id: Digest
    what: str
    media_type: str = OCI_LAYER_GZIP

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, self.size)


@dataclass(frozen=True)
class Layers(Document):
    """`layers.json`, lowest first."""

    NAME = "layers.json"

    layers: Tuple[Layer, ...]
