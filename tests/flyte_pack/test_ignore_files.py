"""Which files are ignored: as git says, for hand-picked patterns and for random ones."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from flyte_pack.ignore_files import EXCLUDE, IgnoreFiles
from tests.support.fuzzing import fuzz

FILES = [
    *("a", "a.key", "A.key", "b/a", "b/a.key", "b/c/a", "b/c/a.key", "b/c/d/a", "keep.txt", "b/keep.txt"),
    *("build/x", "b/build/x", "b/c/build", "x y", "x ", "#a", "!a", "a*b", "a[b", "a\\b", "é", "b/été.py"),
    *("c/d/e/f", "d/e", "foo/bar", "fooX/Y/bar", "foo/z/bar", "x/foo/bar", "a-b", "a]b", "abc", "aXc", "z.pyc"),
    *("logs/debug.log", "logs/important.log", "logs/sub/debug.log", "x\r", "\ufeffz", "a b c", "tab\t", "(a)"),
]  # fmt: skip


def ignored_by_git(
    where: Path, ignore_files: Mapping[str, bytes], paths: Iterable[str]
) -> set[str]:
    """What git says, asked in a repository with these files."""
    if not (where / ".git").exists():
        subprocess.run(["git", "init", "-q", "."], cwd=where, check=True)
    paths = [*paths]
    for path in (*paths, *ignore_files):
        (where / path).parent.mkdir(parents=True, exist_ok=True)
        (where / path).write_bytes(ignore_files.get(path, b""))
    settings = ("-c", "core.excludesFile=/dev/null", "-c", "core.ignoreCase=false")
    done = subprocess.run(
        ["git", *settings, "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=where,
        input=b"".join(os.fsencode(path) + b"\0" for path in paths),
        stdout=subprocess.PIPE,
    )
    assert done.returncode in (0, 1)
    return set(map(os.fsdecode, done.stdout.split(b"\0")[:-1]))


def ignored_by_us(ignore_files: Mapping[str, bytes], paths: Iterable[str]) -> set[str]:
    exclude = ignore_files.get(".git/info/exclude", b"")
    within = {
        path: content for path, content in ignore_files.items() if not path.startswith(".git/")
    }
    rules = IgnoreFiles(within, exclude)
    return {path for path in paths if rules.ignored_by(path)}


TREES = {
    "by name": {".gitignore": b"*.key\na\n"},
    "in a folder": {"b/.gitignore": b"*.key\n/a\n"},
    "anchored": {".gitignore": b"/a\nb/a\n/b/c/a.key\n"},
    "directories": {".gitignore": b"build/\n"},
    "negated": {".gitignore": b"*.key\n!a.key\n"},
    "negated further down": {
        ".gitignore": b"*.key\n",
        "b/.gitignore": b"!*.key\n",
        "b/c/.gitignore": b"a.*\n",
    },
    "nothing below comes back": {".gitignore": b"b/\n!b/keep.txt\n", "b/.gitignore": b"!*\n"},
    "all but one": {".gitignore": b"/*\n!/b\n/b/*\n!/b/keep.txt\n"},
    "two stars": {".gitignore": b"**/a\nfoo/**/bar\nc/**\n**/logs/**\n!**/important.log\n"},
    "stars that are none": {".gitignore": b"foo**/bar\nb/**a\n"},
    "one star is a name": {".gitignore": b"b/*/a\nfoo*bar\n"},
    "characters": {".gitignore": b"a[!-]b\n[[:upper:]].key\na[]]b\n[a-\n[[:nope:]]\na[x-z-]b\n"},
    "a byte each": {".gitignore": b"?\nb/?t?.py\n"},
    "escaped": {".gitignore": b"\\#a\n\\!a\na\\*b\na\\[b\na\\\\b\nx\\ \n"},
    "comments and spaces": {".gitignore": b"# a\n\n   \nx y  \na.key \n\ta\ntab\\\t\n"},
    "lines end in CRLF": {".gitignore": b"a\r\n*.key\r\n\r\nbuild/\r\nx\r\r\n"},
    "no newline at the end": {".gitignore": b"a\n*.key"},
    "a mark at the start": {".gitignore": b"\xef\xbb\xbfa\nz\n"},
    "slashes": {".gitignore": b"/\n//\nb//\n//a\nb/c/\n"},
    "not UTF-8": {".gitignore": b"\xff\n\xc3*\n"},
    "a NUL": {".gitignore": b"a\0.key\n"},
    "a backslash at the end": {".gitignore": b"a\\\nb/a\\\nx\\\\ \n"},
    "excludes of the clone": {".git/info/exclude": b"*.key\n/a\n", "b/.gitignore": b"!a.key\n"},
    "only a file": {".gitignore": b"b\n!b/\nbuild\n!build/\n"},
    "parentheses": {".gitignore": b"(a)\n{a,b}\n+\n"},
}


@pytest.mark.parametrize("name", TREES)
def test_patterns_mean_what_they_mean_to_git(tmp_path, name):
    tree = TREES[name]
    assert ignored_by_us(tree, FILES) == ignored_by_git(tmp_path, tree, FILES)


ALPHABET = [
    "a",
    "b",
    "c",
    "/",
    "/",
    "*",
    "*",
    "**",
    "**/",
    "/**",
    "?",
    "[ab]",
    "[!a]",
    "[^b-c]",
    "[[:alpha:]]",
]
ALPHABET += ["[", "]", "-", "\\", "\\*", " ", "\\ ", "!", "#", ".", "é", "[]-a]", "[a", "\r", "***"]


def test_random_patterns_mean_what_they_mean_to_git(tmp_path):
    for number, rng in enumerate(fuzz(30)):
        top = tmp_path / str(number)
        top.mkdir()
        paths = set()
        for _ in range(60):
            parts = [
                "".join(rng.choices("abc.-] é", k=rng.randint(1, 3)))
                for _ in range(rng.randint(1, 4))
            ]
            if not any(part.strip(".") == "" or part == ".git" for part in parts):
                paths.add("/".join(parts))
        paths = {path for path in paths if not any(other.startswith(f"{path}/") for other in paths)}
        folders = {"", *(os.path.dirname(path) for path in paths)}
        tree = {}
        for folder in rng.sample(sorted(folders), min(4, len(folders))):
            lines = [
                rng.choice(["", "", "!"]) + "".join(rng.choices(ALPHABET, k=rng.randint(1, 6)))
                for _ in range(rng.randint(1, 6))
            ]
            tree[os.path.join(folder, ".gitignore")] = "\n".join(lines).encode() + rng.choice(
                [b"", b"\n"]
            )
        tree[".git/info/exclude"] = "".join(rng.choices(ALPHABET, k=4)).encode()
        subprocess.run(["git", "init", "-q", "."], cwd=top, check=True)
        assert ignored_by_us(tree, paths) == ignored_by_git(top, tree, paths), tree


@pytest.mark.parametrize(
    ("path", "by"),
    [
        ("a.key", ".gitignore"),
        ("b/a.csv", ".flyteignore"),
        ("b/a.txt", "b/.flyteignore"),
        ("b/a.mine", EXCLUDE),
        ("keep.mine", None),
        ("b/a.py", None),
    ],
)
def test_each_kind_of_ignore_file_decides_by_itself(path, by):
    files = {
        ".gitignore": b"*.key\n!keep.mine\n",
        "b/.gitignore": b"!*.csv\n!*.txt\n",
        ".flyteignore": b"!*.key\n*.csv\n",
        "b/.flyteignore": b"*.txt\n",
    }
    assert IgnoreFiles(files, b"*.mine\n").ignored_by(path) == by


@pytest.mark.parametrize(
    "pattern", ["*a" * 8 + "*b", "**/a/" * 5 + "b", "[ab]*" * 50], ids=["stars", "folders", "sets"]
)
def test_no_pattern_takes_forever(pattern):
    rules = IgnoreFiles({".gitignore": pattern.encode()})
    started = time.monotonic()
    for path in ("a" * 4000 + "c", "a/" * 300 + "c"):
        assert rules.ignored_by(path) is None or "[" in pattern
    assert time.monotonic() - started < 20
