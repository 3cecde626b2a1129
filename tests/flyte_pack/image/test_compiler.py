"""`image-compiler` finds the CPython of an image's own release, or says that there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyte_pack.errors import UserError
from flyte_pack.image.compiler import Compiler, Found, compiled_path, find, main, release_of
from tests.support.codec_envs import needed_cpython


@pytest.fixture
def python() -> str:
    found = needed_cpython("3.12")
    return os.path.realpath(found)


@pytest.fixture
def release(python: str) -> str:
    return str(release_of(python))


def program(directory: Path, prints: str) -> Path:
    """A `python3.12` that says it is something; the search asks programs and trusts no names."""
    directory.mkdir()
    path = directory / "python3.12"
    path.write_text(f"#!/bin/sh\necho {prints}\n")
    path.chmod(0o755)
    return directory


def test_the_images_own_release_is_found_in_a_directory_or_as_a_program(python, release):
    assert find(["/nowhere", os.path.dirname(python)], release) == Compiler(release, python)
    assert find([python], release) == Compiler(release, python)


def test_another_release_serves_only_if_any_may(python):
    place = os.path.dirname(python)
    assert find([place], "3.12.999") is None
    assert find([place], "3.12") is None
    found = find([place], "3.12.999", any_release=True)
    assert found == find([place], "3.12", any_release=True)
    assert found == Compiler(str(release_of(python)), python)


def test_of_other_releases_the_newest_final_one_counts_wherever_it_is(tmp_path):
    places = [
        program(tmp_path / name, prints)
        for name, prints in {
            "old": "cpython 3.12.9",
            "new": "cpython 3.12.10",
            "candidate": "cpython 3.12.0rc3",
            "free": "cpython 3.12.11t",
            "pypy": "pypy 3.12.12",
            "other": "cpython 3.11.13",
            "broken": "; exit 1",
        }.items()
    ]
    for order in (places, places[::-1]):
        found = find(map(str, order), "3.12.4", any_release=True)
        assert found == Compiler("3.12.10", str(tmp_path / "new/python3.12"))


def test_no_interpreter_of_another_minor_version_is_found(python):
    assert find([python, os.path.dirname(python)], "3.7.1", any_release=True) is None


def test_the_command_writes_what_it_found(python, release, tmp_path):
    def said(version: str) -> Found:
        out = tmp_path / version
        path = f"/nowhere:{os.path.dirname(python)}"
        assert main(["--python", version, "--out", str(out), "--search-path", path]) == 0
        return Found.from_json((out / Found.NAME).read_bytes())

    assert said(release) == Found(Compiler(release, python))
    assert said("3.12.999") == Found(None)


def test_a_compiler_is_the_one_that_was_found_or_refused(python, release, tmp_path):
    """It may have been updated in its place since."""
    compiler = Compiler(release, python)
    assert Compiler.given(str(compiler)) == compiler
    with pytest.raises(UserError, match=f"by CPython 3.12.999, .* is CPython {release}"):
        Compiler.given(f"3.12.999={python}")
    with pytest.raises(UserError, match=f"for CPython 3.13 must be .* is CPython {release}"):
        Compiler.given(str(compiler), "3.13")


def test_what_does_not_compile_is_left_out(python, release, tmp_path):
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("print 'for Python 2'\n")
    rows = [(str(tmp_path / f"{name}.py"), f"/place/{name}.py") for name in ("bad", "good")]
    bad, good = Compiler(release, python).compile(rows)
    assert bad == b""
    assert b"/place/good.py" in good


def test_what_was_compiled_before_comes_out_of_the_cache_unless_that_is_damaged(
    python, release, tmp_path
):
    source, cache = tmp_path / "a.py", tmp_path / "cache"

    def compiled(text: str, place: str = "/place/a.py") -> bytes:
        source.write_text(text)
        (made,) = Compiler(release, python).compile([(str(source), place)], cache=str(cache))
        return made

    def kept() -> list[Path]:
        return [path for path in cache.rglob("*") if path.is_file()]

    one = compiled("x = 1\n")
    (entry,) = kept()
    written, number = entry.read_bytes(), entry.stat().st_ino
    assert compiled("x = 1\n") == one
    assert entry.stat().st_ino == number
    for damage in (b"", written[:-1]):
        entry.write_bytes(damage)
        assert compiled("x = 1\n") == one
        assert entry.read_bytes() == written
    assert compiled("x = 2\n") != one
    assert compiled("x = 1\n", "/elsewhere/a.py") != one
    assert len(kept()) == 3


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("a/b.py", "a/__pycache__/b.cpython-312.pyc"),
        ("b.c.py", "__pycache__/b.c.cpython-312.pyc"),
        ("/a/__init__.py", "/a/__pycache__/__init__.cpython-312.pyc"),
    ],
)
def test_bytecode_lies_where_cpython_looks(source, path):
    assert compiled_path(source, "3.12") == path
