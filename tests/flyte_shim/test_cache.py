"""The cache: shared by processes, and whole whatever happens to any of them."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from flyte_shim import fetch as fetch_module
from flyte_shim import safe
from flyte_shim.cache import Cache
from flyte_shim.cli import main
from flyte_shim.errors import StorageError
from flyte_shim.files import remove_tree
from tests.support.archives import Archive, archive_of
from tests.support.processes import fork, in_child, killed_at, wait
from tests.support.shim import environment, run_shim, start_shim

FILES = {"top.py": "x = 1\n", "pkg/a.py": "x = 2\n", "pkg/sub/b.csv": "1\n", "run.sh": "#!/bin/sh"}
OTHER = {"top.py": "x = 3\n", "pkg/c.py": "x = 4\n", "sub/d.csv": "2\n"}
UID = str(os.geteuid())


class Setting:
    """A cache, a working directory and archives, for starts in forked processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root / "cache"
        self.workdir = root / "work"
        self.workdir.mkdir(parents=True)

    def archive(self, files=FILES) -> Archive:
        return archive_of(self.root / "store", files)

    def arguments(self, files=FILES, mode: str = "link") -> list[str]:
        return [
            *("--archive", str(self.archive(files).path), "--cache", str(self.cache)),
            *("--workdir", str(self.workdir), "--mode", mode),
        ]

    def start(self, files=FILES, mode: str = "link") -> Callable[[], int]:
        """A function that becomes `true`, for a forked process."""
        arguments = self.arguments(files, mode)
        return lambda: main([*arguments, "--", "/bin/true"])

    def entry(self, files=FILES) -> Path:
        return self.cache / UID / "entries" / self.archive(files).sha256

    def assert_whole(self, files=FILES) -> None:
        """The working directory shows `files`, and there is no litter, here or in the cache."""
        seen = {
            str(Path(directory, name).relative_to(self.workdir)): Path(directory, name).read_text()
            for directory, _, names in os.walk(self.workdir, followlinks=True)
            for name in names
        }
        name = self.archive(files).path.name
        markers = {name: "", f".{name}.extracted": ""}
        own = {f".flyte-shim/{n}": seen[f".flyte-shim/{n}"] for n in ("lock", "record")}
        assert seen == {**files, **markers, **own}
        assert os.listdir(self.cache / UID / "work") == []
        for entry in (self.cache / UID / "entries").iterdir():
            assert sorted(os.listdir(entry)) == ["bytecode", "files", "lock"]


@pytest.fixture
def setting(tmp_path) -> Setting:
    return Setting(tmp_path)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)


def locked(path: Path) -> bool:
    """Whether somebody holds a lock on the file, so that an exclusive one cannot be had."""
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_an_entry_has_the_modes_that_the_contract_names(setting):
    assert in_child(setting.start()) == 0
    for path in (setting.cache / UID, setting.cache / UID / "entries", setting.entry()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert path.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_64_starts_at_once_make_one_entry(setting, mode):
    """All wait for one pipe to be closed; each that makes the entry says so in a file."""
    log = setting.root / "log"
    start = setting.start(mode=mode)
    real_fetch = fetch_module.fetch

    def logging_fetch(*arguments) -> tuple[int, int, int]:
        with open(log, "a") as file:
            file.write("fetched\n")
        return real_fetch(*arguments)

    gate, door = os.pipe()

    def child() -> int:
        os.close(door)
        fetch_module.fetch = logging_fetch
        os.read(gate, 1)
        return start()

    children = [fork(child) for _ in range(64)]
    os.close(door)
    assert [wait(process) for process in children] == [0] * 64
    assert log.read_text() == "fetched\n"
    setting.assert_whole()


def test_starts_of_different_bundles_do_not_wait_for_each_other(setting):
    """One stands still in the middle of making its entry."""
    gate, door = os.pipe()

    def stuck() -> int:
        def wait_forever(*_) -> None:
            os.read(gate, 1)

        fetch_module.fetch = wait_forever
        return setting.start(OTHER)()

    child = fork(stuck)
    until(lambda: bool((setting.cache / UID / "work").is_dir() and list_work(setting)))
    assert in_child(setting.start()) == 0
    assert setting.entry().is_dir()
    assert len(list_work(setting)) == 2  # What the other one makes is not litter.
    os.kill(child, signal.SIGKILL)
    assert wait(child) == -signal.SIGKILL
    os.close(gate)
    os.close(door)
    assert in_child(setting.start()) == 0
    assert list_work(setting) == []


def list_work(setting: Setting) -> list[str]:
    return sorted(os.listdir(setting.cache / UID / "work"))


# Each: what is in place when the start that is killed begins, that start, and the one after it.
KILLS = {
    "a first start, then the same": (None, (FILES, "link"), (FILES, "link")),
    "a first start that copies, then the same": (None, (FILES, "copy"), (FILES, "copy")),
    "a first start, then one of another bundle": (None, (FILES, "link"), (OTHER, "link")),
    "a change of bundle": ((OTHER, "link"), (FILES, "link"), (FILES, "link")),
    "a change that is taken back": ((OTHER, "copy"), (FILES, "copy"), (OTHER, "copy")),
    "a change from links to copies": ((OTHER, "link"), (FILES, "copy"), (FILES, "copy")),
    "a change from copies to links, taken back": (
        (OTHER, "copy"),
        (FILES, "link"),
        (OTHER, "copy"),
    ),
}


@pytest.mark.parametrize("name", KILLS)
def test_a_start_killed_at_any_step_is_made_good_by_the_next(tmp_path, name):
    before, killed, after = KILLS[name]
    for step in range(1, 1000):
        setting = Setting(tmp_path / str(step))
        if before:
            assert in_child(setting.start(*before)) == 0
        if not killed_at(step, setting.start(*killed)):
            break
        assert in_child(setting.start(*after)) == 0
        setting.assert_whole(after[0])
    assert step > 20


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_a_start_that_fails_leaves_nothing_behind(setting, mode):
    arguments = setting.arguments(mode=mode)
    archive = Path(arguments[1])
    archive.write_bytes(archive.read_bytes()[:-1])
    done = run_shim(*arguments, "--", "true", home=setting.root, cwd=setting.root)
    assert done.returncode == 65
    assert list_work(setting) == os.listdir(setting.cache / UID / "entries") == []
    assert os.listdir(setting.workdir) == []


def test_the_command_keeps_the_entry_from_eviction_as_long_as_it_lives(setting):
    sleeper = start_shim(*setting.arguments(), "--", "sleep", "600", home=setting.root, cwd="/")
    lock = setting.entry() / "lock"
    until(lambda: command_of(sleeper.pid).startswith(b"sleep\0"))
    assert locked(lock)
    other = start_shim(*setting.arguments(), "--", "sleep", "600", home=setting.root, cwd="/")
    until(lambda: command_of(other.pid).startswith(b"sleep\0"))
    end(sleeper)
    assert locked(lock)
    end(other)
    assert not locked(lock)


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_child_of_the_command_keeps_the_entry_too(setting):
    """A shell in between ends first; it hands its descriptors on."""
    script = "sleep 600 >/dev/null 2>&1 & echo $!"
    done = run_shim(
        *setting.arguments(), "--", "sh", "-c", script, home=setting.root, cwd=setting.root
    )
    lock = setting.entry() / "lock"
    assert locked(lock)
    os.kill(int(done.stdout), signal.SIGKILL)
    until(lambda: not locked(lock))


def waits_for_a_lock(pid: int) -> bool:
    """/proc/locks has a line with an arrow for each process that waits for a lock."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f" {pid} " in line for line in lines)


@pytest.mark.parametrize("busy", [False, True], ids=["before it waits", "while it waits"])
def test_a_start_that_meets_an_eviction_makes_the_entry_anew(setting, busy):
    """The evictor here does what the module's docstring says one has to do."""
    assert in_child(setting.start()) == 0
    entry, work = setting.entry(), setting.cache / UID / "work"
    command = [*setting.arguments(), "--", "true"]
    with open(work / f"{entry.name}.lock", "w") as making, open(entry / "lock") as using:
        fcntl.flock(making, fcntl.LOCK_EX)
        fcntl.flock(using, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if busy:
            user = start_shim(*command, home=setting.root, cwd=setting.root)
            until(lambda: waits_for_a_lock(user.pid))
        entry.rename(work / f"{entry.name}.d")
        fcntl.flock(using, fcntl.LOCK_UN)
        if not busy:
            user = start_shim(*command, home=setting.root, cwd=setting.root)
        until(lambda: waits_for_a_lock(user.pid))  # for the evictor to be done
        remove_tree(str(work / f"{entry.name}.d"))
        (work / f"{entry.name}.lock").unlink()
    assert user.communicate() == ("", "")
    assert user.returncode == 0
    setting.assert_whole()


def test_an_evictor_that_was_killed_leaves_nothing_for_long(setting):
    assert in_child(setting.start()) == 0
    entry, work = setting.entry(), setting.cache / UID / "work"
    (work / f"{entry.name}.lock").touch()
    entry.rename(work / f"{entry.name}.d")
    assert in_child(setting.start(OTHER)) == 0
    assert list_work(setting) == []


def test_what_is_not_ours_in_the_work_directory_is_left_alone(setting):
    assert in_child(setting.start()) == 0
    (setting.cache / UID / "work/something").touch()
    assert in_child(setting.start()) == 0
    assert list_work(setting) == ["something"]


def foreign(path: Path) -> None:
    """Give `path` to another user; where only root could, stand in for its owner's view instead."""
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        path.rename(path.with_name("moved"))
        path.symlink_to("/")


@pytest.mark.parametrize("place", ["", "entries", "work", "entries/{}", "entries/{}/files"])
def test_what_another_user_could_have_put_there_is_refused(setting, place):
    assert in_child(setting.start()) == 0
    foreign(setting.cache / UID / place.format(setting.archive().sha256))
    done = run_shim(*setting.arguments(), "--", "true", home=setting.root, cwd=setting.root)
    assert done.returncode == 73
    assert re.search("belongs to the user with the id 12345|is not a directory", done.stderr)


@pytest.mark.parametrize("place", ["", "entries", "work", "entries/{}", "entries/{}/files"])
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_what_anyone_could_write_is_refused(setting, place, mode):
    assert in_child(setting.start()) == 0
    (setting.cache / UID / place.format(setting.archive().sha256)).chmod(mode)
    done = run_shim(*setting.arguments(), "--", "true", home=setting.root, cwd=setting.root)
    assert done.returncode == 73
    assert "can be written by anyone" in done.stderr


def test_an_entry_without_its_lock_is_refused(setting):
    assert in_child(setting.start()) == 0
    (setting.entry() / "lock").unlink()
    done = run_shim(*setting.arguments(), "--", "true", home=setting.root, cwd=setting.root)
    assert done.returncode == 73
    assert "damaged" in done.stderr


def test_a_disk_that_is_full_is_said_in_one_line_and_leaves_nothing(setting):
    """A limit on the size of files breaks off a write in the middle, as a full disk does."""
    big = {"big": os.urandom(100_000).hex()}
    limited = ["sh", "-c", 'ulimit -f 97 && exec "$0" "$@"', sys.executable, "-m", "flyte_shim"]
    done = subprocess.run(
        [*limited, *setting.arguments(big), "--", "true"],
        env=environment(setting.root),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 73
    (line,) = done.stderr.splitlines()
    assert line.startswith("flyte-shim: error: File too large (in the cache). ")
    assert "Free some space, or set FLYTE_SHIM_CACHE" in line
    assert list_work(setting) == os.listdir(setting.cache / UID / "entries") == []


@pytest.fixture
def variables(tmp_path, monkeypatch) -> pytest.MonkeyPatch:
    for name in ("XDG_CACHE_HOME", "HOME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(safe, "TEMPORARY", (str(tmp_path / "tmp"),))
    return monkeypatch


def test_the_cache_is_where_the_environment_says(variables, tmp_path):
    expected = []
    for name, value, root in [
        (None, None, f"tmp/flyte-shim-{UID}/{UID}"),
        ("TMPDIR", "tmpdir", f"tmpdir/flyte-shim-{UID}/{UID}"),
        ("HOME", "home", f"home/.cache/flyte-shim/{UID}"),
        ("XDG_CACHE_HOME", "xdg", f"xdg/flyte-shim/{UID}"),
    ]:
        if name:
            variables.setenv(name, str(tmp_path / value))
        expected.append(str(tmp_path / root))
        assert Cache.open(None, print).root == expected[-1]
    variables.chdir(tmp_path)
    assert Cache.open("given", print).root == str(tmp_path / "given" / UID)


@pytest.mark.parametrize("home", ["", "relative", "/dev/null", "/proc", "{file}", "{foreign}"])
def test_a_home_that_is_of_no_use_is_passed_over(variables, tmp_path, home):
    (tmp_path / "file").touch()
    shared = tmp_path / "foreign/.cache/flyte-shim" / UID
    shared.mkdir(parents=True)
    shared.chmod(0o777)
    variables.setenv("HOME", home.format(file=tmp_path / "file", foreign=tmp_path / "foreign"))
    assert Cache.open(None, print).root == str(tmp_path / f"tmp/flyte-shim-{UID}/{UID}")


def test_no_place_at_all_is_an_error_that_says_what_to_set(variables, tmp_path):
    (tmp_path / "tmp").touch()
    with pytest.raises(StorageError, match=r"no place for the cache: .*Set FLYTE_SHIM_CACHE"):
        Cache.open(None, print)


def test_a_given_cache_directory_is_not_replaced_by_another(variables):
    with pytest.raises(StorageError, match="/dev/null cannot be used"):
        Cache.open("/dev/null", print)


def test_64_processes_of_their_own_start_at_once(setting):
    """As above with nothing shared but the file system; each says which entry it works from."""
    command = [*setting.arguments(), "--", "stat", "-L", "-c", "%i", str(setting.workdir / "pkg")]
    starts = [start_shim(*command, home=setting.root, cwd=setting.root) for _ in range(64)]
    inodes = {(*start.communicate(), start.returncode) for start in starts}
    ((inode, errors, code),) = inodes
    assert (errors, code) == ("", 0)
    assert int(inode) == (setting.entry() / "files/pkg").stat().st_ino
    setting.assert_whole()


def test_a_start_that_finds_its_entry_writes_nothing_but_the_time_of_its_use(setting):
    """So the cache may be read-only, as in an image that holds its bundle already."""
    assert in_child(setting.start()) == 0
    lock = setting.entry() / "lock"
    os.utime(lock, (1, 1))
    before = {path: path.lstat().st_mtime_ns for path in setting.cache.rglob("*")}
    assert in_child(setting.start()) == 0
    after = {path: path.lstat().st_mtime_ns for path in setting.cache.rglob("*")}
    assert {path for path in after if after[path] != before[path]} == {lock}
    assert after.keys() == before.keys()
