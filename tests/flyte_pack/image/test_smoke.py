"""The smoke test tells every module that an image can't import, and why, and every command that is not there."""

from __future__ import annotations

import pytest

from tests.support.containers import need
from tests.support.images import image_on, layout_of, run_flyte_pack, tar_of

MODULES = {
    "good/__init__.py": "",
    "good/fine.py": "import json\nprint('noise on stdout')\n",
    "good/lazy.py": "def f():\n    import not_there\n",
    "bad_import.py": "import json\nimport good.deep\n",
    "good/deep.py": "\nimport not_there\n",
    "bad_syntax.py": "def f(:\n",
    "bad_name.py": "undefined\n",
    "exits.py": "import sys\nsys.exit(0)\n",
    "ends.py": "import os\nos._exit(0)\n",
    "crashes.py": "import ctypes\nctypes.string_at(0)\n",
    "network.py": "import socket\nsocket.create_connection(('192.0.2.1', 9), timeout=3)\n",
    "thread.py": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n",
    "writes.py": "open('/home/flyte/task/new', 'w').write('x')\n",
}


@pytest.fixture(scope="module")
def image(host_base, tmp_path_factory):
    """An image with that code in its working directory, and two console scripts."""

    def add(layer):
        layer.add_directory("home/flyte/task", owner=(1000, 1000))
        layer.add_directory("home/flyte/task/good")
        for path, text in MODULES.items():
            layer.add_bytes(f"home/flyte/task/{path}", text.encode())
        layer.add_bytes("usr/local/bin/a0", b"#!/usr/local/bin/python3\n", 0o755)
        layer.add_bytes("usr/local/bin/moved", b"#!/opt/gone/bin/python\n", 0o755)
        layer.add_bytes("usr/local/bin/plain", b"#!/bin/sh\n", 0o644)

    return image_on(host_base, tmp_path_factory.mktemp("smoke") / "image", add)


BUBBLEWRAP = {"PATH": "/usr/bin:/bin", "DOCKER_HOST": "unix:///nonexistent/docker.sock"}


@pytest.fixture(params=["unpack", "docker"])
def engine(request):
    """The environment in which it is found."""
    if request.param == "docker":
        return request.getfixturevalue("docker").environment
    need("bubblewrap")
    return BUBBLEWRAP


def smoke(image, tmp_path, modules, commands=(), engine=BUBBLEWRAP):
    (tmp_path / "modules.txt").write_text("".join(f"{module}\n" for module in modules))
    return run_flyte_pack(
        "flyte_pack.image.smoke",
        *("--layout", str(image), "--address", "services:image"),
        *("--modules", str(tmp_path / "modules.txt"), "--commands", *commands),
        env=engine,
    )


def test_a_good_image_passes(image, engine, tmp_path):
    modules = ["good", "good.fine", "good.lazy", "thread", "writes", "json", "sqlite3", "ssl"]
    done = smoke(image, tmp_path, modules, ["a0", "python3", "sh"], engine)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "services:image: 8 modules imported, 3 commands found, 0 failed\n"
    assert "noise on stdout" in done.stderr


def test_every_failure_is_told_with_where_it_came_from(image, engine, tmp_path):
    modules = ["bad_import", "bad_syntax", "good", "bad_name", "not.there", "exits", "network"]
    done = smoke(image, tmp_path, modules, engine=engine)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "FAILED bad_import: ModuleNotFoundError: No module named 'not_there'",
        "    /home/flyte/task/bad_import.py:2",
        "    /home/flyte/task/good/deep.py:2",
        "FAILED bad_syntax: SyntaxError: invalid syntax",
        "    /home/flyte/task/bad_syntax.py:1",
        "FAILED bad_name: NameError: name 'undefined' is not defined",
        "    /home/flyte/task/bad_name.py:1",
        "FAILED not.there: ModuleNotFoundError: No module named 'not'",
        "FAILED exits: SystemExit: 0",
        "    /home/flyte/task/exits.py:2",
        *[line for line in done.stdout.splitlines() if "Network is unreachable" in line],
        *[
            line
            for line in done.stdout.splitlines()
            if "socket.py" in line or "network.py:2" in line
        ],
        "services:image: 1 module imported, 0 commands found, 6 failed",
    ]
    assert "FAILED network: OSError: [Errno 101] Network is unreachable" in done.stdout


@pytest.mark.parametrize("module", ["ends", "crashes"])
def test_the_rest_goes_on_after_a_module_that_ends_the_interpreter(module, image, engine, tmp_path):
    done = smoke(image, tmp_path, ["good.fine", module, "json", "ends", "sqlite3"], ["a0"], engine)
    assert done.returncode == 1, done.stderr
    first, second, summary = done.stdout.splitlines()
    assert first.startswith(f"FAILED {module}: importing it ends the interpreter (")
    assert second == "FAILED ends: importing it ends the interpreter (exit code 0)"
    assert summary == "services:image: 3 modules imported, 1 command found, 2 failed"


def test_commands_must_be_there_to_be_run(image, engine, tmp_path):
    done = smoke(image, tmp_path, [], ["a0", "none", "moved", "plain"], engine)
    assert done.returncode == 1, done.stderr
    assert "FAILED none: no such command on PATH: " in done.stdout
    assert (
        "FAILED moved: /usr/local/bin/moved needs /opt/gone/bin/python, which is not there"
        in done.stdout
    )
    assert "FAILED plain: no such command on PATH: " in done.stdout
    assert done.stdout.endswith("services:image: 0 modules imported, 1 command found, 3 failed\n")


@pytest.mark.parametrize("name", ["a b", "a;b", "../x", "a.", "1a"])
def test_what_is_no_module_is_refused(name, image, tmp_path):
    done = smoke(image, tmp_path, [name])
    assert done.returncode == 1
    assert "is not a module's name" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_image_without_a_python_is_said_to_have_none(tmp_path):
    need("bubblewrap")
    done = smoke(layout_of(tmp_path / "layout", [tar_of(("etc", None))]), tmp_path, ["json"])
    assert done.returncode == 1
    assert "the image has no Python that could import anything" in done.stderr


@pytest.mark.parametrize(
    "said",
    [
        "[1]",
        "null",
        "not JSON",
        "[" * 2_000,
        '{"start": "another"}',
        '{"start": ["good.fine"]}',
        '{"module": "good.fine", "error": 1}',
        '{"module": {}}',
        '{"module": "good.fine", "error": "x", "chain": [1]}',
    ],
)
def test_an_image_whose_python_says_something_else_is_refused(said, host_base, tmp_path):
    need("bubblewrap")

    def add(layer):
        layer.add_bytes("said", f"{said}\n".encode())
        layer.add_bytes("opt/venv/bin/python", b"#!/bin/sh\ncat /said\n", 0o755)

    image = image_on(host_base, tmp_path / "image", add)
    done = smoke(image, tmp_path, ["good.fine"])
    assert done.returncode == 1
    assert "the image has no Python" in done.stderr or "is not a report" in done.stderr
    assert done.stdout == ""
