"""`pants-flyte init`: writes into a repository what it needs to use Pants and this backend.

`pants-flyte baseline` is in `baseline` beside it.

It asks nothing, changes no file but `.gitignore` (which it appends to), and says what it did. Where
a file is there already, it says what that has to hold.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

import flyte_shim
from flyte_pack import baseline, children, command
from flyte_pack.errors import UsageError, UserError
from flyte_pack.names import normalized
from flyte_pack.progress import write

BY_INDEX = "2.17.1"  # the newest Pants that a package index has
BY_LAUNCHER = "2.33.0"  # what Pants' own launcher installs
FLYTE = "flyte>=2.5,<2.13"
OLDEST_PYTHON, DEFAULT_PYTHON, TOO_NEW = 10, 11, 14  # of 3.x: the first is Flyte's own
WHEELS = "3rdparty/pants-flyte"
LOCK = "3rdparty/python/default.lock"
IGNORED = ("/.pants.d/", "/.pids/", "/dist/", "__pycache__/")
_LAUNCHER = ("pants", "build-support/bootstrap")
_NOT_LOOKED_INTO = re.compile(r"\..*|node_modules|venv|dist|build|__pycache__")

EXAMPLE = """\
import flyte

env = flyte.TaskEnvironment(name="hello")


@env.task
def hello(n: int = 1) -> int:
    return n
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The program; returns its exit code."""
    about = "pants-flyte"
    hint = f"`{about} --help` tells more"
    return command.guarded(about, lambda: _run(argv), hint=hint)


def _run(argv: Optional[Sequence[str]]) -> None:
    parser = argparse.ArgumentParser(prog="pants-flyte")
    # Of the launcher of a checkout: where that is.
    parser.add_argument("--checkout", type=Path, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(required=True, metavar="init|baseline", dest="command")
    init = commands.add_parser(
        "init",
        help="set up a repository",
        description="Writes what a repository needs to use Pants with the backend for Flyte. "
        "It asks nothing and overwrites nothing.",
    )
    init.add_argument(
        "directory", nargs="?", type=Path, default=Path(), help="its top (default: .)"
    )
    init.add_argument("--example", action="store_true", help="with a task: services/hello")
    known = commands.add_parser(
        "baseline",
        help="write down what looks like a secret and is none",
        description="Looks at the files that git does not ignore, and writes a baseline of "
        "detect-secrets for `[flyte].secrets_baseline`. What you said in it stays.",
    )
    known.add_argument("path", nargs="*", help="what to look at (default: all)")
    known.add_argument(
        "--file",
        type=Path,
        default=Path(".secrets.baseline"),
        help="the baseline, at the top of the repository (default: .secrets.baseline)",
    )
    options = parser.parse_args(argv)
    if options.command == "baseline":
        count, files = baseline.write(options.file.absolute(), options.path)
        write(
            sys.stdout,
            f"{options.file}: {count:,} in {files:,} files. Read it: all that is in it ships\n",
        )
        return
    top = options.directory.resolve()
    if not top.is_dir():
        raise UsageError(f"{options.directory} is no directory")
    if (top / "src/python/pants_flyte").is_dir():
        raise UsageError(f"{top} is pants-flyte itself: go to the top of your own repository")
    _Init(top, options.checkout, options.example).write()


# --- what is there --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Project:
    """What a repository says of itself.

    required: by file, from the top: the requirements in it that are no project of the repository.
    refers_to_itself: whether there are others. oldest_python: of its code, a minor version of 3.
    """

    required: Mapping[str, tuple[str, ...]]
    refers_to_itself: bool
    oldest_python: int
    has_uv_lock: bool
    has_members: bool
    is_of_bazel: bool

    @property
    def has_flyte(self) -> bool:
        return any(
            _distribution(one) == "flyte" for lines in self.required.values() for one in lines
        )

    @classmethod
    def of(cls, top: Path) -> Project:
        projects = {path: _toml(top / path) for path in _files(top, "pyproject.toml")}
        required = {
            path: list(table.get("project", {}).get("dependencies", ()))
            for path, table in projects.items()
        }
        for path in _files(top, "requirements.txt"):
            lines = (top / path).read_text(encoding="utf-8", errors="replace").splitlines()
            found = [line.partition(" #")[0].strip() for line in lines]
            required[path] = [line for line in found if line[:1].isalnum()]
        tables = [table.get("project", {}) for table in projects.values()]
        names = frozenset(normalized(table["name"]) for table in tables if "name" in table)
        oldest = [
            int(minor)
            for table in tables
            for minor in re.findall(r">=\s*3\.(\d+)", table.get("requires-python", ""))
        ]
        return cls(
            required={
                path: tuple(one for one in lines if _distribution(one) not in names)
                for path, lines in required.items()
            },
            refers_to_itself=any(
                _distribution(one) in names for lines in required.values() for one in lines
            ),
            oldest_python=max(OLDEST_PYTHON, min(oldest, default=DEFAULT_PYTHON)),
            has_uv_lock=(top / "uv.lock").is_file(),
            has_members=any("/" in path for path in projects),
            is_of_bazel=any((top / name).exists() for name in ("MODULE.bazel", "WORKSPACE")),
        )


def _files(top: Path, name: str) -> list[str]:
    found = []
    for directory, below, names in os.walk(top):
        below[:] = sorted(one for one in below if not _NOT_LOOKED_INTO.fullmatch(one))
        if name in names:
            found.append(os.path.relpath(os.path.join(directory, name), top))
    return found


def _toml(file: Path) -> dict[str, Any]:
    # The rest of this package runs on Pythons that have none.
    tomllib: Any = importlib.import_module("tomllib")
    try:
        return dict(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:  # invalid TOML, or no UTF-8
        raise UserError(f"{file} is invalid: {error}") from None


def _distribution(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    return normalized(found[0]) if found else ""


# --- what is written ------------------------------------------------------------------------------


class _Init:
    def __init__(self, top: Path, checkout: Optional[Path], example: bool) -> None:
        self.top = top
        self.checkout = checkout
        self.example = example
        self.project = Project.of(top)
        self.by_launcher = _official_launcher() is not None
        self.has_launcher = checkout is not None and not self.by_launcher
        self.build_file = "BUILD.pants" if self.project.is_of_bazel else "BUILD"

    def write(self) -> None:
        wheel = None if self.checkout is None else _made_wheel(self.checkout)
        folder = None if wheel is None else _folder_of(wheel)
        self._new("pants.toml", self._pants_toml(folder))
        if wheel is not None:
            self._new(f"{folder}/{wheel.name}", wheel.read_bytes())
        if self.checkout is not None and self.has_launcher:
            self._copy_launcher(self.checkout)
        self._ignore()
        self._requirements()
        if self.example:
            self._new("services/hello/workflows.py", EXAMPLE)
        self._next()

    def _new(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        file = self.top / path
        data = content.encode() if isinstance(content, str) else content
        if os.path.lexists(file):
            if not file.is_file() or file.read_bytes() != data:
                kept = f"it should hold:\n{_indented(content)}" if isinstance(content, str) else ""
                _tell(f"kept   {path}: {kept or 'it is another'}")
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        # No half a file, if this is killed: a later `init` would keep it.
        part = file.with_name(f".{file.name}.part")
        part.write_bytes(data)
        part.chmod(mode)
        part.rename(file)
        _tell(f"wrote  {path}")

    def _pants_toml(self, folder: Optional[str]) -> str:
        """folder: of the wheel, if there is one."""
        project = self.project
        lines = [
            "[GLOBAL]",
            f'pants_version = "{BY_LAUNCHER if self.by_launcher else BY_INDEX}"',
            f'plugins = ["pants-flyte=={flyte_shim.__version__}"]',
            'backend_packages = ["pants.backend.python", "pants_flyte"]',
        ]
        if self.has_launcher:
            lines += [f'pants_ignore.add = ["/{_LAUNCHER[1]}/"]']
        if project.is_of_bazel:
            lines += ["# BUILD files are Bazel's.", f'build_patterns = ["{self.build_file}"]']
        lines += ["", "[anonymous-telemetry]", "enabled = false"]
        if project.has_members:
            lines += ["", "[source]", "# Imports start at each project, or at its src/."]
            lines += ['marker_filenames = ["pyproject.toml"]']
        lines += [
            *("", "[python]"),
            f'interpreter_constraints = ["CPython>=3.{project.oldest_python},<3.{TOO_NEW}"]',
            "enable_resolves = true",
            "tailor_requirements_targets = false  # `pants-flyte init` has written them",
        ]
        if project.has_uv_lock:
            lines += ["resolves_generate_lockfiles = false"]
        lines += ["", "[python.resolves]"]
        if project.has_uv_lock:
            lines += ["# uv makes it. Pants' own goals, such as test, want another kind: see"]
            lines += ["# docs/image-dependencies.md of pants-flyte."]
        lines += [f'python-default = "{"uv.lock" if project.has_uv_lock else LOCK}"']
        lines += ["", "[python-infer]", "use_rust_parser = true"] if not self.by_launcher else []
        if project.is_of_bazel:
            lines += ["", "[tailor]", f'build_file_name = "{self.build_file}"']
        if folder is not None:
            lines += ["", "[python-repos]"]
            lines += [f'find_links = ["file://%(buildroot)s/{folder}"]']
        return "\n".join([*lines, ""])

    def _copy_launcher(self, checkout: Path) -> None:
        for name in _LAUNCHER:
            source = checkout / name
            files = sorted(source.iterdir()) if source.is_dir() else [source]
            for file in files:
                if file.is_file():
                    path = str(file.relative_to(checkout))
                    program = path == "pants" or path.endswith(".sh")
                    self._new(path, file.read_bytes(), 0o755 if program else 0o644)

    def _ignore(self) -> None:
        file = self.top / ".gitignore"
        there = file.read_text(encoding="utf-8") if file.is_file() else ""
        lines = [one for one in IGNORED if one not in there.splitlines()]
        if lines:
            with file.open("a", encoding="utf-8") as opened:
                opened.write("\n" if there and not there.endswith("\n") else "")
                opened.writelines(f"{line}\n" for line in lines)
            _tell(f"added  {', '.join(lines)} to .gitignore")

    def _requirements(self) -> None:
        """Each distribution gets one target: between two, Pants could not choose."""
        project = self.project
        required = {path: lines for path, lines in project.required.items() if lines}
        flyte = f'python_requirement(name="flyte", requirements=["{FLYTE}"])\n'
        if len(required) == 1 and not project.refers_to_itself:
            directory, file = os.path.split(next(iter(required)))
            targets = f'python_requirements(name="reqs", source="{file}")\n'
            if not project.has_flyte and not project.has_uv_lock:
                targets += flyte
            self._new(os.path.join(directory, self.build_file), targets)
        elif not required:
            self._new(f"3rdparty/python/{self.build_file}", flyte)
        else:
            self._merge(required)

    def _merge(self, required: Mapping[str, tuple[str, ...]]) -> None:
        merged: dict[str, set[str]] = {}
        for lines in required.values():
            for line in lines:
                merged.setdefault(_distribution(line), set()).add(line)
        merged.setdefault("flyte", {FLYTE})
        text = f"# From {', '.join(required)}: what is added there belongs here, too.\n"
        text += "".join(
            f"{line}\n" for _, found in sorted(merged.items()) for line in sorted(found)
        )
        self._new("3rdparty/python/requirements.txt", text)
        targets = 'python_requirements(name="reqs")\n'
        self._new(f"3rdparty/python/{self.build_file}", targets)

    def _next(self) -> None:
        pants = "pants" if self.by_launcher else "./pants"
        steps = []
        if self.project.has_uv_lock and not self.project.has_flyte:
            steps += [("uv add flyte", "no project requires it yet")]
        steps += [
            (
                f"{pants} tailor ::",
                "writes BUILD files: sources, tests, a flyte_task for each environment",
            )
        ]
        if not self.project.has_uv_lock:
            steps += [(f"{pants} generate-lockfiles", f"writes {LOCK}")]
        steps += [(f"{pants} package ::", "the bundles, in dist/")]
        if self.example:
            steps += [(f"{pants} run services/hello:workflows -- hello --n 3", "")]
        width = max(len(step) for step, _ in steps)
        _tell("\nNext, and then commit it all:")
        for step, why in steps:
            _tell(f"  {step:{width}}  {'# ' + why if why else ''}".rstrip())


def _tell(line: str) -> None:
    write(sys.stdout, f"{line}\n")


def _indented(text: str) -> str:
    return "".join(f"         {line}" for line in text.splitlines(keepends=True)).rstrip()


def _official_launcher() -> Optional[str]:
    """Pants' own launcher, which is a program and no script, if it is on PATH."""
    found = shutil.which("pants")
    if found is None:
        return None
    with open(found, "rb") as file:
        return None if file.read(2) == b"#!" else found


def _made_wheel(checkout: Path) -> Path:
    """The wheel of the backend, made anew from the checkout."""
    _tell("making the wheel of pants-flyte ...")
    target = "build-support/wheels/pants-flyte"
    done = children.run(
        [str(checkout / "pants"), "--no-pantsd", "package", target],
        cwd=checkout,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wheel = checkout / f"dist/pants_flyte-{flyte_shim.__version__}-py3-none-any.whl"
    if done.returncode != 0 or not wheel.is_file():
        raise UserError(f"cannot make the wheel in {checkout}:\n{done.stdout.strip()}")
    return wheel


def _folder_of(wheel: Path) -> str:
    """Another one for each content: Pants keeps a plugin by its version and where that is from, so
    it would not look at a new wheel of the same version in the same place.
    """
    return f"{WHEELS}/{hashlib.sha256(wheel.read_bytes()).hexdigest()[:12]}"


if __name__ == "__main__":
    sys.exit(main())
