"""Installs locked wheels into layers for an image: `python -m flyte_pack image-install`.

uv installs them for the image's Python and platform, and requires hashes. Then what it wrote is
made independent of this machine, split and packed. The output is a directory with `blobs/` and
`layers.json` (flyte_pack.oci.parts).
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import csv
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from flyte_pack import command
from flyte_pack.errors import UserError
from flyte_pack.image.compiler import Compiler, add_compiler, compiled_path
from flyte_pack.image.dependency_layers import split, write_layers
from flyte_pack.image.environment import PACKAGE_LAYERS
from flyte_pack.image.filesystem import site_packages
from flyte_pack.image.installed import (
    INSTALLED_SITE,
    Contested,
    Distribution,
    prepare,
    read_installed,
    settle,
    tidy,
)
from flyte_pack.image.lock_files import read_lock_file
from flyte_pack.image.pins import Pin
from flyte_pack.image.resolve import format_pins
from flyte_pack.image.uv import FileInTheWay, add_indexes, run_uv, take_indexes
from flyte_pack.image.wheel_target import GLIBC, WheelTarget
from flyte_pack.oci.parts import Layers
from flyte_shim import shown

_MAX_WARNINGS = 20


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
    add_compiler(parser)
    add_indexes(parser)
    return command.run(parser, argv, _install)


def _install(given: argparse.Namespace) -> None:
    take_indexes(given.indexes)
    target = WheelTarget(given.python, given.platform, given.libc)
    with command.no_garbage():
        install(
            given.requirements,
            target,
            given.out,
            given.compiler,
            given.bytecode_cache,
            given.max_layers,
        )


def install(
    requirements: str,
    target: WheelTarget,
    out: str,
    compiler: str | None = None,
    bytecode_cache: str | None = None,
    max_layers: int = PACKAGE_LAYERS,
) -> None:
    """Install what the file `requirements` pins; write the layers into the new directory `out`.

    Raises `UserError` or `OSError`; then `out` is as it was.
    """
    pins = _installable(requirements, target)
    by = None if compiler is None else Compiler.given(compiler, target.minor)
    parent = os.path.dirname(os.path.abspath(out))
    os.makedirs(parent, exist_ok=True)
    # Beside the output: there moving is free, and hard links reach Pants' own files.
    with tempfile.TemporaryDirectory(prefix=".image-install-", dir=parent) as directory:
        work = os.path.realpath(directory)
        made = os.path.join(work, "made")
        os.mkdir(made)

        def compile_below(site: str) -> bool:
            if by is not None:
                _compile(by, site, target.minor, bytecode_cache)
            return by is not None

        distributions = _installed(work, pins, target, compile_below)
        groups = split(distributions, max_layers)
        if by is not None:
            groups = [replace(group, what=f"{group.what}{by.note}") for group in groups]
        layers = Layers(tuple(write_layers(groups, made)))
        layers.write(made)
        os.rename(made, out)


def _compile(compiler: Compiler, site: str, minor: str, cache: str | None) -> None:
    """Compile the modules below `site`, except tests."""
    modules = list(_modules(site, minor))
    for (source, _), compiled in zip(modules, compiler.compile(modules, cache=cache)):
        if compiled:
            path = compiled_path(source, minor)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # Not into a file that is there: it may be a link to the installer's cache.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            with open(path, "xb") as file:
                file.write(compiled)


def _modules(site: str, minor: str) -> Iterator[tuple[str, str]]:
    """As `Compiler.compile` takes them."""
    for directory, names, files in os.walk(site):
        names[:] = [name for name in names if name not in ("test", "tests", "__pycache__")]
        place = f"/{site_packages(minor)}{directory[len(site) :]}"
        for name in files:
            if name.endswith(".py"):
                source = os.path.join(directory, name)
                yield source, f"{place}/{name}"


def _installable(requirements: str, target: WheelTarget) -> list[Pin]:
    lock = read_lock_file(requirements, target)
    pins = sorted(lock.pins.values(), key=lambda pin: pin.name)
    for pin in pins:
        if pin.problem is not None:
            raise UserError(f"{pin} cannot be installed: {pin.problem}")
    return pins


def _installed(
    work: str, pins: Sequence[Pin], target: WheelTarget, compile_below: Callable[[str], object]
) -> list[Distribution]:
    """Install all into a prefix below `work`.

    compile_below: is given site-packages, once all that is there is final.
    """
    if not pins:
        return []
    versions = {pin.name: pin.version for pin in pins}
    prefix = os.path.join(work, "prefix")
    winners: dict[str, str] = {}
    try:
        _install_into(prefix, pins, target)
        found = _read(prefix, versions, target)
    except FileInTheWay:
        if len(pins) > 1:
            _settle(work, None, pins, target)  # it says of which two
        raise
    except Contested as contested:
        winners = _settle(work, prefix, [p for p in pins if p.name in contested.names], target)
        found = _read(prefix, versions, target, winners)
    if compile_below(os.path.join(prefix, INSTALLED_SITE)):
        found = _read(prefix, versions, target, winners)
    return found


def _install_into(prefix: str, pins: Sequence[Pin], target: WheelTarget) -> None:
    prepare(prefix, target.minor)
    requirements = f"{prefix}.txt"
    with open(requirements, "w", encoding="ascii") as file:
        file.write(format_pins(pins))
    options = ["--no-deps", "--require-hashes", "--prefix", prefix]
    run_uv(["install", "-r", requirements, *options], target, os.environ, hide=prefix)
    tidy(prefix, target.minor)


def _settle(
    work: str, prefix: str | None, pins: Sequence[Pin], target: WheelTarget
) -> dict[str, str]:
    alone = {pin.name: os.path.join(work, f"alone-{i}") for i, pin in enumerate(pins)}
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        list(executor.map(lambda pin: _install_into(alone[pin.name], [pin], target), pins))
    versions = {pin.name: pin.version for pin in pins}
    winners, warnings = settle(prefix, alone, versions, target.minor)
    for warning in warnings[:_MAX_WARNINGS]:
        command.warn(warning)
    if len(warnings) > _MAX_WARNINGS:
        command.warn(f"and {len(warnings) - _MAX_WARNINGS} more files of this kind")
    return winners


def _read(
    prefix: str,
    versions: Mapping[str, str],
    target: WheelTarget,
    winners: Mapping[str, str] | None = None,
) -> list[Distribution]:
    try:
        return read_installed(prefix, target.minor, versions, winners=winners)
    except (csv.Error, configparser.Error, ValueError) as error:
        reason = shown.line(str(error), longest=200)
        raise UserError(f"a wheel's metadata cannot be understood: {reason}") from None
