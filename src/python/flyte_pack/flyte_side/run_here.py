"""Becomes Flyte's own local runner, on the code of a task that is in the working directory.

`flyte_pack.run.local` starts it in the environment of the task. `flyte_pack.run.in_image` starts it
in the task's image; there `a0`, the program that runs tasks in containers, runs the task.

It differs from `flyte run --local FILE NAME` as a container does: the bundle's directory comes
first on `sys.path` (Flyte's command line puts it last, and the file's own directory too), and the
module is imported once, by its real name (Flyte's command line loads it by its file name, again
where anything imports it, and without a package for relative imports). Everything that a user sees
is Flyte's: options, help, errors, output.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import subprocess
import sys
from typing import Any, NoReturn

from . import MAIN, missing
from .bytecode import finder_of
from .private import RESOLVER, homes, moved, private
from .words import NO_FLYTE, Refused, not_named


class Preparation:
    """What a process that stands by imports, as `serve.prepare` takes it."""

    flyte: Any = None
    needs = ("flyte.cli.main", "flyte.git", "flyte.remote", *homes("RunArguments", "to_inputs"))


def main(argv: list[str]) -> NoReturn:
    """Start Flyte's command line; ends the process with its exit code.

    argv: `--` (what stands before it is for the shim), a JSON object, and what follows the file's
    name in `flyte run --local FILE`. The object is {"file": the entry point's file, "module": its
    name, "tasks": {name: its module}, "target": address, "config": the file of Flyte's settings,
    "given": what of Flyte's command line the target says};
    where the build knows which modules there are, "known": the file for `missing.read`; on the
    machine of the repository, "root": its directory, and "bytecode": as for `finder_of`; to have a0
    run the task, also {"a0": a directory for what goes in and out, "bundle": arguments
    for it}.
    """
    start = argv.index("--") + 1
    spec, arguments = json.loads(argv[start]), argv[start + 1 :]
    sys.path.insert(0, os.getcwd())
    if spec.get("bytecode"):
        sys.path_hooks.insert(0, finder_of(os.getcwd(), spec["bytecode"]))
    # Until the task's module is imported: imports make next to no garbage, and looking for it takes
    # a seventh of the time that Flyte's imports take.
    gc.disable()
    bundle = os.getcwd()
    try:
        _start_flyte(spec, arguments)
    except SystemExit as ended:
        _tell_of_file(spec, bundle, ended)
        raise
    except ModuleNotFoundError as error:
        if error.name != "flyte":
            raise
        sys.exit(
            f"{spec['target']}: {NO_FLYTE}. If it is among them, name it in `dependencies`: "
            "nothing that the task reaches imports it"
        )
    except Refused as error:
        sys.exit(f"{spec['target']}: {error}")
    sys.exit(0)


def _start_flyte(spec: dict[str, Any], arguments: list[str]) -> None:
    if not sys.stdout.isatty() and not os.environ.get("FORCE_COLOR"):
        # Flyte has rich take anything for a terminal, but not for one that knows colours.
        os.environ["TERM"] = "dumb"
        os.environ.setdefault("LINES", "25")  # without it rich does not heed COLUMNS for such a one
    import flyte
    from flyte.cli.main import main as flyte_main

    _name_in_usage(spec)
    group = private("ObjectsPerFileGroup")
    if not hasattr(group, "objs") or not hasattr(group, "_filter_objects"):
        raise moved("the tasks of its command line")
    group.objs = property(functools.lru_cache(functools.partial(_tasks, spec)))
    if spec.get("a0"):
        flyte.with_runcontext = lambda *_, **__: _A0(spec)
    command = ["--config", spec["config"], "run", "--local", spec["file"], *arguments]
    sys.argv = ["flyte", *command]
    flyte_main(args=command, prog_name="flyte")


def _tell_of_file(spec: dict[str, Any], bundle: str, ended: SystemExit) -> None:
    """Flyte has told of the failure that it ends for; say what to write, if a file is missing."""
    path = missing.file_of(ended) if ended.code and spec.get("root") else None
    if path is not None:
        known = missing.read(spec.get("known"))
        advice = missing.file_advice(path, bundle, spec["root"], known)
        if advice is not None:
            print(f"{spec['target']}: {advice}", file=sys.stderr)


def _name_in_usage(spec: dict[str, Any]) -> None:
    """Usage lines have what a user types: the target in the place of Flyte's command line."""
    import rich_click as click

    of_flyte, original = f"flyte run {spec['given']}", click.Context.command_path.fget

    def command_path(context: click.Context) -> str:
        path: str = original(context)
        if path.startswith(of_flyte):
            return f"./pants run {spec['target']} --{path[len(of_flyte) :]}"
        return path

    click.Context.command_path = property(command_path)


def _tasks(spec: dict[str, Any], group: Any) -> dict[str, Any]:
    try:
        return _imported_tasks(spec, group)
    finally:
        gc.freeze()  # what is imported stays
        gc.enable()


def _imported_tasks(spec: dict[str, Any], group: Any) -> dict[str, Any]:
    import rich_click as click

    tasks = _Tasks(spec)
    for name, module in [("", spec["module"]), *spec["tasks"].items()]:
        try:
            imported = importlib.import_module(module)
        except click.ClickException:
            raise
        except Exception as error:
            raise click.ClickException(_import_failure(spec, module, error)) from error
        found = group._filter_objects(imported)
        if name in found:
            tasks[name] = found[name]
        elif name:
            file = spec["file"] if module == spec["module"] else f"module {module}"
            raise click.ClickException(
                f"{name} in {file} {not_named(getattr(imported, name, None))}"
            )
    return tasks


class _Tasks(dict[str, Any]):
    """By name; one that is not there is an error that lists those that are."""

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        self._target = spec["target"]

    def __missing__(self, name: str) -> Any:
        import rich_click as click

        there = ", ".join(sorted(self))
        raise click.ClickException(f"{self._target} has no task {name!a:.80}; it has: {there}")


def _import_failure(spec: dict[str, Any], module: str, error: Exception) -> str:
    what = spec["file"] if module == spec["module"] else f"module {module}"
    text = f"Failed to load {what}: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        text += (
            f"\nThe bundle of {spec['target']} has no module {error.name}, and neither have its "
            f"packages. {missing.advice(error.name, missing.read(spec.get('known')))}."
        )
    return text


class _A0:
    """Stands in for Flyte's run context: `run.aio(task, **inputs)` has a0 run the task."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self.run = self
        self.url = spec["a0"]
        self._outputs: Any = None

    def outputs(self) -> Any:
        return self._outputs

    async def aio(self, task: Any, **values: Any) -> _A0:
        import flyte.errors
        from flyte.remote import ActionOutputs
        from flyteidl2.core import execution_pb2
        from flyteidl2.task import common_pb2

        files, interface = self._spec["a0"], task.native_interface
        inputs = await private("to_inputs")(interface, **values)
        with open(f"{files}/inputs.pb", "wb") as file:
            file.write(inputs.proto_inputs.SerializeToString())
        name = next(n for n, module in self._spec["tasks"].items() if _is(task, module, n))
        arguments = _a0_arguments(self._spec, name)
        code = subprocess.call([sys.executable, MAIN, "run_a0", *arguments])
        # If the task raises, a0 ends with 0 and an error.pb.
        if os.path.exists(f"{files}/error.pb"):
            with open(f"{files}/error.pb", "rb") as file:
                error = execution_pb2.ErrorDocument.FromString(file.read()).error
            raise flyte.errors.RuntimeUserError(error.code, error.message)
        if code:
            raise flyte.errors.RuntimeSystemError("a0", f"a0 ended with exit code {code}")
        found = common_pb2.Outputs()
        if os.path.exists(f"{files}/outputs.pb"):
            with open(f"{files}/outputs.pb", "rb") as file:
                found.ParseFromString(file.read())
        value = await private("from_outputs")(interface, private("Outputs")(found))
        self._outputs = ActionOutputs(found, value if isinstance(value, tuple) else (value,))
        return self


def _is(task: Any, module: str, name: str) -> bool:
    return getattr(importlib.import_module(module), name, None) is task


def _a0_arguments(spec: dict[str, Any], name: str) -> list[str]:
    files = spec["a0"]
    return [
        *("--inputs", f"{files}/inputs.pb", "--outputs-path", files, "--version", "local"),
        *("--run-base-dir", files, "--raw-data-path", f"{files}/raw"),
        *("--run-name", "local", "--name", "a0", "--org", "local"),
        *("--project", os.environ.get("FLYTE_TASK_PROJECT", "flytesnacks")),
        *("--domain", os.environ.get("FLYTE_TASK_DOMAIN", "development")),
        *spec["bundle"],
        *("--resolver", RESOLVER),
        *("mod", spec["tasks"][name], "instance", name),
    ]
