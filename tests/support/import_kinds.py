"""Kinds of import statements: what Pants' Rust parser finds in each, and what there is to find.

Each is a module `rel.m` beside `rel.sub`; `lib` has `one`, `two`, `three`. Tried on Pants 2.17.1
and 2.33.0, which agree.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """`lost` is what Pants' parser does not find, `found` what it does; dotted modules, sorted."""

    name: str
    source: bytes
    found: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def stated(self) -> list[str]:
        return sorted({*self.found, *self.lost})


def _kind(name: str, source: str | bytes, found: str = "", lost: str = "") -> Kind:
    data = source if isinstance(source, bytes) else source.encode()
    return Kind(name, data, tuple(_modules(found)), tuple(_modules(lost)))


def _modules(words: str) -> list[str]:
    return [f"rel.{word}" if word == "sub" else f"lib.{word}" for word in words.split()]


KINDS = (
    # What is lost.
    _kind("comma", "import lib.one, lib.two\n", "one", "two"),
    _kind("aliases", "import lib.one as a, lib.two as b, lib.three\n", "one", "two three"),
    _kind("comma, continued", "import lib.one, \\\n    lib.two\n", "one", "two"),
    _kind("comma after a semicolon", "x = 1; import lib.one, lib.two; y = 2", "one", "two"),
    _kind(
        "comma after a colon",
        "if x: import lib.one, lib.two\nelse: import lib.three",
        "one three",
        "two",
    ),
    _kind("comma in a function", "async def f():\n    import lib.one, lib.two\n", "one", "two"),
    _kind("comma in a class", "class C:\n\timport lib.one, lib.two\r\n", "one", "two"),
    _kind(
        "comma in a try",
        "try:\n    import lib.one, lib.two\nexcept ImportError: pass",
        "one",
        "two",
    ),
    _kind("comma, then a comment", "import lib.one, lib.two  # both\n", "one", "two"),
    _kind("comma after a form feed", "\x0cimport lib.one, lib.two\n", "one", "two"),
    _kind("comma after a BOM", b"\xef\xbb\xbfimport lib.one, lib.two\n", "one", "two"),
    _kind(
        "comma, CR alone", b"x = 1\rimport lib.one, lib.two\rimport lib.three\r", "one three", "two"
    ),
    _kind("comma, a part of them known", "import lib.one, lib.two\nimport lib.two\n", "one two"),
    _kind("continued at once", "import \\\n    lib.one\n", "", "one"),
    _kind("continued inside a name", "import lib.\\\n    one\n", "", "one"),
    _kind("spaces inside a name", "import lib . one\nfrom lib . two import x\n", "", "one two"),
    _kind("space after the dot", "from . sub import x\n", "", "sub"),
    _kind("continued after the dot", "from .\\\n    sub import x\n", "", "sub"),
    _kind("name not in normal form", "import lib.\uff4fne\n", "", "one"),
    # What is not.
    _kind("one a line", "import lib.one\nimport lib.two as b\n", "one two"),
    _kind("semicolons", "import lib.one; import lib.two;\n", "one two"),
    _kind("from", "from lib import one, two as b\n", "one two"),
    _kind(
        "from, parentheses",
        "from lib import (  # a, b\n    one,\n    # c\n    two as b,\n)\n",
        "one two",
    ),
    _kind("from, continued", "from lib \\\n    import one, \\\n    two\n", "one two"),
    _kind("relative", "from . import sub\nfrom .sub import x\n", "sub"),
    _kind("star", "from lib.one import *\nfrom .sub import *\n", "one sub"),
    _kind(
        "for types", "if TYPE_CHECKING:\n    import lib.one\nelse:\n    import lib.two\n", "one two"
    ),
    _kind(
        "try",
        "try: import lib.one\nexcept ImportError: import lib.two\nfinally: import lib.three\n",
        "one two three",
    ),
    _kind(
        "with",
        "with a, b as c:\n    import lib.one\nasync def f():\n    async with d: import lib.two\n",
        "one two",
    ),
    _kind(
        "match",
        "match x:\n    case [1, *_]: import lib.one\n    case _:\n        import lib.two\n",
        "one two",
    ),
    _kind("in a string", '"""\nimport lib.one, lib.two\n"""\nexec("import lib.three, lib.two")\n'),
    _kind("in a comment", "x = 1  # type: lib.one\n# import lib.one, lib.two\n"),
    _kind("form feed", "import lib.one\n\x0cimport lib.two\n", "one two"),
    _kind("BOM", b"\xef\xbb\xbfimport lib.one\n", "one"),
    _kind("CRLF", b"from lib import (\r\n    one,\r\n    two,\r\n)\r\n", "one two"),
    _kind(
        "type parameters",
        "def f[T: int = str](x: T): import lib.one\n"
        "class C[*Ts]: import lib.two\ntype X[**P] = int\n",
        "one two",
    ),
    _kind("nested f-strings", 'x = f"{d["import lib.three"]}"\nimport lib.one\n', "one"),
    _kind("template strings", 'x = t"{d["k"]}"\nimport lib.one\n', "one"),
    _kind(
        "except without parentheses",
        "try:\n    import lib.one\nexcept A, B:\n    import lib.two\n",
        "one two",
    ),
    _kind("except group", "try:\n    import lib.one\nexcept* A:\n    import lib.two\n", "one two"),
    _kind("no inference", "import lib.one, lib.two  # pants: no-infer-dep\n"),
    _kind(
        "no inference, a block",
        "def f():\n    import lib.one, lib.two  # pants: no-infer-dep\nx = 1\n",
    ),
    _kind(
        "no inference, in part",
        "from lib import (\n    one,  # pants: no-infer-dep\n    two,\n)\nimport lib.three\n",
        "two three",
    ),
)
