"""Finds the CPython that compiles an image's modules: `python -m flyte_pack image-compiler`.

Bytecode is that of one release: two releases of a minor version read each other's, and write line
tables, sometimes code, of their own (docs/image-dependencies.md, "Bytecode").
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from flyte_pack import children, command
from flyte_pack.errors import UserError
from flyte_pack.image.running import quietly
from flyte_pack.json_fields import Document
from flyte_shim import shown

_SECONDS = 10
_FULL = re.compile(r"3\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?")
# A build without a global lock says so: it is another kind of CPython.
_ASK = """
import sys
v = sys.version_info
kind = "" if v.releaselevel == "final" else v.releaselevel[0].replace("c", "rc") + str(v.serial)
free = "t" if "t" in sys.abiflags else ""
print(sys.implementation.name, "%d.%d.%d" % v[:3] + kind + free)
"""


@dataclass(frozen=True)
class Compiler:
    """release: as 3.12.4. python: its path."""

    release: str
    python: str

    def __str__(self) -> str:
        """As an argument, which `given` reads."""
        return f"{self.release}={self.python}"

    @property
    def note(self) -> str:
        """On what it has compiled, for a person who compares two images."""
        return f", compiled by CPython {self.release}"

    @classmethod
    def given(cls, argument: str, minor: str | None = None) -> Compiler:
        """Raises `UserError` unless it works and is of this release, and of the minor version."""
        release, _, python = argument.partition("=")
        found = release_of(python)
        if found is None or found != release or (minor and minor_of(release) != minor):
            what = "no CPython that works" if found is None else f"CPython {found}"
            raise UserError(
                f"bytecode for CPython {minor or release} must be compiled by CPython {release}, "
                f"and {shown.line(python)} is {what}"
            )
        return cls(release, python)

    def compile(
        self,
        modules: Iterable[tuple[str, str]],
        checked: bool = False,
        cache: str | None = None,
    ) -> Iterator[bytes]:
        """The bytecode of each, or nothing if it does not compile.

        modules: the source's file, and where that lies in the image. checked: whether Python is to
        see if the source is still the same. cache: a directory that keeps what was compiled. Raises
        `UserError`.
        """
        rows = list(modules)
        asked = {"checked": checked, "cache": cache, "modules": rows}
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compile_modules.py")
        with tempfile.TemporaryFile() as made:
            done = children.run(
                # Not isolated (-I), as that ignores the seed: old versions write sets in its order.
                [self.python, "-s", "-S", "-B", "-X", "utf8", "-W", "ignore", program],
                env={"PYTHONHASHSEED": "0", "PATH": os.defpath},
                input=json.dumps(asked).encode(),
                stdout=made,
            )
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip()
                reason = (said.splitlines() or ["no reason given"])[-1]
                raise UserError(
                    f"compiling bytecode with {shown.line(self.python)} failed: "
                    f"{shown.line(reason)}"
                )
            made.seek(0)
            for _ in rows:
                yield made.read(int.from_bytes(made.read(8), "little"))


def compiled_path(path: str, minor: str) -> str:
    """Where CPython `minor` looks for the bytecode of the module at `path` (PEP 3147)."""
    directory, slash, name = path.rpartition("/")
    return f"{directory}{slash}__pycache__/{name[:-3]}.cpython-{minor.replace('.', '')}.pyc"


@dataclass(frozen=True)
class Found(Document):
    """`compiler.json`: what this machine has."""

    NAME = "compiler.json"

    compiler: Optional[Compiler] = None


def main(argv: Sequence[str]) -> int:
    parser = command.parser("python -m flyte_pack image-compiler")
    parser.add_argument("--python", required=True, help="version of the image's Python: 3.12.4")
    parser.add_argument(
        "--any-release", action="store_true", help="take another release of the minor version too"
    )
    parser.add_argument("--out", required=True, help="directory to be made")
    parser.add_argument(
        "--search-path", default="", help="directories and interpreters, as PATH has them"
    )
    return command.run(parser, argv, _find)


def add_compiler(parser: argparse.ArgumentParser) -> None:
    """The options of a program that compiles."""
    parser.add_argument("--compiler", help="RELEASE=PYTHON, of `image-compiler`: compile with it")
    parser.add_argument("--bytecode-cache", help="a directory for what was compiled before")


def _find(given: argparse.Namespace) -> None:
    found = Found(find(given.search_path.split(os.pathsep), given.python, given.any_release))
    os.makedirs(given.out)
    with open(os.path.join(given.out, Found.NAME), "wb") as file:
        file.write(found.to_json())


def find(places: Iterable[str], version: str, any_release: bool = False) -> Compiler | None:
    """The first CPython `version` in these places.

    any_release: else the newest final release of the minor version.
    """
    minor = minor_of(version)
    others = []
    for python in _candidates(places, minor):
        release = release_of(python)
        if release == version:
            return Compiler(release, python)
        # Those before the first final release may have another magic number.
        if release is not None and re.fullmatch(rf"{re.escape(minor)}\.[0-9]+", release):
            others.append(Compiler(release, python))
    if any_release and others:
        return max(others, key=lambda other: int(other.release.rpartition(".")[2]))
    return None


def minor_of(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _candidates(places: Iterable[str], minor: str) -> Iterator[str]:
    seen = set()
    for place in places:
        python = os.path.join(place, f"python{minor}") if os.path.isdir(place) else place
        real = os.path.realpath(python)
        if os.access(real, os.X_OK) and not os.path.isdir(real) and real not in seen:
            seen.add(real)
            yield python


def release_of(python: str) -> str | None:
    """As 3.12.4, of a CPython that works."""
    try:
        done = quietly([python, "-I", "-S", "-B", "-c", _ASK], _SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    name, _, release = done.stdout.strip().partition(" ")
    return release if name == "cpython" and _FULL.fullmatch(release) else None
