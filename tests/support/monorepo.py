"""The example monorepo in a fresh clone, as a user has it who adds a few targets of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

from tests.support.build_root import BuildRoot, clone_checkout


@contextmanager
def monorepo(directory: Path, more: Mapping[str, str] | None = None) -> Iterator[BuildRoot]:
    """A clone in `directory`, a git checkout with one commit, for the time of a `with` block. more: what is put at the end
    of files, by their path, dedented."""
    clone = clone_checkout(directory)
    path = clone / "examples" / "monorepo"
    for name, text in (more or {}).items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if file.exists() else ""
        file.write_text(before + dedent(text))
    git(clone, "init", "--quiet")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "All of it")
    root = BuildRoot(path, pants=path / "pants")
    try:
        yield root
    finally:
        root.stop()


def git(directory: Path, *args: str) -> str:
    identity = ("-c", "user.name=Someone", "-c", "user.email=someone@example.com")
    done = subprocess.run(
        ["git", *identity, *args], cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@contextmanager
def edited(root: BuildRoot, name: str, old: str, new: str) -> Iterator[None]:
    """A file with `new` in the place of `old` (at its end, if that is empty), for the time of a `with` block."""
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
