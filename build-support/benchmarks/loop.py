"""From an edit to a finished local run: `./pants run path:task`, against `flyte run --local`.

A leaf task, and a library of which one line is edited before each run; both on the same machine, the
same CPython, packages of the same lock, in turns. Medians, and medians of the ratios within a turn,
which other load on the machine harms less.

  python3 build-support/benchmarks/loop.py [--turns 10]

* `./pants run`: typed anew each time, daemon warm. It packs the bundle, unpacks it and runs it.
  Between a run and the next edit lie a few seconds, as a person needs them: by then a process stands
  by that has imported Flyte. With `--hurried` they do not, and each run imports it.
* `./pants --loop run`: waits for the edit in a process that was started before.
* `flyte run --local`: imports the file where it lies.

Takes what pytest takes for the tests of this repository, and a package index for the first time.
"""

from __future__ import annotations

import argparse
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src/python"), str(ROOT)]

from tests.support.build_root import EXAMPLE, BuildRoot, build_root, clean_environment  # noqa: E402
from tests.support.flyte_env import environment  # noqa: E402

JOB = """
import flyte

from libs.calc import twice

env = flyte.TaskEnvironment(name="loop")

@env.task
def main(n: int) -> str:
    return f"<{twice(n)}>"
"""
BUILD = 'python_sources(name="lib")\nflyte_task(name="task", entry_point="job.py:main")\n'
OURS, LOOP, PEER, VERSION = (
    "./pants run app:task",
    "./pants --loop run app:task",
    "flyte run --local app/job.py main",
    "./pants --version",
)


class Site:
    """A build root with the task, and the ways to run it."""

    def __init__(self, root: BuildRoot, python: Path, home: Path) -> None:
        self.root = root
        self._flyte = str(python.parent / "flyte")
        self._home = home
        self._factor = 2

    def edit(self) -> str:
        """Change one line; returns what the task says then."""
        self._factor += 1
        self.root.write(
            {"libs/calc.py": f"def twice(n: int) -> int:\n    return {self._factor} * n\n"}
        )
        return f"<{self._factor}>"

    def ours(self) -> None:
        self._checked(self.root.pants("run", "app:task", "--", "--n", "1").stdout)

    def version(self) -> None:
        self.root.pants("--version")

    def peer(self) -> None:
        env = clean_environment(HOME=str(self._home), PYTHONPATH=".", DO_NOT_TRACK="1")
        done = subprocess.run(
            [self._flyte, "run", "--local", "app/job.py", "main", "--n", "1"],
            cwd=self.root.path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        self._checked(done.stdout, done.stderr)

    def _checked(self, out: str, err: str = "") -> None:
        if f"<{self._factor}>" not in out:
            raise SystemExit(f"it did not run what was edited:\n{out}{err}")


class Running:
    """A `./pants --loop`, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._seen = b""

    def until(self, word: str) -> None:
        assert self._process.stdout is not None
        while word.encode() not in self._seen:
            if not select.select([self._process.stdout], [], [], 120)[0]:
                raise SystemExit(f"the loop does not say {word}:\n{self._seen.decode()}")
            read = os.read(self._process.stdout.fileno(), 65536)
            if not read:
                raise SystemExit(f"the loop has ended:\n{self._seen.decode()}")
            self._seen += read


@contextmanager
def looping(site: Site) -> Iterator[Running]:
    process = subprocess.Popen(
        [ROOT / "pants", "--loop", "run", "app:task", "--", "--n", "1"], cwd=site.root.path,
        env={**clean_environment(), **site.root._env}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Running(process)
    finally:
        process.terminate()
        process.wait()


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(site: Site, turns: int, rest: float) -> list[dict[str, float]]:
    """Each turn, after one that warms up; the loop's turns come last, for it occupies the daemon."""
    found: list[dict[str, float]] = []
    for _ in range(turns + 1):
        time.sleep(rest)
        turn = {}
        for name, work in ((VERSION, site.version), (PEER, site.peer), (OURS, site.ours)):
            site.edit()
            turn[name] = timed(work)
        found.append(turn)
    with looping(site) as loop:
        loop.until(site.edit())
        for turn in found:
            time.sleep(max(rest, 2))  # the run before has come to its end
            start = time.perf_counter()
            loop.until(site.edit())
            turn[LOOP] = time.perf_counter() - start
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--hurried", action="store_true", help="edit as soon as a run has ended")
    given = parser.parse_args()
    turns, rest = given.turns, 0.0 if given.hurried else 4.0
    python = environment(EXAMPLE / "3rdparty/python/default.lock")
    told = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout
    version = ".".join(told.split()[1].split(".")[:2])
    env = {"PANTS_PYTHON_INTERPRETER_CONSTRAINTS": f"['CPython=={version}.*']"}
    with tempfile.TemporaryDirectory(prefix="loop-") as scratch:
        home = Path(scratch, "home")
        home.mkdir()
        with build_root(Path(scratch, "root"), ["/"], env=env) as root:
            root.write({"app/BUILD": BUILD, "app/job.py": JOB, "libs/BUILD": "python_sources()\n"})
            site = Site(root, python, home)
            site.edit()
            site.ours()
            print_load("before")
            report(measure(site, turns, rest))
            print_load("then")


def report(turns: list[dict[str, float]]) -> None:
    print(f"\n| edit -> local run finished, p50 of {len(turns)} | time | all | of `{PEER}` |")
    print("|---|---|---|---|")
    for name in (PEER, OURS, LOOP, VERSION):
        values = [turn[name] for turn in turns]
        ratio = statistics.median(turn[name] / turn[PEER] for turn in turns)
        spread = f"{min(values):.2f} to {max(values):.2f} s"
        print(f"| `{name}` | {statistics.median(values):.2f} s | {spread} | {ratio:.2f} |")
    print("\nFor docs/benchmarks.md:")
    print("\n| what you do | ours | Flyte's own | ratio |\n|---|---|---|---|")
    its = statistics.median(turn[PEER] for turn in turns)
    for name, what in ((OURS, "type a command"), (LOOP, "in `./pants --loop`")):
        mine = statistics.median(turn[name] for turn in turns)
        ratio = statistics.median(turn[name] / turn[PEER] for turn in turns)
        print(
            f"| edit a line → the task has run here ({what}) | {mine:.2f} s | {its:.2f} s | **{ratio:.2f}** |"
        )
    sys.stdout.flush()


def print_load(when: str) -> None:
    one, five, _ = os.getloadavg()
    print(
        f"\n{when}: load {one:.1f} (1 min), {five:.1f} (5 min), {os.cpu_count()} cores", flush=True
    )


if __name__ == "__main__":
    main()
