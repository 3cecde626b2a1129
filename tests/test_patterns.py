"""No pattern takes long for the worst 64 KB that it could get: each of `src` is tried, by the method
that it is used with.

A module whose patterns no longer text reaches is in `BOUNDED`, with the most characters.
"""

from __future__ import annotations

import ast
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flyte_shim

if sys.version_info >= (3, 11):
    from re import _constants as codes
    from re import _parser as parser
else:
    import sre_constants as codes
    import sre_parse as parser

SOURCE = Path(flyte_shim.__file__).parent.parent
LENGTH = 64 << 10
SECONDS = 5.0  # for one text; most take a millisecond
METHODS = ("search", "match", "fullmatch", "findall", "finditer", "sub", "subn", "split")
BOUNDED = {"flyte_pack/image/uv.py": 16_384, "flyte_pack/registry/auth.py": 8192}


def constants(tree: ast.Module) -> dict[str, Any]:
    """Texts and patterns with a name, by which f-strings refer to them."""
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = value_of(node.value, found)
            if value is not None:
                found[node.targets[0].id] = value
    return found


def value_of(node: ast.AST, names: dict[str, Any]) -> Any:
    """The text or bytes of an expression, or None."""
    try:
        code = compile(ast.Expression(node), "", "eval")
        value = eval(code, {"__builtins__": {"tuple": tuple, "map": map}, "re": re}, dict(names))
    except Exception:
        return None
    return value


def patterns() -> Iterator[tuple[str, str, Any]]:
    """(place, method, compiled pattern)"""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_bytes())
        names = constants(tree)
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Attribute) and node.attr in METHODS):
                continue
            place = f"{path.relative_to(SOURCE)}:{node.lineno}"
            if isinstance(node.value, ast.Name) and isinstance(
                names.get(node.value.id), re.Pattern
            ):
                yield place, node.attr, names[node.value.id]
        for node in ast.walk(tree):
            function = getattr(node, "func", None)
            if (
                isinstance(node, ast.Call)
                and isinstance(function, ast.Attribute)
                and isinstance(function.value, ast.Name)
                and function.value.id == "re"
                and function.attr in METHODS
            ):
                text = value_of(node.args[0], names)
                if isinstance(text, (str, bytes)):
                    yield (
                        f"{path.relative_to(SOURCE)}:{node.lineno}",
                        function.attr,
                        re.compile(text),
                    )


FOUND = sorted({(place, method, found) for place, method, found in patterns()}, key=str)


def samples(pattern: Any) -> list[str]:
    """Characters that the parts of a pattern take, and runs of its literals."""
    found = {"a", " ", "0", '"', "\\", "/", "=", ":", "."}

    def visit(items: Any) -> None:
        run = ""
        for code, value in items:
            if code is codes.LITERAL:
                run += chr(value)
                found.add(chr(value))
                continue
            if len(run) > 1:
                found.add(run)
            run = ""
            if code is codes.IN:
                for kind, inner in value:
                    if kind is codes.LITERAL:
                        found.add(chr(inner))
                    elif kind is codes.RANGE:
                        found.update(chr(end) for end in inner if end < 0xD800)
            elif code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
                visit(value[2])
            elif code is codes.SUBPATTERN:
                visit(value[-1])
            elif code is codes.BRANCH:
                for branch in value[1]:
                    visit(branch)
            elif code in (codes.ASSERT, codes.ASSERT_NOT):
                visit(value[1])
        if len(run) > 1:
            found.add(run)

    text = pattern.pattern
    visit(
        parser.parse(
            text, pattern.flags & ~re.UNICODE if isinstance(text, bytes) else pattern.flags
        )
    )
    return sorted(found)


def worst(pattern: Any, length: int) -> Iterator[str]:
    """Repetitions of what the pattern likes, with an end that it does not."""
    liked = samples(pattern)
    literals = [one for one in liked if len(one) > 1] or [""]
    for one in liked:
        for start in ("", *literals[:3]):
            yield (start + one * length)[:length] + "\0"
    for one in liked[:6]:
        for other in liked[:6]:
            if one != other:
                yield ((one + other) * length)[:length] + "\0"
    for start in literals:
        yield (start * length)[:length]


class Late(Exception):
    pass


def ring(*_: object) -> None:
    raise Late


def test_every_use_of_a_pattern_is_found():
    assert len(FOUND) > 90


@pytest.mark.parametrize(("place", "method", "found"), FOUND, ids=[row[0] for row in FOUND])
def test_the_worst_text_is_soon_looked_at(place, method, found):
    use = getattr(found, method)
    length = BOUNDED.get(place.partition(":")[0], LENGTH)
    before = signal.signal(signal.SIGALRM, ring)
    text: Any = ""
    try:
        for text in worst(found, length):
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            given = text.encode("latin-1", "replace") if isinstance(found.pattern, bytes) else text
            if method.startswith("sub"):
                use(given[:0], given)
            else:
                result = use(given)
                if method == "finditer":
                    list(result)
    except Late:
        pytest.fail(f"{found.pattern!r} takes more than {SECONDS} s for {text[:40]!r}...")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
