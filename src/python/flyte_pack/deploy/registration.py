"""Has the tasks of unpacked bundles described and registered with Flyte's control plane, by processes that have the SDK.

This program runs in an environment without Flyte. What needs it is done by `flyte_side/adapter.py`, on the interpreter of
the tasks' resolve: one process for each bundle, which imports its task modules and never sees the network, and one
that talks to the control plane and never imports user code. They are told and answer in lines of JSON, over pipes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, NoReturn

from flyte_pack.deploy.flyte_processes import Process, Registered, RegistrationError, command

__all__ = (
    "Code",
    "ControlPlane",
    "Described",
    "DescribedTask",
    "Entry",
    "Include",
    "Registered",
    "Registrar",
    "RegistrationError",
    "run",
)

IMPORT_SECONDS = 120.0
CALL_SECONDS = 60.0
# What the process itself has its own deadline for gets that much more time to say so.
_GRACE_SECONDS = 15.0
# So many bundles stay imported; the others are imported once more to be registered. Each takes what its modules take.
_KEPT = 8


@dataclass(frozen=True)
class ControlPlane:
    """Where Flyte is. endpoint, insecure, org: override what `config`, the absolute path of a Flyte config.yaml, says."""

    endpoint: str | None = None
    insecure: bool | None = None
    org: str | None = None
    config: str | None = None


@dataclass(frozen=True)
class Entry:
    """An entry point. address: its target. file: in the bundle. kind: "task" or "environment". attribute: its name in
    the module. names: of its tasks there. image: reference of the linked image; None: the code's own needs no build.
    """

    address: str
    file: str
    module: str
    kind: str
    attribute: str
    names: tuple[str, ...]
    image: str | None


@dataclass(frozen=True)
class Code:
    """The code of a bundle, unpacked into the clean directory `root`, a real path. uri, archive_hash: None if embedded."""

    root: str
    uri: str | None
    archive_hash: str | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class DescribedTask:
    """What Flyte will be told of a task.

    address: the target it is there for. attribute: its name in its module. name: Flyte's, "environment.function". spec:
    SHA-256 in hexadecimal digits of all that is told, but for the version. size: of that, in bytes. command: arguments of
    the container, with "${VERSION}" where the version goes. triggers: their names.
    """

    address: str
    attribute: str
    name: str
    environment: str
    spec: str
    size: int
    command: tuple[str, ...]
    image: str
    triggers: tuple[str, ...]


@dataclass(frozen=True)
class Include:
    """A file that an environment's `include` names; path: in the bundle."""

    address: str
    environment: str
    path: str


@dataclass(frozen=True)
class Described:
    """The tasks of all codes. warnings: for the user, whole sentences. flyte: the SDK's version."""

    tasks: tuple[DescribedTask, ...]
    includes: tuple[Include, ...]
    warnings: tuple[str, ...]
    flyte: str


class Registrar:
    """Describes and registers, for the time of a `with` block; no process is left after it.

    python: the arguments that start the interpreter of the resolve. environ: the caller's environment, for whatever
    authentication needs. import_environ: the whole environment while task modules are imported. images: what
    `Image.from_ref_name` names, by name. say: is told what happens meanwhile.
    """

    def __init__(
        self,
        python: Sequence[str],
        environ: Mapping[str, str],
        control_plane: ControlPlane,
        project: str,
        domain: str,
        images: Mapping[str, str],
        import_environ: Mapping[str, str],
        say: Callable[[str], None] = lambda text: None,
        import_seconds: float = IMPORT_SECONDS,
    ) -> None:
        self._python, self._environ, self._import_environ = python, environ, import_environ
        self._control_plane, self._project, self._domain = control_plane, project, domain
        self._images, self._say, self._import_seconds = dict(images), say, import_seconds
        self._client: Process | None = None
        self._org: str | None = None
        self._bundles: list[_Bundle] = []
        self._owner: dict[str, _Bundle] = {}

    def __enter__(self) -> Registrar:
        self._client = Process(self._python, "client", self._environ, self._say)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_bundles()
        if self._client is not None:
            self._client.end()
        self._client = None

    def describe(self, codes: Sequence[Code]) -> Described:
        """Import the codes' modules and say what Flyte would be told; nothing is asked of the network.

        Raises `RegistrationError`, with all that is wrong.
        """
        self._end_bundles()
        self._bundles = [_Bundle(code, number < _KEPT) for number, code in enumerate(codes)]
        for bundle in self._bundles[:_KEPT]:
            # Each imports Flyte while this program goes on.
            bundle.process = self._start()
        self._settings()
        found: list[Any] = []
        problems: list[str] = []

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            try:
                for answer in [pool.submit(self._describe, bundle) for bundle in self._bundles]:
                    try:
                        found.append(answer.result())
                    except RegistrationError as error:
                        problems.append(error.message)
            except BaseException:
                # Interrupted: what the threads wait for would go on.
                for bundle in self._bundles:
                    bundle.kill()
                raise
        if problems:
            raise RegistrationError("\n".join(dict.fromkeys(problems)))
        tasks: dict[str, DescribedTask] = {}
        for bundle, described in zip(self._bundles, found):
            for one in described["tasks"]:
                task = DescribedTask(
                    **{**one, "command": tuple(one["command"]), "triggers": tuple(one["triggers"])}
                )
                other = tasks.setdefault(task.name, task)
                if other is not task:
                    raise RegistrationError(
                        f"{other.address} and {task.address} both have the task {task.name}, in different bundles: give "
                        "both the same `bundle`, or the environments different names"
                    )
                self._owner[task.name] = bundle
        return Described(
            tuple(tasks.values()),
            tuple(Include(**one) for described in found for one in described["includes"]),
            tuple(dict.fromkeys(line for described in found for line in described["warnings"])),
            found[0]["flyte"] if found else "",
        )

    def register(self, versions: Mapping[str, str]) -> Iterator[Registered]:
        """Register tasks that `describe` found, by their Flyte names, each under its version.

        Yields what is registered as it happens; take it all. Raises `RegistrationError`, which has it too, if some is not.
        """
        unknown = sorted(set(versions) - set(self._owner))
        assert not unknown, f"not described: {unknown}"
        requests = []
        for bundle in dict.fromkeys(self._owner[name] for name in versions):
            if bundle.process is None:
                self._load(bundle)
            assert bundle.process is not None
            requests += bundle.process.ask(
                "requests", self._import_seconds, versions=dict(versions)
            )
            bundle.end_unless_kept()
        done: list[Registered] = []
        self._settings()
        assert self._client is not None
        try:
            for answer in self._client.answers("register", None, requests=requests):
                if "registered" in answer:
                    one = Registered(**answer["registered"])
                    done.append(one)
                    yield one
        except RegistrationError as error:
            raise RegistrationError(error.message, tuple(done)) from None

    def _start(self) -> Process:
        return Process(self._python, "describe", self._import_environ, self._say)

    def _describe(self, bundle: _Bundle) -> Any:
        described = self._load(bundle)
        bundle.end_unless_kept()
        return described

    def _load(self, bundle: _Bundle) -> Any:
        if bundle.process is None:
            bundle.process = self._start()
        return bundle.process.ask(
            "load",
            self._import_seconds + _GRACE_SECONDS,
            **asdict(bundle.code),
            org=self._org or None,
            project=self._project,
            domain=self._domain,
            names=self._images,
            seconds=self._import_seconds,
        )

    def _end_bundles(self) -> None:
        for bundle in self._bundles:
            if bundle.process is not None:
                bundle.process.end()
        self._bundles, self._owner = [], {}

    def upload(self, path: str, name: str) -> str:
        """Upload a file through the control plane's data proxy, for who has no rights to a bucket; returns its URI.

        name: its last part. The same content gets the same URI. Raises `RegistrationError`.
        """
        self._settings()
        assert self._client is not None
        return str(self._client.ask("upload", None, path=os.path.abspath(path), name=name))

    @property
    def endpoint(self) -> str:
        """Where the control plane is, whoever says so."""
        self._settings()
        return str(self._endpoint)

    def _settings(self) -> str | None:
        """Have the client know its settings; the organisation that tasks will belong to."""
        assert self._client is not None, "use it in a `with` block"
        if self._org is None:
            answer = self._client.ask(
                "settings",
                _GRACE_SECONDS * 4,
                **_settings(self._control_plane, self._project, self._domain),
            )
            self._org, self._endpoint = answer["org"] or "", answer["endpoint"]
        return self._org or None


def run(
    python: Sequence[str],
    environ: Mapping[str, str],
    control_plane: ControlPlane,
    project: str,
    domain: str,
    name: str,
    version: str,
    arguments: Sequence[str],
    program: str,
) -> NoReturn:
    """Become a process that starts a run of a registered task and follows it; its exit code is 0 if that succeeds.

    name, version: the task, as registered. arguments: its inputs, as options (`--n 5`), as `flyte run deployed-task`
    takes them; `--help` lists them. program: what the help calls the program.
    """
    spec = {
        "settings": _settings(control_plane, project, domain),
        "name": name,
        "version": version,
        "program": program,
    }
    whole = [*command(python), "run_deployed", json.dumps(spec), "--", *arguments]
    os.execve(whole[0], whole, {**environ, "DO_NOT_TRACK": "1"})  # noqa: S606


def _settings(control_plane: ControlPlane, project: str, domain: str) -> dict[str, Any]:
    return {
        **asdict(control_plane),
        "project": project,
        "domain": domain,
        "seconds": CALL_SECONDS,
    }


@dataclass(eq=False)
class _Bundle:
    """A bundle's code, and the process that has imported it, if there is one."""

    code: Code
    kept: bool
    process: Process | None = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def end_unless_kept(self) -> None:
        if self.process is not None and not self.kept:
            self.process.end()
            self.process = None
