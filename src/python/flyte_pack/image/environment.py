"""What the image's virtual environment stands on, by what is known of its base."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from flyte_pack.image.base import BasePlatform
from flyte_pack.image.filesystem import MUSL, VENV, python_version
from flyte_pack.oci.model import InvalidImage

# The layers that an image of docker's may have (moby, `layer/layer_store.go`, `maxLayerDepth`).
_MAX_LAYERS = 125
# Of packages (docs/image-dependencies.md, "The split").
PACKAGE_LAYERS = 40


@dataclass(frozen=True)
class Environment:
    """For one platform.

    interpreter: absolute path of the base's Python. version: `3.12.4`, or `3.12` if no more is
    known. libc: for `WheelTarget`; None if it is not known. after: directories whose modules can be
    imported where no package of ours has them; packages: those that may have `.pth` files. Others:
    as in `BaseFacts`; has_flyte: None if it is not known. notes: for a person, what of the base is
    not as it was.
    """

    interpreter: str
    version: str
    libc: str | None = None
    after: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    occupied: bool = False
    user_packages: bool = False
    closed: str | None = None
    has_flyte: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def minor(self) -> str:
        """`3.12`"""
        return ".".join(self.version.split(".")[:2])


def environment_of(base: BasePlatform, python: str | None, glibc: str | None) -> Environment:
    """python: as the target or the base's lock file names it. glibc: as the target says.

    Raises `InvalidImage` where that cannot work; the message says what to set.
    """
    facts = base.facts
    interpreter = (facts and facts.python) or python
    version = (facts and facts.version) or (interpreter and python_version(interpreter))
    if not interpreter or not version:
        said = f", not {interpreter!r}" if interpreter else ""
        raise InvalidImage(
            "which Python the image has is not known: set `python` to its absolute path with the "
            f'version, such as "/usr/bin/python3.11"{said}'
        )
    if interpreter.startswith(f"/{VENV}/"):
        raise InvalidImage(
            f"its Python, {interpreter}, is in /{VENV}, where the packages of a lock file go: take "
            "a base whose Python is elsewhere; a virtual environment there does no harm"
        )
    config = base.parsed_config.env
    after = _searched(config.get("PYTHONPATH", ""))
    notes = [
        f"the base's {name}={config[name]!a:.200} is left out"
        for name in ("PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONUSERBASE", "PYTHONSAFEPATH")
        if config.get(name)
    ]
    if after:
        notes.append(f"the base's PYTHONPATH comes after the packages: {':'.join(after)[:200]}")
    if facts is None:
        return Environment(interpreter, version, glibc, after, notes=tuple(notes))
    if facts.occupied:
        notes.append(f"what the base has in /{VENV} is left out: the locked packages are there")
    if facts.user_packages:
        notes.append("the base's packages in users' homes are left out")
    return Environment(
        interpreter,
        version,
        _libc(glibc, facts.glibc, facts.musl),
        after,
        facts.packages,
        facts.occupied,
        facts.user_packages,
        facts.closed,
        facts.has_flyte,
        tuple(notes),
    )


def _searched(python_path: str) -> tuple[str, ...]:
    """The directories of PYTHONPATH that are the same wherever a program starts."""
    parts = [os.path.normpath(part) for part in python_path.split(":") if part.startswith("/")]
    return tuple(dict.fromkeys(part for part in parts if part.isprintable()))


def _libc(said: str | None, found: str | None, musl: bool) -> str | None:
    """For `WheelTarget`."""
    if musl and found is None:
        if said is None:
            return MUSL
        raise InvalidImage(
            f"`glibc` is {said}, and the C library of the image is musl (/lib/ld-musl-...): leave "
            "`glibc` out, and wheels for musl are taken"
        )
    if musl and said is None:
        raise InvalidImage(
            f"the image has musl (/etc/alpine-release, /lib/ld-musl-...) and glibc {found}: which "
            f'wheels its Python can load is not clear. Set `glibc="{found}"` if it is one of glibc'
        )
    if said is not None and found is not None and _number(said) > _number(found):
        raise InvalidImage(
            f"`glibc` is {said}, and the image has {found} (libc.so.6): leave `glibc` out"
        )
    return said or found


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall("[0-9]+", version)))


def private_directory(environment: Environment, user: str) -> str | None:
    """The directory that keeps the image's `user` (`1000:1000`) from the interpreter, if any."""
    directory, _, owner = (environment.closed or "").rpartition(":")
    number = user.partition(":")[0]
    return directory if directory and number not in ("0", owner) else None


def room_for_packages(base: BasePlatform, others: int) -> int:
    """How many layers of packages an image may have. others: how many it has beside them.

    Raises `InvalidImage` if even these are too many.
    """
    has = len(base.layers)
    room = _MAX_LAYERS - has - others
    if room < 0:
        raise InvalidImage(
            f"it has {has} layers, and container engines take {_MAX_LAYERS} in all: {others} more "
            "are too many. Take a base of fewer layers, such as one that is squashed"
        )
    return min(room, PACKAGE_LAYERS)
