"""`./pants --loop run`: an edit runs the program again, an error does not end it, Ctrl-C does."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.build_root import CHECKOUT, BuildRoot, build_root, clean_environment

JOB = """
import os

import flyte

from libs.calc import twice

env = flyte.TaskEnvironment(name="loop")

@env.task
def main(n: int) -> str:
    print(f"RUNS as {os.getpid()}", flush=True)
    return f"<{twice(n)}>"
"""
BUILD = """
python_sources(name="lib")
flyte_task(name="task", entry_point="job.py:main")
flyte_deployment(name="deploy", tasks=[":task"])
"""
DOUBLES = "def twice(n: int) -> int:\n    return {} * n\n"
SLEEPS = "import time\n" + DOUBLES.format("time.sleep(600) or {}")
LIBRARY, UNRELATED = "libs/calc.py", "libs/unrelated.py"
# What moves and colours, and the progress that Pants shows while it waits.
UI = re.compile("\x1b\\[[0-9;?]*[A-Za-z]|\r|[\u2800-\u28ff][^\n]*|  +|\n(?=\\s*\n)")
OUTPUT = re.compile(r"<(\d+)>")


class Loop:
    """A `./pants --loop` that runs, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], out: int) -> None:
        self.process = process
        self._out, self._seen = out, b""

    @property
    def seen(self) -> str:
        return UI.sub("", self._seen.decode(errors="replace")).rstrip()

    def until(self, pattern: str, times: int = 1, seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while len(re.findall(pattern, self.seen)) < times:
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.seen}"
            assert self.read(0.2), f"it ended:\n{self.seen}"

    def read(self, seconds: float) -> bool:
        """Whether there may come more."""
        if select.select([self._out], [], [], seconds)[0]:
            try:
                read = os.read(self._out, 65536)
            except OSError:  # the other end of a terminal is closed
                return False
            self._seen += read
            return bool(read)
        return True

    def waits(self) -> None:
        """Until it has had nothing to say for a while, as it has when it waits for an edit.

        An edit within the moment in which Pants begins to wait is lost to it: nobody types so fast.
        """
        quiet, seen = time.monotonic(), self.seen
        deadline = quiet + 20
        while time.monotonic() < min(quiet + 3, deadline):
            self.read(0.2)
            if self.seen != seen:
                quiet, seen = time.monotonic(), self.seen

    def stays_silent(self, seconds: float) -> None:
        before = self.seen
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read(0.1)
        assert self.seen == before

    def ends(self) -> int:
        """Its exit code; it has a few seconds left."""
        deadline = time.monotonic() + 10
        while self.read(0.1) and time.monotonic() < deadline:
            pass
        return self.process.wait(timeout=10)

    def pids(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"RUNS as (\d+)", self.seen)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildRoot]:
    scratch = tmp_path_factory.mktemp("scratch")
    environ = {"TMPDIR": str(scratch), "TERM": "xterm"}
    with build_root(tmp_path_factory.mktemp("loop"), ["/"], env=environ) as made:
        made.write({"app/BUILD": BUILD, "app/job.py": JOB, "libs/BUILD": "python_sources()\n"})
        made.write({LIBRARY: DOUBLES.format(2), UNRELATED: "X = 1\n"})
        yield made
        # Whatever was interrupted has removed its files.
        assert list(scratch.glob("flyte-run-*")) == []


@contextmanager
def looping(root: BuildRoot, *command: str, terminal: bool) -> Iterator[Loop]:
    if terminal:
        out, inner = pty.openpty()
        given = inner
    else:
        out, inner = os.pipe()
        given = subprocess.DEVNULL
    process = subprocess.Popen(
        [CHECKOUT / "pants", "--loop", *command], cwd=root.path, stdin=given, stdout=inner,
        stderr=inner, env=clean_environment(**root._env), start_new_session=True,
        preexec_fn=(lambda: _take(inner)) if terminal else None,
    )  # fmt: skip
    os.close(inner)
    try:
        yield Loop(process, out)
    finally:
        process.kill()
        process.wait()
        os.close(out)


def _take(terminal: int) -> None:
    """Make it the terminal of this session, so that Ctrl-C is a signal."""
    os.close(os.open(os.ttyname(terminal), os.O_RDWR))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_task_runs_again_when_what_it_runs_is_edited(root: BuildRoot) -> None:
    with looping(root, "run", "app:task", "--", "--n", "1", terminal=True) as loop:
        loop.until("<2>")
        loop.waits()
        root.write({LIBRARY: DOUBLES.format(3)})
        loop.until("<3>")
        loop.waits()
        root.write({UNRELATED: "X = 2\n"})
        root.write({LIBRARY: DOUBLES.format(3)})  # saved without a change
        loop.stays_silent(4)

        root.write({LIBRARY: "def twice(n: int) -> int:\n    raise ValueError('broken')\n"})
        loop.until("broken")
        loop.waits()
        root.write({LIBRARY: "def twice(\n"})
        loop.until("SyntaxError")
        loop.waits()
        root.write({"app/BUILD": BUILD + "nonsense(\n"})
        loop.until(r"SyntaxError.*BUILD")
        loop.waits()
        root.write({"app/BUILD": BUILD, LIBRARY: DOUBLES.format(4)})
        loop.until("<4>")
        loop.waits()
        assert set(OUTPUT.findall(loop.seen)) == {"2", "3", "4"}

        # An edit while it runs: that run ends, and later edits count, too.
        root.write({LIBRARY: SLEEPS.format(5)})
        loop.until("RUNS as", len(loop.pids()) + 1)
        sleeper = loop.pids()[-1]
        root.write({UNRELATED: "X = 3\n"})
        loop.stays_silent(2)
        assert alive(sleeper)
        root.write({LIBRARY: DOUBLES.format(6)})
        loop.until("<6>")
        loop.waits()
        assert not alive(sleeper)
        root.write({LIBRARY: SLEEPS.format(7)})
        loop.until("RUNS as", len(loop.pids()) + 1)

        os.write(loop._out, b"\x03")
        assert loop.ends() != 0
        assert not any(map(alive, loop.pids()))
        assert "<5>" not in loop.seen


def test_nothing_runs_on_when_the_client_is_killed(root: BuildRoot) -> None:
    root.write({LIBRARY: SLEEPS.format(2)})
    for _ in range(2):  # what another loop has run is run again
        with looping(root, "run", "app:task", "--", "--n", "1", terminal=False) as loop:
            loop.until("RUNS as")
            loop.process.kill()
            deadline = time.monotonic() + 10
            while any(map(alive, loop.pids())):
                assert time.monotonic() < deadline
                time.sleep(0.1)


def test_a_deployment_goes_out_again_when_a_task_of_it_is_edited(root: BuildRoot) -> None:
    root.write({LIBRARY: DOUBLES.format(2)})
    with looping(root, "run", "app:deploy", terminal=False) as loop:
        loop.until(r"Deployed version \w+ \(history 1\)")
        loop.waits()
        root.write({LIBRARY: DOUBLES.format(3)})
        loop.until(r"Deployed version \w+ \(history 2,")
        loop.waits()

        root.write({"app/BUILD": BUILD + "nonsense(\n"})
        loop.until(r"SyntaxError.*BUILD")
        loop.waits()
        root.write({"app/BUILD": BUILD, LIBRARY: DOUBLES.format(4)})
        loop.until(r"Deployed version \w+ \(history 3,")
        loop.waits()

        loop.process.send_signal(signal.SIGINT)
        assert loop.ends() != 0
    assert root.pants("run", "app:deploy").stdout.count("Nothing to do") == 1
