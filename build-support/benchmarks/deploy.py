"""Measures deploying: a deployment with nothing to do, from an edit to registered and to running,
and starts of containers.

    python build-support/benchmarks/deploy.py [--turns 10] [--bulk 2000] [--only NAME...]

The example monorepo in a clone, SeaweedFS, a registry, a control plane and a docker engine of its
own. It takes being root, pytest, what src/python/flyte_pack/flyte-deploy.lock pins, and Debian's
packages docker.io and docker-registry.

* nothing: `./pants run services:live@domain=staging` with nothing to do, daemon warm, next to `./pants --version` and to a
  `flyte deploy` with nothing to do; and what they ask of the servers.
* edit: one line of a library is edited. registered: until the deploy command has ended, ours and `flyte deploy --all
  --recursive services`, which uploads to the same store, through the data proxy of the same control plane. running: until
  a container has completed `services/ml:fit` of it, too: ours by the shim, Flyte's by its own download. Both of the same image, which the engine has.
* start: from `docker run` to the first line of the task, of one deployment of ours, small and with --bulk more files: with
  the shim or with the stock download, the bundle in a cache (for the stock download: a working directory) on the host, or not.

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

from deploy_contenders import OURS, PEER, Containers, Ours, Peer, Site, Start, site  # noqa: E402

NAMES = ("nothing", "edit", "start")
DEFAULT = "flyte deploy, loaded_modules"
Turn = dict[str, float]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_nothing(ours: Ours, peer: Peer, turns: int) -> list[Turn]:
    contenders: dict[str, Callable[[], object]] = {
        "./pants --version": ours.version,
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


def open_directory(path: Path) -> Path:
    path.chmod(0o777)
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
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="deploy-") as scratch,
        site(Path(scratch)) as example,
    ):
        compare(example, options.only, options.turns, options.bulk)


def compare(site: Site, only: Sequence[str], turns: int, bulk: int) -> None:
    ours = Ours(site)
    print(f"first deployment: {timed(ours.deploy):.1f} s")
    image = ours.image()
    peer = Peer(site, image)
    containers = Containers.of(site, image)
    print_load("before")
    if "nothing" in only:
        print_turns("nothing to do", measure_nothing(ours, peer, turns), "./pants --version")
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
        print_load("then")
    if "start" in only:
        print_starts("start", measure_start(site, containers, turns))
        print_load("then")
        if bulk:
            ours.deploy_bulk(bulk)
            print_starts(f"start, {bulk:,} files more", measure_start(site, containers, turns))
            print_load("then")


if __name__ == "__main__":
    main()
