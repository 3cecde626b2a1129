"""Unpacks the code that a deployment ships, from the archive or image itself."""

from __future__ import annotations

import os

from flyte_pack.errors import UserError
from flyte_pack.oci.inflate import inflate_pieces
from flyte_pack.oci.layout import checked_blob, open_layout
from flyte_pack.oci.model import InvalidImage
from flyte_pack.oci.tar_stream import REGULAR, TarStream
from flyte_shim.errors import ArchiveError
from flyte_shim.extract import Limits, extract
from flyte_shim.hashing import sha256_file
from flyte_shim.paths import path_problem

_MAX_FILES = 2_000_000  # of an image's code, and directories


def unpack_archive(archive: str, sha256: str, directory: str, limits: Limits | None = None) -> None:
    """Unpack a bundle into the new `directory`. Raises `UserError` unless it has that hash."""
    try:
        if sha256_file(archive) != sha256:
            raise UserError(f"{archive} is not the bundle {sha256}: package it again")
        extract(archive, directory, limits or Limits(), mtime=1_000_000_000)
    except ArchiveError as error:
        raise UserError(f"the bundle {sha256} cannot be unpacked: {error}") from None


def unpack_embedded(layout_directory: str, workdir: str, directory: str) -> None:
    """Unpack what an image holds below its working directory into the new `directory`.

    Missing layers are those of its base, which hold no code. Raises `InvalidImage` or `OSError`.
    """
    os.mkdir(directory)
    layout = open_layout(layout_directory)
    # The code is the same on every platform.
    image = next(layout.images(layout.top()), None)
    if image is None:
        raise InvalidImage(f"{layout.name}: holds no image")
    absent = set(layout.missing(image.manifest.layers))
    prefix = workdir.strip("/") + "/"
    files, directories = 0, {""}
    for layer in image.manifest.layers:
        if layer in absent:
            continue
        what = f"{layout.name}: {layer.digest}"
        for member in TarStream(inflate_pieces(checked_blob(layout, layer), what), what):
            name = os.fsdecode(member.name).lstrip("./")
            if member.kind != REGULAR or not name.startswith(prefix):
                continue
            path = name[len(prefix) :]
            problem = path_problem(path)
            if problem:
                raise InvalidImage(f"{what}: holds {problem}: {path!a:.200}")
            target = os.path.join(directory, path)
            above = path.rpartition("/")[0]
            files += 1
            if above not in directories:
                files += above.count("/") + 1
                directories.add(above)
            if files > _MAX_FILES:
                raise InvalidImage(f"{what}: holds more than {_MAX_FILES:,} files of code")
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                for piece in member.content():
                    file.write(piece)
