"""Odd names, links, modes and generated files; and all that lies under the root."""

from __future__ import annotations

import os
import subprocess
from collections import Counter

import pytest
from pants.engine.internals.scheduler import ExecutionError
from pants.util.frozendict import FrozenDict

from pants_flyte.engine.types import IgnoreFilesAbove
from tests.support.flyte_rules import RuleRoot

TASK = "env = flyte.TaskEnvironment('e')\n@env.task\ndef train(): ...\n"
BUILD = """
    python_sources()
    flyte_task(name="t", entry_point="w.py:train", dependencies=["data"])
    flyte_task(name="all", entry_point="w.py:train", copy_style="all")
    """
APP = {"app/BUILD": BUILD, "app/w.py": TASK, "data/BUILD": "files(sources=['**/*.csv'])"}


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("a b.csv", "größe.csv", "-n.csv", "--plan.csv", "[x].csv", "w?.csv", "{x}.csv", "~a.csv"),
        *("a@b.csv", "a:b.csv", "a#b.csv", "a=b,c.csv", "%41.csv", "$HOME.csv", "quote'\".csv"),
        *("back\\slash.csv", "new\nline.csv", "tab\t.csv", "x" * 250 + ".csv"),
    ],
)
def test_an_odd_name_is_an_ordinary_name(root: RuleRoot, name):
    root.write({**APP, f"data/{name}": "odd", "data/x.csv": "plain"})
    bundle = root.bundle("app:t")
    assert bundle.paths == {"app/w.py", "data/x.csv", f"data/{name}"}
    assert bundle.files[f"data/{name}"] == b"odd"


@pytest.mark.parametrize("name", ["a*b.csv", "!bang.csv", "[x].csv", "new\nline.csv"])
def test_a_name_that_no_target_can_own_is_in_a_bundle_of_all(root: RuleRoot, name):
    root.write({**APP, f"data/{name}": "odd", "data/BUILD": ""})
    assert root.bundle("app:all").files[f"data/{name}"] == b"odd"


@pytest.mark.parametrize(("name", "reason"), [("a*b.csv", "`*` globs"), ("!bang.csv", "`!`")])
def test_pants_itself_refuses_a_target_for_some_names(root: RuleRoot, name, reason):
    root.write({**APP, f"data/{name}": "odd"})
    with pytest.raises(
        ExecutionError, match=f"source' field in target data/.* should not .*{reason}"
    ):
        root.package("app:t")


def test_pants_itself_leaves_out_names_that_are_not_utf_8(root: RuleRoot):
    root.write({**APP, "data/x.csv": ""})
    with open(os.fsencode(root.path) + b"/data/\xff.csv", "w"):
        pass
    root.changed("data/x.csv")
    assert root.bundle("app:t").paths == {"app/w.py", "data/x.csv"}
    assert "data/x.csv" in root.bundle("app:all").paths


def test_names_that_differ_only_in_case_are_told(root: RuleRoot, caplog):
    root.write({**APP, "data/Rides.csv": "", "data/rides.csv": "", "data/x.csv": ""})
    assert len(root.bundle("app:t").paths) == 4
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "app:t: the bundle holds files whose names differ only in case" in warning
    assert warning.endswith(": data/Rides.csv, data/rides.csv")


# --- modes and links ------------------------------------------------------------------------------


def test_what_is_executable_stays_so_and_no_other_mode_counts(root: RuleRoot):
    root.write({**APP, "data/run.csv": "", "data/x.csv": "", "data/secret.csv": ""})
    root.make_executable("data/run.csv")
    os.chmod(root.path / "data/secret.csv", 0o600)
    root.changed("data/secret.csv")
    modes = {
        "app/w.py": 0o644,
        "data/run.csv": 0o755,
        "data/secret.csv": 0o644,
        "data/x.csv": 0o644,
    }
    bundle = root.bundle("app:t")
    assert bundle.modes == modes
    assert {file.path: file.mode for file in bundle.manifest.files} == modes
    everything = root.bundle("app:all").modes
    assert {path: everything[path] for path in modes} == modes


def link(root: RuleRoot, path: str, target: str) -> None:
    os.symlink(target, root.path / path)
    root.changed(path)


def test_a_link_inside_the_tree_becomes_the_file_it_means(root: RuleRoot):
    root.write({**APP, "data/x.csv": "", "real/a.csv": "a", "real/deep/b.csv": "b"})
    link(root, "data/link.csv", "../real/a.csv")
    link(root, "data/dir", "../real/deep")
    bundle = root.bundle("app:t")
    assert bundle.paths == {"app/w.py", "data/x.csv", "data/link.csv", "data/dir/b.csv"}
    assert (bundle.files["data/link.csv"], bundle.files["data/dir/b.csv"]) == (b"a", b"b")
    assert root.bundle("app:all").paths >= bundle.paths


def test_a_linked_module_is_imported_by_the_name_of_the_link(root: RuleRoot):
    root.write({**APP, "data/x.csv": "", "lib/BUILD": "python_sources()", "lib/real.py": "y = 1"})
    root.write({"app/w.py": TASK + "from lib.alias import y"})
    link(root, "lib/alias.py", "real.py")
    assert root.bundle("app:t").paths == {"app/w.py", "data/x.csv", "lib/alias.py"}


def test_a_link_to_nothing_is_left_out(root: RuleRoot):
    root.write({**APP, "data/x.csv": ""})
    link(root, "data/dangling.csv", "nothing.csv")
    assert root.bundle("app:t").paths == {"app/w.py", "data/x.csv"}
    assert "data/dangling.csv" not in root.bundle("app:all").paths


@pytest.mark.parametrize("task", ["app:t", "app:all"])
@pytest.mark.parametrize(
    "target", ["/etc/hostname", "/etc", "{root}/app/w.py", "../../outside.csv"]
)
def test_pants_itself_refuses_links_that_leave_the_tree_and_absolute_ones(
    root: RuleRoot, task, target
):
    root.write({**APP, "data/x.csv": ""})
    link(root, "data/link.csv", target.format(root=root.path))
    with pytest.raises(ExecutionError, match=r"data/link\.csv|outside\.csv"):
        root.package(task)


# --- files beside modules -------------------------------------------------------------------------


def test_a_files_target_under_a_source_root_keeps_its_path_and_that_is_told(root: RuleRoot, caplog):
    root.options("--source-root-patterns=['src']")
    root.write(
        {
            "src/app/BUILD": """
                python_sources(dependencies=[":csv", ":json"])
                files(name="csv", sources=["*.csv"])
                resources(name="json", sources=["*.json"])
                flyte_task(name="t", entry_point="w.py:train")
                """,
            "src/app/w.py": TASK,
            "src/app/x.csv": "",
            "src/app/y.csv": "",
            "src/app/x.json": "",
        }
    )
    assert root.bundle("src/app:t").paths == {
        *("app/w.py", "app/x.json", "src/app/x.csv", "src/app/y.csv")
    }
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("src/app:t: src/app/x.csv comes from a `files` target")
    assert "at app/w.py in the bundle" in warning
    assert "make it a `resource`" in warning
    assert "1 more files are parted in the same way" in warning


# --- generated code -------------------------------------------------------------------------------

GENERATED = """
    shell_command(
        name="write",
        command="printf 'x = 1' > gen.py",
        output_files=["gen.py"],
    )
    experimental_wrap_as_python_sources(name="gen", inputs=[":write"])
    """


def test_generated_python_is_in_below_its_source_root(root: RuleRoot):
    root.options("--source-root-patterns=['src']")
    root.write(
        {
            "src/lib/__init__.py": "",
            "src/lib/BUILD": GENERATED,
            "src/app/BUILD": """
                python_sources(dependencies=["src/lib:gen"])
                flyte_task(name="t", entry_point="w.py:train")
                """,
            "src/app/w.py": TASK,
        }
    )
    bundle = root.bundle("src/app:t")
    assert bundle.files["lib/gen.py"] == b"x = 1"
    assert bundle.why["lib/gen.py"] == ("declared", "src/app/w.py")
    assert bundle.owners["lib/gen.py"] == "src/lib:gen"
    assert bundle.paths == {"app/w.py", "lib/__init__.py", "lib/gen.py"}


@pytest.mark.parametrize("checked_in", ["x = 1", "x = 2"])
def test_generated_and_checked_in_code_on_one_path_collide(root: RuleRoot, checked_in):
    root.write(
        {
            "lib/BUILD": GENERATED + 'python_sources(name="src")',
            "lib/gen.py": checked_in,
            "app/BUILD": """
                python_sources(dependencies=["lib:gen", "lib:src"])
                flyte_task(name="t", entry_point="w.py:train")
                """,
            "app/w.py": TASK,
        }
    )
    message = root.refusal("app:t")
    assert "different files would land on one path of the bundle" in message
    assert "lib/gen.py: " in message
    assert "lib/gen.py (lib:gen)" in message
    assert "lib/gen.py (lib/gen.py:src)" in message


def test_wrapped_resources_and_relocated_files_keep_pants_own_layout(root: RuleRoot):
    root.options("--source-root-patterns=['src']")
    root.write(
        {
            "src/data/BUILD": """
                files(name="raw", sources=["*.csv"])
                relocated_files(
                    name="moved", files_targets=[":raw"], src="src/data", dest="tables"
                )
                shell_command(
                    name="make", command="printf 1 > made.json", output_files=["made.json"]
                )
                experimental_wrap_as_resources(name="made", inputs=[":make"])
                """,
            "src/data/a.csv": "1",
            "src/app/BUILD": """
                python_sources()
                flyte_task(
                    name="t",
                    entry_point="w.py:train",
                    dependencies=["src/data:moved", "src/data:made"],
                )
                """,
            "src/app/w.py": TASK,
        }
    )
    assert root.bundle("src/app:t").why == {
        "app/w.py": ("entry_point", "src/app:t"),
        "data/made.json": ("declared", "src/app:t"),
        "tables/a.csv": ("declared", "src/app:t"),
    }


# --- copy_style="all" -----------------------------------------------------------------------------

TREE = {
    "app/BUILD": BUILD.replace(', dependencies=["data"]', ""),
    "app/w.py": TASK + "import lib.x",
    "app/notes.txt": "",
    "app/test_w.py": "",
    "lib/BUILD": "python_sources()",
    "lib/x.py": "",
    "lib/unused.py": "",
    "unowned/y.py": "",
    "README.md": "",
}


def test_all_is_every_file_under_the_root_owned_or_not(root: RuleRoot):
    root.write(TREE)
    auto, everything = root.bundle("app:t"), root.bundle("app:all")
    assert everything.paths == {path for path in TREE if not path.endswith(("BUILD", "test_w.py"))}
    assert everything.manifest.copy_style == "all"
    assert everything.why == {
        **dict.fromkeys(everything.paths, ("all", None)),
        **{path: (kind, by and by.replace(":t", ":all")) for path, (kind, by) in auto.why.items()},
    }
    assert {path: owner for path, owner in everything.owners.items() if owner} == auto.owners


@pytest.mark.parametrize(
    "path",
    [
        "app/__pycache__/w.cpython-311.pyc",
        "app/w.pyc",
        ".env",
        "app/.hidden/x",
        "app/.ruff_cache/x",
        ".git/HEAD",
        "venv/bin/activate",
        "app/venv/x.py",
        "node_modules/x/y.js",
        "pkg.egg-info/PKG-INFO",
        "app/BUILD.tools",
        "dist/old.json",
    ],
)
def test_all_leaves_out_what_never_belongs(root: RuleRoot, path):
    content = "" if path.startswith("app/BUILD") else "x"
    root.write({**TREE, path: content, "app/venv.py": ""})
    paths = root.bundle("app:all").paths
    assert path not in paths
    assert {"app/venv.py", "README.md"} <= paths


IGNORED = {
    "app/top.log": ".gitignore",
    "app/a.key": "app/.gitignore",
    "app/data/b.key": "app/.gitignore",
    "app/out/public.key": "app/.gitignore",
    "app/data/c.csv": "app/data/.flyteignore",
    "lib/z.py": "lib/.gitignore",
    "app/notes.mine": ".git/info/exclude",
}


def test_all_leaves_out_what_the_repository_ignores_and_counts_it(root: RuleRoot):
    subprocess.run(["git", "init", "-q", root.path], check=True)
    (root.path / ".git" / "info" / "exclude").write_text("*.mine\n")
    patterns = {
        ".gitignore": "/app/top.log\n",
        "app/.gitignore": "*.key\n!public.key\nout/\n",
        "app/data/.flyteignore": "*.csv\n",
        "lib/.gitignore": "*.py\n",
    }
    stay = dict.fromkeys(["app/public.key", "app/c.csv", "app/outer"], "")
    root.write({**TREE, **dict.fromkeys(IGNORED, ""), **patterns, **stay})
    packaged = root.package("app:all")
    # What the entry points reach is never left out: `lib/x.py`.
    paths = {path for path in (*TREE, *stay) if not path.endswith("BUILD")}
    assert packaged.bundle.paths == paths - {"lib/unused.py", "app/test_w.py"}
    counts = Counter(("lib/.gitignore", *IGNORED.values()))
    said = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    assert f"left out, by ignore file: {said}" in packaged.said
    root.write({"app/.gitignore": "out/\n"})
    assert {"app/a.key", "app/data/b.key"} <= root.bundle("app:all").paths


def test_ignore_files_above_the_build_root_count(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    build_root = tmp_path / "a" / "b"
    build_root.mkdir(parents=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("*.mine\n")
    for place in (tmp_path, tmp_path / "a", build_root):
        (place / ".gitignore").write_text(f"{place.name}\n")
    (tmp_path / ".flyteignore").write_text("*.csv\n")
    monkeypatch.setattr("pants_flyte.engine.types.get_buildroot", lambda: str(build_root))
    above = IgnoreFilesAbove.of_build_root()
    assert above == IgnoreFilesAbove(
        "a/b/",
        FrozenDict(
            {
                ".gitignore": f"{tmp_path.name}\n".encode(),
                ".flyteignore": b"*.csv\n",
                "a/.gitignore": b"a\n",
            }
        ),
        b"*.mine\n",
    )


def test_what_all_leaves_out_can_be_said(root: RuleRoot):
    root.options("--flyte-all-excludes=['**/BUILD', 'unowned/**', '*.md', 'lib/**']")
    root.write({**TREE, "lib/README.md": ""})
    # What the entry points reach is never left out.
    assert root.bundle("app:all").paths == {
        *("app/w.py", "app/notes.txt", "app/test_w.py", "lib/x.py")
    }


def test_all_under_source_roots_is_what_lies_in_those_of_the_entry_point(root: RuleRoot):
    root.options("--source-root-patterns=['src', 'lib', 'src/nested']")
    root.write(
        {
            "src/app/BUILD": BUILD,
            "src/app/w.py": TASK + "import y",
            "src/app/notes.txt": "",
            "src/top.txt": "",
            "src/data/BUILD": "files(sources=['*.csv'])",
            "src/data/x.csv": "",
            "src/nested/z.py": "",
            "lib/BUILD": "python_sources()",
            "lib/y.py": "",
            "lib/unused.py": "",
            "outside.txt": "",
        }
    )
    bundle = root.bundle("src/app:all")
    # `nested` has a source root of its own: its files would need another place.
    assert bundle.paths == {"app/w.py", "app/notes.txt", "top.txt", "data/x.csv", "y.py"}
    assert bundle.why["y.py"] == ("imported", "src/app/w.py")


def test_all_under_a_root_dir_is_what_lies_there(root: RuleRoot):
    root.write(
        {
            "app/BUILD": """
                python_sources()
                flyte_task(name="t", entry_point="w.py:train", copy_style="all", root_dir="app")
                """,
            "app/w.py": TASK,
            "app/sub/x.txt": "",
            "other/y.txt": "",
        }
    )
    bundle = root.bundle("app:t")
    assert bundle.paths == {"w.py", "sub/x.txt"}
    assert bundle.manifest.root_dir == "app"


def test_a_root_with_an_odd_name_is_taken_literally(root: RuleRoot):
    root.write(
        {
            "BUILD": """
                python_source(name="w", source="[[]ab]/w.py")
                flyte_task(name="t", entry_point="[ab]/w.py:train", copy_style="all", root_dir="[ab]")
                """,
            "[ab]/w.py": TASK,
            "[ab]/x.txt": "",
            "a/y.txt": "",
        }
    )
    assert root.bundle("//:t").paths == {"w.py", "x.txt"}


def test_all_of_a_shared_bundle_is_what_lies_beside_its_roots(root: RuleRoot):
    root.options("--source-root-patterns=['src', 'lib']")
    root.write(
        {
            "src/app/BUILD": """
                python_sources()
                flyte_bundle(name="b", dependencies=["./w.py"], copy_style="all")
                """,
            "src/app/w.py": TASK + "import y",
            "src/notes.txt": "",
            "lib/BUILD": "python_sources()",
            "lib/y.py": "",
            "lib/unused.py": "",
        }
    )
    assert root.bundle("src/app:b").paths == {"app/w.py", "notes.txt", "y.py"}


def test_an_unneeded_file_that_would_land_on_a_needed_one_is_a_collision(root: RuleRoot):
    root.options("--source-root-patterns=['src', 'lib']")
    root.write(
        {
            "src/app/BUILD": BUILD,
            "src/app/w.py": TASK + "import y",
            "src/y.py": "",
            "src/data/BUILD": "files(sources=['*.csv'])",
            "lib/BUILD": "python_sources()",
            "lib/y.py": "",
        }
    )
    message = root.refusal("src/app:all")
    assert "lib/y.py (lib/y.py)" in message
    assert "src/y.py (no owner)" in message
