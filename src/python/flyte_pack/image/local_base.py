"""Reads a base image out of a layout or archive: `python -m flyte_pack image-local-base`.

It takes an image layout, in a directory or in a tar archive (`oci-archive`), and what `docker save`
wrote, before version 25 and since. Archives may be gzip'd. Blobs are checked against their digests,
and layers against the config. Nothing is unpacked, and no layer is held in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, BinaryIO

from flyte_pack import command
from flyte_pack.codec import GzipWriter
from flyte_pack.fresh import fresh_entries
from flyte_pack.image.base import BaseImage, BasePlatform
from flyte_pack.image.base_files import BaseReader
from flyte_pack.json_fields import Digest
from flyte_pack.oci import model
from flyte_pack.oci.config import ImageConfig
from flyte_pack.oci.inflate import inflate
from flyte_pack.oci.layout import Layout, LayoutImage, checked_blob, open_layout, read_layout
from flyte_pack.oci.model import Descriptor, InvalidImage, Manifest, Platform, blob_path
from flyte_pack.oci.tar_files import TarFiles

_READ = 1 << 20
_Options = argparse.Namespace  # of `main`


def main(argv: Sequence[str]) -> int:
    parser = command.parser(
        "python -m flyte_pack image-local-base", "Read a base image out of a layout or archive."
    )
    parser.add_argument(
        "--source",
        required=True,
        help="an OCI layout (directory or archive), or what `docker save` wrote",
    )
    parser.add_argument(
        "--platform", action="append", required=True, help="such as linux/amd64; may be repeated"
    )
    parser.add_argument("--ref", help="the image's name, where there are several")
    parser.add_argument(
        "--python", help="the interpreter in the image, such as /usr/bin/python3.11"
    )
    parser.add_argument("--out", required=True, help="directory for base.json and blobs/")
    parser.add_argument("--address", required=True, help="the target's, for errors")
    return command.run(parser, argv, _read)


def _read(options: _Options) -> None:
    """Write `base.json` and the blobs of the wanted platforms. After an error, nothing is left."""
    options.platforms = tuple(dict.fromkeys(map(Platform.parse, options.platform)))
    with fresh_entries(options.out) as directory, ExitStack() as stack:
        os.makedirs(os.path.join(directory, "blobs", "sha256"))
        if os.path.isdir(options.source):
            base = _from_layout(open_layout(options.source), options, directory)
        else:
            archive = stack.enter_context(TarFiles(options.source, directory))
            if "oci-layout" in archive.names:
                base = _from_layout(read_layout(archive), options, directory)
            elif "manifest.json" in archive.names:
                base = _from_docker(archive, options, directory)
            else:
                raise InvalidImage(
                    f"{options.source}: is neither an image layout nor what `docker save` writes: "
                    "it has no oci-layout and no manifest.json"
                )
        with open(os.path.join(directory, "base.json"), "wb") as file:
            file.write(base.to_json())


# --- layouts -------------------------------------------------------------------------------------


def _from_layout(layout: Layout, options: _Options, out: str) -> BaseImage:
    tops = layout.tops(options.ref)
    images = [image for top in tops for image in layout.images(top)]
    wanted = [_wanted(layout.name, images, platform) for platform in options.platforms]
    for image in wanted:
        config = image.parsed_config
        config.check_layers(image.manifest.layers, layout.name)
        for layer, diff_id in zip(image.manifest.layers, config.diff_ids):
            _copy_layer(layout, layer, diff_id, out)
    # Several platforms belong together by their index: one in the layout, or the layout's own.
    index = None
    if len(wanted) > 1:
        index = layout.document(tops[0]) if len(tops) == 1 else layout.index_bytes
    return _base(out, options, wanted, index)


def _wanted(name: str, images: Sequence[LayoutImage], platform: Platform) -> LayoutImage:
    found = {i.descriptor.digest: i for i in images if i.platform == platform}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise InvalidImage(
            f"{name}: holds {len(found)} images for {platform}: set `ref` to the name of one"
        )
    there = ", ".join(sorted({str(i.platform) for i in images})) or "none"
    raise InvalidImage(f"{name}: has no image for {platform}; it has: {there:.300}")


def _copy_layer(layout: Layout, layer: Descriptor, diff_id: str, out: str) -> None:
    place = os.path.join(out, blob_path(layer.digest))
    if os.path.exists(place):
        return
    with open(place, "xb") as file:
        for piece in checked_blob(layout, layer):
            file.write(piece)
    with open(place, "rb") as file:
        if layer.media_type in model.GZIP_LAYERS:
            plain = inflate(file, f"{layout.name}: {layer.digest}")
        elif layer.media_type in model.PLAIN_LAYERS:
            plain = _pieces(file)
        else:
            return  # zstd: the standard library cannot inflate it; whoever unpacks it checks it
        _check(layout.name, _sha256(plain), diff_id)


# --- what `docker save` writes -------------------------------------------------------------------


def _from_docker(archive: TarFiles, options: _Options, out: str) -> BaseImage:
    """The image of `manifest.json`.

    Docker's image specification 1.2, "Combined Image JSON + Filesystem Changeset".
    """
    entry = _entry(archive, options.ref)
    data = _small(archive, entry["Config"])
    config = ImageConfig.parse(data, archive.name)
    platform = config.platform
    if options.platforms != (platform,):
        others = ", ".join(str(p) for p in options.platforms if p != platform)
        raise InvalidImage(f"{archive.name}: has no image for {others}; it has: {platform}")
    config.check_layers(entry["Layers"], archive.name)
    layers = tuple(
        _pack_layer(archive, path, diff_id, out)
        for path, diff_id in zip(entry["Layers"], config.diff_ids)
    )
    manifest = Manifest(model.OCI_MANIFEST, Descriptor.of(model.OCI_CONFIG, data), layers)
    document = manifest.to_json()
    descriptor = Descriptor.of(model.OCI_MANIFEST, document)
    return _base(out, options, [LayoutImage(descriptor, manifest, document, data, platform)], None)


def _entry(archive: TarFiles, ref: str | None) -> dict[str, Any]:
    try:
        entries = json.loads(_small(archive, "manifest.json"))
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise InvalidImage(f"{archive.name}: manifest.json is not as `docker save` writes it")
    found = [e for e in entries if ref is None or ref in (e.get("RepoTags") or ())]
    if len(found) == 1:
        return found[0]  # type: ignore[no-any-return]
    names = {name for e in entries for name in e.get("RepoTags") or ()}
    there = ", ".join(sorted(names))[:500] or "none"
    if not found:
        raise InvalidImage(f"{archive.name}: no image in it is named {ref}; the names: {there}")
    raise InvalidImage(
        f"{archive.name}: holds {len(found)} images: set `ref` to the name of one: {there}"
    )


def _is_entry(entry: object) -> bool:
    def is_texts(value: object) -> bool:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)

    return (
        isinstance(entry, dict)
        and isinstance(entry.get("Config"), str)
        and is_texts(entry.get("Layers"))
        and (entry.get("RepoTags") is None or is_texts(entry["RepoTags"]))
    )


def _small(archive: TarFiles, path: str) -> bytes:
    size = archive.size(path) or 0
    if size > model.MAX_DOCUMENT:
        raise InvalidImage(f"{archive.name}: {path}: {size:,} bytes are too many for a document")
    with _member(archive, path) as file:
        return file.read(size)


def _member(archive: TarFiles, path: str) -> BinaryIO:
    file = archive.open(path)
    if file is None:
        raise InvalidImage(f"{archive.name}: {path} is missing")
    return file


def _pack_layer(archive: TarFiles, path: str, diff_id: str, out: str) -> Descriptor:
    """Compress a plain layer with the pinned codec; take one that is gzip'd as it is."""
    with _member(archive, path) as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    temporary = os.path.join(out, "blobs", ".layer")
    with _member(archive, path) as file, open(temporary, "wb", buffering=0) as packed:
        if gzipped:
            digest, size = hashlib.sha256(), 0
            for piece in _pieces(file):
                size += packed.write(piece)
                digest.update(piece)
            name = digest.hexdigest()
        else:
            with GzipWriter(packed, hash_input=True) as gzip:
                for piece in _pieces(file):
                    gzip.add(piece)
                gzip.finish()
            name, size, found = gzip.sha256, gzip.size, gzip.input_sha256
    if gzipped:
        with open(temporary, "rb") as again:
            found = _sha256(inflate(again, f"{archive.name}: {path}"))
    _check(archive.name, found, diff_id)
    os.replace(temporary, os.path.join(out, "blobs", "sha256", name))
    return Descriptor(model.OCI_LAYER_GZIP, Digest(f"sha256:{name}"), size)


# --- both ----------------------------------------------------------------------------------------


def _base(
    out: str, options: _Options, images: Sequence[LayoutImage], index: bytes | None
) -> BaseImage:
    documents = [d for image in images for d in (image.manifest_bytes, image.config)]
    for document in (*documents, *([] if index is None else [index])):
        with open(os.path.join(out, blob_path(model.digest_of(document))), "wb") as file:
            file.write(document)
    return BaseImage(
        name=None,
        digest=model.digest_of(images[0].manifest_bytes if index is None else index),
        index=index,
        platforms=tuple(_with_facts(image, options.python, out) for image in images),
        python=options.python,
    )


def _with_facts(image: LayoutImage, python: str | None, out: str) -> BasePlatform:
    base, reader = BasePlatform(image.platform, image.manifest_bytes, image.config), BaseReader()
    for layer in base.layers:
        with open(os.path.join(out, blob_path(layer.digest)), "rb") as file:
            reader.add(layer, _pieces(file), layer.digest)
    return replace(base, facts=reader.facts(base, python))


def _check(name: str, sha256: str, diff_id: str) -> None:
    if f"sha256:{sha256}" != diff_id:
        raise InvalidImage(
            f"{name}: a layer inflates to sha256:{sha256}, where the config has {diff_id}"
        )


def _sha256(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(_READ), b"")
