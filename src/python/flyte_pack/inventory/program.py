"""Writes the inventory of an image, and the packages of that of a bundle: `python -m flyte_pack
inventory`.
"""

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
from flyte_pack.inventory.plan import (
    ImageInventory,
    PackagesWanted,
    PlatformPart,
    RequiredPackage,
    RequiredPackages,
)
from flyte_pack.oci.model import blob_path
from flyte_shim import shown

# A bundle holds no compiled code. Its inventory names what it needs on the usual platform.
_PLATFORM = "linux/amd64"


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack inventory")
    plan = parser.add_mutually_exclusive_group(required=True)
    plan.add_argument("--packages", metavar="PLAN", help="a PackagesWanted")
    plan.add_argument("--image", metavar="PLAN", help="an ImageInventory")
    parser.add_argument("--out", required=True, help="the file to be written")
    return command.run(parser, argv, _write)


def _write(given: argparse.Namespace) -> None:
    with open(given.packages or given.image, "rb") as file:
        data = file.read()
    with command.no_garbage():
        if given.packages:
            content = required(PackagesWanted.from_json(data)).to_json()
        else:
            content = of_image(ImageInventory.from_json(data))
    with fresh_file(given.out) as path, open(path, "wb") as file:
        file.write(content)


def required(plan: PackagesWanted) -> RequiredPackages:
    """What requirements lead to by the graph of the lock, and whether that is all of it.

    Without a graph it is they alone: what they need in turn an image has, and its inventory.
    Raises `UserError` or `OSError`.
    """
    target = WheelTarget(plan.python, _PLATFORM)
    lock = Lock({}) if plan.lock is None else read_lock_file(plan.lock, target)
    roots = [root for root in map(_requirement, plan.requirements) if holds(root.marker, target)]
    if graph_tells(lock, roots):
        found = (_package(pin, _needs(pin, target)) for pin in needed(lock, roots, target))
        return RequiredPackages(tuple(found), complete=True)
    names = {canonicalize_name(root.name) for root in roots}
    pins = (lock.pins.get(name, Pin(name, "", ())) for name in sorted(names))
    return RequiredPackages(tuple(_package(pin) for pin in pins), complete=not roots)


def _package(pin: Pin, requires: tuple[str, ...] = ()) -> RequiredPackage:
    return RequiredPackage(pin.name, pin.version, tuple(pin.hashes), requires)


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
