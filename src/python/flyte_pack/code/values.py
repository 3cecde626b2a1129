"""What names and expressions of a module stand for, and what texts, as far as its source says so.

Nothing is imported or run. Standard library alone, as `flyte_pack.code.code_scan` has it.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
from typing import Iterable, Iterator, NamedTuple, Sequence, Union

# Stands for the module's own package at the start of a text.
OWN_PACKAGE = "\0"

# No expression that people write needs as much; one that is made to take long ends there.
MOST_STEPS = 2_000
MOST_TEXTS = 500
DEEPEST = 40

OF_MODULES = frozenset(("__file__", "__name__", "__package__"))
_SAME_ELEMENTS = frozenset(("sorted", "list", "tuple", "set", "frozenset", "reversed", "iter"))


class _Each(NamedTuple):
    """One element of what a loop goes through; the `part` of it, if it is taken apart."""

    of: ast.expr
    part: int | None


class _Default(NamedTuple):
    value: ast.expr


class _Opaque(NamedTuple):
    """A value that the source does not say."""


class _Grown(NamedTuple):
    """What joins the elements of a list. is_sum: by `+=`, which also changes what is no list."""

    by: ast.expr
    is_sum: bool = False


_Bound = Union[ast.expr, _Each, _Default, _Opaque, _Grown]


_BINDING = frozenset(
    (
        *(ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr, ast.For, ast.AsyncFor),
        *(ast.comprehension, ast.With, ast.AsyncWith, ast.FunctionDef, ast.AsyncFunctionDef),
        ast.Expr,
    )
)


class _Scope:
    def __init__(self, parent: _Scope | None, is_class: bool = False) -> None:
        self.parent = parent
        self.is_class = is_class
        self.bound: dict[str, list[_Bound]] = {}

    def find(self, name: str) -> list[_Bound]:
        if name in self.bound:
            return self.bound[name]
        above = self.parent
        while above is not None and above.is_class:
            above = above.parent
        return above.find(name) if above is not None else []


class Values:
    """Of the expressions of one module.

    loose: whether the last answer has what is only one of several, such as the entries of a table,
    or a parameter's default.
    """

    def __init__(self, nodes: Sequence[ast.AST], path: str = "_") -> None:
        """nodes: all of the module, by `nodes_of`. path: its own."""
        self.file_name = os.path.basename(path)
        self.is_package = self.file_name == "__init__.py"
        self.modules = _imported_modules(nodes)
        self.loose = False
        self._steps = 0
        self._attributes: dict[str, list[_Bound]] = {}
        self._top = _Scope(None)
        self._scopes: dict[int, _Scope] = {}
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                scope = _Scope(self._at(node.lineno), isinstance(node, ast.ClassDef))
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    self._scopes[line] = scope
        for node in nodes:
            if node.__class__ in _BINDING:
                self._bind(node)

    def _at(self, line: int) -> _Scope:
        return self._scopes.get(line, self._top)

    # --- what names are bound to ------------------------------------------------------------------

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
            if node.value is not None:
                self._assign(node.target, node.value)
        elif isinstance(node, ast.AugAssign):
            more = ast.Starred(node.value, ast.Load())
            self._assign(node.target, _Grown(_like(more, node.value), is_sum=True))
        elif isinstance(node, ast.Expr):
            self._grow(node.value)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self._loop(node.target, node.iter, node.lineno)
        elif isinstance(node, ast.comprehension):
            self._loop(node.target, node.iter, node.target.lineno)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                if isinstance(item.optional_vars, ast.Name):
                    self._assign(item.optional_vars, item.context_expr)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._parameters(node.args, self._at(node.lineno))

    def _grow(self, call: ast.expr) -> None:
        """By `x.append(...)` or `x.extend(...)`, wherever `x` was bound."""
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            return
        how, of = call.func.attr, call.func.value
        if how in ("append", "extend") and isinstance(of, ast.Name) and len(call.args) == 1:
            more = call.args[0]
            if how == "extend":
                more = _like(ast.Starred(more, ast.Load()), more)
            bound = self._at(call.lineno).find(of.id)
            if bound:
                bound.append(_Grown(more))

    def _assign(self, target: ast.expr, value: _Bound) -> None:
        if isinstance(target, ast.Name):
            scope = self._at(target.lineno)
            scope.bound.setdefault(target.id, []).append(value)
            if scope.is_class:
                self._attributes.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Attribute):
            if isinstance(target.value, ast.Name) and target.value.id in ("self", "cls"):
                self._attributes.setdefault(target.attr, []).append(value)
        elif isinstance(target, (ast.Tuple, ast.List)):
            values: Sequence[_Bound] = [_Opaque()] * len(target.elts)
            if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
                values = value.elts
            for part, its in zip(target.elts, values):
                self._assign(part, its)

    def _loop(self, target: ast.expr, of: ast.expr, line: int) -> None:
        if isinstance(target, ast.Name):
            self._at(line).bound.setdefault(target.id, []).append(_Each(of, None))
        elif isinstance(target, (ast.Tuple, ast.List)):
            for index, part in enumerate(target.elts):
                if isinstance(part, ast.Name):
                    self._at(line).bound.setdefault(part.id, []).append(_Each(of, index))

    def _parameters(self, args: ast.arguments, scope: _Scope) -> None:
        plain = [*args.posonlyargs, *args.args]
        defaults: list[ast.expr | None] = [None] * (len(plain) - len(args.defaults))
        given = [*zip(plain, [*defaults, *args.defaults]), *zip(args.kwonlyargs, args.kw_defaults)]
        for arg, default in given:
            value: _Bound = _Default(default) if default is not None else _Opaque()
            scope.bound.setdefault(arg.arg, []).append(value)
        for one in (args.vararg, args.kwarg):
            if one is not None:
                scope.bound.setdefault(one.arg, []).append(_Opaque())

    def only(self, node: ast.expr | None) -> ast.expr | None:
        """The expression that a name stands for, through others; the node itself if it is none."""
        self._steps = 0
        return self._only(node, 0)

    def _only(self, node: ast.expr | None, depth: int) -> ast.expr | None:
        while isinstance(node, (ast.Name, ast.Attribute)):
            depth += 1
            values = list(self._values_of(node, depth)) if depth <= DEEPEST else []
            if len(values) != 1:
                return node
            node = values[0]
        return node

    def _values_of(self, node: ast.Name | ast.Attribute, depth: int) -> Iterator[ast.expr]:
        """What it may stand for; nothing if there is something else that is not known."""
        if isinstance(node, ast.Name):
            bound = self._at(node.lineno).find(node.id)
        elif isinstance(node.value, ast.Name) and (
            node.value.id in ("self", "cls") or self._is_class(node.value)
        ):
            bound = self._attributes.get(node.attr, [])
        else:
            return
        grown = [one for one in bound if isinstance(one, _Grown)]
        if grown:
            first = bound[0]
            is_list = isinstance(first, (ast.List, ast.Tuple))
            bound = [
                one for one in bound if not isinstance(one, _Grown) or (one.is_sum and not is_list)
            ]
            if isinstance(first, (ast.List, ast.Tuple)):
                whole = ast.List([*first.elts, *(one.by for one in grown)], ast.Load())
                bound[0] = _like(whole, first)
        if len(bound) != 1:
            return
        value = bound[0]
        if isinstance(value, _Default):
            self.loose = True
            yield value.value
        elif isinstance(value, _Each):
            for element in self._elements(value.of, depth):
                if value.part is None:
                    yield element
                elif isinstance(element, (ast.Tuple, ast.List)):
                    yield from element.elts[value.part : value.part + 1]
        elif not isinstance(value, (_Opaque, _Grown)):
            yield value

    def _is_class(self, name: ast.Name) -> bool:
        return name.id[:1].isupper() and not self._at(name.lineno).find(name.id)

    # --- collections ------------------------------------------------------------------------------

    def elements(self, node: ast.expr | None) -> list[ast.expr]:
        """What a loop over it goes through; those alone that the source says."""
        self._steps, self.loose = 0, False
        return self._elements(node, 0)

    def _elements(self, node: ast.expr | None, depth: int) -> list[ast.expr]:
        self._steps += 1
        if depth > DEEPEST or self._steps > MOST_STEPS:
            return []
        node = self._only(node, depth)
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            found: list[ast.expr] = []
            for one in node.elts:
                found += (
                    self._elements(one.value, depth + 1) if isinstance(one, ast.Starred) else [one]
                )
            return found
        if isinstance(node, ast.Dict):
            return [key for key in node.keys if key is not None]
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.BitOr)):
            return [*self._elements(node.left, depth + 1), *self._elements(node.right, depth + 1)]
        if not isinstance(node, ast.Call):
            return []
        name = last_name(node.func)
        if isinstance(node.func, ast.Name) and node.args:
            if name in _SAME_ELEMENTS:
                return self._elements(node.args[0], depth + 1)
            if name == "enumerate":
                return [
                    _like(ast.Tuple([_like(ast.Constant(None), node), one], ast.Load()), node)
                    for one in self._elements(node.args[0], depth + 1)
                ]
        if name == "split" and isinstance(node.func, ast.Attribute):
            if last_name(node.func.value) == "shlex":
                return self._split(node, depth)
            texts = self._texts(node.func.value, depth)[:1]
            separator = (*(self._texts(node.args[0], depth) if node.args else ()), None)[0]
            parts = [part for text in texts if separator != "" for part in text.split(separator)]
            return [_like(ast.Constant(part), node) for part in parts]
        if isinstance(node.func, ast.Attribute):
            table = self._only(node.func.value, depth)
            if isinstance(table, ast.Dict):
                pairs = [(key, of) for key, of in zip(table.keys, table.values) if key is not None]
                if name == "values":
                    return [of for _, of in pairs]
                if name == "keys":
                    return [key for key, _ in pairs]
                if name == "items":
                    return [_like(ast.Tuple([*pair], ast.Load()), node) for pair in pairs]
        return []

    def _split(self, node: ast.Call, depth: int) -> list[ast.expr]:
        words: list[str] = []
        for text in self._texts(node.args[0], depth)[:1] if node.args else ():
            try:
                words = shlex.split(text)
            except ValueError:  # an open quotation mark
                return []
        return [_like(ast.Constant(word), node) for word in words]

    def _alternatives(self, node: ast.expr, depth: int) -> Iterator[ast.expr]:
        """What it may be: through names, tables, conditions."""
        self._steps += 1
        if depth > DEEPEST or self._steps > MOST_STEPS:
            return
        if isinstance(node, ast.Name) and node.id in OF_MODULES:
            yield node
        elif isinstance(node, (ast.Name, ast.Attribute)):
            known = list(self._values_of(node, depth + 1))
            for value in known:
                yield from self._alternatives(value, depth + 1)
            if not known and isinstance(node, ast.Attribute):
                yield node
        elif isinstance(node, ast.IfExp):
            self.loose = True
            yield from self._alternatives(node.body, depth + 1)
            yield from self._alternatives(node.orelse, depth + 1)
        elif isinstance(node, ast.Subscript) and not _is_path_part(node):
            for table in self._alternatives(node.value, depth + 1):
                yield from self._entries(table, node.slice, depth)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("get", "pop", "setdefault")
            and node.args
        ):
            for table in self._alternatives(node.func.value, depth + 1):
                if isinstance(table, ast.Dict):
                    yield from self._entries(table, node.args[0], depth)
            for default in node.args[1:2]:
                yield from self._alternatives(default, depth + 1)
        else:
            yield node

    def _entries(self, table: ast.expr, index: ast.expr, depth: int) -> Iterator[ast.expr]:
        at = index.value if isinstance(index, ast.Constant) else None
        found: list[ast.expr] = []
        if isinstance(table, ast.Dict):
            pairs = list(zip(table.keys, table.values))
            found = [v for k, v in pairs if isinstance(k, ast.Constant) and k.value == at]
            if at is None:
                self.loose = True
                found = [value for _, value in pairs]
        elif isinstance(table, (ast.List, ast.Tuple)):
            if isinstance(at, int):
                found = table.elts[at : at + 1] if at >= 0 else table.elts[at:][:1]
            elif not isinstance(index, ast.Slice):
                self.loose = True
                found = table.elts
        for one in found:
            yield from self._alternatives(one, depth + 1)

    # --- texts ------------------------------------------------------------------------------------

    def texts(self, node: ast.expr | None) -> tuple[str, ...]:
        """All that it may be, as far as they are known. `OWN_PACKAGE` may begin them."""
        self._steps, self.loose = 0, False
        return () if node is None else self._texts(node, 0)

    def text(self, node: ast.expr | None) -> str | None:
        """If it can only be one."""
        found = self.texts(node)
        return found[0] if len(found) == 1 else None

    def _texts(self, node: ast.expr, depth: int) -> tuple[str, ...]:
        found: list[str] = []
        for one in self._alternatives(node, depth):
            found += self._of_one(one, depth + 1)
        return tuple(dict.fromkeys(found))[:MOST_TEXTS]

    def _of_one(self, node: ast.expr, depth: int) -> Iterable[str]:
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        if isinstance(node, ast.Name):
            is_own = node.id == "__package__" or (self.is_package and node.id == "__name__")
            return [OWN_PACKAGE] if is_own else []
        if isinstance(node, (ast.Subscript, ast.Attribute)):
            return [OWN_PACKAGE] if self._is_own_package(node) else []
        if isinstance(node, ast.JoinedStr):
            return self._product([self._formatted(one, depth) for one in node.values])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._product([self._texts(node.left, depth), self._texts(node.right, depth)])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            parts = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
            return self._filled(node.left, "%s", parts, {}, depth)
        if isinstance(node, ast.Call):
            name = last_name(node.func)
            if name == "str" and len(node.args) == 1:
                return self._texts(node.args[0], depth)
            if isinstance(node.func, ast.Attribute):
                if name == "format":
                    named = {one.arg: one.value for one in node.keywords if one.arg is not None}
                    return self._filled(node.func.value, "{}", node.args, named, depth)
                if name == "join" and len(node.args) == 1:
                    texts = [self._texts(one, depth) for one in self._elements(node.args[0], depth)]
                    return [
                        separator.join(parts)
                        for separator in self._texts(node.func.value, depth)
                        for parts in itertools.islice(itertools.product(*texts), MOST_TEXTS)
                        if parts
                    ]
        return []

    def _is_own_package(self, node: ast.Subscript | ast.Attribute) -> bool:
        """Whether it is `__spec__.parent`, or what a plain module makes of its name."""
        if isinstance(node, ast.Attribute):
            return dotted(node) == "__spec__.parent"
        return not self.is_package and ast.dump(node) in _ABOVE_NAME

    def _formatted(self, node: ast.expr, depth: int) -> tuple[str, ...]:
        if isinstance(node, ast.FormattedValue):
            if node.format_spec is not None or node.conversion not in (-1, ord("s")):
                return ()
            node = node.value
        return self._texts(node, depth)

    def _product(self, parts: Sequence[tuple[str, ...]]) -> list[str]:
        return ["".join(one) for one in itertools.islice(itertools.product(*parts), MOST_TEXTS)]

    def _filled(
        self,
        template: ast.expr,
        hole: str,
        given: Sequence[ast.expr],
        named: dict[str, ast.expr],
        depth: int,
    ) -> list[str]:
        found: list[str] = []
        for text in self._texts(template, depth):
            pattern = r"(%s)" if hole == "%s" else r"(\{\w*\})"
            values: list[tuple[str, ...]] = []
            count = 0
            for number, part in enumerate(re.split(pattern, text)):
                if number % 2 == 0:
                    values.append((part,) if not re.search(r"[%{}]", part) else ())
                    continue
                key = part[1:-1] if hole == "{}" else ""
                node = named.get(key)
                if node is None:
                    at = int(key) if key.isdigit() else count
                    node = given[at] if at < len(given) and (not key or key.isdigit()) else None
                    count += 1
                values.append(() if node is None else self._texts(node, depth))
            found += self._product(values)
        return found

    def called(self, func: ast.expr) -> str:
        """The whole name of a function: `os.path.join` for `join` after `from os.path import`."""
        written = dotted(func)
        first, _, rest = written.partition(".")
        base = self.modules.get(first, first)
        return f"{base}.{rest}" if rest else base


_ABOVE_NAME = frozenset(
    ast.dump(ast.parse(f"__name__.{how}[0]", mode="eval").body)
    for how in ("rpartition('.')", "rsplit('.', 1)", "rsplit('.', maxsplit=1)")
)


def _is_path_part(node: ast.Subscript) -> bool:
    """Whether it is `path.parents[1]` or `os.path.split(path)[0]`."""
    return last_name(node.value) == "parents" or isinstance(node.value, ast.Call)


def _imported_modules(nodes: Sequence[ast.AST]) -> dict[str, str]:
    """The module, or what may be one, that a name is imported as; with its leading dots."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or first] = first
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                joined = f"{base}{alias.name}" if base.endswith(".") else f"{base}.{alias.name}"
                found[alias.asname or alias.name] = joined
    return found


def _like(node: ast.expr, other: ast.expr) -> ast.expr:
    return ast.copy_location(node, other)


def last_name(node: ast.AST | None) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def absolute(name: str, package: str) -> str:
    """The whole name of a module that `package` knows as `name`, with leading dots or without.

    The dots must not lead out of the package.
    """
    inner = name.lstrip(".")
    level = len(name) - len(inner)
    if not level:
        return name
    above = package.split(".") if package else []
    return ".".join([*above[: len(above) - level + 1], *([inner] if inner else [])])
