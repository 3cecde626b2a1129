"""What `./pants` adds to every start, and what Pants' native client saves: against the same Pants
started by its own environment's Python.

    python3 build-support/benchmarks/bootstrap.py [--runs N]

All ask a warm daemon for the version, in an empty build root, in turns and with the same options.
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

TOP = Path(__file__).resolve().parent.parent.parent
BOOTSTRAP = TOP / "build-support" / "bootstrap"
GOAL_SECONDS = 0.1
GOAL_NATIVE = 0.3  # of the Python client's time

_DIRECT = "from pants.bin.pants_loader import main; main()"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="starts of each kind (default: 20)")
    runs = parser.parse_args().runs
    version_line = next(
        line
        for line in (TOP / "pants.toml").read_text().splitlines()
        if line.startswith("pants_version")
    )
    with tempfile.TemporaryDirectory() as root:
        Path(root, "pants.toml").write_text(f"[GLOBAL]\n{version_line}\n")
        launched = [str(TOP / "pants"), "--version"]
        os.environ.pop("PANTS_PYTHON", None)
        native = {n: v for n, v in os.environ.items() if n != "PANTS_NO_NATIVE_CLIENT"}
        python = {**native, "PANTS_NO_NATIVE_CLIENT": "1"}
        for known in (native, python):  # makes Pants, starts the daemon, keeps what it came to
            _seconds(launched, root, known)
        installed, env = _installation(version_line.split('"')[1], root)
        direct = [str(installed / "bin" / "python"), "-X", "utf8", "-c", _DIRECT, "--version"]
        _seconds(direct, root, env)
        quick, ours, theirs = [], [], []
        for _ in range(runs):
            quick.append(_seconds(launched, root, native))
            ours.append(_seconds(launched, root, python))
            theirs.append(_seconds(direct, root, env))
        for pid in Path(root, ".pids").glob("*/pantsd/pid"):
            os.kill(int(pid.read_text()), 15)
    ours_median, theirs_median = statistics.median(ours), statistics.median(theirs)
    quick_median = statistics.median(quick)
    share = quick_median / ours_median
    print(f"./pants --version              {quick_median * 1000:7.0f} ms (median of {runs})")
    print(f"the same, Python client        {ours_median * 1000:7.0f} ms  ratio {share:.2f}")
    print(f"its environment's own Python   {theirs_median * 1000:7.0f} ms")
    added = ours_median - theirs_median
    print(
        f"added to the Python client     {added * 1000:7.0f} ms  ratio {ours_median / theirs_median:.2f}"
    )
    print(
        f"goal: at most {GOAL_SECONDS * 1000:.0f} ms added: {'met' if added <= GOAL_SECONDS else 'MISSED'}"
    )
    print(f"goal: at most {GOAL_NATIVE} of its time: {'met' if share <= GOAL_NATIVE else 'MISSED'}")
    return 0


def _installation(version: str, root: str) -> tuple[Path, dict[str, str]]:
    """Where `./pants` installed this Pants, and the environment that it starts it with."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    choice = cache / "pants-flyte" / f"pants-{version}" / "default"
    installed = choice.read_text().splitlines()[1]
    sys.path.insert(0, str(BOOTSTRAP))
    import launch

    env = dict(os.environ)
    return Path(installed), {**env, **launch.additions(env, installed, root, str(BOOTSTRAP))}


def _seconds(command: list[str], root: str, env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=root, env=env, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
