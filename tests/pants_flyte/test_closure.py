"""What a bundle holds: the files that a task reaches in the dependency graph, and why each is there."""

from __future__ import annotations

import pytest

from pants_flyte import closure
from tests.support.flyte_rules import RuleRoot

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"
BUILD = "python_sources()\nflyte_task(name='t', entry_point='w.py:train')\n"


def sources(*directories: str) -> dict[str, str]:
    return {f"{directory}/BUILD".lstrip("/"): "python_sources()" for directory in directories}


@pytest.mark.parametrize(
    "importing",
    [
        pytest.param("import lib.x", id="at the top"),
        pytest.param("from lib import x", id="from its package"),
        pytest.param("from lib.x import y", id="a name of it"),
        pytest.param("def f():\n    from lib.x import y", id="inside a function"),
        pytest.param("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lib.x", id="for types"),
        pytest.param("try:\n    import lib.x\nexcept ImportError:\n    pass", id="in a try"),
        pytest.param("class C:\n    def f(self):\n        import lib.x", id="inside a method"),
    ],
)  # fmt: skip
def test_an_imported_module_is_in_wherever_the_import_stands(root: RuleRoot, importing):
    root.write(
        {
            **sources("lib"),
            "lib/x.py": "y = 1",
            "lib/other.py": "never imported",
            "app/BUILD": BUILD,
            "app/w.py": TASK + importing,
        }
    )
    bundle = root.bundle("app:t")
    assert bundle.paths == {"app/w.py", "lib/x.py"}
    assert bundle.files["lib/x.py"] == b"y = 1"
    assert bundle.why == {
        "app/w.py": ("entry_point", "app:t"),
        "lib/x.py": ("imported", "app/w.py"),
    }


def test_imports_are_followed_to_the_end(root: RuleRoot):
    root.write(
        {
            **sources("a", "b", "c"),
            "a/m.py": "import b.m",
            "b/m.py": "def f():\n    import c.m",
            "c/m.py": "import app.w",
            "app/BUILD": BUILD,
            "app/w.py": TASK + "import a.m",
        }
    )
    assert root.bundle("app:t").why == {
        "a/m.py": ("imported", "app/w.py"),
        "app/w.py": ("entry_point", "app:t"),
        "b/m.py": ("imported", "a/m.py"),
        "c/m.py": ("imported", "b/m.py"),
    }


def test_the_reason_is_a_shortest_way(root: RuleRoot):
    root.write(
        {
            **sources("a", "b"),
            "a/m.py": "import b.m",
            "b/m.py": "",
            "app/BUILD": BUILD,
            "app/w.py": TASK + "import a.m\nimport b.m",
        }
    )
    assert root.bundle("app:t").why["b/m.py"] == ("imported", "app/w.py")


def test_declared_dependencies_are_in_with_all_they_reach(root: RuleRoot):
    root.write(
        {
            **sources("plugins", "lib"),
            "lib/x.py": "",
            "plugins/one.py": "import lib.x",
            "plugins/two.py": "",
            "data/BUILD": "files(name='csv', sources=['*.csv'])\nresource(name='json', source='a.json')",
            "data/a.csv": "1",
            "data/b.csv": "2",
            "data/a.json": "{}",
            "app/BUILD": """
                python_sources(dependencies=["data:csv"])
                flyte_task(
                    name="t", entry_point="w.py:train", dependencies=["plugins", "data:json"]
                )
                """,
            "app/w.py": TASK,
        }
    )
    bundle = root.bundle("app:t")
    assert bundle.why == {
        "app/w.py": ("entry_point", "app:t"),
        "data/a.csv": ("declared", "app/w.py"),
        "data/a.json": ("declared", "app:t"),
        "data/b.csv": ("declared", "app/w.py"),
        "lib/x.py": ("imported", "plugins/one.py"),
        "plugins/one.py": ("declared", "app:t"),
        "plugins/two.py": ("declared", "app:t"),
    }
    assert bundle.owners == {
        "app/w.py": "app/w.py",
        "data/a.csv": "data/a.csv:csv",
        "data/a.json": "data:json",
        "data/b.csv": "data/b.csv:csv",
        "lib/x.py": "lib/x.py",
        "plugins/one.py": "plugins/one.py",
        "plugins/two.py": "plugins/two.py",
    }


def test_a_dependency_that_is_declared_on_a_parametrized_target_is_declared(root: RuleRoot):
    root.write(
        {
            "lib/BUILD": 'python_sources(resolve=parametrize("python-default", "other"))',
            "lib/x.py": "",
            "data/BUILD": """
                resource(name="r", source="r.json", tags=parametrize(a=["a"], b=["b"]))
                """,
            "data/r.json": "{}",
            "app/BUILD": """
                python_sources()
                flyte_task(
                    name="t", entry_point="w.py:train", dependencies=["lib", "data:r@tags=b"]
                )
                """,
            "app/w.py": TASK,
        }
    )
    bundle = root.bundle("app:t")
    assert bundle.why == {
        "app/w.py": ("entry_point", "app:t"),
        "data/r.json": ("declared", "app:t"),
        "lib/x.py": ("declared", "app:t"),
    }
    assert bundle.owners["lib/x.py"] == "lib/x.py@resolve=python-default"


def test_the_roots_of_a_bundle_target_are_declared(root: RuleRoot):
    root.write(
        {
            **sources("lib"),
            "lib/x.py": "",
            "app/BUILD": "python_sources()\nflyte_bundle(name='b', dependencies=['./w.py'])",
            "app/w.py": "import lib.x",
            "app/other.py": "",
        }
    )
    packaged = root.package("app:b")
    assert set(packaged.artifacts) == {"app/b.tar.gz", "app/b.manifest.json"}
    assert packaged.bundle.why == {
        "app/w.py": ("declared", "app:b"),
        "lib/x.py": ("imported", "app/w.py"),
    }
    assert packaged.bundle.manifest.entry_points == ()


def test_an_excluded_dependency_stays_out(root: RuleRoot):
    root.write(
        {
            **sources("lib", "heavy"),
            "lib/x.py": "import heavy.x",
            "lib/y.py": "",
            "heavy/x.py": "",
            "app/BUILD": """
                python_sources(dependencies=["!lib/y.py"])
                flyte_task(name="t", entry_point="w.py:train")
                flyte_task(name="light", entry_point="w.py:train", dependencies=["!!heavy/x.py"])
                """,
            "app/w.py": TASK + "import lib.x\nimport lib.y",
        }
    )
    assert root.bundle("app:t").paths == {"app/w.py", "lib/x.py", "heavy/x.py"}
    assert root.bundle("app:light").paths == {"app/w.py", "lib/x.py"}


def test_an_excluded_entry_point_is_an_error_that_says_so(root: RuleRoot):
    root.write(
        {
            "app/BUILD": """
                python_sources()
                flyte_task(name="t", entry_point="w.py:train", dependencies=["!./w.py", "./x.py"])
                """,
            "app/w.py": TASK,
            "app/x.py": "",
        }
    )
    assert (
        "the bundle does not hold the entry point: `dependencies` takes app/w.py out (`!app/w.py`). "
        "Leave that line out." in root.refusal("app:t")
    )


def test_only_python_resources_and_files_are_shipped(root: RuleRoot):
    root.options("--no-shell-setup-dependency-inference")
    root.write(
        {
            "locks/default.txt": "",
            "req/BUILD": "python_requirements(name='reqs', source='requirements.txt')",
            "req/requirements.txt": "ansicolors",
            "tools/BUILD": "shell_sources(name='sh')",
            "tools/run.sh": "echo",
            "app/BUILD": """
                python_sources(dependencies=["req:reqs", "tools:sh"])
                flyte_task(name="t", entry_point="w.py:train")
                """,
            "app/w.py": TASK + "import colors",
        }
    )
    assert root.bundle("app:t").paths == {"app/w.py"}


def test_a_bundle_without_files_is_refused(root: RuleRoot):
    root.options("--no-shell-setup-dependency-inference")
    root.write(
        {
            "app/BUILD": "shell_sources(name='sh')\nflyte_bundle(name='b', dependencies=[':sh'])",
            "app/run.sh": "echo",
        }
    )
    assert (
        "the bundle would be empty: no dependency leads to Python sources, resources or files."
        in root.refusal("app:b")
    )


# --- packages -------------------------------------------------------------------------------------


def test_empty_init_files_above_a_module_are_in_owned_or_not(root: RuleRoot):
    root.write(
        {
            **sources("top/owned"),
            "top/__init__.py": "",
            "top/owned/__init__.py": "\n",
            "top/owned/x.py": "",
            "top/owned/sibling.py": "",
            "top/beside/__init__.py": "",
            "app/BUILD": BUILD,
            "app/w.py": TASK + "import top.owned.x",
        }
    )
    bundle = root.bundle("app:t")
    assert bundle.paths == {
        "app/w.py",
        "top/__init__.py",
        "top/owned/__init__.py",
        "top/owned/x.py",
    }
    assert bundle.owners["top/__init__.py"] is None
    assert bundle.owners["top/owned/__init__.py"] == "top/owned/__init__.py"
    assert bundle.why["top/__init__.py"] == ("package", None)
    assert bundle.why["top/owned/__init__.py"][0] == "package"


def test_an_init_file_with_code_brings_what_it_imports_to_the_end(root: RuleRoot):
    root.write(
        {
            **sources("a", "a/deep", "b", "c"),
            "a/__init__.py": "import b.m",
            "a/deep/__init__.py": "",
            "a/deep/m.py": "",
            "b/__init__.py": "",
            "b/m.py": "import c.m",
            "c/__init__.py": "from c.first import x",
            "c/first.py": "x = 1",
            "c/m.py": "",
            "app/BUILD": BUILD,
            "app/w.py": TASK + "import a.deep.m",
        }
    )
    bundle = root.bundle("app:t")
    assert bundle.paths == {
        *("a/__init__.py", "a/deep/__init__.py", "a/deep/m.py", "app/w.py"),
        *("b/__init__.py", "b/m.py", "c/__init__.py", "c/first.py", "c/m.py"),
    }
    assert bundle.why["b/m.py"] == ("imported", "a/__init__.py")
    assert bundle.why["c/first.py"] == ("imported", "c/__init__.py")
    assert {path for path, (kind, _) in bundle.why.items() if kind == "package"} == {
        *("a/__init__.py", "a/deep/__init__.py", "b/__init__.py", "c/__init__.py")
    }


@pytest.mark.parametrize("inferred", ["always", "content_only", "never"])
def test_init_files_are_in_whatever_pants_infers_of_them(root: RuleRoot, inferred):
    root.options(f"--python-infer-init-files={inferred}")
    root.write(
        {
            **sources("lib"),
            "lib/__init__.py": "import lib.setup",
            "lib/setup.py": "",
            "lib/x.py": "",
            "app/__init__.py": "",
            "app/BUILD": BUILD,
            "app/w.py": TASK + "import lib.x",
        }
    )
    bundle = root.bundle("app:t")
    assert bundle.paths == {
        *("app/__init__.py", "app/w.py", "lib/__init__.py", "lib/setup.py", "lib/x.py")
    }
    assert bundle.why["lib/__init__.py"][0] == "package"
    assert bundle.why["app/__init__.py"][0] == "package"


def test_an_unowned_init_file_with_code_is_in_but_its_imports_are_not_known(root: RuleRoot, caplog):
    root.write(
        {
            **sources("lib/sub", "other"),
            "lib/__init__.py": "import other.x",
            "lib/sub/x.py": "",
            "other/x.py": "",
            "app/BUILD": BUILD,
            "app/w.py": TASK + "import lib.sub.x",
        }
    )
    assert (
        "lib/__init__.py:1: `import other.x`: other/x.py supplies it, and nothing that ships "
        "depends on that; add it to `dependencies` of the target whose code imports it. No target "
        "owns lib/__init__.py itself"
    ) in root.refusal("app:t")
    caplog.clear()
    root.options("--flyte-missing=ignore")
    bundle = root.bundle("app:t")
    assert bundle.paths == {"app/w.py", "lib/__init__.py", "lib/sub/x.py"}
    assert bundle.owners["lib/__init__.py"] is None
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("app:t: no target owns lib/__init__.py, which Python runs on the way")


def test_an_init_file_of_another_resolve_is_a_file_without_owner(root: RuleRoot):
    root.write(
        {
            "lib/BUILD": """
                python_source(name="x", source="x.py")
                python_source(name="init", source="__init__.py", resolve="other")
                """,
            "lib/__init__.py": "y = 1",
            "lib/x.py": "",
            "app/BUILD": BUILD,
            "app/w.py": TASK + "import lib.x",
        }
    )
    bundle = root.bundle("app:t")
    assert bundle.owners == {"app/w.py": "app/w.py", "lib/__init__.py": None, "lib/x.py": "lib:x"}


def test_the_init_file_of_a_source_root_belongs_to_no_package(root: RuleRoot):
    root.options("--source-root-patterns=['src']")
    root.write(
        {
            **sources("src/lib"),
            "src/__init__.py": "",
            "src/lib/__init__.py": "",
            "src/lib/x.py": "",
            "src/app/BUILD": BUILD,
            "src/app/w.py": TASK + "import lib.x",
        }
    )
    assert root.bundle("src/app:t").paths == {"app/w.py", "lib/__init__.py", "lib/x.py"}


def test_package_data_has_its_package(root: RuleRoot):
    root.write(
        {
            "lib/__init__.py": "",
            "lib/conf/__init__.py": "",
            "lib/conf/BUILD": "resources(name='data', sources=['*.json'])",
            "lib/conf/limits.json": "{}",
            "raw/__init__.py": "",
            "raw/BUILD": "files(name='csv', sources=['*.csv'])",
            "raw/a.csv": "",
            "app/BUILD": """
                python_sources(dependencies=["lib/conf:data", "raw:csv"])
                flyte_task(name="t", entry_point="w.py:train")
                """,
            "app/w.py": TASK + "resources.files('lib.conf')",
        }
    )
    assert root.bundle("app:t").paths == {
        *("app/w.py", "raw/a.csv"),
        *("lib/__init__.py", "lib/conf/__init__.py", "lib/conf/limits.json"),
    }


def test_a_namespace_package_may_spread_over_source_roots(root: RuleRoot):
    root.options("--source-root-patterns=['one', 'two']")
    root.write(
        {
            **sources("one/ns/a", "two/ns/b"),
            "one/ns/a/x.py": "from ns.b import y",
            "two/ns/b/y.py": "",
            "one/app/BUILD": BUILD,
            "one/app/w.py": TASK + "import ns.a.x",
        }
    )
    assert root.bundle("one/app:t").paths == {"app/w.py", "ns/a/x.py", "ns/b/y.py"}


def test_a_task_in_an_init_file(root: RuleRoot):
    root.write(
        {
            "app/BUILD": "python_sources()\nflyte_task(name='t', entry_point='__init__.py:train')",
            "app/__init__.py": TASK,
        }
    )
    packaged = root.package("app:t")
    assert packaged.link.module == "app"
    assert packaged.bundle.why == {"app/__init__.py": ("entry_point", "app:t")}


# --- special-cased dependencies -------------------------------------------------------------------


def test_the_tasks_of_a_deployment_and_a_shared_bundle_show_as_dependencies_but_ship_nothing(
    root: RuleRoot,
):
    root.write(
        {
            **sources("lib"),
            "lib/x.py": "",
            "app/BUILD": """
                python_sources()
                flyte_bundle(name="code", dependencies=["./w.py", "lib"])
                flyte_task(name="own", entry_point="w.py:train")
                flyte_task(name="shares", entry_point="w.py:train", bundle=":code")
                flyte_deployment(name="deploy", tasks=[":own", "app:shares"])
                flyte_task(name="odd", entry_point="w.py:train", dependencies=[":deploy", ":shares"])
                """,
            "app/w.py": TASK,
        }
    )
    assert root.dependencies("app:shares") == ["app/w.py"]
    assert root.dependencies("app:shares", special_cased=True) == ["app/w.py", "app:code"]
    assert root.dependencies("app:deploy") == []
    assert root.dependencies("app:deploy", special_cased=True) == ["app:own", "app:shares"]
    # What is declared as a dependency ships, but not through `tasks` and `bundle`.
    assert root.bundle("app:odd").paths == {"app/w.py"}


def test_a_change_of_a_library_reaches_the_deployment_of_tasks_that_need_it(root: RuleRoot):
    root.write(
        {
            **sources("lib"),
            "lib/x.py": "",
            "lib/y.py": "",
            "app/BUILD": """
                python_sources()
                flyte_bundle(name="code", dependencies=["./w.py"])
                flyte_task(name="t", entry_point="w.py:train", bundle=":code")
                flyte_deployment(name="deploy", tasks=[":t"])
                """,
            "app/w.py": TASK + "import lib.x",
        }
    )
    assert {"app/w.py", "app:code", "app:t", "app:deploy"} <= root.dependents("lib/x.py")
    assert root.dependents("lib/y.py").isdisjoint({"app:code", "app:t", "app:deploy"})


def test_an_edit_that_changes_no_import_finds_the_closure_as_it_was(root: RuleRoot, monkeypatch):
    looked_for = []
    found = closure._packages_above
    monkeypatch.setattr(
        closure, "_packages_above", lambda files: looked_for.append(files) or found(files)
    )
    root.write(
        {
            **sources("lib"),
            "lib/x.py": "y = 1",
            "app/BUILD": BUILD,
            "app/w.py": TASK + "import lib.x",
        }
    )
    root.bundle("app:t")
    before = len(looked_for)
    assert before
    for value in range(2, 5):  # a busy machine tells Pants of a file late, or while it is written
        before = len(looked_for)
        root.edit("lib/x.py", str(value - 1), str(value))
        assert root.bundle("app:t").files["lib/x.py"] == f"y = {value}".encode()
        if len(looked_for) == before:
            break
    assert len(looked_for) == before
    root.edit("lib/x.py", "y", "import app.w, lib.z; y")
    root.write({"lib/z.py": ""})
    assert "lib/z.py" in root.bundle("app:t").paths
    assert len(looked_for) > before
