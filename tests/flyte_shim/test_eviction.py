"""The cache keeps to its bound, by removing what nobody uses and was not used for longest."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from flyte_shim import cache as cache_module
from flyte_shim.cache import Cache
from flyte_shim.cli import main
from flyte_shim.errors import UsageError
from flyte_shim.fetch import cache_bytes_from
from tests.support.archives import Archive, archive_of
from tests.support.processes import in_child, killed_at
from tests.support.shim import run_shim, start_shim

UID = str(os.geteuid())
SIZE = 3 * 4096  # of a bundle below: a file of two blocks, and its directory


class Setting:
    """A cache with a bound, and bundles of one size, each by a number."""

    def __init__(self, root: Path, bound: int) -> None:
        self.root = root
        self.bound = bound
        self.cache = root / "cache"
        self.archives: dict[int, Archive] = {}

    def archive(self, number: int) -> Archive:
        if number not in self.archives:
            content = f"{number} ".ljust(5000, "x") + "\n"
            self.archives[number] = archive_of(self.root / "store", {"file": content})
        return self.archives[number]

    def arguments(self, number: int) -> list[str]:
        workdir = self.root / f"work{number}"
        return [
            *("--archive", str(self.archive(number).path), "--cache", str(self.cache)),
            *("--workdir", str(workdir)),
        ]

    def start(self, number: int):
        """A function for a forked process; it becomes `true`."""
        arguments = self.arguments(number)

        def function() -> int:
            os.makedirs(self.root / f"work{number}", exist_ok=True)
            os.environ["FLYTE_SHIM_CACHE_MAX_BYTES"] = str(self.bound)
            return main([*arguments, "--", "/bin/true"])

        return function

    def run(self, number: int) -> None:
        assert in_child(self.start(number)) == 0

    def age(self, number: int, seconds: int) -> None:
        """Have an entry last used in the past, as seen from now."""
        lock = self.entry(number) / "lock"
        now = os.stat(lock).st_mtime
        os.utime(lock, (now - seconds, now - seconds))

    def entry(self, number: int) -> Path:
        return self.cache / UID / "entries" / self.archive(number).sha256

    def cached(self) -> list[int]:
        there = os.listdir(self.cache / UID / "entries")
        names = {archive.sha256: number for number, archive in self.archives.items()}
        return sorted(names[name] for name in there)

    def work(self) -> list[str]:
        return os.listdir(self.cache / UID / "work")


@pytest.fixture
def setting(tmp_path) -> Setting:
    return Setting(tmp_path, bound=3 * SIZE)


def test_an_entry_knows_how_much_of_the_disk_it_takes(setting):
    setting.run(0)
    assert int((setting.entry(0) / "lock").read_text()) == SIZE


def test_the_bound_is_held(setting):
    for number in range(8):
        setting.run(number)
        assert len(setting.cached()) == min(number + 1, 3)
    assert setting.cached() == [5, 6, 7]
    assert setting.work() == []


def test_what_was_used_last_stays_whenever_it_was_made(setting):
    for number in range(3):
        setting.run(number)
    for number, seconds in ((0, 30), (1, 20), (2, 10)):
        setting.age(number, seconds)
    setting.run(0)
    setting.run(3)
    assert setting.cached() == [0, 2, 3]
    setting.run(4)
    assert setting.cached() == [0, 3, 4]


def test_a_start_that_finds_its_entry_evicts_nothing(setting):
    for number in range(3):
        setting.run(number)
    setting.bound = 1
    setting.run(0)
    assert setting.cached() == [0, 1, 2]


def test_no_bound_evicts_nothing(setting):
    setting.bound = 0
    for number in range(5):
        setting.run(number)
    assert setting.cached() == [0, 1, 2, 3, 4]


def test_a_bundle_that_is_larger_than_the_bound_runs_all_the_same(setting):
    setting.bound = SIZE - 1
    setting.run(0)
    setting.run(1)
    assert setting.cached() == [1]


def test_what_is_in_use_is_never_evicted(setting):
    """Not by a bound that leaves room for nothing; and when it is used no more, it is."""
    sleepers = [
        start_shim(*setting.arguments(number), "--", "sleep", "600", home=setting.root, cwd="/")
        for number in range(4)
    ]
    for number, sleeper in enumerate(sleepers):
        while not Path(f"/proc/{sleeper.pid}/cmdline").read_bytes().startswith(b"sleep\0"):
            assert sleeper.poll() is None
        setting.age(number, 100 - number)
    setting.bound = 1
    setting.run(4)
    assert setting.cached() == [0, 1, 2, 3, 4]
    _end(sleepers[2])
    setting.run(5)
    assert setting.cached() == [0, 1, 3, 5]
    for sleeper in (sleepers[0], sleepers[1], sleepers[3]):
        _end(sleeper)


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def test_64_starts_with_room_for_one_all_run_on_their_own_files(setting):
    """Each checks, as its command, that its bundle is whole for as long as it runs; 16 bundles."""
    script = 'for i in 1 2 3 4 5; do read -r n _ <file && [ "$n" = "$0" ] || exit 9; done'
    variables = {"FLYTE_SHIM_CACHE_MAX_BYTES": "1"}
    starts = []
    for start in range(64):
        number = start % 16
        workdir = setting.root / f"w{start}"
        workdir.mkdir()
        arguments = setting.arguments(number)[:4]
        starts.append(
            start_shim(
                *(*arguments, "--", "sh", "-c", script, str(number)),
                home=setting.root,
                cwd=workdir,
                variables=variables,
            )
        )
    assert [(start.communicate()[1], start.returncode) for start in starts] == [("", 0)] * 64
    setting.bound = 1
    setting.run(16)
    assert setting.cached() == [16]
    assert setting.work() == []


def test_two_that_evict_at_a_time_evict_no_more_than_is_needed(setting):
    """What another process removes just now counts as removed."""
    for number in range(6):
        setting.bound = 0
        setting.run(number)
        setting.age(number, 100 - number)
    cache = Cache(str(setting.cache / UID))
    taken = [cache._lock_to_make(setting.archive(n).sha256, wait=False) for n in (0, 1)]
    assert None not in taken
    assert cache.trim(3 * SIZE) == {setting.archive(2).sha256: SIZE}


def test_an_entry_that_was_used_since_it_was_chosen_stays(setting, monkeypatch):
    for number in range(2):
        setting.run(number)
        setting.age(number, 100 - number)
    cache = Cache(str(setting.cache / UID))
    lock_to_make = cache._lock_to_make

    def use_it_first(archive_hash: str, wait: bool):
        if archive_hash == setting.archive(0).sha256:
            setting.run(0)
        return lock_to_make(archive_hash, wait)

    monkeypatch.setattr(cache, "_lock_to_make", use_it_first)
    assert cache.trim(SIZE) == {setting.archive(1).sha256: SIZE}
    assert setting.cached() == [0]


def test_evicting_ends_after_a_while_and_the_next_start_goes_on(setting, monkeypatch):
    monkeypatch.setattr(cache_module, "EVICTION_SECONDS", -1)
    setting.bound = 0
    for number in range(4):
        setting.run(number)
        setting.age(number, 100 - number)
    setting.bound = SIZE
    setting.run(4)
    assert setting.cached() == [1, 2, 3, 4]
    setting.run(5)
    assert setting.cached() == [2, 3, 4, 5]


def test_a_start_that_is_killed_while_it_evicts_is_made_good_by_the_next(tmp_path):
    """At each step, from making its own entry to the end."""
    evicting = 0
    for step in range(1, 1000):
        setting = Setting(tmp_path / str(step), bound=0)
        for number in (0, 1):
            setting.run(number)
            setting.age(number, 100 - number)
        setting.bound = SIZE
        if not killed_at(step, setting.start(2)):
            break
        evicting += setting.entry(2).exists()
        setting.run(1)  # whole, whether it was there or not
        assert (setting.root / "work1/file").read_text().startswith("1 ")
        setting.run(3)
        assert setting.work() == []
        assert setting.cached() == [3]
        for entry in (setting.cache / UID / "entries").iterdir():
            assert sorted(os.listdir(entry)) == ["files", "lock"]
    assert evicting > 20


@pytest.mark.parametrize("content", ["", "nonsense\n", "9" * 40])
def test_an_entry_whose_size_nobody_knows_can_be_evicted(setting, content):
    """One that a power cut has damaged, say."""
    setting.bound = 0
    for number in range(2):
        setting.run(number)
        setting.age(number, 100 - number)
    (setting.entry(0) / "lock").write_text(content)
    setting.age(0, 200)
    setting.bound = SIZE
    setting.run(2)
    assert setting.cached() == [2]


def test_what_is_not_an_entry_is_left_alone(setting):
    setting.run(0)
    entries = setting.cache / UID / "entries"
    (entries / "something").mkdir()
    (entries / "file").touch()
    setting.bound = 1
    setting.run(1)
    assert {"something", "file"} <= set(os.listdir(entries))
    assert not setting.entry(0).exists()


def test_a_cache_that_can_not_be_made_smaller_keeps_no_task_from_its_start(setting):
    setting.run(0)
    setting.age(0, 100)
    (setting.entry(0) / "immovable").mkdir()
    blocker = setting.cache / UID / "work" / f"{setting.archive(0).sha256}.d"
    blocker.write_text("a file, where a directory belongs")
    variables = {"FLYTE_SHIM_CACHE_MAX_BYTES": "1"}
    workdir = setting.root / "work1"
    workdir.mkdir()
    done = run_shim(
        *setting.arguments(1), "--", "true", home=setting.root, cwd=workdir, variables=variables
    )
    assert done.returncode == 0
    assert "flyte-shim: warning: cannot make the cache smaller: Not a directory" in done.stderr


def test_evictions_are_events(setting):
    setting.run(0)
    setting.age(0, 100)
    (setting.root / "work1").mkdir()
    done = run_shim(
        *(*setting.arguments(1), "--", "true"),
        home=setting.root,
        cwd=setting.root,
        variables={"FLYTE_SHIM_CACHE_MAX_BYTES": "1", "FLYTE_SHIM_LOG": "json"},
    )
    ready, evicted = map(json.loads, done.stderr.splitlines())
    assert (ready["event"], evicted["event"]) == ("ready", "evicted")
    assert (evicted["evicted"], evicted["bytes"]) == (setting.archive(0).sha256, SIZE)
    assert evicted["archive"] == setting.archive(1).sha256


def test_by_default_it_is_10_gib_or_a_quarter_of_the_disk(tmp_path):
    disk = os.statvfs(tmp_path)
    quarter = disk.f_frsize * disk.f_blocks // 4
    assert cache_bytes_from({}, str(tmp_path)) == min(10 << 30, quarter)
    assert cache_bytes_from({"FLYTE_SHIM_CACHE_MAX_BYTES": "0"}, str(tmp_path)) == 0
    with pytest.raises(UsageError, match="FLYTE_SHIM_CACHE_MAX_BYTES is '10G'; it takes a number"):
        cache_bytes_from({"FLYTE_SHIM_CACHE_MAX_BYTES": "10G"}, str(tmp_path))


def test_a_bound_that_is_none_is_said_before_anything_is_fetched(setting):
    done = run_shim(
        *(*setting.arguments(0), "--", "true"),
        home=setting.root,
        cwd=setting.root,
        variables={"FLYTE_SHIM_CACHE_MAX_BYTES": "much"},
    )
    assert done.returncode == 64
    assert os.listdir(setting.cache / UID / "entries") == setting.work() == []


def test_a_read_only_cache_serves_what_it_holds(setting):
    """A cache as in an image. No mode stops root, so the test simulates the system's refusal."""
    setting.run(0)
    assert in_child(lambda: _without_times(setting.start(0))) == 0


def _without_times(start: Callable[[], int]) -> int:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    os.utime = refuse
    return start()
