"""Reads image layouts, in directories and tar archives, and writes their two index files.

A layout may be *sparse*: it lacks the blobs of layers that a registry has. Documents (indexes,
manifests, configs) are always there, and are checked against their digests when they are read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Protocol

from flyte_pack.fresh import fresh_entries
from flyte_pack.oci import model
from flyte_pack.oci.config import ImageConfig
from flyte_pack.oci.model import Descriptor, Index, InvalidImage, Manifest, Platform, blob_path
from flyte_shim import shown

OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
# Docker and nerdctl write the whole reference to it.
_CONTAINERD_NAME = "io.containerd.image.name"
_MAX_NESTING = 4
_READ = 1 << 20


class Files(Protocol):
    """Where a layout is read from."""

    @property
    def name(self) -> str:
        """For errors."""

    def open(self, path: str) -> BinaryIO | None:
        """The file at `path`, to be closed; None if there is none. Raises `InvalidImage`."""

    def size(self, path: str) -> int | None:
        """In bytes; None where there is no such file. Raises `InvalidImage`."""


@dataclass(frozen=True)
class DirectoryFiles:
    """A directory on this machine; no symbolic link is followed to a file."""

    name: str

    def open(self, path: str) -> BinaryIO | None:
        place = os.path.join(self.name, path)
        try:
            fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise InvalidImage(f"{place}: {reason}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidImage(f"{place}: not a regular file")
        return os.fdopen(fd, "rb")

    def size(self, path: str) -> int | None:
        file = self.open(path)
        if file is None:
            return None
        with file:
            return os.fstat(file.fileno()).st_size


@dataclass(frozen=True)
class LayoutImage:
    """The image of one platform in a layout. descriptor: of its manifest."""

    descriptor: Descriptor
    manifest: Manifest
    manifest_bytes: bytes
    config: bytes
    platform: Platform

    @property
    def parsed_config(self) -> ImageConfig:
        """Raises `InvalidImage`."""
        return ImageConfig.parse(self.config, f"the config {self.manifest.config.digest}")

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers."""
        return (self.manifest.config, *self.manifest.layers)


@dataclass(frozen=True)
class Layout:
    """A layout whose two index files were read; `index_bytes` is `index.json` as it is."""

    files: Files
    index_bytes: bytes
    index: Index = field(repr=False)

    @property
    def name(self) -> str:
        return self.files.name

    def tops(self, ref: str | None = None) -> tuple[Descriptor, ...]:
        """The images, or indexes of several platforms, each once; those named `ref`, if it is set.

        Raises `InvalidImage` if there is none; the message lists the names.
        """
        found = {d.digest: d for d in self.index.manifests if ref is None or ref in names_of(d)}
        if not self.index.manifests:
            raise InvalidImage(f"{self.name}: holds no image")
        if not found:
            raise InvalidImage(
                f"{self.name}: no image in it is named {ref!a:.200}; the names: {self._names}"
            )
        return tuple(found.values())

    def top(self) -> Descriptor:
        """The only one of `tops`. Raises `InvalidImage`."""
        found = self.tops()
        if len(found) > 1:
            raise InvalidImage(f"{self.name}: holds {len(found)} images, named: {self._names}")
        return found[0]

    @property
    def _names(self) -> str:
        names = sorted({name for d in self.index.manifests for name in names_of(d)})
        return shown.printable(", ".join(names))[:500] or "none"

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, index or config; checked. Raises `InvalidImage`."""
        what = f"{self.name}: {descriptor.digest}"
        if descriptor.size > model.MAX_DOCUMENT:
            raise InvalidImage(f"{what}: {descriptor.size:,} bytes are too many for a document")
        file = self.files.open(blob_path(descriptor.digest))
        if file is None:
            raise InvalidImage(f"{what}: is missing in the layout")
        with file:
            data = file.read(descriptor.size + 1)
        if len(data) != descriptor.size or model.digest_of(data) != descriptor.digest:
            raise InvalidImage(f"{what}: the blob is not what its digest and size say")
        return data

    def images(self, top: Descriptor, depth: int = 0) -> Iterator[LayoutImage]:
        """The images of platforms in `top`, an image or an index. Raises `InvalidImage`."""
        if depth > _MAX_NESTING:
            raise InvalidImage(f"{self.name}: indexes are nested too deeply")
        if top.media_type not in (*model.INDEX_TYPES, *model.MANIFEST_TYPES):
            raise InvalidImage(
                f"{self.name}: {top.digest} is {top.media_type!a:.100}, no image or index"
            )
        if top.platform is not None and top.platform.os == "unknown":
            return  # an attestation of BuildKit's, which stands beside the images that it is about
        data = self.document(top)
        document = model.parse_document(data, f"{self.name}: {top.digest}", top.media_type)
        if isinstance(document, Index):
            for descriptor in document.manifests:
                yield from self.images(descriptor, depth + 1)
            return
        config = self.document(document.config)
        what = f"{self.name}: {document.config.digest}"
        platform = top.platform or ImageConfig.parse(config, what).platform
        yield LayoutImage(top, document, data, config, platform)

    def image(self, platform: Platform | None) -> LayoutImage:
        """The image for `platform`, or the only one. Raises `InvalidImage`."""
        images = [i for top in self.tops() for i in self.images(top)]
        found = [i for i in images if platform in (None, i.platform)]
        if len(found) == 1:
            return found[0]
        there = ", ".join(sorted(str(i.platform) for i in images)) or "none"
        if not found:
            raise InvalidImage(f"{self.name}: has no image for {platform}; there are: {there:.500}")
        raise InvalidImage(
            f"{self.name}: holds several images; say which platform, of: {there:.500}"
        )

    def missing(self, descriptors: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
        """Those whose blobs are absent. Raises `InvalidImage` if one has another size."""
        absent = []
        for descriptor in descriptors:
            size = self.files.size(blob_path(descriptor.digest))
            if size is None:
                absent.append(descriptor)
            elif size != descriptor.size:
                raise InvalidImage(
                    f"{self.name}: {descriptor.digest} has {size:,} bytes, not {descriptor.size:,}"
                )
        return tuple(absent)


def open_layout(directory: str) -> Layout:
    """The layout in `directory`. Raises `InvalidImage`, `OSError`."""
    return read_layout(DirectoryFiles(directory))


def read_layout(files: Files) -> Layout:
    """The layout that `files` are. Raises `InvalidImage`."""
    marker = _file(files, "oci-layout")
    version = model.parse_object(marker, f"{files.name}: oci-layout").get("imageLayoutVersion")
    if version != "1.0.0":
        raise InvalidImage(f"{files.name}: an image layout of version {version!a:.40}, not 1.0.0")
    data = _file(files, "index.json")
    # An index of its own kind: the specification does not ask it to say so.
    index = model.parse_document(data, f"{files.name}: index.json", model.OCI_INDEX)
    if not isinstance(index, Index):
        raise InvalidImage(f"{files.name}: index.json is not an index")
    return Layout(files, data, index)


def layout_files(manifests: Sequence[Descriptor]) -> dict[str, bytes]:
    """The files of a layout beside its blobs. manifests: of its images or indexes."""
    return {
        "oci-layout": OCI_LAYOUT,
        "index.json": Index(model.OCI_INDEX, tuple(manifests)).to_json(),
    }


def names_of(descriptor: Descriptor) -> tuple[str, ...]:
    """What the image is called in its layout."""
    found = (descriptor.annotations.get(key) for key in (model.REF_NAME, _CONTAINERD_NAME))
    return tuple(filter(None, found))


def checked_blob(layout: Layout, descriptor: Descriptor) -> Iterator[bytes]:
    """The blob's bytes, in pieces.

    Raises `InvalidImage` if it is absent or, at its end, if it does not match the descriptor.
    """
    what = f"{layout.name}: {descriptor.digest}"
    file = layout.files.open(blob_path(descriptor.digest))
    if file is None:
        raise InvalidImage(f"{what}: is missing in the layout")
    digest, left = hashlib.sha256(), descriptor.size
    with file:
        while data := file.read(min(left + 1, _READ)):
            left -= len(data)
            if left < 0:
                break
            digest.update(data)
            yield data
    if left or f"sha256:{digest.hexdigest()}" != descriptor.digest:
        raise InvalidImage(f"{what}: the blob is not what its digest and size say")


def write_complete(layout: Layout, image: LayoutImage, place: str) -> None:
    """Write the image of one platform as a layout with all its layers, named `latest`.

    Raises `UserError`, `InvalidImage` or `OSError`; nothing is left then.
    """
    with fresh_entries(place) as directory:
        os.makedirs(os.path.join(directory, "blobs", "sha256"))
        for descriptor in {d.digest: d for d in (image.descriptor, *image.blobs)}.values():
            with open(os.path.join(directory, blob_path(descriptor.digest)), "xb") as file:
                for piece in checked_blob(layout, descriptor):
                    file.write(piece)
        named = replace(
            image.descriptor, annotations={model.REF_NAME: "latest"}, platform=image.platform
        )
        for name, document in layout_files([named]).items():
            with open(os.path.join(directory, name), "wb") as file:
                file.write(document)


def _file(files: Files, path: str) -> bytes:
    file = files.open(path)
    if file is None:
        raise InvalidImage(f"{files.name}: no image layout: it has no {path}")
    with file:
        return file.read(model.MAX_DOCUMENT + 1)
