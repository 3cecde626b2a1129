"""Processes that have imported Flyte and wait for the next deployment: the real program, Flyte and
control plane, below a process that has the name of Pants' daemon.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.control_plane import control_plane
from tests.support.deploying import SOURCE_ROOT, Done
from tests.support.registering import Registering, body, versions
from tests.support.standing_by import Daemon, sockets, until, waiting


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("plane"), "--project", "flytesnacks") as plane:
        yield plane


PLAN = {"standby": True}
TYPED = ("--no-image-check", "--output", "json")


def run(daemon: Daemon, root: Registering, *typed: str, **environ: str) -> Done:
    words = [sys.executable, "-B", "-m", "flyte_pack", *root.arguments(*typed, plan=PLAN)]
    given = {"PYTHONPATH": SOURCE_ROOT, "HOME": str(root.root), "FLYTE_API_KEY": ""}
    return daemon.run(words, root.root, **{**given, "XDG_CACHE_HOME": str(root.cache), **environ})


@pytest.fixture
def root(tmp_path, plane):
    root = Registering(tmp_path / "repo", plane)
    root.package("train", body("train"))
    # Short, as the path of a socket has to be.
    root.cache = Path(tempfile.mkdtemp(dir="/tmp"))
    yield root
    until(lambda: not waiting(root.cache))
    shutil.rmtree(root.cache)


@pytest.fixture
def daemon():
    daemon = Daemon()
    yield daemon
    daemon.end()


def ready(root: Registering) -> dict[str, int]:
    """Wait for two, until they can be taken: their numbers by role."""
    until(lambda: len(sockets(root.cache)) == 2)
    return {role: number for number, role in waiting(root.cache).items()}


def test_the_next_deployment_takes_those_that_wait_and_registers_the_same(root, daemon, plane):
    run(daemon, root, *TYPED).ok()
    first = ready(root)
    assert set(first) == {"client", "describe"}
    more = f"""
import os, sys
open({str(root.root / "seen")!r}, "w").write(
    f"{{os.getpid()}} {{sys.argv[1:]}} {{os.environ.get('PYTHONHASHSEED')}} {{'KEY' in os.environ}}"
)
"""
    root.package("train", body("train", 2) + more)
    second = run(daemon, root, *TYPED, KEY="x").ok()
    assert (root.root / "seen").read_text() == f"{first['describe']} ['describe'] None False"
    assert set(versions(second.json).items()) <= {
        (task["name"], task["version"]) for task in plane.state()["tasks"]
    }
    third = ready(root)
    assert set(third.values()).isdisjoint(first.values())
    # The same, by new processes.
    root.package("train", body("train", 1))
    run(daemon, root, *TYPED).ok()
    for process in waiting(root.cache):
        os.kill(process, signal.SIGKILL)
    root.package("train", body("train", 2) + more)
    again = run(daemon, root, *TYPED).ok()
    [(name, version)] = versions(second.json).items()
    assert versions(again.json) == {name: f"{version}.again2"}


def test_what_waits_ends_with_the_daemon(root, daemon):
    run(daemon, root, *TYPED).ok()
    ready(root)
    daemon.end()
    until(lambda: not waiting(root.cache))
    assert not sockets(root.cache)


def test_without_a_daemon_or_where_it_is_not_wanted_nothing_waits(root, daemon, monkeypatch):
    with monkeypatch.context() as unwanted:
        unwanted.setitem(PLAN, "standby", False)
        run(daemon, root, *TYPED).ok()
    other = Daemon("sh")
    root.package("train", body("train", 2))
    run(other, root, *TYPED).ok()
    other.end()
    assert not waiting(root.cache)
    assert not [*(root.cache / "pants-flyte").glob("standby/*")]


def test_what_waits_has_no_credential_and_the_programs_sources(root, daemon):
    run(daemon, root, *TYPED, DB_TOKEN="hidden-1", FLYTE_SECRET="hidden-2", LC_ALL="C.UTF-8").ok()
    for process in ready(root).values():
        environ = Path(f"/proc/{process}/environ").read_bytes()
        assert b"LC_ALL=C.UTF-8" in environ
        assert b"hidden" not in environ
    [kept] = (root.cache / "pants-flyte/standby").glob("sources-*")
    for path in Path(SOURCE_ROOT, "flyte_pack/flyte_side").glob("*.py"):
        assert (kept / "flyte_pack/flyte_side" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("change", ["packages", "variable", "locale"])
def test_one_that_was_started_otherwise_is_not_taken(root, daemon, change):
    run(daemon, root, *TYPED).ok()
    first = ready(root)
    seen = root.root / "seen"
    told = f"import os\nopen({str(seen)!r}, 'w').write(str(os.getpid()))\n"
    root.package("train", body("train", 2) + told)
    environ = {}
    if change == "packages":
        program = root.dist / "python"
        program.write_text(f"{program.read_text()}# of other packages\n")
    elif change == "variable":
        environ["FLYTE_LOG"] = "x"  # which the client may read as it starts
    else:
        environ["LC_ALL"] = "C.UTF-8"
    run(daemon, root, *TYPED, **environ).ok()
    taken = int(seen.read_text()) == first["describe"]
    assert taken == (change == "variable")  # no task module sees it
    assert first["client"] in waiting(root.cache)


def test_a_module_that_ends_what_had_waited_is_named(root, daemon):
    run(daemon, root, *TYPED).ok()
    ready(root)
    root.package("train", "import os\nos._exit(3)\n")
    done = run(daemon, root, *TYPED)
    done.failed(1, "services/ml/train.py: importing it ended the process. What it printed is above")


def test_a_signal_ends_what_was_taken(root, daemon):
    run(daemon, root, *TYPED).ok()
    pid = root.root / "pid"
    ready(root)
    root.package(
        "train",
        f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)\n",
    )
    words = root.arguments(*TYPED, plan=PLAN)
    program = subprocess.Popen(
        [sys.executable, "-B", "-m", "flyte_pack", *words],
        cwd=root.root,
        env={
            **os.environ,
            "PYTHONPATH": SOURCE_ROOT,
            "HOME": str(root.root),
            "XDG_CACHE_HOME": str(root.cache),
            "FLYTE_API_KEY": "",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: pid.exists() and pid.read_text())
    program.send_signal(signal.SIGTERM)
    program.wait()
    until(lambda: not Path(f"/proc/{pid.read_text()}").exists())
