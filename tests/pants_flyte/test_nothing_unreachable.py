"""Rules pass every option of the programs that they start, and error messages advise what there is."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import flyte_pack
from flyte_pack import bundle, command
from flyte_pack.__main__ import _COMMANDS
from flyte_pack.deploy import options as deploy_options
from pants_flyte import register
from pants_flyte.goals.explain import FlyteExplainSubsystem
from pants_flyte.image_target_types import FlyteImageSourceFoldersField
from pants_flyte.subsystem import FlyteSubsystem

SOURCES = Path(flyte_pack.__file__).parents[1]
# `deploy` reads its own part of the command line by hand.
PACKING = set(re.findall("--[a-z-]+", bundle._USAGE))
BY_HAND = {
    "bundle": PACKING,
    "bundle-with-inventory": PACKING,
    "deploy": {"--plan", "--dir"},
}
# Flags of other programs, and of Pants, that a message may advise.
OF_OTHERS = {
    *("--allow-unsafe", "--generate-hashes", "--privileged"),
    *("--resolve", "--changed-since", "--distdir", "pants_version"),
    "args",  # of an app, in code
}
_ADVISED = re.compile(
    r"`([a-z_]+)=|(?:[Ss]et|[Gg]ive|[Aa]dd|[Cc]hange|field) `([a-z_]+)`|\[flyte\]\.([a-z_]+)"
    r"|(?<![\w-])(--[a-z][a-z0-9-]+)"
)


class Parsed(Exception):
    """Stops a program once it has made its parser."""


def parser_of(name: str, patch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    def take(parser, *_, **__):
        raise Parsed(parser)

    patch.setattr(command, "run", take)
    with pytest.raises(Parsed) as made:
        importlib.import_module(_COMMANDS[name]).main([])
    parser = made.value.args[0]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def flags(parser: argparse.ArgumentParser) -> set[str]:
    return {f for action in parser._actions for f in action.option_strings if f.startswith("--")}


def strings(node: ast.AST) -> Iterator[str]:
    """The constants in it; an f-string is one, with a blank for what it fills in."""
    for child in ast.walk(node):
        if isinstance(child, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else " " for v in child.values)
            yield "".join(map(str, parts))
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value


def modules(package: str) -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in sorted((SOURCES / package).rglob("*.py"))]


RULES = [set(strings(module)) for module in modules("pants_flyte")]


@pytest.mark.parametrize("name", _COMMANDS)
def test_a_rule_passes_each_option_of_a_program(name: str, monkeypatch: pytest.MonkeyPatch):
    wanted = BY_HAND.get(name) or flags(parser_of(name, monkeypatch)) - {"--help"}
    callers = [texts for texts in RULES if name in texts]
    assert callers, f"no rule starts {name}"
    # `insecure_arguments`, `report_arguments` and `step`.
    by_tool = {"--insecure", "--report", "--compiler", "--bytecode-cache"}
    assert wanted <= set().union(by_tool, *callers)


def advised() -> Iterator[str]:
    """The names in what is raised."""
    for package in ("pants_flyte", "flyte_pack", "flyte_shim"):
        for module in modules(package):
            for node in ast.walk(module):
                if isinstance(node, ast.Raise):
                    for text in strings(node):
                        for found in _ADVISED.finditer(text):
                            yield next(filter(None, found.groups()))


def test_what_a_message_advises_exists():
    fields = {field.alias for target in register.target_types() for field in target.core_fields}
    fields.update(key for key, _ in FlyteImageSourceFoldersField.keys)
    options = {name for name, _ in inspect.getmembers(FlyteSubsystem)}
    # Whoever reads a flag has it as a text of its own: argparse, or a table.
    read = {text for module in modules("flyte_pack") for text in strings(module)}
    known = {text for text in read if re.fullmatch("--[a-z0-9-]+", text)}
    known |= flags(deploy_options._parser())
    of_pants = {f"--flyte-{name.replace('_', '-')}" for name in options}
    of_pants |= {f"--{name}" for name, _ in inspect.getmembers(FlyteExplainSubsystem)}
    assert set(advised()) - fields - options - known - of_pants - OF_OTHERS == set()
