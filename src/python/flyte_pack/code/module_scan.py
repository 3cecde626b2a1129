"""Reads one module's syntax tree: what its names are bound to, and what it imports.

Nothing is imported or run. The rules call `scan` themselves. Where the module uses syntax that is
newer than the Python of the rules, they run this file as a program under the module's own Python:
`python module_scan.py MODULE.py` prints `ModuleScan.to_json()`. So this file imports the standard
library alone. What a name stands for across modules says `flyte_pack.code.entry_names`.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any, Iterable, Iterator, Mapping


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
class Meaning:
    """What one statement binds a name to.

    kind, and what `of` then is:
        value       what an expression gives: names, `.attribute`, and calls: `(_)`, where there are
                    positional arguments, or `()`. So `env.task()(_)` is what
                    `@env.task(retries=2)` makes of the function below it.
        import      a module, or a name in one: `MODULE:` or `MODULE:NAME`, with its leading dots
        class       ""
        function    "", or "async" if it gives nothing before it is awaited
        other       what is certainly no task, in words (`a string`)
        unknown     anything else: ""
    names: the bases of a class, or the positional arguments of a call, as expressions.
    returns: what a function may return.
    """

    kind: str
    of: str = ""
    names: tuple[str, ...] = ()
    returns: tuple[Meaning, ...] = ()

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Meaning:
        returns = tuple(map(cls.from_json, raw["returns"]))
        return cls(raw["kind"], raw["of"], tuple(raw["names"]), returns)


@dataclass(frozen=True)
class ModuleScan:
    """What a module says at its top level.

    bindings: each name with what it may be bound to once the module is imported, in source order.
    stars: the modules of `from module import *`, with their leading dots.
    hides_names: whether other names may exist (a module `__getattr__`, `globals()`).
    imports: every import in the file, also inside functions.
    includes: the literal strings in the `include` of its environments.
    """

    bindings: tuple[tuple[str, tuple[Meaning, ...]], ...]
    stars: tuple[str, ...]
    hides_names: bool
    imports: tuple[Import, ...]
    includes: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModuleScan:
        """The inverse of `to_json`, for output of this same module."""
        raw = json.loads(text)
        return cls(
            bindings=tuple((n, tuple(map(Meaning.from_json, of))) for n, of in raw["bindings"]),
            stars=tuple(raw["stars"]),
            hides_names=raw["hides_names"],
            imports=tuple(Import(**found) for found in raw["imports"]),
            includes=tuple(raw["includes"]),
        )


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
    for inner in ast.walk(tree):
        if isinstance(inner, ast.NamedExpr):
            found.bind(inner.target.id, Meaning("unknown"), maybe=True)
        elif isinstance(inner, ast.Global):
            for name in inner.names:
                if name not in found.names:
                    found.bind(name, Meaning("unknown"), maybe=True)
    return ModuleScan(
        bindings=tuple((name, tuple(meanings)) for name, meanings in found.names.items()),
        stars=tuple(dict.fromkeys(found.stars)),
        hides_names="__getattr__" in found.names or any(map(_hides_names, ast.walk(tree))),
        imports=tuple(_imports(tree)),
        includes=tuple(dict.fromkeys(_includes(tree))),
    )


def assigned(source: str | bytes) -> dict[str, ast.expr]:
    """The names that the top level gives one value, with the expressions.

    Empty for a module that this Python cannot parse.
    """
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, list[ast.expr | None]] = {}
    for node, maybe in _top_level(body):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            pairs = [pair for target in targets for pair in _bound_to(target, node.value)]
        elif isinstance(node, ast.AugAssign):
            maybe = True  # `names += [...]` is not all of it
            pairs = [(name, None) for name in _bound(node.target)]
        for name, value in pairs:
            if not maybe:
                found.pop(name, None)
            found.setdefault(name, []).append(value)
    return {name: of[0] for name, of in found.items() if len(of) == 1 and of[0] is not None}


_TASK = re.compile(rb"\.\s*(?:task|orchestrator|from_task)\b")


def may_have_tasks(source: bytes) -> bool:
    """Whether the module could define a task in an environment. Fast, with false positives."""
    return _TASK.search(source) is not None


class _Bindings:
    """The names that a module's top level binds, in source order, and to what."""

    def __init__(self) -> None:
        self.names: dict[str, list[Meaning]] = {}
        self.stars: list[str] = []

    def bind(self, name: str, meaning: Meaning, maybe: bool) -> None:
        """A later binding wins, unless it may be in a branch that is not taken."""
        if meaning.kind == "value" and name in (_root(meaning.of), *meaning.names):
            maybe = True  # `f = wrap(f)` starts from what the name was bound to before
        if not maybe:
            self.names.pop(name, None)
        known = self.names.setdefault(name, [])
        if meaning not in known:
            known.append(meaning)

    def read(self, node: ast.stmt, maybe: bool) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.bind(node.name, _defined(node), maybe)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            self._assign(node, maybe)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` binds `a`, and `a.b as c` the module itself.
                first = alias.name if alias.asname else alias.name.partition(".")[0]
                self.bind(alias.asname or first, Meaning("import", f"{first}:"), maybe)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                if alias.name == "*":
                    self.stars.append(module)
                else:
                    of = f"{module}:{alias.name}"
                    self.bind(alias.asname or alias.name, Meaning("import", of), maybe)
        elif isinstance(node, ast.Delete) and not maybe:
            for target in node.targets:
                if isinstance(target, ast.Name):
                    self.names.pop(target.id, None)
        else:
            for name in _bound_by(node):
                self.bind(name, Meaning("unknown"), maybe)

    def _assign(self, node: ast.Assign | ast.AnnAssign, maybe: bool) -> None:
        if node.value is None:
            return  # `name: type` alone binds nothing
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            for name, value in _bound_to(target, node.value):
                for number, meaning in enumerate(_meanings(value)):
                    self.bind(name, meaning, maybe or number > 0)


# --- statements -----------------------------------------------------------------------------------


def _top_level(body: Iterable[ast.stmt], maybe: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Statements that run on import. A `maybe` one is inside `if`, `try` and the like."""
    for node in body:
        if isinstance(node, ast.If) and _is_main(node.test):
            yield from _top_level(node.orelse, maybe)
            continue
        yield node, maybe
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        inner = maybe or not isinstance(node, (ast.With, ast.AsyncWith))
        for field in ("body", "orelse", "finalbody"):
            yield from _top_level(getattr(node, field, ()), inner)
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _top_level(part.body, inner)


def _is_main(test: ast.expr) -> bool:
    """Whether it is `__name__ == "__main__"`."""
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
        return False
    sides = (test.left, test.comparators[0])
    return (
        isinstance(test.ops[0], ast.Eq)
        and any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
        and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)
    )


def _hides_names(node: ast.AST) -> bool:
    """Whether the module may bind names in a way that its statements do not show."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return False
    return node.func.id in ("exec", "globals", "locals") or (
        node.func.id == "vars" and not node.args
    )


def _bound_by(node: ast.stmt) -> Iterator[str]:
    """The names that a loop, a `with`, a `match` or a `type` binds."""
    if isinstance(node, (ast.For, ast.AsyncFor)):
        yield from _bound(node.target)
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        for item in node.items:
            if item.optional_vars is not None:
                yield from _bound(item.optional_vars)
    elif type(node).__name__ == "TypeAlias":  # since Python 3.12
        yield from _bound(node.name)  # type: ignore[attr-defined]
    for case in getattr(node, "cases", ()):  # since Python 3.10
        for part in ast.walk(case.pattern):
            name = getattr(part, "name", None) or getattr(part, "rest", None)
            if isinstance(name, str):
                yield name


def _bound(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, (ast.Tuple, ast.List)):
        for element in target.elts:
            yield from _bound(element)
    elif isinstance(target, ast.Starred):
        yield from _bound(target.value)


def _bound_to(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr | None]]:
    """The names of an assignment, each with its value, or None where that is a part of one."""
    sequences = (ast.Tuple, ast.List)
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, sequences) and isinstance(value, sequences):
        parts = (*target.elts, *value.elts)
        if len(target.elts) == len(value.elts) and not any(
            isinstance(part, ast.Starred) for part in parts
        ):
            for one, its in zip(target.elts, value.elts):
                yield from _bound_to(one, its)
            return
        yield from ((name, None) for name in _bound(target))
    else:
        yield from ((name, None) for name in _bound(target))


# --- what a name is bound to ----------------------------------------------------------------------


# Decorators that leave a function a function, and a class a class. By their last name: a module may
# import them as it likes.
_KEEPING = frozenset(
    """
    abstractmethod asynccontextmanager cache contextmanager dataclass deprecated final fixture
    lru_cache overload override runtime_checkable total_ordering trace wraps
    """.split()  # noqa: SIM905
)


def _defined(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Meaning:
    """What a definition binds its name to: for a decorated one, what a decorator makes of it."""
    for decorator in node.decorator_list:
        if _is_task_decorator(_called(decorator)):
            return Meaning("value", f"{_expression(decorator) or '?.task'}(_)")
    for decorator in node.decorator_list:
        made = _expression(decorator)
        if not made:
            return Meaning("unknown")
        if _last(_called(decorator)) not in _KEEPING:
            return Meaning("value", f"{made}(_)")
    if isinstance(node, ast.ClassDef):
        generic = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
        return Meaning("class", "", tuple(map(_expression, generic)))
    is_async = isinstance(node, ast.AsyncFunctionDef)
    return Meaning("function", "async" if is_async else "", (), tuple(_returned(node)))


def _is_task_decorator(called: ast.expr) -> bool:
    """Whether it is `ENV.task` or `ENV.sandbox.orchestrator`."""
    return isinstance(called, ast.Attribute) and (
        called.attr == "task"
        or (called.attr == "orchestrator" and _last(called.value) == "sandbox")
    )


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _returned(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Meaning]:
    """What a function returns, by its annotation and by its `return` statements.

    They speak of the names of the module around it: what is said of others is made unknown.
    """
    annotation = node.returns
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except (SyntaxError, ValueError):
            annotation = None
    if annotation is not None and (name := _expression(annotation)):
        yield Meaning("value", f"{name}()")
    local = _Bindings()
    returns: list[ast.expr | None] = []
    for statement, maybe in _top_level(node.body):
        local.read(statement, maybe)
        if isinstance(statement, ast.Return):
            returns.append(statement.value)
    arguments = node.args
    every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    for argument in (*every, arguments.vararg, arguments.kwarg):
        if argument is not None:
            local.names[argument.arg] = [Meaning("unknown")]
    for value in returns:
        for meaning in _meanings(value):
            yield from _seen_outside(meaning, local.names)


def _seen_outside(
    meaning: Meaning, local: Mapping[str, list[Meaning]], depth: int = 0
) -> Iterator[Meaning]:
    """A meaning without the local names of its function: with what these are bound to."""
    root = _root(meaning.of)
    if meaning.kind != "value" or root not in local:
        yield meaning
        return
    rest = meaning.of[len(root) :]
    for bound in local[root] if depth < 10 else ():
        if bound.kind == "value":
            inner = Meaning("value", bound.of + rest, bound.names if not rest else meaning.names)
            yield from _seen_outside(inner, local, depth + 1)
        elif not rest:
            yield bound
        else:
            # An environment that is a parameter: its tasks are tasks.
            is_task = rest.startswith((".task(", ".sandbox.orchestrator("))
            yield Meaning("value", f"?{rest}") if is_task else Meaning("unknown")


_LITERALS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((ast.JoinedStr,), "a string"),
    ((ast.List, ast.ListComp), "a list"),
    ((ast.Tuple,), "a tuple"),
    ((ast.Dict, ast.DictComp), "a dictionary"),
    ((ast.Set, ast.SetComp), "a set"),
    ((ast.GeneratorExp,), "a generator"),
    ((ast.Lambda,), "a function"),
    ((ast.Compare,), "a comparison"),
)


def _meanings(value: ast.expr | None) -> Iterator[Meaning]:
    """What a value may be."""
    if isinstance(value, ast.IfExp):
        yield from _meanings(value.body)
        yield from _meanings(value.orelse)
    elif isinstance(value, ast.BoolOp):
        for one in value.values:
            yield from _meanings(one)
    elif value is not None and (made := _expression(value)):
        arguments = value.args if isinstance(value, ast.Call) else []
        yield Meaning("value", made, tuple(filter(None, map(_expression, arguments))))
    else:
        yield _literal(value)


def _literal(value: ast.expr | None) -> Meaning:
    if isinstance(value, ast.Constant):
        words = {str: "a string", bytes: "a bytes literal", bool: "a boolean", type(None): "None"}
        return Meaning("other", words.get(type(value.value), "a number"))
    if isinstance(value, ast.UnaryOp) and isinstance(value.operand, ast.Constant):
        return Meaning("other", "a number")
    if isinstance(value, ast.BinOp) and "other" in (
        _literal(value.left).kind,
        _literal(value.right).kind,
    ):
        return Meaning("other", "the result of an operator")
    while isinstance(value, (ast.Call, ast.Attribute)):  # `", ".join(names)`
        value = value.func if isinstance(value, ast.Call) else value.value
        if isinstance(value, (ast.Constant, ast.JoinedStr)):
            return Meaning("other", "what a method of a literal gives")
    for types, what in _LITERALS:
        if isinstance(value, types):
            return Meaning("other", what)
    return Meaning("unknown")


def _called(node: ast.expr) -> ast.expr:
    """`a.b` of `a.b(...)(...)`."""
    while isinstance(node, ast.Call):
        node = node.func
    return node


def _expression(node: ast.expr) -> str:
    """A value as `Meaning` writes it; "" if it is more than names, attributes and calls."""
    parts = []
    while True:
        if isinstance(node, ast.Call):
            parts.append("(_)" if node.args else "()")
            node = node.func
        elif isinstance(node, ast.Attribute):
            parts.append(f".{node.attr}")
            node = node.value
        elif isinstance(node, ast.Name):
            return node.id + "".join(reversed(parts))
        else:
            return ""


def _root(expression: str) -> str:
    """The first name in it."""
    return re.split(r"[.(]", expression, maxsplit=1)[0]


# --- imports and included files -------------------------------------------------------------------


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
        parts = re.split(r"[.()_]+", _expression(node.func))
        if any(p.endswith("Environment") for p in parts) or _last(node.func) == "clone_with":
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
