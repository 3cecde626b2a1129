"""Decides which tasks of a deployment are described and registered, in which environment.

`registration` has the processes that do it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass

from flyte_pack.deploy.code import unpack_archive, unpack_embedded
from flyte_pack.deploy.control_plane import Found
from flyte_pack.deploy.flyte_processes import (
    USUAL,
    Processes,
    Registered,
    import_environ,
)
from flyte_pack.deploy.plan import Environment, Request
from flyte_pack.deploy.records import RecordedTask
from flyte_pack.deploy.registration import (
    Code,
    DescribedTask,
    Entry,
    Leak,
    Registrar,
    SourceOf,
    Surveyed,
    TriggerName,
)
from flyte_pack.deploy.start import SIDE_FILES
from flyte_pack.errors import UserError, listing
from flyte_pack.progress import Say
from flyte_pack.scratch import new_in_memory, scratch_place
from flyte_pack.task_link import TaskLink, more_modules
from flyte_shim.extract import Limits
from flyte_shim.files import remove_tree
from flyte_shim.hashing import sha256_file

_IN_MEMORY = 64 << 20  # bytes of code, unpacked
_SHOWN = 20  # secrets that are told of
_SPARE = 4  # so much more room there must be


@dataclass(frozen=True)
class Source:
    """Where code is: in a bundle, which containers get at `uri`, or below `workdir` in an image.

    path: of the bundle's file, or of the directory of the image's layout. digest: of either.
    """

    path: str
    digest: str
    uri: str | None = None
    workdir: str = ""


@dataclass(frozen=True)
class Shipped:
    """A target with an entry point, the names of its tasks in its module, where its code is.

    allowed_variables: as of its link. What a record has was looked at when that was made.
    """

    entry: Entry
    names: tuple[str, ...]
    code: Source
    allowed_variables: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: TaskLink | RecordedTask, image: str | None, code: Source) -> Shipped:
        file, _, attribute = task.entry_point.rpartition(":")
        more = more_modules(task.kind, task.module, [one.command for one in task.tasks])
        entry = Entry(task.address, file, task.module, task.kind, attribute, image, more)
        allowed = task.allowed_variables if isinstance(task, TaskLink) else None
        return cls(entry, tuple(one.name for one in task.tasks), code, allowed or ())

    @property
    def address(self) -> str:
        return self.entry.address


@dataclass(frozen=True)
class Specifications:
    """What Flyte makes of the tasks, by the target that they are registered for.

    No Flyte task is in there twice. flyte: the versions of the SDKs.
    """

    tasks: Mapping[str, tuple[DescribedTask, ...]]
    flyte: str


class Registering:
    """Describes tasks, then registers them, by processes that live until `close`."""

    def __init__(
        self,
        found: Found,
        request: Request,
        directory: str,
        images: Mapping[str, str],
        say: Say,
        processes: Processes | None = None,
    ) -> None:
        """directory: where the packaged files are. images: references by ref name. processes: some
        may have been started already.
        """
        self.identity = found.identity
        self._control_plane = found.control_plane
        self._request = request
        self._directory = directory
        self._images = images
        self._say = say
        self._processes = processes or Processes()
        self._stack = ExitStack()
        self._registrars: list[tuple[Registrar, frozenset[str]]] = []
        self._asking: Registrar | None = None

    def close(self) -> None:
        """End the processes, and remove what was unpacked for them."""
        self._stack.close()

    def inputs(self, shipped: Sequence[Shipped]) -> dict[str, str]:
        """By address, SHA-256 of all that its specifications depend on: if it is equal, they are.

        The tasks of one bundle count together, since one task's image can be another's.
        """
        request = self._request
        wanted = import_environ(request.plan.import_env)
        identity = {task: one.identity for one in request.plan.environments for task in one.tasks}
        common = {
            "flyte_side": [sha256_file(str(path)) for path in SIDE_FILES],
            "environ": sorted((n, wanted[n]) for n in wanted.keys() - set(USUAL)),
            "project": request.project,
            "domain": request.domain,
            "version": request.settings.version,
            "org": request.settings.org,
            "images": sorted(self._images.items()),
        }
        found: dict[str, str] = {}
        for ones in _by_code(shipped):
            known: dict[str, object] = {
                **common,
                "environments": sorted({identity.get(one.address, "") for one in ones}),
                "shipped": sorted(_identity(one) for one in ones),
            }
            if elsewhere := _elsewhere(ones, shipped):
                known["elsewhere"] = [list(map(str, astuple(entry))) for entry in elsewhere]
            digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
            found.update((one.address, digest) for one in ones)
        return found

    def describe(
        self, shipped: Sequence[Shipped], known: Sequence[DescribedTask] = (), again: bool = False
    ) -> Specifications:
        """Import the tasks from what is shipped, and have Flyte make their specifications.

        known: the tasks of unchanged targets, which are not imported, and cannot be registered.
        again: it was deployed once, so that a secret in a variable is told of, and not refused.
        """
        self._stack.close()
        self._registrars, self._asking = [], None
        self._say("importing the tasks from what is shipped")
        described = list(known)
        versions: list[str] = []
        leaks: list[Leak] = []
        found_by: list[tuple[Registrar, Sequence[DescribedTask]]] = []
        unchanged = {task.address for task in known}
        changed = [one for one in shipped if one.address not in unchanged]
        for environment, ones in self._by_environment(changed):
            registrar = self._stack.enter_context(self._registrar(environment))
            found = registrar.describe(self._codes(ones, shipped))
            for warning in found.warnings:
                self._say(f"warning: {warning}")
            leaks += found.leaks
            described += found.tasks
            versions.append(found.flyte)
            found_by.append((registrar, found.tasks))
        self._tell(leaks, changed, again)
        merged = _merged(described, shipped)
        chosen = {(task.name, task.address) for tasks in merged.values() for task in tasks}
        self._registrars = [
            (registrar, frozenset(t.name for t in tasks if (t.name, t.address) in chosen))
            for registrar, tasks in found_by
        ]
        return Specifications(merged, ", ".join(sorted(set(versions))))

    def _tell(self, leaks: Sequence[Leak], changed: Sequence[Shipped], again: bool) -> None:
        plan = self._request.plan
        allowed = {(one.address, name) for one in changed for name in one.allowed_variables}
        seen = {(leak.address, leak.variable) for leak in leaks}
        if plan.secrets != "ignore":
            for address, name in sorted(allowed - seen):
                self._say(
                    f"warning: {address}: `allow_secrets` has 'env:{name}', which allows nothing: "
                    "no variable of that name holds what looks like a secret"
                )
        lines = [
            f"{leak.about}: its variable {leak.variable}: {leak.rule}"
            for leak in leaks
            if leak.variable not in plan.allowed_variables
            and (leak.address, leak.variable) not in allowed
        ]
        if not lines or plan.secrets == "ignore":
            return
        message = (
            f"{plan.address}: everyone who may see its tasks in Flyte would see what looks like "
            f"secrets:\n{listing(lines, _SHOWN)}\nLet `flyte.Secret` bring them. What is no secret "
            'can be allowed: `allow_secrets=["env:NAME"]` of the target, or the same in `[flyte]`. '
            "See docs/guards.md"
        )
        if plan.secrets == "error" and not again:
            raise UserError(f"{message}.")
        self._say(f"warning: {message}")

    def _codes(self, some: Sequence[Shipped], shipped: Sequence[Shipped]) -> list[Code]:
        """Unpack the code of `some` of what is shipped, each code once."""
        codes = []
        for ones in _by_code(some):
            code, entries = ones[0].code, tuple(one.entry for one in ones)
            uri, digest = (code.uri, code.digest) if code.uri is not None else (None, None)
            codes.append(Code(self._unpack(code), uri, digest, entries, _elsewhere(ones, shipped)))
        return codes

    def _unpack(self, code: Source) -> str:
        """The directory of the code, which `close` removes.

        In memory if it is small: to make a file on a disk can take longer than to import it.
        """
        if code.uri is not None and (top := new_in_memory(_SPARE * _IN_MEMORY)):
            self._stack.callback(remove_tree, top)
            root = os.path.join(os.path.realpath(top), "files")
            # Perhaps it is too large; what else is wrong with it is told below.
            with suppress(UserError, OSError):
                unpack_archive(code.path, code.digest, root, Limits(total_bytes=_IN_MEMORY))
                return root
            remove_tree(top)
        top = tempfile.mkdtemp(prefix="flyte-deploy-", dir=scratch_place())
        self._stack.callback(remove_tree, top)
        root = os.path.join(os.path.realpath(top), "files")
        if code.uri is None:
            unpack_embedded(code.path, code.workdir, root)
        else:
            unpack_archive(code.path, code.digest, root)
        return root

    def upload(self, paths: Mapping[str, str]) -> dict[str, str]:
        """Upload files through Flyte's data proxy; returns their URIs by the names they end in."""
        if not self._request.plan.environments:
            raise UserError("no task has an environment with Flyte, which the upload needs")
        with self._registrar(self._request.plan.environments[0]) as registrar:
            return {name: registrar.upload(path, name) for name, path in paths.items()}

    def survey(self, versions: Mapping[str, str], triggers: Sequence[TriggerName]) -> Surveyed:
        """What Flyte has of tasks, by its names, and of triggers; writes nothing.

        Raises `UserError` if the project is not there, or has no such domain.
        """
        return self._client().survey(versions, triggers)

    def check(self, versions: Mapping[str, str]) -> None:
        """Raises `UserError` if Flyte has other content under a version of a described task."""
        for registrar, here in self._described(versions):
            registrar.check(here)

    def deactivate(self, triggers: Sequence[TriggerName]) -> None:
        """Stop triggers from firing."""
        for task, name in triggers:
            self._say(f"deactivating trigger {name} of {task}")
        if triggers:
            self._client().deactivate(triggers)

    def active_triggers(self) -> list[tuple[str, str, str]]:
        """(task, name, version) of each trigger that fires in the project and domain."""
        return self._client().active_triggers()

    def firing(self) -> list[TriggerName]:
        """The triggers that fire in the project and domain; none if Flyte does not tell."""
        return self._client().firing()

    def active_apps(self, strict: bool = False) -> list[tuple[str, tuple[str, ...]]]:
        """As of `Registrar.active_apps`."""
        return self._client().active_apps(strict)

    def stop_apps(self, names: Sequence[str]) -> None:
        """Deactivate apps; Flyte keeps what they are, and can start them again."""
        for name in names:
            self._say(f"deactivating app {name}")
        if names:
            self._client().stop_apps(names)

    def register(
        self,
        versions: Mapping[str, str],
        surveyed: Surveyed | None = None,
        paused: Sequence[TriggerName] = (),
        source: SourceOf | None = None,
    ) -> Iterator[Registered]:
        """Register described tasks, by Flyte's names, each under its version.

        surveyed, paused, source: as of `Registrar.register`.
        """
        for registrar, here in self._described(versions):
            for one in registrar.register(here, surveyed, paused, source):
                self._say(f"registered {one.name} {one.version} ({one.status})")
                yield one

    def _described(self, versions: Mapping[str, str]) -> Iterator[tuple[Registrar, dict[str, str]]]:
        left = dict(versions)
        for registrar, names in self._registrars:
            here = {name: left.pop(name) for name in sorted(left) if name in names}
            if here:
                yield registrar, here

    def _client(self) -> Registrar:
        """One to ask Flyte with; it need not have described a task."""
        if self._registrars:
            return self._registrars[0][0]
        if self._asking is None:
            if not self._request.plan.environments:
                raise UserError(
                    "no task has an environment with Flyte, by which Flyte is asked: name one in "
                    "the deployment's `tasks`, or type --no-register"
                )
            registrar = self._registrar(self._request.plan.environments[0])
            self._asking = self._stack.enter_context(registrar)
        return self._asking

    def request(self, name: str, version: str) -> str:
        """The request, in base64, that would register a described task under a version."""
        registrar = next(one for one, names in self._registrars if name in names)
        return registrar.request(name, version)

    def _registrar(self, environment: Environment) -> Registrar:
        return Registrar(
            python=environment.command(self._directory),
            environ={**os.environ, **environment.env},
            control_plane=self._control_plane,
            project=self._request.project,
            domain=self._request.domain,
            images=self._images,
            import_environ=import_environ(self._request.plan.import_env),
            say=self._say,
            known=environment.known and os.path.join(self._directory, environment.known),
            processes=self._processes,
        )

    def _by_environment(
        self, shipped: Sequence[Shipped]
    ) -> Iterator[tuple[Environment, list[Shipped]]]:
        environments = self._request.plan.environments
        where = {address: e for e in environments for address in e.tasks}
        for one in shipped:
            if one.address not in where:
                # A recorded task that is not a target any more takes the only resolve.
                if len(environments) != 1:
                    raise UserError(
                        f"{one.address} cannot be registered: this deployment does not have it any "
                        "more, so its packages are not known. Check out the commit that it was "
                        "deployed from"
                    )
                where[one.address] = environments[0]
        for environment in environments:
            ones = [one for one in shipped if where[one.address] is environment]
            if ones:
                yield environment, ones


def _identity(one: Shipped) -> tuple[str, ...]:
    entry = one.entry
    named = (entry.address, entry.file, entry.module, entry.kind, entry.attribute)
    return (*named, entry.image or "", *entry.modules, *_code(one), *one.names)


def _by_code(shipped: Sequence[Shipped]) -> list[list[Shipped]]:
    """Groups with equal code."""
    by_code: dict[tuple[str, str], list[Shipped]] = {}
    for one in shipped:
        by_code.setdefault(_code(one), []).append(one)
    return list(by_code.values())


def _code(one: Shipped) -> tuple[str, str]:
    return one.code.digest, one.code.uri or one.code.workdir


def _elsewhere(ones: Sequence[Shipped], shipped: Sequence[Shipped]) -> tuple[Entry, ...]:
    """The apps that are shipped with other code than `ones`, by address."""
    here = {_code(one) for one in ones}
    others = (one.entry for one in shipped if one.entry.kind == "app" and _code(one) not in here)
    return tuple(sorted(others, key=lambda entry: entry.address))


def _merged(
    described: Sequence[DescribedTask], shipped: Sequence[Shipped]
) -> dict[str, tuple[DescribedTask, ...]]:
    """By target: the tasks that it names, and those it depends on that no target names.

    Raises `UserError` if two targets name one Flyte task with different specifications.
    """
    named = {(one.address, name) for one in shipped for name in one.names}
    merged: dict[str, list[DescribedTask]] = {one.address: [] for one in shipped}
    chosen: dict[str, DescribedTask] = {}
    # Named ones come first, and those that go along with others last.
    for task in sorted(
        described, key=lambda t: ((t.address, t.attribute) not in named, t.along, t.address)
    ):
        first = chosen.setdefault(task.name, task)
        is_named = (task.address, task.attribute) in named
        if is_named and first.spec != task.spec:
            raise UserError(
                f"{first.address} and {task.address} are both the Flyte task {task.name}, with "
                "different code or images: give them one `bundle` and one `image`, or drop one "
                "from the deployment"
            )
        if is_named or first is task:
            merged[task.address].append(task)
    _check_pools([task for tasks in merged.values() for task in tasks], shipped)
    return {address: tuple(sorted(ts, key=lambda t: t.name)) for address, ts in merged.items()}


def _check_pools(tasks: Sequence[DescribedTask], shipped: Sequence[Shipped]) -> None:
    """Raises `UserError` if an environment with a ReusePolicy is in several bundles or images.

    A container of its pool has one of each, and Flyte starts another pool for each other.
    """
    code = {one.address: (_code(one), one.entry.image) for one in shipped}
    pools: dict[str, DescribedTask] = {}
    for task in tasks:
        if not (task.reusable and task.environments):
            continue
        first = pools.setdefault(task.environments[0], task)
        if code[first.address] != code[task.address]:
            what = "bundles" if code[first.address][0] != code[task.address][0] else "images"
            fix = (
                "Write a flyte_bundle with the files of both in its `dependencies`, and name it in "
                "the field `bundle` of both targets; or write one flyte_task with the environment "
                "as its entry_point"
                if what == "bundles"
                else "Set the same `image` on both"
            )
            raise UserError(
                f"{first.address} ({first.name}) and {task.address} ({task.name}) are in the "
                f"environment {task.environments[0]}, which has a ReusePolicy, and in different "
                f"{what}: Flyte would keep a pool of containers for each. {fix}"
            )
