"""What is in a `flyte_image`: layers, files, settings, and what an edit changes."""

from __future__ import annotations

import json

import pytest

from flyte_pack.oci.model import OCI_INDEX
from tests.support.bases import base_image, base_platform
from tests.support.flyte_images import BASE, app, image, image_options
from tests.support.flyte_rules import RuleRoot
from tests.support.layouts import Layout, Member

SITE = "opt/venv/lib/python3.12/site-packages"
WORK = "home/flyte/task"
USER = (1000, 1000)


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root)
    return root


def packages(layout: Layout, platform: str | None = None) -> set[str]:
    """The distributions that it holds."""
    paths = {path for layer in layout.layers(platform) for path in layer.members or {}}
    ending = ".dist-info/METADATA"
    return {path[len(SITE) + 1 : -len(ending)] for path in paths if path.endswith(ending)}


# --- layers ---------------------------------------------------------------------------------------


def test_an_image_for_nothing_holds_the_shim_and_a_place_to_work(root: RuleRoot):
    root.write(image())
    layout = root.image("app:image")
    assert [layer.what for layer in layout.layers()] == [
        *("base image", "base image", "flyte-shim", "working directory")
    ]
    tree = layout.tree
    assert tree[WORK] == tree["home/flyte"] == Member("directory", 0o755, USER, "")
    assert layout.below(WORK) == {}
    assert tree["opt/venv/bin/python"] == Member("link", 0o777, (0, 0), "/usr/local/bin/python3.12")
    assert (
        tree["opt/venv/bin/python3"].content == tree["opt/venv/bin/python3.12"].content == "python"
    )
    assert tree["opt/venv/bin/flyte-shim"].mode == 0o755
    assert tree["opt/venv/pyvenv.cfg"].content == (
        "home = /usr/local/bin\ninclude-system-site-packages = true\nversion = 3.12\n"
    )
    assert f"{SITE}/flyte_shim/cli.py" in tree
    assert not any("flyte_pack" in path or path.endswith(".pyc") for path in tree)
    assert {m.owner for path, m in tree.items() if path.startswith("opt/")} == {(0, 0)}


def test_what_the_code_needs_of_the_lock_file_comes_before_the_shim_and_the_code_last(root):
    root.write(app(image="code=True"))
    layout = root.image("app:image")
    assert packages(layout) == {"pftest_a-1.0", "pftest_b-1.0"}
    layers = layout.layers()
    # Of the base in a registry, nothing is at hand.
    assert [layer.members is None for layer in layers] == [True, True, False, False, False]
    ours = layers[2:]
    assert f"{SITE}/pftest_a.py" in ours[0].files
    assert ours[0].members["opt/venv/bin/a-command"].mode == 0o755
    assert ours[1].what == "flyte-shim"
    assert set(ours[2].files) == {f"{WORK}/app/w.py", f"{WORK}/app/lib.py"}
    assert ours[2].what == "2 files of code"
    assert {member.owner for member in ours[2].members.values()} == {USER}


def test_the_layout_holds_its_own_blobs_and_no_other(root: RuleRoot):
    root.write(app(image="code=True"))
    layout = root.image("app:image")
    below = {layer.digest for layer in base_image().platforms[0].layers}
    manifest = layout.manifest()
    named = {
        layout.digest,
        manifest["config"]["digest"],
        *(d["digest"] for d in manifest["layers"]),
    }
    assert below < named
    assert layout.blobs == named - below


def test_two_images_share_the_layers_that_are_the_same(root: RuleRoot):
    root.write(app(image="code=True"))
    root.write(
        {
            "other/BUILD": "flyte_image(name='i', base='img:base', dependencies=['3rdparty:a'], env={'A': 'b'})"
        }
    )
    one, two = root.image("app:image"), root.image("other:i")
    assert one.digest != two.digest
    shared = {layer.digest for layer in one.layers()} & {layer.digest for layer in two.layers()}
    assert len(shared) == 4  # base, packages, shim
    assert len(one.blobs & two.blobs) == 2


def test_an_edit_of_one_line_changes_the_codes_layer_config_and_manifest(root: RuleRoot):
    root.write(app(image="code=True"))
    before = root.image("app:image")
    root.edit("app/lib.py", "1", "2")
    after = root.image("app:image")
    assert [a.digest == b.digest for a, b in zip(before.layers(), after.layers())] == [
        *([True] * 4),
        False,
    ]
    assert len(after.blobs - before.blobs) == 3
    root.edit("app/lib.py", "2", "1")
    assert root.image("app:image").files == before.files


def test_an_edit_of_code_that_comes_in_bundles_changes_nothing(root: RuleRoot):
    root.write(app())
    before = root.image("app:image")
    root.edit("app/lib.py", "1", "2")
    assert root.image("app:image").files == before.files


# --- code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "asked", "holds", "own"),
    [
        ("", None, False, True),
        ("", False, False, True),
        ("", True, True, False),
        ("code=True", None, True, True),
        ("code=True", True, True, True),
        ("code=False", None, False, True),
        ("code=False", True, False, True),
        # Folders are taken to bring the code.
        ("source_folders=[{'src': '//lib', 'dst': 'lib'}]", True, False, True),
        ("source_folders=[{'src': '//lib', 'dst': 'lib'}], code=True", None, True, True),
    ],
)
def test_code_goes_in_where_the_target_or_a_task_asks_for_it(root, fields, asked, holds, own):
    root.write({**app(fields, source="import app.lib\n"), "lib/data.txt": "x"})
    built = root.built_image("app:image", asked)
    assert built.layout == ("app/image" if own else "app/image-with-code")
    assert (built.embeds_code, built.own_output) == (holds, own)
    folders = {f"{WORK}/lib/data.txt": "lib/data.txt"} if "src" in fields else {}
    code = {f"{WORK}/app/w.py": "app/w.py", f"{WORK}/app/lib.py": "app/lib.py"} if holds else {}
    assert dict(built.code) == {**folders, **code}
    layout = root.image("app:image", asked)
    assert {f"{WORK}/{path}" for path in layout.below(WORK)} == set(built.code)


@pytest.mark.parametrize(
    ("image_fields", "task_fields", "artifacts"),
    [
        ("", "", {"app/t.json", "app/t.tar.gz", "app/t.manifest.json"}),
        ("", "copy_style='none'", {"app/t.json", "app/image-with-code"}),
        ("code=True", "copy_style='none'", {"app/t.json"}),
        ("code=True", "copy_style='auto'", {"app/t.json", "app/t.tar.gz", "app/t.manifest.json"}),
    ],
)
def test_packaging_a_task_writes_the_image_that_nothing_else_writes(
    root, image_fields, task_fields, artifacts
):
    root.write(app(image_fields, task_fields, source="import app.lib\n"))
    packaged = root.package("app:t")
    tops = {
        path if path.count("/") == 1 else path[: path.index("/", 4)] for path in packaged.artifacts
    }
    assert tops == artifacts
    linked = packaged.link.built_image
    with_code = "none" in task_fields
    built = root.built_image("app:image", True if with_code else None)
    assert (
        linked.digest
        == built.image_digest
        == root.image("app:image", True if with_code else None).digest
    )
    assert (linked.address, linked.layout) == ("app:image", built.layout)
    assert built.embeds_code == bool(image_fields or with_code)
    assert (linked.workdir, packaged.link.image) == ("/home/flyte/task", None)


def test_code_is_placed_below_the_root_dir(root: RuleRoot):
    root.options("--source-root-patterns=['src']")
    files = {path.replace("app/", "src/app/"): data for path, data in app(source="").items()}
    root.write({**files, "src/app/lib.py": ""})
    for field, paths in (
        ("", {"app/w.py"}),
        ("root_dir='.'", {"src/app/w.py"}),
        ("root_dir='src/app'", {"w.py"}),
    ):
        root.write({"src/app/BUILD": f"""
            python_sources()
            flyte_image(name="image", base="//img:base", dependencies=["./w.py"], code=True, {field})
            """})  # fmt: skip
        assert set(root.image("src/app:image").below(WORK)) == paths


def test_data_and_init_files_that_the_graph_reaches_come_along(root: RuleRoot):
    root.write(
        {
            **app("code=True", source=""),
            "app/__init__.py": "",
            "app/rides.csv": "1,2",
            "app/run.sh": "#!/bin/sh",
            "app/BUILD": """
                python_sources(dependencies=[":data"])
                resources(name="data", sources=["*.csv", "*.sh"])
                flyte_image(name="image", base="img:base", dependencies=["./w.py"], code=True)
                """,
        }
    )
    root.make_executable("app/run.sh")
    tree = root.image("app:image").tree
    found = {path: member.mode for path, member in tree.items() if path.startswith(f"{WORK}/app/")}
    assert found == {
        f"{WORK}/app/__init__.py": 0o644,
        f"{WORK}/app/rides.csv": 0o644,
        f"{WORK}/app/run.sh": 0o755,
        f"{WORK}/app/w.py": 0o644,
    }


def test_the_modules_are_told_by_which_an_image_is_tried(root: RuleRoot):
    root.write(app("code=True", source="import app.lib\n"))
    assert root.built_image("app:image").modules == ("app.lib", "app.w")


# --- settings -------------------------------------------------------------------------------------


def test_a_container_starts_as_the_user_in_the_working_directory_through_the_shim(root: RuleRoot):
    root.write(image())
    layout = root.image("app:image")
    config = layout.config
    assert config["User"] == "1000:1000"
    assert config["WorkingDir"] == "/home/flyte/task"
    assert config["Entrypoint"] == ["flyte-shim", "--"]
    assert "Cmd" not in config
    assert layout.env["HOME"] == "/home/flyte"
    assert layout.env["PATH"] == "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"
    assert layout.env["PYTHON_VERSION"] == "3.12.7"
    assert config["Labels"] == {"org.opencontainers.image.title": "app:image"}
    annotations = layout.manifest()["annotations"]
    assert annotations == {
        "org.opencontainers.image.title": "app:image",
        "org.opencontainers.image.base.name": "docker.io/library/python:3.12-slim",
        "org.opencontainers.image.base.digest": base_image().digest,
    }


def test_fields_and_options_set_what_they_are_called(root: RuleRoot):
    image_options(
        root,
        "--flyte-image-labels={'team': 'a', 'repo': 'r'}",
        env={"TEST_COMMIT": "abc", "TEST_LEVEL": "3={env.X}"},
    )
    root.write(
        image(
            """
            env={"LEVEL": "{env.TEST_LEVEL}", "BOTH": "{env.TEST_COMMIT}-{env.TEST_LEVEL}", "PLAIN": "{x}"},
            labels={"team": "b", "rev": "{env.TEST_COMMIT}"}, user="7", workdir="/srv/app",
            """
        )
    )
    layout = root.image("app:image")
    assert (layout.config["User"], layout.config["WorkingDir"]) == ("7", "/srv/app")
    assert layout.tree["srv/app"] == Member("directory", 0o755, (7, 7), "")
    env = layout.env
    # What the variable holds is not looked into.
    assert (env["LEVEL"], env["BOTH"], env["PLAIN"]) == ("3={env.X}", "abc-3={env.X}", "{x}")
    labels = {"team": "b", "repo": "r", "rev": "abc", "org.opencontainers.image.title": "app:image"}
    assert layout.config["Labels"] == labels
    assert labels.items() <= layout.manifest()["annotations"].items()


@pytest.mark.parametrize(
    "workdir", ["/home/flyte/task", "/home/flyte", "/srv/app", "/home/flyte/a/b"]
)
def test_home_and_working_directory_are_the_users_wherever_they_are(root: RuleRoot, workdir):
    root.write(image(f"workdir={workdir!r}"))
    layout = root.image("app:image")
    for path in (layout.env["HOME"], workdir):
        assert layout.tree[path[1:]] == Member("directory", 0o755, USER, "")


@pytest.mark.parametrize("order", ["'A': '1', 'B': '2'", "'B': '2', 'A': '1'"])
def test_the_order_of_variables_in_a_build_file_is_no_matter(root: RuleRoot, order):
    root.write(image(f"env={{{order}}}"))
    assert [v for v in root.image("app:image").config["Env"] if v in ("A=1", "B=2")] == [
        "A=1",
        "B=2",
    ]


# --- platforms ------------------------------------------------------------------------------------

TWO = base_image(base_platform("linux/amd64"), base_platform("linux/arm64"))
TWO_PLATFORMS = {
    "img/BUILD": str(BASE["img/BUILD"]).replace('"linux/amd64"', '"linux/amd64", "linux/arm64"'),
    "img/base.lock.json": TWO.to_json(),
}


def test_several_platforms_make_an_index_with_the_packages_of_each(root: RuleRoot):
    root.write(image("dependencies=['3rdparty:d', '3rdparty:b']"))
    root.write(TWO_PLATFORMS)
    layout = root.image("app:image")
    assert layout.top["mediaType"] == OCI_INDEX
    assert layout.platforms == ["linux/amd64", "linux/arm64"]
    for platform in ("linux/amd64", "linux/arm64"):
        assert packages(layout, platform) == {"pftest_b-1.0", "pftest_d-1.0"}
        assert layout.image_config(platform)["architecture"] == platform[6:]
        found = [
            layer.files[f"{SITE}/pftest_d.py"]
            for layer in layout.layers(platform)
            if f"{SITE}/pftest_d.py" in layer.files
        ]
        assert found == [platform[6:]]
    assert root.built_image("app:image").platforms == ("linux/amd64", "linux/arm64")


def test_one_of_the_bases_platforms_makes_a_manifest(root: RuleRoot):
    root.write(image("dependencies=['3rdparty:d'], platforms=['linux/arm64']"))
    root.write(TWO_PLATFORMS)
    layout = root.image("app:image")
    assert layout.image_config()["architecture"] == "arm64"
    assert layout.tree[f"{SITE}/pftest_d.py"].content == "arm64"


def test_a_platform_that_the_base_no_longer_names_is_left_out(root: RuleRoot):
    root.write(image("dependencies=['3rdparty:d']"))
    root.write({"img/base.lock.json": TWO.to_json()})
    assert root.built_image("app:image").platforms == ("linux/amd64",)


def test_a_path_of_the_users_own_keeps_the_commands(root: RuleRoot):
    root.write(image("env={'PATH': '/x'}"))
    assert "PATH=/opt/venv/bin:/x" in root.image("app:image").image_config()["config"]["Env"]


# --- the artifact ---------------------------------------------------------------------------------


def test_the_output_path_is_the_layouts_directory(root: RuleRoot):
    root.write(image("output_path='images/mine'"))
    packaged = root.package("app:image")
    assert json.loads(packaged.artifacts["images/mine/oci-layout"]) == {
        "imageLayoutVersion": "1.0.0"
    }
    assert Layout.of(packaged.artifacts, "images/mine").digest == root.image("app:image").digest


# --- what the task needs --------------------------------------------------------------------------


@pytest.mark.parametrize("image_is_for_the_task", [True, False])
def test_packages_that_the_task_reaches_and_its_image_lacks_are_told(
    root: RuleRoot, caplog, image_is_for_the_task
):
    root.write(app())
    if not image_is_for_the_task:
        root.edit("app/BUILD", 'dependencies=[":t"]', "dependencies=[]")
    root.package("app:t")
    warnings = [record.getMessage() for record in caplog.records]
    assert bool(warnings) != image_is_for_the_task
    for warning in warnings:
        assert "app:t: its image app:image is not made for pftest-a" in warning


def test_what_starts_apps_is_ours_in_the_place_of_flytes(root: RuleRoot):
    root.write(app())
    tree = root.image("app:image").tree
    assert "from flyte_shim.fserve import main" in tree["opt/venv/bin/fserve"].content
    assert "from flyte._bin.serve import main" in tree["opt/venv/bin/fserve-of-flyte"].content
    assert tree["opt/venv/bin/fserve"].mode == tree["opt/venv/bin/fserve-of-flyte"].mode == 0o755
