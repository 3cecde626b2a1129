"""Reading a module's tasks, environments and imports off its syntax tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from flyte_pack.code import module_scan
from flyte_pack.code.module_scan import Import, Meaning, ModuleScan, may_have_tasks, scan


def scanned(source: str) -> ModuleScan:
    return scan(dedent(source))


def test_identifiers_are_spelled_as_python_spells_them():
    """In NFKC, whatever the source says."""
    found = scan(
        "import e\u0301te\u0301\nenv = TaskEnvironment('e')\n@env.task\ndef \ufb01t(): ...\n"
    )
    assert [found.imports[0].module, found.bindings[-1][0]] == ["\u00e9t\u00e9", "fit"]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b, c as d", ["a", "d"]),
        ("from x import a, b as c", ["a", "c"]),
        ("a, (b, *c) = d.e = f[0] = x", ["a", "b", "c"]),
        ("for a, b in x: c = 1", ["a", "b", "c"]),
        ("with x as a, y as (b, c), z: ...", ["a", "b", "c"]),
        ("while x:\n    a = 1\nelse:\n    b = 2", ["a", "b"]),
        ("try:\n    a = 1\nexcept E:\n    b = 2\nelse:\n    c = 3\nfinally:\n    d = 4", list("abcd")),
        ("if (a := f()): ...", ["a"]),
        ("def f():\n    x = 1", ["f"]),
    ],
)  # fmt: skip
def test_names_are_all_that_a_module_binds(source: str, names: list[str]):
    assert sorted(name for name, _ in scanned(source).bindings) == names


@pytest.mark.parametrize(
    ("source", "includes"),
    [
        ("env = flyte.TaskEnvironment('e', include=('a', 'b/*'))", ("a", "b/*")),
        ("env = TaskEnvironment(name='e', include=['a', name, 'a'])", ("a",)),
        ("x = env.clone_with('e', include=('a',))", ("a",)),
        ("env = TaskEnvironment('e', include=NAMES)", ()),
        ("x = other('e', include=('a',))", ()),
    ],
)
def test_what_environments_include_is_found_where_it_is_written_out(
    source: str, includes: tuple[str, ...]
):
    assert scan(source).includes == includes


@pytest.mark.parametrize(
    ("source", "hides_names"),
    [
        ("from x import *", False),
        ("def __getattr__(name): ...", True),
        ("globals()['a'] = env.task(f)", True),
        ("def f():\n    global a\n    a = 1", False),
        ("vars(args)", False),
        ("exec(source)", True),
        ("vars()['a'] = 1", True),
        ("def f(a): return a.globals()", False),
        ("class C:\n    def __getattr__(self, name): ...", False),
        ("from x import y", False),
    ],
)
def test_a_module_hides_names_where_they_cant_be_seen(source: str, hides_names: bool):
    assert scanned(source).hides_names is hides_names


def test_what_is_imported_with_a_star_is_looked_for_in_those_modules():
    assert scanned("from x import *\nfrom . import *\nfrom ..y import *").stars == ("x", ".", "..y")


def test_imports_are_found_wherever_they_stand():
    found = scanned(
        """
        import a
        import b.c as d, e
        from f.g import h, i as j
        from . import k
        from ..l.m import n
        from o import *
        if TYPE_CHECKING:
            import p
        def f():
            import q
            class C:
                from r import s
        try:
            import t
        except ImportError:
            import u
        """
    )
    assert sorted(found.imports, key=lambda i: (i.line, i.module)) == [
        Import("a", 0, None, 2),
        Import("b.c", 0, None, 3),
        Import("e", 0, None, 3),
        Import("f.g", 0, "h", 4),
        Import("f.g", 0, "i", 4),
        Import("", 1, "k", 5),
        Import("l.m", 2, "n", 6),
        Import("o", 0, "*", 7),
        Import("p", 0, None, 9),
        Import("q", 0, None, 11),
        Import("r", 0, "s", 13),
        Import("t", 0, None, 15),
        Import("u", 0, None, 17),
    ]


@pytest.mark.parametrize(
    "source",
    [
        "# -*- coding: latin-1 -*-\nname = 'é'\n@env.task\ndef a(): ...".encode("latin-1"),
        "\ufeff@env.task\ndef a(): ...".encode(),
        b"@env.task\r\ndef a(): ...\r\n",
    ],
)
def test_bytes_are_decoded_as_python_decodes_them(source: bytes):
    assert scan(source).bindings[-1] == ("a", (Meaning("value", "env.task(_)"),))


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"def", SyntaxError),
        (b"x = '\xff'", SyntaxError),
        (b"# coding: nonsense\n", SyntaxError),
        (b"x = 1\0", (ValueError, SyntaxError)),
        pytest.param(b"-" * 100_000 + b"1", SyntaxError, id="nested too deeply"),
    ],
)
def test_what_is_no_python_is_an_error(source: bytes, error: type[Exception]):
    with pytest.raises(error):
        scan(source)


@pytest.mark.parametrize(
    ("source", "may"),
    [
        (b"@env.task\ndef a(): ...", True),
        (b"@env.sandbox.orchestrator\ndef a(): ...", True),
        (b"@env . task(x=1)\ndef a(): ...", True),
        (b"e = TaskEnvironment.from_task('e', t)", True),
        (b"task = 3\nenv.tasks", False),
        (b"", False),
    ],
)
def test_a_module_that_defines_tasks_is_known_by_its_text(source: bytes, may: bool):
    assert may_have_tasks(source) is may


EVERYTHING = """
import flyte
class C(flyte.TaskEnvironment, Mixin[int]): ...
def make(x) -> C: return C(x, y) if x else None
from . import sibling
env = flyte.TaskEnvironment("e")
@env.task
def a(): ...
b = flyte.extras.ContainerTask()
def plain(): ...
from x import *
"""


def test_a_scan_survives_json():
    found = scan(EVERYTHING)
    assert ModuleScan.from_json(found.to_json()) == found


def as_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The file run alone, as in a sandbox that holds nothing else."""
    return subprocess.run(
        [sys.executable, "-IS", module_scan.__file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_file_runs_alone_and_finds_what_the_function_finds(tmp_path: Path):
    (tmp_path / "m.py").write_text(EVERYTHING)
    done = as_program(str(tmp_path / "m.py"))
    assert (done.returncode, done.stderr) == (0, "")
    assert ModuleScan.from_json(done.stdout) == scan(EVERYTHING)


@pytest.mark.parametrize(
    "source", ["x = (", "x = 1\0", pytest.param("-" * 100_000 + "1", id="nested too deeply")]
)
def test_the_program_says_where_the_syntax_is_wrong_in_one_line(tmp_path: Path, source: str):
    (tmp_path / "m.py").write_text(source)
    done = as_program(str(tmp_path / "m.py"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip()
    assert len(done.stderr.splitlines()) == 1
