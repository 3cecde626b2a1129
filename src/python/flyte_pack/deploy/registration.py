"""Has the tasks of unpacked bundles described, and registered with Flyte's control plane.

This program runs without Flyte. `flyte_side` does what needs Flyte, on the interpreter of the
tasks' resolve: one process for each bundle imports its task modules, and never sees a token; one
talks to the control plane, and never imports user code.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Callable, NamedTuple, NoReturn, Optional, Tuple

from flyte_pack.deploy.flyte_processes import (
    Process,
    Processes,
    Registered,
    RegistrationError,
)
from flyte_pack.deploy.start import command as start
from flyte_pack.flyte_side.words import again
from flyte_pack.names import TargetAddress
from flyte_pack.progress import Say
from flyte_pack.remembered import private_cache
from flyte_pack.scratch import scratch_place

IMPORT_SECONDS = 120.0
CALL_SECONDS = 60.0
# A process with its own deadline gets this much more time to report that it passed.
_GRACE_SECONDS = 15.0
# This many bundles stay imported, in their memory; the others are imported again to be registered.
_KEPT = 8


@dataclass(frozen=True)
class ControlPlane:
    """Where Flyte is. config: absolute path of a Flyte config.yaml, which the others override."""

    endpoint: str | None = None
    insecure: bool | None = None
    org: str | None = None
    config: str | None = None


@dataclass(frozen=True)
class Entry:
    """An entry point of the target `address`.

    file: its path in the bundle. kind: "task", "environment" or "app". attribute: its name in the
    module.
    image: reference of the linked image; None if the code's own image needs no build.
    modules: those to import after `module`, which have the tasks of an environment.
    """

    address: TargetAddress
    file: str
    module: str
    kind: str
    attribute: str
    image: str | None
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Code:
    """A bundle's code, unpacked into the clean directory `root`, which is a real path.

    uri, archive_hash: None if the code is embedded in an image. elsewhere: apps that other codes
    have as their entries: depending on one of them does not deploy it from here.
    """

    root: str
    uri: str | None
    archive_hash: str | None
    entries: tuple[Entry, ...]
    elsewhere: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class DescribedTask:
    """What Flyte will be told of a task, or an app, of the target `address`.

    attribute: its name in its module. name: Flyte's, "environment.function"; an app's is that of
    its environment. spec: SHA-256 in hexadecimal digits of all but the version. command: arguments
    of the container, with `task_link.VERSION_HOLE` for the version. triggers: their names. kind:
    "task" or "app". environments: of a task, its own, and those whose tasks it may start. reusable:
    whether its containers run several tasks, one after another. file: the path in the code of what
    declares it, if that is a file there. along: whether no target names it or its environment: it
    is registered, without triggers, because the task of one may start it.
    """

    address: TargetAddress
    attribute: str
    name: str
    spec: str
    command: tuple[str, ...]
    triggers: tuple[str, ...]
    kind: str = "task"
    environments: tuple[str, ...] = ()
    reusable: bool = False
    file: str | None = None
    along: bool = False


class Leak(NamedTuple):
    """What looks like a secret in a variable. about: the target, and its task or app."""

    about: str
    variable: str
    rule: str

    @property
    def address(self) -> str:
        return self.about.partition(": ")[0]


@dataclass(frozen=True)
class Described:
    """The tasks and apps of all codes. warnings: for the user. flyte: the SDK's version."""

    tasks: tuple[DescribedTask, ...]
    warnings: tuple[str, ...]
    flyte: str
    leaks: tuple[Leak, ...] = ()


# As of `source_link.SourceLink.told`.
SourceOf = Callable[[Sequence[DescribedTask]], Optional[Mapping[str, Any]]]
# (Flyte's name of the task, name of the trigger)
TriggerName = Tuple[str, str]


@dataclass(frozen=True)
class SeenTask:
    """What Flyte has of a task. exists: whether the version is there. newest: the version that is
    run if none is named, None if there is none. fresh: a version of the same content that is free.
    """

    exists: bool
    newest: str | None
    fresh: str


@dataclass(frozen=True)
class SeenTrigger:
    """What Flyte has of a trigger. version: of its task. paused: deactivated by hand."""

    version: str
    active: bool
    paused: bool


@dataclass(frozen=True)
class Surveyed:
    """What Flyte has already. Tasks of which it does not tell are left out."""

    tasks: Mapping[str, SeenTask]
    triggers: Mapping[TriggerName, SeenTrigger]

    def has(self, name: str) -> bool:
        """Whether the version of this task that was asked for is there."""
        return name in self.tasks and self.tasks[name].exists


def versions_to_send(versions: Mapping[str, str], seen: Mapping[str, SeenTask]) -> dict[str, str]:
    """The version under which each task is to be registered, if that is needed, by its name.

    Tasks with one version stay together: a run's children are looked up under its own version.
    """
    old: dict[str, list[str]] = {}
    for name, version in versions.items():
        one = seen.get(name)
        if one is not None and one.exists and not is_of(version, one.newest or ""):
            old.setdefault(version, []).append(name)
    numbers = {
        version: max(again_number(version, seen[name].fresh) for name in names)
        for version, names in old.items()
    }
    given = {}
    for name, version in versions.items():
        one = seen.get(name)
        if version in numbers:
            given[name] = again(version, numbers[version])
        elif one is None or not one.exists:
            given[name] = version
    return given


def is_of(version: str, registered: str) -> bool:
    """Whether `registered` is the version, or a further one of the same content."""
    return registered == version or again_number(version, registered) > 0


def again_number(version: str, registered: str) -> int:
    """The number of a further version, 0 if it is none of `version`."""
    start = again(version, 0)[:-1]
    number = registered[len(start) :]
    is_one = registered.startswith(start) and number.isascii() and number.isdecimal()
    return int(number) if is_one else 0


class Registrar:
    """Describes and registers tasks in a `with` block, which leaves no process.

    python: the arguments that start the interpreter of the resolve. environ: the environment for
    signing in. import_environ: the whole environment of task modules. images: references by the
    names of `Image.from_ref_name`. known: a file that says which modules there are, for messages.
    """

    def __init__(
        self,
        *,
        python: Sequence[str],
        environ: Mapping[str, str],
        control_plane: ControlPlane,
        project: str,
        domain: str,
        images: Mapping[str, str],
        import_environ: Mapping[str, str],
        say: Say = lambda text: None,
        import_seconds: float = IMPORT_SECONDS,
        known: str | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._processes = processes or Processes()
        self._python, self._environ, self._import_environ = python, environ, import_environ
        self._where = _settings(control_plane, project, domain)
        self._images, self._say, self._import_seconds = dict(images), say, import_seconds
        self._known = known
        self._client: Process | None = None
        self._org: str | None = None
        self._bundles: list[_Bundle] = []
        self._owner: dict[str, _Bundle] = {}
        self._apps: set[str] = set()
        self._tasks: dict[str, DescribedTask] = {}

    def __enter__(self) -> Registrar:
        self._client = self._processes.take(self._python, "client", self._environ, self._say)
        return self

    def __exit__(self, *_: object) -> None:
        self._end_bundles()
        if self._client is not None:
            self._client.end()
        self._client = None

    def describe(self, codes: Sequence[Code]) -> Described:
        """Import the codes' modules and describe their tasks, without the network.

        Raises `RegistrationError`, with all problems.
        """
        self._end_bundles()
        self._bundles = [_Bundle(code, number < _KEPT) for number, code in enumerate(codes)]
        for bundle in self._bundles[:_KEPT]:
            # Each imports Flyte while this program goes on.
            bundle.process = self._start()
        self._settings()
        found = self._describe_each()
        tasks: dict[str, DescribedTask] = {}
        for bundle, described in zip(self._bundles, found):
            for task in map(_described, described["tasks"]):
                other = tasks.setdefault(task.name, task)
                if other is not task and task.along:
                    continue
                if other is not task and not other.along:
                    raise _twice(other, task)
                tasks[task.name] = task
                self._owner[task.name] = bundle
                self._tasks[task.name] = task
                if task.kind == "app":
                    self._apps.add(task.name)
        return Described(
            tuple(tasks.values()),
            tuple(dict.fromkeys(line for described in found for line in described["warnings"])),
            found[0]["flyte"] if found else "",
            tuple(dict.fromkeys(Leak(*row) for described in found for row in described["leaks"])),
        )

    def _describe_each(self) -> list[Any]:
        found: list[Any] = []
        problems: list[str] = []
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            try:
                for answer in [pool.submit(self._describe, bundle) for bundle in self._bundles]:
                    try:
                        found.append(answer.result())
                    except RegistrationError as error:
                        problems.append(str(error))
            except BaseException:
                # Interrupted: end what the threads wait for.
                for bundle in self._bundles:
                    if bundle.process is not None:
                        bundle.process.kill()
                raise
        if problems:
            raise RegistrationError("\n".join(dict.fromkeys(problems)))
        return found

    def survey(self, versions: Mapping[str, str], triggers: Sequence[TriggerName] = ()) -> Surveyed:
        """What Flyte has of tasks, by their Flyte names, and of triggers.

        Raises `RegistrationError` also if the project is not there, or has no such domain.
        """
        self._settings()
        assert self._client is not None
        found = self._client.ask(
            "survey", None, tasks=sorted(versions.items()), triggers=sorted(triggers)
        )
        return Surveyed(
            {name: SeenTask(**one) for name, one in found["tasks"].items()},
            {(task, name): SeenTrigger(*rest) for task, name, *rest in found["triggers"]},
        )

    def check(self, versions: Mapping[str, str]) -> None:
        """Raises `RegistrationError` if Flyte has another content under one of these versions."""
        versions = {name: one for name, one in versions.items() if name not in self._apps}
        if not versions:
            return
        self._settings()
        assert self._client is not None
        self._client.ask("check", None, requests=self._requests(versions))

    def deactivate(self, triggers: Sequence[TriggerName]) -> None:
        """Stop triggers from firing."""
        self._settings()
        assert self._client is not None
        self._client.ask("deactivate", None, triggers=sorted(triggers))

    def active_triggers(self) -> list[tuple[str, str, str]]:
        """(task, name, version that it runs) of each active trigger of the project and domain."""
        self._settings()
        assert self._client is not None
        return [(task, name, version) for task, name, version in self._client.ask("active", None)]

    def firing(self) -> list[TriggerName]:
        """The active triggers of the project and domain; none if Flyte does not tell."""
        self._settings()
        assert self._client is not None
        return [(task, name) for task, name in self._client.ask("firing", None)]

    def active_apps(self, strict: bool = False) -> list[tuple[str, tuple[str, ...]]]:
        """(name, whole command) of each app of the project and domain that is not stopped.

        None if Flyte has no apps, or does not tell; strict: an error if it does not tell.
        """
        self._settings()
        assert self._client is not None
        found = self._client.ask("active_apps", None, strict=strict)
        return [(name, tuple(command)) for name, command in found]

    def stop_apps(self, names: Sequence[str]) -> None:
        """Deactivate apps, by their Flyte names."""
        self._settings()
        assert self._client is not None
        self._client.ask("stop_apps", None, names=list(names))

    def register(
        self,
        versions: Mapping[str, str],
        surveyed: Surveyed | None = None,
        paused: Sequence[TriggerName] = (),
        source: SourceOf | None = None,
    ) -> Iterator[Registered]:
        """Register described tasks, by their Flyte names, each under its version.

        What is there already is not sent, unless it is not the newest any more: then it is
        registered under a further version. surveyed: what `survey` found, if it was asked. paused:
        triggers that are to stay inactive. source: says where their source is. Yields each as it is
        registered; exhaust it. Raises `RegistrationError`, with those that were registered before.
        """
        unknown = sorted(set(versions) - set(self._owner))
        assert not unknown, f"not described: {unknown}"
        tasks = {name: one for name, one in versions.items() if name not in self._apps}
        apps = {name: one for name, one in versions.items() if name in self._apps}
        if surveyed is None:
            surveyed = self.survey(tasks)
            self.check({n: v for n, v in tasks.items() if surveyed.has(n)})
        seen = surveyed.tasks
        given = versions_to_send(tasks, seen)
        done: list[Registered] = []
        for name in sorted(tasks.keys() - given.keys()):
            done.append(Registered(name, seen[name].newest or tasks[name], "present"))
            yield done[-1]
        if not given and not apps:
            return
        statuses = {
            name: "again" if version != tasks[name] else "present"
            for name, version in given.items()
            if surveyed.has(name)
        }
        told = source and source([self._tasks[name] for name in sorted({*given, *apps})])
        requests = self._requests(given, paused, told)
        app_requests = self._made("app_requests", apps, source=told)
        assert self._client is not None
        try:
            answers = self._client.answers("register", None, requests=requests, statuses=statuses)
            for answer in answers if requests else ():
                if "registered" in answer:
                    done.append(Registered(**answer["registered"]))
                    yield done[-1]
            asked = self._client.answers(
                "register_apps", None, requests=app_requests, versions=apps
            )
            for answer in asked if apps else ():
                if "registered" in answer:
                    done.append(Registered(**answer["registered"]))
                    yield done[-1]
        except RegistrationError as error:
            raise RegistrationError(str(error), tuple(done)) from None

    def request(self, name: str, version: str) -> str:
        """The request, in base64, that would register a described task under a version."""
        [made] = self._requests({name: version})
        return made

    def _requests(
        self,
        versions: Mapping[str, str],
        paused: Sequence[TriggerName] = (),
        source: Mapping[str, Any] | None = None,
    ) -> list[str]:
        return self._made("requests", versions, paused=sorted(paused), source=source)

    def _made(self, what: str, versions: Mapping[str, str], **more: Any) -> list[str]:
        """The requests, in base64, of described tasks or apps."""
        made: list[str] = []
        for bundle in dict.fromkeys(self._owner[name] for name in versions):
            if bundle.process is None:
                self._load(bundle)
            assert bundle.process is not None
            given = {n: v for n, v in versions.items() if self._owner[n] is bundle}
            made += bundle.process.ask(what, self._import_seconds, versions=given, **more)
            bundle.end_unless_kept()
        return made

    def _start(self) -> Process:
        return self._processes.take(self._python, "describe", self._import_environ, self._say)

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
            project=self._where["project"],
            domain=self._where["domain"],
            names=self._images,
            seconds=self._import_seconds,
            known=self._known,
            bytecode=private_cache("bytecode"),
        )

    def _end_bundles(self) -> None:
        for bundle in self._bundles:
            if bundle.process is not None:
                bundle.process.end()
        self._bundles, self._owner, self._apps, self._tasks = [], {}, set(), {}

    def upload(self, path: str, name: str) -> str:
        """Upload a file through Flyte's data proxy; returns its URI, which ends in `name`.

        The same content gets the same URI. Raises `RegistrationError`.
        """
        self._settings()
        assert self._client is not None
        return str(self._client.ask("upload", None, path=os.path.abspath(path), name=name))

    def _settings(self) -> None:
        """Give the client its settings, once; learn the organisation of the tasks."""
        assert self._client is not None, "use it in a `with` block"
        if self._org is None:
            self._org = self._client.ask("settings", _GRACE_SECONDS * 4, **self._where) or ""


def run(
    *,
    python: Sequence[str],
    environ: Mapping[str, str],
    control_plane: ControlPlane,
    project: str,
    domain: str,
    name: str,
    version: str,
    arguments: Sequence[str],
    program: str,
    command: Sequence[str] = (),
    request: str | None = None,
    ours: Sequence[str] = (),
    follow: bool = True,
) -> NoReturn:
    """Become a process that runs a task; its exit code is 0 if the run succeeds.

    arguments: inputs, as options (`--n 5`), as `flyte run deployed-task` takes them. program: what
    the help calls the program. command: what the registered task must run; or request: of a task
    that is not registered, of `Registrar.request`. ours: options that come before the inputs.
    follow: False ends when the run has started.
    """
    spec = {
        "settings": _settings(control_plane, project, domain),
        "name": name,
        "version": version,
        "program": program,
        "command": list(command),
        "request": request,
        "ours": list(ours),
        "follow": follow,
    }
    # Not an argument: it may be long, and everybody on the machine reads arguments.
    with tempfile.TemporaryFile(dir=scratch_place()) as file:
        file.write(json.dumps(spec).encode())
        file.flush()
        os.set_inheritable(file.fileno(), True)
        whole = [*start(python), "run_deployed", str(file.fileno()), "--", *arguments]
        os.execve(whole[0], whole, {**environ, "DO_NOT_TRACK": "1"})  # noqa: S606


def _settings(control_plane: ControlPlane, project: str, domain: str) -> dict[str, Any]:
    where = {"project": project, "domain": domain}
    return {**asdict(control_plane), **where, "seconds": CALL_SECONDS}


@dataclass(eq=False)
class _Bundle:
    """A bundle's code, and the process that has imported it, if there is one."""

    code: Code
    kept: bool
    process: Process | None = None

    def end_unless_kept(self) -> None:
        if self.process is not None and not self.kept:
            self.process.end()
            self.process = None


def _described(one: dict[str, Any]) -> DescribedTask:
    lists = ("command", "triggers", "environments")
    return DescribedTask(**{**one, **{name: tuple(one.get(name, ())) for name in lists}})


def _twice(one: DescribedTask, other: DescribedTask) -> RegistrationError:
    if one.kind != other.kind:
        return RegistrationError(
            f"{one.address} and {other.address} have a {one.kind} and a {other.kind} of the same "
            f"name, {one.name}: give one of them another name"
        )
    fix = "give both the same `bundle`, or the environments different names"
    if one.kind == "app":
        fix = "write a flyte_app for it and deploy that too, or give both the same `bundle`"
    return RegistrationError(
        f"{one.address} and {other.address} both have the {one.kind} {one.name}, in different "
        f"bundles: {fix}"
    )
