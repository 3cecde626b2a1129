"""No two modules import one another, be it in a function or for the type checker alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src/python"


def modules(root: Path) -> dict[str, Path]:
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The known modules that `module` names in an import, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            base = parents[: len(parents) + 1 - node.level] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{source}.{alias.name}"
                target = name if name in known else source
                if target in known and target != module:
                    yield target


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that reach one another (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for target in sorted(graph[module]):
            if target not in order:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], order[target])
        if low[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def graph_of(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {module: set(imports(module, path, known)) for module, path in known.items()}


def test_no_module_is_part_of_an_import_cycle() -> None:
    graph = graph_of(SOURCES)
    assert len(graph) > 100
    assert cycles(graph) == []


@pytest.mark.parametrize(
    "back",
    [
        "from pack import one",
        "import pack.one",
        "from . import one",
        "from .one import name",
        "def later():\n    from pack.one import name",
        "if TYPE_CHECKING:\n    from pack.one import name",
    ],
)
def test_finds_a_cycle(tmp_path: Path, back: str) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").touch()
    (tmp_path / "pack/one.py").write_text("from pack import two")
    (tmp_path / "pack/two.py").write_text(back)
    assert cycles(graph_of(tmp_path)) == [["pack.one", "pack.two"]]
