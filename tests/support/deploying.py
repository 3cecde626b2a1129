"""A build root with packaged tasks, and the deploy program as a process that acts on it.

The bundles are made by the real packer. What the program does to the file system is watched, and
stopped, from inside its process (`killed_at`, `show_writes`, `no_room`).
"""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Sequence

import flyte_pack
import flyte_pack.deploy.program
import flyte_pack.store.file
from flyte_pack.__main__ import main
from flyte_pack.bundle import pack
from flyte_pack.bundle_plan import BundlePlan, PlanFile
from flyte_pack.deploy.config import Settings
from flyte_pack.deploy.plan import FIXED, DeployPlan
from flyte_pack.json_fields import as_json
from flyte_pack.manifest import EntryPoint, Manifest
from flyte_pack.task_link import (
    BUNDLE_URI_HOLE,
    VERSION_HOLE,
    LinkedBundle,
    LinkedTask,
    TaskLink,
)
from flyte_shim.hashing import sha256_bytes

ADDRESS = "services:deploy"
SOURCE_ROOT = str(Path(flyte_pack.__file__).parent.parent)

CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def killed_at(last: int) -> Callable[[], None]:
    """Has a process end itself by SIGKILL instead of making its `last`th call that changes a file
    system or takes a lock.

    If that is a write, half of it is done before.
    """
    count = 0

    def watch(where: Any, name: str) -> None:
        real = getattr(where, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if name == "open" and not args[1] & CHANGING:
                return real(*args, **kwargs)
            count += 1
            if count == last:
                if name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(where, name, call)

    def prepare() -> None:
        for name in ("open", "write", "fsync", "link", "unlink", "mkdir", "rename", "replace"):
            watch(os, name)
        watch(fcntl, "flock")

    return prepare


def show_writes() -> None:
    """Has a process print every call that changes a file system or starts a program, by Python's
    own audit events.
    """
    stderr = sys.stderr

    def hook(event: str, args: tuple[Any, ...]) -> None:
        changing = event == "open" and isinstance(args[2], int) and args[2] & CHANGING
        if changing or event in (
            *("os.mkdir", "os.link", "os.remove", "os.rename", "os.rmdir", "os.symlink"),
            *("os.truncate", "os.utime", "os.chmod", "os.chown", "subprocess.Popen"),
        ):
            stderr.write(f"WRITE {event} {args[0]!r}\n")

    sys.addaudithook(hook)


def no_room(size: int) -> Callable[[], None]:
    """Lets a process write no file beyond `size` bytes: the system reports it as it does a full
    disk.
    """
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class Done:
    """How a run of the program ended: exit code (negative: the signal) and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def ok(self) -> Done:
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        return self

    def failed(self, code: int, *said: str) -> Done:
        """It ended with `code`, no traceback, and said all of that."""
        assert self.code == code, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err
        for text in said:
            assert text in self.err, f"{text!r} is not in:\n{self.err}"
        return self


class Program:
    """The deploy program in a child process that is forked: it costs a tenth of a new interpreter.

    first: called in the child before the program starts; env: changes to the environment.
    """

    def __init__(
        self,
        cwd: Path,
        arguments: Sequence[str],
        *,
        first: Callable[[], Any] = lambda: None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115  # `end` closes them
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                for stream, number in ((self._out, 1), (self._err, 2)):
                    os.dup2(stream.fileno(), number)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                sys.dont_write_bytecode = True
                os.chdir(cwd)
                os.environ.update(env or {})
                first()
                code = main(arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def end(self) -> Done:
        """Wait for its end."""
        _, status = os.waitpid(self.pid, 0)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        printed = []
        for stream in (self._out, self._err):
            stream.seek(0)
            printed.append(stream.read())
            stream.close()
        return Done(code, *printed)


class BuildRoot:
    """A build root: `package` tasks, then `deploy` them, as the build rules would have the program
    do it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dist = root / "packaged"
        self.dist.mkdir(parents=True)
        self.store = root / "dist" / "flyte"
        self.links: dict[str, TaskLink] = {}

    def package(
        self,
        name: str = "train",
        body: str = "v = 1\n",
        library: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> TaskLink:
        """Package `services/ml:NAME`, whose module is `body`; `changes` are fields of its link.

        library: what else is in the bundle, by its path.
        """
        path = f"services/ml/{name}.py"
        address = f"services/ml:{name}"
        sources = self.root / "sources"
        for file, content in {**(library or {}), path: body}.items():
            (sources / file).parent.mkdir(parents=True, exist_ok=True)
            (sources / file).write_text(content)
        summary = pack(
            BundlePlan(
                copy_style="auto",
                root_dir=None,
                entry_points=(EntryPoint(f"services.ml.{name}", name, path, address),),
                files=(
                    PlanFile(path, path, "services/ml:lib", "entry_point", None),
                    *(PlanFile(f, f, "libs:libs", "imported", address) for f in library or ()),
                ),
            ),
            str(sources),
            str(self.dist / f"{name}.tar.gz"),
            str(self.dist / f"{name}.manifest.json"),
            str(self.dist / f"{name}.summary.json"),
        )
        bundle = LinkedBundle(
            archive=f"{name}.tar.gz",
            manifest=f"{name}.manifest.json",
            **summary.hashes,
        )
        link = TaskLink(
            address=address,
            entry_point=f"{path}:{name}",
            kind="task",
            module=f"services.ml.{name}",
            root_dir=None,
            copy_style="auto",
            bundle=bundle,
            image="registry.example/trainer:1",
            tasks=(LinkedTask(name, command(name)),),
        )
        if changes.get("copy_style") == "none":
            changes = {
                "bundle": None,
                "tasks": (LinkedTask(name, command(name, False)),),
                **changes,
            }
        return self.link(name, dataclasses.replace(link, **changes))

    def link(self, name: str, link: TaskLink) -> TaskLink:
        """Write a link as `NAME.json`, and have the plan name it."""
        (self.dist / f"{name}.json").write_bytes(link.to_json())
        self.links[name] = link
        return link

    def recompress(self, name: str) -> TaskLink:
        """The same bundle, by another compressor: another archive and manifest with the same
        content.
        """
        link = self.links[name]
        assert link.bundle is not None
        archive = self.dist / link.bundle.archive
        data = gzip.compress(gzip.decompress(archive.read_bytes()), compresslevel=1, mtime=7)
        archive.write_bytes(data)
        manifest_file = self.dist / link.bundle.manifest
        manifest = dataclasses.replace(
            Manifest.from_json(manifest_file.read_bytes()),
            archive_hash=sha256_bytes(data),
            archive_size=len(data),
        ).to_json()
        manifest_file.write_bytes(manifest)
        bundle = dataclasses.replace(
            link.bundle,
            archive_hash=sha256_bytes(data),
            archive_size=len(data),
            manifest_hash=sha256_bytes(manifest),
            manifest_size=len(manifest),
        )
        return self.link(name, dataclasses.replace(link, bundle=bundle))

    def redescribe(self, name: str, owner: str) -> str:
        """The same archive with a manifest that says something else of it; the manifest's hash.

        As by an edit of `dependencies` that changes no file.
        """
        link = self.links[name]
        assert link.bundle is not None
        place = self.dist / link.bundle.manifest
        manifest = Manifest.from_json(place.read_bytes())
        files = tuple(file._replace(owner=owner) for file in manifest.files)
        data = dataclasses.replace(manifest, files=files).to_json()
        place.write_bytes(data)
        bundle = dataclasses.replace(
            link.bundle, manifest_hash=sha256_bytes(data), manifest_size=len(data)
        )
        self.link(name, dataclasses.replace(link, bundle=bundle))
        return bundle.manifest_hash

    def plan(self, **changes: Any) -> Path:
        """Write the deploy plan; `changes` are fields of it or of its settings."""
        path = self.dist / "__deploy_plan.json"
        settings = {
            **as_json(Settings(project="flytesnacks", domain="development")),
            **{name: changes.pop(name) for name in as_json(Settings()) if name in changes},
        }
        plan = DeployPlan(
            address=ADDRESS,
            fixed=tuple(name for name in FIXED if settings[name] is not None),
            tasks=tuple(f"{name}.json" for name in self.links),
        )
        document = {**json.loads(plan.to_json()), "settings": settings, **changes}
        path.write_text(json.dumps(document))
        return path

    def deploy(self, *typed: str, plan: Mapping[str, Any] | None = None, **how: Any) -> Done:
        """Run the program on what a user typed; `plan` and `how` are for `plan` and `run`."""
        return self.run(*self.arguments(*typed, plan=plan), **how)

    def arguments(self, *typed: str, plan: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """The program's command line for what a user typed."""
        path = self.plan(**(plan or {}))
        return ("deploy", "--plan", str(path), "--dir", str(self.dist), "--", *typed)

    def run(self, *arguments: str, **how: Any) -> Done:
        """Run the program in a process of its own, in the build root; `how` is for `Program`."""
        return Program(self.root, arguments, **how).end()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the program as it is started for a user: by a new interpreter."""
        return subprocess.Popen(
            [sys.executable, "-B", "-m", "flyte_pack", *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": SOURCE_ROOT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    # --- what is in the store --------------------------------------------------------------------

    def records(self, domain: str = "development") -> Path:
        return self.store / "deployments" / "flytesnacks" / domain / "services~.deploy"

    def version(self, version: str) -> Any:
        return json.loads((self.records() / "versions" / f"{version}.json").read_bytes())

    def history(self) -> list[tuple[str, str]]:
        """(action, version) of each history entry, the oldest first; they are numbered from 1,
        without a gap.
        """
        directory = self.records() / "history"
        names = sorted(os.listdir(directory), key=lambda n: int(n[: -len(".json")]))
        assert names == [f"{number}.json" for number in range(1, len(names) + 1)]
        entries = [json.loads((directory / name).read_bytes()) for name in names]
        return [(entry["action"], entry["version"]) for entry in entries]


def command(name: str, bundle: bool = True) -> tuple[str, ...]:
    """A container's command, with holes for the version and (with a `bundle`) its address."""
    code = ("--tgz", BUNDLE_URI_HOLE, "--dest", ".") if bundle else ()
    return ("a0", "--inputs", "{{.input}}", "--version", VERSION_HOLE, *code, "instance", name)


def retar(members: Iterable[tuple[str, bytes, int]]) -> bytes:
    """An archive of (path, content, mode), written by tarfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, data, mode in members:
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


def snapshot(directory: Path) -> dict[str, tuple[int, ...]]:
    """Everything below (and at) a directory, with what changes when anyone writes to it."""
    paths = [directory, *sorted(directory.rglob("*"))] if directory.exists() else []
    stats = ((path, path.lstat()) for path in paths)
    return {
        str(p): (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in stats
    }


def contents(store: Path) -> dict[str, str]:
    """The store's files and what is in them, with all that a clock decides left out."""
    found = {}
    for path in sorted(store.rglob("*")):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            text = re.sub(r'"time": "[^"]+"', '"time": ""', text)
            found[str(path.relative_to(store))] = re.sub(r'"record": "[^"]+"', '"record": ""', text)
    return found
