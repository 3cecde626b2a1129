"""Writes an image as one file that docker, podman, skopeo and umoci load.

The tar archive holds an image layout and Docker's `manifest.json`. Docker before 25 reads that
file alone. It names the config and the layers by their paths, and layers must be gzip'd or plain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flyte_pack import tar
from flyte_pack.fresh import fresh_file
from flyte_pack.json_fields import canonical
from flyte_pack.oci.layout import Layout, LayoutImage, checked_blob, layout_files
from flyte_pack.oci.model import GZIP_LAYERS, PLAIN_LAYERS, REF_NAME, InvalidImage, blob_path


def write_archive(layout: Layout, image: LayoutImage, tags: Sequence[str], path: str) -> None:
    """Write the image of one platform to the file `path`, as `repository:tag` for each of `tags`.

    Equal images and tags give equal bytes. Raises what `stream_archive` raises; then no file is
    left at `path`.
    """
    with fresh_file(path) as temporary, open(temporary, "xb") as file:
        stream_archive(layout, image, tags, file.write)


def stream_archive(
    layout: Layout, image: LayoutImage, tags: Sequence[str], write: Callable[[bytes], object]
) -> None:
    """Write the archive piece by piece.

    Raises `InvalidImage` if a layer is missing or damaged or docker cannot load it, `OSError`, and
    what `write` raises.
    """
    for layer in image.manifest.layers:
        if layer.media_type not in (*PLAIN_LAYERS, *GZIP_LAYERS):
            raise InvalidImage(
                f"{layout.name}: `docker load` does not take the layer {layer.digest}, "
                f"{layer.media_type!a:.100}"
            )
    if absent := layout.missing(image.blobs):
        raise InvalidImage(
            f"{layout.name}: {len(absent)} of its blobs are not in the layout: complete it first"
        )
    named = [replace(image.descriptor, annotations={REF_NAME: tag}) for tag in tags]
    entry = {
        "Config": blob_path(image.manifest.config.digest),
        "RepoTags": list(tags) or None,
        "Layers": [blob_path(layer.digest) for layer in image.manifest.layers],
    }
    documents = {**layout_files(named or [image.descriptor]), "manifest.json": canonical([entry])}
    for name, document in sorted(documents.items()):
        write(tar.header(name, 0o644, len(document)) + document + tar.padding(len(document)))
    write(tar.directory("blobs", 0o755) + tar.directory("blobs/sha256", 0o755))
    blobs = {d.digest: d for d in (image.descriptor, *image.blobs)}
    for descriptor in sorted(blobs.values(), key=lambda d: d.digest):
        write(tar.header(blob_path(descriptor.digest), 0o644, descriptor.size))
        for piece in checked_blob(layout, descriptor):
            write(piece)
        write(tar.padding(descriptor.size))
    write(tar.END)
