"""The entry points of the repository's own distributions, by group.

`python_distribution` has them in `entry_points` or `provides`; `pyproject.toml` and `setup.cfg`
beside a source root, or above it, have them in tables.
"""

from __future__ import annotations

import configparser
import os
import re
from dataclasses import dataclass
from typing import Dict, Iterable, Iterator, List, Mapping, Tuple, Union

from pants.backend.python.target_types import (
    PythonDistributionEntryPointsField,
    PythonProvidesField,
)
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Target
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.globs import exactly
from pants_flyte.layout import root_path

# Tables of pyproject.toml; of the last two the name is the group.
_TABLE = re.compile(
    r"""\[\s*(?:
        project\.(?P<scripts>(?:gui-)?scripts)
      | (?:project\.entry-points|tool\.poetry\.plugins)\.["']?(?P<group>[\w.:-]+?)["']?
    )\s*\]\s*(?:\#.*)?""",
    re.VERBOSE,
)
_ENTRY = re.compile(r"""\s*["']?[\w.-]+["']?\s*=\s*["']([\w.]+)\s*(?::[^"']*)?["']""")
_VALUE = re.compile(r"\s*([\w.]+)\s*(?::.*)?")
_SCRIPTS = {"scripts": "console_scripts", "gui-scripts": "gui_scripts"}


@dataclass(frozen=True)
class Registered:
    """by_group: of each group of entry points, the modules, each with what registers it: the
    address of a target, or a file.
    """

    by_group: FrozenDict[str, Tuple[Tuple[str, str], ...]]


@rule(desc="Look for entry points of distributions", level=LogLevel.DEBUG)
async def find_registered(modules: FirstPartyModules) -> Registered:
    """A rule, since each module that asks for a group needs it: found once."""
    found: Dict[str, List[Tuple[str, str]]] = {}
    targets = await engine.all_targets()
    one_of_each = {type(target): target for target in targets}  # the question is slow
    kinds = {kind for kind, one in one_of_each.items() if one.has_field(PythonProvidesField)}
    for target in targets:
        for group, module in _of_target(target) if type(target) in kinds else ():
            found.setdefault(group, []).append((module, target.address.spec))
    paths = sorted({one.path for of in modules.by_name.values() for one in of})
    roots = {root_path(root) for root in (await engine.source_roots(paths)).values()}
    directories = {above for root in roots for above in _with_directories_above(root)}
    files = [os.path.join(d, name) for d in directories for name in _READERS]
    for file in await engine.contents_matching(exactly(sorted(files))):
        read = _READERS[os.path.basename(file.path)]
        for group, module in read(file.content.decode(errors="replace")):
            found.setdefault(group, []).append((module, file.path))
    return Registered(FrozenDict({group: tuple(sorted(set(of))) for group, of in found.items()}))


def _with_directories_above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = os.path.dirname(path)
    yield ""


def _of_target(target: Target) -> Iterator[Tuple[str, str]]:
    yield from _in(target[PythonDistributionEntryPointsField].value or {})
    given = target[PythonProvidesField].value.kwargs.get("entry_points")
    if isinstance(given, Mapping):
        yield from _in(given)


def _in(groups: Mapping[str, Union[Mapping[str, str], Iterable[str]]]) -> Iterator[Tuple[str, str]]:
    """Each group with each module. What is the address of a `pex_binary` is left out."""
    for group, entries in groups.items():
        values = (
            list(entries.values())
            if isinstance(entries, Mapping)
            else [entry.partition("=")[2] for entry in entries]
        )
        for value in values:
            if match := _VALUE.fullmatch(value):
                yield group, match[1]


def _in_pyproject(text: str) -> Iterator[Tuple[str, str]]:
    group = ""
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            table = _TABLE.fullmatch(line.strip())
            group = "" if table is None else table["group"] or _SCRIPTS[table["scripts"]]
        elif group and (entry := _ENTRY.match(line)):
            yield group, entry[1]


def _in_setup_cfg(text: str) -> Iterator[Tuple[str, str]]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    if parser.has_section("options.entry_points"):
        for group, entries in parser.items("options.entry_points"):
            yield from _in({group: entries.split("\n")})


_READERS = {"pyproject.toml": _in_pyproject, "setup.cfg": _in_setup_cfg}


def rules() -> Iterable[Rule]:
    return collect_rules()
