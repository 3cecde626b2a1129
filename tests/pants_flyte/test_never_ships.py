"""What no task needs stays out of `copy_style="all"`, and of folders that images copy."""

from __future__ import annotations

import logging
import os

import pytest
from pants.engine.internals.scheduler import ExecutionError

from tests.support.flyte_images import TASK, image, image_options
from tests.support.flyte_rules import RuleRoot

APP = {
    "app/BUILD": 'python_sources(name="lib")\n'
    'flyte_task(name="t", entry_point="w.py:train", copy_style="all")\n',
    "app/w.py": TASK,
    "app/data.txt": "",
}
LEFT_OUT = (
    *("__pycache__/w.cpython-39.pyc", ".git/config", ".hg/store", ".mypy_cache/x.json"),
    *(".ipynb_checkpoints/a.ipynb", ".idea/a.xml", ".vscode/a.json", "node_modules/a/b.js"),
    *("tests/test_w.py", "tests/data/x.json", "deep/tests/y.csv", "test_w.py", "w_test.py"),
    *("conftest.py", ".env", ".tox/x.py", "a.egg-info/PKG-INFO"),
)


def environment(root: RuleRoot, path: str) -> None:
    """A virtual environment as `python -m venv --copies` makes one."""
    files = ("pyvenv.cfg", "bin/python3", "lib/python3/site-packages/x.py")
    root.write({f"{path}/{file}": "" for file in files})
    os.symlink("python3", root.path / path / "bin/python")
    os.symlink("lib", root.path / path / "lib64")


@pytest.mark.parametrize("place", ["app/.venv", "app/venv", "app/env", "app/deep/down/py312"])
def test_a_virtual_environment_does_not_ship(root: RuleRoot, place):
    root.write(APP)
    environment(root, place)
    assert root.bundle("app:t").paths == {"app/w.py", "app/data.txt"}


def test_an_environment_of_conda_does_not_ship(root: RuleRoot):
    files = ("conda-meta/history", "conda-meta/a.json", "bin/python3", "lib/python3/x.py")
    root.write({**APP, **{f"app/deep/conda/{file}": "" for file in files}})
    root.write({"app/deep/kept.txt": ""})
    assert root.bundle("app:t").paths == {"app/w.py", "app/data.txt", "app/deep/kept.txt"}


def test_one_with_links_that_pants_refuses_is_told_of_with_what_to_write(root: RuleRoot):
    root.write(APP)
    environment(root, "app/env")
    os.symlink("/usr/bin/env", root.path / "app/env/bin/python3.12")
    with pytest.raises(ExecutionError, match="an absolute symbolic link") as caught:
        root.package("app:t")
    said = str(caught.value)
    assert '[GLOBAL]\npants_ignore.add = ["/app/env/"]\n' in said


def test_one_beside_modules_is_not_told_of(root: RuleRoot, caplog):
    root.write({**APP, "app/BUILD": APP["app/BUILD"].replace("all", "auto"), "app/data.txt": ""})
    os.remove(root.path / "app/data.txt")
    environment(root, "app/env")
    assert root.bundle("app:t").paths == {"app/w.py"}
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_tests_caches_and_settings_of_editors_do_not_ship(root: RuleRoot):
    root.write({**APP, **{f"app/{path}": "" for path in LEFT_OUT}})
    assert root.bundle("app:t").paths == {"app/w.py", "app/data.txt"}
    root.options("--flyte-all-excludes=-['**/tests/**']")
    assert root.bundle("app:t").paths - {"app/w.py", "app/data.txt"} == {
        "app/tests/data/x.json",
        "app/deep/tests/y.csv",
    }


def test_tests_that_are_asked_for_ship(root: RuleRoot):
    build = APP["app/BUILD"].replace('"all"', '"all", dependencies=["app/tests:tests"]')
    root.write(
        {
            **APP,
            "app/BUILD": build,
            "app/tests/BUILD": 'python_tests(name="tests")',
            "app/tests/test_w.py": "",
            "app/tests/x.json": "",
        }
    )
    assert root.bundle("app:t").paths == {"app/w.py", "app/data.txt", "app/tests/test_w.py"}


def test_a_root_that_is_named_ships_although_a_pattern_matches_it(root: RuleRoot):
    moved = {path.replace("app/", "app/tests/"): text for path, text in APP.items()}
    build = APP["app/BUILD"].replace('"all"', '"all", root_dir="app/tests"')
    root.write({**moved, "app/tests/BUILD": build, "app/tests/venv/x.txt": ""})
    assert root.bundle("app/tests:t").paths == {"w.py", "data.txt"}


def test_folders_of_images_leave_out_the_same(root: RuleRoot):
    image_options(root)
    fields = "source_folders=[{'src': 'assets'}, {'src': 'tests', 'dst': 't'}]"
    root.write({**image(fields), "app/assets/a.txt": "", "app/tests/b.txt": ""})
    root.write({f"app/assets/{path}": "" for path in LEFT_OUT})
    environment(root, "app/assets/deep/env")
    code = root.built_image("app:image").code
    assert sorted(code.values()) == ["app/assets/a.txt", "app/tests/b.txt"]
