"""What a base's own files say is found without unpacking it."""

from __future__ import annotations

import pytest

from flyte_pack.image.base_files import BaseReader
from flyte_pack.image.environment import environment_of
from flyte_pack.oci.model import OCI_LAYER, Descriptor, InvalidImage, digest_of
from tests.support.bases import base_platform
from tests.support.images import tar_of

REAL = ("usr/local/bin/python3.11", b"a\x003.11.7\x00b")
CFG = b"home = /usr/local/bin\nversion = 3.11.7\n"


def facts(*members, python=None, **config):
    reader, tar = BaseReader(), tar_of(*members)
    reader.add(Descriptor(OCI_LAYER, digest_of(tar), len(tar)), [tar], "a layer")
    base = base_platform(**config)
    return base, reader.facts(base, python)


@pytest.mark.parametrize(
    ("members", "python"),
    [
        ([REAL], "/usr/local/bin/python3.11"),
        ([REAL, ("usr/bin/python3", "../local/bin/python3.11")], "/usr/bin/python3"),
        ([REAL, ("opt/venv/pyvenv.cfg", CFG), ("opt/venv/bin/python", "/nowhere")],
         "/opt/venv/bin/python"),
        ([REAL, ("v/pyvenv.cfg", CFG), ("v/bin/python3.11", "python"), ("v/bin/python", b"copy"),
          ("bin/py", "/v/bin/python3.11")], "/bin/py"),
    ],
)  # fmt: skip
def test_a_python_is_the_interpreter_itself(members, python):
    _, found = facts(*members, python=python)
    assert (found.python, found.version) == ("/usr/local/bin/python3.11", "3.11.7")


def test_a_script_is_not_an_interpreter():
    with pytest.raises(InvalidImage, match="is a script"):
        facts(("shims/python3.11", b"#!/bin/sh\n"), python="/shims/python3.11")


def test_musl_is_told_and_glibc_read():
    members = [("lib/libc.so.6", b"GNU C Library (Debian) stable release version 2.36.\n"), REAL]
    _, found = facts(*members, python=f"/{REAL[0]}")
    assert (found.glibc, found.musl) == ("2.36", False)
    _, found = facts(("lib/ld-musl-x86_64.so.1", b""), REAL, python=f"/{REAL[0]}")
    assert (found.glibc, found.musl) == (None, True)


def test_what_is_in_our_place_is_noticed():
    assert not facts(REAL, ("opt/venv", None), python=f"/{REAL[0]}")[1].occupied
    assert facts(REAL, ("opt/venv/x", b""), python=f"/{REAL[0]}")[1].occupied


def test_a_bases_python_path_comes_after_the_packages():
    base, _ = facts(REAL, Env=["PYTHONPATH=/srv/a::rel:/srv/a/"])
    environment = environment_of(base, "/usr/local/bin/python3.11", None)
    assert environment.after == ("/srv/a",)
    assert "PYTHONPATH" in environment.notes[0]
