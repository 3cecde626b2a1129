"""Flyte's own local runner, on the code of a task that is in the working directory.

`flyte_pack.run.local` starts this file by its path, in the environment of the task: it must import nothing of ours.
`flyte_pack.run.in_image` does so in the task's image; there, what the runner would do itself is handed to `a0`, the
program that runs tasks in containers.

What differs from `flyte run --local FILE NAME` is what differs in a container: the bundle's directory comes first on
`sys.path` (Flyte's command line puts it last, and the file's own directory too), and the module is imported by its
real name, once (there it is loaded by its file name, a second time where anything imports it, and without a package
for relative imports). All that a user sees, options, help, errors, output, is Flyte's.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
from typing import Any, NoReturn

A0 = "--a0"


def run(spec: dict[str, Any], arguments: list[str]) -> NoReturn:
    """Start Flyte's command line; ends the process with its exit code.

    spec: {"file": entry point's file, "module": its name, "tasks": [names], "target": address, "config": a file with
    the settings to use, "a0": a directory for what goes in and out, if the task is to be run by a0, and "bundle": arguments
    for that}. arguments: what follows the file's name in `flyte run --local FILE`.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.getcwd(), *(entry for entry in sys.path if entry != here)]
    try:
        import flyte
        import rich_click as click
        from flyte.cli import _common as flyte_cli
        from flyte.cli.main import main as flyte_main
    except ModuleNotFoundError as error:
        if error.name != "flyte":
            raise
        sys.exit(
            f"{spec['target']}: there is no `flyte` among the requirements that it reaches, so nothing here can run it. "
            "Add flyte 2.5 or newer to the requirements of its resolve, and make the lock file anew; where it is in "
            "there, name it in `dependencies`."
        )
    group: Any = getattr(flyte_cli, "ObjectsPerFileGroup", None)
    if not hasattr(group, "objs") or not hasattr(group, "_filter_objects"):
        sys.exit(
            f"{spec['target']}: Flyte {flyte.version()} has another command line than 2.0 to 2.12, "
            "which are known here; use one of them, or a newer pants-flyte."
        )

    @functools.lru_cache
    def tasks(group: Any) -> dict[str, Any]:
        try:
            module = importlib.import_module(spec["module"])
        except click.ClickException:
            raise
        except Exception as error:
            raise click.ClickException(_import_failure(spec, error)) from error
        found = group._filter_objects(module)
        missing = [name for name in spec["tasks"] if name not in found]
        if missing:
            raise click.ClickException(f"{spec['file']} has no task {', '.join(missing)}")
        return {name: found[name] for name in spec["tasks"]}

    group.objs = property(tasks)
    if spec.get("a0"):
        flyte.with_runcontext = lambda *_, **__: _A0(spec)
    command = ["--config", spec["config"], "run", "--local", spec["file"], *arguments]
    sys.argv = ["flyte", *command]
    flyte_main(args=command, prog_name="flyte")
    sys.exit(0)


def _import_failure(spec: dict[str, Any], error: Exception) -> str:
    text = f"Failed to load {spec['file']}: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        text += (
            f"\nNeither the bundle of {spec['target']} nor its resolve has it. First-party code that is not inferred "
            "goes into `dependencies`, third-party code into the resolve's requirements."
        )
    return text


class _A0:
    """Stands in for Flyte's run context: `run.aio(task, **inputs)` has a0 do it, in a process of its own."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self.run = self
        self.url = spec["a0"]
        self._outputs: Any = None

    def outputs(self) -> Any:
        return self._outputs

    async def aio(self, task: Any, **values: Any) -> _A0:
        import flyte.errors
        from flyte._internal.runtime import convert
        from flyte.remote import ActionOutputs
        from flyteidl2.core import execution_pb2
        from flyteidl2.task import common_pb2

        files = self._spec["a0"]
        inputs = await convert.convert_from_native_to_inputs(task.native_interface, **values)
        with open(f"{files}/inputs.pb", "wb") as file:
            file.write(inputs.proto_inputs.SerializeToString())
        name = next(n for n in self._spec["tasks"] if _is(task, self._spec["module"], n))
        code = subprocess.call([sys.executable, __file__, A0, *_a0_arguments(self._spec, name)])
        # A task that raises ends well, with an error.pb.
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
        value = await convert.convert_outputs_to_native(
            task.native_interface, convert.Outputs(found)
        )
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
        *("--resolver", "flyte._internal.resolvers.default.DefaultTaskResolver"),
        *("mod", spec["module"], "instance", name),
    ]


def _become_a0(arguments: list[str]) -> NoReturn:
    """a0 as it is, but for whom a parent asks to run its children: there is no control plane, so it is this process."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry != here]
    import flyte._bin.runtime as runtime
    from flyte._internal import controllers

    create = controllers.create_controller
    controllers.create_controller = lambda *_, **__: create("local")
    sys.argv = ["a0", *arguments]
    runtime.main()
    sys.exit(0)


if __name__ == "__main__":
    if sys.argv[1] == A0:
        _become_a0(sys.argv[2:])
    start = sys.argv.index("--") + 1  # what stands before it is for the shim
    run(json.loads(sys.argv[start]), sys.argv[start + 1 :])
