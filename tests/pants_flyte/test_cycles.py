"""Tasks that name an image, and images and bundles that name these tasks, are no cycle for Pants'
goals; and an edit on either side selects the other under `--changed-since`.
"""

from __future__ import annotations

import pytest

from tests.support.bases import base_image
from tests.support.flyte_images import image_options
from tests.support.flyte_rules import RuleRoot

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"
README = """
flyte_image(name="image", base="//img:base", dependencies=[":t"])
flyte_task(name="t", entry_point="w.py:train", image=":image")
flyte_deployment(name="d", tasks=[":t"])
"""
OF = 'dependencies=[":t"]'
BOTH = 'resolve=parametrize("python-default", "other")'
ONE = "@resolve=python-default"
# What a BUILD file says; the image or bundle that takes from the task, and the task.
CASES = {
    "as in the README": (README, "app:image", "app:t"),
    "with the code in it": (README.replace(OF, f"{OF}, code=True"), "app:image", "app:t"),
    "by way of another task": (
        README.replace(OF, 'dependencies=[":first"]')
        + f'flyte_task(name="first", entry_point="w.py:train", {OF})',
        *("app:image", "app:t"),
    ),
    "of a deployment": (README.replace(OF, 'dependencies=[":d"]'), "app:image", "app:t"),
    "of a group of groups": (
        README.replace(OF, 'dependencies=[":all"]')
        + f'target(name="all", dependencies=[":some"])\ntarget(name="some", {OF})',
        *("app:image", "app:t"),
    ),
    "of a bundle of the task": (
        README.replace(OF, 'dependencies=[":code"]').replace(
            'image=":image"', 'image=":image", bundle=":code"'
        )
        + f'flyte_bundle(name="code", {OF})',
        *("app:code", "app:t"),
    ),
    "with the image by default": (
        '__defaults__({flyte_task: dict(image=":image")})' + README.replace(', image=":image"', ""),
        *("app:image", "app:t"),
    ),
    "of a file of the task": (
        README.replace(OF, 'dependencies=["./w.py:t"]'),
        *("app:image", "app:t"),
    ),
    "each parametrization of its own": (
        README.replace(OF, f"{OF}, {BOTH}")
        .replace('":image"', f'":image{ONE}", {BOTH}')
        .replace('[":t"])\n', f'[":t{ONE}"])\n'),
        *(f"app:image{ONE}", f"app:t{ONE}"),
    ),
    "of one of a parametrization": (
        README.replace(OF, 'dependencies=[":t@image=a", ":t@image=b"]')
        .replace('image=":image"', 'image=parametrize(a=":image", b="docker.io/o/i:1")')
        .replace('[":t"])\n', '[":t@image=a"])\n'),
        *("app:image", "app:t@image=a"),
    ),
    "two tasks, each the image of the other": (
        README.replace('image=":image"', 'image=":second"')
        .replace('[":t"])\n', '[":t", ":u"])\n')
        .replace(f'{OF.replace("]", "")}, ":u"]', OF)
        + """
flyte_image(name="second", base="//img:base", dependencies=[":u"])
flyte_task(name="u", entry_point="w.py:train", image=":image")
""",
        *("app:image", "app:u"),
    ),
}


@pytest.fixture(params=CASES)
def case(root: RuleRoot, request: pytest.FixtureRequest) -> tuple[str, str]:
    build, taker, task = CASES[request.param]
    image_options(root)
    sources = f"python_sources({BOTH})"
    root.write(
        {
            "img/BUILD": 'flyte_base_image(name="base", image="docker.io/library/python:3.12-slim")',
            "img/base.lock.json": base_image().to_json(),
            "app/BUILD": f"{build}\n{sources if BOTH in build else 'python_sources()'}\n",
            "app/w.py": f"import app.lib\n{TASK}",
            "app/lib.py": "",
        }
    )  # fmt: skip
    return taker, task


def test_pants_goals_find_no_cycle(root: RuleRoot, case):
    taker, task = case
    for spec in ("app:d" if "@" not in task else task, taker, task):
        reached = root.transitive(spec)
        assert any(one.startswith("app/lib.py") for one in reached)
    assert {taker} & root.transitive(task)
    assert task not in root.transitive(taker)


def test_an_edit_of_either_selects_the_other(root: RuleRoot, case):
    taker, task = case
    deployments = {"app:d"}
    assert {taker, task} | deployments <= root.changed_by("app/lib.py")
    assert {taker, task} | deployments <= root.changed_by("app/w.py")
    if "code" not in taker:
        assert {taker, task} | deployments <= root.changed_by("img/base.lock.json")


def test_what_is_built_is_what_the_tasks_need(root: RuleRoot):
    """Also what a task excludes, and the reason that a manifest gives."""
    image_options(root)
    root.write(
        {
            "img/BUILD": 'flyte_base_image(name="base", image="docker.io/library/python:3.12-slim")',
            "img/base.lock.json": base_image().to_json(),
            "app/BUILD": """
                python_sources()
                flyte_image(name="image", base="//img:base", dependencies=[":t"], code=True)
                flyte_task(
                    name="t", entry_point="w.py:train", dependencies=["!!app/heavy.py"],
                    image=":image", bundle=":code"
                )
                flyte_bundle(name="code", dependencies=[":t"])
                """,
            "app/w.py": f"import app.lib\n{TASK}",
            "app/lib.py": "import app.heavy",
            "app/heavy.py": "",
        }
    )  # fmt: skip
    assert set(root.built_image("app:image").code.values()) == {"app/w.py", "app/lib.py"}
    assert root.bundle("app:code").why == {
        "app/w.py": ("imported", "app:t"),
        "app/lib.py": ("imported", "app/w.py"),
    }


@pytest.mark.parametrize(
    "group", ['target(name="g", dependencies=["./lib.py"])', 'target(name="g")']
)
def test_a_group_of_other_things_is_an_ordinary_dependency(root: RuleRoot, group):
    root.write(
        {
            "app/BUILD": f"""
                python_sources()
                {group}
                flyte_bundle(name="code", dependencies=[":g", "./w.py"])
                """,
            "app/w.py": TASK,
            "app/lib.py": "",
        }
    )
    assert root.dependencies("app:code") == ["app/w.py", "app:g"]
