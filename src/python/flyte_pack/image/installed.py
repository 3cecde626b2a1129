"""Reads what the installer wrote: whose each file is, and where it goes in the image.

Nothing may remain of the machine that installed it. The image's own interpreter starts programs,
and RECORD (PyPA, "Recording installed projects") lists what is there.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import posixpath
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import NamedTuple

from packaging.utils import canonicalize_name

from flyte_pack.errors import UserError
from flyte_pack.image.filesystem import VENV, console_script, site_packages
from flyte_pack.oci.parts import whiteout_problem
from flyte_shim import shown

# Notes of the installer about how it came by a distribution; they would differ between machines.
_LEFT_OUT = frozenset(("REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"))
_RESERVED = re.compile(r"pyvenv\.cfg|bin/python(3(\.[0-9]+)?)?|lib64(/.*)?")
_SCRIPT_NAME = re.compile(r"[\w.+-]+( [\w.+-]+)*")
_CALLABLE = re.compile(
    r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*)\s*:\s*(?P<object>[^\W\d]\w*(\.[^\W\d]\w*)*)"
)
# What the installer writes for `#!python` if the interpreter's path is too long for a shebang.
_LONG_SHEBANG = re.compile(rb"#!/bin/sh\n'''exec' (.*?) \"\$0\" \"\$@\"\n' '''\n")


_Rename = Callable[[str], str]


class Member(NamedTuple):
    """A file of a layer, with the content of the file `source`, or with `content`.

    path: in the image, without a leading "/".
    """

    path: str
    mode: int
    size: int
    source: str
    content: bytes | None = None


@dataclass(frozen=True)
class Distribution:
    """An installed distribution: its files, sorted by path."""

    name: str
    version: str
    members: tuple[Member, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()

    @property
    def size(self) -> int:
        """In bytes, as installed."""
        return sum(member.size for member in self.members)


@dataclass
class _Found:
    """A distribution whose files are being gathered. listed: rows of RECORD, by path."""

    name: str
    version: str
    info: str
    listed: dict[str, tuple[str, str]]
    members: dict[str, Member] = field(default_factory=dict)


def read_installed(
    prefix: str, python: str, versions: Mapping[str, str], interpreter: str = sys.executable
) -> list[Distribution]:
    """The distributions below `prefix`, sorted by name.

    python: the image's, `3.12`. versions: of what was installed, by normalized name. interpreter:
    the installer's. Files in no RECORD are in a last distribution, without a name. Raises
    `UserError` if two bring different files to one path, or if a file cannot be in an image.
    """
    files = dict(_walk(prefix, ""))
    site = _site_packages(files)
    if not site:
        return []
    shebangs = {os.fsencode(path) for path in (interpreter, os.path.realpath(interpreter))}
    tag = "cpython-" + python.replace(".", "")
    found = [_open(prefix, site, info, versions) for info in _infos(files, site)]
    missing = sorted(versions.keys() - {f.name for f in found})
    if missing:
        raise UserError(f"{', '.join(missing)}: nothing was installed, the wheel is damaged")
    rename = _renamer(site, python)
    owners = _owners(found, files, rename)
    for path in files:
        if problem := whiteout_problem(path):
            who = next((f"{f.name} {f.version}" for f in owners.get(path, ())), "a wheel")
            raise UserError(f"{who} brings {shown.printable(rename(path))}: it has {problem}")
    # A bytecode file belongs to whom its source does; it was not there when RECORD was written.
    for path in files:
        source = _source_of(path, tag)
        if path not in owners and source in owners:
            owners[path] = owners[source]
    for path, status in files.items():
        for owner in owners.get(path, ()):
            owner.members[path] = _member(prefix, path, status, rename, shebangs)
    distributions = [_finish(f, prefix, site, rename, python) for f in found]
    rest = sorted(
        _member(prefix, path, status, rename, shebangs)
        for path, status in files.items()
        if path not in owners and path != ".lock" and not _left_out(path)
    )
    if rest:
        distributions.append(Distribution("", "", tuple(rest)))
    return distributions


def _walk(prefix: str, path: str) -> Iterator[tuple[str, os.stat_result]]:
    # Names are UTF-8 whatever the locale says, as in wheels.
    for entry in os.scandir(os.fsencode(_at(prefix, path))):
        try:
            name = posixpath.join(path, entry.name.decode())
        except UnicodeDecodeError:
            raise UserError(
                f"a wheel has a file name that is not UTF-8: {entry.name!a:.100}"
            ) from None
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(prefix, name)
        elif entry.is_file(follow_symlinks=False):
            yield name, entry.stat(follow_symlinks=False)
        else:
            raise UserError(
                f"a wheel has a link or a device at {shown.printable(name)}: wheels have files only"
            )


def _at(prefix: str, *path: str) -> str:
    return os.fsdecode(os.path.join(os.fsencode(prefix), *(part.encode() for part in path)))


def _site_packages(files: Mapping[str, object]) -> str:
    for path in files:
        if found := re.match(r"(lib\w*/python3\.\d+/site-packages)/", path):
            return found[1]
    return ""


def _infos(files: Mapping[str, object], site: str) -> list[str]:
    pattern = re.compile(rf"{re.escape(site)}/([^/]+\.dist-info)/RECORD")
    return sorted(found[1] for found in map(pattern.fullmatch, files) if found)


def _open(prefix: str, site: str, info: str, versions: Mapping[str, str]) -> _Found:
    name = canonicalize_name(info[: -len(".dist-info")].rpartition("-")[0])
    if name not in versions:
        raise UserError(f"a wheel installs {shown.printable(info)}, which nobody asked for")
    listed: dict[str, tuple[str, str]] = {}
    with open(_at(prefix, site, info, "RECORD"), encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if len(row) >= 3:
                listed[posixpath.normpath(posixpath.join(site, row[0]))] = (row[1], row[2])
    return _Found(name, versions[name], info, listed)


def _owners(
    found: list[_Found], files: Mapping[str, object], rename: _Rename
) -> dict[str, list[_Found]]:
    owners: dict[str, list[_Found]] = {}
    for distribution in found:
        for path, (digest, _) in distribution.listed.items():
            if path not in files:
                continue
            others = owners.setdefault(path, [])
            if others and others[0].listed[path][0] != digest:
                raise UserError(
                    f"{others[0].name} {others[0].version} and {distribution.name} "
                    f"{distribution.version} both bring {shown.printable(rename(path))}, and not "
                    "the same one. Have only one of them in the image"
                )
            others.append(distribution)
    return owners


def _source_of(path: str, tag: str) -> str:
    directory, _, name = path.rpartition("/")
    ending = f".{tag}.pyc"
    if not directory.endswith("/__pycache__") or not name.endswith(ending):
        return ""
    return f"{directory[: -len('__pycache__')]}{name[: -len(ending)]}.py"


def _renamer(site: str, python: str) -> _Rename:
    """Gives where a file goes below the environment; the installer's own Python may be another."""
    moves = {
        site: f"lib/python{python}/site-packages",
        f"include/site/{site.split('/')[1]}": f"include/site/python{python}",
    }

    def rename(path: str) -> str:
        old = next((old for old in moves if path.startswith(f"{old}/")), "")
        return moves.get(old, "") + path[len(old) :]

    return rename


def _member(
    prefix: str, path: str, status: os.stat_result, rename: _Rename, shebangs: set[bytes]
) -> Member:
    place = rename(path)
    if _RESERVED.fullmatch(place):
        raise UserError(f"a wheel brings {shown.printable(place)}, which is the environment's own")
    # Whatever is there to be started can be, as pip sees to; uv does not for every kind of script.
    program = path.startswith("bin/") and path.count("/") == 1
    mode = 0o755 if program or status.st_mode & 0o111 else 0o644
    source = _at(prefix, path)
    if program and (content := _with_image_shebang(source, shebangs)) is not None:
        return Member(f"{VENV}/{place}", mode, len(content), source, content)
    return Member(f"{VENV}/{place}", mode, status.st_size, source)


def _with_image_shebang(source: str, interpreters: set[bytes]) -> bytes | None:
    """The program with the image's interpreter, if it was started by the installer's."""
    with open(source, "rb") as file:
        if file.read(2) != b"#!":
            return None
        content = b"#!" + file.read()
    ours = b"#!/%b/bin/python" % VENV.encode()
    line, newline, rest = content.partition(b"\n")
    if line[2:] in interpreters:
        return ours + newline + rest
    long = _LONG_SHEBANG.match(content)
    # A quote in the path is escaped there, so the path is not compared; nobody else writes this.
    return ours + b"\n" + content[long.end() :] if long else None


def _finish(found: _Found, prefix: str, site: str, rename: _Rename, python: str) -> Distribution:
    for name, content in dict(_entry_points(prefix, site, found)).items():
        path = f"bin/{name}"
        found.members[path] = Member(f"{VENV}/{path}", 0o755, len(content), "", content)
    record = f"{site}/{found.info}/RECORD"
    members = {path: m for path, m in found.members.items() if not _left_out(path)}
    members.pop(record, None)
    place = f"{VENV}/{rename(record)}"
    content = _record(found, members, place, site_packages(python))
    members[record] = Member(place, 0o644, len(content), "", content)
    return Distribution(found.name, found.version, tuple(sorted(members.values())))


def _entry_points(prefix: str, site: str, found: _Found) -> Iterator[tuple[str, bytes]]:
    """The programs of entry_points.txt (PyPA, "Entry points specification")."""
    for point in PathDistribution(Path(_at(prefix, site, found.info))).entry_points:
        if point.group not in ("console_scripts", "gui_scripts"):
            continue
        called = _CALLABLE.fullmatch(re.sub(r"\s*\[[^]]*\]\s*$", "", point.value).strip())
        if (
            not _SCRIPT_NAME.fullmatch(point.name)
            or not called
            or _RESERVED.fullmatch(f"bin/{point.name}")
            or whiteout_problem(point.name)
        ):
            raise UserError(
                f"{found.name} {found.version} has a program that cannot be made: "
                f"{point.name!a:.80} = {point.value!a:.80}"
            )
        yield point.name, console_script(called["module"], called["object"]).encode()


def _left_out(path: str) -> bool:
    directory, _, name = path.rpartition("/")
    return name in _LEFT_OUT and directory.endswith(".dist-info")


def _record(found: _Found, members: Mapping[str, Member], record: str, site: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = [[posixpath.relpath(record, site), "", ""]]
    for path, member in members.items():
        name = posixpath.relpath(member.path, site)
        digest, size = found.listed.get(path, ("", ""))
        if member.content is not None:
            digest, size = _sha256(member.content), str(member.size)
        elif path in found.listed and not (digest and size == str(member.size)):
            with open(member.source, "rb") as file:
                digest, size = _sha256(file.read()), str(member.size)
        # Bytecode stands there without a hash, as it is not from the wheel.
        rows.append([name, digest, size])
    writer.writerows(sorted(rows))
    return text.getvalue().encode()


def _sha256(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
