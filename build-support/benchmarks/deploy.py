"""Measures deploying: a deployment with nothing to do, from an edit to registered and to running,
and starts of containers.

    python build-support/benchmarks/deploy.py [--turns 10] [--bulk 2000] [--only NAME...] [--size SIZE...]
    python build-support/benchmarks/deploy.py --quick

--size small: the example monorepo in a clone, SeaweedFS, a registry, a control plane and a docker engine of its
own. It takes being root, pytest, what src/python/flyte_pack/flyte-deploy.lock pins, and Debian's
packages docker.io and docker-registry.

* nothing: `./pants run services:live@domain=staging` with nothing to do, daemon warm, next to `./pants --version` and to a
  `flyte deploy` with nothing to do; and what they ask of the servers.
* edit: one line of a library is edited. registered: until the deploy command has ended, ours and `flyte deploy --all
  --recursive services`, which uploads to the same store, through the data proxy of the same control plane. running: until
  a container has completed `services/ml:fit` of it, too: ours by the shim, Flyte's by its own download. Both of the same image, which the engine has.
* start: from `docker run` to the first line of the task, of one deployment of ours, small and with --bulk more files: with
  the shim or with the stock download, the bundle in a cache (for the stock download: a working directory) on the host, or not.

--size 1000, 5000: a generated repository of 2,000 or 10,000 modules, with a task that reaches 1,000 or 5,000; a store and a control plane.
"nothing" and "edit" until registered, next to `flyte deploy` in each of its copy styles.

At the end come the rows for the table at the top of docs/benchmarks.md. --quick: 3 turns of "nothing" and "edit" with the example and with a
closure of 100 in 200, to see that all works.

All contenders in turns. Figures are medians; ratios are medians of the ratios within a turn, which
other load on the machine harms less.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src/python"), str(ROOT)]

from deploy_closure import Closure, closure  # noqa: E402
from deploy_contenders import OURS, PEER, Containers, Ours, Peer, Site, Start, site  # noqa: E402

NAMES = ("nothing", "edit", "start")
# What a task reaches, and the modules of the repository, by what is typed.
CLOSURES = {"100": (100, 200), "1000": (1000, 2000), "5000": (5000, 10000)}
SIZES = ("small", *CLOSURES)
STYLES = ("all", "loaded_modules")
DEFAULT = "flyte deploy, loaded_modules"
VERSION = "flyte --version"
Turn = dict[str, float]
SETTLE_SECONDS = 30.0
CALM = 3  # seconds: longer than what waits before it gets ready


def timed(work: Callable[[], object]) -> float:
    """Of what starts on a machine that has nothing else to do: a deployment leaves processes that get
    ready for the next one while a person edits.
    """
    settle()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def settle() -> None:
    """Wait until processors have been idle for a while, at most for half a minute."""
    deadline = time.monotonic() + SETTLE_SECONDS
    calm = 0
    while calm < CALM and time.monotonic() < deadline:
        before = idle()
        time.sleep(1)
        ticks = os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
        calm = calm + 1 if idle() - before > 0.9 * ticks else 0


def idle() -> int:
    """Ticks that all processors together had nothing to do (proc_stat(5))."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[4]) + int(fields[5])


def measure_nothing(ours: Ours, peer: Peer, turns: int) -> list[Turn]:
    contenders: dict[str, Callable[[], object]] = {
        "./pants --version": ours.version,
        VERSION: peer.version,
        "./pants run": ours.deploy,
        "flyte deploy": peer.deploy,
    }
    for work in contenders.values():
        work()
    if "Nothing to do" not in ours.deploy():
        raise SystemExit("there is something to deploy")
    return [{name: timed(work) for name, work in contenders.items()} for _ in range(turns)]


def measure_edit(
    site: Site, ours: Ours, peer: Peer, containers: Containers, turns: int
) -> tuple[list[Turn], list[Turn]]:
    """Until registered, and until a container has completed the task; the first turn, which warms
    caches up, is not counted.
    """
    registered, running = [], []
    for _ in range(turns + 1):
        deployed: Turn = {"./pants --version": timed(ours.version)}
        completed: Turn = {}
        site.edit()
        deployed[DEFAULT] = timed(dataclasses.replace(peer, style="loaded_modules").deploy)
        for name, deploy, domain in (
            ("./pants run", ours.deploy, OURS),
            ("flyte deploy", peer.deploy, PEER),
        ):
            site.edit()
            deployed[name] = timed(deploy)
            start = containers.run(site.task(domain), stock=domain == PEER)
            completed[name] = deployed[name] + start.end
        registered.append(deployed)
        running.append(completed)
    return registered[1:], running[1:]


def measure_start(site: Site, containers: Containers, turns: int) -> dict[str, list[Start]]:
    """Of what we have deployed last."""
    task = site.task(OURS)
    cache = open_directory(Path(tempfile.mkdtemp(dir=site.scratch)))
    work = open_directory(Path(tempfile.mkdtemp(dir=site.scratch)))
    mounted = ("--volume", f"{cache}:/cache", "--env", "FLYTE_SHIM_CACHE=/cache")
    there = ("--volume", f"{work}:/there", "--workdir", "/there")
    contenders: dict[str, Callable[[], Start]] = {
        "imports alone": containers.imports,
        "stock": lambda: containers.run(task, stock=True),
        "stock, there already": lambda: containers.run(task, *there, stock=True),
        "shim": lambda: containers.run(task),
        "shim, cached": lambda: containers.run(task, *mounted),
    }
    found: dict[str, list[Start]] = {name: [] for name in contenders}
    for _ in range(turns + 1):
        for name, start in contenders.items():
            found[name].append(start())
    return {name: starts[1:] for name, starts in found.items()}


def measure_closure(site: Closure, what: str, turns: int) -> list[Turn]:
    """Until deployed, with nothing to do or after an edit; the first turn is not counted."""
    contenders: dict[str, Callable[[], object]] = {
        "./pants --version": site.version,
        "./pants run": site.ours,
        **{f"flyte deploy, {style}": lambda style=style: site.peer(style) for style in STYLES},
    }
    found = []
    for _ in range(turns + 1):
        turn: Turn = {}
        for name, work in contenders.items():
            if what == "edit":
                site.edit()
            turn[name] = timed(work)
        found.append(turn)
    return found[1:]


def open_directory(path: Path) -> Path:
    path.chmod(0o1777)  # with the sticky bit, without which the shim uses no such cache
    return path


# --- the report ------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    sys.stdout.flush()


def print_turns(what: str, turns: Sequence[Turn], base: str) -> None:
    rows = []
    for name in turns[0]:
        values = [turn[name] for turn in turns]
        ratio = statistics.median(turn[name] / turn[base] for turn in turns)
        rows.append(
            [
                name,
                f"{statistics.median(values):.2f} s",
                f"{min(values):.2f} to {max(values):.2f} s",
                f"{ratio:.2f}",
            ]
        )
    table([f"{what}, p50 of {len(turns)}", "time", "all", f"of {base}"], rows)


Row = tuple[str, str, str, str]


def row(
    what: str, turns: Sequence[Turn], peer: str = "flyte deploy", ours: str = "./pants run"
) -> Row:
    """Of the table at the top of docs/benchmarks.md."""
    mine, its = (statistics.median(turn[name] for turn in turns) for name in (ours, peer))
    ratio = statistics.median(turn[ours] / turn[peer] for turn in turns)
    return what, f"{mine:.2f} s", f"{its:.2f} s", f"**{ratio:.2f}**"


def print_starts(what: str, found: dict[str, list[Start]]) -> None:
    rows = []
    for name, starts in found.items():
        first = statistics.median(start.first_line for start in starts)
        ratio = statistics.median(
            one.first_line / peer.first_line for one, peer in zip(starts, found["stock"])
        )
        beyond = statistics.median(
            one.first_line - bare.first_line for one, bare in zip(starts, found["imports alone"])
        )
        shim = statistics.median(start.shim for start in starts)
        share = statistics.median(start.shim / start.first_line for start in starts)
        rows.append(
            [
                *(name, f"{first:.3f} s", f"{ratio:.2f}", f"{beyond:+.3f} s"),
                f"{shim * 1e3:.1f} ms, {share:.1%}" if shim else "",
            ]
        )
    count = len(found["stock"])
    table(
        [f"{what}, p50 of {count}", "first line", "of stock", "beyond imports", "shim's share"],
        rows,
    )


def print_load(when: str) -> None:
    print(
        f"\n{when}: load {os.getloadavg()[0]:.1f} (1 min), {os.getloadavg()[1]:.1f} (5 min), {os.cpu_count()} cores"
    )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--bulk", type=int, default=2000, help="files of the large bundle; 0: none")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["small"], metavar="SIZE")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.turns, options.only, options.size = 3, ["nothing", "edit"], ["small", "100"]
    rows: list[Row] = []
    for size in options.size:
        with tempfile.TemporaryDirectory(prefix="deploy-") as scratch:
            if size == "small":
                with site(Path(scratch)) as example:
                    rows += compare(example, options.only, options.turns, options.bulk)
            else:
                reached, modules = CLOSURES[size]
                with closure(Path(scratch), modules, reached) as generated:
                    rows += compare_closure(generated, options.only, options.turns)
    print("\nFor docs/benchmarks.md:")
    table(["what you do", "ours", "Flyte's own", "ratio"], rows)


def compare_closure(site: Closure, only: Sequence[str], turns: int) -> list[Row]:
    print(f"\n{site.reached:,} of {site.modules:,} modules; first: {timed(site.ours):.1f} s")
    print_load("before")
    rows = []
    for what, told in (("nothing", "deploy, nothing to do"), ("edit", "edit a line → registered")):
        if what in only:
            measured = measure_closure(site, what, turns)
            print_turns(f"{told}; {site.reached:,} of {site.modules:,}", measured, "./pants run")
            peers = [f"flyte deploy, {style}" for style in STYLES]
            best = min(peers, key=lambda peer: statistics.median(turn[peer] for turn in measured))
            where = f"{told}: a task of {site.reached:,} modules, of {site.modules:,}"
            rows.append(row(where, measured, best))
            print_load("then")
    return rows


def compare(site: Site, only: Sequence[str], turns: int, bulk: int) -> list[Row]:
    rows: list[Row] = []
    ours = Ours(site)
    print(f"first deployment: {timed(ours.deploy):.1f} s")
    image = ours.image()
    peer = Peer(site, image)
    containers = Containers.of(site, image)
    print_load("before")
    if "nothing" in only:
        nothing = measure_nothing(ours, peer, turns)
        print_turns("nothing to do", nothing, "./pants --version")
        rows.append(row("start the program (`--version`)", nothing, VERSION, "./pants --version"))
        rows.append(row("deploy, nothing to do: the example", nothing))
        asked = {
            "./pants run, nothing to do": ours.counted(),
            "flyte deploy, nothing to do": peer.counted(),
        }
        site.edit()
        asked["./pants run, after an edit"] = ours.counted()
        asked["flyte deploy, after an edit"] = peer.counted()
        servers = ("S3", "registry", "control plane")
        table(
            ["requests", *servers],
            [[name, *(counts.get(one, "") for one in servers)] for name, counts in asked.items()],
        )
        print_load("then")
    if "edit" in only:
        registered, running = measure_edit(site, ours, peer, containers, turns)
        print_turns("edit -> registered", registered, "./pants run")
        print_turns("edit -> running", running, "./pants run")
        rows.append(row("edit a line → registered: the example", registered))
        rows.append(row("edit a line → a container has completed the task", running))
        print_load("then")
    if "start" in only:
        print_starts("start", measure_start(site, containers, turns))
        print_load("then")
        if bulk:
            ours.deploy_bulk(bulk)
            print_starts(f"start, {bulk:,} files more", measure_start(site, containers, turns))
            print_load("then")
    return rows


if __name__ == "__main__":
    main()
