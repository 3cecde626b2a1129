"""`flyte_tasks`: a target for each environment of a directory."""

from __future__ import annotations

import pytest
from pants.engine.internals.scheduler import ExecutionError

from tests.support.flyte_goals import plan, run_request
from tests.support.flyte_rules import RuleRoot, refusal

TWO = """
    import flyte

    first = flyte.TaskEnvironment("first")
    second = flyte.TaskEnvironment("second")

    @first.task
    def one(): ...

    @second.task
    def two(): ...
"""
ONE = 'import flyte\nenv = flyte.TaskEnvironment("e")\n@env.task\ndef train(): ...\n'


def tasks(more: str = "") -> str:
    return f'python_sources()\nflyte_tasks(name="tasks", image="a.test/i:1", {more})\n'


def test_each_environment_has_a_task_that_packages(root: RuleRoot):
    root.write({"ml/BUILD": tasks(), "ml/a.py": TWO, "ml/b.py": ONE, "ml/test_b.py": ONE})
    for name, entry in (
        ("a.first", "a.py:first"),
        ("a.second", "a.py:second"),
        ("b.env", "b.py:env"),
    ):
        packaged = root.package(f"ml:tasks#{name}")
        assert f"ml/{entry.partition(':')[0]}" in packaged.bundle.paths
        assert packaged.link.image is not None
    assert (
        root.package("ml:tasks#a.first").artifacts.keys()
        != root.package("ml:tasks#a.second").artifacts.keys()
    )


def test_files_may_be_chosen_and_fields_differ(root: RuleRoot):
    more = 'files=["sub/*.py", "!sub/old.py"], overrides={"sub/new.env": {"copy_style": "all"}}'
    root.write({"ml/BUILD": tasks(more), "ml/sub/BUILD": "python_sources()\n"})
    root.write({"ml/a.py": TWO, "ml/sub/new.py": ONE, "ml/sub/old.py": TWO, "ml/sub/data.txt": "x"})
    assert "ml/sub/data.txt" in root.bundle("ml:tasks#sub/new.env").paths


def test_a_change_of_the_code_selects_the_task_of_it(root: RuleRoot):
    root.write({"ml/BUILD": tasks(), "ml/a.py": TWO, "ml/b.py": ONE})
    selected = root.changed_by("ml/b.py")
    assert "ml:tasks#b.env" in selected
    assert "ml:tasks#a.first" not in selected


def test_defaults_and_parametrize_work_as_for_other_targets(root: RuleRoot):
    defaults = '__defaults__({(flyte_task, flyte_tasks): dict(image="d.test/i:1")})\n'
    styles = 'copy_style=parametrize("auto", "all")'
    root.write(
        {
            "ml/BUILD": f'{defaults}python_sources()\nflyte_tasks(name="tasks", {styles})\n'
            'flyte_task(name="own", entry_point="b.py:env", image="o.test/i:1")\n',
            "ml/b.py": ONE,
            "ml/data.txt": "",
        }
    )
    all_of_it = root.package("ml:tasks#b.env@copy_style=all")
    assert all_of_it.link.image == "d.test/i:1"
    assert "ml/data.txt" in all_of_it.bundle.paths
    assert "ml/data.txt" not in root.bundle("ml:tasks#b.env@copy_style=auto").paths
    assert root.package("ml:own").link.image == "o.test/i:1"


def test_a_deployment_takes_all_of_them(root: RuleRoot):
    deployment = 'flyte_deployment(name="deploy", tasks=[":tasks"])'
    root.write({"ml/BUILD": tasks() + deployment, "ml/a.py": TWO, "ml/b.py": ONE})
    assert len(plan(root, run_request(root, "ml:deploy").digest)["tasks"]) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('files=["none.py"]', "hold no `flyte.TaskEnvironment` with tasks"),
        ('overrides={"a.frist": {"copy_style": "all"}}', "`overrides` names no task: a.frist. There are: a.first, a.second"),
    ],
)  # fmt: skip
def test_what_generates_nothing_is_refused(root: RuleRoot, more: str, message: str):
    root.write({"ml/BUILD": tasks(more), "ml/a.py": TWO})
    with pytest.raises(ExecutionError) as caught:
        root.target("ml:tasks#a.first")
    assert message in refusal(caught.value)
