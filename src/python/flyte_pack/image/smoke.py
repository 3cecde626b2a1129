"""Tries whether an image holds what its code imports: `python -m flyte_pack image-smoke`.

The image's own Python and user import every module inside the image, without a network. All
failures are told. Commands (`a0`) must be there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flyte_pack import command
from flyte_pack.errors import UserError
from flyte_pack.image.run import image_runner
from flyte_pack.image.running import Command, Runner
from flyte_pack.names import TargetAddress
from flyte_pack.progress import write
from flyte_shim import shown

_MAX_REPORT = 64 << 20  # bytes
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
# Runs in the image. Only the report goes to stdout. Modules are imported in one process, as in a
# task; it does not wait for threads that they may have started.
_SCRIPT = r"""
import importlib, json, os, shutil, sys, traceback
job = json.load(sys.stdin)
report = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
def tell(**what):
    report.write(json.dumps(what) + "\n")
    report.flush()
def interpreter(path):
    with open(path, "rb") as file:
        line = file.readline(4096)
    return line[2:].split()[0].decode() if line.startswith(b"#!") and line[2:].split() else None
for name in job["commands"]:
    found = shutil.which(name)
    needs = found and interpreter(found)
    if not found:
        tell(command=name, error="no such command on PATH: " + os.environ.get("PATH", ""))
    elif needs and not os.access(needs, os.X_OK):
        tell(command=name, error=found + " needs " + needs + ", which is not there")
    else:
        tell(command=name)
for name in job["modules"]:
    tell(start=name)
    try:
        importlib.import_module(name)
    except BaseException as error:
        frames = [
            frame.filename + ":" + str(frame.lineno)
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith("<")
            and os.path.basename(os.path.dirname(frame.filename)) != "importlib"
        ]
        if isinstance(error, SyntaxError) and error.filename:
            frames.append(error.filename + ":" + str(error.lineno))
        text = traceback.format_exception_only(type(error), error)[-1].strip()
        tell(module=name, error=text, chain=frames)
    else:
        tell(module=name)
tell(end=True)
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
"""


@dataclass
class SmokeResult:
    """What was tried, and of each failure what it is and where it came from."""

    imported: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    failures: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    """What failed, why, and the chain of `file:line` that led there, outermost first."""


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code: 1 where something failed."""
    parser = command.parser("python -m flyte_pack image-smoke", "Import modules inside an image.")
    parser.add_argument("--layout", required=True, help="the packaged image: an OCI layout")
    parser.add_argument("--address", required=True, help="the target's, for the report")
    parser.add_argument(
        "--modules", required=True, help="a file with the modules to import, one a line"
    )
    parser.add_argument("--commands", nargs="*", default=[], help="commands that must be there")
    command.add_insecure(parser)
    return command.run(parser, argv, _try)


def _try(given: argparse.Namespace) -> int:
    modules = _modules(given.modules)
    with image_runner(given.layout, given.address, insecure=given.insecure) as runner:
        result = smoke(runner, modules, given.commands)
    write(sys.stdout, f"{shown.message(_report(given.address, result))}\n")
    return 1 if result.failures else 0


def smoke(runner: Runner, modules: Sequence[str], commands: Sequence[str]) -> SmokeResult:
    """Import all `modules` and look for all `commands`.

    Raises `UserError` if the image has no working Python.
    """
    result = SmokeResult()
    left, looked_for = list(modules), list(commands)
    while True:
        lines, code = _run(runner, left, looked_for)
        for line in lines:
            _note(result, line)
        if lines and "end" in lines[-1]:
            return result
        started = lines[-1].get("start") if lines else None
        if started not in left:
            raise UserError(
                "the image has no Python that could import anything: its `python` ended with exit "
                f"code {code}"
            )
        ended = f"signal {code - 128}" if code > 128 else f"exit code {code}"
        result.failures.append((started, f"importing it ends the interpreter ({ended})", ()))
        left, looked_for = left[left.index(started) + 1 :], []


def _modules(path: str) -> list[str]:
    with open(path, encoding="utf-8") as file:
        modules = [line.strip() for line in file if line.strip()]
    if wrong := [name for name in modules if not _MODULE.fullmatch(name)]:
        raise UserError(f"{path}: {wrong[0]!a:.100} is not a module's name")
    return modules


def _run(
    runner: Runner, modules: Sequence[str], commands: Sequence[str]
) -> tuple[list[dict[str, Any]], int]:
    with tempfile.TemporaryFile() as job, tempfile.TemporaryFile() as report:
        job.write(json.dumps({"modules": modules, "commands": commands}).encode())
        job.seek(0)
        argv = ("python", "-c", _SCRIPT)
        code = runner.run(Command(argv, network="none", entrypoint=(), stdin=job, stdout=report))
        report.seek(0)
        said = report.read(_MAX_REPORT)
    try:
        lines = [json.loads(line) for line in said.splitlines()]
    except (ValueError, RecursionError):
        lines = [None]
    if not all(map(_is_line, lines)):
        raise UserError("what the image's Python printed is not a report")
    return lines, code


def _is_line(line: object) -> bool:
    """Whether `_SCRIPT` may have written it; the image may have another Python."""
    return isinstance(line, dict) and all(
        value is True
        or isinstance(value, str)
        or (name == "chain" and isinstance(value, list) and all(isinstance(v, str) for v in value))
        for name, value in line.items()
    )


def _note(result: SmokeResult, line: dict[str, Any]) -> None:
    for kind, good in (("module", result.imported), ("command", result.commands)):
        if kind in line:
            if "error" in line:
                result.failures.append((line[kind], line["error"], tuple(line.get("chain", ()))))
            else:
                good.append(line[kind])


def _report(address: TargetAddress, result: SmokeResult) -> str:
    lines = []
    for what, error, chain in result.failures:
        lines.append(f"FAILED {what}: {error}")
        lines += [f"    {place}" for place in chain]
    count = len(result.imported)
    lines.append(
        f"{address}: {count} module{'s' * (count != 1)} imported, {len(result.commands)} "
        f"command{'s' * (len(result.commands) != 1)} found, {len(result.failures)} failed"
    )
    return "\n".join(lines)
