"""What an artifact lacks is told before it is packed: by importer, line and what supplies it."""

from __future__ import annotations

import pytest
from pants.core.goals.check import Check
from pants.core.goals.lint import Lint

from tests.support.flyte_rules import RuleRoot

TASK = "import flyte\nenv = flyte.TaskEnvironment('e')\n@env.task\ndef f(): ...\n"
APP = {
    "app/BUILD": "python_sources(name='lib')\nflyte_task(name='t', entry_point='w.py:f')\n",
    "lib/BUILD": "python_sources()\n",
    "lib/__init__.py": "",
    "lib/trend.py": "value = 1\nif value:\n    other = 2\n",
}


def entry(source: str) -> dict[str, str]:
    return {**APP, "app/w.py": f"{source}\n{TASK}"}


def told(caplog) -> list[str]:
    return [m for m in (r.getMessage() for r in caplog.records) if "what its code needs" in m]


WRONG = {
    "a misspelt module": (
        "import lib.trand",
        "app/w.py:1: `import lib.trand`: there is no module `lib.trand` in the repository; did you "
        "mean `lib.trend`?",
    ),
    "a misspelt name of a package": (
        "from lib import trnd",
        "app/w.py:1: `from lib import trnd`: `lib` defines no such name and has no such module; "
        "did you mean `lib.trend`?",
    ),
    "a misspelt name": (
        "from lib.trend import valeu",
        "app/w.py:1: `from lib.trend import valeu`: `lib.trend` defines no such name; did you mean "
        "`lib.trend.value`?",
    ),
    "a misspelt package": ("from lib.trends.deep import x", "there is no module `lib.trends`"),
    "inside a function": ("def g():\n    import lib.none\n", "app/w.py:2: `import lib.none`"),
    "a relative one too far up": ("from ... import x", "leads out of the top-level package"),
    "a relative one": ("from .none import x", "app/w.py:1: `from .none import x`: there is no"),
    "by name": (
        "import importlib\nimportlib.import_module('lib.none')",
        'app/w.py:2: `import_module("lib.none")`: there is no module `lib.none`',
    ),
    "a program": (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'lib.none'])",
        "app/w.py:2: `python -m lib.none`: there is no module `lib.none`",
    ),
    "several in one statement": ("import lib.trend, lib.none, os", "`import lib.none`"),
    "a star": ("from lib.none import *", "`from lib.none import *`"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_import_that_finds_nothing_is_an_error(root: RuleRoot, case):
    source, message = WRONG[case]
    root.write(entry(source))
    assert message in root.refusal("app:t")


RIGHT = [
    "import lib",
    "import lib.trend, os.path",
    "from lib import trend",
    "from lib.trend import value, other",
    "from lib.trend import anything  # flyte: missing-ok",
    "from lib import *",
    "from lib import __file__",
    "from . import w",
    "import xml.etree.ElementTree",
    "import flyte.storage",
    "try:\n    import lib.none\nexcept ImportError:\n    pass",
    "try:\n    from lib import none\nexcept (ImportError, AttributeError):\n    import lib.none2",
    "from contextlib import suppress\nwith suppress(ImportError):\n    import lib.none",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lib.none",
    "import sys\nif sys.version_info < (3, 6):\n    import lib.none",
    "import sys\nif sys.platform == 'win32':\n    import lib.none",
    "import lib.none  # pants: no-infer-dep",
    "import lib.none  # flyte: missing-ok",
    "from lib import (\n    trend,\n    none,  # flyte: missing-ok\n)",
    "if __name__ == '__main__':\n    import lib.none",
    "'''\nimport lib.none\n'''",
    "import sys\nsys.modules['lib.none'] = sys\nimport lib.none",
]


@pytest.mark.parametrize("source", RIGHT)
def test_what_is_there_or_may_be_missing_is_none(root: RuleRoot, caplog, source):
    root.write(entry(source))
    root.package("app:t")
    assert told(caplog) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name='lib'", "name='lib', dependencies=['!lib/trend.py']"),
        ("name='t'", "name='t', dependencies=['!!lib/trend.py']"),
    ],
)
def test_a_module_that_dependencies_take_out_is_a_warning(root: RuleRoot, caplog, old, new):
    root.write(entry("import lib.trend"))
    root.edit("app/BUILD", old, new)
    root.package("app:t")
    (said,) = told(caplog)
    assert "`import lib.trend`: `dependencies` takes it out, by `!` before lib/trend.py" in said


def test_a_module_that_pants_does_not_look_for_is_named_with_its_target(root: RuleRoot):
    root.options("--no-python-infer-imports")
    root.write(entry("import lib.trend"))
    assert (
        "app/w.py:1: `import lib.trend`: lib/trend.py supplies it, and nothing that ships depends "
        "on that; add it to `dependencies` of the target whose code imports it"
    ) in root.refusal("app:t")


def test_a_module_without_owner_is_named_with_the_line_to_write(root: RuleRoot):
    root.write({**entry("import other.x"), "other/x.py": ""})
    assert (
        "`import other.x`: no target owns other/x.py; write `python_sources()` into other/BUILD"
    ) in root.refusal("app:t")
    root.write({"other/BUILD": "python_sources()"})
    assert "other/x.py" in root.bundle("app:t").paths


def test_an_ambiguous_module_is_named_with_all_that_supply_it(root: RuleRoot):
    root.write({**entry("import lib.trend"), "lib/BUILD": "python_sources(name='a')\npython_sources(name='b')"})  # fmt: skip
    said = root.refusal("app:t")
    assert "several targets supply it: lib/trend.py:a, lib/trend.py:b, so that Pants takes" in said
    assert "leave one, or name the one that is meant in `dependencies`" in said


def test_where_source_roots_settle_it_the_option_is_named(root: RuleRoot):
    root.options("--source-root-patterns=['/one', '/two']")
    root.write(
        {
            "one/BUILD": "python_sources(name='lib')\nflyte_task(name='t', entry_point='w.py:f')\n",
            "one/w.py": f"import helper\n{TASK}",
            "one/helper.py": "",
            "two/BUILD": "python_sources()",
            "two/helper.py": "",
        }
    )
    assert '`[python-infer].ambiguity_resolution = "by_source_root"`, which takes the one below one' in root.refusal("one:t")  # fmt: skip


def test_a_module_beside_its_importer_is_imported_by_its_whole_name(root: RuleRoot):
    root.write({**entry("import helper"), "app/helper.py": ""})
    assert "app/helper.py lies beside it, and is imported as `app.helper`" in root.refusal("app:t")


def test_a_name_that_nobody_knows_is_a_warning(root: RuleRoot, caplog):
    root.write(entry("import nunpy"))
    root.write({"reqs/BUILD": "python_requirement(name='n', requirements=['numpy==2.0'])"})
    root.package("app:t")
    (said,) = told(caplog)
    assert said.startswith("app:t: the bundle may lack what its code needs when it runs:")
    assert (
        "`import nunpy`: no standard library, target or requirement is known to supply it; did you "
        "mean `numpy`?"
    ) in said


@pytest.mark.parametrize("how", ["missing='warn'", "missing='ignore'", "provided_modules=['lib']"])
def test_a_target_decides_what_is_done(root: RuleRoot, caplog, how):
    root.write(entry("import lib.none"))
    root.edit("app/BUILD", "entry_point=", f"{how}, entry_point=")
    root.package("app:t")
    assert [line.split(":")[0] for line in told(caplog)] == (["app"] if "warn" in how else [])


def test_an_option_decides_for_all(root: RuleRoot, caplog):
    root.write(entry("import lib.none"))
    root.options("--flyte-missing=ignore")
    root.package("app:t")
    root.options("--flyte-provided-modules=lib.none")
    root.package("app:t")
    assert told(caplog) == []


def test_a_module_that_left_the_standard_library_is_one_that_nothing_supplies(
    root: RuleRoot, caplog
):
    root.options(env={"PANTS_PYTHON_INTERPRETER_CONSTRAINTS": "['CPython>=3.12,<3.14']"})
    root.write(entry("import asyncore"))
    root.edit("app/BUILD", "flyte_task(", "flyte_bundle(name='b', dependencies=[':lib'])\n#")
    root.package("app:b")
    assert "`import asyncore`: only Python before 3.12 has it, and this runs on" in told(caplog)[0]


LOCK = "numpy==2.0 --hash=sha256:0\npyyaml==6.0 --hash=sha256:0\n"


def with_resolves(source: str, requirements: str, lock: str = LOCK) -> dict[str, str]:
    return {
        **entry(source),
        "locks/default.txt": lock,
        "reqs/BUILD": requirements,
        "app/BUILD": "python_sources(name='lib', resolve='python-default')\nflyte_task(name='t', resolve='python-default', image='img:image', entry_point='w.py:f')\n",
        "img/BUILD": "flyte_image(name='image', base=':base', resolve='python-default')\nflyte_base_image(name='base', source='host')",
    }


def third_party(root: RuleRoot, caplog) -> str:
    """What is said of the bundle alone."""
    root.edit("app/BUILD", "flyte_task(", "flyte_bundle(name='b', dependencies=[':lib'])\n#")
    root.package("app:b")
    (said,) = told(caplog)
    return said


def test_a_distribution_that_the_mapping_knows_is_named(root: RuleRoot, caplog):
    root.write(with_resolves("import yaml", "", lock="numpy==2.0 --hash=sha256:0\n"))
    assert (
        "`import yaml`: `pyyaml` supplies it; add it to the requirements of the resolve "
        "`python-default` and make the lock file locks/default.txt anew"
    ) in third_party(root, caplog)


def test_requirements_that_pants_cannot_choose_from_are_named(root: RuleRoot, caplog):
    two = "\n".join(f"python_requirement(name='{n}', requirements=['numpy==2.0'])" for n in "ab")
    root.write(with_resolves("import numpy", two))
    said = third_party(root, caplog)
    assert "several requirements supply it: reqs:a, reqs:b, so that Pants takes none" in said


def test_what_the_lock_file_may_bring_is_no_error(root: RuleRoot, caplog):
    root.write(with_resolves("import yaml", "python_requirement(name='n', requirements=['numpy'])"))
    root.edit("app/BUILD", "flyte_task(", "flyte_bundle(name='b', dependencies=[':lib'])\n#")
    root.package("app:b")
    assert told(caplog) == []


TOLD = """\
numpy==2.0 --hash=sha256:0
    # via {numpy}
pandas==2.0 --hash=sha256:0
    # via -r requirements.txt
"""


@pytest.mark.parametrize(("of_numpy", "said"), [("pandas", []), ("-r requirements.txt", ["b"])])
def test_what_the_lock_file_says_of_needs_counts(root: RuleRoot, caplog, of_numpy, said):
    requirement = "python_requirement(name='p', requirements=['pandas'])"
    source = "import pandas\nimport numpy"
    root.write(with_resolves(source, requirement, TOLD.format(numpy=of_numpy)))
    root.edit("app/BUILD", "flyte_task(", "flyte_bundle(name='b', dependencies=[':lib'])\n#")
    root.package("app:b")
    wanted = "numpy is in locks/default.txt, and nothing that ships requires it"
    assert ["b" for line in told(caplog) if wanted in line] == said


def test_syntax_newer_than_the_python_of_the_rules_is_read_by_another(root: RuleRoot):
    root.options(env={"PANTS_PYTHON_INTERPRETER_CONSTRAINTS": "['CPython>=3.12,<3.14']"})
    root.write({**entry("import lib.new"), "lib/new.py": "type X = int\nimport lib.none\n"})
    root.edit("app/w.py", "import lib.new", "from lib.new import X, Y")
    refusal = root.refusal("app:t")
    assert "lib/new.py:2: `import lib.none`" in refusal
    assert "`from lib.new import Y`: `lib.new` defines no such name" in refusal
    assert "`from lib.new import X`" not in refusal


def test_the_names_of_generated_code_count(root: RuleRoot):
    root.write(
        {
            **entry("from app.gen import made, gone"),
            "app/BUILD": """
                python_sources(name="lib", dependencies=[":gen"])
                shell_command(
                    name="write", command="echo 'if 1: made = 1' > gen.py", output_files=["gen.py"]
                )
                experimental_wrap_as_python_sources(name="gen", inputs=[":write"])
                flyte_task(name="t", entry_point="w.py:f")
                """,
        }
    )
    refusal = root.refusal("app:t")
    assert "app/w.py:1: `from app.gen import gone`: `app.gen` defines no such name" in refusal
    assert "import made`" not in refusal


# --- what code names without importing it ---------------------------------------------------------

NAMED = {
    "import_module": "import importlib\nimportlib.import_module('lib.trend')",
    "import_module in a function": "from importlib import import_module\ndef g():\n    import_module('lib.trend')",
    "a constant": "import importlib\nNAME = 'lib.trend'\nimportlib.import_module(NAME)",
    "relative to a package": "import importlib\nimportlib.import_module('.trend', 'lib')",
    "find_spec": "import importlib.util\nimportlib.util.find_spec('lib.trend')",
    "python -m": "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'lib.trend', 'x'])",
    "python -m in one text": "import os\nos.system('python3 -u -m lib.trend --n 5')",
    "exec": "import os, sys\nos.execv(sys.executable, [sys.executable, '-m', 'lib.trend'])",
    "a script": "import subprocess\nsubprocess.check_call(['python', 'lib/trend.py'])",
    "plugins": "import pkgutil, lib\nfor m in pkgutil.iter_modules(lib.__path__): pass",
    "a table of __getattr__": "_LAZY = {'value': 'lib.trend'}\ndef __getattr__(name):\n    import importlib\n    return getattr(importlib.import_module(_LAZY[name]), name)",
    "a loop": "import importlib\nfor name in ('lib', 'lib.trend'):\n    importlib.import_module(name)",
    "a table": "import importlib\nT = {'x': 'lib.trend'}\ndef g(k):\n    return importlib.import_module(T[k])",
    "put together": "import importlib\nTOP = 'lib'\nimportlib.import_module(f'{TOP}.trend')",
    "plugins by directory": "import pkgutil\nfrom pathlib import Path\nlist(pkgutil.iter_modules([str(Path(__file__).parents[1] / 'lib')]))",
    "a script beside": "import subprocess, sys\nfrom pathlib import Path\nsubprocess.run([sys.executable, str(Path(__file__).parents[1] / 'lib/trend.py')])",
    "a server": "import subprocess\nsubprocess.run(['gunicorn', 'lib.trend:app'])",
    "a lazy module": "import lazy\n_import_structure = {'lib.trend': ['value']}\nlazy._LazyModule(__name__, _import_structure)",
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
def test_a_module_that_code_names_by_a_constant_ships(root: RuleRoot, case):
    root.write(entry(NAMED[case]))
    assert "lib/trend.py" in root.bundle("app:t").paths


REGISTERED = {
    "//:d": ("BUILD", "python_distribution(name='d', provides=python_artifact(name='x'), entry_points={'plugs': {'a': 'lib.trend:value'}})"),
    "//:p": ("BUILD", "python_distribution(name='p', provides=python_artifact(name='x', entry_points={'plugs': ['a = lib.trend']}))"),
    "pyproject.toml": ("pyproject.toml", "[project.entry-points.'plugs']\n# all\na = 'lib.trend:value'\n[tool.x]\nb = 'lib.none:y'\n"),
    "setup.cfg": ("setup.cfg", "[options.entry_points]\nplugs =\n    a = lib.trend:value\n"),
}  # fmt: skip


@pytest.mark.parametrize("by", REGISTERED)
def test_entry_points_of_our_own_distributions_ship_and_are_told(root: RuleRoot, caplog, by):
    root.write(entry("from importlib.metadata import entry_points\nentry_points(group='plugs')"))
    root.write(dict([REGISTERED[by]]))
    assert "lib/trend.py" in root.bundle("app:t").paths
    (said,) = told(caplog)
    assert f'`entry_points("plugs")`: {by} registers `lib.trend` there' in said


READS = {
    "beside": "from pathlib import Path\nPath(__file__).parent.joinpath('x.json').read_text()",
    "a constant": "from pathlib import Path\nHERE = Path(__file__).resolve().parent\nwith open(HERE / 'x.json') as f: pass",
    "os.path": "import os\nopen(os.path.join(os.path.dirname(__file__), 'x.json'))",
    "resources": "from importlib import resources\nresources.files('app').joinpath('x.json').read_text()",
    "old resources": "from importlib import resources\nresources.read_text('app', 'x.json')",
    "own package": "from importlib.resources import files\n(files(__package__) / 'x.json').read_bytes()",
    "pkgutil": "import pkgutil\npkgutil.get_data(__name__, 'x.json')",
    "the working directory": "import json\njson.load(open('app/x.json'))",
}  # fmt: skip


@pytest.mark.parametrize("case", READS)
def test_data_that_code_reads_ships_where_a_target_owns_it(root: RuleRoot, caplog, case):
    root.write({**entry(READS[case]), "app/x.json": "{}"})
    if case == "the working directory":
        root.package("app:t")
        assert any(
            'no target owns app/x.json; write `files(name="data", sources=["x.json"])`' in said
            for said in told(caplog)
        )
    else:
        assert (
            'no target owns app/x.json; write `resources(name="data", sources=["x.json"])` into '
            "app/BUILD, and its address into `dependencies` of the target that reads it"
        ) in root.refusal("app:t")
    kind = "files" if case == "the working directory" else "resources"
    root.edit("app/BUILD", "python_sources(", f"{kind}(name='d', sources=['*.json'])\npython_sources(")  # fmt: skip
    caplog.clear()
    assert "app/x.json" in root.bundle("app:t").paths
    assert told(caplog) == []


def test_a_script_without_owner_is_told(root: RuleRoot, caplog):
    root.write(entry("import subprocess, sys\nsubprocess.run([sys.executable, 'tools/job.py'])"))
    root.write({"tools/job.py": ""})
    root.package("app:t")
    (said,) = told(caplog)
    assert (
        "app/w.py:2: `tools/job.py`: no target owns tools/job.py; write `python_sources()` into "
        "tools/BUILD"
    ) in said
    root.write({"tools/BUILD": "python_sources()"})
    assert "tools/job.py" in root.bundle("app:t").paths


def test_a_file_that_its_target_puts_elsewhere_is_told(root: RuleRoot):
    root.options("--source-root-patterns=['/src']")
    source = "from pathlib import Path\n(Path(__file__).parent / 'x.json').read_text()\n"
    root.write(
        {
            "src/app/BUILD": "python_sources(name='lib', dependencies=[':d'])\nfiles(name='d', sources=['x.json'])\nflyte_task(name='t', entry_point='w.py:f')\n",
            "src/app/w.py": f"{source}{TASK}",
            "src/app/x.json": "{}",
        }
    )
    assert (
        "src/app/x.json is at src/app/x.json, and this looks for it at app/x.json; let `resources` "
        "own it"
    ) in root.refusal("src/app:t")


def test_a_file_that_code_does_without_is_no_error(root: RuleRoot, caplog):
    root.write(
        {
            **entry("try:\n    f = open(__file__ + '/../x.json')\nexcept OSError:\n    f = None"),
            "app/x.json": "{}",
        }
    )
    root.package("app:t")
    assert told(caplog) == []


def test_what_is_written_is_not_read(root: RuleRoot, caplog):
    root.write({**entry("open('app/x.json', 'w')"), "app/x.json": "{}"})
    root.package("app:t")
    assert told(caplog) == []


def test_what_a_star_brings_ships(root: RuleRoot):
    root.write(
        {
            **entry("from lib.many import *"),
            "lib/many/BUILD": "python_sources()",
            "lib/many/__init__.py": "__all__ = ['one', 'two']\n",
            "lib/many/one.py": "",
            "lib/many/two.py": "",
        }
    )
    assert {"lib/many/one.py", "lib/many/two.py"} <= set(root.bundle("app:t").paths)


def test_what_a_stub_attaches_ships(root: RuleRoot, caplog):
    root.write(
        {
            **entry("import lib.many"),
            "lib/many/BUILD": "python_sources(sources=['*.py', '*.pyi'])",
            "lib/many/__init__.py": "import lazy_loader\n__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)\n",
            "lib/many/__init__.pyi": "from .one import f\nfrom . import two\n",
            "lib/many/one.py": "f = 1\n",
            "lib/many/two.py": "",
        }
    )  # fmt: skip
    paths = set(root.bundle("app:t").paths)
    assert {"lib/many/__init__.pyi", "lib/many/one.py", "lib/many/two.py"} <= paths


FOLDERS = {
    "glob": "(Path(__file__).parent / 'sql').glob('*.sql')",
    "iterdir": "[one for one in (Path(__file__).parent / 'sql').iterdir()]",
    "listdir": "import os\nos.listdir(os.path.join(os.path.dirname(__file__), 'sql'))",
    "handed on": "configure(Path(__file__).parent / 'sql')",
    "resources": "from importlib.resources import files\nfiles('app').joinpath('sql').iterdir()",
    "templates": "import jinja2\njinja2.PackageLoader('app', 'sql')",
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_directory_that_code_reads_ships(root: RuleRoot, caplog, case):
    files = {"app/sql/a.sql": "", "app/sql/b.sql": "", "app/sql/code.py": ""}
    root.write({**entry(f"from pathlib import Path\n{FOLDERS[case]}"), **files})
    if case == "handed on":
        root.package("app:t")
        (said,) = told(caplog)
    else:
        said = root.refusal("app:t")
    assert 'no target owns app/sql/a.sql (and 1 more); write `resources(name="data", sources=["*.sql"])` into app/sql/BUILD' in said  # fmt: skip
    root.edit("app/BUILD", "python_sources(", "resources(name='d', sources=['sql/*.sql'])\npython_sources(")  # fmt: skip
    paths = set(root.bundle("app:t").paths)
    assert {"app/sql/a.sql", "app/sql/b.sql"} <= paths
    assert "app/sql/code.py" not in paths


def test_what_an_environment_includes_ships_or_is_named(root: RuleRoot, caplog):
    other = "import flyte\nenv = flyte.TaskEnvironment('o', include=['c.yaml', 'more', '*.txt'])\n"
    root.write(
        {
            **entry("import lib.other"),
            "lib/other.py": other,
            "lib/more/a.bin": "",
        }
    )
    said = root.refusal("app:t")
    assert "lib/other.py:2: `c.yaml`: an environment includes it, and the repository has no lib/c.yaml" in said  # fmt: skip
    assert "lib/other.py:2: `more`: no target owns lib/more/a.bin; write `resources(" in said
    assert "*.txt" not in said
    root.write({"lib/c.yaml": ""})
    root.edit("lib/BUILD", "python_sources()", "python_sources()\nresources(name='s', sources=['c.yaml', 'more/*'])")  # fmt: skip
    root.package("app:t")
    assert "lib/other.py:2: `*.txt`: an environment includes it, and the repository has no" in told(caplog)[0]  # fmt: skip
    root.write({"lib/b.txt": ""})
    root.edit("lib/BUILD", "python_sources()", "resources(name='r', sources=['*.txt'])\npython_sources()")  # fmt: skip
    paths = set(root.bundle("app:t").paths)
    assert {"lib/c.yaml", "lib/b.txt", "lib/more/a.bin"} <= paths


@pytest.mark.parametrize("asked", [True, False])
def test_what_data_names_ships_where_that_is_asked_for(root: RuleRoot, asked):
    files = {
        "app/conf/c.yaml": "model:\n  _target_: lib.trend.Model\n  other: no.such.module\n",
        "app/conf/BUILD": "resources(sources=['*.yaml'])",
    }
    source = "import hydra  # flyte: missing-ok\n@hydra.main(config_path='conf')\ndef main(c): ..."
    root.write({**entry(source), **files})
    root.options(f"--flyte-infer-named-in-data={asked}")
    paths = root.bundle("app:t").paths
    assert "app/conf/c.yaml" in paths
    assert ("lib/trend.py" in paths) == asked


def test_the_option_switches_the_inference_off(root: RuleRoot):
    root.write(entry(NAMED["import_module"]))
    root.options("--no-flyte-infer-named-in-code")
    assert '`import_module("lib.trend")`: lib/trend.py supplies it' in root.refusal("app:t")


# --- lint -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", [Lint, Check])
def test_goals_say_the_same_and_more_without_packing(root: RuleRoot, goal):
    root.write(
        entry(
            "import importlib\ndef g(name):\n    importlib.import_module(name)\n"
            "try:\n    import lib.gone\nexcept ImportError: pass"
        )
    )
    result = root.goal(goal, "app:t")
    assert result.exit_code == 0
    root.edit("app/w.py", "import importlib\n", "import importlib, lib.none\n")
    result = root.goal(goal, "app:t")
    assert result.exit_code == 1
    assert "flyte-completeness failed" in result.stderr
