"""What a base's own files say is found without unpacking it."""

from __future__ import annotations

import tarfile
from dataclasses import replace

import pytest

from flyte_pack.image.base_files import BaseReader
from flyte_pack.image.environment import environment_of, private_directory
from flyte_pack.oci.model import OCI_LAYER, Descriptor, InvalidImage, digest_of
from tests.support.bases import base_platform
from tests.support.images import special, tar_of

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


# --- the layouts of the wild ---------------------------------------------------------------------

ELF = b"\x7fELF\2\1" + bytes(58)
P311 = ELF + b"\x003.11.9\0"
UV = "root/.local/share/uv/python/cpython-3.11.9-linux-x86_64-gnu"


def directory(path, mode):
    info = special(path, tarfile.DIRTYPE)
    info.mode = mode
    return info


@pytest.mark.parametrize(
    ("members", "python", "path", "found"),
    [
        # conda: the base environment, and another.
        ([("opt/conda/bin/python3.11", P311), ("opt/conda/bin/python", "python3.11"),
          ("opt/conda/bin/python3", "python3.11")],
         None, "/opt/conda/bin", ("/opt/conda/bin/python3.11", "3.11.9")),
        ([("opt/conda/bin/python3.12", ELF + b"\x003.12.1\0"), ("opt/conda/bin/python3", "python3.12"),
          ("opt/conda/envs/x/bin/python3.11", P311), ("opt/conda/envs/x/bin/python", "python3.11")],
         "/opt/conda/envs/x/bin/python", "/opt/conda/bin",
         ("/opt/conda/envs/x/bin/python3.11", "3.11.9")),
        # uv's, by a link, and by a virtual environment.
        ([(f"{UV}/bin/python3.11", P311), ("usr/local/bin/python", f"/{UV}/bin/python3.11")],
         None, "/usr/local/bin", (f"/{UV}/bin/python3.11", "3.11.9")),
        ([(f"{UV}/bin/python3.11", P311), (f"{UV}/bin/python", "python3.11"),
          ("root/.local/share/uv/python/cpython-3.11-linux-x86_64-gnu", "cpython-3.11.9-linux-x86_64-gnu"),
          ("app/.venv/pyvenv.cfg", f"home = /{UV.replace('3.11.9', '3.11')}/bin\nversion_info = 3.11.9\n".encode()),
          ("app/.venv/bin/python", f"/{UV}/bin/python3.11")],
         None, "/app/.venv/bin:/usr/bin", (f"/{UV}/bin/python3.11", "3.11.9")),
        # pyenv's own versions; its version in a shared library.
        ([("root/.pyenv/versions/3.11.9/bin/python3.11", ELF),
          ("root/.pyenv/versions/3.11.9/bin/python", "python3.11"),
          ("root/.pyenv/versions/3.11.9/lib/libpython3.11.so.1.0", P311)],
         "/root/.pyenv/versions/3.11.9/bin/python", "/root/.pyenv/shims",
         ("/root/.pyenv/versions/3.11.9/bin/python3.11", "3.11.9")),
        # Debian's.
        ([("usr/bin/python3.11", P311), ("usr/bin/python3", "python3.11"), ("bin", "usr/bin"),
          ("usr/lib/python3/dist-packages/x.py", b"")],
         None, "/bin:/usr/bin", ("/usr/bin/python3.11", "3.11.9")),
        # By alternatives, as of Ubuntu, and Red Hat's.
        ([("usr/bin/python3.11", P311), ("usr/bin/python3", "/etc/alternatives/python3"),
          ("etc/alternatives/python3", "/usr/bin/python3.11")],
         None, "/usr/bin", ("/usr/bin/python3.11", "3.11.9")),
        ([("usr/bin/python3.11", ELF), ("usr/bin/python3", "python3.11"),
          ("usr/lib64/libpython3.11.so.1.0", P311)],
         None, "/usr/bin", ("/usr/bin/python3.11", "3.11.9")),
        # Only a header has the version; or nothing has it.
        ([("usr/bin/python3.11", ELF),
          ("usr/include/python3.11/patchlevel.h", b'#define PY_VERSION "3.11.9"\n')],
         "/usr/bin/python3.11", "/bin", ("/usr/bin/python3.11", "3.11.9")),
        ([("usr/bin/python3.11", ELF)], "/usr/bin/python3.11", "/bin", ("/usr/bin/python3.11", "3.11")),
        # A name without its version: the library beside it has it.
        ([("opt/py/bin/python3", P311), ("opt/py/lib/python3.11/os.py", b"")],
         "/opt/py/bin/python3", "/bin", ("/opt/py/bin/python3", "3.11.9")),
        # No link leads anywhere.
        ([("usr/bin/python3", "python3"), ("usr/local/bin/python", "/gone")],
         None, "/usr/bin:/usr/local/bin", (None, None)),
    ],
)  # fmt: skip
def test_interpreters_are_found_where_bases_have_them(members, python, path, found):
    _, seen = facts(*members, python=python, Env=[f"PATH={path}"])
    assert (seen.python, seen.version) == found


@pytest.mark.parametrize("named", [None, "/root/.pyenv/shims/python3"])
def test_pyenvs_script_is_refused_with_what_may_be_meant(named):
    members = [
        ("root/.pyenv/shims/python3", b"#!/usr/bin/env bash\n"),
        ("root/.pyenv/versions/3.11.9/bin/python3.11", P311),
    ]
    with pytest.raises(
        InvalidImage, match=r"is a script.*/\.pyenv/versions/3\.11\.9/bin/python3\.11"
    ):
        facts(*members, python=named, Env=["PATH=/root/.pyenv/shims:/bin"])


@pytest.mark.parametrize(
    ("mode", "user", "closed"),
    [
        (0o700, "1000:1000", "/root"),
        (0o700, "0:0", None),
        (0o711, "1000:1000", None),
        (0o755, "12345", None),
    ],
)
def test_a_python_below_a_closed_directory_is_for_its_owner(mode, user, closed):
    members = [
        directory("root", mode),
        (f"{UV}/bin/python3.11", P311),
        ("usr/local/bin/python", f"/{UV}/bin/python3.11"),
    ]
    base, seen = facts(*members, Env=["PATH=/usr/local/bin"])
    environment = environment_of(replace(base, facts=seen), None, None)
    assert private_directory(environment, user) == closed


@pytest.mark.parametrize(
    ("env", "members", "python", "said", "version"),
    [
        (["PYTHON_VERSION=3.11.7"], None, "/usr/local/bin/python3.11", None, "3.11.7"),
        (["PYTHON_VERSION=3.11.7"], [], "/usr/local/bin/python3.11", None, "3.11.7"),
        (["PYTHON_VERSION=3.11.7"], [("usr/local/bin/python3.11", P311)], None, None, "3.11.9"),
        (["PYTHON_VERSION=3.11.7"], None, "/usr/bin/python3.11", None, "3.11"),
        (["PYTHON_VERSION=3.11"], None, "/usr/local/bin/python3.11", None, "3.11"),
        (["PYTHON_VERSION=3.14.0rc1"], None, "/usr/local/bin/python3.14", None, "3.14.0rc1"),
        ([], None, "/usr/bin/python3.11", None, "3.11"),
        ([], None, "/usr/bin/python3.11", "3.11.4", "3.11.4"),
        ([], [("usr/bin/python3.11", ELF)], "/usr/bin/python3.11", "3.11.4", "3.11.4"),
        ([], None, "/usr/bin/python3", "3.11.4", "3.11.4"),
        ([], [("usr/bin/python3.11", P311)], "/usr/bin/python3.11", "3.11.9", "3.11.9"),
        ([], [("usr/bin/python3.11", P311)], "/usr/bin/python3.11", "3.11.4", "is 3.11.9"),
        ([], None, "/usr/bin/python3.11", "3.12.4", "is 3.11: leave it out"),
        ([], None, "/usr/bin/python3.1", "3.11.4", "is 3.1: leave it out"),
    ],
)  # fmt: skip
def test_the_full_version_is_found_or_said(env, members, python, said, version):
    if members is None:  # its layers could not be read
        base = base_platform(Env=env)
    else:
        base, seen = facts(*members, python=python, Env=env)
        base = replace(base, facts=seen)
    if " " in version:
        with pytest.raises(InvalidImage, match=version):
            environment_of(base, python, None, said)
    else:
        assert environment_of(base, python or base.official_python, None, said).version == version
