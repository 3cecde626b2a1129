"""Reads the layout of an image that was built, without its layers."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import BinaryIO, Dict, List, Mapping, Optional

from flyte_pack.oci import model
from flyte_pack.oci.layout import Layout, read_layout
from pants_flyte import engine
from pants_flyte.build_types import BuiltImage
from pants_flyte.globs import exactly


async def layout_of(image: BuiltImage) -> Layout:
    """Its documents, without its layers."""
    documents: Dict[str, bytes] = {}
    wanted: List[str] = ["oci-layout", "index.json"]
    while wanted:
        paths = [os.path.join(image.layout, path) for path in wanted]
        found = await engine.contents(await engine.subset(image.digest, exactly(paths)))
        new = {os.path.relpath(one.path, image.layout): one.content for one in found}
        documents.update(new)
        wanted = _named_in(new, documents)
    return read_layout(_Documents(image.layout, documents))


def _named_in(new: Mapping[str, bytes], have: Mapping[str, bytes]) -> List[str]:
    """The documents that these name; those that are there count as none."""
    found = []
    for path, data in new.items():
        if path == "oci-layout":
            continue
        document = model.parse_object(data, path)
        named = [*document.get("manifests", ()), document.get("config")]
        found += [
            model.blob_path(one["digest"])
            for one in named
            if isinstance(one, dict) and "digest" in one
        ]
    return sorted({path for path in found if path not in have})


@dataclass(frozen=True)
class _Documents:
    """Where a layout is read from: the documents that the build has of it."""

    name: str
    documents: Mapping[str, bytes]

    def open(self, path: str) -> Optional[BinaryIO]:
        data = self.documents.get(path)
        return None if data is None else io.BytesIO(data)

    def size(self, path: str) -> Optional[int]:
        data = self.documents.get(path)
        return None if data is None else len(data)
