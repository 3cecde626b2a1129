"""Has the tasks of unpacked bundles described and registered with Flyte's control plane, by processes that have the SDK.

This program runs in an environment without Flyte. What needs it is done by `flyte_adapter.py`, on the interpreter of
the tasks' resolve: one process for each bundle, which imports its task modules and never sees the network, and one
that talks to the control plane and never imports user code. They are told and answer in lines of JSON, over pipes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

IMPORT_SECONDS = 120.0
CALL_SECONDS = 60.0
# What the process itself has its own deadline for gets that much more time to say so.
_GRACE_SECONDS = 15.0
_ADAPTER = str(Path(__file__).resolve().parent.parent / "flyte_adapter.py")


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


@dataclass(frozen=True)
class Registered:
    """A task that Flyte has. status: "new", or "present" if it had that version already."""

    name: str
    version: str
    status: str


@dataclass
class RegistrationError(Exception):
    """Why it can't be done, for the user. registered: what went through before."""

    message: str
    registered: tuple[Registered, ...] = field(default=())

    def __str__(self) -> str:
        return self.message


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
        self._client: _Process | None = None
        self._org: str | None = None
        self._codes: list[_Process] = []
        self._owner: dict[str, _Process] = {}

    def __enter__(self) -> Registrar:
        self._client = _Process(self._python, "client", self._environ, self._say)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in (self._client, *self._codes):
            if process is not None:
                process.end()
        self._client, self._codes = None, []

    def describe(self, codes: Sequence[Code]) -> Described:
        """Import the codes' modules and say what Flyte would be told; nothing is asked of the network.

        Raises `RegistrationError`, with all that is wrong.
        """
        org = self._settings()
        # Started together, so that each has imported Flyte when it is its turn.
        started = [_Process(self._python, "code", self._import_environ, self._say) for _ in codes]
        self._codes += started

        def load(process: _Process, code: Code) -> Any:
            return process.ask(
                "load",
                self._import_seconds + _GRACE_SECONDS,
                **asdict(code),
                org=org,
                project=self._project,
                domain=self._domain,
                names=self._images,
                seconds=self._import_seconds,
            )

        found: list[Any] = []
        problems: list[str] = []
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for answer in [pool.submit(load, *pair) for pair in zip(started, codes)]:
                try:
                    found.append(answer.result())
                except RegistrationError as error:
                    problems.append(error.message)
        if problems:
            raise RegistrationError("\n".join(dict.fromkeys(problems)))
        tasks: dict[str, DescribedTask] = {}
        for process, described in zip(started, found):
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
                self._owner[task.name] = process
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
        for process in dict.fromkeys(self._owner[name] for name in versions):
            requests += process.ask("requests", self._import_seconds, versions=dict(versions))
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
    command = [*_command(python), "run", json.dumps(spec), "--", *arguments]
    os.execve(command[0], command, dict(environ))  # noqa: S606


def _settings(control_plane: ControlPlane, project: str, domain: str) -> dict[str, Any]:
    return {
        **asdict(control_plane),
        "project": project,
        "domain": domain,
        "seconds": CALL_SECONDS,
    }


def _command(python: Sequence[str]) -> list[str]:
    # Isolated: neither PYTHONPATH, nor the working directory, nor the user's own packages bring modules in.
    return [*python, "-I", "-u", "-X", "utf8", _ADAPTER]


def _code_command(
    python: Sequence[str], environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """As isolated, but with a fixed hash seed: what task modules make of sets is the same each time."""
    kept = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
    return [*python, "-s", "-u", "-X", "utf8", _ADAPTER], {**kept, "PYTHONHASHSEED": "0"}


class _Process:
    """A process of the adapter: one request at a time, each with its answers."""

    def __init__(
        self,
        python: Sequence[str],
        role: str,
        environ: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        command, env = _command(python), dict(environ)
        if role == "code":
            command, env = _code_command(python, environ)
        try:
            self._process = subprocess.Popen(
                [*command, role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=env,
                # In a group of its own, for what user code starts to be ended with it.
                start_new_session=role == "code",
            )
        except OSError as error:
            raise RegistrationError(f"{python[0]}: {error.strerror}") from None
        self._role, self._say = role, say
        self._buffer = b""
        self._importing = ""

    def ask(self, what: str, within: float | None, **values: Any) -> Any:
        """The answer to a request. Raises `RegistrationError` with what is said against it, or if there is none in time."""
        for answer in self.answers(what, within, **values):
            if "done" in answer:
                return answer["done"]
        raise AssertionError

    def answers(self, what: str, within: float | None, **values: Any) -> Iterator[dict[str, Any]]:
        """Every answer until the request is done."""
        deadline = None if within is None else time.monotonic() + within
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **values}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: what it said before tells why
        while True:
            answer = json.loads(self._line(deadline))
            if "error" in answer:
                raise RegistrationError(answer["error"])
            if "note" in answer:
                self._say(answer["note"])
                continue
            self._importing = answer.get("importing", self._importing)
            yield answer
            if "done" in answer:
                return

    def _line(self, deadline: float | None) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            poll = select.poll()
            poll.register(self._process.stdout, select.POLLIN)
            if not poll.poll(None if left is None else left * 1000):
                self.end()
                raise RegistrationError(
                    f"{self._what()} did not end within its time limit, and was stopped. What takes time, or waits for "
                    "something, belongs in the task, not at the top of its module"
                )
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise RegistrationError(
                    f"{self._what()} {_ending(self._process.wait())} "
                    "What it printed is above; run that import by itself to find out why"
                )
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _what(self) -> str:
        if self._role == "client":
            return "the process that talks to Flyte"
        return f"{self._importing or 'the process that imports the task modules'}: importing it"

    def end(self) -> None:
        """End it, and what it started."""
        if self._role == "code":
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def _ending(code: int) -> str:
    if code < 0:
        return f"ended the process with signal {signal.Signals(-code).name}."
    return f"ended the process with exit code {code}."
