"""What expressions of a module mean as paths, as far as its source says so.

Nothing is imported or run. Standard library alone, as `flyte_pack.code.code_scan` has it.
"""

from __future__ import annotations

import ast
import itertools
import posixpath
from typing import Iterable, NamedTuple, Sequence

from flyte_pack.code.values import (
    DEEPEST,
    MOST_STEPS,
    MOST_TEXTS,
    OF_MODULES,
    OWN_PACKAGE,
    Values,
    dotted,
    last_name,
)

HERE, PACKAGE, CWD = "here", "package", "cwd"

_RESOURCES = ("importlib.resources", "importlib_resources", "pkg_resources")
_SAME_PATH = frozenset(
    """
    Path PurePath PosixPath PurePosixPath UPath str fspath abspath realpath normpath expanduser
    as_file as_posix resolve absolute
    """.split()  # noqa: SIM905
)


class Place(NamedTuple):
    """A path. start: where `path` starts.

    `HERE`: the module's directory. `PACKAGE`: that of `package`. `CWD`: the working directory.
    """

    start: str
    path: str
    package: str = ""

    def joined(self, *parts: str) -> Place | None:
        if any(part.startswith("/") for part in parts):
            return None
        return self._replace(path=posixpath.join(self.path, *parts))

    @property
    def parent(self) -> Place:
        return self._replace(path=posixpath.join(self.path, ".."))

    @property
    def normal(self) -> Place:
        return self._replace(path=posixpath.normpath(self.path or "."))


class Paths(Values):
    """The values of one module, also as paths."""

    def places(self, node: ast.expr | None) -> tuple[Place, ...]:
        """All paths that it may be, as far as they are known."""
        self._steps, self.loose = 0, False
        return () if node is None else self._places(node, 0)

    def _places(self, node: ast.expr, depth: int) -> tuple[Place, ...]:
        found: list[Place] = []
        for one in self._alternatives(node, depth) if _may_stand(node) else [node]:
            found += self._place(one, depth + 1)
        return tuple(dict.fromkeys(found))[:MOST_TEXTS]

    def _place(self, node: ast.expr, depth: int) -> Iterable[Place]:
        self._steps += 1
        if depth > DEEPEST or self._steps > MOST_STEPS:
            return []
        if isinstance(node, ast.Call):
            return self._of_call(node, depth)
        if isinstance(node, ast.Name):
            return [Place(HERE, self.file_name)] if node.id == "__file__" else []
        if isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.Div):
                return self._joined(self._places(node.left, depth), [node.right], depth)
            if isinstance(node.op, ast.Add):
                lefts = self._places(node.left, depth)
                if any(left.start != CWD for left in lefts):
                    return self._followed(lefts, self._texts(node.right, depth))
        if isinstance(node, ast.JoinedStr) and node.values:
            first = node.values[0]
            if isinstance(first, ast.FormattedValue):
                lefts = self._places(first.value, depth)
                if any(left.start != CWD for left in lefts):
                    rest = self._product([self._formatted(one, depth) for one in node.values[1:]])
                    return self._followed(lefts, rest)
        if isinstance(node, ast.Attribute) and node.attr == "parent":
            return [place.parent for place in self._places(node.value, depth)]
        if isinstance(node, ast.Subscript):
            return self._parents(node, depth)
        return [
            Place(CWD, text)
            for text in self._texts(node, depth)
            if not text.startswith(("/", "~", OWN_PACKAGE)) and "://" not in text
        ]

    def _followed(self, lefts: Iterable[Place], rights: Iterable[str]) -> list[Place]:
        """`dirname(__file__) + "/x"`."""
        return [
            left._replace(path=posixpath.join(left.path, right[1:]))
            for left in lefts
            for right in rights
            if right.startswith("/")
        ]

    def _parents(self, node: ast.Subscript, depth: int) -> Iterable[Place]:
        number: ast.expr = node.slice
        up = number.value if isinstance(number, ast.Constant) else None
        if not isinstance(up, int):
            return []
        value = node.value
        if isinstance(value, ast.Attribute) and value.attr == "parents":
            return [
                place._replace(path=posixpath.join(place.path, *[".."] * (min(up, 20) + 1)))
                for place in self._places(value.value, depth)
            ]
        if not isinstance(value, ast.Call) or up != 0 or not value.args:
            return []
        if self.called(value.func) not in ("os.path.split", "path.split"):
            return []
        return [place.parent for place in self._places(value.args[0], depth)]

    def _of_call(self, node: ast.Call, depth: int) -> Iterable[Place]:
        name = last_name(node.func)
        method = node.func.value if isinstance(node.func, ast.Attribute) else None
        if name in ("getcwd", "cwd"):
            return [Place(CWD, "")]
        if name in _SAME_PATH:
            if not node.args:
                return self._places(method, depth) if method is not None else []
            return self._joined(self._places(node.args[0], depth), node.args[1:], depth)
        if name == "dirname" and len(node.args) == 1:
            return [place.parent for place in self._places(node.args[0], depth)]
        if name == "join" and node.args and self._is_of(node.func, "os.path"):
            return self._joined(self._places(node.args[0], depth), node.args[1:], depth)
        if name == "files" and len(node.args) <= 1:
            return self.packages(node.args[0] if node.args else None)
        if name in ("path", "resource_filename") and self._is_of(node.func, *_RESOURCES):
            package = self.packages(node.args[0]) if len(node.args) == 2 else []
            return self._joined(package, node.args[1:], depth)
        if method is None:
            return []
        if name in ("joinpath", "__truediv__"):
            return self._joined(self._places(method, depth), node.args, depth)
        if name == "with_name" and len(node.args) == 1:
            above = [place.parent for place in self._places(method, depth)]
            return self._joined(above, node.args, depth)
        if name == "with_suffix" and len(node.args) == 1:
            return [
                place._replace(path=posixpath.splitext(place.path)[0] + suffix)
                for place in self._places(method, depth)
                for suffix in self._texts(node.args[0], depth)
            ]
        return []

    def _joined(
        self, places: Iterable[Place], parts: Sequence[ast.expr], depth: int
    ) -> Iterable[Place]:
        texts = [self._texts(part, depth) for part in parts]
        joined = (
            place.joined(*one)
            for place in places
            for one in itertools.islice(itertools.product(*texts), MOST_TEXTS)
        )
        return [place for place in joined if place is not None]

    def _is_of(self, func: ast.expr, *modules: str) -> bool:
        """Whether a function that is called is one of these modules, by whatever name."""
        named = self.called(func).rpartition(".")[0]
        return any(one == named or (named and one.endswith(f".{named}")) for one in modules)

    def packages(self, node: ast.expr | None) -> list[Place]:
        """The directory of a package that `importlib.resources` is given, by name or itself."""
        if node is None or last_name(node) in ("__package__", "__name__"):
            is_other = isinstance(node, ast.Attribute)
            return [] if is_other else [Place(HERE, "")]
        if isinstance(node, ast.BoolOp):  # `__package__ or __name__`
            return self.packages(node.values[0])
        if isinstance(node, (ast.Name, ast.Attribute)):
            module = self.called(node)
            if dotted(node).partition(".")[0] in self.modules:
                return [_of_package(module)]
        return [_of_package(text) for text in self._texts(node, 0) if text]


def _of_package(name: str) -> Place:
    """name: `a.b`, or a relative one, or one after `OWN_PACKAGE`."""
    if name.startswith(OWN_PACKAGE):
        name = f".{name[1:].lstrip('.')}"
    inner = name.lstrip(".")
    level = len(name) - len(inner)
    if not level:
        return Place(PACKAGE, "", inner)
    return Place(HERE, posixpath.join("", *[".."] * (level - 1), *inner.split(".")))


def _may_stand(node: ast.expr) -> bool:
    """Whether it may stand for others, rather than be a path itself."""
    if isinstance(node, ast.Name):
        return node.id not in OF_MODULES
    if isinstance(node, ast.Attribute):
        return node.attr != "parent"
    return isinstance(node, (ast.IfExp, ast.Subscript))
