"""What `tailor` proposes for code of Flyte, and that its proposals package."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tests.support.flyte_rules import RuleRoot

WORKFLOWS = """
    import flyte

    env = flyte.TaskEnvironment("ml")

    @env.task
    def train(n: int = 1) -> int:
        return n
"""
READS = """
    import json
    from pathlib import Path

    LIMITS = json.loads((Path(__file__).parent / "limits.json").read_text())
    PROMPT = Path(__file__).parent / "prompts" / "first.md"
    MISSING = Path(__file__).parent / "missing.json"

    def rides():
        return open("data/rides.csv")
"""


def expected(text: str) -> str:
    return dedent(text).lstrip("\n")


def test_a_task_for_each_environment_and_a_deployment_for_the_directory(root: RuleRoot):
    root.write({"ml/workflows.py": WORKFLOWS, "ml/plain.py": "x = 1\n"})
    assert root.tailored("ml", "") == expected(
        """
        # ml
        flyte_deployment(
            name="deploy",
            tasks=[
                ":workflows",
            ],
        )
        # ml
        flyte_task(
            name="workflows",
            entry_point="workflows.py:env",
        )
        """
    )
    root.write({"ml/BUILD": "python_sources()\n" + root.tailored("ml")})
    assert root.tailored("ml") == ""
    assert "ml/workflows.py" in root.bundle("ml:workflows").paths


def test_targets_at_the_build_root_keep_their_names(root: RuleRoot):
    root.write({"flow.py": WORKFLOWS + READS, "limits.json": ""})
    proposed = root.tailored("")
    assert 'name="flow",\n    entry_point="flow.py:env"' in proposed
    assert 'name="deploy",\n    tasks=[\n        ":flow",' in proposed
    assert 'resources(\n    name="data",' in proposed
    root.write({"BUILD": 'python_sources(name="root", dependencies=[":data"])\n' + proposed})
    assert root.tailored("") == ""
    assert {"flow.py", "limits.json"} <= root.bundle("//:flow").paths


@pytest.mark.parametrize(
    "made",
    [
        "env = fl.TaskEnvironment('a')",
        "env: TE = TE('a')",
        "env, other = TE('a'), fl.TaskEnvironment('b')",
        "if True:\n    env = TE('a')",
        "try:\n    env = TE('a')\nexcept Exception:\n    raise",
        "def make(name): return TE(name)\nenv = make('a')",
        "env = fl.TaskEnvironment('a').clone_with('b')",
    ],
)
def test_an_environment_is_found_however_it_is_made(root: RuleRoot, made: str):
    root.write(
        {
            "a/flow.py": "import flyte as fl\nfrom flyte import TaskEnvironment as TE\n"
            f"{made}\n@env.task(cache='auto')\nasync def train(): ...\n"
        }
    )
    assert root.tailored("a").count('entry_point="flow.py:env"') == 1


def test_one_file_with_several_environments_and_an_app(root: RuleRoot):
    root.write(
        {
            "a/main.py": """
                from flyte import TaskEnvironment
                from flyte.app import AppEnvironment
                import flyte as f

                first = TaskEnvironment("first")
                second = f.TaskEnvironment("second")
                empty = f.TaskEnvironment("none of its own")
                board = AppEnvironment("board")

                @first.task
                async def one() -> int: ...

                @second.task(retries=2)
                async def two() -> int: ...
            """
        }
    )
    said = root.tailored("a")
    assert 'name="main_first"' in said
    assert 'name="main_second"' in said
    assert 'entry_point="main.py:board"' in said
    assert said.count("flyte_app(") == 1
    assert "empty" not in said


def test_an_environment_is_proposed_where_it_is_made(root: RuleRoot):
    """The layout of Flyte's guides: environments in one file, their tasks in others."""
    root.write(
        {
            "svc/envs.py": "import flyte\nworker = flyte.TaskEnvironment('worker')\n",
            "svc/jobs.py": "from svc.envs import worker\n@worker.task\ndef job(): ...\n",
        }
    )
    said = root.tailored("svc")
    assert said.count("flyte_task(") == 1
    assert 'entry_point="envs.py:worker"' in said


@pytest.mark.parametrize(
    "covered",
    [
        'flyte_task(name="t", entry_point="workflows.py:env")',
        'flyte_task(name="t", entry_point="workflows.py:train")',
        'flyte_task(name="t", entry_point="ml/workflows.py:train")',
    ],
)
def test_what_a_target_names_already_is_not_proposed(root: RuleRoot, covered: str):
    build = "BUILD" if "ml/" in covered else "ml/BUILD"
    root.write({"ml/workflows.py": WORKFLOWS, build: f"{covered}\n"})
    assert root.tailored("ml") == ""


def test_names_that_are_taken_are_left_alone(root: RuleRoot):
    root.write(
        {
            "ml/ml.py": WORKFLOWS,
            "ml/a.txt": "",
            "ml/BUILD": 'files(name="deploy", sources=["*.txt"])\nflyte_deployment(name="all", tasks=[])\n',
        }
    )
    said = root.tailored("ml")
    assert 'name="ml_env"' in said
    assert "flyte_deployment(" not in said


def test_tests_and_files_that_do_not_parse_are_left_alone(root: RuleRoot):
    root.write({"ml/test_it.py": WORKFLOWS, "ml/broken.py": "env.task(\n"})
    root.write({"ml/tests/helper.py": WORKFLOWS + READS, "ml/tests/limits.json": ""})
    assert root.tailored("ml", "ml/tests") == ""


def test_it_can_be_turned_off(root: RuleRoot):
    root.options("--no-flyte-tailor")
    root.write({"ml/workflows.py": WORKFLOWS})
    assert root.tailored("ml") == ""


# --- data that code reads -------------------------------------------------------------------------


def test_data_that_code_reads_gets_a_target_that_owns_it(root: RuleRoot):
    root.write(
        {
            "ml/plausible.py": READS,
            "ml/limits.json": "{}",
            "ml/prompts/first.md": "",
            "ml/unread.json": "{}",
            "data/rides.csv": "",
        }
    )
    said = root.tailored("ml", "ml/prompts", "data")
    assert said == expected(
        """
        # data
        # Read by ml/plausible.py, whose target has to depend on it.
        files(
            name="files",
            sources=[
                "rides.csv",
            ],
        )
        # ml
        # Read by ml/plausible.py, whose target has to depend on it.
        resources(
            name="data",
            sources=[
                "limits.json",
                "prompts/first.md",
            ],
        )
        """
    )
    assert "data/rides.csv" not in root.tailored("ml")


def test_what_tailor_proposes_packages(root: RuleRoot):
    root.write({"ml/flow.py": WORKFLOWS + READS, "ml/limits.json": "", "data/rides.csv": ""})
    root.write({"data/BUILD": root.tailored("ml", "data").partition("# ml\n")[0]})
    proposed = root.tailored("ml")
    owner = 'python_sources(name="lib", dependencies=[":data", "data:files"])\n'
    root.write({"ml/BUILD": owner + proposed})
    paths = root.bundle("ml:flow").paths
    assert {"ml/flow.py", "ml/limits.json", "data/rides.csv"} <= paths
    assert root.tailored("ml", "data") == ""


def test_a_package_is_looked_for_from_the_source_root(root: RuleRoot):
    root.options("--source-root-patterns=['/src']")
    root.write(
        {
            "src/app/__init__.py": "",
            "src/app/sub/m.py": """
                from importlib import resources
                import pkgutil
                resources.files("app.schemas").joinpath("a.json")
                pkgutil.get_data("..schemas", "b.json")
                open("src/app/schemas/b.json")
                """,
            "src/app/schemas/a.json": "",
            "src/app/schemas/b.json": "",
            "src/app/schemas/BUILD": "files(name='data', sources=['c.json'])",
            "src/app/schemas/c.json": "",
        }
    )
    said = root.tailored("src/app/sub", "src/app/schemas")
    assert said.count("resources(") == 1
    assert "files(" not in said
    assert 'name="resources"' in said
    assert '"a.json",\n        "b.json",' in said


@pytest.mark.parametrize(
    "files",
    [
        {"ml/test_m.py": READS, "ml/limits.json": ""},
        {"setup.py": "open('ml/readme.md')", "ml/readme.md": ""},
        {"ml/m.py": "from pathlib import Path\nPath(__file__).with_name('x.py')\nopen('ml/n.py')", "ml/n.py": ""},
        {"ml/m.py": READS, "ml/limits.json": "", "BUILD": "files(name='all', sources=['ml/**'])"},
        {"src/ml/m.py": "open('../a.json')", "a.json": ""},
        {"ml/m.py": "from pathlib import Path\nPath(__file__) / '../../../../etc/passwd'"},
        {"ml/m.py": "open('ml')"},
        {"ml/m.py": "open('ml/a[1].csv')", "ml/a[1].csv": ""},
    ],
)  # fmt: skip
def test_data_that_needs_no_target_is_left_alone(root: RuleRoot, files: dict[str, str]):
    root.write(files)
    assert root.tailored("", "ml", "src/ml") == ""
