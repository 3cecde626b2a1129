"""The example monorepo in a fresh clone, as a user has it who adds a few targets of their own."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

from tests.support.build_root import BuildRoot, clone_checkout
from tests.support.git import git

DAEMONS = ("--exclude=.pids", "--exclude=.pants.d", "--exclude=.pants.workdir.file_lock*")


@contextmanager
def monorepo(
    more: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None
) -> Iterator[BuildRoot]:
    """A clone, a git checkout with a commit, for the time of a `with` block.

    more: text for the end of files, by their path; it is dedented. env: as `BuildRoot` has it. All
    clones of a process are the same directory, in turn: so one daemon serves them all, unless
    pants.toml changes.
    """
    path = _clone()
    root = BuildRoot(path, pants=path / "pants", env=env)
    for name, text in (more or {}).items():
        file = root.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if file.exists() else ""
        file.write_text(before + dedent(text))
    git(root.path, "add", "--all")
    git(root.path, "commit", "--quiet", "--allow-empty", "--message", "More")
    try:
        yield root
    finally:
        top = path.parents[1]
        git(top, "reset", "--quiet", "--hard", "example")
        git(top, "clean", "--quiet", "--force", "-dx", *DAEMONS)


@functools.cache
def _clone() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="monorepo-"))
    clone = clone_checkout(directory / "clone")
    git(clone, "init", "--quiet")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "All of it")
    git(clone, "tag", "example")
    path = clone / "examples" / "monorepo"
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(BuildRoot(path).stop)
    return path


@contextmanager
def edited(root: BuildRoot, name: str, old: str, new: str) -> Iterator[None]:
    """A file with `new` in the place of `old`, for the time of a `with` block.

    Where `old` is empty, `new` comes at its end.
    """
    path = root.path / name
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new) if old else before + new)
    try:
        yield
    finally:
        path.write_text(before)


def files_in(directory: Path) -> dict[str, bytes]:
    """Every file below, by its path from there."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
