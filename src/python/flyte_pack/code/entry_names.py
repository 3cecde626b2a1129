"""What a name of a module stands for, as far as syntax trees say: `Code.named` is the question.

It follows names through assignments, imports, base classes and functions that return something,
across the first-party modules that it is given. Nothing is imported or run.
"""

from __future__ import annotations

import builtins
import re
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Iterable, Iterator, Mapping, Optional

from flyte_pack.code.module_scan import Meaning, ModuleScan


class Kind(Enum):
    """What an entry point may name."""

    TASK = "task"
    ENVIRONMENT = "environment"
    APP = "app"
    OTHER = "other"  # certainly none of these
    UNKNOWN = "unknown"  # only an import of the module shows it
    MISSING = "missing"  # the module has no such name


Place = tuple[str, str]
"""A module and a name in it; the module is "" where a name of other people's code is dotted."""


@dataclass(frozen=True)
class Named:
    """What a name stands for.

    what: in words, of what is `OTHER`. at: where it was made, of which the name may be an alias.
    environment: that of a task, if it has a name. tasks: expressions for the tasks that
    `TaskEnvironment.from_task` got.
    """

    kind: Kind
    what: str = ""
    at: Optional[Place] = None
    environment: Optional[Place] = None
    tasks: tuple[str, ...] = ()


class Wanted(Exception):
    """An answer needs to know about this module: `Code.add` it, and ask again."""

    def __init__(self, module: str) -> None:
        super().__init__(module)
        self.module = module


@dataclass(frozen=True)
class _Value:
    """What an expression gives.

    kind: the values of `Kind`, or one of
        module, external  a module, first-party or not; or something in one of other people. what:
                          its dotted name
        class, function   of `module`, by `meaning`
        method            `what` of `of`, an environment, an app, a class or something unknown
        data              as `other`, and so is all that comes of it
        again             the name itself that is asked for, as in `img = img.with_env_vars(...)`
    sure: False if it may be something unknown as well.
    """

    kind: str
    what: str = ""
    at: Optional[Place] = None
    module: str = ""
    meaning: Optional[Meaning] = None
    of: Optional[_Value] = None
    environment: Optional[Place] = None
    tasks: tuple[str, ...] = ()
    sure: bool = True


_UNKNOWN = _Value("unknown")
_AGAIN = _Value("again")
# Where a name has several meanings, as in branches, the first of these kinds counts.
_ORDER = (
    *("task", "environment", "app", "module", "external", "class", "function", "method"),
    *("unknown", "data", "other", "missing"),
)
_FOUND = ("task", "environment", "app")


@dataclass
class Code:
    """The first-party modules that are known so far, by dotted name; None is known not to exist.

    packages: those of them that are an `__init__.py`. files: the path and the source of each.
    """

    scans: dict[str, Optional[ModuleScan]] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def add(
        self,
        module: str,
        scan: Optional[ModuleScan],
        is_package: bool = False,
        file: tuple[str, bytes] = ("", b""),
    ) -> None:
        self.scans[module] = scan
        self.files[module] = file
        if is_package:
            self.packages.add(module)

    # -- what is asked

    def named(self, module: str, name: str) -> Named:
        """What `name` stands for in `module`. Raises `Wanted` if that takes another module."""
        value = self._lookup(module, name, frozenset())
        if value.kind in _FOUND:
            return Named(Kind(value.kind), "", value.at, value.environment, value.tasks)
        if value.kind == "missing":
            return Named(Kind.MISSING)
        at = self._place(value)
        if any(environment == at for _, environment in self.tasks_in(module)):
            return Named(Kind.ENVIRONMENT, at=at)
        if value.sure and (what := _words(value)):
            return Named(Kind.OTHER, what, value.at)
        return Named(Kind.UNKNOWN, at=at)

    def tasks_in(self, module: str) -> tuple[tuple[str, Optional[Place]], ...]:
        """The tasks that a module defines, in source order, each with its environment."""
        found = []
        for name, value in self._made_in(module):
            if value.kind == "task":
                found.append((name, value.environment))
        return tuple(found)

    def environments_in(self, module: str) -> tuple[str, ...]:
        """The names that stand for environments of tasks: made here, or with tasks here."""
        hung = {environment for _, environment in self.tasks_in(module)}
        scan = self._scan(module)
        assert scan is not None
        names = []
        for name, meanings in scan.bindings:
            value = self._lookup(module, name, frozenset())
            made = value.kind == "environment" and any(m.kind == "value" for m in meanings)
            if made or (value.kind not in ("task", "app") and self._place(value) in hung):
                names.append(name)
        return tuple(names)

    def apps_in(self, module: str) -> tuple[str, ...]:
        """The names that a module binds to app environments."""
        return tuple(name for name, value in self._made_in(module) if value.kind == "app")

    def tasks_of(self, module: str, environment: Named) -> tuple[str, ...]:
        """The names in `module` of the tasks that it defines in an environment."""
        names = [n for n, place in self.tasks_in(module) if place and place == environment.at]
        if environment.at and environment.at[0] == module:
            for expression in environment.tasks:
                if expression.isidentifier() and self.named(module, expression).kind in (
                    Kind.TASK,
                    Kind.UNKNOWN,
                ):
                    names.append(expression)
        return tuple(dict.fromkeys(names))

    def binding_of(self, module: str, dotted: str) -> Optional[Place]:
        """Where the one statement is that binds what `dotted` stands for in `module`, through
        imports. None if there are several, or none that is first-party.
        """
        return self._bound_in(module, dotted, frozenset())

    def _bound_in(self, module: str, dotted: str, seen: frozenset[Place]) -> Optional[Place]:
        name, _, rest = dotted.partition(".")
        if not name or (module, dotted) in seen:
            return None
        seen = seen | {(module, dotted)}
        scan = self._scan(module)
        meanings = dict(scan.bindings).get(name) if scan else None
        if scan and meanings is None:
            stars = (self._absolute(module, star) for star in scan.stars)
            found = [place for star in stars if (place := self._bound_in(star, dotted, seen))]
            if found:
                return found[0] if len(found) == 1 else None
        if not meanings:  # a module, as of a package that does not import it
            return self._bound_in(f"{module}.{name}", rest, seen) if rest else None
        if len(meanings) > 1 or (meanings[0].kind != "import" and rest):
            return None
        if meanings[0].kind != "import":
            return module, name
        where, _, imported = meanings[0].of.partition(":")
        inner = ".".join(filter(None, [imported, rest]))
        return self._bound_in(self._absolute(module, where), inner, seen)

    # -- names

    def _made_in(self, module: str) -> Iterator[tuple[str, _Value]]:
        """The names that a module binds itself, rather than imports, with what they are."""
        scan = self._scan(module)
        assert scan is not None
        for name, meanings in scan.bindings:
            if any(meaning.kind == "value" for meaning in meanings):
                value = self._lookup(module, name, frozenset())
                if value.at == (module, name):
                    yield name, value

    def _scan(self, module: str) -> Optional[ModuleScan]:
        if module not in self.scans:
            raise Wanted(module)
        return self.scans[module]

    def _lookup(self, module: str, name: str, seen: frozenset[Place]) -> _Value:
        if (module, name) in seen:
            return _AGAIN
        scan = self._scan(module)
        assert scan is not None
        seen = seen | {(module, name)}
        meanings = dict(scan.bindings).get(name)
        if meanings is None:
            return self._not_bound(module, scan, name, seen)
        value = _merged(self._value(module, meaning, seen) for meaning in meanings)
        return value if value.at or value.kind == "module" else replace(value, at=(module, name))

    def _not_bound(
        self, module: str, scan: ModuleScan, name: str, seen: frozenset[Place]
    ) -> _Value:
        if name == "?":
            return _UNKNOWN
        beyond = False
        for star in scan.stars:
            found = self._attribute(_Value("module", self._absolute(module, star)), name, seen)
            if found.kind == "external":
                beyond = True
                if _is_flyte(found.what) and _result_of(found.what).kind in _FOUND:
                    return found
            elif found.kind != "missing":
                return found
        if scan.hides_names or beyond:
            return _UNKNOWN
        inner = f"{module}.{name}"
        if module in self.packages and self._scan(inner) is not None:
            return _Value("module", inner)
        return _Value("missing")

    def _absolute(self, module: str, named: str) -> str:
        """The dotted name of an imported module. named: with its leading dots."""
        level = len(named) - len(named.lstrip("."))
        if not level:
            return named
        parts = module.split(".")
        kept = parts[: len(parts) - level + (module in self.packages)]
        return ".".join([*kept, *filter(None, [named[level:]])])

    def _value(self, module: str, meaning: Meaning, seen: frozenset[Place]) -> _Value:
        if meaning.kind == "value":
            return self._evaluated(module, meaning, seen)
        if meaning.kind == "import":
            where, _, name = meaning.of.partition(":")
            imported = _Value("module", self._absolute(module, where))
            return self._attribute(imported, name, seen) if name else imported
        if meaning.kind in ("class", "function"):
            return _Value(meaning.kind, module=module, meaning=meaning)
        return _Value(meaning.kind, meaning.of)

    # -- expressions

    def _evaluated(self, module: str, meaning: Meaning, seen: frozenset[Place]) -> _Value:
        root, *steps = re.findall(r"[^.()]+|\(_?\)", meaning.of)
        value = self._lookup(module, root, seen)
        if value.kind == "missing":
            value = _Value("external", f"builtins.{root}" if hasattr(builtins, root) else root)
        for number, step in enumerate(steps):
            if step.startswith("("):
                names = meaning.names if number == len(steps) - 1 else ()
                value = self._called(value, step == "(_)", names, seen)
            else:
                value = self._attribute(value, step, seen)
        return value

    def _attribute(self, value: _Value, name: str, seen: frozenset[Place]) -> _Value:
        if value.kind == "module":
            inner = f"{value.what}.{name}"
            found = _Value("external", inner)
            if self._scan(value.what) is not None:
                found = self._lookup(value.what, name, seen)
                if found.kind not in ("missing", "again"):
                    return found  # else it may be a module: a package's `from . import x` binds one
            if not _is_flyte(inner) and self._scan(inner) is not None:
                return _Value("module", inner)
            return found
        if value.kind == "external":
            if name in ("task", "sandbox") and not _is_flyte(value.what):
                return _Value("method", name, of=value)
            inner = f"{value.what}.{name}"
            if not _is_flyte(inner) and self._scan(inner) is not None:
                return _Value("module", inner)
            return _Value("external", inner)
        if value.kind == "method" and value.what == "sandbox" and name == "orchestrator":
            return _Value("method", "task", of=value.of)
        if value.kind in ("environment", "app", "task", "class", "unknown"):
            return _Value("method", name, of=value)
        if value.kind == "again" or (value.kind == "data" and name != "task"):
            return value
        if name == "task" and value.kind in ("data", "other", "function"):
            return _Value("method", name, of=value)
        return _UNKNOWN

    def _called(
        self, value: _Value, arguments: bool, names: tuple[str, ...], seen: frozenset[Place]
    ) -> _Value:
        if value.kind == "method" and value.of is not None:
            return self._method(value, value.of, arguments, names, seen)
        if value.kind == "class":
            return self._instance(value, seen)
        if value.kind == "function" and value.meaning is not None:
            if value.meaning.of == "async":
                return _Value("other", "a coroutine")
            if not value.meaning.returns:
                return _Value("other", "the result of a function that returns nothing")
            if value.at in seen:
                return _UNKNOWN
            inner = seen | {value.at} if value.at else seen
            return _merged(
                replace(self._value(value.module, returned, inner), at=None)
                for returned in value.meaning.returns
            )
        if value.kind == "external":
            return replace(_result_of(value.what), tasks=names)
        if value.kind == "task":
            return _Value("other", "the result of a call of a task")
        return value if value.kind in ("again", "data") else _UNKNOWN

    def _method(
        self,
        method: _Value,
        of: _Value,
        arguments: bool,
        names: tuple[str, ...],
        seen: frozenset[Place],
    ) -> _Value:
        if method.what == "task":
            if of.kind in ("app", "data", "other", "function", "class"):
                return _Value("other", f"a function under `.task` of {_words(of) or 'a class'}")
            if of.kind == "task":
                return _UNKNOWN
            if not arguments:
                return method  # `env.task(retries=2)` makes a decorator
            return _Value("task", environment=self._place(of))
        if of.kind == "app" and method.what in ("server", "on_startup", "on_shutdown"):
            return _Value("other", "a function of an app environment")
        if method.what == "clone_with" and of.kind in ("environment", "app"):
            return _Value(of.kind)
        if method.what == "override" and of.kind == "task":
            return replace(of, at=None)
        if method.what == "from_task" and of.kind == "class":
            return replace(self._instance(of, seen), tasks=names)
        return _UNKNOWN

    def _instance(self, value: _Value, seen: frozenset[Place]) -> _Value:
        """What calling a class makes, as far as its base classes say."""
        assert value.meaning is not None
        if value.at in seen:
            return _UNKNOWN
        inner = seen | {value.at} if value.at else seen
        made = [_Value("other", "an object of a class")]
        for base in value.meaning.names:
            if not base:
                made.append(_UNKNOWN)
                continue
            of = self._evaluated(value.module, Meaning("value", base), inner)
            known = of.kind in ("class", "external")
            made.append(self._called(of, False, (), inner) if known else _UNKNOWN)
        return _merged(made)

    def _place(self, value: _Value) -> Optional[Place]:
        """Where an environment was made. Of other people's code: its dotted name."""
        return ("", value.what) if value.kind == "external" else value.at


def _merged(values: Iterable[_Value]) -> _Value:
    every = [value for value in values if value.kind != "again"] or [_UNKNOWN]
    first = min(every, key=lambda value: _ORDER.index(value.kind))
    sure = all(v.sure and v.kind not in ("unknown", "external", "missing") for v in every)
    return first if len(every) == 1 else replace(first, sure=sure)


def _words(value: _Value) -> str:
    """What something is that is no task; "" if that is not known."""
    if value.kind == "external":
        last = value.what.rpartition(".")[2]
        root = value.what.partition(".")[0]
        if root in _STANDARD or (_is_flyte(value.what) and last[0].isupper()):
            return f"`{value.what.replace('builtins.', '')}` itself"
        return ""
    words = {
        "app": "an app environment",
        "class": "a class",
        "function": "a function without `@ENV.task` above it",
        "module": "a module",
        "data": value.what,
        "other": value.what,
    }
    if value.kind == "method":
        known = value.of is not None and value.of.kind in ("environment", "app", "task")
        return f"the method `{value.what}`" if known else ""
    return words.get(value.kind, "")


# --- what is not first-party ----------------------------------------------------------------------

# What calls of these modules give is data. Left out: those that give back what they are given.
_STANDARD = frozenset(
    """
    abc argparse base64 builtins collections dataclasses datetime decimal enum glob hashlib
    itertools json logging math os pathlib platform pytest random re shlex shutil socket statistics
    string struct subprocess sys tempfile textwrap threading time typing uuid
    """.split()  # noqa: SIM905  # a list of them is 35 lines
)
# Of the package `flyte`: what is used beside tasks.
_PARTS = frozenset(
    """
    Cache Cron Device FixedRate GPU HPU Image NEURON Neuron PodTemplate Resources RetryStrategy
    ReusePolicy Secret TPU Timeout Trigger
    """.split()  # noqa: SIM905
)
_MAKES_TASKS = frozenset(["flyte.sandbox.orchestrator_from_str"])
_MAKES_OTHER: Mapping[str, str] = {
    "flyte.extras.shell.create": "a shell command, which a task calls",
    "flyte.sandbox.create": "a sandbox of code, which a task calls",
    "flyte.map": "the result of a call of `flyte.map`",
    "flyte.run": "a run",
    "flyte.syncify.syncify": "a function",
}


def _is_flyte(dotted: str) -> bool:
    return dotted.partition(".")[0] in ("flyte", "flyteplugins", "union")


def _result_of(dotted: str) -> _Value:
    """What a call of other people's code gives, by its name."""
    root, *rest = parts = dotted.split(".")
    of_class = next((number for number, part in enumerate(parts) if part[:1].isupper()), None)
    if of_class is not None:
        name, method = parts[of_class], parts[of_class + 1 :]
        if method in ([], ["from_task"], ["()"]):
            if name.endswith("TaskEnvironment"):
                return _Value("environment")
            if name.endswith(("AppEnvironment", "ConnectorEnvironment")):
                return _Value("app")
    if _is_flyte(dotted):
        if rest[:1] == ["remote"]:
            return _Value("data", f"what `{dotted}` finds at a control plane")
        if root == "flyte" and of_class is not None and name in _PARTS:
            return _Value("data", f"made by `{root}.{name}`")
        if of_class is not None and not method and name.endswith(("Task", "TaskTemplate")):
            return _Value("task")
        if dotted in _MAKES_TASKS or dotted == "flyteplugins.snowflake.Snowflake":
            return _Value("task")
        if dotted in _MAKES_OTHER:
            return _Value("other", _MAKES_OTHER[dotted])
        return _UNKNOWN
    if root == "flytekit":
        return _Value("data", "made by Flyte 1 (`flytekit`), and this is for Flyte 2 (`flyte`)")
    if root in _STANDARD:
        return _Value("data", f"what `{dotted.replace('builtins.', '')}` gives")
    return _UNKNOWN
