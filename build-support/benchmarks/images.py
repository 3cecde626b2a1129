"""Measures building and pushing images: ours, process by process and as whole commands, against
BuildKit and buildah.

    python build-support/benchmarks/images.py [--quick] [--only NAME...] [--files 500 10000]

All have the same base (made of this machine's CPython 3.12), the same 63 or so wheels at hand, the
same code, and a registry each on this machine which has the base already; in one run, in turns. It
takes being root, a CPython 3.12, Debian's packages docker.io, docker-registry and buildah, the
package index, and some 3 GB below --scratch.

* cold: no layer is there; wheels are downloaded (and in uv's cache), the base is at hand.
* no change, one line: of the code. dependency: another version of numpy; nothing else changes.
* push: into the registry; what it has more afterwards, and the requests that it was sent, are read off its own files.
* work: the processes that the build rules start, started one after the other. commands: whole `./pants` runs, daemon warm.
* start: `docker run` of a new container that imports Flyte and pandas.

--only: of `work`, `buildkit-uv`, `buildkit-pip`, `buildah`, `commands` and `start` (of those images
that are built).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src/python"), str(ROOT)]

# What imports flyte_pack's requirements is imported when they are installed.
if TYPE_CHECKING:
    from image_contenders import Inputs, Ours, Peer, Registry

    Contender = Union[Ours, Peer]

NAMES = ("work", "buildkit-uv", "buildkit-pip", "buildah", "commands", "start")
REQUIREMENTS = "flyte==2.12.1\nnumpy=={numpy}\npandas\nscikit-learn\n"
NUMPY = ("2.2.5", "2.2.6")
PER_PACKAGE = 50
MB = 1e6


def install_tools(place: Path) -> None:
    """What flyte_pack needs to build and to push, by its own locks."""
    locks = [
        part
        for name in ("flyte-image", "flyte-deploy")
        for part in ("-r", str(ROOT / f"src/python/flyte_pack/{name}.lock"))
    ]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    env = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
    subprocess.run([*pip, *locks, "--target", str(place)], check=True, env=env)
    sys.path.insert(0, str(place))


def make_tree(top: Path, files: int) -> None:
    """Packages of 50 modules of about 2.5 KB, each importing its neighbour; app/job.py imports the
    first of each package.
    """
    shutil.rmtree(top, ignore_errors=True)
    rng = random.Random(files)
    firsts = []
    for number in range(files - 1):
        package, module = f"pkg{number // PER_PACKAGE:04}", f"mod{number:05}"
        (top / package).mkdir(parents=True, exist_ok=True)
        if number % PER_PACKAGE == 0:
            firsts.append(f"import {package}.{module}\n")
        follows = number + 1 < files - 1 and (number + 1) % PER_PACKAGE
        head = f"from {package} import mod{number + 1:05}\n" if follows else ""
        body = "".join(
            f"\n\ndef step_{rng.randrange(10**6)}(rows: list, limit: int = {rng.randrange(10**4)}) -> float:\n"
            f'    """Of {rng.randrange(10**9)}, {rng.randrange(10**9)} and the rest."""\n'
            f"    return sum(row * {rng.random():.6f} for row in rows[:limit])\n"
            for _ in range(13)
        )
        (top / package / f"{module}.py").write_text(head + body)
    (top / "app").mkdir(parents=True, exist_ok=True)
    (top / "app/job.py").write_text("import flyte\nimport pandas\n" + "".join(firsts))


EDITED = "pkg0003/mod00170.py"


@dataclass
class Step:
    """Of one contender in one scenario: seconds, bytes that the registry has more, requests."""

    build: float
    push: float
    bytes: int = 0
    requests: tuple[str, ...] = ()

    @property
    def both(self) -> float:
        return self.build + self.push

    @property
    def uploads(self) -> int:
        """Of blobs: each begins with a POST (distribution specification, "Pushing blobs")."""
        return sum(line.startswith("POST ") for line in self.requests)


Figure = Union[Step, float]  # the latter: seconds


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def step(contender: Contender, lock: int, **how: object) -> Step:
    before, asked = contender.registry.size, len(contender.registry.requests())
    build = timed(lambda: contender.build(lock, **how))
    push = timed(lambda: contender.push(lock))
    registry = contender.registry
    return Step(build, push, registry.size - before, tuple(registry.requests()[asked:]))


def median(steps: Sequence[Step]) -> Step:
    """Its parts may be of different turns."""
    last = steps[-1]
    return Step(
        statistics.median(s.build for s in steps),
        statistics.median(s.push for s in steps),
        last.bytes,
        last.requests,
    )


def edit(tree: Path) -> str:
    with (tree / EDITED).open("a") as file:
        file.write(f"# {time.monotonic_ns()}\n")
    return EDITED


GRAPH = "dependencies --transitive"  # what Pants itself has to look at for a large closure
SCENARIOS = ("cold", "no change", "one line", "dependency")


def measure(contender: Contender, tree: Path, runs: int, *, small: bool) -> dict[str, Step]:
    """All scenarios.

    Where the tree is not `small`, packages are there already for those that measure no cold build
    of it.
    """
    found: dict[str, Step] = {}
    if small or contender.name in ("ours", "BuildKit + uv"):
        found["cold"] = step(contender, 0, cold=True)
    else:
        step(contender, 0)
    found["no change"] = median([step(contender, 0) for _ in range(runs)])
    lines = []
    for _ in range(runs):
        changed = edit(tree)
        lines.append(step(contender, 0, changed=changed))
    found["one line"] = median(lines)
    if small:
        found["dependency"] = step(contender, 1)
    return found


# --- whole commands --------------------------------------------------------------------------------


def measure_commands(
    inputs: Inputs, registry: Registry, files: int, runs: int
) -> dict[str, Figure]:
    """`./pants package` and `publish` of an image of the whole tree; a store of Pants' own, which
    has nothing.
    """
    from tests.support.build_root import BuildRoot

    place = inputs.scratch / f"root{files}"
    root = BuildRoot.create(place, ["/"], more=f'[flyte]\nregistries = ["{registry.address}"]\n')
    settings = (place / "pants.toml").read_text()
    for old, new in (
        ('["CPython>=3.11,<3.14"]', '["CPython==3.12.*"]'),
        (
            "[GLOBAL]\n",
            '[GLOBAL]\npantsd_max_memory_usage = "4GiB"\n',
        ),  # 2.17's own graph of 10,000 modules takes 1.5
    ):
        settings = settings.replace(old, new)
    shutil.copytree(inputs.context / "src", place, dirs_exist_ok=True)
    root.write(
        {
            "pants.toml": settings,
            # As `tailor` has them. One target for all makes Pants' graph four times as large.
            **{f"{path.parent.name}/BUILD": "python_sources()\n" for path in place.glob("*/*.py")},
            "images/BUILD": (
                'flyte_base_image(name="base", source="host")\n'
                'flyte_image(name="none", base=":base")\n'
                'flyte_image(name="image", base=":base", code=True, dependencies=["//app", "3rdparty/python:reqs"])\n'
            ),
        }
    )

    def have(lock: int) -> None:
        (place / "3rdparty/python/default.lock").write_text(inputs.locks[lock].read_text())
        requirements = inputs.locks[lock].with_suffix(".in").read_text()
        (place / "3rdparty/python/requirements.txt").write_text(requirements)

    # The fresh local store keeps an earlier run's layers out; named caches (wheels, tools) are the
    # user's.
    env = {"PANTS_LOCAL_STORE_DIR": str(inputs.scratch / f"store{files}")}

    def pants(*arguments: str) -> float:
        return timed(lambda: root.pants(*arguments, env=env))

    def publish(**_: object) -> Step:
        before, asked = registry.size, len(registry.requests())
        seconds = pants("publish", "images:image")
        return Step(seconds, 0, registry.size - before, tuple(registry.requests()[asked:]))

    found: dict[str, Figure] = {}
    try:
        have(0)
        pants("publish", "images:none")  # has the tools made
        found["first: targets and imports"] = pants("dependencies", "--transitive", "images:image")
        found["package: cold"] = pants("package", "images:image")
        found["publish: cold but for package"] = publish()
        times: dict[str, list[float]] = {}
        for _ in range(runs):
            times.setdefault("--version", []).append(pants("--version"))
            times.setdefault(GRAPH, []).append(pants(*GRAPH.split(), "images:image"))
            times.setdefault("package: no change", []).append(pants("package", "images:image"))
            edit(place)
            times.setdefault("package: one line", []).append(pants("package", "images:image"))
        found.update((name, statistics.median(values)) for name, values in times.items())
        publish()
        found["publish: no change"] = median([publish() for _ in range(runs)])
        lines = []
        for _ in range(runs):
            edit(place)
            lines.append(publish())
        found["publish: one line"] = median(lines)
        have(1)
        found["package: dependency"] = pants("package", "images:image")
        found["publish: dependency"] = publish()
    finally:
        root.stop()
    return found


# --- containers ------------------------------------------------------------------------------------


def container_start(engine: Sequence[str], image: str, runs: int) -> float:
    """Seconds of `docker run` with the imports, the first of which is not counted."""
    from image_contenders import run

    command = (
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "python",
        image,
        "-c",
        "import flyte, pandas",
    )
    env = {**os.environ, "DOCKER_HOST": engine[0]}
    times = [timed(lambda: run(engine[1], *command, env=env)) for _ in range(runs + 1)]
    return statistics.median(times[1:])


def measure_start(
    ours: Ours, engine: Sequence[str], images: dict[str, str], runs: int
) -> dict[str, float]:
    from dataclasses import replace

    from image_contenders import run

    for one in (ours, replace(ours, name="ours, bytecode", bytecode=True)):
        one.build(0)
        path, name = one.archive()
        run(engine[1], "load", "-q", "-i", str(path), env={**os.environ, "DOCKER_HOST": engine[0]})
        images[one.name] = name
    return {name: container_start(engine, image, runs) for name, image in images.items()}


# --- the report ------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def cells(found: dict[str, Step], ours: dict[str, Step]) -> list[str]:
    row = []
    for scenario in SCENARIOS:
        if scenario not in found:
            row += ["", ""]
            continue
        one = found[scenario]
        ratio = ""
        if scenario in ours and found is not ours:
            mine = ours[scenario]
            ratio = f" ({one.build / mine.build:.1f}x, {one.both / mine.both:.1f}x)"
        row.append(f"{one.build:.2f} + {one.push:.2f} s{ratio}")
        row.append(f"{one.bytes / MB:.2f} MB, {one.uploads} of {len(one.requests)}")
    return row


def print_builds(files: int, results: dict[str, dict[str, Step]]) -> None:
    ours = results.get("ours", {})
    print(f"\n{files:,} source files; build + push (ratio of the build to ours, and of both)")
    head = ["", *(x for s in SCENARIOS for x in (s, "pushed, uploads of requests"))]
    table(head, [[name, *cells(found, ours)] for name, found in results.items()])


def print_commands(files: int, found: dict[str, Figure]) -> None:
    print(f"\n{files:,} source files; whole commands, daemon warm")
    version = found["--version"]
    assert isinstance(version, float)
    rows = []
    for name, value in found.items():
        if isinstance(value, Step):
            pushed = f"{value.bytes / MB:.2f} MB, {value.uploads} of {len(value.requests)}"
            rows.append([name, f"{value.both:.2f} s", f"{value.both - version:+.2f} s", pushed])
        else:
            rows.append([name, f"{value:.2f} s", f"{value - version:+.2f} s", ""])
    table(["", "seconds", "beyond --version", "pushed, uploads of requests"], rows)


def print_aims(
    builds: dict[int, dict[str, dict[str, Step]]], commands: dict[int, dict[str, Figure]], own: int
) -> None:
    rows = []

    def aim(what: str, figure: str, met: bool) -> None:
        rows.append([what, figure, "met" if met else "missed"])

    small, large = min(builds, default=0), max(builds, default=0)
    with contextlib.suppress(KeyError):
        one, other = builds[small]["ours"]["cold"], builds[small]["BuildKit + uv"]["cold"]
        ratio = other.both / one.both
        aim(
            "cold, build and push: BuildKit + uv takes 10 times ours or more",
            f"{ratio:.1f}x",
            ratio >= 10,
        )
    with contextlib.suppress(KeyError):
        one, other = builds[large]["ours"]["one line"], builds[large]["BuildKit + uv"]["one line"]
        ratio = other.both / one.both
        aim(
            f"one line of {large:,} files, work: BuildKit takes 7 times ours or more",
            f"{ratio:.1f}x",
            ratio >= 7,
        )
    if commands:
        found = commands[max(commands)]
        beyond = found["package: one line"] - found[GRAPH]
        aim(
            f"one line of {max(commands):,} files, `./pants package`: `{GRAPH}` + 1 s or less",
            f"{beyond:+.2f} s",
            beyond <= 1,
        )
    with contextlib.suppress(KeyError):
        pushed = builds[small]["ours"]["dependency"].bytes
        aim(
            "a changed dependency pushes its own bytes + 1 % or less",
            f"{pushed / own - 1:+.2%} of {own / MB:.2f} MB",
            pushed <= 1.01 * own,
        )
        again = builds[small]["ours"]["no change"]
        aim(
            "a push of what is there: no upload, fewer than 10 requests",
            f"{again.uploads}, {len(again.requests)}",
            not again.uploads and len(again.requests) < 10,
        )
    table(["aim", "figure", ""], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one run each, 60 and 3,000 files")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--files", nargs="+", type=int, default=None, help="default: 500 10000")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", help="an existing directory; default: of the system's")
    options = parser.parse_args()
    files = options.files or ([200, 3000] if options.quick else [500, 10_000])
    runs = 1 if options.quick else options.runs
    # As it is on a development machine: where Pants has its sandboxes.
    with (
        tempfile.TemporaryDirectory(prefix="images-", dir=options.scratch) as directory,
        contextlib.ExitStack() as stack,
    ):
        scratch = Path(directory)
        install_tools(scratch / "tools")
        compare(scratch, stack, options.only, files, runs)


def compare(
    scratch: Path, stack: contextlib.ExitStack, only: Sequence[str], sizes: Sequence[int], runs: int
) -> None:
    from image_contenders import Buildah, BuildKit, Ours, make_inputs, registry, service

    inputs = make_inputs(
        scratch, scratch / "tools", [REQUIREMENTS.format(numpy=version) for version in NUMPY]
    )
    tree = inputs.context / "src"
    make_tree(tree, sizes[0])

    def a_registry(name: str) -> Registry:
        return stack.enter_context(registry(scratch / f"registry-{name}"))

    engine: tuple[str, ...] = ()
    if {"buildkit-uv", "buildkit-pip", "start"} & {*only}:
        engine = tuple(stack.enter_context(service("docker_engine.py", scratch / "docker")))
    ours = Ours(inputs, a_registry("ours"))
    contenders = {
        "work": lambda: ours,
        "buildkit-uv": lambda: BuildKit(inputs, a_registry("uv"), "BuildKit + uv", engine),
        "buildkit-pip": lambda: BuildKit(inputs, a_registry("pip"), "BuildKit + pip", engine),
        "buildah": lambda: Buildah(inputs, a_registry("buildah"), "buildah + pip"),
    }
    chosen = [make() for name, make in contenders.items() if name in only]
    for contender in chosen:
        contender.prepare()
    builds: dict[int, dict[str, dict[str, Step]]] = {}
    commands: dict[int, dict[str, Figure]] = {}
    own = 0
    for size in sizes:
        make_tree(tree, size)
        if chosen:
            builds[size] = {
                one.name: measure(one, tree, runs, small=size == sizes[0]) for one in chosen
            }
            print_builds(size, builds[size])
        if ours in chosen and not own:
            own = ours.own_bytes(1, "numpy")
        if "commands" in only:
            commands[size] = measure_commands(inputs, a_registry(f"pants{size}"), size, runs)
            print_commands(size, commands[size])
    if "start" in only:
        peers = {one.name: one.image for one in chosen if isinstance(one, BuildKit)}
        found = measure_start(ours, engine, peers, runs)
        least = found["ours, bytecode"]
        rows = [[name, f"{value:.2f} s", f"{value / least:.1f}x"] for name, value in found.items()]
        print("\ncontainer start, `import flyte, pandas`")
        table(["image", "seconds", "ratio"], rows)
    print_aims(builds, commands, own)


if __name__ == "__main__":
    main()
