"""Installs locked wheels into layers for an image: `python -m flyte_pack image-install`.

uv installs them for the image's Python and platform, and requires hashes. Then what it wrote is
made independent of this machine, split and packed. The output is a directory with `blobs/` and
`layers.json` (flyte_pack.oci.parts).
"""

from __future__ import annotations

import argparse
import configparser
import csv
import os
import subprocess
import tempfile
from collections.abc import Sequence

from flyte_pack import command
from flyte_pack.errors import UserError
from flyte_pack.image.dependency_layers import split, write_layers
from flyte_pack.image.environment import PACKAGE_LAYERS
from flyte_pack.image.filesystem import site_packages
from flyte_pack.image.installed import Distribution, read_installed
from flyte_pack.image.lock_files import Pin, read_lock
from flyte_pack.image.resolve import format_pins
from flyte_pack.image.uv import add_indexes, run_uv, take_indexes
from flyte_pack.image.wheel_target import GLIBC, WheelTarget
from flyte_pack.oci.parts import Layers
from flyte_shim import shown


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack image-install")
    parser.add_argument("--requirements", required=True, help="what `image-resolve` wrote")
    parser.add_argument("--python", required=True, help="version of the image's Python: 3.12.4")
    parser.add_argument("--platform", required=True, help="linux/amd64 or linux/arm64")
    parser.add_argument("--libc", default=GLIBC, help="of the base: musl, or glibc's: %(default)s")
    parser.add_argument("--out", required=True, help="directory to be made")
    parser.add_argument(
        "--max-layers", type=int, default=PACKAGE_LAYERS, help="default: %(default)s"
    )
    parser.add_argument(
        "--bytecode-python", help="an interpreter of the image's version, to compile with"
    )
    add_indexes(parser)
    return command.run(parser, argv, _install)


def _install(given: argparse.Namespace) -> None:
    take_indexes(given.indexes)
    target = WheelTarget(given.python, given.platform, given.libc)
    with command.no_garbage():
        install(given.requirements, target, given.out, given.bytecode_python, given.max_layers)


def install(
    requirements: str,
    target: WheelTarget,
    out: str,
    bytecode_python: str | None = None,
    max_layers: int = PACKAGE_LAYERS,
) -> None:
    """Install what the file `requirements` pins; write the layers into the new directory `out`.

    Raises `UserError` or `OSError`; then `out` is as it was.
    """
    pins = _installable(requirements, target)
    if bytecode_python is not None:
        _check_interpreter(bytecode_python, target)
    parent = os.path.dirname(os.path.abspath(out))
    os.makedirs(parent, exist_ok=True)
    # Beside the output: there moving is free, and hard links reach Pants' own files.
    with tempfile.TemporaryDirectory(prefix=".image-install-", dir=parent) as directory:
        work = os.path.realpath(directory)
        prefix, made = os.path.join(work, "prefix"), os.path.join(work, "made")
        os.mkdir(prefix)
        os.mkdir(made)
        if pins:
            pinned = os.path.join(work, "requirements.txt")
            with open(pinned, "w", encoding="ascii") as file:
                file.write(format_pins(pins))
            options = ["--no-deps", "--require-hashes", "--prefix", prefix]
            run_uv(["install", "-r", pinned, *options], target, os.environ)
            if bytecode_python is not None:
                _compile(prefix, bytecode_python, target, made)
        groups = split(_distributions(prefix, pins, target), max_layers)
        layers = Layers(tuple(write_layers(groups, made)))
        layers.write(made)
        os.rename(made, out)


def _installable(requirements: str, target: WheelTarget) -> list[Pin]:
    with open(requirements, encoding="utf-8") as file:
        pins = sorted(read_lock(file.read(), target).pins.values(), key=lambda pin: pin.name)
    for pin in pins:
        if pin.problem is not None:
            raise UserError(f"{pin} cannot be installed: {pin.problem}")
    return pins


def _distributions(prefix: str, pins: Sequence[Pin], target: WheelTarget) -> list[Distribution]:
    versions = {pin.name: pin.version for pin in pins}
    try:
        return read_installed(prefix, target.minor, versions)
    except (csv.Error, configparser.Error, ValueError) as error:
        reason = shown.line(str(error), longest=200)
        raise UserError(f"a wheel's metadata cannot be understood: {reason}") from None


def _check_interpreter(python: str, target: WheelTarget) -> None:
    """Raises `UserError` for another version than the image's, which cannot read the bytecode."""
    asked = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-I", "-c", asked], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{python}, to compile bytecode with: {error.strerror}") from None
    if done.stdout.split() != ["cpython", target.minor]:
        raise UserError(
            f"bytecode for CPython {target.minor} must be compiled by one, and {python} is "
            f"{shown.line(done.stdout.strip()) or 'no working interpreter'}"
        )


def _compile(prefix: str, python: str, target: WheelTarget, empty: str) -> None:
    """Compile the modules in place; `empty`: a directory to work in."""
    library = os.path.join(prefix, "lib")
    (here,) = os.listdir(library)
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compile_modules.py")
    command = [
        # Not isolated (-I), which ignores the hash seed. Old versions write sets in its order.
        *(python, "-s", "-S", "-B", "-X", "utf8", "-W", "ignore", program),
        *(os.path.join(library, here, "site-packages"), f"/{site_packages(target.minor)}"),
    ]
    done = subprocess.run(
        command,
        cwd=empty,
        env={"PYTHONHASHSEED": "0", "PATH": os.defpath},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"compiling bytecode with {python} failed: {shown.line(reason)}")
