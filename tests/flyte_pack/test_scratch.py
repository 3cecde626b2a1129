"""Programs unpack what they run where nobody else can change it, and where it can run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from flyte_pack import scratch
from flyte_pack.errors import UserError
from flyte_shim import safe

UID = os.geteuid()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """$TMPDIR, which anyone can write, and a place besides."""
    for name in ("tmpdir", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "tmpdir").chmod(0o777)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmpdir"))
    monkeypatch.setattr(safe, "TEMPORARY", (str(tmp_path / "tmp"),))
    return tmp_path


def test_a_place_that_others_could_change_is_passed_over_with_a_warning(places, capsys):
    assert scratch.scratch_place() == str(places / "tmp")
    assert f"warning: {places}/tmpdir is not used for temporary files: " in capsys.readouterr().err
    (places / "tmpdir").chmod(0o1777)
    assert scratch.scratch_place() == str(places / "tmpdir")
    assert capsys.readouterr().err == ""


def test_no_place_is_an_error_that_says_why_and_what_to_set(places):
    (places / "tmp").chmod(0o775)
    with pytest.raises(UserError, match=r"tmp can be written by its group.* Set TMPDIR to"):
        scratch.scratch_place()


def test_a_place_without_programs_is_passed_over_where_some_run(places, monkeypatch, capsys):
    (places / "tmpdir").chmod(0o700)
    monkeypatch.setattr(scratch, "forbids_programs", lambda path: path.endswith("tmpdir"))
    assert scratch.scratch_place() == str(places / "tmpdir")
    assert scratch.scratch_place(executable=True) == str(places / "tmp")
    assert "mounted noexec" in capsys.readouterr().err
    monkeypatch.setattr(scratch, "forbids_programs", lambda path: True)
    with pytest.raises(UserError, match=r"mounted noexec.* Set TMPDIR to .* not mounted noexec"):
        scratch.scratch_place(executable=True)


def test_a_real_file_system_that_is_mounted_noexec_is_known(tmp_path):
    if UID != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare")
    code = "from flyte_shim.files import forbids_programs as f; print(f('.'), f('/'))"
    script = f'mount -t tmpfs -o noexec x "$1" && cd "$1" && exec "$0" -c "{code}"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("True False\n", "")


def test_the_cache_is_where_nobody_else_can_change_it(places, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(places / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(places / "tmpdir"))
    assert scratch.user_cache() == str(places / "home/.cache/pants-flyte")
    assert f"{places}/tmpdir/pants-flyte is not used" in capsys.readouterr().err
    monkeypatch.delenv("HOME")  # as for a user without an entry in /etc/passwd
    assert scratch.user_cache() == str(places / f"tmp/pants-flyte-{UID}")
