"""What a module binds, at a glance and for good."""

from __future__ import annotations

import keyword
import sys
import sysconfig
from pathlib import Path

import pytest

from flyte_pack.code.bound_names import bound_in, names_at_a_glance

GLANCED = {
    "import a.b\nfrom c import d as e\nx = 1": {"a", "e", "x"},
    "from a import (\n    b,  # not c\n    d as e,\n)": {"b", "e"},
    "def f():\n    g = 1\nasync def h(): ...\nclass C:\n    y = 1": {"f", "h", "C"},
    "x: int = 1\ny: str": {"x", "y"},
    "x == 1\nx.y = 1\nx[0] = 1\nf(x=1)": set(),
    '"""Docs.\n\nx = 1\n"""\ny = 1': {"y"},
    "# é\nr'''x\ndef z\n'''\ny = 1\r\nz = 2": {"y", "z"},
    "": set(),
}


@pytest.mark.parametrize("source", GLANCED)
def test_plain_statements_are_seen_at_a_glance(source):
    assert set(names_at_a_glance(source.encode())) == GLANCED[source]


BOUND = {
    "if a:\n    x = 1\nelse:\n    y = 1": {"x", "y"},
    "for x, *y in a: pass\nwith b as c: pass": {"x", "y", "c"},
    "try:\n    import x\nexcept E:\n    x = None": {"x"},
    "def f():\n    global x, y\n    x = 1\n    z = 2": {"f", "x", "y"},
    "if (x := 1): pass": {"x"},
    "(x, [y, *z]) = 1, [2]": {"x", "y", "z"},
    "x = 1\ndel x": set(),
    "if __name__ == '__main__':\n    x = 1": set(),
}


@pytest.mark.parametrize("source", BOUND)
def test_all_that_the_top_level_binds_is_known(source):
    assert bound_in(source.encode(), "m.py").names == BOUND[source]
    assert bound_in(source.encode(), "m.py").is_all


@pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of Python 3.12")
def test_newer_statements_bind_names_too():
    source = b"type X = int\nmatch a:\n    case [b, *c, {'k': d, **e}]: pass"
    assert bound_in(source, "m.py").names == set("Xbcde")


@pytest.mark.parametrize(
    "source",
    [
        "def __getattr__(name): ...",
        "globals()['x'] = 1",
        "exec(text)",
        "import sys\nsetattr(sys.modules[__name__], 'x', 1)",
        "Level = enum.global_enum(Level)",
        "import (",
    ],
)
def test_what_may_bind_more_is_not_known(source):
    assert not bound_in(source.encode(), "m.py").is_all


def test_what_a_module_may_bind_elsewhere_is_told():
    source = b"a.b = 1\na.b.c=2\nsetattr(a, 'd', 3)\nself.e = 4\na.f == 5\ng(h=6)"
    assert bound_in(source, "m.py").sets == {"b", "c", "d"}


def test_stars_are_told():
    bound = bound_in(b"from a import *\nfrom .b import *\nx = 1", "m.py")
    assert (bound.stars, bound.names) == (("a", ".b"), {"x"})


def test_a_glance_sees_little_that_is_not_bound():
    """In the standard library: names that a module deletes, or that are text in quotes."""
    top = Path(sysconfig.get_paths()["stdlib"])
    seen = wrong = 0
    for path in sorted(top.glob("*.py")):
        source = path.read_bytes()
        bound = bound_in(source, path.name)
        if bound.is_all:
            glanced = set(names_at_a_glance(source)).difference(keyword.kwlist)
            seen += len(glanced)
            wrong += len(glanced - bound.names)
    assert seen > 2_000
    assert wrong < seen / 100
