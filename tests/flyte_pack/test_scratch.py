"""Programs unpack what they run where nobody else can change it, and where it can run."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

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


@pytest.fixture
def memory(tmp_path, monkeypatch):
    (tmp_path / "shm").mkdir()
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(scratch, "_MEMORY", str(tmp_path / "shm"))
    return tmp_path / "shm"


def test_small_things_go_into_memory_unless_the_user_names_another_place(memory, monkeypatch):
    made = scratch.new_in_memory(1 << 20)
    assert os.path.dirname(made) == str(memory)
    assert stat.S_IMODE(os.stat(made).st_mode) == 0o700
    assert scratch.new_in_memory(1 << 60) is None  # there is not so much room
    monkeypatch.setattr(scratch, "forbids_programs", lambda path: True)
    assert scratch.new_in_memory(1 << 20) is None  # a module may be a shared library
    monkeypatch.undo()
    monkeypatch.setenv("TMPDIR", str(memory))
    assert scratch.new_in_memory(1 << 20) is None


def test_memory_that_others_could_change_or_that_is_missing_is_not_used(memory):
    memory.chmod(0o777)
    assert scratch.new_in_memory(1 << 20) is None
    memory.rmdir()
    memory.symlink_to("/nowhere")
    assert scratch.new_in_memory(1 << 20) is None
    assert not os.path.exists("/nowhere")


def test_what_a_killed_process_left_in_memory_goes_when_it_is_old(memory):
    dead = subprocess.Popen(["true"])
    dead.wait()
    old = time.time() - 2 * 86400
    alive = Path(scratch.new_in_memory(1))
    gone, young, other = (
        memory / f"flyte-pack-{dead.pid}-{name}" for name in ("abcdefgh", "bbcdefgh", "not-ours")
    )
    for path in (gone, young, other):
        (path / "files").mkdir(parents=True)
    for path in (alive, gone, other):
        os.utime(path, (old, old))
    made = Path(scratch.new_in_memory(1))
    assert sorted(memory.iterdir()) == sorted([alive, young, other, made])
