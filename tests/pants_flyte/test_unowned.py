"""A file beside a packed module that no target owns is told of when the module is packed."""

from __future__ import annotations

import pytest

from tests.support.flyte_images import app, image_options
from tests.support.flyte_rules import RuleRoot

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"
APP = {
    "app/BUILD": 'python_sources(name="lib")\nflyte_task(name="t", entry_point="w.py:train")\n',
    "app/w.py": f"import lib.read\n{TASK}",
    "lib/BUILD": "python_sources()\n",
    "lib/read.py": "",
}


def told(caplog) -> list[str]:
    return [m for m in (r.getMessage() for r in caplog.records) if "no owner beside" in m]


def test_a_file_without_owner_is_told_with_what_to_write(root: RuleRoot, caplog):
    root.write({**APP, "lib/table.csv": ""})
    assert root.bundle("app:t").paths == {"app/w.py", "lib/read.py"}
    assert told(caplog) == [
        "app:t: 1 file has no owner beside packed modules, and so no place in the bundle: "
        'lib/table.csv. If the code reads them, let `resources(name="data", sources=[...])` in the '
        'BUILD file there own them, and `dependencies=[":data"]` of the modules\' target bring '
        "them. If not: `[flyte].unowned_files`."
    ]
    caplog.clear()
    root.edit("lib/BUILD", "python_sources()", 'python_sources(dependencies=[":data"])\nresources(name="data", sources=["*.csv"])')  # fmt: skip
    assert "lib/table.csv" in root.bundle("app:t").paths
    assert told(caplog) == []


def test_many_files_are_one_line_that_names_the_first_three(root: RuleRoot, caplog):
    root.write({**APP, **{f"app/{letter}.json": "" for letter in "abcd"}, "lib/table.csv": ""})
    root.package("app:t")
    (line,) = told(caplog)
    assert "5 files have no owner" in line
    assert "app/a.json, app/b.json, app/c.json and 2 more. If" in line


TOLD = ["app/prompts/system.txt", "lib/model.toml", "lib/a [1].csv", "lib/run.sh", "lib/über.csv"]
NOT_TOLD = [
    *("app/README.md", "app/Dockerfile", "app/Dockerfile.dev", "lib/LICENSE", "lib/x.ipynb"),
    *("lib/stub.pyi", "lib/unowned.py", "lib/pyproject.toml", "lib/requirements-dev.txt"),
    *("lib/uv.lock", "lib/pylock.toml", "lib/setup.cfg", "lib/.env.json", "lib/.cache/x.json"),
    *("app/__pycache__/w.data", "app/venv/x.json"),
    "other/x.csv",  # beside no module of the bundle
    "app/deep/down/x.csv",
    "x.csv",  # above
]


@pytest.mark.parametrize("path", TOLD)
def test_what_code_may_read_is_told(root: RuleRoot, caplog, path):
    root.write({**APP, path: ""})
    root.package("app:t")
    assert f": {path}. If" in told(caplog)[0]


@pytest.mark.parametrize("path", NOT_TOLD)
def test_what_no_code_reads_is_not(root: RuleRoot, caplog, path):
    root.write({**APP, "other/y.py": "", path: ""})
    root.package("app:t")
    assert told(caplog) == []


@pytest.mark.parametrize("code", ["app/k8s/tool.py", "app/k8s/BUILD", "app/k8s/BUILD.pants"])
def test_a_folder_of_other_code_is_not_beside(root: RuleRoot, caplog, code):
    root.write({**APP, "app/k8s/deploy.yaml": "", code: ""})
    root.package("app:t")
    assert told(caplog) == []


def test_what_the_repository_ignores_is_not(root: RuleRoot, caplog):
    root.write({**APP, "lib/table.csv": "", "lib/.gitignore": "*.csv\n"})
    root.package("app:t")
    assert told(caplog) == []


def test_an_empty_package_above_a_module_is_no_module_of_its_own(root: RuleRoot, caplog):
    root.write({
        "top/BUILD": "python_sources()\n",
        "top/__init__.py": "",
        "top/values.yaml": "",
        "top/app/BUILD": APP["app/BUILD"],
        "top/app/w.py": TASK,
    })  # fmt: skip
    assert "top/__init__.py" in root.bundle("top/app:t").paths
    assert told(caplog) == []


OWNERS = [
    'files(name="f", sources=["*.csv"])',
    'archive(name="f", files=[":g"], format="tar")\nfile(name="g", source="table.csv")',
    'flyte_base_image(name="f", image="docker.io/library/python:3.12", lockfile="table.csv")',
    'flyte_deployment(name="f", tasks=["app:t"], config="table.csv")',
    'python_requirements(name="f", source="table.csv")',
]


@pytest.mark.parametrize("owner", OWNERS)
def test_whoever_owns_or_names_a_file_knows_of_it(root: RuleRoot, caplog, owner):
    root.write({**APP, "lib/table.csv": "", "lib/BUILD": f"python_sources()\n{owner}\n"})
    root.package("app:t")
    assert told(caplog) == []


def test_who_takes_a_whole_directory_does_not_own_what_is_in_it(root: RuleRoot, caplog):
    root.write({**APP, "app/table.csv": ""})
    root.edit("app/BUILD", 'name="t"', 'name="all", copy_style="all", entry_point="w.py:train")\nflyte_task(name="t"')  # fmt: skip
    assert "app/table.csv" in root.bundle("app:all").paths
    assert told(caplog) == []
    root.package("app:t")
    assert len(told(caplog)) == 1


def test_it_can_be_silenced(root: RuleRoot, caplog):
    root.write({**APP, "lib/table.csv": ""})
    root.options("--flyte-unowned-files=ignore")
    root.package("app:t")
    assert told(caplog) == []


@pytest.mark.parametrize("fields", ["", 'source_files=[{"src": "table.csv", "dst": "."}]'])
def test_an_image_with_code_tells_what_it_lacks(root: RuleRoot, caplog, fields):
    image_options(root)
    root.write({**app(fields), "app/table.csv": ""})
    root.built_image("app:image", code=True)
    assert [" no place in the image: app/table.csv. " in line for line in told(caplog)] == (
        [] if fields else [True]
    )
