"""Reading a module's tasks, environments and imports off its syntax tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from flyte_pack import module_scan
from flyte_pack.module_scan import Import, ModuleScan, scan


def scanned(source: str) -> ModuleScan:
    return scan(dedent(source))


@pytest.mark.parametrize(
    ("source", "tasks"),
    [
        ("@env.task\ndef a(): ...", [("a", "env")]),
        ("@env.task\nasync def a(): ...", [("a", "env")]),
        ("@env.task(cache='auto', retries=3)\ndef a(): ...", [("a", "env")]),
        ("@envs.gpu.task\ndef a(): ...", [("a", "envs.gpu")]),
        ("@make().task\ndef a(): ...", [("a", None)]),
        ("@logged\n@env.task\ndef a(): ...", [("a", "env")]),
        ("@env.task\n@logged\ndef a(): ...", [("a", "env")]),
        ("def f(): ...\na = env.task(f)", [("a", "env")]),
        ("def f(): ...\na = env.task(retries=2)(f)", [("a", "env")]),
        ("a: Task = env.task(f)", [("a", "env")]),
        ("a = flyte.extras.ContainerTask(name='c', image='i')", [("a", None)]),
        ("@env.task\ndef b(): ...\n@env.task\ndef a(): ...", [("b", "env"), ("a", "env")]),
        ("if True:\n    @env.task\n    def a(): ...", [("a", "env")]),
        ("with env:\n    @env.task\n    def a(): ...", [("a", "env")]),
        ("try:\n    @env.task\n    def a(): ...\nexcept E:\n    pass", [("a", "env")]),
        ("for _ in x:\n    @env.task\n    def a(): ...\nelse:\n    b = env.task(f)", [("a", "env"), ("b", "env")]),
        # What is inside a function or a class is no name of the module.
        ("def f():\n    @env.task\n    def a(): ...", []),
        ("class C:\n    @env.task\n    def a(self): ...", []),
        ("def task(): ...\n@task\ndef a(): ...", []),
        ("a = task(f)", []),
        ("a = 1", []),
        ("", []),
    ],
)  # fmt: skip
def test_tasks_are_what_hangs_on_an_environment(source: str, tasks: list[tuple]):
    assert scanned(source).tasks == tuple(tasks)


@pytest.mark.parametrize(
    ("source", "environments"),
    [
        ("env = flyte.TaskEnvironment(name='e')", ["env"]),
        ("env = TaskEnvironment('e')", ["env"]),
        ("env: TaskEnvironment = flyte.TaskEnvironment('e')", ["env"]),
        ("env = flyte.TaskEnvironment.from_task('e', a)", ["env"]),
        ("big = env.clone_with(name='big')", ["big"]),
        ("a = b = flyte.TaskEnvironment('e')", ["a", "b"]),
        ("from envs import gpu\n@gpu.task\ndef a(): ...", ["gpu"]),
        ("gpu = envs.make()\n@gpu.task\ndef a(): ...", ["gpu"]),
        ("from envs import gpu", []),
        ("import envs\n@envs.gpu.task\ndef a(): ...", []),
        ("env = 3", []),
    ],
)
def test_environments_are_made_here_or_have_tasks_here(source: str, environments: list[str]):
    assert scanned(source).environments == tuple(environments)


@pytest.mark.parametrize(
    ("source", "apps", "environments"),
    [
        ("a = flyte.app.AppEnvironment(name='a')", ["a"], []),
        ("from flyte.app import AppEnvironment\na = AppEnvironment('a')", ["a"], []),
        ("from flyte.app import AppEnvironment as Served\na: object = Served('a')", ["a"], []),
        ("from flyte.app.extras import FastAPIAppEnvironment\na = FastAPIAppEnvironment('a')", ["a"], []),
        ("class Mine(flyte.app.AppEnvironment): ...\na = Mine('a')", ["a"], []),
        ("a = AppEnvironment('a')\nb = a.clone_with('b')\nc = b", ["a", "b", "c"], []),
        ("a = AppEnvironment('a')\na = flyte.TaskEnvironment('a')", [], ["a"]),
        ("from flyte import TaskEnvironment as T\ne = T('e')\nd = e.clone_with('d')", [], ["e", "d"]),
        ("class Mine(flyte.TaskEnvironment): ...\ne = Mine('e')", [], ["e"]),
        ("from flyte import TaskEnvironment as T\nT = other\ne = T('e')", [], []),
        ("a = AppEnvironmentFactory('a')", [], []),
    ],
)  # fmt: skip
def test_environments_of_apps_are_told_from_those_of_tasks(source, apps, environments):
    found = scanned(source)
    assert (found.apps, found.environments) == (tuple(apps), tuple(environments))


def test_identifiers_are_spelled_as_python_spells_them():
    """In NFKC, whatever the source says."""
    found = scan(
        "import e\u0301te\u0301\nenv = TaskEnvironment('e')\n@env.task\ndef \ufb01t(): ...\n"
    )
    assert [found.imports[0].module, *found.tasks_of("env")] == ["\u00e9t\u00e9", "fit"]


def test_an_environment_has_its_own_tasks_in_source_order():
    found = scanned(
        """
        one = flyte.TaskEnvironment("one")
        two = flyte.TaskEnvironment("two")

        @two.task
        def z(): ...

        @one.task
        def x(): ...

        @two.task
        def y(): ...
        """
    )
    assert found.tasks_of("one") == ("x",)
    assert found.tasks_of("two") == ("z", "y")
    assert found.tasks_of("three") == ()


@pytest.mark.parametrize(
    ("source", "tasks", "plain"),
    [
        ("@env.task\ndef a(): ...\ndef a(): ...", [], ["a"]),
        ("def a(): ...\n@env.task\ndef a(): ...", ["a"], []),
        ("@env.task\ndef a(): ...\na = None", [], []),
        ("@env.task\ndef a(): ...\na: object", ["a"], []),
        ("@env.task\ndef a(): ...\nimport a", [], []),
        # One branch of several: which of them runs can't be seen, so a task in any of them counts.
        ("if T:\n    def a(): ...\nelse:\n    @env.task\n    def a(): ...", ["a"], []),
        ("if T:\n    @env.task\n    def a(): ...\nelse:\n    def a(): ...", ["a"], []),
        ("try:\n    a = env.task(f)\nexcept E:\n    a = None", ["a"], []),
        ("if T:\n    @env.task\n    def a(): ...\ndef a(): ...", [], ["a"]),
    ],
)
def test_a_later_binding_replaces_an_earlier_one_unless_it_may_not_run(
    source: str, tasks: list[str], plain: list[str]
):
    found = scanned(source)
    assert [name for name, _ in found.tasks] == tasks
    assert list(found.plain) == plain


def test_an_environment_survives_a_fallback_for_where_flyte_is_missing():
    found = scanned(
        """
        try:
            env = flyte.TaskEnvironment("e")
        except NameError:
            env = None
        """
    )
    assert found.environments == ("env",)


def test_plain_are_functions_and_classes_without_a_decorator():
    found = scanned(
        """
        def f(): ...
        async def g(): ...
        class C: ...
        @decorated
        def h(): ...
        @dataclass
        class D: ...
        x = 1
        """
    )
    assert found.plain == ("f", "g", "C")


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
    assert sorted(scanned(source).names) == names


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
    ("source", "open_ended"),
    [
        ("from x import *", True),
        ("def __getattr__(name): ...", True),
        ("globals()['a'] = env.task(f)", True),
        ("def f():\n    global a\n    a = 1", True),
        ("exec(source)", True),
        ("vars()['a'] = 1", True),
        ("def f(a): return a.globals()", False),
        ("class C:\n    def __getattr__(self, name): ...", False),
        ("from x import y", False),
    ],
)
def test_a_module_is_open_ended_where_its_names_cant_be_seen(source: str, open_ended: bool):
    assert scanned(source).open_ended is open_ended


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
    assert scan(source).tasks == (("a", "env"),)


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


EVERYTHING = """
import flyte
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
