"""What no-op deployments and runs cost the daemon of Pants, in CPU and memory.

Makes a repository of --modules files with a task that reaches 100 of them, packages the task, then,
each many times in a row and under one daemon:

* package: of the task, with nothing changed. All else is told as a ratio to it.
* deploy: `run app:deploy`, which has nothing to do.
* deploy, other words: the same, followed by `-- --dry-run` each second time.
* run: the task in this machine's Python, with another argument each time.

  python3 build-support/benchmarks/daemon.py [--runs 20] [--modules 7000] [--beside CHECKOUT ...]

`--beside` measures other checkouts of this repository in the same run, one after the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from growth import populate

from tests.support.build_root import CHECKOUT, BuildRoot

TICKS = os.sysconf("SC_CLK_TCK")
DEPLOYMENT = 'flyte_deployment(name="deploy", tasks=[":task"])\n'
TASK = "@env.task\ndef main(n: int = 1) -> int:\n    return value(n)\n"


class Daemon:
    """That of a build root, once it has been started."""

    def __init__(self, root: BuildRoot) -> None:
        (pid,) = root.path.glob(".pids/*/pantsd/pid")
        self._proc = Path("/proc", pid.read_text().strip())

    def cpu(self) -> float:
        """Seconds of its own, without the processes that it has started."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """GiB that it has in memory."""
        (line,) = (x for x in (self._proc / "status").read_text().splitlines() if "VmRSS" in x)
        return int(line.split()[1]) / 1024**2


def commands(run: int) -> dict[str, tuple[str, ...]]:
    """What is measured, as it is typed the `run`-th time."""
    words = ("--", "--dry-run") if run % 2 else ()
    return {
        "package": ("package", "app:task"),
        "deploy": ("run", "app:deploy"),
        "deploy, other words": ("run", "app:deploy", *words),
        "run": ("run", "app:task", "--", "--n", str(run)),
    }


def measure(checkout: Path, modules: int, runs: int, scratch: Path) -> None:
    root = BuildRoot.create(scratch, ["/"])
    toml = scratch / "pants.toml"
    toml.write_text(toml.read_text().replace(str(CHECKOUT), str(checkout)))
    populate(root, modules)
    build, job = scratch / "app" / "BUILD", scratch / "app" / "job.py"
    build.write_text(build.read_text() + DEPLOYMENT)
    job.write_text(job.read_text().partition("@env.task")[0] + TASK)
    base = 0.0
    try:
        for name in commands(0):
            cpu, memory = many(root, name, runs)
            base = base or statistics.median(cpu)
            told(name, cpu, base, memory)
    finally:
        root.stop()


def many(root: BuildRoot, name: str, runs: int) -> tuple[list[float], list[float]]:
    root.pants(*commands(0)[name])  # the first time has something to do
    daemon = Daemon(root)
    cpu, memory = [], []
    for run in range(runs):
        before = daemon.cpu()
        root.pants(*commands(run)[name])
        cpu.append(daemon.cpu() - before)
        memory.append(daemon.memory())
    return cpu, memory


def told(name: str, cpu: list[float], base: float, memory: list[float]) -> None:
    median = statistics.median(cpu)
    fifth = memory[min(4, len(memory) - 1)]
    print(
        f"  {name:20}{median:>8.2f}{max(cpu):>8.2f}{median / base:>8.2f}"
        f"{fifth:>8.2f}{memory[-1]:>8.2f}{memory[-1] / fifth:>8.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--modules", type=int, default=7000)
    parser.add_argument("--beside", type=Path, nargs="*", default=[], metavar="CHECKOUT")
    options = parser.parse_args()
    print(f"{options.modules:,} modules, {options.runs} runs; load {os.getloadavg()[0]:.1f}")
    print(f"  {'':20}{'CPU, s':>8}{'most':>8}{'ratio':>8}{'5th, GiB':>8}{'last':>8}{'ratio':>8}")
    for checkout in (CHECKOUT, *(path.resolve() for path in options.beside)):
        print(f"{checkout.name}:")
        with tempfile.TemporaryDirectory() as scratch:
            measure(checkout, options.modules, options.runs, Path(scratch))
    print(f"load at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
