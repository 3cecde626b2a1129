"""What a base image's own files say: which Python it has, which C library, what is in our place.

It is found once, when a base is locked or read, and recorded beside its documents (`BaseFacts`), so
packaging needs no layer of a base. Each layer is read as a stream, and nothing is unpacked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flyte_pack.image.base import BaseDistribution, BaseFacts, BasePlatform
from flyte_pack.image.base_packages import MAX_RECORD, RECORD, distributions_of
from flyte_pack.image.elf import MAGIC, Elf, read_elf
from flyte_pack.image.filesystem import VENV
from flyte_pack.image.layer_tree import LayerTree, Node
from flyte_pack.oci.inflate import inflate_pieces
from flyte_pack.oci.model import GZIP_LAYERS, PLAIN_LAYERS, Descriptor, InvalidImage
from flyte_pack.oci.tar_stream import REGULAR, SYMLINK, Member, TarStream

_PROGRAM = re.compile(rb"(.*/)?(python[0-9.]*t?|libpython3\.[0-9]+t?\.so[0-9.]*)")
_LIBC = re.compile(rb"(.*/)?(libc\.so\.6|libc-2\.[0-9]+\.so)")
_TEXT = re.compile(rb"(.*/)?(pyvenv\.cfg|patchlevel\.h)")
_MAX_PROGRAM = 128 << 20
_MAX_TEXT = 64 << 10
_MAX_STEPS = 40
_VERSION = rb"3\.[0-9]{1,2}\.[0-9]{1,2}(?:(?:a|b|rc)[0-9]{1,2})?"
# The C string that `Py_GetVersion` begins with; a build from a repository has a "+" after it.
_IN_PROGRAM = re.compile(rb"(?<![0-9.])(" + _VERSION + rb")\+?\0")
_IN_HEADER = re.compile(rb'#define\s+PY_VERSION\s+"(' + _VERSION + rb')\+?"')
# What the C library prints as a program, as `/lib/x86_64-linux-gnu/libc.so.6` does.
_GLIBC = re.compile(rb"GNU C Library [^\n]{0,200}?release version (2\.[0-9]{1,3})")
_MACHINES = {62: "x86_64", 183: "aarch64"}


@dataclass(frozen=True)
class _Program:
    """elf: None for a script, or for what is no program. versions: CPython's, that are in it."""

    elf: Elf | None
    script: bool
    versions: frozenset[str]


def glibc_version(library: bytes) -> str | None:
    """`2.36`, of the content of `libc.so.6`."""
    found = _GLIBC.search(library)
    return found[1].decode() if found else None


@dataclass
class BaseReader:
    """Takes the layers of one platform, lowest first; then says what is in them.

    unreadable: why a layer could not be read, such as one in zstd; then nothing is known.
    """

    unreadable: str = ""
    _tree: LayerTree = field(default_factory=lambda: LayerTree(_keep))

    def add(self, layer: Descriptor, blob: Iterable[bytes], what: str) -> None:
        """Read a layer's blob. What of it cannot be read is noted."""
        if self.unreadable:
            return
        try:
            if layer.media_type in GZIP_LAYERS:
                self._tree.apply(TarStream(inflate_pieces(iter(blob), what), what), what)
            elif layer.media_type in PLAIN_LAYERS:
                self._tree.apply(TarStream(iter(blob), what), what)
            else:
                self.unreadable = f"{what} is {layer.media_type!a:.100}"
        except InvalidImage as error:
            self.unreadable = str(error)

    def facts(self, base: BasePlatform, python: str | None) -> BaseFacts | None:
        """python: as the target names it. Raises `InvalidImage` if that cannot be meant."""
        return None if self.unreadable else _facts(self._tree, base, python)


def _keep(member: Member) -> object:
    if _TEXT.fullmatch(member.name) and member.size <= _MAX_TEXT:
        return b"".join(member.content())
    if RECORD.fullmatch(member.name) and member.size <= MAX_RECORD:
        return b"".join(member.content())
    if member.size <= _MAX_PROGRAM:
        if _PROGRAM.fullmatch(member.name):
            data = b"".join(member.content())
            versions = frozenset(found.decode() for found in _IN_PROGRAM.findall(data))
            elf = data.startswith(MAGIC)
            return _Program(read_elf(data) if elf else None, data.startswith(b"#!"), versions)
        if _LIBC.fullmatch(member.name):
            return glibc_version(b"".join(member.content()))
    return None


def _facts(tree: LayerTree, base: BasePlatform, asked: str | None) -> BaseFacts:
    named = asked or _guessed(tree, base)
    venv = tree.find(VENV.encode(), follow=False)
    occupied = venv is not None and not (venv[1].is_directory and not venv[1].children)
    if named is None:
        return BaseFacts(python=None, occupied=occupied)
    environments: list[_Venv] = []
    interpreter = _interpreter(tree, named, environments)
    if interpreter is None:  # perhaps a volume brings it
        return BaseFacts(python=None, occupied=occupied)
    path, node = interpreter
    program = node.content if isinstance(node.content, _Program) else None
    if program is not None and program.script:
        raise InvalidImage(
            f"its Python, {named}, is a script, such as pyenv's: `python` must be the interpreter "
            f"itself. {_others(tree)}"
        )
    minor = _minor(tree, path)
    isolated = any(one.isolated for one in environments) if environments else None
    ours = _venv_at(tree, f"/{VENV}")
    if ours is not None and ours.top == VENV.encode():
        environments.append(ours)
    packages, distributions = _packages(tree, environments, minor)
    glibc, musl = _c_library(tree, program)
    return BaseFacts(
        python=path,
        version=minor and (_version(tree, base, path, minor, program) or minor),
        glibc=glibc,
        musl=musl,
        occupied=occupied,
        packages=packages,
        user_packages=_has_user_packages(tree, minor),
        closed=_closed(tree, path),
        has_flyte=_has_flyte(tree, None if isolated else path, packages),
        distributions=distributions if packages or occupied else None,
        isolated=isolated,
    )


# --- its Python ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Venv:
    """A virtual environment. top: its path without links. home: the directory of its interpreter.
    minor: its version, `3.12`, or "". isolated: whether it keeps the interpreter's packages out.
    """

    top: bytes
    home: str
    minor: str
    isolated: bool


def _guessed(tree: LayerTree, base: BasePlatform) -> str | None:
    """What PATH leads to, or VIRTUAL_ENV, if that is a virtual environment, as the base's programs
    use it. Else Docker's official images have it in one place; elsewhere it is what PATH leads to.
    """
    env = base.parsed_config.env
    on_path = [
        path
        for directory in env.get("PATH", "").split(":")
        for name in ("python3", "python")
        if (path := os.path.join(directory, name)).startswith("/") and _is_there(tree, path)
    ]
    chosen = f"{env.get('VIRTUAL_ENV', '')}/bin/python"
    for path in (*on_path[:1], chosen):
        environments: list[_Venv] = []
        if path.startswith("/") and _interpreter(tree, path, environments) and environments:
            return path
    if (official := base.official_python) and _is_there(tree, official):
        return official
    return on_path[0] if on_path else None


def _is_there(tree: LayerTree, path: str) -> bool:
    return tree.find(path.encode("utf-8", "surrogatepass")) is not None


def _interpreter(tree: LayerTree, named: str, environments: list[_Venv]) -> tuple[str, Node] | None:
    """The program itself that `named` leads to, through links and virtual environments.

    environments: those on the way are added. A virtual environment names the directory of the
    interpreter that it was made with (Python's documentation, "site", `home`).
    """
    path = named
    for _ in range(_MAX_STEPS):
        found = tree.find(path.encode("utf-8", "surrogateescape"), follow=False)
        if found is None:
            break
        place, node = _text(found[0]), found[1]
        if (home := _home(tree, path, environments)) is not None:
            path = home
        elif node.kind == SYMLINK:
            path = os.path.join(os.path.dirname(place), os.fsdecode(node.link))
        elif node.kind == REGULAR:
            return place, node
        else:
            break
    return None


def _home(tree: LayerTree, path: str, environments: list[_Venv]) -> str | None:
    """The interpreter that the virtual environment of `path` was made with, if it is of one.

    None also if it is not where that says: then the links from `path` on lead to it.
    """
    name, directory = os.path.basename(path), os.path.dirname(path)
    for top in (directory, os.path.dirname(directory)):
        venv = _venv_at(tree, top)
        if venv is None:
            continue
        environments.append(venv)
        for candidate in dict.fromkeys((name, f"python{venv.minor}", "python3", "python")):
            other = f"{venv.home}/{candidate}"
            if venv.home.startswith("/") and other != path and _is_there(tree, other):
                return other
    return None


def _venv_at(tree: LayerTree, top: str) -> _Venv | None:
    found = tree.find(f"{top}/pyvenv.cfg".encode("utf-8", "surrogateescape"))
    place = tree.find(top.encode("utf-8", "surrogateescape"))
    if found is None or place is None or not isinstance(found[1].content, bytes):
        return None
    lines = found[1].content.decode(errors="replace").splitlines()
    keys = {k.strip().lower(): v.strip() for k, _, v in (line.partition("=") for line in lines)}
    version = keys.get("version", keys.get("version_info", ""))
    system = keys.get("include-system-site-packages", "true").lower()
    return _Venv(place[0], keys.get("home", ""), ".".join(version.split(".")[:2]), system != "true")


def _minor(tree: LayerTree, path: str) -> str | None:
    """`3.12`, by the interpreter's name or, where that does not say it, its library's."""
    name = os.path.basename(path)
    if found := re.fullmatch(r"python(3\.[0-9]+)", name):
        return found[1]
    prefix = os.path.dirname(os.path.dirname(path))
    library = tree.find(f"{prefix}/lib".encode())
    minors = [
        directory[6:].decode()
        for directory, node in (library[1].children.items() if library else ())
        if re.fullmatch(rb"python3\.[0-9]+", directory) and b"os.py" in node.children
    ]
    return minors[0] if len(minors) == 1 and re.fullmatch("python3?", name) else None


def _version(
    tree: LayerTree, base: BasePlatform, path: str, minor: str, program: _Program | None
) -> str | None:
    """`3.12.4`, as the interpreter or its shared library has it; else as it is written beside."""
    prefix = os.path.dirname(os.path.dirname(path))

    def of_this(versions: Iterable[str]) -> str | None:
        fitting = {version for version in versions if version.startswith(f"{minor}.")}
        return fitting.pop() if len(fitting) == 1 else None

    programs = [] if program is None else [program]
    for directory in (f"{prefix}/lib", f"{prefix}/lib64", *_library_directories(tree, prefix)):
        found = tree.find(directory.encode())
        for name, node in sorted(found[1].children.items()) if found else ():
            if name.startswith(f"libpython{minor}".encode()) and isinstance(node.content, _Program):
                programs.append(node.content)
    for one in programs:
        if version := of_this(one.versions):
            return version
    header = tree.find(f"{prefix}/include/python{minor}/patchlevel.h".encode())
    content = header[1].content if header is not None else None
    stated = _IN_HEADER.findall(content) if isinstance(content, bytes) else []
    if version := of_this(found.decode() for found in stated):
        return version
    if path == base.official_python:
        return base.official_version
    return None


def _others(tree: LayerTree) -> str:
    """What may be meant instead."""
    found = sorted(_interpreters(tree.top, ""))[:5]
    return f"It has {', '.join(found)}" if found else "It has no CPython that could be found"


def _interpreters(top: Node, above: str) -> Iterator[str]:
    todo = [(above, top)]
    while todo:
        path, node = todo.pop()
        for name, child in node.children.items():
            if child.is_directory:
                todo.append((f"{path}/{_text(name, '')}", child))
            elif (
                isinstance(child.content, _Program)
                and child.content.elf is not None
                and re.fullmatch(rb"python3\.[0-9]+", name)
            ):
                yield f"{path}/{_text(name, '')}"


# --- packages ------------------------------------------------------------------------------------


def _packages_below(tree: LayerTree, prefix: str) -> list[bytes]:
    """Where packages are below a prefix: pip's places and Debian's."""
    places = []
    for library in ("lib", "lib64", "local/lib"):
        found = tree.find(f"{prefix}/{library}".encode())
        for name, node in sorted(found[1].children.items()) if found else ():
            for kind in (b"site-packages", b"dist-packages"):
                if re.fullmatch(rb"python3(\.[0-9]+)?", name) and kind in node.children:
                    path = b"/".join((found[0], name, kind)) if found else b""
                    places.append(path)
    return list(dict.fromkeys(places))


def _packages(
    tree: LayerTree, environments: Iterable[_Venv], minor: str | None
) -> tuple[tuple[str, ...], tuple[BaseDistribution, ...]]:
    """The directories of packages of virtual environments for this Python, and what is in them."""
    places: list[str] = []
    distributions: list[BaseDistribution] = []
    for venv in dict.fromkeys(environments):
        inside: list[bytes] = []
        for site in _packages_below(tree, _text(venv.top)):
            real = tree.find(site)
            if real is None or site.split(b"/")[-2].decode() not in (f"python{minor}", "python3"):
                continue
            places.append(_text(real[0]))
            if real[0].startswith(venv.top + b"/"):
                inside.append(real[0])
            else:
                distributions += distributions_of(tree, real[0], real[:1])
        distributions += distributions_of(tree, venv.top, inside)
    return tuple(dict.fromkeys(places)), tuple(distributions)


def _has_flyte(tree: LayerTree, path: str | None, packages: Iterable[str]) -> bool:
    """Whether the base's Python has Flyte's runtime, in a place that stays importable.

    path: of the interpreter; None if what is beside it is kept out.
    """
    places = list(packages)
    if path is not None:
        prefix = os.path.dirname(os.path.dirname(path))
        places += [_text(place) for place in _packages_below(tree, prefix)]
    for place in places:
        found = tree.find(place.encode("utf-8", "surrogateescape"))
        for name in found[1].children if found else ():
            if re.fullmatch(rb"flyte-[0-9][^-]*\.dist-info", name):
                return True
    return False


def _has_user_packages(tree: LayerTree, minor: str | None) -> bool:
    homes = tree.find(b"home")
    names = homes[1].children if homes else {}
    for home in ("/root", *(f"/home/{_text(name, '')}" for name in names)):
        if tree.find(f"{home}/.local/lib/python{minor}/site-packages".encode()):
            return True
    return False


# --- the C library, rights -----------------------------------------------------------------------


def _c_library(tree: LayerTree, program: _Program | None) -> tuple[str | None, bool]:
    """The version of glibc, and whether musl may be what the interpreter is linked with."""
    linker = program.elf.linker if program is not None and program.elf is not None else None
    libraries = tree.find(b"lib")
    musl = any(
        re.fullmatch(rb"ld-musl-.*\.so\.1", name)
        for name in (libraries[1].children if libraries else ())
    )
    if linker is not None and "/ld-musl-" in linker:
        return None, True
    beside = tree.find(linker.encode("latin-1")) if linker else None
    directories = [os.path.dirname(_text(beside[0]))] if beside else []
    machine = _MACHINES.get(program.elf.machine) if program and program.elf else None
    directories += _library_directories(tree, "/usr", machine)
    glibc = None
    for directory in directories:
        found = tree.find(f"{directory}/libc.so.6".encode())
        if found is not None and isinstance(found[1].content, str):
            glibc = found[1].content
            break
    # A program of glibc on a distribution of musl: one of the two was brought along.
    alpine = tree.find(b"etc/alpine-release") is not None
    return glibc, musl and (linker is None or alpine)


def _library_directories(tree: LayerTree, prefix: str, machine: str | None = None) -> list[str]:
    """Where shared libraries are (Filesystem Hierarchy Standard; Debian's multiarch)."""
    machines = [machine] if machine else list(_MACHINES.values())
    triplets = [f"{one}-linux-gnu" for one in machines]
    tops = dict.fromkeys((f"{prefix}/", "/usr/", "/"))
    names = [*(f"lib/{triplet}" for triplet in triplets), "lib64", "lib"]
    return [f"{top}{name}" for top in tops for name in names]


def _closed(tree: LayerTree, path: str) -> str | None:
    """The first directory above `path` that only its owner may search, and the owner's number."""
    at = ""
    for part in path.split("/")[1:-1]:
        at += f"/{part}"
        found = tree.find(at.encode())
        if found is not None and not found[1].mode & 0o001:
            return f"{at}:{found[1].uid}"
    return None


def _text(path: bytes, root: str = "/") -> str:
    return f"{root}{os.fsdecode(path)}"
