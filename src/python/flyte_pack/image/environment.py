"""What the image's virtual environment stands on, by what is known of its base."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from flyte_pack.image.base import BaseDistribution, BasePlatform
from flyte_pack.image.filesystem import (
    LOCKED_PATHS,
    MUSL,
    SHIM,
    VENV,
    site_packages,
    version_in,
)
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
    as in `BaseFacts`; has_flyte: None if it is not known. keeps: whether the base's packages in our
    place stay. notes: for a person, what of the base is not as it was.
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
    keeps: bool = False
    distributions: tuple[BaseDistribution, ...] = ()
    isolated: bool = False

    @property
    def minor(self) -> str:
        """`3.12`"""
        return ".".join(self.version.split(".")[:2])


def environment_of(
    base: BasePlatform, python: str | None, glibc: str | None, python_version: str | None = None
) -> Environment:
    """python: as the target or the base's lock file names it. glibc, python_version: as the target
    says.

    Raises `InvalidImage` where that cannot work; the message says what to set.
    """
    facts = base.facts
    interpreter = (facts and facts.python) or python
    version = interpreter and _version(base, interpreter, python_version)
    if not interpreter or not version:
        said = f", not {interpreter!r}" if interpreter else ""
        raise InvalidImage(
            "which Python the image has is not known: set `python` to its absolute path with the "
            f'version, such as "/usr/bin/python3.11"{said}'
        )
    if interpreter.startswith(f"/{VENV}/"):
        raise InvalidImage(
            f"its Python, {interpreter}, is in /{VENV}, where the packages of a lock file go: take "
            "a base whose Python is elsewhere. Of a virtual environment there, name the one "
            "below it (`home` in its pyvenv.cfg), or lock the base anew, which finds that"
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
    own_place = f"/{site_packages('.'.join(version.split('.')[:2]))}"
    keeps = facts.occupied and own_place in facts.packages
    if facts.occupied and not keeps:
        notes.append(f"what the base has in /{VENV} is left out: the locked packages are there")
    if facts.user_packages:
        notes.append("the base's packages in users' homes are left out")
    return Environment(
        interpreter,
        version,
        _libc(glibc, facts.glibc, facts.musl),
        after,
        tuple(place for place in facts.packages if place != own_place),
        facts.occupied,
        facts.user_packages,
        facts.closed,
        facts.has_flyte,
        tuple(notes),
        keeps,
        facts.distributions or (),
        bool(facts.isolated),
    )


@dataclass(frozen=True)
class LeftOut:
    """What of a base a layer below ours hides. paths: from the image's root. texts: files for what
    stays there, by path. what: for the image's history; empty if there is nothing to hide.
    """

    paths: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    what: str = ""


def beside(environment: Environment, locked: Collection[str]) -> tuple[Environment, LeftOut]:
    """The environment with packages of these names (normalized), and what of the base gives way.

    No distribution is importable twice. What a locked one replaces in a virtual environment of the
    base is hidden; if its files are not known, that environment is left out as a whole. The base's
    programs in an environment elsewhere find the locked one by a `.pth` file.
    """
    notes = list(environment.notes)
    replaced = [d for d in environment.distributions if d.name in locked or d.name == SHIM]
    dropped: set[str] = set()
    for distribution in replaced:
        if distribution.paths is None and distribution.place not in dropped:
            ours = _is_ours(distribution.place)
            dropped |= {d.place for d in environment.distributions if ours and _is_ours(d.place)}
            dropped.add(distribution.place)
            notes.append(
                f"what the base has in {f'/{VENV}' if ours else distribution.place} is left out: "
                f"the lock file has {distribution.name}, and which files are of the base's "
                f"{_name(distribution)} is not known, as it has no RECORD"
            )
    hidden: set[str] = set()
    texts: dict[str, str] = {}
    gone = [d for d in replaced if d.place not in dropped and d.paths]
    for distribution in gone:
        hidden.update(distribution.paths or ())
        if not _is_ours(distribution.place):
            text = f"/{site_packages(environment.minor)}\n"
            texts[f"{distribution.place[1:]}/{LOCKED_PATHS}"] = text
    packages = tuple(place for place in environment.packages if place not in dropped)
    keeps = environment.keeps and not any(map(_is_ours, dropped))
    stay = [f"/{VENV}"] * keeps + [place for place in packages if not _is_ours(place)]
    names = ", ".join(sorted({_name(d) for d in gone if d.name != SHIM}))
    if stay:
        notes.append(
            f"the base's packages in {' and '.join(stay)} stay importable, after the locked ones"
            f"{f', which replace {names:.200}' if names else ''}"
        )
    what = f"without {len(gone)} of the base's packages" if hidden else ""
    if environment.occupied and not keeps:
        hidden = {path for path in hidden if not _is_ours(f"/{path}")} | {VENV}
        what = f"without the base's /{VENV}"
    lost = any(d.name == "flyte" and d.place in dropped for d in environment.distributions)
    has_flyte = False if lost else environment.has_flyte
    return (
        replace(environment, packages=packages, notes=tuple(notes), has_flyte=has_flyte),
        LeftOut(tuple(sorted(hidden)), tuple(sorted(texts.items())), what),
    )


def _is_ours(path: str) -> bool:
    return path.startswith(f"/{VENV}/")


def _name(distribution: BaseDistribution) -> str:
    return f"{distribution.name} {distribution.version}".rstrip()


def _version(base: BasePlatform, interpreter: str, said: str | None) -> str | None:
    """In full, if that is found or said; else `3.12`."""
    found = (base.facts and base.facts.version) or version_in(interpreter)
    if (found is None or found.count(".") < 2) and interpreter == base.official_python:
        found = base.official_version or found
    if said is None:
        return found
    if found is not None and not f"{said}.".startswith(f"{found}."):
        raise InvalidImage(
            f"`python_version` is {said}, and its Python, {interpreter}, is {found}: leave it out"
        )
    return said


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
