"""Finds the file, the owner and the tasks that an `entry_point` names. Imports no user code."""

from __future__ import annotations

import importlib.resources
import os
import unicodedata
from dataclasses import dataclass
from typing import Iterable, Optional, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonSourceField
from pants.engine.addresses import Address
from pants.engine.fs import PathGlobs
from pants.engine.process import Process
from pants.engine.target import HydrateSourcesRequest, Target
from pants.util.logging import LogLevel

from flyte_pack.module_scan import ModuleScan, scan
from pants_flyte import engine
from pants_flyte.changed import ordinary_owners
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import alike_glob, composed, exactly, literal_glob
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
    target = (await engine.targets_at([module.owner]))[0]
    sources = await engine.hydrated_sources([HydrateSourcesRequest(target[PythonSourceField])])
    source = (await engine.contents(sources[0].snapshot.digest))[0].content
    newest = _newest_python(target, python_setup)
    return await scan_source(address, module.path, module.owner, source, newest)


def _newest_python(target: Target, python_setup: PythonSetup) -> Optional[Tuple[int, int]]:
    """The newest minor version that the target allows, of those that `[python]` knows."""
    versions = engine.configured_constraints(
        target, python_setup
    ).partition_into_major_minor_versions(python_setup.interpreter_versions_universe)
    found = [tuple(map(int, version.split("."))) for version in versions]
    return max(((major, minor) for major, minor in found), default=None)


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
        return scan(source, path, newest)
    except (SyntaxError, ValueError):
        # The syntax may be newer than this Python: ask the Python that the module is for.
        constraints = await engine.interpreter_constraints([owner])
        python = await engine.find_python(constraints)
        program = (importlib.resources.files("flyte_pack") / "module_scan.py").read_bytes()
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


def name_tasks(
    address: Address, module: EntryModule, found: ModuleScan
) -> Tuple[str, Tuple[str, ...]]:
    """What the entry point's name stands for: a `task`, or an `environment` for all its tasks."""
    name = module.name
    candidates = _candidates(
        f"Tasks and environments in {module.path}",
        (*(task for task, _ in found.tasks), *found.environments),
        nothing=f"{module.path} has no task (`@env.task`) and no `flyte.TaskEnvironment`.",
    )
    if name is None:
        raise FlyteTargetError(
            address, f"`entry_point` names the file {module.path}, but no task in it. {candidates}"
        )
    if name in found.environments:
        tasks = found.tasks_of(name)
        if not tasks:
            raise FlyteTargetError(
                address,
                f"{module.path}:{name} is an environment without a task in that file. {candidates}",
            )
        return "environment", tasks
    if name in found.apps:
        raise FlyteTargetError(
            address,
            f"{module.path}:{name} is an app environment, and has no tasks: write a `flyte_app` "
            "instead of the `flyte_task`, or name a task or a `flyte.TaskEnvironment`. "
            f"{candidates}",
        )
    if name in found.plain:
        raise FlyteTargetError(
            address,
            f"{module.path}:{name} is not a task: nothing like `@env.task` stands above it. "
            f"{candidates}",
        )
    if name not in found.names and not found.open_ended:
        raise FlyteTargetError(address, f"{module.path} has no `{name}`. {candidates}")
    return "task", (name,)


def name_app(
    address: Address, module: EntryModule, found: ModuleScan
) -> Tuple[str, Tuple[str, ...]]:
    """The same for a `flyte_app`: the kind `app`, and its name."""
    name, path = module.name, module.path
    candidates = _candidates(
        f"Apps in {path}",
        found.apps,
        nothing=f"{path} has no `flyte.app.AppEnvironment` at its top level.",
    )
    if name is None:
        raise FlyteTargetError(
            address, f"`entry_point` names the file {path}, but no app in it. {candidates}"
        )
    if name in found.environments or name in dict(found.tasks):
        kind = "environment for tasks" if name in found.environments else "task"
        raise FlyteTargetError(
            address,
            f"{path}:{name} is {'an' if kind[0] == 'e' else 'a'} {kind}, and no app: write a "
            f"`flyte_task` instead of the `flyte_app`, or name an app. {candidates}",
        )
    if name in found.plain:
        raise FlyteTargetError(address, f"{path}:{name} is not an app. {candidates}")
    if name not in found.names and not found.open_ended:
        raise FlyteTargetError(address, f"{path} has no `{name}`. {candidates}")
    return "app", (name,)


def _candidates(what: str, names: Iterable[str], *, nothing: str = "") -> str:
    every = sorted(set(names))
    if not every:
        return nothing or f"{what}: none."
    return f"{what}: {', '.join(every)}."
