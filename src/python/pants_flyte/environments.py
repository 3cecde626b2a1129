"""Finds the environments and apps that files make, from their syntax trees; no target is needed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Dict, Iterable, Tuple

from pants.engine.fs import PathGlobs

from flyte_pack.code.entry_names import Code, Kind, Wanted
from flyte_pack.code.module_scan import ModuleScan, scan
from pants_flyte import engine
from pants_flyte.first_party import dotted_name
from pants_flyte.layout import root_path

# A file without these words makes no environment and no task. Tests make some of their own.
_WORTH_A_LOOK = re.compile(rb"Environment\b|\.\s*(?:task|orchestrator|from_task)\b")
_TEST = re.compile(r"(?:test_.*|.*_test|tests|conftest)\.py")


@dataclass(frozen=True)
class Environment:
    """An environment with tasks, or an app, that the file `path` makes and calls `name`.

    covers: what an entry point of the file may name to have that already.
    """

    path: str
    name: str
    is_app: bool
    covers: Tuple[str, ...]


def is_test(path: str) -> bool:
    *directories, name = path.split("/")
    return "tests" in directories or _TEST.fullmatch(name) is not None


async def environments_in(globs: PathGlobs) -> Tuple[Environment, ...]:
    """Those that these files make, but for tests. What they import beyond them is not looked at."""
    contents = {
        file.path: file.content
        for file in await engine.contents_matching(globs)
        if _WORTH_A_LOOK.search(file.content) and not is_test(file.path)
    }
    roots = await engine.source_roots(sorted(contents))
    modules: Dict[str, Tuple[str, ModuleScan]] = {}
    for path, content in sorted(contents.items()):
        try:
            modules[dotted_name(path, root_path(roots[path]))] = (path, scan(content, path))
        except (SyntaxError, ValueError):
            continue  # what imports it says so
    return _made_by(modules)


def _made_by(modules: Dict[str, Tuple[str, ModuleScan]]) -> Tuple[Environment, ...]:
    """modules: by dotted name, each with its path."""
    code = Code()
    for name, (path, found) in modules.items():
        code.add(name, found, os.path.basename(path) == "__init__.py")
    while True:
        try:
            return tuple(_look(code, modules))
        except Wanted as wanted:
            code.add(wanted.module, None)


def _look(code: Code, modules: Dict[str, Tuple[str, ModuleScan]]) -> Iterable[Environment]:
    for module, (path, _) in modules.items():
        for name in code.apps_in(module):
            yield Environment(path, name, True, (name,))
        for name in code.environments_in(module):
            named = code.named(module, name)
            if named.kind is not Kind.ENVIRONMENT or named.at != (module, name):
                continue  # imported: it is proposed where it is made
            tasks = code.tasks_of(module, named)
            if tasks or any(code.tasks_of(other, named) for other in modules):
                yield Environment(path, name, False, (name, *tasks))
