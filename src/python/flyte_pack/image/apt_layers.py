"""Packs locked Debian packages into a layer: `python -m flyte_pack image-apt`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from flyte_pack import command
from flyte_pack.errors import UserError
from flyte_pack.image.apt_lock import AptLock, LockedPlatform
from flyte_pack.image.deb import DebFile
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.model import Platform
from flyte_pack.oci.parts import Layer, Layers
from flyte_pack.oci.tar_stream import DIRECTORY, HARD_LINK, SYMLINK
from flyte_shim import shown

# A file for each package: `status` itself is the base's (Google's distroless images).
_RECORDS = "var/lib/dpkg/status.d"


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack image-apt")
    parser.add_argument("--lock", required=True, help="an AptLock")
    parser.add_argument("--platform", required=True, help="one of its platforms")
    parser.add_argument("--debs", required=True, help="the directory that its packages are in")
    parser.add_argument("--out", required=True, help="where blobs/ and layers.json go")
    return command.run(parser, argv, _pack)


def _pack(given: argparse.Namespace) -> None:
    with open(given.lock, "rb") as file:
        lock = AptLock.from_json(file.read())
    locked = lock.for_platform(Platform.parse(given.platform))
    if locked is None:
        raise UserError(f"{given.platform} is not locked")
    with command.no_garbage():
        layer = pack_debs(locked, given.debs, given.out)
    Layers((layer,)).write(given.out)


def pack_debs(locked: LockedPlatform, debs: str, out: str) -> Layer:
    """Write the layer below `out`. Raises `UserError` or `OSError`."""
    owners: dict[str, str] = {}
    with LayerWriter(out) as layer:
        for deb in locked.debs:
            file = DebFile(os.path.join(debs, os.path.basename(deb.path)), str(deb))
            _add_members(layer, file, locked, owners)
            for path, target in deb.links:
                layer.add_symlink(_claimed(moved_path(path, locked.moved), file, owners), target)
            for suffix, name in (("", "control"), (".md5sums", "md5sums")):
                if content := file.control.get(name):
                    layer.add_bytes(f"{_RECORDS}/{deb.name}{suffix}", content)
        count = len(locked.debs)
        what = str(locked.debs[0]) if count == 1 else f"{count} Debian packages"
        return layer.finish(what)


def _add_members(
    layer: LayerWriter, deb: DebFile, locked: LockedPlatform, owners: dict[str, str]
) -> None:
    for name, member in deb.members():
        if not name:
            continue
        path = moved_path(name, locked.moved)
        if member.kind == DIRECTORY:
            if owners.get(path, "/") != "/":
                raise UserError(f"{deb.what}: {path!a:.200} is a file of {owners[path]}")
            owners[path] = "/"
            if name not in dict(locked.moved):
                layer.add_directory(path, member.mode)
            continue
        _claimed(path, deb, owners)
        if member.kind == SYMLINK:
            layer.add_symlink(path, os.fsdecode(member.link))
        elif member.kind == HARD_LINK:
            target = moved_path(deb.text(member.link), locked.moved)
            if owners.get(target) != deb.what:
                raise UserError(f"{deb.what}: the link {path!a:.200} leads to no file")
            layer.add_hard_link(path, target, member.mode)
        else:
            layer.add_bytes(path, b"".join(member.content()), member.mode)


def _claimed(path: str, deb: DebFile, owners: dict[str, str]) -> str:
    """owners: the package of each file, or `/` of a directory."""
    if (owner := owners.setdefault(path, deb.what)) != deb.what:
        raise UserError(f"{deb.what}: {shown.line(path)} is there already, from {owner}")
    return path


def moved_path(path: str, moved: Sequence[tuple[str, str]]) -> str:
    """Where `path` is in the base. Only the directories above it, or itself as one, are links."""
    for source, target in sorted(moved, reverse=True):
        if f"{path}/".startswith(f"{source}/"):
            return target + path[len(source) :]
    return path
