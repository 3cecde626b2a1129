"""Locks the Debian packages of an image: `./pants run path:image -- lock-apt`.

apt chooses them for the base, whose layers are read for that. Each package is looked into: one that
could not be put into an image without running its maintainer scripts is refused here, and not when
the image is made.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flyte_pack import command
from flyte_pack.command import say
from flyte_pack.errors import UserError
from flyte_pack.fresh import fresh_file
from flyte_pack.image.apt_lock import AptLock, LockedDeb, LockedPlatform
from flyte_pack.image.apt_sources import STATUS, FoundDeb, choose, keep, read_text
from flyte_pack.image.base import BaseImage, BasePlatform
from flyte_pack.image.deb import DebFile
from flyte_pack.image.deb_scripts import RUN, Alternative, NotUnderstood, understand
from flyte_pack.image.layer_tree import LayerTree
from flyte_pack.json_fields import InvalidData, Sha256
from flyte_pack.oci.inflate import inflate
from flyte_pack.oci.model import GZIP_LAYERS, PLAIN_LAYERS, InvalidImage, Platform, blob_path
from flyte_pack.oci.tar_stream import DIRECTORY, SYMLINK, TarStream
from flyte_pack.progress import megabytes, write
from flyte_pack.scratch import user_cache

_READ = 1 << 20
_ALTERNATIVES = "etc/alternatives"
_MOST_SAID = 10


def main(argv: list[str]) -> int:
    parser = command.parser("python -m flyte_pack apt-lock")
    for name in ("--address", "--base", "--layers", "--lockfile"):
        parser.add_argument(name, required=True)
    for name in ("--platform", "--package", "--skip-scripts"):
        parser.add_argument(name, action="append", default=[])
    parser.add_argument("--mirror", action="append", nargs=2, default=[])
    command.add_insecure(parser)
    return command.run(parser, argv, _do, hint="")


def _do(given: argparse.Namespace) -> None:
    if given.typed != ["lock-apt"]:
        raise UserError(f"say nothing after `./pants run {given.address} -- lock-apt`")
    with open(given.base, "rb") as file:
        base = BaseImage.from_json(file.read())
    old = _content(given.lockfile)
    skipped = tuple(sorted(given.skip_scripts))
    platforms = []
    for platform in map(Platform.parse, given.platform):
        below = base.for_platform(platform)
        assert below is not None
        tree = _tree(base, below, given)
        with tempfile.TemporaryDirectory(prefix="flyte-apt-") as work:
            say(f"{platform}: asking apt")
            found = choose(tree, str(platform), given.package, dict(given.mirror), work)
            platforms.append(_locked(platform, tree, found, given.package, skipped))
    data = AptLock(base.digest, tuple(given.package), skipped, tuple(platforms)).to_json()
    for one in platforms:
        size = megabytes(sum(deb.size for deb in one.debs))
        write(sys.stdout, f"{one.platform}: {len(one.debs)} packages, {size}\n")
    _tell_changes(old, platforms)
    if data == old:
        write(sys.stdout, f"{given.lockfile}: unchanged\n")
        return
    with fresh_file(given.lockfile) as temporary, open(temporary, "xb") as file:
        file.write(data)
    write(sys.stdout, f"{given.lockfile}: written\n")


def _content(path: str) -> bytes:
    """Of a file; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _tell_changes(old: bytes, platforms: Sequence[LockedPlatform]) -> None:
    try:
        before = AptLock.from_json(old)
    except (InvalidData, InvalidImage):
        return
    for one in platforms:
        was = before.for_platform(one.platform)
        versions = {deb.name: deb.version for deb in was.debs} if was is not None else {}
        for deb in one.debs:
            known = versions.pop(deb.name, None)
            if known != deb.version:
                write(
                    sys.stdout,
                    f"  {one.platform}: {deb.name}: {known or 'none'} -> {deb.version}\n",
                )
        for name, version in versions.items():
            write(sys.stdout, f"  {one.platform}: {name}: {version} -> none\n")


def _tree(base: BaseImage, below: BasePlatform, given: argparse.Namespace) -> LayerTree:
    """What the base's layers come to. They are fetched into the user's cache, as to run it."""
    cache = os.path.join(user_cache(), "base-layers")
    places = (given.layers, cache)

    def find(digest: str) -> str | None:
        paths = (os.path.join(place, blob_path(digest)) for place in places)
        return next((path for path in paths if os.path.exists(path)), None)

    absent = [layer for layer in below.layers if find(layer.digest) is None]
    if absent:
        if base.name is None:
            raise UserError("layers of the base are missing")
        # Only here, as it needs an HTTP library.
        from flyte_pack.registry.pull import complete

        os.makedirs(cache, exist_ok=True)
        complete(base.name, absent, cache, say, given.insecure)
    tree = LayerTree(keep)
    for layer in below.layers:
        path = find(layer.digest)
        assert path is not None
        with open(path, "rb") as file:
            if layer.media_type in GZIP_LAYERS:
                pieces = inflate(file, layer.digest)
            elif layer.media_type in PLAIN_LAYERS:
                pieces = iter(lambda: file.read(_READ), b"")
            else:
                raise UserError(f"the base's layer {layer.digest} is {layer.media_type!a:.100}")
            tree.apply(TarStream(pieces, layer.digest), layer.digest)
    return tree


# --- what is locked ------------------------------------------------------------------------------


@dataclass
class _Contents:
    """What the packages of one platform have, and what is wrong with them."""

    moved: dict[str, str] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)
    alternatives: dict[str, list[Alternative]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def _locked(
    platform: Platform,
    tree: LayerTree,
    found: Sequence[FoundDeb],
    asked: Sequence[str],
    skipped: Sequence[str],
) -> LockedPlatform:
    has = _installed(read_text(tree, STATUS) or "")
    contents = _Contents()
    debs = [_deb(one, tree, has, skipped, contents) for one in found]
    names = {deb.name for deb in debs}
    for name in (request.partition("=")[0] for request in asked):
        if name not in names and name not in has:
            contents.problems.append(f"{name} is not the name of a package, for apt takes another")
    for name in skipped:
        if name not in names:
            contents.problems.append(
                f"`apt_skip_scripts` names {name}, which is not among the packages: leave it out"
            )
    if contents.problems:
        more = len(contents.problems) - _MOST_SAID
        lines = [*contents.problems[:_MOST_SAID], *([f"and {more} more"] if more > 0 else [])]
        raise UserError(f"on {platform}:\n" + "\n".join(f"  {line}" for line in lines))
    links = _links(tree, contents)
    debs = [_with_links(deb, links) for deb in debs]
    return LockedPlatform(
        platform, tuple(sorted(debs, key=lambda d: d.name)), tuple(sorted(contents.moved.items()))
    )


def _installed(status: str) -> dict[str, str]:
    """The packages that the base has, and their versions (deb-version(7) and dpkg's status)."""
    found = {}
    for paragraph in status.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in paragraph.splitlines())
        if fields.get("Status", "").endswith(" installed"):
            found[fields.get("Package", "")] = fields.get("Version", "")
    return found


def _deb(
    found: FoundDeb,
    tree: LayerTree,
    has: dict[str, str],
    skipped: Sequence[str],
    contents: _Contents,
) -> LockedDeb:
    file = DebFile(found.file, os.path.basename(found.path))
    fields = file.fields
    name, version = fields.get("Package", ""), fields.get("Version", "")
    if name in has:
        contents.problems.append(
            f"{name} {version} would replace the base's {has[name]}: take a newer base "
            "(`-- lock` of it), whose packages fit those of the repository"
        )
    for kind in RUN:
        if kind in file.control:
            _read_script(name, kind, file.control[kind], skipped, contents)
    for path in _paths(file, tree, contents):
        contents.paths.add(path)
        if path.startswith("etc/ld.so.conf.d/"):
            contents.problems.append(f"{name} has /{path}, which needs ldconfig to be run")
    digest, size = hashlib.sha256(), 0
    with open(found.file, "rb") as data:
        while piece := data.read(_READ):
            digest.update(piece)
            size += len(piece)
    sha256 = Sha256(digest.hexdigest())
    architecture = fields.get("Architecture", "")
    return LockedDeb(name, version, architecture, found.repository, found.path, size, sha256, ())


def _read_script(
    name: str, kind: str, data: bytes, skipped: Sequence[str], contents: _Contents
) -> None:
    if name in skipped:
        say(f"{name}: its {kind} is left out, as `apt_skip_scripts` says")
        return
    try:
        understood = understand(kind, data)
    except NotUnderstood as error:
        contents.problems.append(
            f"{name}: its {kind} would have to run in the image: {error}. Take a base that has "
            f"{name}, or set `apt_skip_scripts` if the image works without"
        )
        return
    if understood.lacks:
        say(f"{name}: its {kind} is left out: {understood.lacks}")
    for one in understood.alternatives:
        contents.alternatives.setdefault(name, []).append(one)


def _paths(file: DebFile, tree: LayerTree, contents: _Contents) -> Iterator[str]:
    """Its files, and what is wrong with them."""
    for path, member in file.members():
        found = tree.find(path.encode(), follow=False) if path else None
        if member.kind != DIRECTORY:
            yield path
            if found is not None and found[1].is_directory:
                contents.problems.append(f"{file.what}: /{path} is a directory in the base")
        elif found is not None and found[1].kind == SYMLINK:
            real = tree.find(path.encode())
            if real is None or not real[1].is_directory:
                contents.problems.append(f"{file.what}: /{path} is a file or link in the base")
            else:
                contents.moved[path] = os.fsdecode(real[0])


def _links(tree: LayerTree, contents: _Contents) -> dict[str, tuple[tuple[str, str], ...]]:
    """What update-alternatives would make, by package: the one of the highest priority wins.

    What the base has chosen stays.
    """

    def exists(path: str) -> bool:
        return path.lstrip("/") in contents.paths or tree.find(path.encode()) is not None

    best: dict[str, tuple[int, str]] = {}
    for package, alternatives in sorted(contents.alternatives.items()):
        for one in alternatives:
            if one.main == one.name and one.priority > best.get(one.name, (-1, ""))[0]:
                best[one.name] = (one.priority, package)
    links: dict[str, list[tuple[str, str]]] = {}
    for package, alternatives in sorted(contents.alternatives.items()):
        for one in alternatives:
            chosen = f"{_ALTERNATIVES}/{one.main}"
            wins = best.get(one.main) == (one.priority, package)
            kept = tree.find(chosen.encode(), follow=False) is not None
            if wins and not kept and exists(one.path):
                own = f"{_ALTERNATIVES}/{one.name}"
                links.setdefault(package, []).extend([(own, one.path), (one.link[1:], f"/{own}")])
    return {package: tuple(sorted(set(found))) for package, found in links.items()}


def _with_links(deb: LockedDeb, links: dict[str, tuple[tuple[str, str], ...]]) -> LockedDeb:
    return LockedDeb(**{**vars(deb), "links": links.get(deb.name, ())})
