"""Measures packing a bundle: against the floor, and against Flyte's own `build_code_bundle`.

    python build-support/benchmarks/packing.py [--modules 2000 10000] [--runs 7] [--no-flyte]

Contenders run in processes of their own, in turns, over the same tree, with a warm page cache and
warm bytecode:

* floor: read the files with bare system calls, compress them with the same codec in chunks of the
  same size, write the result. No headers, no hashes, no manifest, no checks: no packer can do less.
* floor + SHA-256: with the hash of each file and of the archive that the contract asks for.
* floor, open().read(): the first, as a Python program usually reads a file.
* packer: `python -m flyte_pack bundle`, as after an edit: guards remember what they looked at before.
* packer, cold: the same, and guards look at every file.
* packer, no guards: nothing is looked at.
* detect-secrets: its detectors that know a form, as ours do, over the same files; nothing is packed.
* flyte: `build_code_bundle` in both copy styles, without the upload.

"Work" is the time from having the program loaded to its last output; "process" is the whole life of
the process, with the start of the interpreter and all imports. Flyte's work includes importing
Flyte and, for `loaded_modules`, what is packed, as it finds the files that way. Figures are medians
of the runs; a ratio is the median of the ratios within each turn, which other load on the machine
harms less.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src/python")]

from flyte_pack.bundle_plan import BundlePlan, PlanFile  # noqa: E402
from flyte_pack.manifest import EntryPoint  # noqa: E402
from tests.support.codec_envs import codec_for  # noqa: E402
from tests.support.flyte_env import environment  # noqa: E402
from tests.support.flyte_env import flyte_python as flyte_environment  # noqa: E402

# The contenders take: a list of files or a plan, the directory, where to write. Each prints its
# seconds of work.
_FLOOR = """
import os, sys, time
from hashlib import sha256
from isal import isal_zlib
start = time.perf_counter()
listing, sources, out = sys.argv[1:]
with open(listing) as f:
    paths = f.read().split()
deflate = isal_zlib.compressobj(2, isal_zlib.DEFLATED, 31)
digests, whole, pending = [], sha256(), bytearray()
with open(out, "wb", buffering=0) as archive:
    def write(data):
        archive.write(data)
        {hash_archive}
    for path in paths:
        {read}
        pending += data
        if len(pending) >= 1 << 18:
            write(deflate.compress(pending))
            pending.clear()
    write(deflate.compress(pending) + deflate.flush())
print(time.perf_counter() - start)
"""
_READ = """fd = os.open(sources + "/" + path, os.O_RDONLY)
        data = os.read(fd, os.fstat(fd).st_size)
        os.close(fd)"""
_READ_AND_HASH = f"""{_READ}
        digests.append(sha256(data).hexdigest())"""
_OPEN = """with open(sources + "/" + path, "rb") as file:
            data = file.read()"""
FLOORS = {
    "floor": _FLOOR.format(read=_READ, hash_archive=""),
    "floor + SHA-256": _FLOOR.format(read=_READ_AND_HASH, hash_archive="whole.update(data)"),
    "floor, open().read()": _FLOOR.format(read=_OPEN, hash_archive=""),
}
PACKER = """
import sys, time
import flyte_pack.bundle, isal.isal_zlib
start = time.perf_counter()
plan, sources, out, *more = sys.argv[1:]
code = flyte_pack.bundle.main([
    "--plan", plan, "--sources", sources,
    "--archive", out, "--manifest", out + ".manifest.json", "--summary", out + ".summary.json",
    *more,
])
print(time.perf_counter() - start)
sys.exit(code)
"""
FLYTE = """
import asyncio, sys, time
from pathlib import Path
start = time.perf_counter()
style, files, sources, out = sys.argv[1:]
sys.path.insert(0, sources)
if style == "loaded_modules":
    import acme.main
from flyte._code_bundle.bundle import build_code_bundle
made = asyncio.run(build_code_bundle(
    Path(sources), dryrun=True, skip_cache=True, copy_style=style, copy_bundle_to=Path(out)))
print(time.perf_counter() - start)
sys.exit(len(made.files) != int(files))
"""

DETECT_SECRETS = """
import os, sys, time
from detect_secrets import SecretsCollection
from detect_secrets.settings import transient_settings
start = time.perf_counter()
listing, sources, detectors = sys.argv[1:]
secrets = SecretsCollection()
with transient_settings({"plugins_used": [{"name": name} for name in detectors.split()]}):
    with open(listing) as f:
        for path in f.read().split():
            secrets.scan_file(sources + "/" + path)
print(time.perf_counter() - start)
sys.exit(bool(secrets.data))
"""
DETECTORS = (
    "AWSKeyDetector AzureStorageKeyDetector BasicAuthDetector GitHubTokenDetector "
    "GitLabTokenDetector JwtTokenDetector NpmDetector OpenAIDetector PrivateKeyDetector "
    "PypiTokenDetector SendGridDetector SlackDetector SquareOAuthDetector StripeDetector "
    "TwilioKeyDetector"
)

PER_PACKAGE = 20


class Run(NamedTuple):
    """One process: seconds of its work and of its whole life, peak resident memory in MiB."""

    work: float
    process: float
    memory: float


def make_tree(top: Path, modules: int) -> list[str]:
    """Write a company's monorepo of about `modules` modules below `top`; gives their paths, sorted.

    Packages of twenty, modules of 0.5 to 20 KB that import others; acme/main.py imports them all.
    """
    rng = random.Random(modules)
    names: list[str] = []
    files = {"acme/__init__.py": ""}
    for number in range(modules // PER_PACKAGE):
        area = f"acme/{('data', 'features', 'models', 'serving', 'common')[number % 5]}"
        package = f"{area}/{_word(rng)}_{number:03}"
        files[f"{area}/__init__.py"] = files[f"{package}/__init__.py"] = ""
        for _ in range(PER_PACKAGE - 1):
            path = f"{package}/{_word(rng)}_{len(names):05}"
            files[f"{path}.py"] = _module(rng, names)
            names.append(path.replace("/", "."))
    files["acme/main.py"] = "".join(f"import {name}\n" for name in names)
    for path, text in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    return sorted(files)


def _word(rng: random.Random) -> str:
    verb = rng.choice(
        [
            "load",
            "parse",
            "merge",
            "split",
            "check",
            "build",
            "fetch",
            "store",
            "rank",
            "score",
            "clean",
            "join",
        ]
    )
    return f"{verb}_{rng.choice(['rows', 'table', 'users', 'orders', 'model', 'batch', 'index', 'frame', 'config', 'schema'])}"


def _module(rng: random.Random, names: list[str]) -> str:
    lines = [f'"""{_word(rng).capitalize()} for {_word(rng)}."""', ""]
    lines += sorted({f"import {name}" for name in rng.sample(names, min(3, len(names)))})
    for _ in range(min(40, 1 + int(rng.lognormvariate(1.5, 0.8)))):
        name, rows, weights = (f"{_word(rng)}_{rng.randrange(1000)}" for _ in range(3))
        lines += [
            "",
            "",
            f"def {name}({rows}: list, {weights}: dict, limit: int = {rng.randrange(10_000)}) -> float:",
            f'    """{" ".join(_word(rng) for _ in range(rng.randrange(3, 12)))}."""',
            f"    total = {rng.random():.6f}",
            f"    for index, value in enumerate({rows}[:limit]):",
            f'        if value > {rng.random():.4f} and "{_word(rng)}" in {weights}:',
            f'            total += {weights}["{_word(rng)}"] * value / (index + {rng.randrange(1, 99)})',
            f"    return round(total, {rng.randrange(1, 9)})",
        ]
    return "\n".join(lines) + "\n"


def make_plan(paths: list[str]) -> bytes:
    """The plan for that tree, with an owner and a cause for every file, as the rules write it."""
    files = (
        PlanFile(
            path,
            path,
            f"{os.path.dirname(path)}/{Path(path).name}:lib",
            "imported",
            "acme/main.py:lib",
        )
        for path in paths
    )
    entry_point = EntryPoint("acme.main", "train", "acme/main.py", "acme:train")
    return BundlePlan("auto", None, (entry_point,), tuple(files)).to_json()


def run(command: list[str], env: dict[str, str]) -> Run:
    """Run a contender once; ends the benchmark with what it said if it fails."""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        with subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child:
            assert child.stdout
            output = child.stdout.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        process = time.perf_counter() - start
        if child.returncode:
            errors.seek(0)
            sys.exit(f"A contender failed: {output}{errors.read()}")
    return Run(float(output.split()[-1]), process, usage.ru_maxrss / 1024)


def compare(modules: int, runs: int, flyte_python: str, judge_python: str, scratch: Path) -> None:
    """Run all contenders `runs` times in turns over one tree, and print the medians."""
    sources = scratch / "sources"
    paths = make_tree(sources, modules)
    (scratch / "paths").write_text("\n".join(paths))
    (scratch / "plan.json").write_bytes(make_plan(paths))
    (scratch / "flyte").mkdir()
    ours = [sys.executable, "-c"]
    floor = [f"{scratch}/paths", str(sources), f"{scratch}/floor.gz"]
    packer = [*ours, PACKER, f"{scratch}/plan.json", str(sources), f"{scratch}/out.tar.gz"]
    seen = ["--seen", f"{scratch}/seen.json"]
    contenders = {
        **{name: [*ours, program, *floor] for name, program in FLOORS.items()},
        "packer": [*packer, *seen, "--memory", f"{scratch}/memory"],
        "packer, cold": [*packer, *seen],
        "packer, no guards": packer,
    }
    if judge_python:
        arguments = [f"{scratch}/paths", str(sources), DETECTORS]
        contenders["detect-secrets"] = [judge_python, "-c", DETECT_SECRETS, *arguments]
    if flyte_python:
        for style in ("loaded_modules", "all"):
            arguments = [style, str(len(paths)), str(sources), f"{scratch}/flyte"]
            contenders[f"flyte, {style}"] = [flyte_python, "-c", FLYTE, *arguments]
    env = {
        "PATH": os.defpath,
        "HOME": str(scratch),
        "PYTHONPATH": f"{ROOT}/src/python",
        "PYTHONPYCACHEPREFIX": str(scratch / "bytecode"),
        "DO_NOT_TRACK": "1",
    }
    results: dict[str, list[Run]] = {name: [] for name in contenders}
    codec = {**env, "PYTHONPATH": f"{ROOT}/src/python:{codec_for(sys.executable)}"}
    for turn in range(runs + 1):
        for name, command in contenders.items():
            foreign = name.startswith(("flyte", "detect"))
            figures = run(command, env if foreign else codec)
            if turn:  # the first one warms the caches
                results[name].append(figures)

    def ratio(name: str, to: str, field: str) -> str:
        pairs = zip(results[name], results[to])
        ratios = [getattr(one, field) / getattr(other, field) for one, other in pairs]
        return f"{statistics.median(ratios):.2f}x"

    size = sum((sources / path).stat().st_size for path in paths)
    print(f"\n{modules} modules: {len(paths)} files, {size / 1e6:.1f} MB; medians of {runs} runs")
    guards = (
        statistics.median(
            one.work / other.work for one, other in zip(results[name], results["packer, no guards"])
        )
        for name in ("packer, cold", "packer")
    )
    titles = ("work", "process", "memory", "work/floor", "process/floor", "process/packer")
    print(f"{'':22}" + "".join(f"{title:>16}" for title in titles))
    for name, done in results.items():
        work, process, memory = map(statistics.median, zip(*done))
        columns = (
            f"{work:.3f} s",
            f"{process:.3f} s",
            f"{memory:.0f} MiB",
            ratio(name, "floor", "work"),
            ratio(name, "floor", "process"),
            ratio(name, "packer", "process"),
        )
        print(f"{name:22}" + "".join(f"{column:>16}" for column in columns))
    cold, warm = guards
    print(f"guards: work {cold:.2f}x cold, {warm:.2f}x remembered, of packing without them")
    if judge_python:
        added = (
            judge.work / max(one.work - other.work, 1e-3)
            for judge, one, other in zip(
                results["detect-secrets"], results["packer, cold"], results["packer, no guards"]
            )
        )
        print(f"detect-secrets: {statistics.median(added):.0f}x of what guards add cold")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modules", type=int, nargs="+", default=[2_000, 10_000])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--no-flyte", action="store_true", help="compare with the floor alone")
    parser.add_argument("--no-judge", action="store_true", help="leave out detect-secrets")
    parser.add_argument(
        "--flyte-python", help="one that has Flyte; made from tests/support/flyte.lock otherwise"
    )
    options = parser.parse_args()
    flyte_python = ""
    if not options.no_flyte:
        flyte_python = options.flyte_python or str(flyte_environment())
    judge_python = ""
    if not options.no_judge:
        judge_python = str(environment(ROOT / "build-support/locks/detect-secrets.lock"))
    for modules in options.modules:
        with tempfile.TemporaryDirectory(prefix="packing-") as scratch:
            compare(modules, options.runs, flyte_python, judge_python, Path(scratch))


if __name__ == "__main__":
    main()
