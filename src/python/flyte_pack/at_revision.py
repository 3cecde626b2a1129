"""Runs `flyte-explain` at a revision of git: `python -m flyte_pack explain-at`, in the build root.

The revision is written out into a temporary directory, by an index of its own, so that neither the
checkout nor its repository changes; there another Pants runs, with its configuration of then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from argparse import Namespace

from flyte_pack import children, command
from flyte_pack.errors import UserError
from flyte_pack.scratch import scratch_place

_OF_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    parser = command.parser("python -m flyte_pack explain-at")
    parser.add_argument("--revision", required=True)
    parser.add_argument("--pants", required=True, help="the program, as it is typed")
    parser.add_argument("--output", required=True, help="a file for the JSON document")
    return command.run(parser, argv, _explain)


def _explain(given: Namespace) -> int:
    """What follows `--` are specifications of targets."""
    env = {name: value for name, value in os.environ.items() if name not in _OF_GIT}
    named = f"{given.revision}^{{commit}}"
    is_option = given.revision.startswith("-")
    commit = None if is_option else _git(env, "rev-parse", "--verify", "--quiet", named)
    if commit is None:
        raise UserError(
            f"{given.revision} is no revision of git here, no file, and no address of a target"
        )
    below = _git(env, "rev-parse", "--show-prefix") or ""
    top = _git(env, "rev-parse", "--show-toplevel") or "."
    with tempfile.TemporaryDirectory(prefix="flyte-revision-", dir=scratch_place(True)) as scratch:
        tree = os.path.join(scratch, "tree")
        with_index = {**env, "GIT_INDEX_FILE": os.path.join(scratch, "index")}
        for words in (("read-tree", commit), ("checkout-index", "--all", f"--prefix={tree}/")):
            if _git(with_index, "-C", top, *words) is None:
                raise UserError(f"git cannot write out {given.revision}: `git {words[0]}` failed")
        root = os.path.join(tree, below)
        if not os.path.isdir(root):
            raise UserError(f"{given.revision} does not have this build root, {below}")
        told = os.path.join(scratch, "told.json")
        command.say(f"explaining {', '.join(given.typed)} at {given.revision} ({commit[:12]})")
        done = children.run(
            [
                _pants(given.pants, root),
                *("--no-pantsd", "flyte-explain", "--format=json", f"--output-file={told}"),
                *given.typed,
            ],
            cwd=root,
            env=env,
            stdout=None,
            stderr=None,
        )
        if done.returncode or not os.path.exists(told):
            raise UserError(
                f"at {given.revision}, {', '.join(given.typed)} cannot be explained, as was said "
                "above. To compare with a bundle of then, keep its manifest"
            )
        shutil.copyfile(told, given.output)
    return command.DONE


def _pants(typed: str, root: str) -> str:
    """The launcher of then, if it is in the repository; else the one of now."""
    here = [os.path.join(place, typed) for place in (root, os.getcwd())]
    found = next((path for path in here if os.access(path, os.X_OK) and os.path.isfile(path)), None)
    program = found or shutil.which(typed)
    if program is None:
        raise UserError(
            f"there is no program {typed} here or on PATH: set PANTS_BIN_NAME to what starts Pants"
        )
    return program


def _git(env: dict[str, str], *words: str) -> str | None:
    """What git says; None if it fails."""
    try:
        done = children.run(["git", *words], env=env)
    except (OSError, subprocess.SubprocessError):
        return None
    return None if done.returncode else os.fsdecode(done.stdout).strip()
