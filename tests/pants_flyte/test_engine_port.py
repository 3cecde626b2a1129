"""The engine port is the only place that awaits Pants' engine, and it is complete."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import pants_flyte
from pants_flyte import engine

PACKAGE = Path(pants_flyte.__file__).parent
OUTSIDE = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE / "engine")

# What is in the port only because it differs from one version to the next.
NOT_AWAITED = {"EnvironmentField", "configured_constraints", "rules", "test_result"}

HALVES = ("pants_flyte.engine.by_get", "pants_flyte.engine.by_name")

# How rules ask the engine for something: before Pants 2.32, and since.
AWAIT_API = {"Get", "MultiGet", "Effect", "concurrently", "implicitly"}


def trespasses(source: str) -> list[str]:
    """What a module does that only the port may do, as `line: what`."""
    tree = ast.parse(source)
    ours = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and _package(node.module) == "pants_flyte"
        for name in (alias.asname or alias.name for alias in node.names)
    }
    ours |= {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
    return [f"{line}: {what}" for node in ast.walk(tree) for line, what in _found(node, ours)]


def _found(node: ast.AST, ours: set[str]) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.ImportFrom):
        names = {alias.name for alias in node.names}
        if _package(node.module) in ("pants", "pants_flyte") and names & {*AWAIT_API, "*"}:
            yield node.lineno, "imports the await API"
        if node.module == "pants_flyte.engine" and names & {"by_get", "by_name", "*"}:
            yield node.lineno, "imports an implementation of the port"
        if (node.module or "").startswith(("pants_flyte.engine.by_", "engine.by_")):
            yield node.lineno, "imports an implementation of the port"
    elif isinstance(node, ast.Import):
        if any(alias.name.startswith("pants_flyte.engine.by_") for alias in node.names):
            yield node.lineno, "imports an implementation of the port"
    elif isinstance(node, ast.Attribute):
        if node.attr in AWAIT_API:
            yield node.lineno, f"uses {node.attr}"
    elif isinstance(node, ast.Constant):
        if node.value in AWAIT_API:
            yield node.lineno, f"names {node.value}, as getattr does"
    elif isinstance(node, ast.Await):
        called = node.value.func if isinstance(node.value, ast.Call) else node.value
        owner = called.value if isinstance(called, ast.Attribute) else called
        if not (isinstance(owner, ast.Name) and owner.id in ours):
            yield node.lineno, f"awaits {ast.unparse(called)}, which is not this backend's"


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_outside_the_port_leaves_the_await_api_alone(path: Path):
    assert trespasses(path.read_text()) == []


def test_the_modules_outside_the_port_were_found():
    names = {path.name for path in OUTSIDE}
    assert {"closure.py", "bundle.py", "task.py", "deploy.py"} <= names
    assert "by_get.py" not in names


@pytest.mark.parametrize(
    "source",
    [
        "from pants.engine.rules import Get",
        "from pants.engine.rules import MultiGet as all_of, rule",
        "from pants.engine.internals.selectors import concurrently",
        "from pants.engine.rules import implicitly as i",
        "from pants.engine.internals.selectors import Effect",
        "from pants.engine.rules import *",
        "import pants.engine.rules as r\nasync def f(x):\n    return await r.Get(int, str, x)",
        "from pants.engine import rules\nx = rules.MultiGet",
        "from pants.engine import rules\nx = getattr(rules, 'Get')",
        "from pants.engine.intrinsics import create_digest\nasync def f(x):\n    return await create_digest(x)",
        "from pants.engine import intrinsics as n\nasync def f(x):\n    return await n.create_digest(x)",
        "import pants.engine.intrinsics as n\ng = n.create_digest\nasync def f(x):\n    return await g(x)",
        "async def f(x):\n    return await x",
        "from pants_flyte.engine.by_get import snapshot",
        "from pants_flyte.engine import by_get",
        "from pants_flyte.engine import *",
        "from pants_flyte.engine import Get",
        "from pants_flyte import engine\nasync def f(x):\n    return await engine.Get(int, x)",
        "from pants_flyte import engine\nasync def f(x):\n    return await engine.by_get.contents(x)",
        "import pants_flyte.engine.by_get as port",
    ],
)
def test_the_check_finds_a_trespass(source: str):
    assert trespasses(source)


@pytest.mark.parametrize(
    "source",
    [
        "from pants.engine.rules import collect_rules, rule",
        "from pants_flyte.engine import snapshot\nasync def f(x):\n    return await snapshot(x)",
        "from pants_flyte import engine\nasync def f(x):\n    return await engine.snapshot(x)",
        "from pants_flyte.engine.types import ToolEnvironment",
        "async def g(x): ...\nasync def f(x):\n    return await g(x)",
        "def f(fields):\n    return fields.get(int)",
    ],
)
def test_the_check_lets_ordinary_code_pass(source: str):
    assert trespasses(source) == []


def unseen_helpers(source: str) -> list[str]:
    """Rules with a helper that stands below them: Pants looks for it while the module is loaded."""
    tree = ast.parse(source)
    helpers = {node.name: node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    found = []
    for name, rule in helpers.items():
        if not any("rule" in ast.unparse(decorator) for decorator in rule.decorator_list):
            continue
        reached, waiting = {name}, [rule]
        while waiting:
            calls = {
                node.func.id
                for node in ast.walk(waiting.pop())
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            new = (calls & set(helpers)) - reached
            reached |= new
            waiting += [helpers[n] for n in new]
        found += [f"{name}: {n}" for n in reached if helpers[n].lineno > rule.lineno]
    return sorted(found)


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_a_rule_awaits_through_is_defined_before_it(path: Path):
    assert unseen_helpers(path.read_text()) == []


def test_the_check_finds_helpers_below_a_rule():
    source = """
async def above(): await deep()
@rule(desc="x")
async def build(x): await above()
async def deep(): await below()
async def below(): ...
async def unused(): ...
"""
    assert unseen_helpers(source) == ["build: below", "build: deep"]


def signatures(half: str) -> dict[str, str]:
    """The public functions of a half of the port, as it is written: the other may not be importable."""
    tree = ast.parse((PACKAGE / "engine" / half).read_text())
    return {
        node.name: f"{type(node).__name__}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.returns is not None
        and not node.name.startswith("_")
        and not any("rule" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def test_both_halves_of_the_port_have_the_same_functions() -> None:
    by_get, by_name = signatures("by_get.py"), signatures("by_name.py")
    assert by_get == by_name
    assert len(by_get) > 20


def test_the_port_exports_all_that_its_halves_have() -> None:
    exported = set(signatures("by_get.py")) | {"EnvironmentField"}
    assert exported - set(vars(engine)) == set()


def test_the_port_has_each_half_whole() -> None:
    """Names are not listed, so no list can lack one; mypy hides what a half imports for itself."""
    tree = ast.parse((PACKAGE / "engine" / "__init__.py").read_text())
    imported = {
        node.module: [alias.name for alias in node.names]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(HALVES)
    }
    assert imported == {module: ["*"] for module in HALVES}


@pytest.mark.parametrize("name", sorted(signatures("by_get.py")))
def test_a_function_of_the_port_is_a_coroutine_or_needs_no_engine(name: str) -> None:
    """What rules await through: both engines look through `async def` alone."""
    assert inspect.iscoroutinefunction(getattr(engine, name)) == (name not in NOT_AWAITED)
