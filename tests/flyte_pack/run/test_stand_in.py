"""A process that has imported Flyte runs the task: as a new one would, seen from outside and inside.

The real program and Flyte, below a process that has the name of Pants' daemon.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyte_pack.flyte_side.standby import HANDOVER_SECONDS
from tests.support.deploying import Done
from tests.support.local_runs import FILES, Machine, of_task, result
from tests.support.standing_by import Daemon, sockets, until, waiting
from tests.support.task_bundle import PackagedTask, package_task

MORE = """


    @env.task
    def tells_of_itself() -> list[str]:
        import signal

        return [
            str(os.getpid()), os.getcwd(), *sys.argv, *map(repr, (sys.stdin, sys.stdout, sys.stderr)),
            str(sys.stdout.buffer), str(sys.stdout.line_buffering), sys.stdout.errors,
            oct(os.umask(0o22)), str(signal.getsignal(signal.SIGTERM)), str(os.isatty(1)),
            str(sys.flags), sys.executable, *sys.path,
        ]


    @env.task
    def has(name: str) -> str:
        return os.environ.get(name, "nothing")


    @env.task
    def ends(how: str) -> int:
        sys.stdout.write("half a line")
        if how == "raise":
            raise ValueError(how)
        if how == "at once":
            os._exit(9)
        os.kill(os.getpid(), getattr(__import__("signal"), how))
        return 0


    @env.task
    def keeps_children(seconds: int) -> int:
        child = subprocess.Popen(["sleep", str(seconds)])
        Path(os.environ["READY"]).write_text(f"{os.getpid()} {child.pid}")
        return child.wait()


    SEEN: list[int] = []
    for number in (10, 28):  # SIGUSR1, SIGWINCH
        __import__("signal").signal(number, lambda number, _: SEEN.append(number))


    @env.task
    def minds_signals() -> list[int]:
        import time

        Path(os.environ["READY"]).touch()
        while len(SEEN) < 2:
            time.sleep(0.05)
        return SEEN
"""


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> PackagedTask:
    path = "services/ml/workflows.py"
    files = {**FILES, path: FILES[path] + MORE}
    return package_task(tmp_path_factory.mktemp("packaged"), files, f"{path}:leaf")


class Site:
    """A machine below whose daemon a process stands by, once one task has run there."""

    def __init__(self, path: Path, daemon: Daemon, packaged: PackagedTask) -> None:
        self.machine = Machine(path, "--standby")
        # Short, as the path of a socket has to be.
        self.cache = Path(tempfile.mkdtemp(dir="/tmp"))
        self.machine.env["XDG_CACHE_HOME"] = str(self.cache)
        self.daemon, self._packaged = daemon, packaged

    def task(self, name: str) -> PackagedTask:
        return of_task(self._packaged, name)

    def run(self, name: str, *arguments: str, **env: str) -> Done:
        """Below the daemon."""
        settings = [f"{name}={value}" for name, value in {**self.machine.env, **env}.items()]
        words = [*settings, *self.machine.command(self.task(name), *arguments)]
        return self.daemon.run(["env", "-i", *map(str, words)], self.machine.root)

    def stands_by(self, **env: str) -> int:
        """Have one ready; the number of the process that will run a task."""
        if not waiting(self.cache):
            self.run("leaf", "--n", "1", **env)
        until(lambda: len(sockets(self.cache)) == 1)
        return max(waiting(self.cache))  # the child of the other one

    def started(self, name: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """By nobody's daemon, once one stands by, which it takes."""
        self.stands_by(**env)
        process = self.machine.start(self.task(name), *arguments, **env)
        until(lambda: not sockets(self.cache))
        return process


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.end()


@pytest.fixture
def site(tmp_path: Path, daemon: Daemon, packaged: PackagedTask) -> Iterator[Site]:
    site = Site(tmp_path, daemon, packaged)
    yield site
    for process in waiting(site.cache):
        os.kill(process, signal.SIGKILL)
    until(lambda: not waiting(site.cache))
    site.machine.wait_until_tidy()
    shutil.rmtree(site.cache)


def test_a_task_finds_what_it_finds_in_a_new_process(site: Site) -> None:
    def told() -> list[str]:
        done = site.run("tells_of_itself").ok()
        found = result(done.out).replace(str(site.machine.tmp), "")
        # Each run has its own directory, and where the program lies depends on who started it.
        return re.sub(r"/flyte-run-\w+|'[^']*/flyte_side/__main__.py'", "", found).split(", ")

    new = told()
    process = site.stands_by()
    process_of_new, *others = told()
    assert process_of_new == f"['{process}'"
    assert others == new[1:]


@pytest.mark.parametrize(
    ("task", "arguments", "found"),
    [
        ("spawns_workers", [], "[2, 4]"),
        ("runs_a_module_in_a_process", [], '"worked\n"'),
        ("writes_where_it_likes", [], "['x', 'x']"),
        ("async_parent", ["--n", "2"], "[1, 2]"),
    ],
)
def test_a_task_runs(site: Site, task: str, arguments: list[str], found: str) -> None:
    process = site.stands_by()
    done = site.run(task, *arguments).ok()
    assert result(done.out) == found
    assert process not in waiting(site.cache)


def test_it_has_the_variables_of_this_run_and_had_no_credential_before(site: Site) -> None:
    secrets = {"DB_TOKEN": "hidden-1", "DATABASE": "postgres://me:hidden-2@host/db"}
    process = site.stands_by(**secrets, PANTSD_AT="1", OF_THE_USER="1")
    environ = Path(f"/proc/{process}/environ").read_bytes()
    assert b"OF_THE_USER=1" in environ
    assert b"hidden" not in environ
    now = {"DB_TOKEN": "new", "DATABASE": "postgres://me:new@host/db", "PANTSD_AT": "2"}
    for name, value in now.items():
        process = site.stands_by(**now, OF_THE_USER="1")
        assert (
            result(site.run("has", "--name", name, **now, OF_THE_USER="1").ok().out) == f'"{value}"'
        )
        assert process not in waiting(site.cache)
    # A variable that something may have read as it was imported.
    process = site.stands_by(**now, OF_THE_USER="1")
    assert (
        result(site.run("has", "--name", "OF_THE_USER", **now, OF_THE_USER="2").ok().out) == '"2"'
    )
    assert process in waiting(site.cache)


@pytest.mark.parametrize(
    ("how", "code"),
    [("raise", 1), ("at once", 9), ("SIGSEGV", -signal.SIGSEGV), ("SIGKILL", -signal.SIGKILL)],
)
def test_it_ends_as_the_task_ends(site: Site, how: str, code: int) -> None:
    with site.started("ends", "--how", how) as process:
        out, err = process.communicate()
    assert process.returncode == code, err
    assert "half a line" in out


def test_help_and_errors_are_the_same(site: Site) -> None:
    for task, *arguments in (["leaf", "--help"], ["leaf", "--nosuch"], ["fails", "--message", "x"]):
        said = []
        for stands_by in (False, True):
            if stands_by:
                process = site.stands_by()
            else:
                for waits in waiting(site.cache):
                    os.kill(waits, signal.SIGKILL)
                until(lambda: not waiting(site.cache))
            done = site.run(task, *arguments)
            said.append((done.code, *map(_without_times, (done.out, done.err))))
        assert process not in waiting(site.cache)
        assert said[0] == said[1]


def _without_times(text: str) -> str:
    varying = r"\d\d:\d\d:\d\d\.\d+|\[[\w-]{20,}\]|[0-9a-f]{8}-[0-9a-f-]{27}|/\S*/(sources|flyte-run|src)\S*"
    lines = [line for line in text.splitlines() if not line.startswith(" " * 20)]
    return " ".join(re.sub(varying, "", "\n".join(lines)).split())


def test_input_and_output_are_the_users(site: Site) -> None:
    with site.started("talks") as process:
        assert process.stdout
        assert process.stdout.readline() == "what is your name?\n"
        out, err = process.communicate("Ada\n")
    assert process.returncode == 0, err
    assert "hello Ada" in out


def test_a_terminal_is_one_for_the_task(site: Site) -> None:
    def shown(task: str, *arguments: str) -> str:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            site.machine.command(site.task(task), *arguments),
            cwd=site.machine.root, env=site.machine.env, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        read = b""
        while chunk := _read(ours):
            read += chunk
        os.close(ours)
        assert process.wait() == 0
        return read.decode()

    site.machine.env["TERM"] = "xterm-256color"
    new = shown("leaf", "--n", "4")
    assert "\x1b[" in new
    site.stands_by()
    assert _without_times(shown("leaf", "--n", "4")) == _without_times(new)
    assert not sockets(site.cache)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux, once nobody has the other end
        return b""


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, 1), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_signal_ends_the_task_and_what_it_started(
    site: Site, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    ready = tmp_path / "ready"
    with site.started("keeps_children", "--seconds", "600", READY=str(ready)) as process:
        until(lambda: ready.exists() and len(ready.read_text().split()) == 2)
        assert any(site.machine.tmp.glob("flyte-run-*"))
        process.send_signal(sent)
        process.communicate()
    assert process.returncode == code
    for number in ready.read_text().split():
        until(lambda number=number: not Path("/proc", number).exists())


def test_a_task_gets_the_signals_that_it_minds(site: Site, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with site.started("minds_signals", READY=str(ready)) as process:
        until(ready.exists)
        for number in (signal.SIGUSR1, signal.SIGWINCH):
            process.send_signal(number)
            time.sleep(0.2)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert result(out) == "[10, 28]"


def test_where_what_watches_the_task_is_killed_the_task_ends_and_it_is_told(
    site: Site, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    with site.started("keeps_children", "--seconds", "600", READY=str(ready)) as process:
        until(lambda: ready.exists() and len(ready.read_text().split()) == 2)
        task, child = ready.read_text().split()
        parent = int(Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        _, err = process.communicate()
    assert process.returncode == 1
    assert "the process that ran the task is gone" in err
    for number in (task, child):
        until(lambda number=number: not Path("/proc", number).exists())


def test_one_that_has_waited_for_long_is_taken_and_for_one_that_is_gone_another_starts(
    site: Site,
) -> None:
    first = site.stands_by()
    time.sleep(HANDOVER_SECONDS + 1)
    assert f"['{first}'" in result(site.run("tells_of_itself").ok().out)
    os.kill(site.stands_by(), signal.SIGKILL)
    assert result(site.run("leaf", "--n", "2").ok().out) == "4"


def test_two_that_start_at_once_run_both(site: Site) -> None:
    with site.started("leaf", "--n", "1") as one:
        with site.machine.start(site.task("leaf"), "--n", "2") as two:
            assert result(two.communicate()[0]) == "4"
        assert result(one.communicate()[0]) == "2"


def test_what_stands_by_ends_with_the_daemon_and_where_it_is_not_wanted_nothing_does(
    site: Site, daemon: Daemon, tmp_path: Path
) -> None:
    site.stands_by()
    daemon.end()
    until(lambda: not waiting(site.cache))
    assert not sockets(site.cache)
    other = tmp_path / "other"
    other.mkdir()
    machine = Machine(other)
    machine.env["XDG_CACHE_HOME"] = str(site.cache)
    assert machine.result(site.task("leaf"), "--n", "1") == "2"
    assert not waiting(site.cache)
