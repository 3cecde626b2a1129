"""`flyte-explain` says of real targets what packaging them would pack, and why."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pants.engine.internals.scheduler import ExecutionError

from flyte_pack.image.base import BaseDistribution, BaseFacts
from flyte_shim.hashing import sha256_bytes
from pants_flyte import closure
from pants_flyte.goals.explain import FlyteExplain
from tests.support.bases import base_image, base_platform
from tests.support.flyte_images import app, image_options
from tests.support.flyte_rules import RuleRoot, refusal

TASK = "import flyte\nenv = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"
REPOSITORY = {
    "3rdparty/BUILD": """
        python_requirement(name="numpy", requirements=["numpy>=2"])
        python_requirement(name="flyte", requirements=["flyte"])
        """,
    "libs/models/BUILD": """
        python_sources(dependencies=[":data"])
        resources(name="data", sources=["*.json"])
        """,
    "libs/models/__init__.py": "import numpy\n",
    "libs/models/weights.json": "{}" * 500,
    "libs/plots/BUILD": "python_sources()",
    "libs/plots/draw.py": "import libs.plots.colors\n",
    "libs/plots/colors.py": "RED = 'red'\n",
    "libs/__init__.py": "",
    "app/BUILD": "python_sources()\nflyte_task(name='t', entry_point='w.py:train')",
    "app/w.py": TASK + "import libs.models\nimport libs.plots.draw\n",
}


def explained(root: RuleRoot, *args: str, code: int = 0) -> str:
    result = root.goal(FlyteExplain, *args)
    assert result.exit_code == code, result.stderr
    return result.stdout


def test_a_task_is_a_tree_with_sizes_owners_and_costs(root: RuleRoot):
    root.write(REPOSITORY)
    assert explained(root, "app:t") == dedent(
        """\
        app:t: a bundle of 6 files, 1.2 kB

        Each file below the one that brings it:
          app/w.py                          115 B  [module, entry point]  app
            libs/models/__init__.py          13 B  [module, imported]  libs/models
              libs/models/weights.json     1.0 kB  [resource, declared]  libs/models:data
              libs/__init__.py                0 B  [module, package above]  (no owner)
            libs/plots/draw.py               25 B  [module, imported]  libs/plots
              libs/plots/colors.py           12 B  [module, imported]  libs/plots

        Third-party requirements:
          flyte     needed by app/w.py  (3rdparty:flyte)
          numpy>=2  needed by libs/models/__init__.py  (3rdparty:numpy)

        By top folder:
          libs     1.1 kB       5 files
          app       115 B       1 file

        By the target that owns them:
          libs/models:data     1.0 kB       1 file
          app                   115 B       1 file
          libs/plots             37 B       2 files
          libs/models            13 B       1 file
          (no owner)              0 B       1 file

        What only one direct dependency of the entry point brings:
          dropping `libs/models` saves 1.0 kB in 2 files, and the need of numpy>=2
          dropping `libs/plots` saves 37 B in 2 files

        Sizes are those on disk: `--packed` adds those in the archive, or the layers of an image.
        """
    )


def packed(root: RuleRoot, address: str) -> dict[str, Any]:
    (artifact,) = json.loads(explained(root, "--packed", "--format=json", address))["artifacts"]
    return artifact


@pytest.mark.parametrize("address", ["app:t", "app:b"])
def test_packed_it_has_sizes_in_the_archive_too(root: RuleRoot, address: str):
    root.write(REPOSITORY)
    root.edit("app/BUILD", "python_sources()", "python_sources()\nflyte_bundle(name='b', dependencies=[':t'])")  # fmt: skip
    told = packed(root, address)
    sizes = {file["path"]: file["packed"] for file in told["files"]}
    said = explained(root, "--packed", address)
    why = explained(root, "--packed", "--why=libs/models/weights.json", address)
    root.options()
    archive = len(root.bundle(address).archive)
    assert told["packed"] == archive
    assert archive - 40 < sum(sizes.values()) < archive
    assert sizes["libs/models/weights.json"] < 200  # of 1000 bytes that are nearly all alike
    for kind in ("folders", "owners"):
        assert sum(total["packed"] for total in told[kind]) == sum(sizes.values())
    assert told["direct"][0]["packed"] == sum(
        sizes[f"libs/models/{name}"] for name in ("__init__.py", "weights.json")
    )
    weights = sizes["libs/models/weights.json"]
    assert said.startswith(f"{address}: a bundle of 6 files, 1.2 kB, packed {archive} B\n")
    assert re.search(rf"libs/models/weights.json +1.0 kB +{weights} B  \[resource, declared", said)
    assert f" saves 1.0 kB (packed {told['direct'][0]['packed']} B) in 2 files" in said
    assert f"ships libs/models/weights.json (1.0 kB, packed {weights} B):" in why
    assert "--packed" not in said


def test_packed_an_image_has_layers_with_what_is_in_each(root: RuleRoot):
    image_options(root)
    root.write(app("code=True"))
    told = packed(root, "app:image")
    layers = told["layers"]
    assert [layer["what"] for layer in layers] == [
        "base",
        "base",
        "2 smaller distributions",
        "flyte-shim",
        "2 files of code",
    ]
    assert {layer["platform"] for layer in layers} == {"linux/amd64"}
    assert all(layer["parts"] is layer["size"] is None for layer in layers[:2])
    parts = {
        (p["kind"], p["name"], p["version"]): p for layer in layers[2:] for p in layer["parts"]
    }
    assert list(parts) == [
        ("distribution", "pftest-a", "1.0"),
        ("distribution", "pftest-b", "1.0"),
        ("other", "", ""),
        ("library", "app", ""),
    ]
    assert parts["library", "app", ""]["files"] == 2
    assert parts["library", "app", ""]["packed"] == sum(file["packed"] for file in told["files"])
    assert told["packed"] is None
    for layer in layers[2:]:
        assert layer["size"] == sum(part["size"] for part in layer["parts"])
        assert 0 < sum(part["packed"] for part in layer["parts"]) < layer["packed"]
    said = explained(root, "--packed", "app:image").partition("\nLayers on linux/amd64, packed ")[2]
    assert [line[:27].rstrip() for line in said.splitlines()[2:]] == [
        "  base",
        "  base",
        "  2 smaller distributions",
        "    pftest-a 1.0",
        "    pftest-b 1.0",
        "  flyte-shim",
        "  2 files of code",
        "    app",
    ]


def test_packed_a_distribution_has_a_layer(root: RuleRoot):
    image_options(root)
    root.write(app())
    place = "is in the layer `2 smaller distributions` on linux/amd64: "
    said = explained(root, "--packed", "--why=pftest-a", "app:image").splitlines()
    assert said[:-1] == [
        "app:image needs pftest-a:",
        "  app:t -> app/w.py -> 3rdparty:a [imported]",
    ]
    assert said[-1].startswith(f"  pftest-a 1.0 {place}")
    # The lock file does not say who needs it.
    assert "does not have" in explained(root, "--why=pftest_b", "app:image", code=1)
    said = explained(root, "--packed", "--why=pftest_b", "app:image").splitlines()
    assert said[0].startswith("app:image has pftest_b; neither")
    assert said[1].startswith(f"  pftest-b 1.0 {place}")


def test_packed_the_code_of_a_task_is_what_it_takes_in_its_image(root: RuleRoot):
    image_options(root)
    root.write(app(task='copy_style="none"'))
    told = packed(root, "app:t")
    assert told["layers"][-1]["parts"][-1]["name"] == "app"
    assert all(file["packed"] > 0 for file in told["files"])


def tree(text: str) -> dict[str, str]:
    """Each file of a single explanation, with what is said of it."""
    lines = text.split("\n\n")[1].splitlines()[1:]
    return {line.split()[0]: line.partition("[")[2].partition("]")[0] for line in lines}


COPY_ALL = {
    **REPOSITORY,
    "app/BUILD": """
        python_sources(sources=["w.py"])
        flyte_task(name="t", entry_point="w.py:train", copy_style="all", root_dir=".")
        """,
    "app/notes.csv": "",
}


def test_it_lists_what_packaging_packs(root: RuleRoot):
    root.write(COPY_ALL)
    said = tree(explained(root, "app:t"))
    root.options()
    assert set(said) == root.bundle("app:t").paths
    assert said["app/notes.csv"] == 'file, copy_style="all"'


def test_a_bundle_of_tasks_is_entered_by_their_code(root: RuleRoot):
    root.write(REPOSITORY)
    root.edit("app/BUILD", "python_sources()", 'python_sources()\nflyte_bundle(name="b", dependencies=[":t"])')  # fmt: skip
    said = explained(root, "app:b")
    assert "app:b: a bundle of 6 files, 1.2 kB" in said
    assert tree(said)["app/w.py"] == "module, entry point"
    assert "dropping `libs/plots` saves 37 B in 2 files" in said


def test_a_task_with_a_shared_bundle_is_that_bundle(root: RuleRoot):
    root.write(
        {
            **REPOSITORY,
            "app/BUILD": """
                python_sources()
                flyte_bundle(name="b", dependencies=["./w.py"])
                flyte_task(name="t", entry_point="w.py:train", bundle=":b")
                """,
        }
    )
    assert explained(root, "app:t").startswith("app:b: the bundle of app:t of 6 files, 1.2 kB\n")


def test_a_deployment_is_the_sum_of_its_tasks_where_no_file_counts_twice(root: RuleRoot):
    root.write(
        {
            **REPOSITORY,
            "app/BUILD": """
                python_sources()
                flyte_tasks(name="tasks")
                flyte_app(name="page", entry_point="page.py:page", dependencies=["./w.py"])
                flyte_deployment(name="d", tasks=[":tasks", ":page"], domain=parametrize("x", "y"))
                """,
            "app/page.py": "import flyte.app\npage = flyte.app.AppEnvironment('p')\n",
        }
    )
    packed = explained(root, "--packed", "app:d@domain=x").splitlines()[1:3]
    assert all(re.search(r" files, 1.2 kB, packed [0-9]+ B$", line) for line in packed)
    first, *parts = explained(root, "app:d@domain=x").split("\n\napp:")
    assert first.splitlines()[:3] == [
        "app:d@domain=x: a deployment of 7 files, 1.2 kB",
        "  app:page: 7 files, 1.2 kB",
        "  app:tasks#w.env: 6 files, 1.2 kB",
    ]
    assert len(parts) == 2


def test_generated_targets_and_whole_folders_can_be_named_and_each_is_told_once(root: RuleRoot):
    root.write(REPOSITORY)
    root.edit("app/BUILD", "flyte_task(name='t', entry_point='w.py:train')", "flyte_tasks(name='tasks')\nflyte_deployment(name='d', tasks=[':tasks'])")  # fmt: skip
    assert explained(root, "app:tasks#w.env") in explained(root, "::")
    assert explained(root, "app:tasks").startswith("app:tasks#w.env: a bundle")
    assert explained(root, "::").count("app:tasks#w.env: a bundle") == 1


def test_an_image_tells_what_it_copies_and_who_needs_its_requirements(root: RuleRoot):
    image_options(root)
    root.write({**app('source_files=[{"src": "table.csv", "dst": "."}]'), "app/table.csv": "a"})
    said = explained(root, "app:image")
    assert tree(said) == {"app/table.csv": "file, copied by a field of the image"}
    print(said)


def test_the_output_may_go_to_a_file(root: RuleRoot, tmp_path):
    root.write(REPOSITORY)
    assert explained(root, f"--output-file={tmp_path / 'out'}", "app:t") == ""
    assert (tmp_path / "out").read_text().startswith("app:t: a bundle")


def test_targets_that_ship_nothing_are_no_error(root: RuleRoot, caplog):
    root.write(REPOSITORY)
    assert explained(root, "libs::") == ""
    assert "none of the targets is a `flyte_task`" in caplog.text


def test_a_target_that_cannot_be_packaged_says_why(root: RuleRoot):
    root.write(REPOSITORY)
    root.edit("app/BUILD", "w.py:train", "w.py:trian")
    with pytest.raises(ExecutionError) as caught:
        explained(root, "app:t")
    assert "app:t" in refusal(caught.value)


def test_an_edit_that_changes_no_import_finds_the_closure_as_it_was(root: RuleRoot, monkeypatch):
    looked_for = []
    found = closure._packages_above
    monkeypatch.setattr(
        closure, "_packages_above", lambda files: looked_for.append(files) or found(files)
    )
    many = {f"libs/many/m{n}.py": f"import libs.many.m{n + 1}\n" for n in range(200)}
    many["libs/many/m200.py"] = "import libs.plots.draw\n"
    root.write({**REPOSITORY, "libs/many/BUILD": "python_sources()", **many})
    root.edit("app/w.py", "import libs.models", "import libs.many.m0, libs.models")
    for count in range(4):  # a busy machine tells Pants of a file late, or while it is written
        before = len(looked_for)
        root.edit("libs/plots/colors.py", f"{'#' * count}RED", f"{'#' * (count + 1)}RED")
        assert f" {13 + count} B  [module, imported]  libs/plots" in explained(root, "app:t")
        if count and len(looked_for) == before:
            break
    assert len(looked_for) == before > 0


# --- --why ----------------------------------------------------------------------------------------


def test_why_is_a_way_from_the_entry_point(root: RuleRoot):
    root.write(REPOSITORY)
    assert explained(root, "--why=libs/models/weights.json", "app:t") == (
        "app:t ships libs/models/weights.json (1.0 kB):\n"
        "  app/w.py -> libs/models/__init__.py -> libs/models/weights.json [resource, declared]\n"
    )
    assert explained(root, "--why=numpy", "app:t") == (
        "app:t needs numpy>=2:\n"
        "  app/w.py -> libs/models/__init__.py -> 3rdparty:numpy [imported]\n"
    )
    path = root.path / "libs/plots/../plots/colors.py"
    assert "libs/plots/draw.py -> libs/plots/colors.py" in explained(root, f"--why={path}", "app:t")


@pytest.mark.parametrize("asked", ["NumPy", "numpy.linalg.lapack", "3rdparty:numpy"])
def test_a_distribution_has_a_module_and_an_address_too(root: RuleRoot, asked: str):
    root.write(REPOSITORY)
    assert explained(root, f"--why={asked}", "app:t").startswith("app:t needs numpy>=2:\n")


def test_a_list_of_requirements_is_all_that_is_needed_of_it(root: RuleRoot):
    root.write(
        {
            **REPOSITORY,
            "3rdparty/BUILD": "python_requirements(name='reqs')",
            "3rdparty/requirements.txt": "numpy>=2\nflyte\npandas\n",
            "locks/default.txt": "",
        }
    )
    said = explained(root, "--why=3rdparty:reqs", "app:t")
    assert [line for line in said.splitlines() if line.endswith(":")] == [
        "app:t needs flyte:",
        "app:t needs numpy>=2:",
    ]


LOCK_WITH_NEEDS = """\
flyte==2.12.1
    # via -r requirements.txt
numpy==2.4.6
    # via -r requirements.txt
pydantic==2.14.3
    # via flyte
pydantic-core==2.50
    # via pydantic
pandas==3.0
    # via -r requirements.txt
"""


def test_what_only_another_distribution_needs_has_a_way_by_the_lock_file(root: RuleRoot):
    root.write({**REPOSITORY, "locks/default.txt": LOCK_WITH_NEEDS})
    assert explained(root, "--why=pydantic_core", "app:t") == (
        "app:t needs pydantic-core 2.50:\n"
        "  app/w.py -> 3rdparty:flyte -> pydantic -> pydantic-core "
        "[required by pydantic, as the lock file says]\n"
    )
    (answer,) = json.loads(explained(root, "--why=pydantic", "--format=json", "app:t"))["why"]
    assert (answer["found"], answer["ways"]) == (
        True,
        [
            [
                {"name": "app/w.py", "reason": "entry_point"},
                {"name": "3rdparty:flyte", "reason": "imported"},
                {"name": "pydantic", "reason": "required"},
            ]
        ],
    )
    assert "app:t does not have pandas" in explained(root, "--why=pandas", "app:t", code=1)
    assert "  numpy>=2 (2.4.6)  needed by libs/models/__init__.py" in explained(root, "app:t")


UV_LOCK = """\
version = 1

[[package]]
name = "flyte"
version = "2.12.1"
dependencies = [{ name = "pydantic" }]
wheels = [{ url = "https://f.test/flyte-2.12.1-py3-none-any.whl", hash = "sha256:0", size = 500000 }]

[[package]]
name = "pydantic"
version = "2.14.3"
wheels = [{ url = "https://f.test/pydantic-2.14.3-py3-none-any.whl", hash = "sha256:1", size = 400000 }]

[[package]]
name = "numpy"
version = "2.4.6"
sdist = { url = "https://f.test/numpy-2.4.6.tar.gz", hash = "sha256:2", size = 3 }
"""


def test_wheels_have_the_sizes_of_the_lock_file(root: RuleRoot):
    root.write({**REPOSITORY, "locks/default.txt": UV_LOCK})
    said = explained(root, "app:t")
    assert said.split("\n\n")[2].splitlines() == [
        "Third-party requirements, 3 distributions, 900.0 kB as wheels, 1 unknown:",
        "  flyte (2.12.1)     900.0 kB  needed by app/w.py  (3rdparty:flyte)",
        "  numpy>=2 (2.4.6)    unknown  needed by libs/models/__init__.py  (3rdparty:numpy)",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--why=",), "--why is empty"),
        (("--diff=",), "--diff is empty"),
        (("--why=numpy", "--diff=main"), "--why and --diff are two questions: ask one of them"),
        (("--diff=git:",), "--diff=git: names no revision"),
        (("--diff=version:",), "--diff=version: names no version"),
        (("--diff=--all",), "--diff=--all is an option, and no revision of git"),
        (("--diff=git:-x",), "--diff=git:-x is an option, and no revision of git"),
    ],
)
def test_a_question_that_is_none_is_an_error(root: RuleRoot, options, said):
    root.write(REPOSITORY)
    result = root.goal(FlyteExplain, *options, "app:t")
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


def test_each_file_of_a_bundle_has_a_why(root: RuleRoot):
    root.write(REPOSITORY)
    paths = root.bundle("app:t").paths
    for path in paths:
        assert f"{path} [" in explained(root, f"--why={path}", "app:t")
    assert len(paths) == 6


MORE = {
    "3rdparty/BUILD": """
        python_requirement(name="numpy", requirements=["numpy>=2"])
        python_requirement(name="flyte", requirements=["flyte"])
        python_requirement(name="pandas", requirements=["pandas"])
        python_requirement(name="torch", requirements=["torch"], resolve="other")
        """,
    "more/BUILD": """
        python_sources(sources=["alone.py", "twice.py"])
        python_source(name="again", source="twice.py")
        python_source(name="other", source="other.py", resolve="other")
        python_tests(name="tests")
        resources(name="data", sources=["read.json"])
        """,
    "more/alone.py": "",
    "more/twice.py": "",
    "more/other.py": "",
    "more/test_it.py": "",
    "more/read.json": "",
    "more/unowned.py": "",
    "more/unowned.json": "",
    "more/.hidden/x.json": "",
}
MISSING = [
    ("more/alone.py", "its owner is more/alone.py, and nothing that ships imports it or names it in `dependencies`. Add more/alone.py to"),
    ("more.alone", "its owner is more/alone.py, and nothing"),
    ("more/read.json", "its owner is more/read.json:data, and nothing that ships names it in `dependencies`."),
    ("more/twice.py", "several targets own it: more/twice.py, more:again. Pants infers no dependency"),
    ("more/other.py", 'its owner more:other belongs to the resolve `other`, and app:t to `python-default`. For both, set `resolve=parametrize("python-default", "other")`'),
    ("more/test_it.py", "it is a test (of more:tests), and nothing that ships imports it."),
    ("more/unowned.py", "no target owns it. Write `python_sources()` into more/BUILD."),
    ("more/unowned.json", 'no target owns it. Write `resources(name="data", sources=["unowned.json"])` into more/BUILD,'),
    ("more/.hidden/x.json", "Pants ignores it, by `.gitignore` or `[GLOBAL].pants_ignore`."),
    ("more", "it is a directory."),
    ("more/weights.json", "there is no file at that path from the build root, no module and no requirement of that name. There is libs/models/weights.json."),
    ("../x.py", "there is no file at that path"),
    ("pandas", "3rdparty:pandas requires it, and nothing that ships imports it."),
    ("torch", "its owner 3rdparty:torch belongs to the resolve `other`"),
    ("more:data", "its owner is more/read.json:data, and nothing that ships names it"),
    ("more:again", "its owner is more:again, and nothing"),
    ("/no/such.py", "it is outside of the build root."),
    ("app:t", "it is a `flyte_task`, and no file. Ask for a file or module of its code."),
    ("os.path", "it is of Python's standard library (every Python has it), which is in no bundle."),
    ("no-such", "there is no file at that path from the build root, no module and no requirement of that name."),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "reason"), MISSING)
def test_what_is_missing_has_a_reason_and_what_to_write(root: RuleRoot, asked: str, reason: str):
    root.write({**REPOSITORY, **MORE})
    said = explained(root, f"--why={asked}", "app:t", code=1)
    assert said.startswith(f"app:t does not have {asked}: {reason}")


IMPORTED = [
    ("import more.alone\n", "It is imported by app/v.py (line 1): nothing that ships leads to that either. Add"),
    ("from more import alone\n", "It is imported by app/v.py (line 1): nothing"),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from more.alone import X\n", "It is imported by app/v.py (line 3), for types alone (under `TYPE_CHECKING`): nothing"),
    ("import typing\nif typing.TYPE_CHECKING:\n    import more.alone\nimport more.alone\n", "It is imported by app/v.py (line 4): nothing"),
    ("import more.other\n", "in `dependencies`. Add more/alone.py"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "said"), IMPORTED)
def test_who_imports_it_and_does_not_ship_is_named(root: RuleRoot, source: str, said: str):
    root.write({**REPOSITORY, **MORE, "app/v.py": source})
    assert said in explained(root, "--why=more/alone.py", "app:t", code=1)


def test_a_relative_import_of_a_module_that_does_not_ship_is_seen(root: RuleRoot):
    root.write({**REPOSITORY, **MORE, "more/v.py": "from . import alone\n"})
    root.edit("more/BUILD", '"alone.py"', '"alone.py", "v.py"')
    said = explained(root, "--why=more.alone", "app:t", code=1)
    assert "It is imported by more/v.py (line 1): nothing" in said


def test_a_target_is_all_of_its_files(root: RuleRoot):
    root.write({**REPOSITORY, "libs/models/more.json": "1"})
    said = explained(root, "--why=libs/models:data", "app:t")
    assert "app:t ships libs/models/weights.json" in said
    assert "app:t ships libs/models/more.json" in said


def test_a_path_with_a_space_is_quoted_in_what_to_type(root: RuleRoot):
    root.write({**REPOSITORY, "an odd/BUILD": "python_sources()", "an odd/näme 1.py": ""})
    said = explained(root, "--why=an odd/näme 1.py", "app:t", code=1)
    assert "dependents 'an odd/näme 1.py'`" in said


EXCLUDED = [
    ("app/BUILD", "python_sources()", "python_sources(dependencies=['!libs/plots/draw.py'])", "`dependencies` of app/w.py takes it out, by `!libs/plots/draw.py`."),
    ("app/BUILD", "entry_point=", "dependencies=['!!libs/plots/draw.py'], entry_point=", "app/w.py depends on it, and `dependencies` of app:t takes it out, by `!!` before libs/plots/draw.py"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "old", "new", "reason"), EXCLUDED)
def test_what_takes_a_dependency_out_is_named(root: RuleRoot, path, old, new, reason):
    root.write(REPOSITORY)
    root.edit(path, old, new)
    assert reason in explained(root, "--why=libs/plots/draw.py", "app:t", code=1)


def test_what_the_task_itself_names_and_takes_out_is_told(root: RuleRoot):
    root.write({**REPOSITORY, "app/w.py": TASK})
    field = "dependencies=['libs/plots', '!!libs/plots/draw.py'], entry_point="
    root.edit("app/BUILD", "entry_point=", field)
    said = explained(root, "--why=libs/plots/draw.py", "app:t", code=1)
    assert "`dependencies` of app:t takes it out, by `!` or `!!` before libs/plots/draw.py." in said


def test_what_an_ignore_file_leaves_out_of_all_is_told(root: RuleRoot):
    root.write({**COPY_ALL, "app/.gitignore": "*.csv\n"})
    said = explained(root, "--why=app/notes.csv", "app:t", code=1)
    assert "no target owns it, and app/.gitignore leaves it out." in said


def test_an_image_without_code_says_where_the_code_is(root: RuleRoot):
    image_options(root)
    root.write(app())
    said = explained(root, "--why=app/lib.py", "app:image", code=1)
    assert "the code of app:image comes in bundles." in said


def test_what_a_layer_of_the_base_has_is_told(root: RuleRoot):
    image_options(root)
    site = "/usr/local/lib/python3.12/venv"
    facts = BaseFacts(
        *("/usr/local/bin/python3.12", "3.12.7", "2.36", False, False, (site,), False),
        distributions=(BaseDistribution(site, "pftest-c", "0.9", (f"{site[1:]}/pftest_c",)),),
    )
    files = {**app(), "img/base.lock.json": base_image(replace(base_platform(), facts=facts)).to_json()}  # fmt: skip
    root.write(files)
    for target in ("app:image", "app:t"):
        said = explained(root, "--why=pftest-c", target, code=1)
        assert f"a layer of the base img:base has pftest-c 0.9, in {site}, and the image adds none. 3rdparty:c requires it" in said  # fmt: skip
        said = explained(root, f"--why={site}/pftest_c/a.py", target, code=1)
        assert "it is in a layer of the base img:base, which has pftest-c 0.9." in said
        said = explained(root, "--why=/etc/os release", target, code=1)
        assert "run app:image -- ls -ld '/etc/os release'` looks" in said


def test_a_file_that_an_image_copies_to_another_place_is_found_there(root: RuleRoot):
    image_options(root)
    files = app(image='source_files=[{"src": "lib.py", "dst": "/etc/"}],')
    root.write(files)
    assert "app:image ships app/lib.py" in explained(root, "--why=/etc/lib.py", "app:image")


def test_of_several_targets_one_that_has_it_is_enough(root: RuleRoot):
    root.write({**REPOSITORY, "app/v.py": TASK})
    root.edit("app/BUILD", "flyte_task", 'flyte_task(name="v", entry_point="v.py:train")\nflyte_task')  # fmt: skip
    said = explained(root, "--why=libs/plots/draw.py", "app::")
    assert "app:v does not have libs/plots/draw.py: " in said
    assert "app:t ships libs/plots/draw.py" in said


# --- --format=json --------------------------------------------------------------------------------


def test_programs_get_the_same(root: RuleRoot):
    root.write({**REPOSITORY, "app/page.html": ""})
    root.edit("app/BUILD", "flyte_task", "flyte_deployment(name='d', tasks=[':t'])\nflyte_task")
    told = json.loads(explained(root, "--format=json", "app::"))
    (artifact,) = told["artifacts"]
    assert (told["schema"], told["deployments"]) == (
        2,
        [{"address": "app:d", "artifacts": ["app:t"]}],
    )
    assert artifact["packed"] is artifact["layers"] is None
    assert artifact["size"] == sum(file["size"] for file in artifact["files"]) == 1165
    assert (artifact["address"], artifact["copy_style"]) == ("app:t", "auto")
    files = {file["path"]: file for file in artifact["files"]}
    assert files["libs/models/weights.json"] == {
        "path": "libs/models/weights.json",
        "source": "libs/models/weights.json",
        "size": 1000,
        "packed": None,
        "owner": "libs/models/weights.json:data",
        "library": "libs/models:data",
        "kind": "resource",
        "sha256": sha256_bytes(REPOSITORY["libs/models/weights.json"].encode()),
        "executable": False,
        "package_root": "",
        "alone": False,
        "beside": None,
        "way": [
            {"name": "app/w.py", "reason": "entry_point"},
            {"name": "libs/models/__init__.py", "reason": "imported"},
            {"name": "libs/models/weights.json", "reason": "declared"},
        ],
    }
    assert artifact["requirements"][1] == {
        "requirement": "numpy>=2",
        "target": "3rdparty:numpy",
        "needed_by": ["libs/models/__init__.py"],
        "wheels": None,
    }
    targets = artifact["graph"]["targets"]
    needs = {address: [targets[n][0] for n in imports] for address, _, imports, _ in targets}
    assert needs["app/w.py"] == ["3rdparty:flyte", "libs/models/__init__.py", "libs/plots/draw.py"]
    assert artifact["folders"][1] == {"name": "app", "files": 1, "size": 115, "packed": None}
    assert artifact["owners"][0] == {
        "name": "libs/models:data",
        "files": 1,
        "size": 1000,
        "packed": None,
    }
    assert artifact["direct"][0] == {
        "name": "libs/models", "files": 2, "size": 1013, "packed": None, "requirements": ["numpy>=2"], "wheels": None,
    }  # fmt: skip


def test_programs_may_ask_why(root: RuleRoot):
    root.write(REPOSITORY)
    told = json.loads(explained(root, "--format=json", "--why=numpy", "app:t"))
    assert told == {
        "schema": 2,
        "asked": "numpy",
        "why": [
            {
                "address": "app:t",
                "found": True,
                "ways": [
                    [
                        {"name": "app/w.py", "reason": "entry_point"},
                        {"name": "libs/models/__init__.py", "reason": "imported"},
                        {"name": "3rdparty:numpy", "reason": "imported"},
                    ]
                ],
            }
        ],
    }
    missing = json.loads(explained(root, "--format=json", "--why=app", "app:t", code=1))
    (answer,) = missing["why"]
    assert (answer["found"], answer["ways"]) == (False, [])
    assert answer["why_not"].startswith("it is a directory")


def test_a_deployment_may_ship_a_task_in_another_way(root: RuleRoot):
    root.write(COPY_ALL)
    root.edit("app/BUILD", "flyte_task", 'flyte_deployment(name="d", tasks=[":t"], copy_style="auto")\nflyte_task')  # fmt: skip
    told = json.loads(explained(root, "--format=json", "app:d", "app:t"))
    counts = {one["copy_style"]: len(one["files"]) for one in told["artifacts"]}
    assert counts["all"] > counts["auto"] == 6
    said = explained(root, "--why=app/notes.csv", "app:d", "app:t")
    assert "app:t ships app/notes.csv" in said
    assert "app:t does not have app/notes.csv" in said


def test_programs_get_an_empty_answer_where_nothing_ships(root: RuleRoot):
    root.write(REPOSITORY)
    told = json.loads(explained(root, "--format=json", "libs::"))
    assert told == {"schema": 2, "artifacts": [], "deployments": []}
    assert explained(root, "--why=numpy", "libs::", code=1) == ""


# --- budgets --------------------------------------------------------------------------------------


def budget(field: str) -> dict[str, str]:
    return {
        **REPOSITORY,
        "app/BUILD": f"python_sources()\nflyte_task(name='t', entry_point='w.py:train', {field})",
    }


OVER = [
    ("max_size='1 kB'", "the bundle has 6 files, 1.2 kB, and `max_size` is 1.0 kB."),
    ("max_files=5", "the bundle has 6 files, 1.2 kB, and `max_files` is 5."),
]


@pytest.mark.parametrize(("field", "about"), OVER)
def test_a_bundle_over_its_budget_is_refused_with_what_weighs_most(root: RuleRoot, field, about):
    root.write(budget(field))
    said = root.refusal("app:t")
    assert said.startswith(f"app:t: {about} The heaviest ways:\n")
    lines = [line.strip() for line in said.splitlines() if line.startswith("  * ")]
    ways = [
        "* 2 files, 1.0 kB, only by `libs/models`: app/w.py -> libs/models/__init__.py -> "
        "libs/models/weights.json [resource, declared]",
        "* 2 files, 37 B, only by `libs/plots`: app/w.py -> libs/plots/draw.py [module, imported]",
        "* 1 file, 115 B: app/w.py [module, entry point]",
    ]
    assert lines == (ways if "files" in field else [ways[0], ways[2], ways[1]])
    # What is too large can still be explained.
    assert explained(root, "app:t").startswith("app:t: a bundle of 6 files")


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("max_size='1.2 kB'", True),
        ("max_size='1.294 kB'", True),
        ("max_size='1.295 kB'", False),
        ("max_size='1.165 kB'", True),
        ("max_files=6", True),
        ("max_files=7", False),
    ],
)
def test_a_bundle_near_its_budget_is_warned_of(root: RuleRoot, caplog, field, told):
    root.write(budget(field))
    root.package("app:t")
    said = [r.getMessage() for r in caplog.records if "`max_" in r.getMessage()]
    assert bool(said) == told
    assert all(line.startswith("app:t: the bundle has 6 files, 1.2 kB, and ") for line in said)


def test_the_budget_of_a_target_comes_before_that_of_all(root: RuleRoot):
    root.write(budget("max_size='2 kB', max_files=10"))
    root.options("--flyte-max-size=1 kB", "--flyte-max-files=5")
    root.package("app:t")
    root.write(budget(""))
    assert "`max_size` is 1.0 kB" in root.refusal("app:t")
    root.options("--flyte-max-files=5")
    assert "`max_files` is 5" in root.refusal("app:t")


@pytest.mark.parametrize("size", ["", "50", "50 mb", "MB", "-1 MB", "0 MB", "1e3 MB", "50 MiB"])
def test_a_budget_that_is_no_size_is_refused(root: RuleRoot, size: str):
    root.write(budget(f"max_size={size!r}"))
    with pytest.raises(ExecutionError, match=f"`max_size` field in target app:t is {size!r}; give a size such as"):  # fmt: skip
        root.target("app:t")
    root.write(budget(""))
    root.options(f"--flyte-max-size={size}")
    with pytest.raises(ExecutionError, match=r"`\[flyte\].max_size` is "):
        root.package("app:t")


def test_a_shared_bundle_has_the_budget_of_its_own_target(root: RuleRoot):
    root.write(budget("bundle=':b', max_files=5"))
    root.edit("app/BUILD", "python_sources()", "python_sources()\nflyte_bundle(name='b', dependencies=['./w.py'], max_size='1 kB')")  # fmt: skip
    assert "`max_files` and `bundle` are both set" in root.refusal("app:t")
    root.edit("app/BUILD", ", max_files=5", "")
    assert root.refusal("app:t").startswith("app:b: the bundle has 6 files")


def page_of(text: str) -> dict[str, Any]:
    """What a report knows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


def test_html_is_one_page_of_what_json_says(root: RuleRoot, tmp_path: Path):
    root.write(REPOSITORY)
    written = tmp_path / "report.html"
    assert explained(root, "--format=html", f"--output-file={written}", "app:t") == ""
    text = written.read_text("ascii")
    assert text.startswith("<!doctype html>")
    assert "<title>app:t: what ships, and why</title>" in text
    page = page_of(text)
    (artifact,) = json.loads(explained(root, "--format=json", "app:t"))["artifacts"]
    assert [page["names"][at] for at in page["artifacts"][0]["files"]["path"]] == [f["path"] for f in artifact["files"]]  # fmt: skip
    edges = [page["names"][at] for at in page["artifacts"][0]["edges"]]
    found = set(zip(edges[::3], edges[1::3], edges[2::3]))
    assert ("libs/plots/draw.py", "libs/plots/colors.py", "imported") in found
    assert ("app:t", "app/w.py", "entry_point") in found
    assert explained(root, "--format=html", "app:t") == text


def test_html_with_why_is_the_whole_page_and_an_exit_code(root: RuleRoot):
    root.write(REPOSITORY)
    page = page_of(explained(root, "--format=html", "--why=numpy", "app:t"))
    assert page["why"][0]["found"]
    assert len(page["artifacts"][0]["files"]["path"]) == 6
    page = page_of(explained(root, "--format=html", "--why=nowhere.py", "app:t", code=1))
    assert page["asked"] == "nowhere.py"
    assert page["why"][0]["why_not"]
