"""Which distributions a base's virtual environment has, and which files are each one's alone.

An image hides those that its lock file has, too, so no distribution is there twice. What they
installed is in RECORD (PyPA, "Recording installed projects").
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from flyte_pack.image.base import BaseDistribution
from flyte_pack.image.filesystem import BASE_PATHS, SHIM
from flyte_pack.image.layer_tree import LayerTree, Node
from flyte_pack.names import normalized
from flyte_pack.oci.parts import layer_path_problem

RECORD = re.compile(rb"(.*/)?[^/]+\.dist-info/RECORD")
MAX_RECORD = 32 << 20
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9._+!]+")
_INFO = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.dist-info")
# What setuptools left: an egg holds all its files, while an .egg-info says nothing of others.
_EGG = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-py[^-]*)?(?:-[^/]*)?\.(?P<kind>egg|egg-info)"
)
_LINK = re.compile(r"(?P<name>.+)\.egg-link")
_BYTECODE = re.compile(rb"(?P<module>[^.]+)\.[A-Za-z]+-?[0-9]+(?:\.opt-[0-9a-z]+)?\.pyc")
_NOBODY = ""
_DEEPEST = 100  # directories; packages are nowhere near it


def distributions_of(
    tree: LayerTree, venv: bytes, sites: Sequence[bytes]
) -> list[BaseDistribution]:
    """Of the virtual environment `venv` with packages in `sites`; paths have no links in them."""
    top = tree.find(venv, follow=False)
    if top is None:
        return []
    found: list[tuple[bytes, str, str, list[bytes] | None]] = []
    for site in sites:
        directory = tree.find(site)
        for entry, node in sorted(directory[1].children.items()) if directory else ():
            if (one := _distribution(tree, site, entry, node)) is not None:
                found.append((site, *one))
        found += _shim(tree, venv, site)
    owners: dict[bytes, set[str]] = {}
    for _, name, _, files in found:
        for path in files or ():
            owners.setdefault(path, set()).add(name)
    split = _Split(owners, {parent for site in sites for parent in _with_parents(site)})
    split.whose(venv, top[1])
    return [
        BaseDistribution(f"/{os.fsdecode(site)}", name, version, _safe(files, split.alone[name]))
        for site, name, version, files in found
    ]


def _distribution(
    tree: LayerTree, site: bytes, entry: bytes, node: Node
) -> tuple[str, str, list[bytes] | None] | None:
    """The name, version and files of what `entry` in `site` stands for; no files if not known."""
    text = os.fsdecode(entry)
    at = b"%b/%b" % (site, entry)
    if found := _INFO.fullmatch(text):
        record = node.children.get(b"RECORD")
        files = _listed(tree, site, record.content) if record is not None else None
        if files is not None:
            files += list(_files(at, node))
    elif found := _EGG.fullmatch(text):
        files = list(_files(at, node)) if found["kind"] == "egg" else None
    elif found := _LINK.fullmatch(text):
        files = None
    else:
        return None
    version = found.groupdict().get("version", "")
    if not _NAME.fullmatch(found["name"]) or (version and not _VERSION.fullmatch(version)):
        return None  # nothing in a lock file is called so
    return normalized(found["name"]), version, files


def _listed(tree: LayerTree, site: bytes, record: object) -> list[bytes] | None:
    """The files of a RECORD that are there, by their paths without links."""
    if not isinstance(record, bytes):
        return None
    paths = []
    try:
        for row in csv.reader(record.decode().splitlines()):
            name = os.fsencode(row[0]) if row else b""
            path = name if name.startswith(b"/") else b"%b/%b" % (site, name)
            if name and (found := tree.find(path, follow=False)) and not found[1].is_directory:
                paths.append(found[0])
    except (csv.Error, UnicodeDecodeError):
        return None
    return paths


def _shim(
    tree: LayerTree, venv: bytes, site: bytes
) -> Iterator[tuple[bytes, str, str, list[bytes]]]:
    """What an image of ours has there, if the base is one."""
    files = []
    for path in (site + b"/flyte_shim", b"%b/%b" % (site, BASE_PATHS.encode())):
        if found := tree.find(path, follow=False):
            files += list(_files(*found))
    if files:
        if found := tree.find(venv + b"/bin/flyte-shim", follow=False):
            files.append(found[0])
        yield site, SHIM, "", files


def _files(path: bytes, node: Node) -> Iterator[bytes]:
    todo = [(path, node)]
    while todo:
        path, node = todo.pop()
        if not node.is_directory:
            yield path
        todo += [(b"%b/%b" % (path, name), child) for name, child in node.children.items()]


def _with_parents(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = path.rpartition(b"/")[0]


class _Split:
    """Divides a tree by the owners of its files.

    alone: of each owner, the topmost paths below which all is its own. mixed: directories that are
    never such a path, as an image puts files there.
    """

    def __init__(self, owners: Mapping[bytes, set[str]], mixed: Collection[bytes]) -> None:
        self.alone: dict[str, list[str]] = defaultdict(list)
        self._owners, self._mixed = owners, mixed

    def whose(self, path: bytes, node: Node) -> set[str]:
        """The owners of the files below a directory, with `_NOBODY` if some have none."""
        if path.count(b"/") > _DEEPEST:
            return {_NOBODY}
        below: dict[bytes, set[str]] = {}
        for name, child in sorted(node.children.items()):
            at = b"%b/%b" % (path, name)
            below[at] = self.whose(at, child) if child.is_directory else self._of_file(path, at)
        owners = {owner for of_one in below.values() for owner in of_one}
        if len(owners) > 1 or path in self._mixed:
            for at, of_one in below.items():
                if len(of_one) == 1 and at not in self._mixed:
                    self.alone[next(iter(of_one))].append(os.fsdecode(at))
        return owners

    def _of_file(self, directory: bytes, path: bytes) -> set[str]:
        return self._owners.get(path) or self._owners.get(_source(directory, path)) or {_NOBODY}


def _source(directory: bytes, path: bytes) -> bytes:
    """The module that a file of bytecode is of: it goes with that."""
    found = _BYTECODE.fullmatch(path[len(directory) + 1 :])
    if found is None or not directory.endswith(b"/__pycache__"):
        return b""
    return b"%b/%b.py" % (directory.rpartition(b"/")[0], found["module"])


def _safe(files: list[bytes] | None, alone: Iterable[str]) -> tuple[str, ...] | None:
    """The paths, if they are known, and such as a layer can hide."""
    paths = tuple(sorted(alone))
    odd = any(layer_path_problem(path) or not path.isprintable() for path in paths)
    return None if files is None or odd else paths
