"""Processes that have imported Flyte and wait for the next deployment: the real program, Flyte and
control plane, below a process that has the name of Pants' daemon.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.control_plane import control_plane
from tests.support.deploying import SOURCE_ROOT, Done
from tests.support.registering import Registering, body, versions


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("plane"), "--project", "flytesnacks") as plane:
        yield plane


class Daemon:
    """A shell that has the name of Pants' daemon, and starts programs as that does."""

    def __init__(self, name: str = "pantsd [/repo]") -> None:
        loop = 'while read -r line; do eval "$line"; done'
        words = [name, "-c", loop]
        if name == "sh":  # nobody's child: Pants' daemon may have started these tests
            words = ["sh", "-c", 'exec 3<&0; sh -c "$1" <&3 3<&- &', "sh", loop]
        self._shell = subprocess.Popen(
            words, executable="/bin/sh", stdin=subprocess.PIPE, text=True
        )

    def run(self, root: Registering, *typed: str, **environ: str) -> Done:
        out, err, code = (root.root / name for name in ("out", "err", "code"))
        code.unlink(missing_ok=True)
        words = [sys.executable, "-B", "-m", "flyte_pack", *root.arguments(*typed, plan=PLAN)]
        given = {"PYTHONPATH": SOURCE_ROOT, "HOME": str(root.root), "FLYTE_API_KEY": ""}
        given = {**given, "XDG_CACHE_HOME": str(root.cache), **environ}
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
        line = f"{settings} {shlex.join(words)} >{shlex.quote(str(out))} 2>{shlex.quote(str(err))}"
        assert self._shell.stdin is not None
        self._shell.stdin.write(
            f"cd {shlex.quote(str(root.root))}; {line}; echo $? >code.new; mv code.new code\n"
        )
        self._shell.stdin.flush()
        until(code.exists)
        return Done(int(code.read_text()), out.read_text(), err.read_text())

    def end(self) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()


PLAN = {"standby": True}
TYPED = ("--no-image-check", "--output", "json")


@pytest.fixture
def root(tmp_path, plane):
    root = Registering(tmp_path / "repo", plane)
    root.package("train", body("train"))
    # Short, as the path of a socket has to be.
    root.cache = Path(tempfile.mkdtemp(dir="/tmp"))
    yield root
    until(lambda: not waiting(root))
    shutil.rmtree(root.cache)


@pytest.fixture
def daemon():
    daemon = Daemon()
    yield daemon
    daemon.end()


def until(true, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def waiting(root: Registering) -> dict[int, str]:
    """The processes that wait, or are about to: their roles by number."""
    found = {}
    for directory in Path("/proc").iterdir():
        try:
            words = (directory / "cmdline").read_bytes().decode().split("\0")
            stopped = ") Z " in (directory / "stat").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if "standby" in words and str(root.cache) in " ".join(words) and not stopped:
            found[int(directory.name)] = words[words.index("standby") + 1]
    return found


def ready(root: Registering) -> dict[str, int]:
    """Wait for two, until they can be taken: their numbers by role."""
    place = root.cache / "pants-flyte/standby"
    until(lambda: len([p for p in place.glob("*") if p.is_socket()]) == 2)
    return {role: number for number, role in waiting(root).items()}


def test_the_next_deployment_takes_those_that_wait_and_registers_the_same(root, daemon, plane):
    daemon.run(root, *TYPED).ok()
    first = ready(root)
    assert set(first) == {"client", "describe"}
    more = f"""
import os, sys
open({str(root.root / "seen")!r}, "w").write(
    f"{{os.getpid()}} {{sys.argv[1:]}} {{os.environ.get('PYTHONHASHSEED')}} {{'KEY' in os.environ}}"
)
"""
    root.package("train", body("train", 2) + more)
    second = daemon.run(root, *TYPED, KEY="x").ok()
    assert (root.root / "seen").read_text() == f"{first['describe']} ['describe'] None False"
    assert set(versions(second.json).items()) <= {
        (task["name"], task["version"]) for task in plane.state()["tasks"]
    }
    third = ready(root)
    assert set(third.values()).isdisjoint(first.values())
    # The same, by new processes.
    root.package("train", body("train", 1))
    daemon.run(root, *TYPED).ok()
    for process in waiting(root):
        os.kill(process, signal.SIGKILL)
    root.package("train", body("train", 2) + more)
    again = daemon.run(root, *TYPED).ok()
    [(name, version)] = versions(second.json).items()
    assert versions(again.json) == {name: f"{version}.again2"}


def test_what_waits_ends_with_the_daemon(root, daemon):
    daemon.run(root, *TYPED).ok()
    ready(root)
    daemon.end()
    until(lambda: not waiting(root))
    place = root.cache / "pants-flyte/standby"
    assert not [path for path in place.glob("*") if path.is_socket()]


def test_without_a_daemon_or_where_it_is_not_wanted_nothing_waits(root, daemon, monkeypatch):
    with monkeypatch.context() as unwanted:
        unwanted.setitem(PLAN, "standby", False)
        daemon.run(root, *TYPED).ok()
    other = Daemon("sh")
    root.package("train", body("train", 2))
    other.run(root, *TYPED).ok()
    other.end()
    assert not waiting(root)
    assert not [*(root.cache / "pants-flyte").glob("standby/*")]


def test_what_waits_has_no_credential_and_the_programs_sources(root, daemon):
    daemon.run(root, *TYPED, DB_TOKEN="hidden-1", FLYTE_SECRET="hidden-2", LC_ALL="C.UTF-8").ok()
    for process in ready(root).values():
        environ = Path(f"/proc/{process}/environ").read_bytes()
        assert b"LC_ALL=C.UTF-8" in environ
        assert b"hidden" not in environ
    [kept] = (root.cache / "pants-flyte/standby").glob("sources-*")
    for path in Path(SOURCE_ROOT, "flyte_pack/flyte_side").glob("*.py"):
        assert (kept / "flyte_pack/flyte_side" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("change", ["packages", "variable", "locale"])
def test_one_that_was_started_otherwise_is_not_taken(root, daemon, change):
    daemon.run(root, *TYPED).ok()
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
    daemon.run(root, *TYPED, **environ).ok()
    taken = int(seen.read_text()) == first["describe"]
    assert taken == (change == "variable")  # no task module sees it
    assert first["client"] in waiting(root)


def test_a_module_that_ends_what_had_waited_is_named(root, daemon):
    daemon.run(root, *TYPED).ok()
    ready(root)
    root.package("train", "import os\nos._exit(3)\n")
    done = daemon.run(root, *TYPED)
    done.failed(1, "services/ml/train.py: importing it ended the process. What it printed is above")


def test_a_signal_ends_what_was_taken(root, daemon):
    daemon.run(root, *TYPED).ok()
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
