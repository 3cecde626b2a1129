"""Compares what the modules of an artifact import with what will be there when they run. Pure.

An import is *missing* only where that can be proved. What a container brings of its own is not
known, so a name that nobody knows is `UNSURE`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Callable, Collection, Iterable, Iterator, Mapping, NamedTuple, Sequence

from flyte_pack.code.bound_names import UNKNOWN, Bound
from flyte_pack.code.code_scan import CodeScan, Imported
from flyte_pack.code.dynamic_scan import MODULE
from flyte_pack.code.stdlib_modules import in_standard_library, standard_library, versions_with
from flyte_pack.code.values import absolute
from flyte_pack.names import normalized

ERROR, UNSURE, QUIET = "error", "unsure", "quiet"

# Every container of Flyte has these, or no task starts there.
_FLYTE = frozenset(("flyte", "flyteidl2", "flyte_shim"))
# Modules in other files than Python sources; with a stub alone there is none.
_NO_SOURCE = (".so", ".abi3.so", ".pyc", ".pyi")
# Most base images have them, and no lock file must.
_INSTALLERS = frozenset(("setuptools", "pip", "wheel", "distribute"))


@dataclass(frozen=True)
class Module:
    """A module that ships. name: what imports call it there. path: from the build root."""

    path: str
    name: str
    is_package: bool
    scan: CodeScan

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


class Owner(NamedTuple):
    """A module of the repository that does not ship. resolve: None for any."""

    path: str
    owner: str
    resolve: str | None


@dataclass(frozen=True)
class ThirdParty:
    """The distributions of a resolve, as far as they are known.

    modules: each with the requirements that bring it: address, and distribution.
    required: addresses of the requirements that the artifact depends on. excluded: those that
    something takes out. locked: names in the lock file; None without one. needs: what each needs,
    where the lock file says so. mapped: module -> names of distributions that are known to have it.
    in_base: names of those in the base image. is_known: whether nothing else is in the container.
    having: of modules that were asked for, the distributions in the lock file whose wheels have
    them. all_at_hand: whether there was a wheel of each that will be installed.
    """

    resolve: str = ""
    lock: str | None = None
    modules: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()
    locked: frozenset[str] | None = None
    needs: Mapping[str, Collection[str]] | None = None
    mapped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    in_base: frozenset[str] = frozenset()
    is_known: bool = False
    having: Mapping[str, Sequence[str]] = field(default_factory=dict)
    all_at_hand: bool = False

    def installed(self) -> frozenset[str] | None:
        """What the requirements bring, with all that they need; None where that is not known."""
        if self.needs is None:
            return None
        found: set[str] = set()
        waiting = [
            distribution
            for of in self.modules.values()
            for address, distribution in of
            if address in self.required
        ]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.needs.get(name, ())
        return frozenset(found)


@dataclass(frozen=True)
class Surroundings:
    """What there is besides the modules that ship.

    shipped: names of modules that ship, also of those that are no Python source, and of the
    directories above them. compiled: those that Python prefers to a source of that name.
    repository: the modules of the repository by name. provided: modules that the container has.
    minors: the minor versions of Python 3 that may run the code. roots: the source roots of what
    ships. exists: whether the repository has a file, owned or not.
    """

    shipped: frozenset[str]
    repository: Mapping[str, Sequence[Owner]]
    third_party: ThirdParty
    resolve: str
    compiled: Collection[str] = ()
    provided: Collection[str] = ()
    minors: Sequence[int] = ()
    roots: Collection[str] = ()
    exists: Callable[[str], bool] = lambda path: False


@dataclass(frozen=True)
class Finding:
    """An import that finds nothing. certainty: `ERROR`, `UNSURE` or `QUIET`."""

    path: str
    line: int
    said: str
    name: str
    certainty: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: `{self.said}`: {self.advice}"


class _Problem(NamedTuple):
    certainty: str
    advice: str


# Whether a module binds a name cannot be told before somebody looks at its source.
_LATER = _Problem("", "")


class Checker:
    """Once all `findings` are taken, `asked` has the paths of modules of which more must be known:
    `settled` then has the rest, and may ask for others. `unsure` are modules that some
    distribution may have, as its wheel would tell.
    """

    def __init__(
        self,
        modules: Sequence[Module],
        around: Surroundings,
        bound: Mapping[str, Bound] | None = None,
    ) -> None:
        """bound: what modules bind, by path, as far as that is known."""
        self._modules = modules
        self._around = around
        self._by_path = {module.path: module for module in modules}
        self._packages = {module.name: module for module in modules if module.is_package}
        self._plain = {module.name for module in modules if not module.is_package}
        self._bound = {m.path: m.scan.bound for m in modules if m.scan.bound is not None}
        self._bound.update(bound or {})
        self._with_name: dict[str, list[Module]] = {}
        for module in modules:
            self._with_name.setdefault(module.name, []).append(module)
        self._above = {name.rpartition(".")[0] for name in around.shipped}
        self._glanced: dict[str, frozenset[str]] = {}
        self._importers: dict[str, Sequence[Module]] = {}
        self._deferred: list[tuple[Module, Imported]] = []
        self.asked: set[str] = set()
        self.unsure: set[str] = set()
        self._tops = {
            name.partition(".")[0] for name in (*around.shipped, *around.repository) if name
        }
        third = around.third_party
        self._third_tops = {name.partition(".")[0] for name in (*third.modules, *third.mapped)}
        self._installed = third.installed()
        self._open = {m.package for m in modules if m.scan.opens}
        self._set = {name for m in modules for name in m.scan.sets}
        self._known: dict[tuple[str, str, tuple[int, ...]], _Problem | None] = {}
        self._minors: dict[tuple[int, int], tuple[int, ...]] = {}
        self._likes: dict[str, str] = {}
        self._changes_path = any(m.scan.changes_path for m in modules)
        self._file_names = frozenset(name.rpartition(".")[2] for name in around.shipped)

    def findings(self) -> Iterator[Finding]:
        shipped = self._around.shipped
        for module in self._modules:
            for one in module.scan.imports:
                # Nearly all imports are of this kind.
                if not (
                    not one.level
                    and one.module in shipped
                    and (not one.name or self._binds(one.module, one.name))
                ):
                    yield from self._of_import(module, one)
            for called in module.scan.dynamic:
                if called.kind == MODULE:
                    name = called.name.lstrip(".")
                    level = len(called.name) - len(name)
                    one = Imported(name, level, "", called.line, called.guard, how=called.said)
                    yield from self._of_import(module, one)

    def settled(self, bound: Mapping[str, Bound]) -> Iterator[Finding]:
        """What is found in view of the modules that were asked for, by path."""
        self._bound.update({path: bound.get(path, UNKNOWN) for path in self.asked})
        self.asked = set()
        deferred, self._deferred = self._deferred, []
        for module, one in deferred:
            yield from self._of_import(module, one)

    def _of_import(self, module: Module, one: Imported) -> Iterator[Finding]:
        minors = self._minors_of(one.since, one.before)
        if self._around.minors and not minors:
            return
        base = one.module
        if one.level:
            above = module.package.split(".") if module.package else []
            if one.level > len(above):
                advice = "it leads out of the top-level package, which Python refuses"
                yield self._finding(module, one, base, _Problem(ERROR, advice))
                return
            base = absolute("." * one.level + base, module.package)
        name = base
        problem = self._of_module(base, module.path, minors)
        if problem is not None and one.name not in ("", "*"):
            # In a namespace, such as `google.cloud`, the distribution is that of the name.
            whole = f"{base}.{one.name}"
            third = self._around.third_party
            if whole in third.modules or whole in third.mapped:
                name, problem = whole, self._of_module(whole, module.path, minors)
            elif own := self._first_party(whole, module.path):
                name, problem = whole, own  # in a directory that nothing of ships
        if problem is None and one.name not in ("", "*") and base in self._around.shipped:
            name = f"{base}.{one.name}"
            problem = self._of_name(base, one.name, module.path)
        if problem is _LATER:
            self._deferred.append((module, one))
        elif problem is not None:
            yield self._finding(module, one, name, problem)

    def _minors_of(self, since: int, before: int) -> tuple[int, ...]:
        key = (since, before)
        if key not in self._minors:
            self._minors[key] = tuple(m for m in self._around.minors if since <= m < before)
        return self._minors[key]

    def _finding(self, module: Module, one: Imported, name: str, problem: _Problem) -> Finding:
        certainty = QUIET if one.guard else problem.certainty
        return Finding(module.path, one.line, one.said, name, certainty, problem.advice)

    # --- a module ---------------------------------------------------------------------------------

    def _of_module(self, name: str, importer: str, minors: tuple[int, ...]) -> _Problem | None:
        if name in self._around.shipped:
            return None
        key = (name, importer.rpartition("/")[0], minors)
        if key not in self._known:
            self._known[key] = self._looked_for(name, importer, minors)
        return self._known[key]

    def _looked_for(self, name: str, importer: str, minors: tuple[int, ...]) -> _Problem | None:
        first = name.partition(".")[0]
        if first in _FLYTE or self._is_provided(name):
            return None
        if first not in self._around.shipped or first in self._plain:
            with_it = [minor for minor in minors if in_standard_library(first, minor)]
            if with_it and len(with_it) == len(minors):
                return None
            if not minors and versions_with(first):
                return None
            if with_it:
                return _Problem(QUIET, f"it is in the standard library of {versions_with(first)}")
        elif any(in_standard_library(first, minor) for minor in minors):
            return None
        if self._changes_path and first in self._file_names:
            return None
        own = self._first_party(name, importer)
        if own is not None:
            return own
        if self._is_open(name):
            return None
        if first in self._tops and first not in self._third_tops:
            return self._beside(name, importer) or self._below_own(name)
        found = self._third_party(name, minors)
        if found is not None:
            self.unsure.add(name)
        return (found and self._beside(name, importer)) or found

    def _is_provided(self, name: str) -> bool:
        return any(
            parent in self._around.provided or parent in self._set for parent in with_parents(name)
        )

    def _is_open(self, name: str) -> bool:
        return any(parent in self._open for parent in with_parents(name))

    def _first_party(self, name: str, importer: str) -> _Problem | None:
        """Of a module that the repository has."""
        owners = self._around.repository.get(name, ())
        if owners:
            return _Problem(ERROR, _of_owners(name, owners, importer, self._around.resolve))
        for root in self._around.roots:
            path = self._file(name, root)
            if path is None:
                continue
            directory, _, file = path.rpartition("/")
            build = f"{directory}/BUILD" if directory else "BUILD"
            if path.endswith(_NO_SOURCE):
                advice = _of_compiled(path, file, build)
            else:
                advice = f"no target owns {path}; write `python_sources()` into {build}"
            return _Problem(ERROR, advice)
        return None

    def _file(self, name: str, directory: str) -> str | None:
        """The file of a module below a directory, owned or not."""
        inside = name.replace(".", "/")
        for end in (".py", "/__init__.py", *_NO_SOURCE):
            path = f"{directory}/{inside}{end}" if directory else f"{inside}{end}"
            if self._around.exists(path):
                return path
        return None

    def _beside(self, name: str, importer: str) -> _Problem | None:
        """Of a module that lies beside its importer, where Python does not look for it."""
        directory = importer.rpartition("/")[0]
        path = self._file(name.partition(".")[0], directory)
        module = self._by_path.get(importer)
        if path is None or module is None or not module.package:
            return None
        full = f"{module.package}.{name}"
        return _Problem(
            UNSURE if full in self._around.shipped else ERROR,
            f"{path} lies beside it, and is imported as `{full}`: imports start at the source root",
        )

    def _below_own(self, name: str) -> _Problem:
        known = [*self._around.shipped, *self._around.repository]
        parent = name.rpartition(".")[0]
        what = f"there is no module `{name}`"
        if parent and not any(parent == one for one in known):
            gone = next(p for p in reversed([*with_parents(name)]) if p not in set(known))
            what = f"there is no module `{gone}`"
        return _Problem(ERROR, f"{what} in the repository{_alike(name, known)}")

    # --- a name in a module -----------------------------------------------------------------------

    def _of_name(self, base: str, name: str, importer: str) -> _Problem | None:
        full = f"{base}.{name}"
        if full in self._around.shipped or self._binds(base, name) or self._is_provided(full):
            return None
        own = self._first_party(full, importer)
        if own is not None:
            return own
        if self._is_open(full) or (name.startswith("__") and name.endswith("__")):
            return None
        third = self._around.third_party
        if any(one == full or one.startswith(f"{base}.") for one in third.modules):
            return None
        modules = self._with_name.get(base, ())
        if base in self._around.compiled:
            return None
        if not modules:
            if base.partition(".")[0] in self._third_tops:
                return None  # a namespace package, in which a distribution may have it
            if base not in self._above:
                return None
        names = self._names(modules)
        if names is None:
            return _LATER if self.asked else None
        if name in names:
            return None
        for one in self._importers_of(base) if modules else ():
            bound = self._bound.get(one.path)
            if bound is None:
                self.asked.add(one.path)
            elif name in bound.sets:
                return None  # another module may bind it there
        if self.asked:
            return _LATER
        modules_there = (*self._around.shipped, *self._around.repository)
        known = {
            last
            for one in modules_there
            for above, _, last in [one.rpartition(".")]
            if above == base
        }
        near = difflib.get_close_matches(name, sorted(known | names), 1, 0.7)
        meant = f"; did you mean `{base}.{near[0]}`?" if near else ""
        has = "defines no such name"
        if base in self._packages:
            has = "defines no such name and has no such module"
        elif not modules:
            has = "is a directory without `__init__.py` and has no such module"
        return _Problem(ERROR, f"`{base}` {has}{meant}")

    def _binds(self, base: str, name: str) -> bool:
        """Whether that is plain to see."""
        if base not in self._glanced:
            modules = self._with_name.get(base, ())
            self._glanced[base] = frozenset(name for one in modules for name in one.scan.names)
        return name in self._glanced[base]

    def _importers_of(self, base: str) -> Sequence[Module]:
        """The modules that have it at hand."""
        if base not in self._importers:
            parts = frozenset(base.split("."))
            self._importers[base] = [
                module
                for module in self._modules
                if any(
                    _is_at_hand(base, one, module.package)
                    for one in module.scan.imports
                    if not one.name or one.name in parts
                )
            ]
        return self._importers[base]

    def _names(self, modules: Iterable[Module]) -> frozenset[str] | None:
        """All that they bind, also by stars; None where that is not known, or not yet."""
        found: set[str] = set()
        seen: set[str] = set()
        waiting = list(modules)
        while waiting:
            module = waiting.pop()
            if module.path in seen:
                continue
            seen.add(module.path)
            if module.scan.problem and module.scan.bound is None:
                return None
            bound = self._bound.get(module.path)
            if bound is None:
                self.asked.add(module.path)
                return None
            if not bound.is_all:
                return None
            found |= bound.names
            for star in bound.stars:
                name = absolute(star, module.package)
                others = self._with_name.get(name, ())
                if not others or name in self._around.compiled:
                    return None
                waiting += others
        return frozenset(found)

    # --- third-party ------------------------------------------------------------------------------

    def _third_party(self, name: str, minors: tuple[int, ...]) -> _Problem | None:
        third = self._around.third_party
        certain = ERROR if third.is_known else UNSURE
        first = name.partition(".")[0]
        for module in with_parents(name):
            providers = third.modules.get(module)
            if providers:
                return self._of_requirements(name, providers, certain)
        having = third.having.get(name, ())
        names = {
            *(d for module in with_parents(name) for d in third.mapped.get(module, ())),
            *having,
            normalized(first),
        }
        if names & third.in_base:
            return None
        if third.locked is not None:
            locked = sorted(having) or sorted(names & third.locked)
            if locked:
                if self._installed is None or self._installed & set(locked):
                    return None
                return _Problem(certain, self._of_locked(name, locked[0]))
            mapped = next((third.mapped[m] for m in with_parents(name) if m in third.mapped), None)
            if mapped:
                if _INSTALLERS & set(mapped):
                    certain = UNSURE
                shown = " or ".join(f"`{one}`" for one in mapped[:3])
                return _Problem(
                    certain,
                    f"{shown} supplies it; add it to the requirements"
                    f"{_of_resolve(third.resolve)} and make the lock file {third.lock} anew",
                )
        if versions := versions_with(first):
            shown = ", ".join(f"3.{minor}" for minor in minors)
            return _Problem(certain, f"only {versions} has it, and this runs on Python {shown}")
        what = "no standard library, target or requirement is known to supply it"
        if third.locked is not None and not first.startswith("_"):
            meant = self._meant(name, minors)
            if meant:
                return _Problem(certain, f"{what}; did you mean `{meant}`?")
        if third.locked is not None and third.all_at_hand:
            what = f"no distribution in {third.lock} has it"
            if not third.in_base - third.locked - _INSTALLERS:
                return _Problem(
                    certain,
                    f"{what}; add the one that does to the requirements"
                    + _of_resolve(third.resolve),
                )
        if first not in self._likes:
            known = {*third.modules, *self._tops, *third.mapped}
            self._likes[first] = _alike(first, known, whole=False)
        advice = "; add the one that does to the requirements" + _of_resolve(third.resolve)
        return _Problem(UNSURE, f"{what}{self._likes[first] or advice}")

    def _of_locked(self, module: str, distribution: str) -> str:
        third = self._around.third_party
        here = {a for of in third.modules.values() for a, d in of if d == distribution}
        if here:
            tops = [one for one in with_parents(module) if third.having.get(one)]
            module = tops[-1] if tops else module.partition(".")[0]
            return (
                f"`{distribution}` has it, which {min(here)} does not say, so that Pants does not "
                f'know; write `modules=["{module}"]` there, or `module_mapping={{"{distribution}": '
                f'["{module}"]}}` where it is generated'
            )
        return (
            f"{distribution} is in {third.lock}, and nothing that ships requires it; write a "
            f"`python_requirement` for it{_of_resolve(third.resolve)}"
        )

    def _meant(self, name: str, minors: Sequence[int]) -> str:
        """What is there and has nearly this name, which then is a slip: nobody brings both."""
        first, _, rest = name.partition(".")
        if rest:
            tops = [one for one in sorted(self._tops) if f"{one}.{rest}" in self._around.shipped]
            near = difflib.get_close_matches(first, tops, 1, 0.6)
            if near:
                return f"{near[0]}.{rest}"
        known = {one.partition(".")[0] for one in self._around.third_party.modules} | self._tops
        for names in (known, standard_library(minors)):
            near = difflib.get_close_matches(first, sorted(names), 1, 0.8)
            if near:
                return near[0]
        return ""

    def _of_requirements(
        self, name: str, providers: Sequence[tuple[str, str]], certain: str
    ) -> _Problem | None:
        third = self._around.third_party
        if any(address in third.required for address, _ in providers):
            return None
        if self._installed is not None and any(d in self._installed for _, d in providers):
            return None
        if any(distribution in third.in_base for _, distribution in providers):
            return None
        addresses = sorted({address for address, _ in providers})
        if third.excluded.intersection(addresses):
            return _Problem(UNSURE, f"`dependencies` takes {addresses[0]} out, which supplies it")
        if self._installed is None and third.locked is not None:
            # A requirement of another distribution may bring it: the lock file does not say.
            certain = ERROR if len(addresses) > 1 and certain == ERROR else certain
        if len(addresses) > 1:
            return _Problem(
                certain,
                f"several requirements supply it: {', '.join(addresses[:4])}, so that Pants takes "
                "none of them; leave one, or name the one that is meant in `dependencies`",
            )
        return _Problem(
            certain,
            f"{addresses[0]} supplies it, and nothing that ships depends on that; add it to "
            "`dependencies` of the target whose code imports it",
        )


def _is_at_hand(base: str, one: Imported, package: str) -> bool:
    """Whether an import gives a module, or a package that it is in."""
    if not one.name:
        return f"{base}.".startswith(f"{one.module.partition('.')[0]}.")
    above = absolute("." * one.level + one.module, package)
    return f"{base}.".startswith(f"{above}.{one.name}.")


def missing_imports(
    modules: Sequence[Module], around: Surroundings, bound_of: Callable[[str], Bound]
) -> list[Finding]:
    """By path and line, each once. bound_of: what the module at a path binds."""
    checker = Checker(modules, around)
    found = list(checker.findings())
    while checker.asked:
        found += checker.settled({path: bound_of(path) for path in sorted(checker.asked)})
    return in_order(found)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By path and line, each once."""
    return sorted(dict.fromkeys(findings), key=lambda one: (one.path, one.line, one.name))


def names_of(names: Iterable[str]) -> frozenset[str]:
    """The names with all above them."""
    found: set[str] = set()
    for name in names:
        for parent in with_parents(name):
            if parent in found:
                break
            found.add(parent)
    return frozenset(found)


def with_parents(name: str) -> Iterator[str]:
    """`a.b`, then `a`."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _of_owners(name: str, owners: Sequence[Owner], importer: str, resolve: str) -> str:
    fitting = [one for one in owners if one.resolve in (None, resolve)]
    if not fitting:
        theirs = owners[0].resolve
        return (
            f"its owner {owners[0].owner} belongs to the resolve `{theirs}`; for both, write "
            f'`resolve=parametrize("{resolve}", "{theirs}")` there'
        )
    if len(fitting) == 1:
        return (
            f"{fitting[0].owner} supplies it, and nothing that ships depends on that; add it to "
            "`dependencies` of the target whose code imports it"
        )
    shown = ", ".join(one.owner for one in fitting[:4])
    said = f"several targets supply it: {shown}, so that Pants takes none of them; "
    roots = {root_of(one.path, name) for one in fitting}
    near = [root for root in roots if _is_below(importer, root)]
    nearest = max(near, key=len, default=None)
    if len(roots) == len(fitting) and nearest is not None and nearest != "":
        return (
            f'{said}set `[python-infer].ambiguity_resolution = "by_source_root"`, which takes the '
            f"one below {nearest}, or name the one that is meant in `dependencies`"
        )
    return f"{said}leave one, or name the one that is meant in `dependencies`"


def root_of(path: str, name: str) -> str:
    """The source root of the file of a module."""
    inside = name.replace(".", "/")
    for end in (f"{inside}/__init__.py", f"{inside}.py"):
        if path.endswith(end):
            return path[: -len(end)].rstrip("/")
    return ""


def _of_compiled(path: str, file: str, build: str) -> str:
    if path.endswith(".pyi"):
        return (
            f"only its stub {path} is there; let `resources` own the module that this describes, "
            "such as a `.so`, and name them in `dependencies` of the target whose code imports it"
        )
    return (
        f'it is {path}, which nothing that ships depends on; let `resource(name="...", '
        f'source="{file}")` in {build} own it, and name that in `dependencies` of the target whose '
        "code imports it"
    )


def _is_below(path: str, directory: str) -> bool:
    return not directory or path.startswith(f"{directory}/")


def _alike(name: str, known: Iterable[str], whole: bool = True) -> str:
    if not whole:
        known = {one for one in known if "." not in one}
    others = {one for one in known if not f"{name}.".startswith(f"{one}.")}
    found = difflib.get_close_matches(name, sorted(others), 1, 0.8)
    return f"; did you mean `{found[0]}`?" if found else ""


def _of_resolve(resolve: str) -> str:
    return f" of the resolve `{resolve}`" if resolve else ""
