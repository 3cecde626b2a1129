"""The BUILD files and settings in README and docs/: they parse, and what they name exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import toml

from pants_flyte.register import target_types
from pants_flyte.subsystem import FlyteDeploySubsystem, FlytePackSubsystem, FlyteSubsystem

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(python|toml)\n(.*?)^ *```$", re.S | re.M)
FIELDS = {
    kind.alias: {
        field.alias
        for field in (*kind.core_fields, *getattr(kind, "moved_fields", ()))
        if not field.alias.startswith("_")
    }
    for kind in target_types()
}
SUBSYSTEMS = {
    one.options_scope: one for one in (FlyteSubsystem, FlytePackSubsystem, FlyteDeploySubsystem)
}


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{page.name}: {text[:40]!r}", text)
        for page in PAGES
        for found, text in BLOCK.findall(page.read_text())
        if found == language
    ]


@pytest.mark.parametrize(("where", "text"), blocks("python"))
def test_targets_have_the_fields_that_the_pages_show(where: str, text: str):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            fields = FIELDS.get(node.func.id)
            given = {keyword.arg for keyword in node.keywords if keyword.arg}
            assert fields is None or given <= fields | {"name"}, where


@pytest.mark.parametrize(("where", "text"), blocks("toml"))
def test_options_exist_that_the_pages_show(where: str, text: str):
    for scope, table in toml.loads(text).items():
        if scope in SUBSYSTEMS:
            options = {name for name in vars(SUBSYSTEMS[scope]) if not name.startswith("_")}
            assert {name.replace("-", "_") for name in table} <= options, where


def test_there_are_such_blocks():
    assert len(blocks("python")) > 10
    assert len(blocks("toml")) > 3
