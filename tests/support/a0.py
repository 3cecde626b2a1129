"""Runs one leaf task out of a bundle with the real `a0`, as a container would but without a control
plane.

The environment is empty but for what is given here; the working directory holds nothing. What goes
in (`inputs.pb`) and what comes out (`outputs.pb`, `error.pb`) is read and written by Flyte's own
converters, in the Flyte environment. A parent task does not work: it would wait for a control plane
to queue its children with.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping

RESOLVER = "flyte._internal.resolvers.default.DefaultTaskResolver"

# Runs in the Flyte environment. It imports Flyte once; each request is a line of JSON, which a fork
# answers in the unpacked bundle.
_CONVERTER = """
import ast, asyncio, contextlib, importlib, json, os, sys, traceback
from flyte._internal.runtime import convert
from flyte.remote import ActionOutputs
from flyteidl2.core import execution_pb2
from flyteidl2.task import common_pb2

def write(directory, module, task, inputs):
    interface = getattr(importlib.import_module(module), task).native_interface
    values = ast.literal_eval(inputs)
    inputs = asyncio.run(convert.convert_from_native_to_inputs(interface, **values))
    with open(directory + "/inputs.pb", "wb") as file:
        file.write(inputs.proto_inputs.SerializeToString())

def read(directory, module, task):
    found = {"value": None, "shown": None, "error": None}
    if os.path.exists(directory + "/error.pb"):
        with open(directory + "/error.pb", "rb") as file:
            found["error"] = execution_pb2.ErrorDocument.FromString(file.read()).error.message
    if os.path.exists(directory + "/outputs.pb"):
        interface = getattr(importlib.import_module(module), task).native_interface
        with open(directory + "/outputs.pb", "rb") as file:
            pb = common_pb2.Outputs.FromString(file.read())
        value = asyncio.run(convert.convert_outputs_to_native(interface, convert.Outputs(pb)))
        shown = ActionOutputs(pb, value if isinstance(value, tuple) else (value,))
        found.update(value=repr(value), shown=repr(shown))
    return found

def answer(do, code, **arguments):
    os.chdir(code)
    sys.path.insert(0, "")
    with contextlib.redirect_stdout(sys.stderr):
        return {"write": write, "read": read}[do](**arguments)

for line in sys.stdin:
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1]:
            print(json.dumps({"failed": "the converter died"}), flush=True)
        continue
    try:
        said = {"answer": answer(**json.loads(line))}
    except BaseException:
        said = {"failed": traceback.format_exc()}
    print(json.dumps(said), flush=True)
    os._exit(0)
"""


@dataclass(frozen=True)
class A0Run:
    """What a run of `a0` left.

    value: the task's result. shown: how Flyte's command line prints it (`ActionOutputs(o0=...)`);
    None where the task has no outputs.pb. error: the message in error.pb. A task that raises ends
    with exit code 0 and an error.
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

    python: the interpreter of an environment with flyte, whose `a0` lies beside it. inputs: the
    task's arguments, of builtin types. directory: is made; one run each. env: more environment
    variables, such as `_F_EXEC_WRAPPER`. prefix: what stands before `a0` on the command line.
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
            *("--inputs", str(files / "inputs.pb"), "--outputs-path", str(files)),
            *("--version", "v1"),
            *("--run-base-dir", str(directory), "--raw-data-path", str(directory / "raw")),
            *("--run-name", "r1", "--name", "a1", "--project", "p"),
            *("--domain", "development", "--org", "o"),
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
    _convert(python, "write", code, module, task, directory, inputs=repr(dict(inputs)))


def read_outputs(
    python: Path | str, code: Path, module: str, task: str, directory: Path
) -> dict[str, Any]:
    """What a0 wrote there: {"value": its repr, "shown": as Flyte prints it, "error": its message}.

    Each is None if it is not there.
    """
    return dict(_convert(python, "read", code, module, task, directory))


def _convert(
    python: Path | str, do: str, code: Path, module: str, task: str, directory: Path, **more: Any
) -> Any:
    converter = _converter(str(python))
    assert converter.stdin is not None
    assert converter.stdout is not None
    request = {"do": do, "code": str(code), "module": module, "task": task, **more}
    converter.stdin.write(json.dumps({**request, "directory": str(directory)}) + "\n")
    converter.stdin.flush()
    said = json.loads(converter.stdout.readline() or '{"failed": "the converter has ended"}')
    assert "failed" not in said, said["failed"]
    return said["answer"]


@functools.cache
def _converter(python: str) -> subprocess.Popen[str]:
    """Ends with this process, which holds the other end of its standard input."""
    return subprocess.Popen(
        [python, "-c", _CONVERTER],
        env=_bare_environment(python, Path("/nonexistent")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _bare_environment(python: Path | str, home: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(python).parent), "/usr/bin", "/bin"])
    return {"PATH": path, "HOME": str(home), "DO_NOT_TRACK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
