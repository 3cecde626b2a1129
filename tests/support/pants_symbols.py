"""Whether what a module takes out of Pants is there: asked of Pants' sources, which are not
imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple


class Symbol(NamedTuple):
    module: str
    name: str


@dataclass(frozen=True)
class PantsSources:
    """The directory that `pants/` lies in, and the release that it is."""

    directory: Path
    release: tuple[int, ...]

    def missing(self, code: str) -> list[str]:
        """What `code` imports, or takes from a module that it imports, and is not there."""
        tree = ast.parse(code)
        wanted = set(_imported(tree.body, self.release))
        modules = {
            alias: f"{symbol.module}.{symbol.name}"
            for symbol, alias in wanted
            if self._file(f"{symbol.module}.{symbol.name}")
        }
        attributes = {
            Symbol(modules[node.value.id], node.attr)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        }
        symbols = {symbol for symbol, _ in wanted} | attributes
        return sorted(f"{s.module}.{s.name}" for s in symbols if not self._has(s))

    def _has(self, symbol: Symbol) -> bool:
        if self._file(f"{symbol.module}.{symbol.name}"):
            return True
        file = self._file(symbol.module)
        return file is not None and symbol.name in _defined_in(file)

    def _file(self, module: str) -> Path | None:
        base = self.directory.joinpath(*module.split("."))
        for file in (base.with_suffix(".py"), base / "__init__.py", base.with_suffix(".pyi")):
            if file.is_file():
                return file
        # A namespace package is a directory alone.
        return base / "__init__.py" if base.is_dir() else None


def _imported(body: Iterable[ast.stmt], release: tuple[int, ...]) -> Iterator[tuple[Symbol, str]]:
    """Names out of Pants with their aliases, of the branch of each version guard that applies."""
    for statement in body:
        if isinstance(statement, ast.ImportFrom):
            if (statement.module or "").partition(".")[0] == "pants":
                for name in statement.names:
                    yield Symbol(statement.module or "", name.name), name.asname or name.name
        elif isinstance(statement, ast.If):
            applies = _applies(statement.test, release)
            if applies is not False:
                yield from _imported(statement.body, release)
            if applies is not True:
                yield from _imported(statement.orelse, release)
        else:
            for _, field in ast.iter_fields(statement):
                if isinstance(field, list):
                    nested = [n for n in field if isinstance(n, ast.stmt)]
                    handlers = [n for n in field if isinstance(n, ast.ExceptHandler)]
                    yield from _imported(nested, release)
                    for handler in handlers:
                        yield from _imported(handler.body, release)


def _applies(test: ast.expr, release: tuple[int, ...]) -> bool | None:
    """The value of a version guard; None for a condition of another kind."""
    names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    if not names or names - {"TYPE_CHECKING", "PANTS_SEMVER"}:
        return None
    known = {"TYPE_CHECKING": False, "PANTS_SEMVER": SimpleNamespace(release=release)}
    return bool(eval(ast.unparse(test), known))


@cache
def _defined_in(file: Path) -> frozenset[str]:
    return frozenset(_defined(ast.parse(file.read_text()).body)) if file.is_file() else frozenset()


def _defined(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that a module has once it is imported."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            for name in statement.names:
                yield name.asname or name.name.partition(".")[0]
        elif isinstance(statement, (ast.If, ast.Try, ast.With)):
            yield from _defined(statement.body)
            yield from _defined(getattr(statement, "orelse", ()))
            for handler in getattr(statement, "handlers", ()):
                yield from _defined(handler.body)
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id
