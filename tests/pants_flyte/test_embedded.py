"""A task whose code is in its image: what it reaches must be there, where its imports look for it."""

from __future__ import annotations

import pytest
from pants.engine.internals.scheduler import ExecutionError

from tests.support.flyte_images import BASE, TASK, image_options
from tests.support.flyte_rules import RuleRoot

WORK = "home/flyte/task"


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root)
    return root


def service(
    folders: str = "", task: str = "", image: str = "", top: str = "//svc"
) -> dict[str, str | bytes]:
    """`svc:t`, whose code is in `svc/src`, and its image with `source_folders`."""
    return {
        **BASE,
        "svc/BUILD": f"""
            flyte_image(name="image", base="img:base", dependencies=["./src:src"], {image}
                        source_folders=[{{"src": "src", {folders}}}])
            flyte_task(name="t", entry_point="src/w.py:train", image=":image", copy_style="none", {task})
            """,
        "svc/src/BUILD": "python_sources(name='src')",
        "svc/src/w.py": "import lib.x\n" + TASK,
        "svc/src/lib/BUILD": "python_sources()",
        "svc/src/lib/x.py": "",
    }  # fmt: skip


def roots(root: RuleRoot, *patterns: str) -> None:
    image_options(root, f"--source-root-patterns={list(patterns)}")


# --- copied folders -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "task"),
    [
        ("'copy_contents_only': True", ""),
        ("'dst': './', ", ""),
        ("'dst': '/home/flyte/task'", ""),
        ("'copy_contents_only': True", "root_dir='svc/src'"),
    ],
)
def test_contents_that_lie_where_imports_start_are_found(root: RuleRoot, folders, task):
    roots(root, "svc/src")
    root.write(service(folders, task))
    link = root.package("svc:t").link
    assert (link.module, link.bundle, link.built_image.address) == ("w", None, "svc:image")


@pytest.mark.parametrize(
    ("folders", "source", "task"),
    [
        # Imports start above the folder: it is copied itself.
        ("", "import src.lib.x\n", "root_dir='svc'"),
        ("'dst': 'src'", "import src.lib.x\n", "root_dir='svc'"),
        ("'dst': 'svc/src'", "import svc.src.lib.x\n", "root_dir='.'"),
    ],
)
def test_a_folder_that_lies_where_imports_look_for_it_is_found(
    root: RuleRoot, folders, source, task
):
    roots(root, {"svc": "svc", ".": "/"}[task.split("'")[1]])
    root.write({**service(folders, task), "svc/src/w.py": source + TASK})
    assert root.package("svc:t").link.module.endswith("src.w")


def test_the_folder_where_its_contents_should_be_is_an_error_with_the_fix(root: RuleRoot):
    roots(root, "svc/src")
    root.write(service())
    assert root.refusal("svc:t") == (
        "svc:t: the image svc:image has svc/src/w.py at /home/flyte/task/src/w.py, and with this target's `root_dir` it is "
        "imported from /home/flyte/task/w.py. The image holds the folder 'src' itself where its contents are looked for: set "
        "`copy_contents_only` to True in the `source_folders` of svc:image, or set `root_dir` here to a directory above 'src'."
    )
    # And that is the fix.
    root.edit("svc/BUILD", '{"src": "src", }', '{"src": "src", "copy_contents_only": True}')
    assert root.package("svc:t").link.module == "w"


def test_the_contents_where_the_folder_should_be_are_an_error_with_the_fix(root: RuleRoot):
    roots(root, "svc")
    root.write(
        {
            **service("'copy_contents_only': True"),
            "svc/src/w.py": "import src.lib.x\n" + TASK,
        }
    )
    assert root.refusal("svc:t") == (
        "svc:t: the image svc:image has svc/src/w.py at /home/flyte/task/w.py, and with this target's `root_dir` it is "
        "imported from /home/flyte/task/src/w.py. The image holds the contents of the folder 'src' where the folder itself is "
        "looked for: set `copy_contents_only` to False in the `source_folders` of svc:image (with `dst` the directory above), or "
        "set `root_dir` here to 'src', if imports start there."
    )
    root.edit("svc/BUILD", "'copy_contents_only': True", "'copy_contents_only': False")
    assert root.package("svc:t").link.module == "src.w"


@pytest.mark.parametrize("folders", ["'dst': 'elsewhere'", "'dst': '/srv/code'"])
def test_code_that_lies_elsewhere_is_an_error_that_names_both_places(root: RuleRoot, folders):
    roots(root, "svc/src")
    root.write(service(folders))
    message = root.refusal("svc:t")
    place = "/srv/code/w.py" if "srv" in folders else "/home/flyte/task/elsewhere/w.py"
    assert f"has svc/src/w.py at {place}, and" in message
    assert "imported from /home/flyte/task/w.py" in message
    assert "root_dir" in message


def test_a_module_that_only_the_tasks_imports_reach_must_be_there_too(root: RuleRoot):
    roots(root, "svc/src", "/")
    root.write(
        {
            **service("'copy_contents_only': True"),
            "svc/src/w.py": "import lib.x, common.util\n" + TASK,
            "common/BUILD": "python_sources()",
            "common/util.py": "import common.deep",
            "common/deep.py": "",
        }
    )
    message = root.refusal("svc:t")
    assert "the image svc:image lacks files that the task reaches:" in message
    assert "common/deep.py (common/deep.py), expected at /home/flyte/task/common/deep.py" in message
    assert "common/util.py (common/util.py), expected at /home/flyte/task/common/util.py" in message
    assert "lib/x.py" not in message
    root.edit(
        "svc/BUILD", "source_folders=[", 'source_folders=[{"src": "//common", "dst": "common"}, '
    )
    assert root.package("svc:t").link.module == "w"


@pytest.mark.parametrize(
    ("ignore", "missing"),
    [("lib", True), ("**/x.py", True), ("lib\n!lib/x.py", False), ("*.txt", False)],
)
def test_what_dockerignore_leaves_out_is_missing(root: RuleRoot, ignore, missing):
    roots(root, "svc/src")
    root.write(
        {
            **service("'copy_contents_only': True"),
            "svc/src/.dockerignore": ignore,
            "svc/src/n.txt": "",
        }
    )
    if missing:
        assert (
            "svc/src/lib/x.py (svc/src/lib/x.py), expected at /home/flyte/task/lib/x.py"
            in root.refusal("svc:t")
        )
    else:
        assert root.package("svc:t").link.bundle is None
        assert ("n.txt" in root.image("svc:image").below(WORK)) == (ignore != "*.txt")


def test_the_options_excludes_hold_for_copied_folders(root: RuleRoot):
    roots(root, "svc/src")
    image_options(
        root, "--source-root-patterns=['svc/src']", "--flyte-all-excludes=+['**/notes/**']"
    )
    root.write(
        {
            **service("'copy_contents_only': True"),
            "svc/src/notes/a.md": "",
            "svc/src/__pycache__/w.pyc": "",
            "svc/src/.hidden": "",
            "svc/src/.dockerignore": "",
            "svc/src/README.md": "",
        }
    )
    assert set(root.image("svc:image").below(WORK)) == {"w.py", "lib/x.py", "README.md"}


def test_the_working_directory_is_where_imports_start(root: RuleRoot):
    roots(root, "svc/src")
    root.write(service("'copy_contents_only': True", image="workdir='/srv/app',"))
    link = root.package("svc:t").link
    assert link.built_image.workdir == "/srv/app"
    root.write(
        service(
            "'dst': '/home/flyte/task', 'copy_contents_only': True", image="workdir='/srv/app',"
        )
    )
    assert "imported from /srv/app/w.py" in root.refusal("svc:t")


# --- code by the graph ----------------------------------------------------------------------------


def graph(image: str = "", task: str = "") -> dict[str, str | bytes]:
    return {
        **BASE,
        "app/BUILD": f"""
            python_sources()
            flyte_image(name="image", base="img:base", {image or 'dependencies=[":t"]'})
            flyte_task(name="t", entry_point="w.py:train", image=":image", copy_style="none", {task})
            """,
        "app/w.py": "import app.lib\n" + TASK,
        "app/lib.py": "",
        "app/other.py": "",
    }  # fmt: skip


def test_an_image_that_depends_on_other_code_lacks_the_tasks(root: RuleRoot):
    root.write(graph('dependencies=["./other.py"]'))
    message = root.refusal("app:t")
    assert "app/w.py (app/w.py), expected at /home/flyte/task/app/w.py" in message
    assert "Name this task, or the code, in the `dependencies` of app:image" in message
    root.edit("app/BUILD", '["./other.py"]', '["./other.py", "./w.py"]')
    assert root.package("app:t").link.copy_style == "none"


@pytest.mark.parametrize(
    "image",
    [
        'dependencies=[":t"], code=False',
        'dependencies=[":t"], code=False, source_files=[{"src": "other.py"}]',
    ],
)
def test_an_image_that_shall_hold_no_code_lacks_it(root: RuleRoot, image):
    root.write(graph(image))
    message = root.refusal("app:t")
    assert "app/lib.py (app/lib.py), expected at" in message
    assert "leave its `code` unset or set it to True" in message


def test_two_targets_with_another_root_dir_do_not_fit(root: RuleRoot):
    root.write(graph(task="root_dir='app'"))
    root.write({"app/w.py": TASK})
    assert root.refusal("app:t") == (
        "app:t: the image app:image has app/w.py at /home/flyte/task/app/w.py, and with this target's `root_dir` it is "
        "imported from /home/flyte/task/w.py. Give both the same `root_dir`."
    )
    root.edit("app/BUILD", 'dependencies=[":t"]', 'dependencies=[":t"], root_dir="app"')
    assert root.package("app:t").link.module == "w"


# --- the field `image` ----------------------------------------------------------------------------


@pytest.mark.parametrize("field", [":image", "//app:image"])
def test_an_address_means_the_image_that_is_built(root: RuleRoot, field):
    root.write(graph())
    root.edit("app/BUILD", 'image=":image"', f'image="{field}"')
    assert root.package("app:t").link.built_image.address == "app:image"
    assert "app:image" not in root.dependencies("app:t")
    assert "app:image" in root.dependencies("app:t", special_cased=True)


@pytest.mark.parametrize(
    "field",
    [
        *("trainer", "ghcr.io/org/trainer:1", "localhost/trainer:1", "localhost:5000/a/b:1"),
        *("docker.io/library/debian:12", "a@sha256:" + "0" * 64),
    ],
)
def test_a_reference_or_a_name_is_kept_as_it_is(root: RuleRoot, field):
    root.write(graph())
    root.edit("app/BUILD", 'image=":image"', f'image="{field}"')
    link = root.package("app:t").link
    assert (link.image, link.built_image) == (field, None)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("//img:base", "`image` names img:base, which is a `flyte_base_image`, not a `flyte_image`"),
        ("//app/w.py", "`image` names app/w.py, which is a `python_source`, not a `flyte_image`"),
        (":t", "`image` names app:t, which is a `flyte_task`, not a `flyte_image`"),
        (":imag", "The address app:imag from the `image` from the target app:t does not exist"),
        ("//ap:image", "from the `image` from the target app:t"),
        ("library/debian:12", "from the `image` from the target app:t"),
    ],
)  # fmt: skip
def test_an_address_of_no_image_is_refused(root: RuleRoot, field, message):
    root.write(graph())
    root.edit("app/BUILD", 'image=":image"', f'image="{field}"')
    with pytest.raises(ExecutionError) as caught:
        root.package("app:t")
    assert message in str(caught.value)
