"""No pattern takes long for the worst 64 KB that it could get: each of `src` is tried, by the method
that it is used with.

All texts are tried in two small lengths. Those whose time grows faster than they do, and the slowest
of the others, are tried in full. A module whose patterns no longer text reaches is in `BOUNDED`, with
the most characters.
"""

from __future__ import annotations

import ast
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

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
SECONDS = 2.0  # of this process, for one text; most take a millisecond
SMALL, LARGER = 1 << 10, 1 << 12  # characters
GROWTH = 8.0  # from the one to the other: 4 if linear, 16 if quadratic
NOISE = 2e-4  # seconds; the growth of less says nothing
SLOWEST = 3
MOST = 10  # texts in full, those first that grow and then take longest
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
    for number, start in enumerate(literals):
        yield (start * length)[:length]
        for one in liked if start and number < 4 else ():
            yield ((start + one) * length)[:length] + "\0"


class Late(Exception):
    pass


def ring(*_: object) -> None:
    raise Late


Use = Callable[[Any], object]


def use_of(found: Any, method: str) -> Use:
    """What is done with a text."""
    use = getattr(found, method)

    def call(text: Any) -> None:
        given = text.encode("latin-1", "replace") if isinstance(found.pattern, bytes) else text
        if method.startswith("sub"):
            use(given[:0], given)
        elif method == "finditer":
            list(use(given))
        else:
            use(given)

    return call


def seconds(use: Use, text: str, most: float) -> float:
    """Of this process, so that others on the machine do not count. Raises `Late`."""
    began = time.thread_time()
    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, most)
    try:
        use(text)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return time.thread_time() - began


def slow_text(found: Any, method: str, length: int = LENGTH, most: float = SECONDS) -> str | None:
    """A text that takes longer than `most` seconds, if there is one."""
    use, tried, text = use_of(found, method), [], ""
    try:
        small = worst(found, SMALL)
        for number, text in enumerate(worst(found, LARGER)):
            shorter = next(small)  # made in the same way
            taken, grows = seconds(use, text, most), False
            if taken > NOISE:
                grows = taken > GROWTH * min(seconds(use, shorter, most) for _ in range(2))
            tried.append((grows, taken, number))
        slowest = sorted(tried, key=lambda one: one[1])[-SLOWEST:]
        chosen = sorted({one for one in tried if one[0]} | {*slowest}, reverse=True)[:MOST]
        full = dict(enumerate(worst(found, length)))
        for *_, number in chosen:
            text = full[number]
            seconds(use, text, most)
    except Late:
        return text
    return None


def test_every_use_of_a_pattern_is_found():
    assert len(FOUND) > 90


@pytest.mark.parametrize(("place", "method", "found"), FOUND, ids=[row[0] for row in FOUND])
def test_the_worst_text_is_soon_looked_at(place, method, found):
    length = BOUNDED.get(place.partition(":")[0], LENGTH)
    text = slow_text(found, method, length)
    assert text is None, f"{found.pattern!r} takes more than {SECONDS} s for {text[:40]!r}..."


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        ("a+b", "search"),
        (r"\s+$", "sub"),
        ("x.*y.*z", "search"),
        ("(a|aa)+b", "match"),
        ("(a*)*b", "fullmatch"),
        (r"(?:\w+=?)+;", "match"),
        (r"name: \S*?(\S+\.data/)", "findall"),
        (rb"/\*.*?\*/", "finditer"),
    ],
)
def test_a_pattern_that_takes_long_is_found_out(pattern, method):
    assert slow_text(re.compile(pattern), method, most=0.3) is not None
