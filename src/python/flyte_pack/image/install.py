"""Installs locked wheels into layers for an image: `python -m flyte_pack image-install`.

uv installs, hashes required, for the image's Python and platform; then what it wrote is made independent of this machine,
split and packed. Out comes a directory with `blobs/`, `layers.json` (flyte_pack.oci.parts) and `packages.json`.
"""

from __future__ import annotations

import argparse
import configparser
import csv
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from flyte_pack import command
from flyte_pack.errors import UsageError, UserError
from flyte_pack.image.dependency_layers import MAX_LAYERS, split, write_layers
from flyte_pack.image.installed import VENV, read_installed
from flyte_pack.image.lock_files import read_lock
from flyte_pack.image.packages import Package, Packages
from flyte_pack.image.resolve import format_pins
from flyte_pack.image.uv import run_uv
from flyte_pack.image.wheel_target import MANYLINUX, WheelTarget
from flyte_pack.oci.parts import Layers
from flyte_shim import shown


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    parser = command.parser("python -m flyte_pack image-install")
    parser.add_argument("--requirements", required=True, help="what `image-resolve` wrote")
    parser.add_argument("--python", required=True, help="version of the image's Python: 3.12")
    parser.add_argument("--platform", required=True, help="linux/amd64 or linux/arm64")
    parser.add_argument("--manylinux", default=MANYLINUX, help="glibc of the base: %(default)s")
    parser.add_argument("--out", required=True, help="directory to be made")
    parser.add_argument("--address", default="", help="of the image, for errors")
    parser.add_argument(
        "--bytecode-python", help="an interpreter of the image's version, to compile with"
    )
    parser.add_argument("--max-layers", type=int, default=MAX_LAYERS, help="%(default)s")
    return command.run(parser, argv, _install)


def _install(given: argparse.Namespace) -> None:
    if given.max_layers < 1:
        raise UsageError("--max-layers must be 1 or more")
    target = WheelTarget(given.python, given.platform, given.manylinux)
    with command.no_garbage():
        install(given.requirements, target, given.out, given.bytecode_python, given.max_layers)


def install(
    requirements: str,
    target: WheelTarget,
    out: str,
    bytecode_python: str | None = None,
    max_layers: int = MAX_LAYERS,
) -> Packages:
    """Install what the file `requirements` pins, and write layers of it into the new directory `out`.

    Raises `UserError`, `UserError`, `UserError` or `OSError`; `out` is then as it was.
    """
    with open(requirements, encoding="utf-8") as file:
        pins = read_lock(file.read(), target).pins
    for pin in pins.values():
        if pin.problem is not None:
            raise UserError(f"{pin} can't be installed: {pin.problem}")
    if bytecode_python is not None:
        _check_interpreter(bytecode_python, target)
    out = os.path.abspath(out)
    os.makedirs(os.path.dirname(out), exist_ok=True)
    # Beside the output, where moving is free and hard links reach what Pants keeps on one file system.
    work = os.path.realpath(tempfile.mkdtemp(prefix=".image-install-", dir=os.path.dirname(out)))
    try:
        prefix, made = os.path.join(work, "prefix"), os.path.join(work, "made")
        os.mkdir(prefix)
        os.mkdir(made)
        if pins:
            pinned = os.path.join(work, "requirements.txt")
            with open(pinned, "w", encoding="ascii") as file:
                file.write(format_pins(sorted(pins.values(), key=lambda pin: pin.name)))
            run_uv(
                ["install", "-r", pinned, "--no-deps", "--require-hashes", "--prefix", prefix],
                target,
                os.environ,
            )
            if bytecode_python is not None:
                _compile(prefix, bytecode_python, target, made)
        versions = {pin.name: pin.version for pin in pins.values()}
        try:
            distributions = read_installed(prefix, target.minor, versions)
        except (csv.Error, configparser.Error, ValueError) as error:
            reason = shown.line(str(error), longest=200)
            raise UserError(f"a wheel's metadata can't be understood: {reason}") from None
        layers = write_layers(split(distributions, max_layers), made)
        packages = Packages(
            target.minor,
            target.platform,
            tuple(Package(d.name, d.version, d.scripts) for d in distributions if d.name),
        )
        for name, content in (
            ("layers.json", Layers(tuple(layers)).to_json()),
            ("packages.json", packages.to_json()),
        ):
            with open(os.path.join(made, name), "wb") as output:
                output.write(content)
        os.rename(made, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return packages


def _check_interpreter(python: str, target: WheelTarget) -> None:
    """Raises `UserError` where it is not the image's: another one would leave bytecode that nothing reads."""
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
        # Not isolated (-I): that would ignore the hash seed, in whose order old versions write sets.
        *(python, "-s", "-S", "-B", "-X", "utf8", "-W", "ignore", program),
        *(
            os.path.join(library, here, "site-packages"),
            f"/{VENV}/lib/python{target.minor}/site-packages",
        ),
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
