"""What the `flyte.Image` of an environment asks for, as far as the source says it literally.

Nothing is imported or run. What is no constant, or a name that is bound to one once, is left out:
the check at deployment, which has the Image itself, sees that.
"""

from __future__ import annotations

import ast
import functools
import posixpath
from dataclasses import dataclass, field, replace
from typing import Callable, Iterable, Mapping, Optional, Union

from flyte_pack.code.entry_names import Code, Place
from flyte_pack.code.module_scan import assigned


@dataclass(frozen=True)
class FilePath:
    """from_root: whether it is from the build root, as of `Path(__file__).parent / "x"`; others are
    relative to where Flyte runs.
    """

    path: str
    from_root: bool = False


@dataclass(frozen=True)
class Copied:
    """A file or a folder that goes into the image, as `with_source_file` and `_folder` say."""

    src: FilePath
    dst: str = "."
    is_folder: bool = False
    contents_only: bool = False


@dataclass(frozen=True)
class Asked:
    """What the calls on an Image say, in their order.

    python: of `from_debian_base`. requirements, projects: files that list packages. variables: the
    value of each, or None where it is not literal; it may be a secret.
    """

    python: Optional[tuple[int, int]] = None
    packages: tuple[str, ...] = ()
    requirements: tuple[FilePath, ...] = ()
    projects: tuple[FilePath, ...] = ()
    apt: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    variables: Mapping[str, Optional[str]] = field(default_factory=dict, repr=False)
    workdir: Optional[str] = None
    copied: tuple[Copied, ...] = ()


def asked_by(code: Code, environment: Place) -> Optional[Asked]:
    """What the Image of an environment asks for; None if it has none that can be read.

    environment: where it was made. Raises `Wanted` as `Code.named` does.
    """
    if not environment[0] or code.binding_of(*environment) != environment:
        return None
    reader = _Reader(code)
    node = reader.expression(environment)
    if not isinstance(node, ast.Call) or not _last(node.func).endswith(
        ("Environment", "clone_with", "from_task")
    ):
        return None
    given = [keyword.value for keyword in node.keywords if keyword.arg == "image"]
    return reader.image(environment[0], given[0]) if given else None


class _Unread(Exception):
    """It is not literal."""


_Read = Union[str, int, bool, None, FilePath, "list[_Read]", "dict[str, _Read]"]

# A module's syntax tree takes much more room than its source.
_assigned = functools.lru_cache(maxsize=64)(assigned)
_DEEP = 100  # calls on one Image, and names of names


class _Reader:
    def __init__(self, code: Code) -> None:
        self.code = code

    def expression(self, place: Place) -> Optional[ast.expr]:
        module, name = place
        return _assigned(self.code.files[module][1]).get(name)

    def _named(self, module: str, node: ast.expr) -> tuple[str, ast.expr]:
        """The expression that a name stands for, and the module it stands in."""
        place = self.code.binding_of(module, _dotted(node))
        found = self.expression(place) if place else None
        if place is None or found is None:
            raise _Unread
        return place[0], found

    def image(self, module: str, node: ast.expr) -> Optional[Asked]:
        try:
            return self._image(module, node, _DEEP)
        except _Unread:
            return None

    def _image(self, module: str, node: ast.expr, depth: int) -> Asked:
        if depth == 0:
            raise _Unread
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._image(*self._named(module, node), depth - 1)
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            raise _Unread
        method, of = node.func.attr, node.func.value
        made = method.startswith("from_") and _last(of) == "Image"
        asked = Asked() if made else self._image(module, of, depth - 1)
        read = _LAYERS.get(method)
        try:
            return read(asked, _Arguments(self, module, node)) if read else asked
        except _Unread:
            return asked

    def value(self, module: str, node: ast.expr, depth: int = _DEEP) -> _Read:
        """Raises `_Unread`. A list is without the elements that are not literal."""
        if depth == 0:
            raise _Unread
        depth -= 1
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, type(None))):
            return node.value
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return self.elements(module, node.elts, depth)
        if isinstance(node, ast.Dict):
            return self._dictionary(module, node, depth)
        if isinstance(node, ast.Name) and node.id == "__file__":
            return FilePath(self.code.files[module][0], from_root=True)
        if isinstance(node, ast.Attribute) and node.attr == "parent":
            return _parent(self.value(module, node.value, depth))
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self.value(*self._named(module, node), depth)
        if isinstance(node, ast.BinOp):
            left = self.value(module, node.left, depth)
            right = self.value(module, node.right, depth)
            if isinstance(node.op, ast.Div):
                return _joined([left, right])
            if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
                return [*left, *right]
        if isinstance(node, ast.Call) and not node.keywords:
            return self._path(module, node, depth)
        raise _Unread

    def elements(self, module: str, nodes: Iterable[ast.expr], depth: int = _DEEP) -> list[_Read]:
        found: list[_Read] = []
        for node in nodes:
            try:
                if isinstance(node, ast.Starred):
                    inner = self.value(module, node.value, depth)
                    found += inner if isinstance(inner, list) else []
                else:
                    found.append(self.value(module, node, depth))
            except _Unread:
                continue
        return found

    def _dictionary(self, module: str, node: ast.Dict, depth: int) -> dict[str, _Read]:
        """With None for what is not literal: `os.environ["TOKEN"]`."""
        found: dict[str, _Read] = {}
        for key, of in zip(node.keys, node.values):
            try:
                name = self.value(module, key, depth) if key else None
            except _Unread:
                continue
            try:
                value = self.value(module, of, depth)
            except _Unread:
                value = None
            if key is None and isinstance(value, dict):
                found.update(value)
            elif isinstance(name, str):
                found[name] = value
        return found

    def _path(self, module: str, node: ast.Call, depth: int) -> FilePath:
        """`Path(...)`, `os.path.join(...)` and the like."""
        called = _last(node.func)
        if called in ("resolve", "absolute") and isinstance(node.func, ast.Attribute):
            return _joined([self.value(module, node.func.value, depth)])
        if called not in ("Path", "PurePath", "join", "dirname", "abspath", "realpath"):
            raise _Unread
        path = _joined([self.value(module, argument, depth) for argument in node.args])
        return _parent(path) if called == "dirname" else path


def _dotted(node: ast.expr) -> str:
    """`a.b`; "" for what is more than names and attributes."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _joined(parts: Iterable[_Read]) -> FilePath:
    path = FilePath("")
    for part in parts:
        if isinstance(part, str):
            path = replace(path, path=posixpath.join(path.path, part))
        elif isinstance(part, FilePath) and not path.path:
            path = part
        else:
            raise _Unread
    if posixpath.isabs(path.path) or not path.path:
        raise _Unread
    return path


def _parent(path: _Read) -> FilePath:
    if not isinstance(path, FilePath):
        raise _Unread
    return replace(path, path=posixpath.dirname(path.path) or ".")


# --- the calls on an Image ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Arguments:
    """Of a call: read where they are asked for, as there are more, such as `secret_mounts`."""

    reader: _Reader
    module: str
    call: ast.Call

    def all(self) -> list[_Read]:
        return self.reader.elements(self.module, self.call.args)

    def get(self, position: int, name: str) -> _Read:
        """Raises `_Unread`, also if it is not given."""
        given = {keyword.arg: keyword.value for keyword in self.call.keywords}
        if name in given:
            return self.reader.value(self.module, given[name])
        if len(self.call.args) <= position or isinstance(self.call.args[position], ast.Starred):
            raise _Unread
        return self.reader.value(self.module, self.call.args[position])

    def gives(self, position: int, name: str) -> bool:
        return len(self.call.args) > position or any(k.arg == name for k in self.call.keywords)

    def path(self, position: int, name: str) -> FilePath:
        return _joined([self.get(position, name)])


def _texts(values: _Read) -> tuple[str, ...]:
    every = values if isinstance(values, list) else [values]
    return tuple(value for value in every if isinstance(value, str))


def _debian(asked: Asked, given: _Arguments) -> Asked:
    version = given.get(0, "python_version")
    if not isinstance(version, list) or len(version) != 2:
        raise _Unread
    major, minor = version
    if not (isinstance(major, int) and isinstance(minor, int)):
        raise _Unread
    return replace(asked, python=(major, minor))


def _variables(asked: Asked, given: _Arguments) -> Asked:
    values = given.get(0, "env_vars")
    if not isinstance(values, dict):
        raise _Unread
    texts = {name: value if isinstance(value, str) else None for name, value in values.items()}
    return replace(asked, variables={**asked.variables, **texts})


def _workdir(asked: Asked, given: _Arguments) -> Asked:
    (workdir,) = _texts(given.get(0, "workdir")) or (None,)
    return replace(asked, workdir=workdir)


def _file(asked: Asked, given: _Arguments) -> Asked:
    src = given.get(0, "src")
    sources = src if isinstance(src, list) else [src]
    (dst,) = (_texts(given.get(1, "dst")) if given.gives(1, "dst") else (".",)) or (None,)
    if dst is None:
        raise _Unread
    files = tuple(Copied(_joined([one]), dst) for one in sources)
    return replace(asked, copied=(*asked.copied, *files))


def _folder(asked: Asked, given: _Arguments) -> Asked:
    only = given.gives(2, "copy_contents_only") and given.get(2, "copy_contents_only")
    (dst,) = (_texts(given.get(1, "dst")) if given.gives(1, "dst") else (".",)) or (None,)
    if dst is None:
        raise _Unread
    folder = Copied(given.path(0, "src"), dst, is_folder=True, contents_only=bool(only))
    return replace(asked, copied=(*asked.copied, folder))


_LAYERS: Mapping[str, Callable[[Asked, _Arguments], Asked]] = {
    "from_debian_base": _debian,
    "with_pip_packages": lambda asked, given: replace(
        asked, packages=(*asked.packages, *_texts(given.all()))
    ),
    "with_requirements": lambda asked, given: replace(
        asked, requirements=(*asked.requirements, given.path(0, "file"))
    ),
    "with_uv_project": lambda asked, given: replace(
        asked, projects=(*asked.projects, given.path(0, "pyproject_file"))
    ),
    "with_apt_packages": lambda asked, given: replace(
        asked, apt=(*asked.apt, *_texts(given.all()))
    ),
    "with_commands": lambda asked, given: replace(
        asked, commands=(*asked.commands, *_texts(given.get(0, "commands")))
    ),
    "with_env_vars": _variables,
    "with_workdir": _workdir,
    "with_source_file": _file,
    "with_source_folder": _folder,
}
