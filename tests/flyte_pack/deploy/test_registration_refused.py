"""Code that can't be registered is refused before the control plane hears of anything, in words that say what to do."""

from __future__ import annotations

import dataclasses
import os

import pytest

from flyte_pack.deploy.flyte_processes import RegistrationError
from flyte_pack.deploy.registration import ControlPlane
from tests.support.control_plane import IMAGE, code, control_plane, entry, registrar, unpacked

TASK = """
    env = flyte.TaskEnvironment(name="etl")

    @env.task
    def work() -> int:
        return 1
"""


def refused(tmp_path, files, *entries, **fields):
    """What is said; nothing of the temporary directory, no traceback, and no request."""
    root = unpacked(tmp_path / "code", files)
    with control_plane(tmp_path / "plane") as plane:
        with registrar(plane, **fields) as process, pytest.raises(RegistrationError) as caught:
            process.describe([code(root, *(entries or (entry("tasks.py:env"),)))])
        assert plane.state()["requests"] == {}
    said = str(caught.value)
    assert root not in said
    assert "Traceback" not in said
    return said


# What is in tasks.py (and libs/), and what is said of it.
IMPORTS = [
    (
        {"tasks.py": "import flyte\n\nimport libs.fetures\n", "libs/features.py": ""},
        "services/ml:train: tasks.py, line 3, imports libs.fetures, which is neither in the bundle nor among its packages. "
        "First-party code that is not inferred goes into `dependencies`, third-party code "
        "into the resolve's requirements",
    ),
    (
        {
            "tasks.py": "import flyte\nimport libs.a\n",
            "libs/a.py": "\nfrom libs import b\n",
            "libs/b.py": "import gone\n",
        },
        "libs/b.py, line 1, imports gone, which is neither in the bundle nor among its packages. "
        "(imported by libs/a.py, line 2) (imported by tasks.py, line 2)",
    ),
    (
        {"tasks.py": "import flyte\nfrom libs.a import gone\n", "libs/a.py": ""},
        "tasks.py, line 2: ImportError: cannot import name 'gone' from 'libs.a'",
    ),
    (
        {
            "tasks.py": "import flyte\nfrom libs import a\n",
            "libs/a.py": "import acme_lib\nX = ['dist/other-1.whl', 'dist/acme_lib-1.0-py3-none-any.whl']\n",
        },
        "libs/a.py, line 1, imports acme_lib, which its code means to install from the wheel "
        "dist/acme_lib-1.0-py3-none-any.whl. (imported by tasks.py, line 2) The resolve lacks acme-lib. Is it built from "
        "this repository? Then drop it from the Image, and add the targets of its sources to `dependencies`. Else add "
        "`acme-lib @ file:///...`",
    ),
    (
        {"tasks.py": "import flyte\n1 / 0\n"},
        "tasks.py, line 2: ZeroDivisionError: division by zero",
    ),
    (
        {"tasks.py": "import flyte\nimport libs.a\n", "libs/a.py": "\ndef broken(:\n"},
        "libs/a.py, line 2: SyntaxError: invalid syntax. (imported by tasks.py, line 2)",
    ),
    (
        {"tasks.py": "import flyte\nimport sys\nsys.exit(3)\n"},
        "tasks.py, line 3, ends the program (SystemExit: 3) when it is imported",
    ),
    (
        {"tasks.py": "import os\nos._exit(7)\n"},
        "services/ml:train: tasks.py: importing it ended the process with exit code 7",
    ),
    (
        {"tasks.py": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"},
        "services/ml:train: tasks.py: importing it ended the process with signal SIGSEGV",
    ),
    (
        {"tasks.py": "import flyte\nraise KeyboardInterrupt\n"},
        "tasks.py, line 2: KeyboardInterrupt",
    ),
    ({"tasks.py": "import flyte\n"}, "`env` in tasks.py is not there once the module is imported"),
    (
        {"tasks.py": "import flyte\nenv = 5\n"},
        "`env` in tasks.py is of type int once it is imported, and no environment. Name a function",
    ),
]

# What `thing` in tasks.py is, where the source did not show whether it is a task.
THINGS = [
    ("thing = 5", "`thing` in tasks.py is of type int once it is imported, and no task. Name a"),
    ("def thing(): ...", "is of type function once it is imported, and no task."),
    ("thing = None", "is not there once the module is imported. Bind it when"),
    ("thing = env", "is an environment once it is imported, which the source does not show."),
    (
        "import flyte.app\nthing = flyte.app.AppEnvironment(name='a', image='i:1')",
        "`thing` in tasks.py is an app environment once it is imported, and no task. Write a `flyte_app`",
    ),
    (
        "from flyte.extras import ContainerTask\n"
        "thing = ContainerTask(name='c', image='i:1', command=['x'])",
        "`thing` in tasks.py is a task without an environment. Write `env = flyte.TaskEnvironment.",
    ),
]


@pytest.mark.parametrize(("source", "said"), THINGS)
def test_what_turns_out_to_be_no_task_is_told_with_what_to_write(tmp_path, source, said):
    files = {"tasks.py": f"import flyte\nenv = flyte.TaskEnvironment('e', image='i:1')\n{source}\n"}
    assert said in refused(tmp_path, files, entry("tasks.py:thing", "task"))


def test_a_module_with_tasks_of_an_environment_is_imported_and_told(tmp_path):
    files = {"tasks.py": f"    import flyte\n{TASK}", "libs/more.py": "import nowhere\n"}
    one = dataclasses.replace(entry("tasks.py:env"), modules=("libs.more",))
    assert "libs/more.py, line 1, imports nowhere" in refused(tmp_path, files, one)


@pytest.mark.parametrize(("files", "said"), IMPORTS, ids=lambda value: None)
def test_a_broken_import_says_what_where_and_by_whom(tmp_path, files, said):
    assert said in refused(tmp_path, files)


def test_a_package_of_the_resolve_that_lacks_another_is_not_mistaken_for_first_party_code(tmp_path):
    files = {"tasks.py": "import flyte\nimport fsspec.implementations.sftp\n"}
    said = refused(tmp_path, files)
    assert (
        "tasks.py, line 2, imports a package that needs paramiko (fsspec/implementations/sftp.py"
        in said
    )
    assert "Add it to the requirements" in said


def test_an_endless_import_ends_where_it_hangs(tmp_path):
    files = {
        "tasks.py": "import libs.slow\n",
        "libs/slow.py": "import time\n\nwhile True:\n    time.sleep(1)\n",
    }
    said = refused(tmp_path, files, import_seconds=3.0)
    assert (
        "services/ml:train: tasks.py takes longer than 3 s to import. It is at libs/slow.py, line 4."
        in said
    )


def test_an_import_that_no_thread_interrupts_is_ended_from_outside(tmp_path, monkeypatch):
    monkeypatch.setattr("flyte_pack.deploy.registration._GRACE_SECONDS", 2.0)
    # A loop in C that keeps the interpreter's lock.
    files = {"tasks.py": "x = 2\nx **= 2 ** 31 - 1\n" + "sum(iter(int, 1))\n"}
    said = refused(tmp_path, files, import_seconds=1.0)
    assert "tasks.py" in said
    assert "time" in said


def test_every_bundle_that_is_broken_is_named(tmp_path):
    roots = [unpacked(tmp_path / name, {"tasks.py": f"import {name}_gone\n"}) for name in "ab"]
    entries = [entry("tasks.py:env", address=f"services:{name}") for name in "ab"]
    with registrar() as process, pytest.raises(RegistrationError) as caught:
        process.describe([code(root, one) for root, one in zip(roots, entries)])
    for name in "ab":
        assert f"services:{name}: tasks.py, line 1, imports {name}_gone" in str(caught.value)


def test_a_module_that_is_shadowed_by_the_standard_library(tmp_path):
    files = {"platform.py": "import flyte\n" + TASK.replace("\n    ", "\n")}
    said = refused(tmp_path, files, entry("platform.py:env"))
    assert "Python has another one of that name" in said
    assert "rename the file" in said


def test_one_environment_name_twice(tmp_path):
    twice = 'import flyte\nenv = flyte.TaskEnvironment(name="same")\n'
    said = refused(
        tmp_path,
        {"a.py": twice, "b.py": twice},
        entry("a.py:env"),
        entry("b.py:env", address="b:b"),
    )
    assert "same" in said
    assert "b:b" in said


def test_a_task_in_two_bundles(tmp_path):
    files = {"tasks.py": f"import flyte\n{TASK}".replace("\n    ", "\n")}
    roots = [unpacked(tmp_path / name, files) for name in "ab"]
    entries = [entry("tasks.py:env", address=f"services:{name}") for name in "ab"]
    with (
        registrar() as process,
        pytest.raises(RegistrationError, match="services:a and services:b both have the task"),
    ):
        process.describe([code(root, one) for root, one in zip(roots, entries)])


# --- images --------------------------------------------------------------------------------------

BUILT = 'flyte.Image.from_debian_base(registry="r", name="n").with_apt_packages("libgomp1")'


def images(own="", leaf="", depends=True):
    return {
        "tasks.py": f"""
            import flyte
            leaf = flyte.TaskEnvironment(name="leaf"{leaf and f", image={leaf}"})
            env = flyte.TaskEnvironment(name="etl"{own and f", image={own}"}{", depends_on=[leaf]" if depends else ""})
            @leaf.task
            def small() -> int:
                return 1
            @env.task
            def work() -> int:
                return 1
        """
    }


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("plane")) as running:
        yield running


def registered_images(plane, root, *entries, **fields):
    """By Flyte's name of the task: the image that the control plane has, and the address."""
    with registrar(plane, **fields) as process:
        told = {task.name: task for task in process.describe([code(root, *entries)]).tasks}
        list(process.register({task.name: task.spec for task in told.values()}))
    return {
        kept["name"]: (kept["image"], told[kept["name"]].address)
        for kept in plane.state()["tasks"]
        if kept["version"] == told[kept["name"]].spec
    }


@pytest.mark.parametrize(
    ("files", "linked", "given", "expected"),
    [
        (images(), IMAGE, {}, {"etl.work": IMAGE, "leaf.small": IMAGE}),
        (images(BUILT), IMAGE, {}, {"etl.work": IMAGE, "leaf.small": IMAGE}),
        (images(leaf='"r/leaf:1"'), IMAGE, {}, {"etl.work": IMAGE, "leaf.small": "r/leaf:1"}),
        (
            images(leaf='flyte.Image.from_base("r/leaf:1")'),
            IMAGE,
            {},
            {"etl.work": IMAGE, "leaf.small": "r/leaf:1"},
        ),
        (
            images(leaf='flyte.Image.from_ref_name("small")'),
            IMAGE,
            {"small": "r/s@sha256:" + "1" * 64},
            {"etl.work": IMAGE, "leaf.small": "r/s@sha256:" + "1" * 64},
        ),
        (images('"r/own:1"'), None, {}, {"etl.work": "r/own:1", "leaf.small": "r/own:1"}),
    ],
)
def test_each_environment_has_the_image_that_is_linked_or_one_that_needs_no_build(
    tmp_path, plane, files, linked, given, expected
):
    root = unpacked(tmp_path, files)
    assert registered_images(plane, root, entry("tasks.py:env", image=linked), images=given) == {
        name: (image, "services/ml:train") for name, image in expected.items()
    }


def test_an_environment_that_is_reached_has_the_image_of_its_own_entry(tmp_path, plane):
    root = unpacked(tmp_path, images(leaf=BUILT))
    other = IMAGE.replace("0", "2")
    entries = entry("tasks.py:env"), entry("tasks.py:leaf", image=other, address="services:leaf")
    assert registered_images(plane, root, *entries) == {
        "etl.work": (IMAGE, "services/ml:train"),
        "leaf.small": (other, "services:leaf"),
    }


@pytest.mark.parametrize(
    ("files", "linked", "said"),
    [
        (
            images(leaf=BUILT),
            IMAGE,
            "services/ml:train: environment leaf has an Image that Flyte would have to build, and nothing is built here. "
            "Write a flyte_task with the environment leaf as its entry_point and a flyte_image as its `image`, and add it "
            "to the deployment's `tasks`",
        ),
        (images(BUILT), None, "environment etl has an Image that Flyte would have to build"),
        (
            images('flyte.Image.from_ref_name("trainer")'),
            None,
            "environment etl uses the image name 'trainer', which is not mapped to an image. Map it: "
            "`images={'trainer': 'REFERENCE'}` on the deployment, `--image trainer=REFERENCE`, or `images:`",
        ),
    ],
)
def test_an_image_that_would_have_to_be_built(tmp_path, files, linked, said):
    assert said in refused(tmp_path, files, entry("tasks.py:env", image=linked))


def test_one_environment_with_two_images(tmp_path):
    entries = entry("tasks.py:env"), entry("tasks.py:work", "task", "r/x:2", "services:work")
    said = refused(tmp_path, images(), *entries)
    assert (
        "services:work: environment etl has another image there than in services/ml:train" in said
    )


def test_what_the_codes_image_asks_for_and_the_linked_one_may_lack_is_said(tmp_path):
    image = (
        'flyte.Image.from_debian_base(registry="r", name="n", python_version=(3, 10))'
        '.with_pip_packages("pandas>=2", "Click", "./dist/acme_lib-1.0-py3-none-any.whl", "dist/click-8-py3-none-any.whl")'
        '.with_pip_packages("x @ https://user:planted-value@h.test/x_y-2.tar.gz?a=b#c").with_apt_packages("libgomp1").with_commands(["make"])'
        '.with_env_vars({"TOKEN": "planted-value"}).with_workdir("/work-dir").with_requirements("r.txt")'
        '.with_source_folder("data", "/data").with_uv_project("pyproject.toml").with_uv_project("gone/pyproject.toml")'
    )
    files = {
        **images(image),
        "r.txt": "numpy==2\n# no\nrich\n",
        "pyproject.toml": '[project]\nname = "p"\ndependencies = ["polars[x]>=1", "click"]\n',
        "data/x": "",
    }
    root = unpacked(tmp_path, files)
    with registrar() as process:
        warnings = process.describe([code(root, entry("tasks.py:env"))]).warnings
    text = "\n".join(warnings)
    assert all(
        line.startswith("services/ml:train: environment etl: its Image ") for line in warnings
    )
    for said in (
        "wants Python 3.10",
        "pip packages that its resolve lacks: pandas>=2. Add them",
        "installs the file ./dist/acme_lib-1.0-py3-none-any.whl, and its resolve lacks acme-lib. Is it built from",
        "installs the file x_y-2.tar.gz, and its resolve lacks x-y. ",
        "apt packages libgomp1: add those that the base lacks to the linked image, apt_packages=",
        "commands (make): nothing runs them here",
        'environment variables TOKEN: set them in the linked image, env={"TOKEN": "..."}',
        "working directory /work-dir",
        "r.txt, and its resolve lacks numpy==2",
        "copies data to /data: use `source_folders` of the linked image",
        "declares pyproject.toml, and its resolve lacks polars[x]>=1. Add",
        "UVProject (gone/pyproject.toml)",
    ):
        assert said in text
    assert "click" not in text.lower(), "it is installed"
    assert "planted-value" not in text
    assert root not in text


# --- files that environments include -------------------------------------------------------------


def including(*names):
    return {
        "services/tasks.py": f"""
            import flyte
            env = flyte.TaskEnvironment(name="etl", include={names!r})
            @env.task
            def work() -> int:
                return 1
        """,
        "services/page.html": "",
        "services/data/a.csv": "",
        "services/data/deep/b.csv": "",
        "top.txt": "",
    }


@pytest.mark.parametrize("name", ["page.html", "data", "data/*.csv", "../top.txt"])
def test_included_files_are_found_as_flyte_finds_them(tmp_path, name):
    root = unpacked(tmp_path, including(name))
    with registrar() as process:
        (task,) = process.describe([code(root, entry("services/tasks.py:env"))]).tasks
    assert task.name == "etl.work"


@pytest.mark.parametrize("name", ["gone.html", "gone/*.csv", "../../outside.txt", "/etc/hostname"])
def test_an_included_file_that_the_bundle_lacks(tmp_path, name):
    (tmp_path / "outside.txt").touch()
    said = refused(tmp_path, including(name), entry("services/tasks.py:env"))
    assert f"services/ml:train: environment etl includes {name!r}, and the bundle has no" in said
    assert (
        "Add the target that owns it (files or resources) to `dependencies` of services/ml:train"
        in said
    )


# --- settings ------------------------------------------------------------------------------------


def test_there_has_to_be_an_endpoint_and_a_file_that_is_named():
    with (
        registrar(control_plane=ControlPlane()) as process,
        pytest.raises(RegistrationError, match="set `endpoint`"),
    ):
        process.describe([])
    gone = ControlPlane(config="/nowhere/config.yaml")
    with (
        registrar(control_plane=gone) as process,
        pytest.raises(RegistrationError, match=r"/nowhere/config.yaml.*flyte_config"),
    ):
        process.describe([])


def test_an_environment_without_flyte(tmp_path):
    import sys

    with (
        registrar(python=[sys.executable]) as process,
        pytest.raises(RegistrationError, match="no `flyte` among the requirements"),
    ):
        process.describe([code(unpacked(tmp_path))])


def test_an_interpreter_that_is_gone(tmp_path):
    with pytest.raises(RegistrationError, match="nowhere/python: No such file"):
        registrar(python=[os.path.join("/nowhere/python")]).__enter__()
