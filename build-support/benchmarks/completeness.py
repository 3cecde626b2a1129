#!/usr/bin/env python3
"""What the checks of what ships add to packing 10,000 modules: `[flyte].missing` and `secrets` on,
against both on "ignore", in turns.

Cold: without a daemon, so that all is looked at anew; wall time, CPU and the most memory. Warm: the
daemon after a one-line edit; wall time, and the daemon's CPU. All are `./pants package` of one task that
reaches all modules, each time with another line in one of them, so that the bundle is packed anew. Prints
medians, and medians of the ratios and differences within a turn.

  python3 build-support/benchmarks/completeness.py [--runs 3] [--modules 10000]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src/python"), str(ROOT)]

from daemon import Daemon  # noqa: E402
from deploy_closure import PER_PACKAGE, populate  # noqa: E402

from tests.support.build_root import BuildRoot, build_root, clean_environment  # noqa: E402

TASK = "app:task"
OFF, NAMES, ALL = "nothing checked", "missing", "missing and secrets"
SETTINGS = {
    OFF: ("--flyte-missing=ignore", "--flyte-secrets=ignore"),
    NAMES: ("--flyte-missing=error", "--flyte-secrets=ignore"),
    ALL: ("--flyte-missing=error", "--flyte-secrets=error"),
}
Measured = dict[str, list[float]]


def edit(root: BuildRoot, modules: int) -> None:
    n = modules // 2
    with (root.path / f"pkg{n // PER_PACKAGE:04}" / f"mod{n:05}.py").open("a") as module:
        module.write(f"# {time.monotonic_ns()}\n")


def cold(root: BuildRoot, settings: tuple[str, ...]) -> tuple[float, float, float]:
    """Seconds, seconds of CPU, MiB."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [ROOT / "pants", "--no-pantsd", *settings, "package", TASK],
        cwd=root.path,
        env={**clean_environment(), **root._env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"package {settings} failed")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def warm(root: BuildRoot, daemon: Daemon, settings: tuple[str, ...]) -> tuple[float, float]:
    before, start = daemon.cpu(), time.perf_counter()
    root.pants(*settings, "package", TASK)
    return time.perf_counter() - start, daemon.cpu() - before


def table(title: str, found: dict[str, list[tuple[float, ...]]], columns: tuple[str, ...]) -> None:
    print(f"\n| {title} | " + " | ".join(f"{one} | ratio | more" for one in columns) + " |")
    print("|---" * (1 + 3 * len(columns)) + "|")
    for name, runs in found.items():
        row = [name]
        for n in range(len(columns)):
            mine, base = [run[n] for run in runs], [run[n] for run in found[OFF]]
            row += [
                f"{statistics.median(mine):.2f}",
                f"{statistics.median(a / b for a, b in zip(mine, base)):.2f}",
                f"{statistics.median(a - b for a, b in zip(mine, base)):+.2f}",
            ]
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--modules", type=int, default=10_000)
    options = parser.parse_args()
    env = {"PANTS_PANTSD_MAX_MEMORY_USAGE": "16GiB"}  # past it, the daemon starts anew
    with (
        tempfile.TemporaryDirectory() as scratch,
        build_root(Path(scratch, "root"), ["/"], env=env) as root,
    ):
        populate(root, options.modules, options.modules)
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in SETTINGS}
        for _ in range(options.runs + 1):
            for name, settings in SETTINGS.items():
                edit(root, options.modules)
                found[name].append(cold(root, settings))
        found = {name: runs[1:] for name, runs in found.items()}  # the first warms caches up
        table(f"cold, {options.modules:,} modules", found, ("wall, s", "CPU, s", "memory, MiB"))
        root.pants("--version")
        daemon = None
        found = {name: [] for name in SETTINGS}
        for name, settings in SETTINGS.items():
            root.pants(*settings, "package", TASK)  # another option's value is another graph
            daemon = daemon or Daemon(root)
            for _ in range(options.runs):
                edit(root, options.modules)
                time.sleep(0.5)  # the daemon hears of it
                found[name].append(warm(root, daemon, settings))
        table("warm, one line", found, ("wall, s", "CPU, s"))


if __name__ == "__main__":
    main()
