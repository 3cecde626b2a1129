"""Reads one module's syntax tree: which tasks and environments it defines, and what it imports.

Nothing is imported or run. The rules call `scan` themselves. Where the module uses syntax that is
newer than the Python of the rules, they run this file as a program under the module's own Python:
`python module_scan.py MODULE.py` prints `ModuleScan.to_json()`. So this file imports the standard
library alone.
"""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import asdict, dataclass
from typing import Iterable, Iterator


@dataclass(frozen=True)
class Import:
    """One imported name.

    module: without its leading dots. level: how many dots. name: of `from module import name`.
    """

    module: str
    level: int
    name: str | None
    line: int


@dataclass(frozen=True)
class ModuleScan:
    """What a module says at its top level.

    tasks: (name, name of its environment or None), in source order.
    environments: names bound to a task environment. apps: those bound to an app environment.
    plain: functions and classes that are neither.
    names: all names bound.
    open_ended: whether other names may exist (`import *`, a module `__getattr__`, `globals()`).
    imports: every import in the file, also inside functions.
    includes: the literal strings in the `include` of its environments.
    """

    tasks: tuple[tuple[str, str | None], ...]
    environments: tuple[str, ...]
    plain: tuple[str, ...]
    names: tuple[str, ...]
    open_ended: bool
    imports: tuple[Import, ...]
    includes: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()

    def tasks_of(self, environment: str) -> tuple[str, ...]:
        """The tasks that this module defines in that environment, in source order."""
        return tuple(name for name, env in self.tasks if env == environment)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModuleScan:
        """The inverse of `to_json`, for output of this same module."""
        raw = json.loads(text)
        raw["tasks"] = map(tuple, raw["tasks"])
        raw["imports"] = (Import(**found) for found in raw["imports"])
        open_ended = raw.pop("open_ended")
        return cls(open_ended=open_ended, **{name: tuple(found) for name, found in raw.items()})


def scan(
    source: str | bytes, filename: str = "<module>", newest: tuple[int, int] | None = None
) -> ModuleScan:
    """Scan a module's source. Raises `SyntaxError` as `ast.parse` does, `ValueError` for NUL bytes.

    newest: the newest Python that the module is for. Newer syntax is a `SyntaxError`, as far as
    `ast.parse` knows. None: all that this Python can parse.
    """
    try:
        tree = ast.parse(source, filename, feature_version=newest)
    except (RecursionError, MemoryError):  # which of them depends on the version and the construct
        raise SyntaxError(f"{filename} is nested too deeply") from None
    found = _Bindings()
    for node, maybe in _top_level(tree.body):
        found.read(node, maybe)
    for expression in ast.walk(tree):
        if isinstance(expression, ast.NamedExpr):
            found.bind(expression.target.id, maybe=True)
    found.settle()
    return ModuleScan(
        tasks=tuple(found.tasks.items()),
        environments=tuple(found.environments),
        plain=tuple(found.plain),
        names=tuple(found.names),
        open_ended="__getattr__" in found.functions or any(map(_hides_names, ast.walk(tree))),
        imports=tuple(_imports(tree)),
        includes=tuple(dict.fromkeys(_includes(tree))),
        apps=tuple(found.apps),
    )


class _Bindings:
    """The names that a module's top level binds, and what they are. The dictionaries keep order."""

    def __init__(self) -> None:
        self.tasks: dict[str, str | None] = {}
        self.environments: dict[str, None] = {}
        self.apps: dict[str, None] = {}
        self.plain: dict[str, None] = {}
        self.names: dict[str, None] = {}
        self.functions: set[str] = set()
        self.meant: dict[str, str] = {}  # what a name stands for: an imported name, a base class

    def bind(self, name: str, maybe: bool) -> None:
        """A later binding wins, unless it may be in a branch that is not taken."""
        if not maybe:
            self.tasks.pop(name, None)
            self.environments.pop(name, None)
            self.apps.pop(name, None)
            self.plain.pop(name, None)
            self.meant.pop(name, None)
        self.names[name] = None

    def read(self, node: ast.stmt, maybe: bool) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self._define(node, maybe)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            self._assign(node, maybe)
        else:
            for name in _bound_by(node):
                self.bind(name, maybe)
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.meant[alias.asname or alias.name] = alias.name

    def _define(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, maybe: bool
    ) -> None:
        self.bind(node.name, maybe)
        is_task, environment = False, None
        if not isinstance(node, ast.ClassDef):
            self.functions.add(node.name)
            is_task, environment = _task_decorator(node.decorator_list)
        if is_task:
            self.tasks[node.name] = environment
        elif not node.decorator_list:
            self.plain[node.name] = None
        if isinstance(node, ast.ClassDef) and (base := self._environment_among(node.bases)):
            self.meant[node.name] = base

    def _environment_among(self, bases: Iterable[ast.expr]) -> str | None:
        """The base class that makes a class one of environments."""
        names = (self._meaning(_dotted(base) or "") for base in bases)
        return next((name for name in names if name.endswith("Environment")), None)

    def _meaning(self, dotted: str) -> str:
        """What a dotted name stands for, as far as imports and base classes say."""
        first, dot, rest = dotted.partition(".")
        return f"{self.meant.get(first, first)}{dot}{rest}"

    def _assign(self, node: ast.Assign | ast.AnnAssign, maybe: bool) -> None:
        if node.value is None:
            return  # `name: type` alone binds nothing
        kind, environment = self._kind(node.value)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for name in (n for target in targets for n in _bound(target)):
            self.bind(name, maybe)
            if kind == "environment":
                self.environments[name] = None
            elif kind == "app":
                self.apps[name] = None
            elif kind == "task":
                self.tasks[name] = environment

    def _kind(self, value: ast.expr) -> tuple[str | None, str | None]:
        """What a value is, as `_call_kind` says it; a name is what it was bound to."""
        if isinstance(value, ast.Name):
            if value.id in self.apps:
                return "app", None
            return None, None
        if not isinstance(value, ast.Call):
            return None, None
        called = _dotted(_called(value)) or ""
        of, _, method = called.rpartition(".")
        if method == "clone_with" and of in self.apps:
            return "app", None
        return _call_kind(called if method in ("task", "clone_with") else self._meaning(called))

    def settle(self) -> None:
        for name in (*self.tasks, *self.environments):
            self.plain.pop(name, None)
        # An environment may come from another module; that tasks hang on it shows what it is.
        for env in self.tasks.values():
            if env in self.names and env not in self.plain and env not in self.tasks:
                self.environments[env] = None


def _top_level(body: Iterable[ast.stmt], maybe: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Statements that run on import. A `maybe` one is inside `if`, `try` and the like."""
    for node in body:
        yield node, maybe
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        inner = maybe or not isinstance(node, (ast.With, ast.AsyncWith))
        for field in ("body", "orelse", "finalbody"):
            yield from _top_level(getattr(node, field, ()), inner)
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _top_level(part.body, inner)


def _hides_names(node: ast.AST) -> bool:
    """Whether the module may bind names in a way that its statements do not show."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("exec", "globals", "locals", "vars")
    if isinstance(node, ast.ImportFrom):
        return node.names[0].name == "*"
    return isinstance(node, ast.Global)


def _bound_by(node: ast.stmt) -> Iterator[str]:
    """The names that an import, a loop or a `with` binds."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            if alias.name != "*":
                yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(node, (ast.For, ast.AsyncFor)):
        yield from _bound(node.target)
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        for item in node.items:
            if item.optional_vars is not None:
                yield from _bound(item.optional_vars)


def _bound(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from _bound(element)
    elif isinstance(target, ast.Starred):
        yield from _bound(target.value)


def _task_decorator(decorators: list[ast.expr]) -> tuple[bool, str | None]:
    """Whether one of them is `@env.task` or `@env.task(...)`, and what `env` is called."""
    for func in map(_called, decorators):
        if isinstance(func, ast.Attribute) and func.attr == "task":
            return True, _dotted(func.value)
    return False, None


def _call_kind(called: str) -> tuple[str | None, str | None]:
    """What `name = called(...)` binds: a `task` (and its environment), an `environment` for tasks,
    an `app` (an environment of Flyte that serves one), or none of them.
    """
    parts = called.split(".")
    if parts[-1] == "task" and len(parts) > 1:
        return "task", ".".join(parts[:-1])
    if "TaskEnvironment" in parts or parts[-1] == "clone_with":
        return "environment", None
    if any(part.endswith("AppEnvironment") for part in parts):
        return "app", None
    if parts[-1].endswith("Task"):
        return "task", None
    return None, None


def _called(node: ast.expr) -> ast.expr:
    """`a.b` of `a.b(...)(...)`."""
    while isinstance(node, ast.Call):
        node = node.func
    return node


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else None
    return None


def _imports(tree: ast.AST) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, 0, None, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(node.module or "", node.level, alias.name, node.lineno)


def _includes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if _call_kind(_dotted(_called(node)) or "")[0] in ("environment", "app"):
            for keyword in node.keywords:
                if keyword.arg == "include" and isinstance(keyword.value, (ast.List, ast.Tuple)):
                    for element in keyword.value.elts:
                        if isinstance(element, ast.Constant) and isinstance(element.value, str):
                            yield element.value


def main(argv: list[str]) -> int:
    """`module_scan.py FILE`: print the scan as JSON, or the syntax error and exit with 1."""
    with open(argv[0], "rb") as f:
        source = f.read()
    try:
        print(scan(source, argv[0]).to_json())
    except (SyntaxError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
