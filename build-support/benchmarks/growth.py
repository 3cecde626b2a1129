"""How `./pants package` of one task grows with the repository around it, when its own closure does
not.

Makes two build roots, of 2,000 and of 10,000 modules, in each a task that reaches 100 of them;
edits one line of a module that the task reaches, and times the whole command, daemon warm. Beside
it, in the same run: `./pants --version`, and `package` when nothing has changed. Prints medians and
ratios.

  python3 build-support/benchmarks/growth.py [--runs 5] [--modules 2000 10000]

With `--lost-imports`: what `[flyte].infer_lost_imports` costs where nothing is lost, for the larger
number of modules: `dependencies ::` on a cold graph (no daemon) and warm, with and without.

  python3 build-support/benchmarks/growth.py --lost-imports [--runs 3]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.build_root import BuildRoot

PER_PACKAGE = 50
REACHED = 100


def populate(root: BuildRoot, modules: int) -> None:
    """Packages of 50 modules; each module imports its neighbour, but for the last that a task
    reaches.
    """
    names = [(f"pkg{n // PER_PACKAGE:04}", f"mod{n:05}") for n in range(modules)]
    files = {
        "app/BUILD": 'python_sources(name="lib")\nflyte_task(name="task", entry_point="job.py:main")\n',
        "app/job.py": (
            "import flyte\n"
            f"from {names[0][0]}.{names[0][1]} import value\n"
            'env = flyte.TaskEnvironment(name="growth")\n'
            "@env.task\ndef main() -> int:\n    return value(1)\n"
        ),
    }
    for n, (package, module) in enumerate(names):
        files[f"{package}/BUILD"] = "python_sources()\n"
        follows = n + 1 < len(names) and (n + 1) % REACHED
        head = f"from {'.'.join(names[n + 1])} import value as other\n" if follows else ""
        body = "other(x) + 1" if follows else "x"
        files[f"{package}/{module}.py"] = head + f"def value(x: int) -> int:\n    return {body}\n"
    root.write(files)


def timed(root: BuildRoot, *command: str) -> float:
    start = time.perf_counter()
    root.pants(*command)
    return time.perf_counter() - start


def measure(modules: int, runs: int, scratch: Path) -> dict[str, float]:
    root = BuildRoot.create(scratch / str(modules), ["/"])
    populate(root, modules)
    try:
        root.pants("package", "app:task")
        edited = root.path / "pkg0000" / "mod00007.py"
        times: dict[str, list[float]] = {"version": [], "nothing changed": [], "one line": []}
        for run in range(runs):
            times["version"].append(timed(root, "--version"))
            times["nothing changed"].append(timed(root, "package", "app:task"))
            edited.write_text(f"{edited.read_text()}# {run}\n")
            times["one line"].append(timed(root, "package", "app:task"))
    finally:
        root.stop()
    return {name: statistics.median(measured) for name, measured in times.items()}


def lost_imports(modules: int, runs: int, scratch: Path) -> None:
    """Prints medians, wall and CPU, and ratios.

    The two take turns, so that both meet the same weather.
    """
    root = BuildRoot.create(scratch / str(modules), ["/"])
    populate(root, modules)
    options = {"without": "--no-flyte-infer-lost-imports", "with": "--flyte-infer-lost-imports"}
    try:
        for title, daemon in (("cold graph", "--no-pantsd"), ("warm", "--pantsd")):
            wall: dict[str, list[float]] = {name: [] for name in options}
            cpu: dict[str, list[float]] = {name: [] for name in options}
            if title == "cold graph":  # the files are to be in the local store for both
                root.pants(daemon, options["without"], "dependencies", "::")
            for _ in range(runs):
                for name, option in options.items():
                    command = (daemon, option, "dependencies", "::")
                    if title == "warm":  # another option's value is another graph
                        root.pants(*command)
                    before = _cpu()
                    wall[name].append(timed(root, *command))
                    cpu[name].append(_cpu() - before)
            for what, times in (("wall", wall), ("CPU", cpu)):
                without, used = (statistics.median(times[name]) for name in options)
                ratio = f"{used / without:>8.3f}"
                print(f"{title:12}{what:6}{without:>10.2f}{used:>10.2f}{ratio}", times, flush=True)
    finally:
        root.stop()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--modules", type=int, nargs=2, default=[2000, 10000])
    parser.add_argument("--lost-imports", action="store_true")
    options = parser.parse_args()
    if options.lost_imports:
        with tempfile.TemporaryDirectory() as scratch:
            lost_imports(options.modules[1], options.runs, Path(scratch))
        return
    with tempfile.TemporaryDirectory() as scratch:
        small, large = (measure(n, options.runs, Path(scratch)) for n in options.modules)
    print(f"medians of {options.runs}, seconds; {REACHED} modules in the closure, warm daemon")
    print(f"{'':18}{options.modules[0]:>10}{options.modules[1]:>10}{'ratio':>8}")
    for name in small:
        ratio = large[name] / small[name]
        print(f"{name:18}{small[name]:>10.2f}{large[name]:>10.2f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
