"""Runs one leaf task out of a bundle with the real `a0`, as a container would but without a control plane.

The environment is empty but for what is given here; the working directory holds nothing. What goes in (`inputs.pb`) and
what comes out (`outputs.pb`, `error.pb`) is read and written by Flyte's own converters, in the Flyte environment.
A parent task does not work: it would wait for a control plane to queue its children with.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping

RESOLVER = "flyte._internal.resolvers.default.DefaultTaskResolver"

# Runs in the Flyte environment, in the unpacked bundle. argv: module, task, directory of the protobuf files.
_WRITE_INPUTS = """
import ast, asyncio, importlib, sys
sys.path.insert(0, "")
module, name, directory = sys.argv[1:]
task = getattr(importlib.import_module(module), name)
from flyte._internal.runtime import convert
values = ast.literal_eval(sys.stdin.read())
inputs = asyncio.run(convert.convert_from_native_to_inputs(task.native_interface, **values))
open(directory + "/inputs.pb", "wb").write(inputs.proto_inputs.SerializeToString())
"""

_READ_OUTPUTS = """
import asyncio, importlib, json, os, sys
sys.path.insert(0, "")
module, name, directory = sys.argv[1:]
found = {"value": None, "shown": None, "error": None}
if os.path.exists(directory + "/error.pb"):
    from flyteidl2.core import execution_pb2
    document = execution_pb2.ErrorDocument.FromString(open(directory + "/error.pb", "rb").read())
    found["error"] = document.error.message
if os.path.exists(directory + "/outputs.pb"):
    task = getattr(importlib.import_module(module), name)
    from flyte._internal.runtime import convert
    from flyte.remote import ActionOutputs
    from flyteidl2.task import common_pb2
    pb = common_pb2.Outputs.FromString(open(directory + "/outputs.pb", "rb").read())
    value = asyncio.run(convert.convert_outputs_to_native(task.native_interface, convert.Outputs(pb)))
    found["value"] = repr(value)
    found["shown"] = repr(ActionOutputs(pb, value if isinstance(value, tuple) else (value,)))
print(json.dumps(found))
"""


@dataclass(frozen=True)
class A0Run:
    """What a run of `a0` left.

    value: the task's result. shown: how Flyte's command line prints it (`ActionOutputs(o0=...)`); None where the task
    has no outputs.pb. error: the message in error.pb. A task that raises ends with exit code 0 and an error.
    """

    exit_code: int
    value: Any
    shown: str | None
    error: str | None
    log: str


def run_a0(
    *,
    python: Path | str,
    archive: Path,
    module: str,
    task: str,
    inputs: Mapping[str, Any],
    directory: Path,
    env: Mapping[str, str] | None = None,
    prefix: Iterable[str] = (),
) -> A0Run:
    """Run `task` of `module` from the bundle in `archive`; the task works in `directory`/work.

    python: the interpreter of an environment with flyte, whose `a0` lies beside it. inputs: the task's arguments, of
    builtin types. directory: is made; one run each. env: more environment variables, such as `_F_EXEC_WRAPPER`.
    prefix: what stands before `a0` on the command line.
    """
    work, plain, files = (directory / name for name in ("work", "unpacked", "files"))
    for made in (work, plain, files):
        made.mkdir(parents=True)
    with tarfile.open(archive) as bundle:
        bundle.extractall(plain)

    write_inputs(python, plain, module, task, inputs, files)
    done = subprocess.run(
        [
            *(*prefix, str(Path(python).parent / "a0")),
            *("--inputs", str(files / "inputs.pb"), "--outputs-path", str(files), "--version", "v1"),
            *("--run-base-dir", str(directory), "--raw-data-path", str(directory / "raw")),
            *("--run-name", "r1", "--name", "a1", "--project", "p", "--domain", "development", "--org", "o"),
            *("--tgz", archive.resolve().as_uri(), "--dest", "."),
            *("--resolver", RESOLVER, "mod", module, "instance", task),
        ],
        cwd=work, env={**_bare_environment(python, directory), **(env or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    found = read_outputs(python, plain, module, task, files)
    value = ast.literal_eval(found["value"]) if found["value"] else None
    return A0Run(done.returncode, value, found["shown"], found["error"], done.stdout)


def write_inputs(
    python: Path | str,
    code: Path,
    module: str,
    task: str,
    inputs: Mapping[str, Any],
    directory: Path,
) -> None:
    """Write `inputs.pb` into a directory, for a task of a module in the directory `code`."""
    _flyte_script(python, code, _WRITE_INPUTS, repr(dict(inputs)), module, task, str(directory))


def read_outputs(
    python: Path | str, code: Path, module: str, task: str, directory: Path
) -> dict[str, Any]:
    """What a0 wrote there: {"value": its repr, "shown": as Flyte prints it, "error": its message}, each None if it is not there."""
    found = _flyte_script(python, code, _READ_OUTPUTS, "", module, task, str(directory))
    return dict(json.loads(found))


def _flyte_script(python: Path | str, code: Path, script: str, stdin: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(python), "-c", script, *arguments],
        cwd=code,
        env=_bare_environment(python, Path(arguments[-1])),
        input=stdin,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ""


def _bare_environment(python: Path | str, home: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(python).parent), "/usr/bin", "/bin"])
    return {"PATH": path, "HOME": str(home), "DO_NOT_TRACK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
