"""The builders that images.py compares, behind one face: ours process by process, BuildKit,
buildah.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flyte_pack.image import host_base
from flyte_pack.image.assemble import ImageSettings, assemble
from flyte_pack.image.base import BaseImage
from flyte_pack.image.compiler import release_of
from flyte_pack.image.filesystem import HOME, VENV, console_script, pyvenv_cfg
from flyte_pack.image.filesystem import site_packages as site_packages_of
from flyte_pack.image.layer_plan import LayerPlan
from flyte_pack.names import TargetAddress
from flyte_pack.oci.docker_archive import write_archive
from flyte_pack.oci.layout import open_layout
from flyte_pack.oci.parts import Layer, Layers
from flyte_pack.registry.plan import Destination, PushPlan
from tests.support.codec_envs import find_cpython

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / "build-support/services"
WORKDIR = f"{HOME}/task"  # the targets' default
REPOSITORY = "bench/app"
BASE = "localhost/bench-base:latest"


def run(*command: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Its standard output; ends the benchmark with what it said where it fails."""
    done = subprocess.run(
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)[:200]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


@contextmanager
def service(script: str, directory: Path) -> Iterator[list[str]]:
    """One of build-support/services: the lines that it prints when it is ready."""
    command = [sys.executable, str(SERVICES / script), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            count = 2 if script == "docker_engine.py" else 1
            lines = [server.stdout.readline().strip() for _ in range(count)]
            if not all(lines):
                sys.exit(f"{script} did not start")
            yield lines
        finally:
            server.terminate()


@dataclass(frozen=True)
class Registry:
    """A registry of one contender's own. address: `host:port`."""

    address: str
    directory: Path

    @property
    def size(self) -> int:
        """Bytes of all blobs, manifests too."""
        blobs = self.directory / "data/docker/registry/v2/blobs"
        return sum(path.stat().st_size for path in blobs.rglob("data"))

    def requests(self) -> list[str]:
        """Methods and paths of what it has answered."""
        time.sleep(0.2)  # it writes them down after it has answered
        lines = (self.directory / "registry.log").read_text().splitlines()
        return [
            line.split('"')[1] for line in lines if " HTTP/1.1" in line and "response" not in line
        ]


@contextmanager
def registry(directory: Path) -> Iterator[Registry]:
    with service("registry.py", directory) as (address,):
        yield Registry(address, directory)


@dataclass(frozen=True)
class Inputs:
    """What all have alike.

    locks: of the packages, before and after the change, with requirements beside them (`.in`).
    context: a directory with them, `wheels` (of both locks, and pip's own), `uv` and `src`, the
    code. base: a directory with `base.json` and blobs; archive: the same for `docker load`. python:
    the one on this machine that the base has. tools: what the locks of flyte_pack pin.
    """

    scratch: Path
    tools: Path
    context: Path
    locks: tuple[Path, Path]
    base: Path
    archive: Path
    python: str
    uv_cache: Path

    @property
    def image(self) -> BaseImage:
        return BaseImage.from_json((self.base / "base.json").read_bytes(), "base.json")


def make_inputs(scratch: Path, tools: Path, requirements: Sequence[str]) -> Inputs:
    """Get all wheels of the two lists of requirements, and make the base, below `scratch`."""

    python = find_cpython("3.12")
    if python is None:
        sys.exit("a CPython 3.12 is missing: pyenv install 3.12")
    context = scratch / "context"
    (context / "uv").mkdir(parents=True)
    shutil.copy2(tools / "bin/uv", context / "uv/uv")
    locks = []
    for number, asked in enumerate(requirements):
        lock = context / f"requirements{number}.txt"
        lock.with_suffix(".in").write_text(asked)
        run(
            *(
                str(tools / "bin/uv"),
                "pip",
                "compile",
                "-q",
                str(lock.with_suffix(".in")),
                "-o",
                str(lock),
            ),
            *("--python", python, "--generate-hashes", "--no-emit-index-url", "--no-header"),
            env={**os.environ, "UV_SYSTEM_CERTS": "true"},
        )
        locks.append(lock)
    for what in (("-r", str(locks[0])), ("-r", str(locks[1])), ("pip",)):
        get = (
            "download",
            "-q",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-d",
            str(context / "wheels"),
        )
        run(python, "-m", "pip", *get, *what)

    base, whole = scratch / "base", scratch / "base-layout"
    if host_base.main(["--python", python, "--out", str(base)]):
        sys.exit("no base image was made")
    image = BaseImage.from_json((base / "base.json").read_bytes(), "base.json")
    documents = assemble(
        image,
        {image.platforms[0].platform: []},
        ImageSettings({}, {}, "0:0", "/", ()),
    ).documents
    shutil.copytree(base, whole, copy_function=os.link)
    for path, document in documents.items():
        (whole / path).unlink(missing_ok=True)
        (whole / path).write_bytes(document)
    layout = open_layout(str(whole))
    write_archive(layout, layout.image(None), [BASE], str(scratch / "base.tar"))
    # Pants' own, so that its commands find the wheels there too.
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    uv_cache = caches / "pants/named_caches/flyte_uv"
    uv_cache.mkdir(parents=True, exist_ok=True)
    return Inputs(
        scratch, tools, context, (locks[0], locks[1]), base, scratch / "base.tar", python, uv_cache
    )


@dataclass
class Ours:
    """The processes that the build rules start, started here, in the rules' order."""

    inputs: Inputs
    registry: Registry
    name: str = "ours"
    bytecode: bool = False
    _plan: LayerPlan = field(init=False)

    def prepare(self) -> None:
        """Have the base in the registry, and the installer's cache filled."""
        self._assemble([], self._place("base"))
        self.push(0, "base")
        for lock in range(2):
            self._packages(lock, self._place("warm"))

    def build(self, lock: int, changed: str | None = None, cold: bool = False) -> None:
        """The image's layout. changed: all but the part that holds this file is as before."""
        packages, shim = self._place(f"packages{lock}"), self._place("shim")
        if cold or not packages.exists():
            self._packages(lock, packages)
        if cold or not shim.exists():
            plan = self._shim_plan()
            self._pack("shim", plan, ROOT / "src/python", shim)
        code = self._place("code")
        if cold or changed or not code.exists():
            self._code(code, changed)
        outputs = [packages, shim, code]
        layers = [layer for o in outputs for layer in self._layers(o)]
        self._assemble(layers, self._place("image"), outputs)

    def push(self, lock: int, name: str = "image") -> None:
        layout = self._place(name)
        digest = json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]
        destination = Destination(f"{self.registry.address}/{REPOSITORY}", (f"v{lock}",))
        plan = PushPlan(TargetAddress("bench:image"), layout.name, digest, (destination,))
        (layout.parent / "plan.json").write_bytes(plan.to_json())
        self._run("push", "--plan", str(layout.parent / "plan.json"), "--dir", str(layout.parent))

    def own_bytes(self, lock: int, package: str) -> int:
        """Of the layer that a distribution has."""
        layers = self._layers(self._place(f"packages{lock}"))
        return next(layer.size for layer in layers if layer.what.startswith(f"{package} "))

    def archive(self) -> tuple[Path, str]:
        """For `docker load`, and the name that the image has then."""
        name = "bench/bytecode:start" if self.bytecode else "bench/ours:start"
        layout = open_layout(str(self._place("image")))
        path = self._place("image.tar")
        write_archive(layout, layout.image(None), [name], str(path))
        return path, name

    def _place(self, name: str) -> Path:
        directory = self.inputs.scratch / self.name
        directory.mkdir(exist_ok=True)
        return directory / name

    def _run(self, *arguments: str) -> None:
        env = {
            **{
                name: value
                for name, value in os.environ.items()
                if "CERT" in name or "PROXY" in name.upper()
            },
            "PATH": os.environ["PATH"],
            "HOME": str(self.inputs.scratch),
            "PYTHONPATH": f"{ROOT}/src/python:{self.inputs.tools}",
            "UV_CACHE_DIR": str(self.inputs.uv_cache),
            "UV_SYSTEM_CERTS": "true",
        }
        run(sys.executable, "-s", "-m", "flyte_pack", *arguments, env=env)

    def _packages(self, lock: int, out: Path) -> None:
        shutil.rmtree(out, ignore_errors=True)
        target = ("--python", "3.12", "--platform", "linux/amd64")
        subset = str(self._place("subset.txt"))
        roots = str(self.inputs.locks[lock].with_suffix(".in"))
        resolve = ("--lock", str(self.inputs.locks[lock]), "--roots", roots, "--out", subset)
        self._run("image-resolve", *resolve, *target)
        python = self.inputs.python
        compiler = ("--compiler", f"{release_of(python)}={python}") if self.bytecode else ()
        self._run("image-install", "--requirements", subset, "--out", str(out), *target, *compiler)

    def _shim_plan(self) -> LayerPlan:
        sources = sorted((ROOT / "src/python/flyte_shim").rglob("*.py"))
        names = [str(path.relative_to(ROOT / "src/python")) for path in sources]
        python = self.inputs.image.python_path or ""
        return LayerPlan(
            "flyte-shim",
            (0, 0),
            ((VENV, 0o755),),
            tuple((f"{site_packages_of('3.12')}/{name}", name) for name in names),
            (
                (f"{VENV}/pyvenv.cfg", pyvenv_cfg(python, "3.12"), 0o644),
                (f"{VENV}/bin/flyte-shim", console_script("flyte_shim.cli", "main"), 0o755),
            ),
            ((f"{VENV}/bin/python", python),),
        )

    def _pack(self, name: str, plan: LayerPlan, sources: Path, out: Path) -> None:
        path = self._place(f"{name}.json")
        path.write_bytes(plan.to_json())
        arguments = ("--plan", str(path), "--sources", str(sources), "--out", str(out))
        self._run("image-layer", *arguments)

    def _code(self, out: Path, changed: str | None) -> None:
        """Listing the files is the rules' work, and left out where one of them is changed."""
        shutil.rmtree(out, ignore_errors=True)
        tree = self.inputs.context / "src"
        if changed is None:
            names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*.py"))
            files = tuple((f"{WORKDIR[1:]}/{name}", name) for name in names)
            directories = ((HOME[1:], 0o755), (WORKDIR[1:], 0o755))
            self._plan = LayerPlan(
                f"{len(files):,} files of code", (1000, 1000), directories, files
            )
        self._pack("code-plan", self._plan, tree, out)

    def _layers(self, out: Path) -> Sequence[Layer]:
        return Layers.from_json((out / "layers.json").read_bytes()).layers

    def _assemble(self, layers: list[Layer], place: Path, outputs: Sequence[Path] = ()) -> None:
        """As the rules do: documents are written, blobs are there already (in Pants' store)."""
        base = self.inputs.image
        settings = ImageSettings({"HOME": HOME}, {}, "1000:1000", WORKDIR, ("flyte-shim", "--"))
        image = assemble(base, {base.platforms[0].platform: layers}, settings)
        shutil.rmtree(place, ignore_errors=True)
        (place / "blobs/sha256").mkdir(parents=True)
        for source in (self.inputs.base, *outputs):
            for blob in (source / "blobs/sha256").iterdir():
                os.link(blob, place / "blobs/sha256" / blob.name)
        for path, document in image.documents.items():
            (place / path).unlink(missing_ok=True)
            (place / path).write_bytes(document)


# {get} puts a tool or wheels where RUN sees them. In all of them the installed files are owned by
# root, and the code is the user's.
_CONTAINERFILE = """\
FROM localhost/bench-base:latest
RUN python3.12 -m venv --without-pip /opt/venv
COPY requirements{lock}.txt /requirements.txt
RUN {get} {install} -r /requirements.txt
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin HOME=/home/flyte
WORKDIR /home/flyte/task
COPY --chown=1000:1000 src/ ./
USER 1000:1000
"""
_PIP = "/opt/venv/bin/python /wheels/{pip}/pip install --no-index --find-links /wheels --no-deps --no-cache-dir -q"
_UV = "UV_CACHE_DIR=/uvcache UV_LINK_MODE=copy /uv/uv pip install --python /opt/venv/bin/python --no-index --find-links /wheels --no-deps -q"
_WARM = """\
FROM localhost/bench-base:latest
RUN python3.12 -m venv --without-pip /opt/venv
COPY requirements0.txt requirements1.txt src /
RUN {get} {work}
"""


@dataclass
class Peer:
    """Another builder, which builds `inputs.context` by a Containerfile of its own."""

    inputs: Inputs
    registry: Registry
    name: str
    engine: tuple[str, ...] = ()

    @property
    def _tag(self) -> str:
        return f"{self.registry.address}/{REPOSITORY}"

    @property
    def image(self) -> str:
        """As `docker run` has it."""
        return f"{self._tag}:v0"

    def prepare(self) -> None:
        """Have the base, and have it in the registry; fill caches of wheels."""
        raise NotImplementedError

    def build(self, lock: int, changed: str | None = None, cold: bool = False) -> None:
        """The image with the packages of that lock. cold: with no layer that is there."""
        raise NotImplementedError

    def push(self, lock: int) -> None:
        raise NotImplementedError

    def _containerfile(self, lock: int, get: str, install: str) -> str:
        path = self.inputs.scratch / f"{self.name.replace(' ', '')}.{lock}"
        path.write_text(_CONTAINERFILE.format(lock=lock, get=get, install=install))
        return str(path)

    def _pip(self) -> str:
        (wheel,) = (self.inputs.context / "wheels").glob("pip-*.whl")
        return _PIP.format(pip=wheel.name)


class BuildKit(Peer):
    """In a docker engine. Wheels are in the context; uv has its cache in a cache mount."""

    def prepare(self) -> None:
        self._docker("load", "--quiet", "--input", str(self.inputs.archive))
        self._docker("tag", BASE, f"{self._tag}:base")
        self._docker("push", "--quiet", f"{self._tag}:base")
        # The context is sent whole once, and uv's cache is filled, before anything is measured.
        get, install = self._installer()
        work = f"{install} -r /requirements0.txt && {install} -r /requirements1.txt"
        path = self.inputs.scratch / "warm"
        path.write_text(
            _WARM.format(get=get, work=work if "uv pip" in install else "ls /wheels >/dev/null")
        )
        self._build("-f", str(path))

    def build(self, lock: int, changed: str | None = None, cold: bool = False) -> None:
        path = self._containerfile(lock, *self._installer())
        self._build("-t", f"{self._tag}:v{lock}", "-f", path, *("--no-cache",) * cold)

    def push(self, lock: int) -> None:
        self._docker("push", "--quiet", f"{self._tag}:v{lock}")

    def _installer(self) -> tuple[str, str]:
        get = "--mount=type=bind,source=wheels,target=/wheels"
        if "uv" not in self.name:
            return get, self._pip()
        get += " --mount=type=bind,source=uv,target=/uv --mount=type=cache,target=/uvcache"
        return get, _UV

    def _build(self, *options: str) -> None:
        self._docker("build", "--network", "none", "-q", *options, str(self.inputs.context))

    def _docker(self, *arguments: str) -> str:
        host, client = self.engine
        return run(
            client, *arguments, env={**os.environ, "DOCKER_HOST": host, "DOCKER_BUILDKIT": "1"}
        )


class Buildah(Peer):
    """With chroot isolation, pip, and layers kept."""

    def prepare(self) -> None:
        self._buildah("pull", "-q", f"docker-archive:{self.inputs.archive}")
        self._buildah("push", "-q", "--tls-verify=false", BASE, f"docker://{self._tag}:base")

    def build(self, lock: int, changed: str | None = None, cold: bool = False) -> None:
        context = self.inputs.context
        self._buildah(
            *("bud", "-q", "--layers", "--isolation", "chroot", "--network", "host"),
            *("--no-cache",) * cold,
            *("--volume", f"{context}/wheels:/wheels:ro", "-t", f"{self._tag}:v{lock}"),
            *("-f", self._containerfile(lock, "", self._pip()), str(context)),
        )

    def push(self, lock: int) -> None:
        self._buildah("push", "-q", "--tls-verify=false", f"{self._tag}:v{lock}")

    def _buildah(self, *arguments: str) -> str:
        storage = self.inputs.scratch / "buildah"
        options = ("--root", str(storage / "root"), "--runroot", str(storage / "run"))
        return run("buildah", *options, "--storage-driver", "overlay", *arguments)
