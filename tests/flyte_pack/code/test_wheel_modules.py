"""Which distributions have a module, by the wheels at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flyte_pack.code import wheel_modules
from flyte_pack.code.wheel_modules import Answer, Question

VERSIONS = {
    "some-thing": ["1.0"],
    "name-space": ["2.0", "2.1"],
    "absent": ["1"],
    "older": ["3"],
    "plain": ["4"],
}


def unpacked(place: Path, info: str, *files: str) -> None:
    (place / info).mkdir(parents=True)
    record = "".join(f"{file},sha256=x,1\n" for file in (*files, f"{info}/METADATA"))
    (place / info / "RECORD").write_text(record)


@pytest.fixture
def caches(tmp_path: Path) -> list[str]:
    uv, pex = tmp_path / "uv", tmp_path / "pex"
    unpacked(
        uv / "archive-v0/x1",
        "Some.Thing-1.0.dist-info",
        *("other/__init__.py", "other/deep.py", "_fast.cpython-311-x86_64-linux-gnu.so"),
        '"odd, name.txt"',
    )
    unpacked(uv / "archive-v0/x2", "some_thing-0.9.dist-info", "old.py")
    unpacked(pex / "installed_wheels/0/ab/n.whl", "name_space-2.1.dist-info", "top/inner/one.py")
    unpacked(pex / "installed_wheels/ef/o.whl", "older-3.dist-info", "older.py")
    unpacked(pex / "installed_wheels/cd/a.whl", "unlocked-1.dist-info", "unlocked.py")
    (uv / "archive-v0/x3/absent-1.dist-info").mkdir(parents=True)  # nothing is in it
    plain = pex / "installed_wheels/0/gh/p.whl"  # PEX removes the list of files
    (plain / "plain-4.dist-info").mkdir(parents=True)
    (plain / "inner").mkdir()
    (plain / "inner/__init__.py").touch()
    return [str(uv), str(pex)]


HAVING = {
    "other": ["some-thing"],
    "other.deep": ["some-thing"],
    "other.made.up": ["some-thing"],  # a package may make modules as it likes
    "_fast": ["some-thing"],
    "old": [],
    "top": [],  # a namespace
    "top.inner.one": ["name-space"],
    "top.inner.two": [],
    "older": ["older"],
    "inner.x": ["plain"],
    "unlocked": [],
}


@pytest.mark.parametrize("module", HAVING)
def test_the_locked_version_of_a_distribution_counts(caches, module):
    found = wheel_modules.answer(Question([module], VERSIONS, []), caches)
    assert found.having == {module: HAVING[module]}


@pytest.mark.parametrize(
    ("needed", "is_all"), [(["name-space", "some-thing"], True), (["absent", "some-thing"], False)]
)
def test_the_program_fails_where_a_needed_one_is_not_at_hand(caches, tmp_path, needed, is_all):
    question = tmp_path / "question.json"
    question.write_bytes(Question(["_fast"], VERSIONS, needed).to_json())
    program = [sys.executable, "-ISs", wheel_modules.__file__]
    done = subprocess.run([*program, str(question), *caches], capture_output=True, check=False)
    assert Answer.from_json(done.stdout) == Answer({"_fast": ["some-thing"]}, is_all)
    assert done.returncode == int(not is_all)
    assert json.loads(done.stdout)["is_all"] is is_all
