"""`package` on Pants 2.17.1 and on a newer Pants, each through its native client, in one run.

    python3 build-support/benchmarks/generations.py PANTS [--runs 5]

PANTS is the `bin/pants` of an installation of the official launcher, such as
`~/.cache/nce/*/bindings/venvs/2.33.0/bin/pants`. Where it cannot download its PEX tool, set
`PANTS_PEX_CLI_VERSION`, `_URL_TEMPLATE` and `_KNOWN_VERSIONS`.

Both package the example, in copies of this checkout and with caches of their own, in turns: cold
(nothing cached, no daemon), then warm (a daemon): with nothing changed, and after a one-line edit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BOOTSTRAP = TOP / "build-support" / "bootstrap"
OLD = "2.17.1"
sys.path.insert(0, str(TOP))

from tests.support.build_root import BuildRoot, clone_checkout

EDITED = "libs/limits/plausible.py"  # reached by every task of the example


class Contender:
    """One Pants in a copy of the checkout."""

    def __init__(self, name: str, scratch: Path, installed: Path, server: str) -> None:
        self.name = name
        self.root = clone_checkout(scratch / name) / "examples" / "monorepo"
        self.caches = scratch / f"{name}-caches"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PANTS_")},
            "PANTS_VERSION": name,
            "NO_SCIE_WARNING": "1",
            "_PANTS_SERVER_EXE": server or str(self.root / "pants"),
            "PANTS_LOCAL_STORE_DIR": str(self.caches / "store"),
            "PANTS_NAMED_CACHES_DIR": str(self.caches / "named"),
        }
        (client,) = installed.glob("lib/python*/site-packages/pants/bin/native_client")
        self.client = scratch / f"{name}-client"
        shutil.copy(client, self.client)  # that of 2.17.1 has no run bit
        self.client.chmod(self.client.stat().st_mode | stat.S_IXUSR)

    def seconds(self, *arguments: str) -> float:
        began = time.perf_counter()
        done = subprocess.run(
            [str(self.client), *arguments],
            cwd=self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        took = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"{self.name}: {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return took

    def cold(self) -> float:
        shutil.rmtree(self.caches, ignore_errors=True)
        return self.seconds("--no-pantsd", "package", "::")

    def edit(self, text: str) -> None:
        path = self.root / EDITED
        path.write_text(f"{path.read_text()}# {text}\n")

    def stop(self) -> None:
        BuildRoot(self.root, self.root / "pants").stop()


def old(scratch: Path) -> Contender:
    sys.path.insert(0, str(BOOTSTRAP))
    import launch

    subprocess.run([str(TOP / "pants"), "--version"], cwd=TOP, check=True, capture_output=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    choice = cache / "pants-flyte" / f"pants-{OLD}" / "default"
    installed = choice.read_text().splitlines()[1]
    contender = Contender(OLD, scratch, Path(installed), "")
    added = launch.additions(contender.env, installed, str(contender.root), str(BOOTSTRAP))
    contender.env.update(added)
    return contender


def new(program: Path, scratch: Path) -> Contender:
    given = {k: v for k, v in os.environ.items() if k.startswith("PANTS_PEX_CLI_")}
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "pants.toml").touch()
        version = subprocess.run(
            [str(program), "--no-pantsd", "--version"],
            cwd=empty,
            env={
                **{k: v for k, v in os.environ.items() if k != "PANTS_VERSION"},
                "NO_SCIE_WARNING": "1",
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    contender = Contender(version, scratch, program.resolve().parents[1], str(program))
    contender.env.update(given)
    return contender


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pants", type=Path, help="bin/pants of a newer Pants")
    parser.add_argument("--runs", type=int, default=5, help="warm runs of each (default: 5)")
    parser.add_argument("--cold", type=int, default=1, help="cold runs of each (default: 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        contenders = [old(scratch), new(options.pants, scratch)]
        rows: dict[str, dict[str, list[float]]] = {}

        def measure(row: str, contender: Contender, took: float) -> None:
            rows.setdefault(row, {}).setdefault(contender.name, []).append(took)

        try:
            for _ in range(options.cold):
                for one in contenders:
                    measure("package, cold", one, one.cold())
            for one in contenders:
                one.seconds("package", "::")  # starts the daemon
            for run in range(options.runs):
                for one in contenders:
                    measure("--version", one, one.seconds("--version"))
                    measure("package, nothing changed", one, one.seconds("package", "::"))
                    one.edit(str(run))
                    measure("package, one line", one, one.seconds("package", "::"))
        finally:
            for one in contenders:
                one.stop()
    first, second = (one.name for one in contenders)
    print(f"medians of {options.runs} ({options.cold} cold), seconds; the example's `package ::`")
    print(f"{'':26}{first:>10}{second:>10}{'ratio':>8}")
    for row, times in rows.items():
        before, after = statistics.median(times[first]), statistics.median(times[second])
        print(f"{row:26}{before:>10.2f}{after:>10.2f}{after / before:>8.2f}")


if __name__ == "__main__":
    main()
