"""Bytecode depends on the source and the release of CPython, not on what its compiler did before."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

import pytest

import flyte_pack
from tests.support.codec_envs import needed_cpython

# Compiles a part of the standard library in an order of its own, in a process that has done other things before.
_COMPILE = """
import glob, hashlib, json, marshal, os, random, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {place!r})
from compile_modules import stable_marshal
sys.path.pop(0)
sources = sorted(glob.glob(os.path.dirname(os.__file__) + "/[a-z]*.py"))
random.Random({seed}).shuffle(sources)
for name in {before}:
    __import__(name)
stable, plain = {{}}, {{}}
for source in sources:
    with open(source, "rb") as file:
        code = compile(file.read(), source, "exec", dont_inherit=True)
    plain[source] = hashlib.sha256(marshal.dumps(code)).hexdigest()
    data = stable_marshal(code)
    stable[source] = hashlib.sha256(data).hexdigest()
    assert marshal.loads(data) == code, source
print(json.dumps([stable, plain]))
"""


@functools.cache
def compiled(python: str, seed: int, before: tuple[str, ...] = ()) -> list[dict[str, str]]:
    place = str(Path(flyte_pack.__file__).parent / "image")
    done = subprocess.run(
        [python, "-B", "-c", _COMPILE.format(place=place, seed=seed, before=before)],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_the_order_and_what_was_imported_before_change_nothing(version):
    python = needed_cpython(version)
    stable, _ = compiled(python, 1)
    other, _ = compiled(
        python, 2, ("asyncio", "inspect", "http.client", "unittest", "email.mime.text")
    )
    assert len(stable) > 60
    assert {source for source in stable if stable[source] != other[source]} == set()


def test_marshal_alone_would_not_do():
    """So there is a reason for `stable_marshal`."""
    versions = filter(None, map(needed_cpython, ["3.9", "3.10", "3.11", "3.12", "3.13"]))
    python = next(versions)
    before = ("asyncio", "inspect", "http.client", "unittest", "email.mime.text")
    assert compiled(python, 1)[1] != compiled(python, 2, before)[1]
