"""`flyte-explain --diff` compares a target with a manifest, a layout and another target."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pants_flyte.goals.explain import FlyteExplain
from tests.support.flyte_images import app, image_options
from tests.support.flyte_rules import RuleRoot

TASK = "import flyte\nenv = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"
LOCK = "flyte==2.12.1\nnumpy==2.1.0\n"
REPOSITORY = {
    "locks/default.txt": LOCK,
    "3rdparty/BUILD": """
        python_requirement(name="numpy", requirements=["numpy>=2"])
        python_requirement(name="flyte", requirements=["flyte"])
        """,
    "libs/BUILD": "python_sources(dependencies=[':data'])\nresources(name='data', sources=['*.json'])",
    "libs/__init__.py": "",
    "libs/models.py": "import numpy\n",
    "libs/plots.py": "",
    "libs/weights.json": "{}",
    "app/BUILD": "python_sources()\nflyte_task(name='t', entry_point='w.py:train')",
    "app/w.py": f"{TASK}import libs.models\n",
}
OLD = "dist/old.manifest.json"


def keep(root: RuleRoot) -> None:
    """The manifest of what is packaged now, where the next test step finds it."""
    (root.path / "dist").mkdir(exist_ok=True)
    (root.path / OLD).write_bytes(root.bundle("app:t").manifest.to_json())


def told(root: RuleRoot, old: str = OLD, target: str = "app:t") -> Mapping[str, object]:
    result = root.goal(FlyteExplain, f"--diff={old}", "--format=json", target)
    assert result.exit_code == 0, result.stderr
    (one,) = json.loads(result.stdout)["differences"]
    return one


def files(groups: object) -> list[tuple[str, list[str]]]:
    assert isinstance(groups, list)
    return [
        (
            "{from} -> {to} [{reason}]".format(**group["by"]) if group["by"] else "",
            [file["path"] for file in group["files"]],
        )
        for group in groups
    ]


def test_what_was_packed_does_not_differ_from_what_is_explained(root: RuleRoot):
    root.write(REPOSITORY)
    keep(root)
    one = told(root)
    assert one["status"] == "unchanged"
    assert one["files"] == {"before": 4, "after": 4}


def test_each_edit_is_told_with_the_dependency_that_made_the_difference(root: RuleRoot):
    root.write(REPOSITORY)
    keep(root)
    root.edit("app/w.py", "import libs.models", "import libs.plots")
    one = told(root)
    assert files(one["added"]) == [("app/w.py -> libs/plots.py [imported]", ["libs/plots.py"])]
    assert files(one["removed"]) == [("app/w.py -> libs/models.py [imported]", ["libs/models.py"])]
    assert [file["path"] for file in one["changed"]] == ["app/w.py"]
    assert one["packages"] == [
        {"name": "numpy", "before": "2.1.0", "after": None, "needed_by": ["libs/models.py"]}
    ]


def test_a_version_in_the_lock_file_is_told_and_nothing_else(root: RuleRoot):
    root.write(REPOSITORY)
    keep(root)
    root.edit("locks/default.txt", "numpy==2.1.0", "numpy==2.2.0")
    one = told(root)
    assert one["packages"] == [
        {"name": "numpy", "before": "2.1.0", "after": "2.2.0", "needed_by": ["libs/models.py"]}
    ]
    assert not any(one[key] for key in ("added", "removed", "changed", "settings", "layers"))


def test_a_dependency_on_what_ships_already_is_told(root: RuleRoot):
    root.write(REPOSITORY)
    keep(root)
    root.edit(
        "app/BUILD", "python_sources()", "python_sources(dependencies=['libs/weights.json:data'])"
    )
    edge = {"from": "app/w.py", "to": "libs/weights.json", "reason": "declared"}
    assert told(root)["dependencies"] == {"added": [edge], "removed": []}


def test_another_target_is_compared_too(root: RuleRoot):
    root.write(REPOSITORY)
    root.write({"app/v.py": TASK})
    root.edit(
        "app/BUILD", "flyte_task(", "flyte_task(name='v', entry_point='v.py:train')\nflyte_task("
    )
    one = told(root, "app:v")
    assert (one["old_address"], one["address"]) == ("app:v", "app:t")
    assert [paths for _, paths in files(one["removed"])] == [["app/v.py"]]


def test_what_cannot_be_compared_is_an_error(root: RuleRoot):
    root.write(REPOSITORY)
    root.write({"dist/old.manifest.json": "{}"})
    other = (
        "flyte_deployment(name='d', tasks=[':v'])\nflyte_task(name='v', entry_point='w.py:train')"
    )
    root.edit("app/BUILD", "flyte_task(", f"{other}\nflyte_task(")
    for old, target, said in (
        (OLD, "app:t", "not a JSON object with a schema"),
        ("current", "app:t", "a version of a `flyte_deployment`, and none has app:t. Name"),
        ("/no/such.manifest.json", "app:t", "there is no such file or folder"),
        ("app/w.py", "app:t", "not a JSON"),
        ("app:app", "app:t", "is a `python_source`: name a `flyte_bundle` or a `flyte_task`"),
        ("app:d", "app:t", "is a `flyte_deployment`: name one of its tasks"),
        ("app:t", "3rdparty::", "to be compared with one target, not with none"),
    ):
        _refused(root, old, target, said)


def _refused(root: RuleRoot, old: str, target: str, said: str) -> None:
    result = root.goal(FlyteExplain, f"--diff={old}", target)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


def test_a_task_of_several_deployments_does_not_say_whose_version_is_meant(root: RuleRoot):
    root.write(REPOSITORY)
    more = "".join(f"flyte_deployment(name='{name}', tasks=[':t'])\n" for name in "ed")
    root.edit("app/BUILD", "flyte_task(", f"{more}flyte_task(")
    _refused(root, "current", "app:t", "several have app:t: app:d, app:e. Name the deployment")


def test_an_image_and_a_bundle_are_not_compared(root: RuleRoot):
    image_options(root)
    root.write(app())
    root.write({OLD: "{}", "dist/app/image/oci-layout": "{}"})
    task = "and app:t is a `flyte_task`: name the `flyte_image` to compare it with"
    image = "and app:image is a `flyte_image`: name the task, app or bundle to compare it with"
    _refused(root, "dist/app/image", "app:t", f"--diff=dist/app/image is an image, {task}")
    _refused(root, "app:image", "app:t", f"--diff=app:image is an image, {task}")
    _refused(root, OLD, "app:image", f"--diff={OLD} is a bundle, {image}")
    _refused(root, "app:t", "app:image", f"--diff=app:t is a bundle, {image}")
