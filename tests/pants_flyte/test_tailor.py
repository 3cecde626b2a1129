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
    assert root.tailored("ml") == ""


def test_it_can_be_turned_off(root: RuleRoot):
    root.options("--no-flyte-tailor")
    root.write({"ml/workflows.py": WORKFLOWS})
    assert root.tailored("ml") == ""
