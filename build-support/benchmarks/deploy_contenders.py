"""What `deploy.py` compares: the example with servers to deploy to, `./pants run`, `flyte deploy`,
and containers of either.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.a0 import read_outputs, write_inputs
from tests.support.build_root import EXAMPLE, BuildRoot, clean_environment
from tests.support.containers import DockerEngine, docker_engine
from tests.support.control_plane import RealControlPlane, control_plane
from tests.support.flyte_env import environment, flyte_python
from tests.support.monorepo import git, monorepo
from tests.support.object_stores import RealStore, proxied, seaweedfs
from tests.support.registries import RealRegistry, real_registry

OURS, PEER = "staging", "development"  # a domain each: they don't see one another's tasks
TARGET, TASK = f"services:live@domain={OURS}", "services/ml:fit"
LIBRARY = "libs/features/trend.py"
FIRST_LINE = "first line at "
INTERFACE = """\
import flyte

@flyte.TaskEnvironment(name="ml").task
def fit(station: str, n: int = 5) -> float: ...
"""
FIT = '    """Tomorrow\'s rides at one station, from its last n days."""\n'
SAYS_WHEN = f'    import time\n\n    print("{FIRST_LINE}", time.time(), flush=True)\n'


@dataclass(frozen=True)
class Site:
    """The example in a clone, and what it is deployed to."""

    root: BuildRoot
    scratch: Path
    store: RealStore
    registry: RealRegistry
    plane: RealControlPlane
    engine: DockerEngine

    def edit(self) -> None:
        """One line of a library that two of the tasks reach."""
        with (self.root.path / LIBRARY).open("a") as file:
            file.write(f"# {time.monotonic_ns()}\n")

    def task(self, domain: str) -> Any:
        """What a cluster is told to run: the last `fit` that was registered in a domain."""
        tasks = self.plane.state()["tasks"]
        return [t for t in tasks if (t["name"], t["domain"]) == ("ml.fit", domain)][-1]

    def requests(self) -> Counter[str]:
        """What the registry and the control plane were asked so far."""
        time.sleep(0.3)  # a registry writes down what it has answered
        log = (self.registry.directory / "registry.log").read_text()
        lines = [one for one in log.splitlines() if " HTTP/1.1" in one and "response" not in one]
        of_plane = sum(self.plane.state()["requests"].values())
        return Counter({"registry": len(lines), "control plane": of_plane})


@contextmanager
def site(scratch: Path) -> Iterator[Site]:
    """All of it, for the time of a `with` block."""
    with ExitStack() as stack:
        store = seaweedfs()
        registry = stack.enter_context(real_registry(scratch / "registry"))
        uploads = ("--uploads", f"{store.uri}/uploads")
        plane = stack.enter_context(
            control_plane(
                scratch / "plane", "--project", "flytesnacks", *uploads, environ=store.env
            )
        )
        engine = stack.enter_context(docker_engine(scratch / "docker"))
        root = stack.enter_context(monorepo())
        replace(
            root.path / "services/live.yaml",
            ("localhost:8090", plane.endpoint),
            ("localhost:5000", registry.host),
            ("s3://flyte/", f"{store.uri}/live/"),
        )
        replace(root.path / "services/ml/workflows.py", (FIT, FIT + SAYS_WHEN))
        git(root.path, "add", "--all")
        git(root.path, "commit", "--quiet", "--message", "Servers")
        yield Site(root, scratch, store, registry, plane, engine)


def replace(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in pairs:
        if old not in text:
            raise SystemExit(f"{file} has no {old!r}")
        text = text.replace(old, new)
    file.write_text(text)


@dataclass(frozen=True)
class Ours:
    site: Site

    def version(self) -> None:
        """What any command costs."""
        self.site.root.pants("--version")

    def deploy(self, environ: Mapping[str, str] | None = None) -> str:
        env = {**self.site.store.env, **(environ or {})}
        return self.site.root.pants("run", TARGET, env=env).stdout

    def image(self) -> str:
        """The reference, by digest, of the image that the tasks run in; after the first deployment."""
        shown = self.site.root.pants(
            "run", TARGET, "--", "show", "--output", "json", env=self.site.store.env
        )
        tasks = json.loads(shown.stdout)["record"]["tasks"]
        return next(str(one["image"]) for one in tasks if one["address"] == TASK)

    def deploy_bulk(self, files: int) -> None:
        """A large bundle: the same with that many files more."""
        data = self.site.root.path / "data"
        for number in range(files):
            file = data / f"bulk/part{number // 50:03}/rows{number:05}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{number},{row},{number * row}\n" for row in range(150)))
        with (data / "BUILD").open("a") as build:
            build.write('\nfiles(name="bulk", sources=["bulk/**/*.csv"])\n')
        replace(
            self.site.root.path / "services/ml/BUILD", ("data:rides", 'data:rides", "data:bulk')
        )
        self.deploy()

    def counted(self) -> dict[str, str]:
        """What a deployment asks of each server."""
        before = self.site.requests()
        with proxied(self.site.store) as (store, proxy):
            self.deploy({"AWS_ENDPOINT_URL": store.endpoint})
            asked = {"S3": f"{len(proxy.requests)} ({len(proxy.writes)} writes)"}
        after = self.site.requests()
        return {**asked, **{name: str(after[name] - before[name]) for name in after}}


@dataclass(frozen=True)
class Peer:
    """`flyte deploy` of all that is below `services`, by the same control plane, whose data proxy
    uploads to the same store.

    image: a reference by digest, so that no builder has anything to do. style: of copying. With
    `loaded_modules`, the default, the bundle lacks the data that the task reads: it can be
    registered, and not run.
    """

    site: Site
    image: str
    style: str = "all"

    def version(self) -> None:
        """What any command costs."""
        python = environment(EXAMPLE / "3rdparty/python/default.lock")
        env = clean_environment(HOME=str(self.site.scratch), DO_NOT_TRACK="1")
        flyte = str(python.parent / "flyte")
        subprocess.run([flyte, "--version"], env=env, stdout=subprocess.DEVNULL, check=True)

    def deploy(self) -> str:
        python = environment(EXAMPLE / "3rdparty/python/default.lock")
        home = self.site.scratch / "home"
        home.mkdir(exist_ok=True)
        done = subprocess.run(
            [
                str(python.parent / "flyte"),
                *("--endpoint", self.site.plane.endpoint, "--insecure", "deploy"),
                *("--project", "flytesnacks", "--domain", PEER, "--image", f"ml={self.image}"),
                *("--copy-style", self.style, "--all", "--recursive", "services"),
            ],
            cwd=self.site.root.path,
            env=clean_environment(
                **self.site.store.env,
                HOME=str(home),
                PYTHONPATH=".:packages/geo/src",
                DO_NOT_TRACK="1",
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"flyte deploy\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def counted(self) -> dict[str, str]:
        before = self.site.requests()
        self.deploy()
        after = self.site.requests()
        return {name: str(after[name] - before[name]) for name in after}


# --- containers ----------------------------------------------------------------------------------


class Start(NamedTuple):
    """Seconds since `docker run` was typed; shim: what the shim says that it took, 0 where there is
    none.
    """

    first_line: float
    end: float
    shim: float = 0.0


@dataclass(frozen=True)
class Containers:
    """Runs what is registered as a cluster would: image, command, and the variables by which the
    store is reached.

    The base that is made of this machine's files has neither `tar` nor `gzip`, which the stock
    download takes: it gets this machine's own, in all contenders.
    """

    site: Site
    image: str
    io: Path

    @classmethod
    def of(cls, site: Site, image: str) -> Containers:
        io = site.scratch / "io"
        io.mkdir()
        io.chmod(0o777)
        (site.scratch / "interface.py").write_text(INTERFACE)
        inputs = {"station": "central", "n": 3}
        write_inputs(flyte_python(), site.scratch, "interface", "fit", inputs, io)
        site.engine("pull", "--quiet", image)
        return cls(site, image, io)

    def run(self, task: Any, *options: str, stock: bool = False) -> Start:
        """stock: Flyte's own download instead of the shim."""
        out = self.io / f"o{time.monotonic_ns()}"
        out.mkdir()
        out.chmod(0o777)
        command = filled(task["command"], f"/io/{out.name}")
        environ = {
            **self.site.store.env,
            **task["env"],
            "FLYTE_SHIM_LOG": "json",
            "FLYTE_INTERNAL_EXECUTION_PROJECT": "flytesnacks",
            "FLYTE_INTERNAL_EXECUTION_DOMAIN": task["domain"],
            "_U_ORG_NAME": "o",
            "_U_RUN_BASE": f"/io/{out.name}/base",
            "DO_NOT_TRACK": "1",
        }
        if stock:
            environ["_F_EXEC_WRAPPED"] = "1"
            options = (*options, "--entrypoint", command.pop(0))
        start = time.time()
        done = self._docker(*options, environ=environ, command=command)
        end = time.time()
        found = read_outputs(flyte_python(), self.site.scratch, "interface", "fit", out)
        if found["error"] or not found["value"]:
            raise SystemExit(f"{command}\n{found['error']}\n{done.stdout}{done.stderr}")
        events = [json.loads(one) for one in done.stderr.splitlines() if one.startswith('{"')]
        shim = sum(one["seconds"] for one in events if one.get("event") == "ready")
        if bool(shim) == stock:
            raise SystemExit(f"the shim ran where it should not, or did not:\n{done.stderr}")
        return Start(_told(done.stdout) - start, end - start, shim)

    def imports(self) -> Start:
        """A container that imports Flyte and numpy, and has neither a bundle nor a task."""
        code = f'import time, flyte, numpy; print("{FIRST_LINE}", time.time())'
        start = time.time()
        done = self._docker("--entrypoint", "python", environ={}, command=["-c", code])
        return Start(_told(done.stdout) - start, time.time() - start)

    def _docker(
        self, *options: str, environ: Mapping[str, str], command: Sequence[str]
    ) -> subprocess.CompletedProcess[str]:
        return self.site.engine(
            *("run", "--rm", "--network", "host", "--volume", f"{self.io}:/io", *options),
            *(part for mount in tar_mounts() for part in ("--volume", mount)),
            *(part for name, value in environ.items() for part in ("--env", f"{name}={value}")),
            *(self.image, *command),
        )


def filled(command: Sequence[str], out: str) -> list[str]:
    """With what a cluster puts into the holes."""
    values = {"input": "/io/inputs.pb", "outputPrefix": out, "runName": "r1", "actionName": "a1"}

    def fill(argument: str) -> str:
        hole = re.fullmatch(r"\{\{\.(\w+)\}\}", argument)
        return values.get(hole[1], f"{out}/{hole[1]}") if hole else argument

    found = [fill(argument) for argument in command]
    if "--run-start-time" in found:  # of a time, not of a path
        at = found.index("--run-start-time")
        del found[at : at + 2]
    return found


def tar_mounts() -> list[str]:
    """This machine's `tar`, the `gzip` that it starts, and the libraries that they take beside
    libc.
    """
    paths = set()
    for name in ("tar", "gzip"):
        program = shutil.which(name) or f"/usr/bin/{name}"
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        libraries = re.findall(r"=> (/\S+)", listed)
        paths |= {program, *(one for one in libraries if "/libc." not in one)}
    # Where directories such as /lib are links (hier(7), "merged /usr"), their target is what is
    # there in the image too.
    places = {
        os.path.join(os.path.realpath(os.path.dirname(p)), os.path.basename(p)) for p in paths
    }
    return [f"{os.path.realpath(place)}:{place}:ro" for place in sorted(places)]


def _told(stdout: str) -> float:
    found = re.search(FIRST_LINE + r"\s*([\d.]+)", stdout)
    if found is None:
        raise SystemExit(f"the task has said nothing:\n{stdout}")
    return float(found[1])
