"""Finds the file, the owner and the tasks or the app of an `entry_point`. Imports no user code."""

from __future__ import annotations

import functools
import importlib.resources
import os
import unicodedata
from dataclasses import dataclass
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonSourceField
from pants.engine.addresses import Address
from pants.engine.fs import PathGlobs
from pants.engine.process import Process
from pants.engine.target import HydrateSourcesRequest, Target
from pants.util.logging import LogLevel

from flyte_pack.code.entry_names import Code, Kind, Wanted
from flyte_pack.code.entry_names import Named as NameInCode
from flyte_pack.code.image_scan import Asked, asked_by
from flyte_pack.code.module_scan import ModuleScan, scan
from pants_flyte import engine
from pants_flyte.changed import ordinary_owners
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModule, FirstPartyModules, dotted_name
from pants_flyte.globs import alike_glob, composed, exactly, literal_glob
from pants_flyte.layout import root_path
from pants_flyte.targets import is_in_resolve


@dataclass(frozen=True)
class EntryModule:
    """An entry point: its file, from the build root, the owner of that, and the name in it."""

    path: str
    owner: Address
    name: Optional[str]


def parse_entry_point(address: Address, value: str) -> Tuple[str, Optional[str]]:
    """`file.py:name` -> (path from the build root, name or None).

    The name is as Python has it: identifiers are in NFKC (the language reference, "Identifiers").
    """
    file, _, name = value.partition(":")
    if not file.endswith(".py") or ":" in name or not (name.isidentifier() or value == file):
        raise FlyteTargetError(
            address,
            f"`entry_point={value!r}` is not a file and a name. Write the file relative to this "
            'BUILD file, a colon, and the task: `entry_point="workflows.py:train"`.',
        )
    path = os.path.normpath(os.path.join(address.spec_path, file))
    if os.path.isabs(file) or path.split(os.sep)[0] == os.pardir:
        raise FlyteTargetError(address, f"`entry_point={value!r}` leaves the build root.")
    return path, unicodedata.normalize("NFKC", name) or None


async def find_entry_module(
    address: Address, value: str, resolve: str, python_setup: PythonSetup
) -> EntryModule:
    """The file of an entry point, which exactly one target of the resolve owns."""
    path, name = parse_entry_point(address, value)
    directory = os.path.dirname(path)
    found = await engine.files_matching(exactly([path]))
    if path not in found.files and not path.isascii():
        # Another spelling of the same characters, as macOS may give names of files.
        alike = await engine.files_matching(PathGlobs([alike_glob(path)]))
        path = next((one for one in alike.files if composed(one) == composed(path)), path)
        directory = os.path.dirname(path)
        found = alike
    if path not in found.files:
        modules = os.path.join(literal_glob(directory), "*.py")
        beside = await engine.files_matching(PathGlobs([modules]))
        raise FlyteTargetError(
            address,
            f"`entry_point={value!r}`: there is no file {path}, or it is ignored. "
            + _candidates(f"Python files in {directory or 'the build root'}", beside.files),
        )
    owner_addresses = (await engine.owners_of_each([path]))[0]
    targets = await engine.targets_at(owner_addresses)
    owners = [target for target in targets if target.has_field(PythonSourceField)]
    if not owners:
        raise FlyteTargetError(
            address,
            f"`entry_point={value!r}`: no target owns {path}. Put `python_sources()` into "
            f"{os.path.join(directory, 'BUILD')} (or run `pants tailor {directory}:`).",
        )
    in_resolve = [target for target in owners if is_in_resolve(target, resolve, python_setup)]
    if not in_resolve:
        raise FlyteTargetError(
            address,
            f"`entry_point={value!r}`: no target owns {path} in the resolve `{resolve}`. Set "
            "`resolve` to that of " + _candidates("its owners", (t.address.spec for t in owners)),
        )
    if len(in_resolve) > 1:
        raise FlyteTargetError(
            address,
            f"`entry_point={value!r}` is ambiguous: several targets own {path}. Leave one of them. "
            + _candidates("Owners", (t.address.spec for t in in_resolve)),
        )
    return EntryModule(path, in_resolve[0].address, name)


async def scan_module(
    address: Address, module: EntryModule, python_setup: PythonSetup
) -> ModuleScan:
    """What the entry module defines and imports."""
    target, source = await _source_of(module)
    newest = _newest_python(target, python_setup)
    return await scan_source(address, module.path, module.owner, source, newest)


async def _source_of(module: EntryModule) -> Tuple[Target, bytes]:
    """With its owner."""
    target = (await engine.targets_at([module.owner]))[0]
    sources = await engine.hydrated_sources([HydrateSourcesRequest(target[PythonSourceField])])
    return target, (await engine.contents(sources[0].snapshot.digest))[0].content


def _newest_python(target: Target, python_setup: PythonSetup) -> Optional[Tuple[int, int]]:
    """The newest minor version that the target allows, of those that `[python]` knows."""
    versions = engine.configured_constraints(
        target, python_setup
    ).partition_into_major_minor_versions(python_setup.interpreter_versions_universe)
    found = [tuple(map(int, version.split("."))) for version in versions]
    return max(((major, minor) for major, minor in found), default=None)


# Each `flyte_task` of an environment asks for the same modules.
_scan = functools.lru_cache(maxsize=4096)(scan)


async def scan_source(
    address: Address,
    path: str,
    owner: Address,
    source: bytes,
    newest: Optional[Tuple[int, int]] = None,
) -> ModuleScan:
    """The same for a source at hand.

    owner: the target that says which Python it is for. newest: as for `scan`.
    """
    try:
        return _scan(source, path, newest)
    except (SyntaxError, ValueError):
        # The syntax may be newer than this Python: ask the Python that the module is for.
        constraints = await engine.interpreter_constraints([owner])
        python = await engine.find_python(constraints)
        program = (importlib.resources.files("flyte_pack.code") / "module_scan.py").read_bytes()
        script = "__module_scan.py"
        result = await engine.run_process(
            Process(
                [python.path, "-IS", script, path],
                input_digest=await engine.create_digest({script: program, path: source}),
                description=f"Look for tasks and imports in {path}",
                level=LogLevel.DEBUG,
            )
        )
        if result.exit_code != 0:
            said = result.stderr.decode(errors="replace").strip()
            raise FlyteTargetError(
                address, f"{path} cannot be parsed by {python.path} ({constraints}): {said}"
            ) from None
        return ModuleScan.from_json(result.stdout)


async def included(
    address: Address, module: EntryModule, python_setup: PythonSetup
) -> Tuple[Address, ...]:
    """The owners of the files that the module's environments `include`.

    Registration reports files without an owner: it looks for files as Flyte does.
    """
    try:
        found = await scan_module(address, module, python_setup)
    except FlyteTargetError:
        return ()  # building the task reports it; a question about the graph needs an answer
    directory = os.path.dirname(module.path)
    globs = [os.path.normpath(os.path.join(directory, pattern)) for pattern in found.includes]
    globs = [glob for glob in globs if not os.path.isabs(glob) and not glob.startswith(os.pardir)]
    if not globs:
        return ()
    matched = await engine.files_matching(
        PathGlobs([part for glob in globs for part in (glob, os.path.join(glob, "**"))])
    )
    owners = await ordinary_owners(matched.files)
    return tuple(
        sorted({owner.address for found_owners in owners.values() for owner in found_owners})
    )


# --- what a name stands for -----------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """What an entry point names, and the tasks of that.

    modules: those that the tasks stand in, each with a task's name.
    """

    kind: Kind
    tasks: Tuple[EntryModule, ...]


@dataclass(frozen=True)
class Repository:
    """Where names are looked up: the modules of one resolve, as far as they are known.

    name: what imports call the module of the entry point.
    """

    address: Address
    entry: EntryModule
    name: str
    code: Code
    resolve: str
    modules: FirstPartyModules
    python_setup: PythonSetup


async def repository_of(
    address: Address,
    entry: EntryModule,
    resolve: str,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
) -> Repository:
    root = root_path((await engine.source_roots([entry.path]))[entry.path])
    name = dotted_name(entry.path, root)
    code = Code()
    found = await scan_module(address, entry, python_setup)
    _, source = await _source_of(entry)
    is_package = os.path.basename(entry.path) == "__init__.py"
    code.add(name, found, is_package, (entry.path, source))
    return Repository(address, entry, name, code, resolve, modules, python_setup)


async def _load(repository: Repository, wanted: Sequence[str]) -> None:
    """Scan these modules, where they are first-party."""
    found = {name: repository.modules.find(name, repository.resolve) for name in wanted}
    modules = {name: module for name, module in found.items() if module is not None}
    targets = await engine.targets_at([module.owner for module in modules.values()])
    paths = sorted({module.path for module in modules.values()})
    content = {file.path: file.content for file in await engine.contents_matching(exactly(paths))}
    for name in wanted:
        if name not in modules:
            repository.code.add(name, None)
    for (name, module), target in zip(modules.items(), targets):
        newest = _newest_python(target, repository.python_setup)
        path, source = module.path, content.get(module.path, b"")
        try:
            scanned: Optional[ModuleScan] = await scan_source(
                repository.address, path, module.owner, source, newest
            )
        except FlyteTargetError:  # what imports it says so; here it may have any name
            scanned = ModuleScan((), (), True, ())
        repository.code.add(name, scanned, module.is_package, (path, source))


async def what_it_names(repository: Repository) -> NameInCode:
    """What the entry point's name stands for, across modules: the kind, and where it was made."""
    while True:
        try:
            return repository.code.named(repository.name, repository.entry.name or "")
        except Wanted as wanted:
            await _load(repository, [wanted.module])


async def image_asked(repository: Repository) -> Optional[Tuple[str, Asked]]:
    """The environment of the entry point (`file.py:name`), and what its Image asks for.

    None where there is none, or where the source does not say that literally.
    """
    named = await what_it_names(repository)
    place = named.environment if named.kind is Kind.TASK else named.at
    while place is not None:
        try:
            found = asked_by(repository.code, place)
            return (f"{repository.code.files[place[0]][0]}:{place[1]}", found) if found else None
        except Wanted as wanted:
            await _load(repository, [wanted.module])
    return None


async def _tasks_in(
    repository: Repository, module: str, environment: Optional[NameInCode]
) -> Tuple[str, ...]:
    """The names of a module's tasks; with an environment, of those in that."""
    while True:
        try:
            if environment is not None:
                return repository.code.tasks_of(module, environment)
            return tuple(name for name, _ in repository.code.tasks_in(module))
        except Wanted as wanted:
            await _load(repository, [wanted.module])


async def _all_in(repository: Repository) -> Tuple[str, ...]:
    """The tasks and environments of the entry point's module."""
    tasks = await _tasks_in(repository, repository.name, None)
    while True:
        try:
            return (*tasks, *repository.code.environments_in(repository.name))
        except Wanted as wanted:
            await _load(repository, [wanted.module])


async def _elsewhere(
    repository: Repository, environment: Optional[NameInCode]
) -> List[Tuple[FirstPartyModule, str]]:
    """The tasks of other modules of the resolve; with an environment, those in that."""
    others = {
        name: module
        for name, module in repository.modules.with_tasks(repository.resolve)
        if name != repository.name and repository.modules.find(name, repository.resolve) == module
    }
    await _load(repository, [name for name in others if name not in repository.code.scans])
    found = []
    for name, module in others.items():
        for task in await _tasks_in(repository, name, environment):
            found.append((module, task))
    return found


async def tasks_named(repository: Repository) -> Optional[Named]:
    """The tasks that the entry point names: one, or those of an environment. None if it names none.

    An environment has the tasks in its file; if there are none, those in the modules that import
    it, but for tests. What is `UNKNOWN` may be a task: whoever imports the module finds out.
    """
    entry = repository.entry
    if entry.name is None:
        return None
    named = await what_it_names(repository)
    if named.kind is Kind.TASK:
        return Named(Kind.TASK, (entry,))
    if named.kind not in (Kind.ENVIRONMENT, Kind.UNKNOWN):
        return None
    here = await _tasks_in(repository, repository.name, named)
    tasks = [EntryModule(entry.path, entry.owner, task) for task in here]
    if not here:
        found = await _elsewhere(repository, named)
        tasks = _checked_modules(repository.address, f"{entry.path}:{entry.name}", found)
    if tasks:
        return Named(Kind.ENVIRONMENT, tuple(tasks))
    return Named(Kind.UNKNOWN, (entry,)) if named.kind is Kind.UNKNOWN else None


async def name_tasks(repository: Repository) -> Named:
    """As `tasks_named`, for a `flyte_task`; what names none is an error that says what to name."""
    found = await tasks_named(repository)
    if found is not None:
        return found
    entry = repository.entry
    at = f"{entry.path}:{entry.name}"
    if entry.name is None:
        problem = f"`entry_point` names the file {entry.path}, but no task in it."
    else:
        named = await what_it_names(repository)
        problem = {
            Kind.ENVIRONMENT: f"{at} is an environment without a task, in that file and in all "
            "modules that import it.",
            Kind.APP: f"{at} is an app environment, and has no tasks: write a `flyte_app` instead "
            "of the `flyte_task`, or name a task or a `flyte.TaskEnvironment`.",
            Kind.OTHER: f"{at} is no task. It is {named.what}.",
            Kind.MISSING: f"{entry.path} has no `{entry.name}`.",
        }[named.kind]
    raise FlyteTargetError(repository.address, f"{problem} {await _candidates_of(repository)}")


async def name_app(repository: Repository) -> Named:
    """The app that the entry point of a `flyte_app` names, or what may be one."""
    entry = repository.entry
    named = await what_it_names(repository)
    if entry.name is not None and named.kind in (Kind.APP, Kind.UNKNOWN):
        return Named(named.kind, (entry,))
    at = f"{entry.path}:{entry.name}"
    instead = "and no app: write a `flyte_task` instead of the `flyte_app`, or name an app."
    problem = {
        Kind.TASK: f"{at} is a task, {instead}",
        Kind.ENVIRONMENT: f"{at} is an environment for tasks, {instead}",
        Kind.OTHER: f"{at} is no app. It is {named.what}.",
        Kind.MISSING: f"{entry.path} has no `{entry.name}`.",
    }
    raise FlyteTargetError(
        repository.address,
        (
            f"`entry_point` names the file {entry.path}, but no app in it."
            if entry.name is None
            else problem[named.kind]
        )
        + " "
        + _candidates(
            f"Apps in {entry.path}",
            await _apps_in(repository),
            nothing=f"{entry.path} has no `flyte.app.AppEnvironment` at its top level. Write "
            "`NAME = flyte.app.AppEnvironment(...)` there, or name the file that has one.",
        ),
    )


async def _apps_in(repository: Repository) -> Tuple[str, ...]:
    """The apps of the entry point's module."""
    while True:
        try:
            return repository.code.apps_in(repository.name)
        except Wanted as wanted:
            await _load(repository, [wanted.module])


def _checked_modules(
    address: Address, at: str, found: Sequence[Tuple[FirstPartyModule, str]]
) -> List[EntryModule]:
    """The tasks of an environment, from several modules. Flyte knows them by name alone."""
    kept = [(module, task) for module, task in found if not module.is_test]
    if found and not kept:
        where = _places(found)
        raise FlyteTargetError(address, f"{at} is an environment with tasks in tests only: {where}")
    by_name: Dict[str, FirstPartyModule] = {}
    for module, task in kept:
        first = by_name.setdefault(task, module)
        if first.path != module.path:
            raise FlyteTargetError(
                address,
                f"{at} is an environment with two tasks `{task}`, in {first.path} and in "
                f"{module.path}, and Flyte would keep one of them. Rename one, or name one of "
                "these files in `entry_point`.",
            )
    return [EntryModule(module.path, module.owner, task) for module, task in kept]


async def _candidates_of(repository: Repository) -> str:
    """What the entry point could name instead: in its file, else in what that imports, else
    anywhere in its directory.
    """
    path = repository.entry.path
    here = await _all_in(repository)
    if here:
        return _candidates(f"Tasks and environments in {path}", here)
    nothing = f"{path} has no task (`@env.task`) and no `flyte.TaskEnvironment`."
    elsewhere = [found for found in await _elsewhere(repository, None) if not found[0].is_test]
    reached = {
        target.address
        for target in (await engine.transitive_targets([repository.entry.owner])).closure
    }
    imported = [found for found in elsewhere if found[0].owner in reached]
    below = [found for found in elsewhere if _is_below(found[0].path, repository.address.spec_path)]
    for found, what in ((imported, "modules that it imports"), (below, "other modules")):
        if found:
            first = os.path.relpath(found[0][0].path, repository.address.spec_path or ".")
            return (
                f"{nothing} But {what} have some: {_places(found)} "
                f'Write `entry_point="{first}:{found[0][1]}"`.'
            )
    return (
        f"{nothing} Write `env = flyte.TaskEnvironment(...)` there, and `@env.task` above a "
        "function."
    )


_SHOWN = 10


def _places(found: Sequence[Tuple[FirstPartyModule, str]]) -> str:
    """`a.py (x, y), b.py (z).`"""
    by_path: Dict[str, List[str]] = {}
    for module, task in found:
        by_path.setdefault(module.path, []).append(task)
    shown = [
        f"{path} ({', '.join(tasks[:_SHOWN])}{', ...' if len(tasks) > _SHOWN else ''})"
        for path, tasks in list(by_path.items())[:_SHOWN]
    ]
    more = len(by_path) - len(shown)
    return ", ".join(shown) + (f" and {more} more." if more > 0 else ".")


def _is_below(path: str, directory: str) -> bool:
    return not directory or path.startswith(f"{directory}/")


def _candidates(what: str, names: Iterable[str], *, nothing: str = "") -> str:
    every = sorted(set(names))
    if not every:
        return nothing or f"{what}: none."
    return f"{what}: {', '.join(every)}."
