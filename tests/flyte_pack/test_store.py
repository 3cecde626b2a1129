"""A store has every object whole or not at all, writes it once, and leads nobody out of itself."""

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
    Blob,
    State,
    StoreError,
    blob_of,
    check_store_uri,
    open_store,
    read,
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

# argv: root, number of keys. Waits for a line, then creates each key; prints which of them it wrote.
RACER = f"""
import sys
from flyte_pack.store.file import FileStore
from flyte_pack.store import blob_of
store = FileStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*[k for k in range(int(sys.argv[2])) if store.create(blob_of(f"new/dir{{k}}/object", {CONTENT!r}), [{CONTENT!r}])])
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


def test_an_object_is_there_once_it_is_created(store, tmp_path):
    blob = blob_of(KEY, CONTENT)
    assert store.state(blob) is State.MISSING
    assert store.size(KEY) is None
    assert store.create(blob, [CONTENT[:10], b"", CONTENT[10:]])
    assert store.state(blob) is State.WHOLE
    assert store.size(KEY) == len(CONTENT)
    assert b"".join(store.stream(KEY)) == CONTENT
    assert store.names("archives") == ["a.tar.gz"]
    assert store.uri_of(KEY) == f"file://{tmp_path}/store/archives/a.tar.gz"


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


def test_content_that_is_not_what_was_promised_is_not_stored(store):
    with pytest.raises(StoreError, match="changed while it was read"):
        store.create(blob_of(KEY, CONTENT), [b"something else"])
    assert store.size(KEY) is None
    assert store.names(".tmp") == []


def test_reading_looks_at_nothing_that_is_not_there_and_makes_nothing(store, tmp_path):
    assert store.names("anything/below") == []
    assert read(store, "a/b/c", 10) is None
    store.sweep()
    assert list(tmp_path.iterdir()) == []


def test_a_record_too_large_to_be_one_is_not_read(store):
    put(store)
    with pytest.raises(StoreError, match="7000 bytes"):
        read(store, KEY, 6999)
    assert read(store, KEY, 7000) == CONTENT


@pytest.mark.parametrize(
    "key", ["", "/", "a//b", "../a", "a/../b", "a/..", "./a", "a/.", "/etc/passwd", "a\0b"]
)
def test_keys_that_lead_elsewhere_are_refused(store, tmp_path, key):
    blob = Blob(key, 0, "0" * 64)
    for use in (
        lambda: store.size(key),
        lambda: store.state(blob),
        lambda: list(store.stream(key)),
        lambda: store.names(key),
        lambda: put(store, key),
        lambda: store.replace(blob_of(key, b""), [b""]),
    ):
        with pytest.raises(StoreError, match="no key"):
            use()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


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
    [plant_link, plant_dangling_link, plant_link_above, plant_directory, plant_pipe, plant_file_above],
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
        with pytest.raises(StoreError, match="plain files and directories only"):
            use()
    with suppress(StoreError):
        assert not put(store)
    assert snapshot(outside) == before


def test_one_of_many_writers_writes_and_all_succeed(tmp_path):
    writers = [start(RACER, tmp_path / "store", 50) for _ in range(8)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    written = [key for writer in writers for key in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0] * 8
    assert sorted(written, key=int) == [str(k) for k in range(50)]
    store = FileStore(str(tmp_path / "store"))
    for k in range(50):
        assert store.state(blob_of(f"new/dir{k}/object", CONTENT)) is State.WHOLE
    assert store.names(".tmp") == []


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


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("file://dist/flyte", "/build/dist/flyte"),
        ("file://dist/flyte/", "/build/dist/flyte"),
        ("file:///srv/flyte", "/srv/flyte"),
        ("FILE:///srv/a b/é", "/srv/a b/é"),
        ("file:///srv/user@corp", "/srv/user@corp"),
    ],
)
def test_a_uri_names_a_directory(uri, root):
    assert open_store(uri, "/build").uri == f"file://{root}"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "file://dist/flyte"),
        ("dist/flyte", "file://dist/flyte"),
        ("/srv/flyte", "file://dist/flyte"),
        ("file:dist", "file://dist/flyte"),
        ("file://", "names no directory"),
        ("file:///", "names no directory"),
        ("file:////srv", "names no directory"),
        ("file://a//b", "names no directory"),
        ("file://../x", "names no directory"),
        ("file:///srv/../x", "names no directory"),
        ("file://./x", "names no directory"),
        ("file://localhost/srv", "two ways"),
        ("file:///a%20b", "'%'"),
        ("file:///a?b", "'?'"),
        ("file:///a#b", "'#'"),
        ("file:///a\nb", "'\\n'"),
        ("file:///a\\b", "'\\\\'"),
        ("s3://bucket/x", "s3://"),
        ("ftp://host/x", "ftp://"),
        ("file://user:hunter2@host/x", "user or password"),
        ("s3://key:hunter2@bucket/x", "user or password"),
        ("s3://key:hunt/er2@bucket/x", "user or password"),
        ("gs://bucket/x?sig=hunter2", "'?'"),
    ],
)
def test_what_is_no_uri_of_a_store_is_refused(uri, said):
    with pytest.raises(StoreError) as error:
        check_store_uri(uri)
    assert said in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "er2" not in str(error.value)


def test_a_build_root_that_a_uri_can_not_hold_is_refused():
    with pytest.raises(StoreError, match="'#'"):
        open_store("file://dist/flyte", "/home/c#")


def store_file(store, key=KEY):
    return Path(store.uri[len("file://") :]) / key
