"""Reads what the installer wrote: whose each file is, and where it goes in the image.

Nothing may remain of the machine that installed it. The image's own interpreter starts programs,
and RECORD (PyPA, "Recording installed projects") lists what is there.
"""

from __future__ import annotations

import base64
import csv
import filecmp
import hashlib
import io
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
# Where the installer, which runs on this Python, puts packages below a prefix.
INSTALLED_SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
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


class Contested(Exception):
    """Distributions may have overwritten each other's files: `settle` that, and read again.

    A file that two list must be the one that both list. Who brought a file that none lists is not
    known: then it may have been any of them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(names)
        self.names = sorted(names)


@dataclass
class _Found:
    """A distribution whose files are being gathered. listed: rows of RECORD, by path."""

    name: str
    version: str
    info: str
    listed: dict[str, tuple[str, str]]
    members: dict[str, Member] = field(default_factory=dict)


def read_installed(
    prefix: str,
    python: str,
    versions: Mapping[str, str],
    interpreter: str = sys.executable,
    winners: Mapping[str, str] | None = None,
) -> list[Distribution]:
    """The distributions below `prefix`, sorted by name.

    python: the image's, `3.12`. versions: of what was installed, by normalized name. interpreter:
    the installer's. winners: what `settle` gave. Files in no RECORD are in a last distribution,
    without a name. Raises `Contested` without `winners`, and `UserError` if a file cannot be in an
    image.
    """
    files = dict(walk(prefix))
    site = _site_packages(files, versions)
    if not site:
        return []
    shebangs = {os.fsencode(path) for path in (interpreter, os.path.realpath(interpreter))}
    tag = "cpython-" + python.replace(".", "")
    found = [_open(prefix, site, info, versions, python) for info in _infos(files, site)]
    missing = sorted(versions.keys() - {f.name for f in found})
    if missing:
        raise UserError(f"{', '.join(missing)}: nothing was installed, the wheel is damaged")
    rename = _renamer(site, python)
    owners = _owners(found, files, winners or {})
    for path in files:
        if problem := whiteout_problem(path):
            who = next((f"{f.name} {f.version}" for f in owners.get(path, ())), "a wheel")
            raise UserError(f"{who} brings {shown.printable(rename(path))}: it has {problem}")
    # A bytecode file belongs to whom its source does; it was not there when RECORD was written.
    for path in files:
        source = _source_of(path, tag)
        if path not in owners and source in owners:
            owners[path] = owners[source]
    nobodys = [
        path for path in files if path not in owners and path != ".lock" and not _left_out(path)
    ]
    if winners is None and len(found) > 1:
        _check_contested(prefix, owners, nobodys, versions)
    for path, status in files.items():
        for owner in owners.get(path, ()):
            owner.members[path] = _member(prefix, path, status, rename, shebangs)
    for distribution in found:
        _add_programs(distribution, prefix, site, winners or {})
    lost = {path: owners[path][0].members[path] for path in winners or () if path in files}
    distributions = [_finish(f, prefix, site, rename, python, lost) for f in found]
    rest = sorted(_member(prefix, path, files[path], rename, shebangs) for path in nobodys)
    if rest:
        distributions.append(Distribution("", "", tuple(rest)))
    return distributions


def prepare(prefix: str, python: str) -> None:
    """Make the new directory `prefix`, which has the installer put files where a venv gets them.

    A venv has `lib64`, a link to `lib`, and some wheels have files for its site-packages among
    their data. `tidy` removes the links.
    """
    os.makedirs(os.path.join(prefix, INSTALLED_SITE))
    os.symlink("lib", os.path.join(prefix, "lib64"))
    image = os.path.join(prefix, f"lib/python{python}")
    if not os.path.exists(image):
        os.mkdir(image)
        os.symlink(f"../../{INSTALLED_SITE}", os.path.join(image, "site-packages"))


def tidy(prefix: str, python: str) -> None:
    """Remove the links that `prepare` made, unless a wheel has replaced them."""
    for path in ("lib64", f"lib/python{python}/site-packages"):
        if os.path.islink(os.path.join(prefix, path)):
            os.unlink(os.path.join(prefix, path))


def _check_contested(
    prefix: str,
    owners: Mapping[str, list[_Found]],
    nobodys: Sequence[str],
    versions: Mapping[str, str],
) -> None:
    if nobodys:  # whoever brought them
        raise Contested(versions)
    names = {
        owner.name
        for path, those in owners.items()
        if len(those) > 1
        and {owner.listed.get(path, ("",))[0] for owner in those}
        != {_sha256(_content(_at(prefix, path)))}
        for owner in those
    }
    if names:
        raise Contested(names)


def settle(
    prefix: str | None, alone: Mapping[str, str], versions: Mapping[str, str], python: str
) -> tuple[dict[str, str], list[str]]:
    """Let the same distribution win each contested file below `prefix`, whatever came first there.

    pip and uv let the one that they install later win; here that is the one whose name is later in
    the alphabet. alone: by name, where each contested one is installed alone. Gives the winner's
    name by path, and a warning for each of these files. Raises `UserError` where one has a file and
    another a directory, which nothing settles: so `prefix` may be None if it was not made for that.
    """
    brought: dict[str, list[str]] = {}
    above: dict[str, str] = {}
    for name in sorted(alone):
        for path, _ in walk(alone[name]):
            if path == ".lock" or _left_out(path):
                continue
            brought.setdefault(path, []).append(name)
            while path := posixpath.dirname(path):
                above.setdefault(path, name)

    def path_of(path: str) -> str:
        return shown.printable(rename(path))

    def who(name: str) -> str:
        return f"{name} {versions[name]}"

    rename = _renamer(_site_packages(dict.fromkeys(brought), versions), python)
    winners, warnings = {}, []
    for path, names in sorted(brought.items()):
        if path in above:
            raise UserError(
                f"{who(names[0])} has a file at {path_of(path)}, where "
                f"{who(above[path])} has a directory. Have only one of them in the image"
            )
        files = [_at(alone[name], path) for name in names]
        if all(filecmp.cmp(files[-1], file, shallow=False) for file in files[:-1]):
            continue
        *losers, winner = names
        winners[path] = winner
        if prefix is not None:
            # Not in place: a hard link leads into the installer's cache.
            os.unlink(_at(prefix, path))
            shutil.copy(_at(alone[winner], path), _at(prefix, path))
        warnings.append(
            f"{' and '.join(map(who, [*losers, winner]))} bring different files at "
            f"{path_of(path)}; the image gets that of {who(winner)}"
        )
    return winners, warnings


def walk(prefix: str, path: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """The files below `prefix`. Raises `UserError` for what is no file or directory."""
    # Names are UTF-8 whatever the locale says, as in wheels.
    for entry in os.scandir(os.fsencode(_at(prefix, path))):
        try:
            name = posixpath.join(path, entry.name.decode())
        except UnicodeDecodeError:
            raise UserError(
                f"a wheel has a file name that is not UTF-8: {entry.name!a:.100}"
            ) from None
        if entry.is_dir(follow_symlinks=False):
            yield from walk(prefix, name)
        elif entry.is_file(follow_symlinks=False):
            yield name, entry.stat(follow_symlinks=False)
        else:
            raise UserError(
                f"a wheel has a link or a device at {shown.printable(name)}: wheels have files only"
            )


def _at(prefix: str, *path: str) -> str:
    return os.fsdecode(os.path.join(os.fsencode(prefix), *(part.encode() for part in path)))


def _site_packages(files: Iterable[str], versions: Mapping[str, str]) -> str:
    """Where the installer put packages: wheels may bring other directories that look like it."""
    counts: dict[str, int] = {}
    for path in files:
        if found := re.match(r"(lib/python3\.\d+/site-packages)/", path):
            info = re.fullmatch(r"([^/]+)-[^/-]+\.dist-info/RECORD", path[found.end() :])
            asked = info is not None and canonicalize_name(info[1]) in versions
            counts[found[1]] = counts.get(found[1], 0) + asked
    return max(counts, key=lambda site: (counts[site], site), default="")


def _infos(files: Mapping[str, object], site: str) -> list[str]:
    pattern = re.compile(rf"{re.escape(site)}/([^/]+\.dist-info)/RECORD")
    return sorted(found[1] for found in map(pattern.fullmatch, files) if found)


def _open(prefix: str, site: str, info: str, versions: Mapping[str, str], python: str) -> _Found:
    name = canonicalize_name(info[: -len(".dist-info")].rpartition("-")[0])
    if name not in versions:
        raise UserError(f"a wheel installs {shown.printable(info)}, which nobody asked for")
    links = {"lib64/": "lib/", f"lib/python{python}/site-packages/": f"{site}/"}  # as in `prepare`
    listed: dict[str, tuple[str, str]] = {}
    with open(_at(prefix, site, info, "RECORD"), encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if len(row) >= 3:
                path = posixpath.normpath(posixpath.join(site, row[0]))
                for link, place in links.items():
                    if path.startswith(link):
                        path = place + path[len(link) :]
                listed[path] = (row[1], row[2])
    return _Found(name, versions[name], info, listed)


def _owners(
    found: list[_Found], files: Mapping[str, object], winners: Mapping[str, str]
) -> dict[str, list[_Found]]:
    by_name = {distribution.name: distribution for distribution in found}
    owners = {path: [by_name[name]] for path, name in winners.items()}
    for distribution in found:
        for path in distribution.listed:
            if path in files and path not in winners:
                owners.setdefault(path, []).append(distribution)
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


def _add_programs(found: _Found, prefix: str, site: str, winners: Mapping[str, str]) -> None:
    for name, content in dict(_entry_points(prefix, site, found)).items():
        path = f"bin/{name}"
        if winners.get(path, found.name) == found.name:
            found.members[path] = Member(f"{VENV}/{path}", 0o755, len(content), "", content)


def _finish(
    found: _Found,
    prefix: str,
    site: str,
    rename: _Rename,
    python: str,
    lost: Mapping[str, Member],
) -> Distribution:
    record = f"{site}/{found.info}/RECORD"
    members = {path: m for path, m in found.members.items() if not _left_out(path)}
    members.pop(record, None)
    place = f"{VENV}/{rename(record)}"
    # What another one has overwritten is listed as it is there.
    overwritten = {path: lost[path] for path in found.listed if path in lost}
    content = _record(found, {**overwritten, **members}, place, site_packages(python))
    members[record] = Member(place, 0o644, len(content), "", content)
    return Distribution(found.name, found.version, tuple(sorted(members.values())))


def _entry_points(prefix: str, site: str, found: _Found) -> Iterator[tuple[str, bytes]]:
    """The programs of entry_points.txt (PyPA, "Entry points specification")."""
    for point in PathDistribution(Path(_at(prefix, site, found.info))).entry_points:
        if point.group not in ("console_scripts", "gui_scripts"):
            continue
        called = _CALLABLE.fullmatch(re.sub(r"(?<!\s)\s*\[[^][]*\]\s*$", "", point.value).strip())
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
        elif path in found.listed and (
            path not in found.members or not (digest and size == str(member.size))
        ):
            digest, size = _sha256(_content(member.source)), str(member.size)
        # Bytecode stands there without a hash, as it is not from the wheel.
        rows.append([name, digest, size])
    writer.writerows(sorted(rows))
    return text.getvalue().encode()


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _sha256(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
