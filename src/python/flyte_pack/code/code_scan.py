"""Reads from one module what it will need when it runs: the modules, and whether it must have them.

Nothing is imported or run. The rules call `scan_code` themselves. Where the module uses syntax that
is newer than the Python of the rules, they run this as a program under another. So it imports the
standard library alone, and its neighbours that do the same. `completeness` beside it compares what
it finds with what ships.
"""

from __future__ import annotations

import ast
import json
import operator
import os
import re
import sys
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable, Iterator, NamedTuple

from flyte_pack.code.bound_names import Bound, bound_in, names_at_a_glance
from flyte_pack.code.data_reads import Read, lines_that_ask, may_read, reads_in
from flyte_pack.code.dynamic_scan import Dynamic, dynamic_in, may_be_dynamic, offers
from flyte_pack.code.import_scan import NO_INFER
from flyte_pack.code.paths import Paths
from flyte_pack.code.syntax import nodes_of
from flyte_pack.code.values import last_name

MISSING_OK = "# flyte: missing-ok"
_PRAGMAS = (NO_INFER, MISSING_OK)
_PRAGMA = re.compile(b"|".join(re.escape(pragma.encode()) for pragma in _PRAGMAS))

_SET = re.compile(rb"""sys\.modules(?:\[|\.setdefault\()\s*["']([\w.]+)["']""")

_PATH = re.compile(rb"__path__\s*(?:\+?=[^=]|\.(?:append|extend|insert))")

# What the code does if a module is missing. `optional`: it goes on without it.
OPTIONAL, TYPING = "optional", "typing"
_NEVER = 10_000

_IMPORT_ERRORS = ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")
_FILE_ERRORS = ("OSError", "IOError", "FileNotFoundError", "Exception", "BaseException")


# Of a container.
_PLATFORM = {
    "sys.platform": "linux",
    "os.name": "posix",
    "platform.system()": "Linux",
    "sys.implementation.name": "cpython",
    "platform.python_implementation()": "CPython",
}
_HOLDS: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Imported(NamedTuple):
    """One imported name.

    module, level: as of an `ast.ImportFrom`. name: of `from module import name`, which may be `*`;
    "" for `import module`. guard: "", `OPTIONAL` or `TYPING`. since, before: the minor versions of
    Python 3 that come to it. how: what does it, if that is no statement.
    """

    module: str
    level: int
    name: str
    line: int
    guard: str = ""
    since: int = 0
    before: int = _NEVER
    how: str = ""

    @property
    def said(self) -> str:
        """As the source has it."""
        if self.how:
            return self.how
        if not self.name:
            return f"import {self.module}"
        return f"from {'.' * self.level}{self.module} import {self.name}"


@dataclass(frozen=True)
class CodeScan:
    """What a module needs.

    names: what its top level binds at a glance, and bound: for good; None: look at its source.
    dynamic: what it finds by name. reads: the data it opens. opens: whether it may make modules
    below its package appear by itself (`sys.modules`, `__path__`); sets: those it names there.
    changes_path: whether it adds to `sys.path`. problem: why it could not be read.
    """

    imports: tuple[Imported, ...] = ()
    names: tuple[str, ...] = ()
    bound: Bound | None = None
    dynamic: tuple[Dynamic, ...] = ()
    reads: tuple[Read, ...] = ()
    opens: bool = False
    sets: tuple[str, ...] = ()
    changes_path: bool = False
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "imports": self.imports,
            "names": sorted(self.names),
            "bound": None if self.bound is None else self.bound.to_json(),
            "dynamic": self.dynamic,
            "reads": self.reads,
            "opens": self.opens,
            "sets": self.sets,
            "changes_path": self.changes_path,
            "problem": self.problem,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> CodeScan:
        """The inverse of `to_json`, for output of this same module."""
        return cls(
            tuple(Imported(*one) for one in raw["imports"]),
            tuple(raw["names"]),
            None if raw["bound"] is None else Bound.from_json(raw["bound"]),
            tuple(Dynamic(*one) for one in raw["dynamic"]),
            tuple(Read(*one) for one in raw["reads"]),
            raw["opens"],
            tuple(raw["sets"]),
            raw["changes_path"],
            raw["problem"],
        )


def names_without_import(source: bytes) -> bool:
    """Whether it may name modules or files, and not by a statement. Fast, with false positives."""
    return may_be_dynamic(source) or may_read(source) or offers(source)


def scan_code(source: bytes, path: str) -> CodeScan:
    """Raises `SyntaxError` or `ValueError` where this Python cannot parse it."""
    is_package = os.path.basename(path) == "__init__.py"
    dynamic = may_be_dynamic(source) or (is_package and offers(source))
    reads = may_read(source)
    imports: tuple[Imported, ...] = ()
    tree = None
    if dynamic or reads:
        tree = _parsed(source, path)
    if b"import" in source:
        imports = tuple(_imports(source, tree or _head(source, path)))
    found = CodeScan(imports, names_at_a_glance(source))
    if b"sys.modules" in source or (is_package and _PATH.search(source)):
        sets = tuple(name.decode() for name in _SET.findall(source))
        found = replace(found, opens=not sets, sets=sets)
    if b"sys.path" in source or b"addsitedir" in source:
        found = replace(found, changes_path=True)
    if tree is not None:
        nodes = nodes_of(tree)
        values = Paths(nodes, path)
        called = tuple(dynamic_in(tree, nodes, values)) if dynamic else ()
        opened = tuple(reads_in(nodes, values)) if reads else ()
        if called or opened:
            quiet = frozenset(_pragma_lines(source))
            goes_on = frozenset(_caught(nodes, _IMPORT_ERRORS))
            called = tuple(
                one._replace(guard=OPTIONAL) if one.line in goes_on else one
                for one in called
                if one.line not in quiet
            )
            goes_on = frozenset((*_caught(nodes, _FILE_ERRORS), *lines_that_ask(nodes)))
            opened = tuple(
                one._replace(optional=True) if one.line in goes_on else one
                for one in opened
                if one.line not in quiet
            )
        found = replace(found, dynamic=called, reads=opened)
    return found


def _parsed(source: bytes, path: str) -> ast.Module:
    try:
        return ast.parse(source, path)
    except (RecursionError, MemoryError):  # which of them depends on the version and the construct
        raise SyntaxError(f"{path} is nested too deeply") from None


def _head(source: bytes, path: str) -> ast.Module:
    """The syntax tree up to the last line with an import: most modules have them at their top.

    A text that ends there is a prefix of the module, so it means the same if it can be parsed. It
    cannot, if it ends inside of a string, of brackets or of a `try`.
    """
    end = source.find(b"\n", source.rfind(b"import"))
    if 0 <= end < len(source) // 2 and b"\r" not in source:
        try:
            return ast.parse(source[: end + 1], path)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    return _parsed(source, path)


# --- import statements ----------------------------------------------------------------------------


class _Where(NamedTuple):
    guard: str = ""
    since: int = 0
    before: int = _NEVER


def _imports(source: bytes, tree: ast.Module) -> Iterator[Imported]:
    quiet = frozenset(_pragma_lines(source))
    text = source.split(b"\n") if quiet else []
    conditions = _conditions(tree)
    if conditions:
        for one in ast.walk(tree):
            if isinstance(one, ast.If):
                one.test = _Conditions(conditions).visit(one.test)
    for node, where in _statements(tree.body, _Where()):
        silent: list[str] = []
        if quiet and (silenced := quiet.intersection(range(node.lineno, _end(node) + 1))):
            if _end(node) in silenced:
                continue
            silent = [text[line - 1].decode(errors="replace") for line in silenced]
            if _is_head(node, silent, silenced):
                continue
        module, level = "", 0
        if isinstance(node, ast.ImportFrom):
            module, level = node.module or "", node.level
            if module == "__future__":
                continue
        for alias in node.names:
            if any(re.search(rf"\b{re.escape(alias.name)}\b", line) for line in silent):
                continue
            line = getattr(alias, "lineno", node.lineno)  # aliases have one since 3.10
            if isinstance(node, ast.ImportFrom):
                yield Imported(module, level, alias.name, line, *where)
            else:
                yield Imported(alias.name, 0, "", line, *where)


def _is_head(node: ast.stmt, silent: list[str], silenced: Iterable[int]) -> bool:
    """Whether a pragma stands on the line `from module import (`, which names nothing."""
    return node.lineno in silenced and any(
        re.match(r"\s*from\s+[\w.]+\s+import\s*\(\s*#", line) for line in silent
    )


def _conditions(tree: ast.Module) -> dict[str, ast.expr]:
    """Names for questions about the platform or Python: `WINDOWS = sys.platform == "win32"`."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            asked = node.value.func if isinstance(node.value, ast.Call) else node.value
            left = asked.left if isinstance(asked, ast.Compare) else getattr(asked, "value", None)
            said = _said(left) if isinstance(left, ast.expr) else ""
            if said in _PLATFORM or said.startswith("sys.version_info"):
                found[node.targets[0].id] = node.value
    return found


class _Conditions(ast.NodeTransformer):
    def __init__(self, known: dict[str, ast.expr]) -> None:
        self._known = known

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._known.get(node.id, node)


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _pragma_lines(source: bytes) -> Iterator[int]:
    if b"no-infer-dep" in source or b"missing-ok" in source:
        for number, line in enumerate(source.split(b"\n"), 1):
            if _PRAGMA.search(line):
                yield number


def _statements(
    body: Iterable[ast.stmt], where: _Where
) -> Iterator[tuple[ast.Import | ast.ImportFrom, _Where]]:
    """The import statements, each with when Python comes to it, and what happens if it fails."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, where
        elif isinstance(node, ast.If):
            then, other = _branches(node.test, where)
            yield from _statements(node.body, then) if then else ()
            yield from _statements(node.orelse, other) if other else ()
        elif isinstance(node, ast.Try) or type(node).__name__ == "TryStar":
            yield from _in_try(node, where)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            inner = (
                _optional(where)
                if any(_suppresses(item, _IMPORT_ERRORS) for item in node.items)
                else where
            )
            yield from _statements(node.body, inner)
        else:
            for field in ("body", "orelse"):
                yield from _statements(getattr(node, field, ()), where)
            for case in getattr(node, "cases", ()):
                yield from _statements(case.body, where)


def _in_try(node: Any, where: _Where) -> Iterator[tuple[ast.Import | ast.ImportFrom, _Where]]:
    caught = any(_catches(handler, _IMPORT_ERRORS) for handler in node.handlers)
    inner = _optional(where) if caught else where
    yield from _statements(node.body, inner)
    for handler in node.handlers:
        # What is imported instead is needed only where the first is missing, and there may be more.
        yield from _statements(handler.body, inner if _catches(handler, _IMPORT_ERRORS) else where)
    yield from _statements(node.orelse, inner)
    yield from _statements(node.finalbody, where)


def _optional(where: _Where) -> _Where:
    return where._replace(guard=where.guard or OPTIONAL)


def _catches(handler: ast.ExceptHandler, errors: tuple[str, ...]) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(last_name(kind) in errors for kind in kinds)


def _suppresses(item: ast.withitem, errors: tuple[str, ...]) -> bool:
    call = item.context_expr
    return (
        isinstance(call, ast.Call)
        and last_name(call.func) == "suppress"
        and any(last_name(argument) in errors for argument in call.args)
    )


def _branches(test: ast.expr, where: _Where) -> tuple[_Where | None, _Where | None]:
    """When Python comes to the two branches of an `if`; None: never, in a container."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        then, other = _branches(test.operand, where)
        return other, then
    if isinstance(test, ast.BoolOp):
        return _of_several(test, where)
    if isinstance(test, ast.Constant):
        return (where, None) if test.value else (None, where)
    if last_name(test) in ("TYPE_CHECKING", "MYPY"):
        return where._replace(guard=where.guard or TYPING), where
    if last_name(test) in ("PY2", "PY3"):  # of `six`, and as people write it themselves
        return (where, None) if last_name(test) == "PY3" else (None, where)
    if _is_main(test) or _asks_whether_there(test):
        return _optional(where), where
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _compared(test, where)
    if (
        isinstance(test, ast.Call)
        and isinstance(test.func, ast.Attribute)
        and test.func.attr == "startswith"
        and _said(test.func.value) == "sys.platform"
        and len(test.args) == 1
        and isinstance(test.args[0], ast.Constant)
    ):
        is_linux = "linux".startswith(str(test.args[0].value))
        return (where, None) if is_linux else (None, where)
    return where, where


def _of_several(test: ast.BoolOp, where: _Where) -> tuple[_Where | None, _Where | None]:
    """`and` goes into its branch if each part does, and `or` out of it."""
    both = isinstance(test.op, ast.And)
    inside: _Where | None = where
    for value in test.values:
        if inside is not None:
            then, other = _branches(value, inside)
            inside = then if both else other
    if inside is None:
        return (None, where) if both else (where, None)
    return (inside, where) if both else (where, inside)


def _compared(test: ast.Compare, where: _Where) -> tuple[_Where | None, _Where | None]:
    left, op, right = _said(test.left), test.ops[0], test.comparators[0]
    if isinstance(right, ast.Constant) and isinstance(right.value, str):
        on = _PLATFORM.get(left)
        if on is not None and isinstance(op, (ast.Eq, ast.NotEq)):
            same = (right.value == on) == isinstance(op, ast.Eq)
            return (where, None) if same else (None, where)
    if left in _PLATFORM and isinstance(right, (ast.Tuple, ast.List, ast.Set)):
        named = [one.value for one in right.elts if isinstance(one, ast.Constant)]
        if len(named) == len(right.elts) and isinstance(op, (ast.In, ast.NotIn)):
            inside = (_PLATFORM[left] in named) == isinstance(op, ast.In)
            return (where, None) if inside else (None, where)
    minor = None
    if left in ("sys.version_info[0]", "sys.version_info.major"):
        major = right.value if isinstance(right, ast.Constant) else None
        holds = _HOLDS.get(type(op))
        if isinstance(major, int) and holds is not None:
            return (where, None) if holds(3, major) else (None, where)
    if left in ("sys.version_info", "version_info", "sys.version_info[:2]"):
        minor = _minor(right)
    if minor is None:
        return where, where
    if isinstance(op, ast.Gt) and isinstance(right, ast.Tuple) and len(right.elts) < 2:
        return where, None
    first = minor
    if isinstance(op, (ast.Gt, ast.LtE)) and left.endswith("[:2]"):
        first += 1  # the whole `version_info` of 3.9.1 is greater than (3, 9)
    later = _Where(where.guard, max(where.since, first), where.before)
    earlier = _Where(where.guard, where.since, min(where.before, first))
    if isinstance(op, (ast.GtE, ast.Gt)):
        return later, earlier
    if isinstance(op, (ast.Lt, ast.LtE)):
        return earlier, later
    return _optional(where), _optional(where)


def _minor(node: ast.expr) -> int | None:
    """11 of `(3, 11)`; before every minor version of 3 for `(3,)`, and after for `(4,)`."""
    if not isinstance(node, ast.Tuple):
        return None
    parts = [part.value for part in node.elts if isinstance(part, ast.Constant)]
    if len(parts) != len(node.elts) or not all(isinstance(part, int) for part in parts):
        return None
    if not parts or parts[0] < 3:
        return 0
    if parts[0] > 3:
        return _NEVER
    return int(parts[1]) if len(parts) > 1 else 0


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and any(
        isinstance(side, ast.Constant) and side.value == "__main__"
        for side in (test.left, *test.comparators)
    )


def _asks_whether_there(test: ast.expr) -> bool:
    return any(
        last_name(node) in ("find_spec", "hasattr")
        for node in ast.walk(test)
        if isinstance(node, ast.expr)
    )


def _said(node: ast.expr) -> str:
    """`a.b`, `a.b()` or `a[:2]` as it is written; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_said(node.value)}.{node.attr}"
    if isinstance(node, ast.Call) and not node.args and not node.keywords:
        return f"{_said(node.func)}()"
    if isinstance(node, ast.Subscript):
        part: Any = node.slice
        if isinstance(part, ast.Constant) and part.value == 0:
            return f"{_said(node.value)}[0]"
        upper = part.upper if isinstance(part, ast.Slice) and part.lower is None else None
        if isinstance(upper, ast.Constant) and upper.value == 2:
            return f"{_said(node.value)}[:2]"
    return ""


def _caught(nodes: Iterable[ast.AST], errors: tuple[str, ...]) -> Iterator[int]:
    """The lines of what a `try` or `with` surrounds that goes on after one of the errors."""
    for node in nodes:
        if _goes_on(node, errors):
            for inner in getattr(node, "body", ()):
                yield from range(inner.lineno, _end(inner) + 1)


def _goes_on(node: ast.AST, errors: tuple[str, ...]) -> bool:
    if isinstance(node, ast.Try):
        return any(_catches(one, errors) for one in node.handlers)
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return any(_suppresses(item, errors) for item in node.items)
    return False


def main(argv: list[str]) -> int:
    """`FILE...`: print the scans as JSON, by file, with what they bind for good."""
    scans = {}
    for path in argv:
        with open(path, "rb") as file:
            source = file.read()
        try:
            found = replace(scan_code(source, path), bound=bound_in(source, path))
            scans[path] = found.to_json()
        except (SyntaxError, ValueError) as error:
            scans[path] = CodeScan(problem=str(error)).to_json()
    json.dump(scans, sys.stdout)
    return 0
