"""What a source states as its imports, and which sources Pants' parser could lose some of."""

from __future__ import annotations

import pytest

from flyte_pack.code.import_scan import StatedImport, is_suspect, stated_imports
from tests.support.import_kinds import KINDS


def modules(source: str | bytes, package: str = "rel") -> list[str]:
    data = source if isinstance(source, bytes) else source.encode()
    return [found.module for found in stated_imports(data, package)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_import_is_seen_whatever_its_form(kind):
    # `from a.b import x` states `a.b.x`: whether `x` is a module, only its owner tells.
    assert sorted({".".join(m.split(".")[:2]) for m in modules(kind.source)}) == kind.stated


@pytest.mark.parametrize("kind", [k for k in KINDS if k.lost], ids=lambda kind: kind.name)
def test_a_source_that_loses_imports_is_suspect(kind):
    assert is_suspect(kind.source)


@pytest.mark.parametrize(
    "source",
    [
        "import a\nimport b.c as d\nfrom a import b, c\nfrom .. import d, e\nfrom ...x.y import z\n",
        "from a import (\n    b,\n    c,\n)\nfrom a import b, \\\n    c\n",
        "import a  # b, c\nx = [important, b]\nimported, b = c\n",
        "import a; b(c, d)\n",
        "def f(a, b):\n    import c\n    raise E(x, y) from c\nx = 'import'\ny = st'x'\n",
        "x = d['a, b']\n@a.b(c, d)\nclass C(D, E): ...\nexcept_, y = z\ntypes = 1\n",
        "try:\n    import a\nexcept (A, B) as e:\n    pass\n",
        "# \u00e9\nimport a\nx = '\u00e9'\n",
    ],
)
def test_a_source_of_the_usual_form_is_not(source):
    assert not is_suspect(source.encode())


def test_a_line_and_the_first_name_of_its_statement_are_told():
    assert stated_imports(b"x = 1\nimport a.b as c, \\\n    d\nfrom e import (f,\n  g)\n", "") == [
        StatedImport("a.b", 2, "a.b"),
        StatedImport("d", 3, "a.b"),
        StatedImport("e.f", 4, "e.f"),
        StatedImport("e.g", 5, "e.f"),
    ]


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("from . import a", "p.q", ["p.q.a"]),
        ("from .. import a", "p.q", ["p.a"]),
        ("from ..r.s import a", "p.q", ["p.r.s.a"]),
        ("from .. import *", "p.q", ["p"]),
        ("from ... import a", "p.q", []),
        ("from . import a", "", []),
        ("from __future__ import annotations, division", "p", []),
    ],
)
def test_relative_imports_start_at_the_package(source, package, expected):
    assert modules(source, package) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a, b\nx = (\n", ["a", "b"]),
        ("import a, b\nx = '''\nimport c\n", ["a", "b"]),
        ("import a, {{ b }}\n", ["a"]),
        ("import \n", []),
        ("from x\n", []),
        ("from x import\n", []),
        ("import a, b", ["a", "b"]),
        (b"# coding: latin-1\n# \xe9\nimport a, b\n", ["a", "b"]),
        (b"# coding: nonsense\nimport a, b\n", ["a", "b"]),
        (b"# \xff\nimport a, b\n", ["a", "b"]),
        ("", []),
    ],
)
def test_what_is_no_python_is_read_as_far_as_it_goes(source, expected):
    assert modules(source) == expected
