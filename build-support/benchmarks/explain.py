#!/usr/bin/env python3
"""How quick `flyte-explain` is on a large bundle, daemon warm, against Pants' own graph goals.

Makes a build root with a task that reaches all of its --modules modules, and asks in turns, each
with nothing changed, then after a one-line edit. Beside them `./pants dependencies --transitive` of
the task, which lists the same targets and nothing of them: all else is told as a ratio to it. CPU is
that of the daemon.

  python3 build-support/benchmarks/explain.py [--runs 5] [--modules 10000]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src/python"), str(ROOT)]

from daemon import Daemon  # noqa: E402
from deploy_closure import PER_PACKAGE, populate  # noqa: E402

from tests.support.build_root import BuildRoot, build_root  # noqa: E402

TASK = "app:task"
PEER = "dependencies --transitive"
COMMANDS = {
    "--version": ("--version",),
    PEER: ("dependencies", "--transitive", TASK),
    "package": ("package", TASK),
    "text": ("flyte-explain", TASK),
    "--packed": ("flyte-explain", "--packed", TASK),
    "--why": ("flyte-explain", "--why=pkg0001/mod00077.py", TASK),
    "--why, not there": ("flyte-explain", "--why=alone/alone.py", TASK),
    "--diff=MANIFEST": ("flyte-explain", "--diff=dist/app/task.manifest.json", TASK),
    "--format=json": ("flyte-explain", "--format=json", TASK),
    "--format=html": ("flyte-explain", "--format=html", TASK),
}


def measure(root: BuildRoot, modules: int, runs: int) -> None:
    """Prints a table."""
    root.pants("package", TASK)  # starts the daemon, and writes the manifest
    daemon = Daemon(root)
    edited = root.path / f"pkg{modules // 2 // PER_PACKAGE:04}" / f"mod{modules // 2:05}.py"
    walls: dict[tuple[str, str], list[float]] = {}
    cpus: dict[tuple[str, str], list[float]] = {}
    for name, command in COMMANDS.items():
        ask(root, *command)
        for run in range(runs):
            for what in ("nothing changed", "one line"):
                if what == "one line":
                    with edited.open("a") as module:
                        module.write(f"# {name} {run}\n")
                    time.sleep(0.5)  # the daemon hears of it
                before, start = daemon.cpu(), time.perf_counter()
                ask(root, *command)
                walls.setdefault((name, what), []).append(time.perf_counter() - start)
                cpus.setdefault((name, what), []).append(daemon.cpu() - before)
    print(f"{modules:,} modules, medians of {runs}, seconds")
    print(f"{'':28}{'wall':>18}{'CPU':>8}{'ratio':>8}{'one line: wall':>18}{'CPU':>8}{'ratio':>8}")
    for name in COMMANDS:
        row = f"{name:28}"
        for what in ("nothing changed", "one line"):
            wall, base = (statistics.median(walls[one, what]) for one in (name, PEER))
            row += f"{wall:18.2f}{statistics.median(cpus[name, what]):8.2f}{wall / base:8.2f}"
        print(row)


def ask(root: BuildRoot, *command: str) -> None:
    done = root.pants(*command, check=False)
    if done.returncode and "alone" not in " ".join(command):
        sys.exit(f"{command} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--modules", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        env = {"PANTS_PANTSD_MAX_MEMORY_USAGE": "16GiB"}  # past it, the daemon starts anew
        with build_root(Path(scratch, "root"), ["/"], env=env) as root:
            populate(root, options.modules, options.modules)
            root.write({"alone/BUILD": "python_sources()\n", "alone/alone.py": "X = 1\n"})
            measure(root, options.modules, options.runs)


if __name__ == "__main__":
    main()
