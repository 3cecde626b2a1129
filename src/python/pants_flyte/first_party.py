"""The repository's Python modules by the names that import statements use. Reads no user code."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict, FrozenSet, Iterable, List, Optional, Tuple, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    PythonResolveField,
    PythonSourceField,
    PythonTestSourceField,
)
from pants.build_graph.address import Address
from pants.engine.fs import PathGlobs
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte.globs import literal_glob
from pants_flyte.layout import root_path


@dataclass(frozen=True)
class FirstPartyModule:
    """A module's file, its owner, and the resolve of that (None: any)."""

    path: str
    owner: Address
    resolve: Optional[str]
    is_test: bool

    def is_for(self, resolve: str) -> bool:
        return self.resolve in (None, resolve)

    @property
    def is_package(self) -> bool:
        return os.path.basename(self.path) == "__init__.py"


@dataclass(frozen=True)
class FirstPartyModules:
    """by_name: by dotted name. may_have_tasks: the paths of those whose text looks like it."""

    by_name: FrozenDict[str, Tuple[FirstPartyModule, ...]]
    may_have_tasks: FrozenSet[str]

    def find(self, name: str, resolve: str) -> Optional[FirstPartyModule]:
        """The module of that name in a resolve; rather one that is no test."""
        found = [one for one in self.by_name.get(name, ()) if one.is_for(resolve)]
        return min(found, key=lambda one: (one.is_test, one.path)) if found else None

    def with_tasks(self, resolve: str) -> List[Tuple[str, FirstPartyModule]]:
        """The modules of a resolve that may have tasks, with their names, by path."""
        return sorted(
            (
                (name, one)
                for name, modules in self.by_name.items()
                for one in modules
                if one.path in self.may_have_tasks and one.is_for(resolve)
            ),
            key=lambda found: (found[1].path, found[1].owner),
        )


def dotted_name(path: str, source_root: str) -> str:
    """What imports call the file of a module; "" for the `__init__.py` of a source root."""
    relative = os.path.relpath(path, source_root or ".")[: -len(".py")]
    parts = relative.split(os.sep)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@rule(desc="Look for modules that may have Flyte tasks", level=LogLevel.DEBUG)
async def find_first_party_modules(python_setup: PythonSetup) -> FirstPartyModules:
    """A rule, since many targets need it: found once."""
    targets = [
        target
        for target in await engine.all_targets()
        if target.has_field(PythonSourceField)
        and target[PythonSourceField].file_path.endswith(".py")
    ]
    paths = {target[PythonSourceField].file_path for target in targets}
    roots = await engine.source_roots(sorted(paths))
    by_name: Dict[str, List[FirstPartyModule]] = {}
    for target in targets:
        path = target[PythonSourceField].file_path
        resolve = None
        if target.has_field(PythonResolveField):
            resolve = target[PythonResolveField].normalized_value(python_setup)
        name = dotted_name(path, root_path(roots[path]))
        is_test = target.has_field(PythonTestSourceField)
        module = FirstPartyModule(path, target.address, resolve, is_test)
        by_name.setdefault(name, []).append(module)
    directories = sorted({literal_glob(os.path.dirname(path)) for path in paths})
    # The same question as for lost imports, so that each directory is read once.
    found = await engine.suspects_in_each(
        [PathGlobs([os.path.join(d, "*.py"), os.path.join(d, "*.pyi")]) for d in directories]
    )
    return FirstPartyModules(
        FrozenDict({name: tuple(modules) for name, modules in sorted(by_name.items())}),
        frozenset(paths & frozenset().union(*(one.tasks for one in found))),
    )


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
