"""Lock files of a resolve that Pants does not read: a task runs with what they pin all the same."""

from __future__ import annotations

import pytest
from pants.core.goals.run import RunRequest
from pants.engine.internals.scheduler import ExecutionError

from pants_flyte.goals.run import RunTaskFieldSet
from tests.support.flyte_goals import paths
from tests.support.flyte_images import BASE, TASK, WHEELS, image_options
from tests.support.flyte_rules import RuleRoot, refusal

PURE = {wheel.name: wheel for wheel in WHEELS if wheel.tag == "py3-none-any"}
URL = "https://files.example.com"


def pylock() -> str:
    rows = [
        f'[[packages]]\nname = "{wheel.name}"\nversion = "1.0"\n'
        f'wheels = [{{url = "{URL}/{wheel.file_name}", hashes = {{sha256 = "{wheel.sha256}"}}}}]\n'
        for wheel in PURE.values()
    ]
    return "\n".join(['lock-version = "1.0"', 'created-by = "tests"', *rows])


def uv_lock(more: str = "") -> str:
    rows = [
        f'[[package]]\nname = "{wheel.name}"\nversion = "1.0"\n'
        'source = {registry = "https://pypi.org/simple"}\n'
        f"dependencies = [{', '.join(f'{{name = {r!r}}}' for r in wheel.requires)}]\n"
        f'wheels = [{{url = "{URL}/{wheel.file_name}", hash = "sha256:{wheel.sha256}"}}]\n'
        for wheel in PURE.values()
    ]
    return "\n".join(["version = 1", *rows, more])


def write(root: RuleRoot, lock: str, task: str = "", image: str = "") -> None:
    image_options(root, "run", "app:t", "--")
    root.write(
        {
            **BASE,
            "locks/default.txt": lock,
            "app/BUILD": f"""
                python_sources()
                flyte_task(name="t", entry_point="w.py:train", {task})
                flyte_image(name="image", base="img:base", {image})
                """,
            "app/w.py": f"import pftest_a\n{TASK}",
        }
    )


def run_request(root: RuleRoot) -> RunRequest:
    return root.runner.request(RunRequest, [RunTaskFieldSet.create(root.target("app:t"))])


@pytest.mark.parametrize(
    "lock", [uv_lock(), pylock(), "\n# made by hand\n\n" + uv_lock()], ids=["uv", "pylock", "words"]
)
def test_a_task_runs_with_what_they_pin_and_it_needs(root: RuleRoot, lock):
    write(root, lock)
    found = " ".join(paths(root, run_request(root).digest))
    assert "pftest_a-1.0" in found
    assert "pftest_b-1.0" in found
    assert "pftest_c-1.0" not in found


REFUSED = {
    "Poetry's": (
        '[[package]]\nname = "pftest-a"\nversion = "1.0"\n[metadata]\nlock-version = "2.1"\n'
        'python-versions = "^3.11"\ncontent-hash = "0"\n',
        "`poetry export",
    ),
    "PDM's": ('[metadata]\nlock_version = "4.5"\n', "`pdm export"),
    "Pipenv's": ('{"_meta": {}, "default": {}, "develop": {}}', "`pipenv requirements"),
    "conda's": ("version: 1\npackage: []\n", "lock file of conda"),
    "another program's JSON": ('{"packages": []}', "is JSON, but not what PEX writes"),
    "a project": ('[project]\nname = "x"\n', "`uv lock`"),
    "a uv.lock without the package": ("version = 1\n", "needs pftest-a, and the lock file of"),
    "a uv.lock for another Python": (
        'version = 1\nrequires-python = ">=4"\n',
        "and this machine has 3.",
    ),
}


@pytest.mark.parametrize(("lock", "says"), REFUSED.values(), ids=REFUSED)
def test_others_are_refused_with_the_way_out(root: RuleRoot, lock, says):
    write(root, lock)
    with pytest.raises(ExecutionError) as caught:
        run_request(root)
    said = refusal(caught.value)
    assert said.startswith("app:t: ")
    assert says in said
    assert "\n" not in said


def test_without_a_lock_file_the_command_is_said_that_makes_it(root: RuleRoot):
    write(root, "")
    (root.path / "locks/default.txt").unlink()
    root.changed("locks/default.txt")
    with pytest.raises(ExecutionError) as caught:
        run_request(root)
    said = refusal(caught.value)
    assert said.startswith("app:t: the lock file of the resolve `python-default`")
    assert "generate-lockfiles --resolve=python-default`" in said


CONFLICT = """
[[package]]
name = "project"
version = "1"
source = {virtual = "."}
[package.optional-dependencies]
first = [{name = "pftest-c", version = "1.0", marker = "extra == 'extra-7-project-first'"}]
second = [{name = "pftest-c", version = "2.0", marker = "extra == 'extra-7-project-second'"}]

[[package]]
name = "pftest-c"
version = "2.0"
source = {registry = "https://pypi.org/simple"}
wheels = [{url = "https://files.example.com/pftest_c-2.0-py3-none-any.whl", hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"}]
"""


def test_extras_are_those_of_the_tasks_image(root: RuleRoot):
    conflicts = (
        'conflicts = [[{package = "project", extra = "first"}, '
        '{package = "project", extra = "second"}]]\n'
    )
    lock = conflicts + uv_lock(CONFLICT)
    write(root, lock, 'image=":image", dependencies=["3rdparty:c"]')
    with pytest.raises(ExecutionError) as caught:
        run_request(root)
    assert "lock_extras" in refusal(caught.value)
    write(root, lock, 'image=":image", dependencies=["3rdparty:c"]', 'lock_extras=["first"]')
    assert "pftest_c-1.0" in " ".join(paths(root, run_request(root).digest))
