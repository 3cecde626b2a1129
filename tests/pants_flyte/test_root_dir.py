"""Which directory is the top of a bundle, and what is refused because it breaks there."""

from __future__ import annotations

import pytest
from pants.engine.internals.scheduler import ExecutionError

from tests.support.flyte_rules import RuleRoot

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"


def build(**fields: str) -> str:
    more = "".join(f", {name}={value!r}" for name, value in fields.items())
    return f"python_sources()\nflyte_task(name='t', entry_point='w.py:train'{more})"


SRC = {
    "src/lib/BUILD": "python_sources()",
    "src/lib/x.py": "y = 1",
    "src/app/w.py": TASK + "from . import beside\n",
    "src/app/beside.py": "",
}


@pytest.mark.parametrize(
    ("root_dir", "module", "paths"),
    [
        (None, "app.w", {"app/w.py", "app/beside.py"}),
        ("src", "app.w", {"app/w.py", "app/beside.py"}),
        ("./src/", "app.w", {"app/w.py", "app/beside.py"}),
        (".", "src.app.w", {"src/app/w.py", "src/app/beside.py"}),
    ],
)
def test_a_root_dir_is_the_prefix_that_goes(root: RuleRoot, root_dir, module, paths):
    root.options("--source-root-patterns=['src']")
    root.write({**SRC, "src/app/BUILD": build(root_dir=root_dir) if root_dir else build()})
    packaged = root.package("src/app:t")
    path = module.replace(".", "/") + ".py"
    assert packaged.bundle.paths == paths
    assert packaged.link.module == module
    assert packaged.link.entry_point == f"{path}:train"
    (entry_point,) = packaged.bundle.manifest.entry_points
    assert (entry_point.module, entry_point.name, entry_point.path, entry_point.target) == (
        *(module, "train", path, "src/app:t"),
    )
    normal = (root_dir and root_dir.strip("./")) or root_dir
    assert packaged.link.root_dir == packaged.bundle.manifest.root_dir == normal


def test_the_option_holds_where_the_field_is_not_set(root: RuleRoot):
    root.options("--flyte-root-dir=.", "--source-root-patterns=['src']")
    root.write({**SRC, "src/app/BUILD": build()})
    assert root.bundle("src/app:t").paths == {"src/app/w.py", "src/app/beside.py"}
    root.write({"src/app/BUILD": build(root_dir="src")})
    assert root.bundle("src/app:t").paths == {"app/w.py", "app/beside.py"}


@pytest.mark.parametrize(
    ("root_dir", "message"),
    [
        ("lib", "`root_dir` is 'lib', but the entry point is src/app/w.py. Set `root_dir` to a directory above it"),
        ("src/ap", "`root_dir` is 'src/ap', but the entry point is src/app/w.py."),
        ("..", "`root_dir` is '..', which is not below the build root."),
        ("/src", "`root_dir` is '/src', which is not below the build root."),
    ],
)  # fmt: skip
def test_a_root_dir_that_cant_hold_the_entry_point_is_refused(root: RuleRoot, root_dir, message):
    root.write({**SRC, "src/app/BUILD": build(root_dir=root_dir)})
    assert message in root.refusal("src/app:t")


def test_files_outside_the_root_are_named_with_their_owners(root: RuleRoot):
    root.options("--source-root-patterns=['src']")
    root.write(
        {
            **SRC,
            "src/app/w.py": TASK + "import lib.x",
            "src/app/BUILD": """
                python_sources(dependencies=["data"])
                flyte_task(name="t", entry_point="w.py:train", root_dir="src/app")
                """,
            "data/BUILD": "files(sources=['*.csv'])",
            "data/a.csv": "",
        }
    )
    message = root.refusal("src/app:t")
    assert "`root_dir` is 'src/app', but the bundle needs files outside it" in message
    assert "* data/a.csv (data/a.csv)" in message
    assert "* src/lib/x.py (src/lib/x.py)" in message


@pytest.mark.parametrize("owned", [True, False])
def test_an_init_file_above_the_root_is_outside_it(root: RuleRoot, owned):
    root.write(
        {
            "app/BUILD": build(root_dir="app/ml").replace("w.py", "ml/w.py"),
            "app/ml/BUILD": "python_sources()",
            "app/ml/w.py": TASK,
            "app/__init__.py": "",
        }
    )
    if not owned:
        root.write(
            {
                "app/BUILD": "\n".join(build(root_dir="app/ml").splitlines()[1:]).replace(
                    "w.py", "ml/w.py"
                )
            }
        )
    assert "* app/__init__.py (" in root.refusal("app:t")


# --- imports that a root breaks -------------------------------------------------------------------


def test_a_broken_import_is_named_with_file_line_and_the_root_that_would_do(root: RuleRoot):
    root.options("--source-root-patterns=['src']")
    root.write({**SRC, "src/app/BUILD": build(root_dir=".")})
    root.write({"src/app/w.py": TASK + "\ndef f():\n    from lib.x import y\n"})
    message = root.refusal("src/app:t")
    assert message.startswith("src/app:t: `root_dir='.'` breaks these imports:")
    assert (
        "* src/app/w.py:6: `from lib.x import y`, but the module is at src/lib/x.py in the bundle"
        in message
    )
    assert "Set `root_dir='src'`, the source root that they start from" in message


@pytest.mark.parametrize(
    "app",
    [
        pytest.param("python_sources(dependencies=['src/lib'])", id="through its generator"),
        pytest.param("python_sources(dependencies=['src/lib/x.py'])", id="by file"),
    ],
)
def test_a_declared_dependency_is_no_excuse_for_a_broken_import(root: RuleRoot, app):
    root.options("--source-root-patterns=['src']")
    root.write(
        {
            **SRC,
            "src/app/BUILD": f"{app}\nflyte_task(name='t', entry_point='w.py:train', root_dir='.')",
            "src/app/w.py": TASK + "import lib.x",
        }
    )
    assert "* src/app/w.py:4: `import lib.x`" in root.refusal("src/app:t")


def test_modules_of_several_source_roots_need_their_roots_stripped(root: RuleRoot):
    root.options("--source-root-patterns=['src', 'lib']")
    root.write(
        {
            **SRC,
            "src/app/w.py": TASK + "import y",
            "src/app/BUILD": build(root_dir="."),
            "lib/BUILD": "python_sources()",
            "lib/y.py": "",
        }
    )
    message = root.refusal("src/app:t")
    assert "* src/app/w.py:4: `import y`, but the module is at lib/y.py in the bundle" in message
    assert (
        "Leave `root_dir` unset: the modules come from several source roots (lib, src)" in message
    )


def test_imports_of_an_init_file_are_checked_too(root: RuleRoot):
    root.options("--source-root-patterns=['src']")
    root.write({**SRC, "src/app/BUILD": build(root_dir="."), "src/app/__init__.py": "import lib.x"})
    assert "* src/app/__init__.py:1: `import lib.x`" in root.refusal("src/app:t")


def test_imports_in_generated_code_are_checked_too(root: RuleRoot):
    root.options("--source-root-patterns=['src']")
    root.write(
        {
            **SRC,
            "src/app/BUILD": """
                python_sources(dependencies=[":gen", "src/lib"])
                shell_command(
                    name="write", command="echo 'import lib.x' > gen.py", output_files=["gen.py"]
                )
                experimental_wrap_as_python_sources(name="gen", inputs=[":write"])
                flyte_task(name="t", entry_point="w.py:train", root_dir=".")
                """,
        }
    )
    assert "* src/app/gen.py:1: `import lib.x`" in root.refusal("src/app:t")


def test_an_unneeded_source_root_is_no_matter(root: RuleRoot):
    root.options("--source-root-patterns=['src']")
    root.write(
        {
            "src/app/BUILD": build(root_dir="src/app"),
            "src/app/w.py": TASK + "import os\nimport json as lib",
        }
    )
    assert root.package("src/app:t").link.module == "w"


def test_relative_imports_move_along_but_not_out_of_the_top(root: RuleRoot):
    root.write(
        {
            "pkg/app/BUILD": build(root_dir="pkg"),
            "pkg/app/w.py": TASK + "from .beside import z",
            "pkg/app/beside.py": "z = 1",
            "pkg/BUILD": "python_sources()",
            "pkg/x.py": "z = 1",
        }
    )
    assert root.bundle("pkg/app:t").paths == {"app/w.py", "app/beside.py"}
    root.write({"pkg/app/w.py": TASK + "from ..x import z"})
    assert "* pkg/app/w.py:4: `from ..x import z`, but the module is at x.py" in root.refusal(
        "pkg/app:t"
    )


# --- collisions -----------------------------------------------------------------------------------

TWO_ROOTS = {
    "one/BUILD": "python_sources()",
    "one/util.py": "",
    "two/BUILD": "python_sources()",
    "two/util.py": "",
    "app/BUILD": """
        python_sources(dependencies=["one", "two"])
        flyte_task(name="t", entry_point="w.py:train")
        flyte_task(name="apart", entry_point="w.py:train", root_dir=".")
        """,
    "app/w.py": TASK,
}


def test_two_source_roots_that_give_one_path_collide_even_with_equal_content(root: RuleRoot):
    root.options("--source-root-patterns=['one', 'two', '/']")
    root.write(TWO_ROOTS)
    message = root.refusal("app:t")
    assert "util.py: one/util.py (one/util.py) and two/util.py (two/util.py)" in message
    assert "`root_dir`" in message
    assert root.bundle("app:apart").paths == {"app/w.py", "one/util.py", "two/util.py"}


def test_one_file_that_two_targets_own_is_no_collision(root: RuleRoot):
    root.write(
        {
            "data/BUILD": "file(name='one', source='a.csv')\nfile(name='two', source='a.csv')",
            "data/a.csv": "",
            "app/BUILD": """
                python_sources(dependencies=["data:one", "data:two"])
                flyte_task(name="t", entry_point="w.py:train")
                """,
            "app/w.py": TASK,
        }
    )
    assert root.bundle("app:t").owners["data/a.csv"] == "data:one"


def test_a_file_where_another_one_needs_a_directory_collides(root: RuleRoot):
    root.options("--source-root-patterns=['one', '/']")
    root.write(
        {
            "one/BUILD": "resource(name='r', source='data')",
            "one/data": "",
            "data/BUILD": "files(name='f', sources=['*.csv'])",
            "data/a.csv": "",
            "app/BUILD": """
                python_sources(dependencies=["one:r", "data:f"])
                flyte_task(name="t", entry_point="w.py:train")
                """,
            "app/w.py": TASK,
        }
    )
    assert "data: one/data (one:r) and data/a.csv (data/a.csv:f)" in root.refusal("app:t")


# --- shared bundles -------------------------------------------------------------------------------


def shared(bundle: str = "", task: str = "bundle=':code'") -> dict[str, str]:
    return {
        "app/BUILD": f"""
            python_sources()
            flyte_bundle(name="code", dependencies=["./w.py"]{bundle})
            flyte_bundle(name="other", dependencies=["./x.py"])
            flyte_task(name="t", entry_point="w.py:train", {task})
            """,
        "app/w.py": TASK,
        "app/x.py": "",
    }


def test_a_task_that_shares_a_bundle_links_to_that_one(root: RuleRoot):
    root.write(shared())
    task, bundle = root.package("app:t"), root.package("app:code")
    assert set(task.artifacts) == {"app/t.json"}
    link = task.link.bundle
    assert link is not None
    assert link.archive == "app/code.tar.gz"
    assert link.manifest == "app/code.manifest.json"
    assert link.archive_size == len(bundle.artifacts[link.archive])
    assert link.content_hash == bundle.bundle.manifest.content_hash


def test_a_shared_bundle_has_its_own_layout(root: RuleRoot):
    root.write(shared(bundle=", root_dir='app', copy_style='all'"))
    link = root.package("app:t").link
    assert (link.root_dir, link.copy_style, link.module) == ("app", "all", "w")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("bundle=':other'", "the bundle app:other does not hold app/w.py. Add app/w.py to its `dependencies`"),
        ("bundle='./w.py'", "`bundle` names app/w.py, which is a `python_source`, not a `flyte_bundle`."),
        ("bundle=':t'", "`bundle` names app:t, which is a `flyte_task`, not a `flyte_bundle`."),
        ("bundle=':code', root_dir='app'", "`root_dir` and `bundle` are both set: a shared bundle has one layout, budget and SBOM. Set `root_dir` on app:code instead."),
        ("bundle=':code', copy_style='all'", "`copy_style` and `bundle` are both set"),
    ],
)  # fmt: skip
def test_a_bundle_that_cant_be_shared_is_refused(root: RuleRoot, fields, message):
    root.write(shared(task=fields))
    assert message in root.refusal("app:t")


def test_a_shared_bundle_must_hold_the_very_file(root: RuleRoot):
    root.options("--source-root-patterns=['one', 'two', '/']")
    root.write(
        {
            "one/BUILD": "python_sources()",
            "one/w.py": TASK,
            "two/BUILD": "python_sources()",
            "two/w.py": TASK,
            "app/BUILD": """
                flyte_bundle(name="code", dependencies=["two"])
                flyte_task(name="t", entry_point="../one/w.py:train", bundle=":code")
                """,
        }
    )
    assert "the bundle app:code does not hold one/w.py" in root.refusal("app:t")


def test_a_task_may_have_its_code_in_an_image_and_a_bundle_for_deployments_that_want_one(
    root: RuleRoot,
):
    root.write(shared(task="bundle=':code', copy_style='none'"))
    packaged = root.package("app:t")
    assert set(packaged.artifacts) == {"app/t.json"}
    assert (packaged.link.copy_style, packaged.link.bundle) == ("none", None)


def test_one_of_several_bundles_must_be_named(root: RuleRoot):
    root.write(shared(bundle=", copy_style=parametrize('auto', 'all')"))
    with pytest.raises(ExecutionError, match="Did you mean one of these addresses"):
        root.package("app:t")
    root.write(shared(", copy_style=parametrize('auto', 'all')", "bundle=':code@copy_style=all'"))
    assert root.package("app:t").link.copy_style == "all"
