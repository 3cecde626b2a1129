"""The graph holds every import, whatever Pants' own parser loses."""

from __future__ import annotations

import pytest
from pants.engine.internals.scheduler import ExecutionError

from tests.support.flyte_rules import RuleRoot
from tests.support.import_kinds import KINDS, Kind

OFF = "--no-flyte-infer-lost-imports"
COMMA = "import lib.one, lib.two\n"
LIB = {"lib/BUILD": "python_sources()", "lib/one.py": "", "lib/two.py": "", "lib/three.py": ""}


@pytest.fixture(scope="module")
def inferred(shared_root: RuleRoot) -> dict[tuple[str, ...], dict[str, list[str]]]:
    """For each set of options and each kind, the modules that Pants depends on."""
    shared_root.clear()
    module_of = {kind.name: f"rel/m{n:02}.py" for n, kind in enumerate(KINDS)}
    shared_root.write({**LIB, "rel/BUILD": "python_sources()", "rel/sub.py": ""})
    shared_root.write({module_of[kind.name]: kind.source for kind in KINDS})
    found = {}
    for options in ((), (OFF,)):
        shared_root.options(*options)
        found[options] = {
            name: [spec[: -len(".py")].replace("/", ".") for spec in shared_root.dependencies(path)]
            for name, path in module_of.items()
        }
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_import_is_a_dependency(inferred, kind: Kind):
    assert inferred[()][kind.name] == kind.stated


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_pants_parser_finds_by_itself(inferred, kind: Kind):
    assert inferred[OFF,][kind.name] == sorted(kind.found)


def test_bundles_and_dependents_agree_with_the_graph(root: RuleRoot):
    root.write(
        {
            **LIB,
            "app/BUILD": "python_sources()\nflyte_task(name='t', entry_point='w.py:f')",
            "app/w.py": f"{COMMA}env = flyte.TaskEnvironment('e')\n@env.task\ndef f(): ...\n",
        }
    )
    assert root.bundle("app:t").paths == {"app/w.py", "lib/one.py", "lib/two.py"}
    assert root.dependents("lib/two.py:lib") == {"app/w.py", "app:app", "app:t", "lib:lib"}


@pytest.mark.parametrize(
    ("build", "path"),
    [
        ("python_tests()", "t/test_x.py"),
        ("python_test_utils()", "t/conftest.py"),
        ("python_source(name='x', source='x.py')", "t/x.py"),
    ],
)
def test_tests_and_their_helpers_are_sources_too(root: RuleRoot, build, path):
    root.write({**LIB, "t/BUILD": build, path: COMMA})
    assert root.dependencies("t:x" if "name=" in build else path) == ["lib/one.py", "lib/two.py"]


def test_a_module_in_the_build_root_is_one_too(root: RuleRoot):
    root.write({**LIB, "BUILD": "python_sources(name='top')", "m.py": COMMA})
    assert root.dependencies("m.py:top") == ["lib/one.py", "lib/two.py"]


def test_the_python_parser_of_2_17_loses_nothing_and_nothing_is_added(root: RuleRoot):
    root.options("--no-python-infer-use-rust-parser")
    root.write({**LIB, "a/BUILD": "python_sources()", "a/m.py": COMMA})
    assert root.dependencies("a/m.py") == ["lib/one.py", "lib/two.py"]


def test_no_import_is_inferred_where_the_user_wants_none(root: RuleRoot):
    root.options("--no-python-infer-imports")
    root.write({**LIB, "a/BUILD": "python_sources()", "a/m.py": COMMA})
    assert root.dependencies("a/m.py") == []


def test_a_module_of_two_owners_is_resolved_as_pants_resolves_it(root: RuleRoot, caplog):
    root.write(
        {
            **LIB,
            "lib/BUILD": "python_sources(name='x')\npython_sources(name='y')",
            "a/BUILD": (
                "python_source(name='open', source='open.py')\n"
                "python_source(name='settled', source='settled.py', dependencies=['!lib/two.py:x'])\n"
            ),
            "a/open.py": "import os, lib.two\n",
            "a/settled.py": "import os, lib.two\n",
        }
    )
    assert root.dependencies("a:open") == []
    assert "imports `lib.two`, but Pants cannot safely infer a dependency" in caplog.text
    assert root.dependencies("a:settled") == ["lib/two.py:y"]


def test_a_module_belongs_to_the_resolve_of_its_importer(root: RuleRoot):
    root.write(
        {
            **LIB,
            "lib/BUILD": "python_sources(resolve=parametrize('python-default', 'other'))",
            "a/BUILD": "python_sources(resolve='other')",
            "a/m.py": COMMA,
        }
    )
    assert root.dependencies("a/m.py") == [
        "lib/one.py@resolve=other",
        "lib/two.py@resolve=other",
    ]


def test_third_party_modules_are_mapped(root: RuleRoot):
    root.write(
        {
            "reqs/BUILD": "python_requirement(name='yaml', requirements=['PyYAML'])",
            "a/BUILD": "python_sources()",
            "a/m.py": "import os, yaml\n",
        }
    )
    assert root.dependencies("a/m.py") == ["reqs:yaml"]


UNOWNED = "import os, nowhere, gone.sub\n"


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        pytest.param(UNOWNED, [], ["gone.sub (line: 1), nowhere (line: 1)"], id="both"),
        pytest.param(
            UNOWNED,
            ["--python-infer-ignored-unowned-imports=gone"],
            ["imports as nowhere (line: 1)"],
            id="one is ignored",
        ),
        pytest.param(UNOWNED, ["--python-infer-unowned-dependency-behavior=ignore"], [], id="none"),
        pytest.param("import os, sys, os.path\n", [], [], id="standard library"),
        pytest.param(
            "try:\n    import json, nowhere\nexcept ImportError:\n    pass\n", [], [], id="weak"
        ),
    ],
)
def test_a_lost_module_that_nobody_owns_is_told(root: RuleRoot, caplog, source, options, told):
    root.options(*options)
    root.write({"a/BUILD": "python_sources()", "a/m.py": source})
    assert root.dependencies("a/m.py") == []
    warnings = [r.message for r in caplog.records if "a/m.py" in r.message]
    assert len(warnings) == len(told)
    for warning, text in zip(warnings, told):
        assert text in warning
        assert "# pants: no-infer-dep" in warning


def test_it_is_an_error_where_the_user_wants_one(root: RuleRoot):
    root.options("--python-infer-unowned-dependency-behavior=error")
    root.write({"a/BUILD": "python_sources()", "a/m.py": "import os, nowhere\n"})
    with pytest.raises(ExecutionError, match=r"a/m\.py: no target owns .* nowhere \(line: 1\)"):
        root.dependencies("a/m.py")
