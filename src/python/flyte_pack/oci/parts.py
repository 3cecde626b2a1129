"""The parts of an image, and the files that hand them from process to process.

A process that makes layers writes each to `blobs/sha256/<digits>` in its output directory, and
describes them in `layers.json`. The rules merge such directories, and `assemble` adds the documents
of an image layout.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Tuple

from flyte_pack.json_fields import Digest, Document
from flyte_pack.oci.model import OCI_LAYER_GZIP, Descriptor
from flyte_shim.paths import path_problem

WHITEOUT = ".wh."  # begins the name that says what is gone (image specification, "Whiteouts")


def whiteout_problem(path: str) -> str | None:
    """Says, as a noun phrase, if `path` in a layer would remove what the layers below have."""
    if WHITEOUT in path and f"/{WHITEOUT}" in f"/{path}":
        return f"a name that begins with {WHITEOUT}, by which a layer removes files"
    return None


def layer_path_problem(path: str) -> str | None:
    """Why a layer may not have a file or directory at `path`, as a noun phrase, or None if it may.

    The rules are those of a bundle, and `whiteout_problem`.
    """
    return path_problem(path) or whiteout_problem(path)


@dataclass(frozen=True)
class Layer:
    """A layer whose blob is at hand.

    diff_id: digest of the tar without compression (image specification, "Layer DiffID"). size: of
    the blob, in bytes. what: for a person; it goes into the image's history.
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

    def write(self, directory: str) -> None:
        with open(os.path.join(directory, self.NAME), "wb") as file:
            file.write(self.to_json())
