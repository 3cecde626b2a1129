"""Writes the inventory of a bundle or image: `python -m flyte_pack inventory`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flyte_pack import command
from flyte_pack.errors import UserError
from flyte_pack.fresh import fresh_file
from flyte_pack.image.lock_files import read_lock_file
from flyte_pack.image.pins import Lock, Pin, holds
from flyte_pack.image.resolve import graph_tells, needed
from flyte_pack.image.wheel_target import GLIBC, WheelTarget
from flyte_pack.inventory import cyclonedx
from flyte_pack.inventory.layers import LayerContents, packages_in, read_layer
from flyte_pack.inventory.parts import Base, File, Package, merged
from flyte_pack.inventory.plan import BundleInventory, ImageInventory, PlatformPart
from flyte_pack.manifest import Manifest
from flyte_pack.oci.model import blob_path
from flyte_shim import shown

# A bundle holds no compiled code. Its inventory names what it needs on the usual platform.
_PLATFORM = "linux/amd64"


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack inventory")
    plan = parser.add_mutually_exclusive_group(required=True)
    plan.add_argument("--bundle", metavar="PLAN", help="a BundleInventory")
    plan.add_argument("--image", metavar="PLAN", help="an ImageInventory")
    parser.add_argument("--out", required=True, help="the file to be written")
    return command.run(parser, argv, _write)


def _write(given: argparse.Namespace) -> None:
    with open(given.bundle or given.image, "rb") as file:
        data = file.read()
    with command.no_garbage():
        if given.bundle:
            content = of_bundle(BundleInventory.from_json(data))
        else:
            content = of_image(ImageInventory.from_json(data))
    with fresh_file(given.out) as path, open(path, "wb") as file:
        file.write(content)


def of_bundle(plan: BundleInventory) -> bytes:
    """Raises `UserError` or `OSError`."""
    with open(plan.manifest, "rb") as file:
        manifest = Manifest.from_json(file.read())
    targets = dict(plan.targets)
    files = (
        File(one.path, one.sha256, None if one.owner is None else targets[one.owner])
        for one in manifest.files
    )
    packages, complete = _asked_for(plan)
    return cyclonedx.document(
        cyclonedx.bundle(plan.address, manifest.content_hash, manifest.archive_hash),
        files,
        packages,
        complete=complete,
    )


def _asked_for(plan: BundleInventory) -> tuple[list[Package], bool]:
    """What its requirements lead to by the graph of the lock, and whether that is all of it.

    Without a graph it is they alone: what they need in turn an image has, and its inventory.
    """
    target = WheelTarget(plan.python, _PLATFORM)
    lock = Lock({}) if plan.lock is None else read_lock_file(plan.lock, target)
    roots = [root for root in map(_requirement, plan.requirements) if holds(root.marker, target)]
    if graph_tells(lock, roots):
        return [
            Package("pypi", pin.name, pin.version, pin.hashes, requires=_needs(pin, target))
            for pin in needed(lock, roots, target)
        ], True
    names = {canonicalize_name(root.name) for root in roots}
    pins = (lock.pins.get(name, Pin(name, "", ())) for name in sorted(names))
    return [Package("pypi", pin.name, pin.version, pin.hashes) for pin in pins], not roots


def _requirement(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement:
        raise UserError(f"{shown.line(text, longest=120)} is not a requirement") from None


def _needs(pin: Pin, target: WheelTarget) -> tuple[str, ...]:
    needs = (one for one in pin.requires or () if holds(one.marker, target))
    return tuple(sorted({canonicalize_name(one.name) for one in needs}))


def of_image(plan: ImageInventory) -> bytes:
    """Its layers are below `blobs/`. Raises `UserError` or `OSError`."""
    code = {file.path for file in plan.files}
    digests = dict.fromkeys(digest for part in plan.platforms for digest in part.layers)
    layers = {digest: read_layer(blob_path(digest), code) for digest in digests}
    hashes = {path: sha256 for layer in layers.values() for path, sha256 in layer.hashes.items()}
    if missing := sorted(code - hashes.keys()):
        raise UserError(f"no layer has {missing[0]!a:.200}")
    return cyclonedx.document(
        cyclonedx.image(plan.address, plan.digest),
        (File(file.path, hashes[file.path], file.target) for file in plan.files),
        merged(
            {
                str(part.platform): _packages(part, [layers[digest] for digest in part.layers])
                for part in plan.platforms
            }
        ),
        [
            Base(plan.base, plan.in_registry, part.base, str(part.platform))
            for part in plan.platforms
        ],
    )


def _packages(part: PlatformPart, layers: Sequence[LayerContents]) -> list[Package]:
    target = WheelTarget(part.python, str(part.platform), part.libc or GLIBC)
    pins = {} if part.pins is None else read_lock_file(part.pins, target).pins
    found = {}
    for package in packages_in(layers, target):
        pin = pins.get(package.name) if package.kind == "pypi" else None
        if pin is not None:
            package = replace(package, hashes=pin.hashes)
        found[package.key] = package
    return list(found.values())
