"""Measures the shim: cold against `tar x` and the stock download of a0, warm against no shim at
all.

    python build-support/benchmarks/shim.py [--files 10000] [--runs 3] [--starts 40]
        [--places tmpfs disk s3] [--no-flyte]

One archive, made by our packer out of a tree like a company's monorepo, on tmpfs (/dev/shm) and on
disk (the directory for temporary files). Contenders run in processes of their own, in turns, on an
empty cache and an empty working directory, with the archive in the page cache:

* tar x + SHA-256: `sha256sum ARCHIVE && tar xzf ARCHIVE`; gzip runs beside tar, on a second core.
* shim: `python -m flyte_shim --archive ARCHIVE -- true`, the whole life of the process.
* stock: the time that flyte's own `download_bundle` takes, without the start of the interpreter and
  without importing Flyte. It checks no hash.

In the place `s3` the archive comes out of SeaweedFS, the cache and working directory are on tmpfs,
and there is no `tar` to compare with (AWS' own client takes longer to start than all of this).
Beside it stands what one GET costs as a whole process, by the shim's own code and by obstore.

Then a start whose entry is cached, in a new working directory and in the one of the last start,
next to `python -c pass`. Figures are medians; ratios are medians of the ratios within a turn, which
other load on the machine harms less; so does the time of processors, where gzip is not beside tar.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Callable, NamedTuple

from packing import make_plan, make_tree

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src/python")]

from flyte_shim.files import remove_tree  # noqa: E402
from flyte_shim.hashing import sha256_file  # noqa: E402
from flyte_shim.stores import locate  # noqa: E402
from tests.support.codec_envs import codec_for  # noqa: E402
from tests.support.flyte_env import flyte_python  # noqa: E402

STOCK = """
import asyncio, os, sys, time
import flyte.storage
from flyte._code_bundle import download_bundle
from flyte.models import CodeBundle
bundle = CodeBundle(tgz=sys.argv[1], destination=".", computed_version="v")
for _ in range(2):
    start, before = time.perf_counter(), sum(os.times()[:4])
    asyncio.run(download_bundle(bundle))
    print(time.perf_counter() - start, sum(os.times()[:4]) - before)
"""

GET_BY_SHIM = """
import os, sys
from flyte_shim.fetch import open_source
from flyte_shim.source import Patience
for chunk in open_source(sys.argv[1], Patience(), os.environ).read(0):
    pass
"""
GET_BY_OBSTORE = """
import sys
import obstore
from obstore.store import S3Store
store = S3Store(sys.argv[2], client_options={"allow_http": True})
for chunk in obstore.get(store, sys.argv[3]).stream(min_chunk_size=1 << 20):
    pass
"""


class Figure(NamedTuple):
    """Seconds on the clock, and of processors, those of child processes too."""

    wall: float
    cpu: float


class Bench:
    """One archive and one place for caches and working directories; commands run in `place`/work.

    `uri` is where the archive is fetched from, reached by `variables`.
    """

    def __init__(
        self,
        archive: Path,
        place: Path,
        bytecode: Path,
        uri: str | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.archive = archive
        self.uri = uri or archive.as_uri()
        self.is_local = uri is None
        self.work, self.cache = place / "work", place / "cache"
        self.env = {
            "PATH": os.defpath,
            "HOME": str(place),
            "FLYTE_SHIM_CACHE": str(self.cache),
            "PYTHONPATH": str(ROOT / "src/python"),
            "PYTHONPYCACHEPREFIX": str(bytecode),
            "DO_NOT_TRACK": "1",
            **variables,
        }

    def clean(self, *, cache: bool) -> None:
        for directory in (self.work, *([self.cache] if cache else [])):
            remove_tree(str(directory))
        self.work.mkdir()
        os.sync()

    def timed(self, *command: object) -> Figure:
        start = time.perf_counter()
        child = subprocess.Popen(list(map(str, command)), cwd=self.work, env=self.env)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0, command
        return Figure(time.perf_counter() - start, usage.ru_utime + usage.ru_stime)

    def tar(self) -> Figure:
        script = 'sha256sum "$0" >/dev/null && tar -xzf "$0"'
        return self.timed("sh", "-c", script, self.archive)

    def tar_alone(self) -> Figure:
        return self.timed("tar", "-xzf", self.archive)

    def shim(self, mode: str = "link") -> Figure:
        command = ["-m", "flyte_shim", "--archive", self.uri, "--mode", mode, "--", "true"]
        return self.timed(sys.executable, *command)

    def bare(self) -> Figure:
        return self.timed(sys.executable, "-c", "pass")

    def stock(self, python: Path) -> list[Figure]:
        """A first `download_bundle` and of one that finds the bundle there."""
        done = subprocess.run(
            [python, "-c", STOCK, self.uri],
            cwd=self.work,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        lines = done.stdout.decode().splitlines()
        return [Figure(*map(float, line.split())) for line in lines]


def gets(bench: Bench, python: Path, runs: int) -> None:
    """A whole process that gets the archive and does nothing with it."""
    location = locate(bench.uri)
    commands: dict[str, list[str]] = {
        "flyte_shim.s3": [GET_BY_SHIM, bench.uri],
        "obstore": [GET_BY_OBSTORE, bench.uri, location.bucket, location.key],
        "neither": ["pass"],
    }
    turns = [
        {name: bench.timed(python, "-c", *command).wall for name, command in commands.items()}
        for _ in range(runs + 1)
    ]
    for name in commands:
        value = statistics.median(turn[name] for turn in turns[1:]) * 1e3
        print(f"  GET, whole process: {name:14} {value:7.1f} ms")


def cold(bench: Bench, runs: int, python: Path | None) -> None:
    contenders: dict[str, Callable[[], Figure]] = {"shim": bench.shim}
    if bench.is_local:
        contenders = {
            "tar x + SHA-256": bench.tar,
            "tar x": bench.tar_alone,
            **contenders,
            "shim, --mode copy": lambda: bench.shim("copy"),
        }
    if python:
        contenders["stock a0 download"] = lambda: bench.stock(python)[0]
    turns = []
    for _ in range(runs + 1):
        figures = {}
        for name, contender in contenders.items():
            bench.clean(cache=True)
            figures[name] = contender()
        turns.append(figures)
    print(f"  {'':20} {'time':>9} {'CPU':>9}   shim / this: time   CPU")
    for name in contenders:
        figures = [turn[name] for turn in turns[1:]]
        shim = [turn["shim"] for turn in turns[1:]]
        ratios = [(a.wall / b.wall, a.cpu / b.cpu) for a, b in zip(shim, figures)]
        wall, cpu = (statistics.median(column) for column in zip(*figures))
        wall_ratio, cpu_ratio = (statistics.median(column) for column in zip(*ratios))
        print(f"  {name:20} {wall:7.3f} s {cpu:7.3f} s {wall_ratio:18.2f} {cpu_ratio:5.2f}")


def warm(bench: Bench, starts: int, python: Path | None) -> None:
    bench.clean(cache=True)
    bench.shim()
    turns = []
    for _ in range(starts + 1):
        bench.clean(cache=False)
        turns.append([figure.wall for figure in (bench.bare(), bench.shim(), bench.shim())])
    bare, fresh, same = (statistics.median(column) * 1e3 for column in zip(*turns[1:]))
    print(f"  python -c pass       {bare:7.1f} ms")
    for name, index, value in (("new working directory", 1, fresh), ("same directory", 2, same)):
        extra = statistics.median(turn[index] - turn[0] for turn in turns[1:]) * 1e3
        print(f"  shim, {name:22} {value:7.1f} ms   over a bare interpreter: {extra:5.1f} ms")
    if python:
        bench.clean(cache=False)
        print(f"  stock a0, same directory, no start {bench.stock(python)[1].wall * 1e3:7.1f} ms")
        print("  stock a0, new working directory: a cold download, as above")


def make_archive(files: int, directory: Path) -> Path:
    """An archive of about `files` modules by our packer, under the name that a store gives it."""
    paths = make_tree(directory / "sources", files)
    (directory / "plan.json").write_bytes(make_plan(paths))
    out = directory / "out.tar.gz"
    subprocess.run(
        [
            *(sys.executable, "-m", "flyte_pack", "bundle", "--plan", str(directory / "plan.json")),
            *("--sources", str(directory / "sources"), "--archive", str(out)),
            *("--manifest", f"{out}.manifest", "--summary", f"{out}.summary"),
        ],
        env={"PYTHONPATH": f"{ROOT}/src/python:{codec_for(sys.executable)}"},
        check=True,
    )
    archive = directory / f"{sha256_file(str(out))}.tar.gz"
    out.rename(archive)
    unpacked = sum((directory / "sources" / path).stat().st_size for path in paths)
    print(
        f"{len(paths)} files, {unpacked / 1e6:.1f} MB, archive {archive.stat().st_size / 1e6:.1f} MB"
    )
    return archive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3, help="cold starts of each contender")
    parser.add_argument("--starts", type=int, default=40, help="warm starts")
    places = ["tmpfs", "disk", "s3"]
    parser.add_argument("--places", nargs="+", choices=places, default=places)
    parser.add_argument("--no-flyte", action="store_true", help="without the stock download")
    options = parser.parse_args()
    python = None if options.no_flyte else flyte_python()
    with tempfile.TemporaryDirectory(prefix="shim-") as scratch:
        archive = make_archive(options.files, Path(scratch))
        for name in options.places:
            directory = scratch if name == "disk" else "/dev/shm"
            with tempfile.TemporaryDirectory(prefix="shim-", dir=directory) as place:
                bench = Bench(archive, Path(place), Path(scratch, "bytecode"))
                if name == "s3":
                    # What only this place takes: pytest and obstore.
                    from tests.support.object_stores import seaweedfs
                    from tests.support.shim_stores import publish

                    store = seaweedfs()
                    uri = publish(store, archive.name, archive.read_bytes())
                    bench = Bench(
                        archive, bench.work.parent, Path(scratch, "bytecode"), uri, store.env
                    )
                    if python:
                        bench.clean(cache=True)
                        gets(bench, python, options.starts)
                print(f"{name}, cold")
                cold(bench, options.runs, python)
                print(f"{name}, warm")
                warm(bench, options.starts, python)
                bench.clean(cache=True)


if __name__ == "__main__":
    main()
