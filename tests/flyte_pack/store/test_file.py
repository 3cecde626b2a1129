"""A store in a directory: nobody is led out of it, and it works on any file system.

What it has in common with the other stores is in test_store_contract.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from flyte_pack.store import (
    State,
    StoreError,
    blob_of,
)
from flyte_pack.store.file import FileStore
from tests.support.deploying import SOURCE_ROOT, snapshot

CONTENT = b"content" * 1000
KEY = "archives/a.tar.gz"

# argv: root. Writes half an object, says so, and waits for a line before it writes the other half.
SLOW_WRITER = f"""
import sys
from flyte_pack.store.file import FileStore
from flyte_pack.store import blob_of
content = {CONTENT!r}
def chunks():
    yield content[:3000]
    print("half", flush=True)
    sys.stdin.readline()
    yield content[3000:]
print(FileStore(sys.argv[1]).create(blob_of({KEY!r}, content), chunks()))
"""


@pytest.fixture
def store(tmp_path):
    return FileStore(str(tmp_path / "store"))


def start(program, *argv):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, argv)],
        env={**os.environ, "PYTHONPATH": SOURCE_ROOT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def put(store, key=KEY, content=CONTENT):
    return store.create(blob_of(key, content), [content])


def test_the_second_of_two_objects_by_one_key_is_not_written(store):
    assert put(store)
    before = snapshot(store_file(store).parent)
    assert not put(store, content=b"other")
    assert store.state(blob_of(KEY, CONTENT)) is State.WHOLE
    assert snapshot(store_file(store).parent) == before


def test_nothing_is_left_of_temporary_files(store):
    put(store)
    put(store, content=b"other")
    store.replace(blob_of(KEY, b"third"), [b"third"])
    assert store.names(".tmp") == []


def test_objects_are_protected_from_accidents(store):
    put(store)
    assert store_file(store).stat().st_mode & 0o222 == 0


@pytest.mark.parametrize(
    "content", [b"", CONTENT[:-1], CONTENT + b"x", b"x" + CONTENT[1:]], ids=len
)
def test_damage_is_seen_by_size_and_by_checksum_and_can_be_repaired(store, content):
    put(store)
    store_file(store).unlink()
    store_file(store).write_bytes(content)
    blob = blob_of(KEY, CONTENT)
    assert store.state(blob) is State.DAMAGED
    store.replace(blob, [CONTENT])
    assert store.state(blob) is State.WHOLE


def test_reading_looks_at_nothing_that_is_not_there_and_makes_nothing(store, tmp_path):
    assert store.names("anything/below") == []
    assert store.read("a/b/c", 10) is None
    store.sweep()
    assert list(tmp_path.iterdir()) == []


def plant_link(path, outside):
    path.symlink_to(outside)


def plant_dangling_link(path, outside):
    path.symlink_to(outside.parent / "nowhere")


def plant_link_above(path, outside):
    path.parent.rmdir()
    path.parent.symlink_to(outside.parent)
    outside.rename(outside.parent / path.name)


def plant_directory(path, outside):
    path.mkdir()


def plant_pipe(path, outside):
    os.mkfifo(path)


def plant_file_above(path, outside):
    path.parent.rmdir()
    path.parent.write_text("")


@pytest.mark.parametrize(
    "plant",
    [
        *(plant_link, plant_dangling_link, plant_link_above),
        *(plant_directory, plant_pipe, plant_file_above),
    ],
)  # fmt: skip
def test_what_is_no_plain_file_is_refused_and_nothing_outside_is_touched(store, tmp_path, plant):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(CONTENT)
    store_file(store).parent.mkdir(parents=True)
    plant(store_file(store), outside / "file")
    before = snapshot(outside)
    for use in (
        lambda: store.size(KEY),
        lambda: store.state(blob_of(KEY, CONTENT)),
        lambda: list(store.stream(KEY)),
    ):
        with pytest.raises(StoreError, match="only plain files and directories"):
            use()
    with suppress(StoreError):
        assert not put(store)
    assert snapshot(outside) == before


def test_what_a_killed_writer_left_is_swept_away_and_what_a_living_one_writes_is_not(store):
    root = store.uri[len("file://") :]
    killed, living = start(SLOW_WRITER, root), start(SLOW_WRITER, root)
    for writer in (killed, living):
        assert writer.stdout.readline() == "half\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(store.names(".tmp")) == 2
    store.sweep()
    assert len(store.names(".tmp")) == 1
    assert store.size(KEY) is None
    assert living.communicate("\n")[0] == "True\n"
    assert store.state(blob_of(KEY, CONTENT)) is State.WHOLE
    assert store.names(".tmp") == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_without_hard_links_an_object_is_still_written_once(store, monkeypatch, code):
    def no_links(*_, **__):
        raise OSError(code, "no hard links here")

    def rename(*args, **kwargs):
        with open(store_file(store).parents[1] / ".tmp" / "lock") as lock:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        rename.real(*args, **kwargs)

    rename.real = os.rename
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "rename", rename)
    written = []
    threads = [threading.Thread(target=lambda: written.append(put(store))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written) == [False] * 7 + [True]
    assert store.state(blob_of(KEY, CONTENT)) is State.WHOLE
    store.sweep()
    assert store.names(".tmp") == ["lock"]


def test_without_locks_objects_are_written_and_nothing_is_swept(store, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert put(store)
    (store_file(store).parents[1] / ".tmp" / "somebodys").write_text("")
    store.sweep()
    assert store.names(".tmp") == ["somebodys"]


def test_a_failing_link_leaves_nothing(store, monkeypatch):
    def fails(*_, **__):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(os, "link", fails)
    with pytest.raises(StoreError, match="broken disk"):
        put(store)
    assert store.names(".tmp") == []


def store_file(store, key=KEY):
    return Path(store.uri[len("file://") :]) / key
