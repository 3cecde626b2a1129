"""Every kind of store writes every object once, and whole or not at all."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from flyte_pack.remembered import Remembered
from flyte_pack.store import Blob, State, StoreError, blob_of, verified
from flyte_pack.store.file import FileStore
from flyte_pack.store.opening import open_store
from flyte_pack.store.remote import SHA256
from tests.support.object_stores import (
    REAL_STORES,
    CutRequest,
    clean_environment,
    proxied,
    unique,
)

CONTENT = b"content" * 1000
KEY = "archives/a.tar.gz"
LARGE = random.Random(1).randbytes(20 << 20)  # more than is kept in memory

# argv: uri, number of keys. Waits for a line, then creates each key; prints which of them it wrote.
RACER = f"""
import sys
from flyte_pack.store import blob_of
from flyte_pack.store.opening import open_store
store = open_store(sys.argv[1], "/")
store.size("warm")
print("ready", flush=True)
sys.stdin.readline()
def create(k):
    return store.create(blob_of(f"new/dir{{k}}/object", {CONTENT!r}), [{CONTENT!r}])
print(*[k for k in range(int(sys.argv[2])) if create(k)])
"""

# argv: uri. Creates a large object.
WRITER = f"""
import random, sys
from flyte_pack.store import blob_of
from flyte_pack.store.opening import open_store
content = random.Random(1).randbytes({len(LARGE)})
open_store(sys.argv[1], "/").create(blob_of({KEY!r}, content), [content])
"""


@pytest.fixture(params=["file", *REAL_STORES])
def uri(request, tmp_path, monkeypatch):
    """Of an empty store, which the environment has the credentials for."""
    clean_environment(monkeypatch)
    if request.param == "file":
        return f"file://{tmp_path}/store"
    real = REAL_STORES[request.param]()
    for name, value in real.env.items():
        monkeypatch.setenv(name, value)
    return f"{real.uri}/{unique()}"


@pytest.fixture
def store(uri):
    return open_store(uri, "/")


def start(program, *argv):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, argv)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def put(store, key=KEY, content=CONTENT):
    return store.create(blob_of(key, content), [content])


def test_an_object_is_there_once_it_is_created(store, uri):
    blob = blob_of(KEY, CONTENT)
    assert store.state(blob) is State.MISSING
    assert store.size(KEY) is None
    assert store.read(KEY, 10) is None
    assert store.create(blob, [CONTENT[:10], b"", CONTENT[10:]])
    assert store.state(blob) is State.WHOLE
    assert store.state(blob, deep=True) is State.WHOLE
    assert store.size(KEY) == len(CONTENT)
    assert b"".join(store.stream(KEY)) == CONTENT
    assert b"".join(verified(store, blob)) == CONTENT
    assert store.names("archives") == ["a.tar.gz"]
    assert store.uri_of(KEY) == f"{uri}/{KEY}"


@pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=len)
def test_content_of_any_size_comes_back_as_it_was(store, content):
    blob = blob_of(KEY, content)
    assert store.create(blob, [content[i : i + 700_000] for i in range(0, len(content), 700_000)])
    assert b"".join(store.stream(KEY)) == content
    assert store.read(KEY, len(content)) == content
    assert store.state(blob, deep=True) is State.WHOLE
    assert not store.create(blob, [content])


def test_the_second_of_two_objects_by_one_key_is_not_written(store):
    assert put(store)
    before = store.objects("archives")
    assert not put(store, content=b"other")
    assert store.state(blob_of(KEY, CONTENT), deep=True) is State.WHOLE
    assert store.objects("archives") == before


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT + b"x", b"x" + CONTENT[1:]], ids=len)
def test_what_is_not_what_it_must_be_is_seen_and_can_be_repaired(store, damage):
    put(store)
    blob = blob_of(KEY, CONTENT)
    store.replace(blob_of(KEY, damage), [damage])
    assert store.state(blob) is State.DAMAGED
    assert store.state(blob, deep=True) is State.DAMAGED
    with pytest.raises(StoreError, match="is damaged"):
        list(verified(store, blob))
    store.replace(blob, [CONTENT])
    assert store.state(blob) is State.WHOLE
    assert b"".join(verified(store, blob)) == CONTENT


@pytest.mark.parametrize("remembered", [True, False])
def test_a_checksum_that_its_writer_claims_does_not_make_an_object_whole(
    store, remembered, tmp_path
):
    if isinstance(store, FileStore):
        pytest.skip("a directory keeps no checksums")
    store.remembered = Remembered(str(tmp_path / "checked")) if remembered else None
    blob = blob_of(KEY, CONTENT)

    def claim(content):
        described = {SHA256: blob.sha256}
        store._backend.put(KEY, content, described, new=False)

    claim(b"x" * len(CONTENT))
    assert store.state(blob) is State.DAMAGED
    claim(CONTENT)
    assert store.state(blob) is State.WHOLE
    assert store.state(blob) is State.WHOLE
    claim(b"x" * len(CONTENT))
    assert store.state(blob) is State.DAMAGED


@pytest.mark.parametrize("content", [b"", b"something else", CONTENT + b"x"], ids=len)
def test_content_that_is_not_what_was_promised_is_not_stored(store, content):
    put(store, "archives/before")
    for write in (store.create, store.replace):
        with pytest.raises(StoreError, match="changed while it was read"):
            write(blob_of(KEY, CONTENT), [content])
    assert store.names("archives") == ["before"]


def test_content_whose_source_fails_is_not_stored(store):
    def fails():
        yield CONTENT[:100]
        raise StoreError("the source is gone")

    put(store, "archives/before")
    with pytest.raises(StoreError, match="the source is gone"):
        store.create(blob_of(KEY, CONTENT), fails())
    assert store.names("archives") == ["before"]


def test_names_are_those_directly_below(store):
    for key in ("a/b/1", "a/b/2/x", "a/b/2/y", "a/bc/3", "a/b~-é c+d"):
        put(store, key)
    assert store.names("a/b") == ["1", "2"]
    assert store.names("a") == ["b", "bc", "b~-é c+d"]
    assert store.names("nothing/below") == []


def test_names_and_objects_are_found_below_any_key(store):
    put(store, "d/services~.deploy/a b+c~~/1.json", b"1")
    assert store.names("d/services~.deploy") == ["a b+c~~"]
    assert store.names("d/services~.deploy/a b+c~~") == ["1.json"]
    [listed] = store.objects("d/services~.deploy")
    assert listed.key == "d/services~.deploy/a b+c~~/1.json"


def test_objects_are_all_those_below_with_size_and_time(store):
    started = time.time()
    put(store, "a/b/1", b"")
    put(store, "a/b/2/x", b"12345")
    put(store, "a/bc/3", b"1")
    listed = store.objects("a/b")
    assert [(one.key, one.size) for one in listed] == [("a/b/1", 0), ("a/b/2/x", 5)]
    assert all(started - 2 <= one.modified <= time.time() + 2 for one in listed)
    assert list(store.objects("nothing")) == []


def test_what_was_deleted_is_gone_and_may_be_deleted_and_written_again(store):
    put(store)
    put(store, "archives/b", b"b")
    store.delete(KEY)
    store.delete(KEY)
    store.delete("nothing/at/all")
    assert store.size(KEY) is None
    assert store.names("archives") == ["b"]
    assert put(store)


def test_a_missing_object_is_not_streamed(store):
    with pytest.raises(StoreError, match=r"archives/a\.tar\.gz does not exist"):
        list(store.stream(KEY))


def test_a_record_too_large_to_be_one_is_not_read(store):
    put(store)
    with pytest.raises(StoreError, match="7000 bytes"):
        store.read(KEY, 6999)
    assert store.read(KEY, 7000) == CONTENT


@pytest.mark.parametrize(
    "key", ["", "/", "a//b", "../a", "a/../b", "a/..", "./a", "a/.", "/etc/passwd", "a\0b"]
)
def test_keys_that_lead_elsewhere_are_refused(store, key):
    blob = Blob(key, 0, "0" * 64)
    for use in (
        lambda: store.size(key),
        lambda: store.state(blob),
        lambda: store.read(key, 1),
        lambda: list(store.stream(key)),
        lambda: store.names(key),
        lambda: store.objects(key),
        lambda: store.delete(key),
        lambda: put(store, key),
        lambda: store.replace(blob_of(key, b""), [b""]),
    ):
        with pytest.raises(StoreError, match="invalid key"):
            use()


def test_one_of_many_writers_writes_and_all_succeed(store, uri):
    writers = [start(RACER, uri, 20) for _ in range(16)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    written = [key for writer in writers for key in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0] * 16
    assert sorted(written, key=int) == [str(k) for k in range(20)]
    for k in range(20):
        assert store.state(blob_of(f"new/dir{k}/object", CONTENT), deep=True) is State.WHOLE


@pytest.mark.parametrize("kind", REAL_STORES)
def test_a_writer_that_is_killed_while_it_sends_leaves_nothing_to_be_seen(kind, monkeypatch):
    clean_environment(monkeypatch)
    real = REAL_STORES[kind]()
    with proxied(real) as (through, proxy):
        for name, value in through.env.items():
            monkeypatch.setenv(name, value)
        uri = f"{real.uri}/{unique()}"

        def kill(request):
            if not request.writes:
                return None
            writer.send_signal(signal.SIGKILL)
            return CutRequest(4 << 20)

        proxy.fault = kill
        writer = start(WRITER, uri)
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        assert [request.size > len(LARGE) - 1 for request in proxy.writes] == [True]
        proxy.clear()
        store = open_store(uri, "/")
        assert store.objects("archives") == []
        assert store.size(KEY) is None
        assert put(store, content=LARGE)


@pytest.mark.parametrize("kind", REAL_STORES)
def test_a_writer_can_be_interrupted_while_it_sends(kind, monkeypatch):
    clean_environment(monkeypatch)
    real = REAL_STORES[kind]()
    released = threading.Event()
    with proxied(real) as (through, proxy):
        for name, value in through.env.items():
            monkeypatch.setenv(name, value)
        uri = f"{real.uri}/{unique()}"

        def interrupt(request):
            if not request.writes:
                return None
            writer.send_signal(signal.SIGINT)
            released.wait(300)
            return CutRequest(0)

        proxy.fault = interrupt
        writer = start(WRITER, uri)
        try:
            writer.communicate(timeout=120)
        finally:
            released.set()
        # Python ends itself by the signal, once nobody handles it.
        assert writer.returncode == -signal.SIGINT
        proxy.clear()
        assert open_store(uri, "/").objects("archives") == []


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_listings_of_many_pages_are_whole(kind, monkeypatch):
    clean_environment(monkeypatch)
    with proxied(REAL_STORES[kind]()) as (real, proxy):
        for name, value in real.env.items():
            monkeypatch.setenv(name, value)
        uri = f"{real.uri}/{unique()}"
        keys = [f"many/{number:04}" for number in range(1050)]

        def write(part):
            mine = open_store(uri, "/")
            return [put(mine, key, b"x") for key in part]

        with ThreadPoolExecutor(6) as threads:
            assert all(map(all, threads.map(write, (keys[i::6] for i in range(6)))))
        proxy.clear()
        store = open_store(uri, "/")
        assert store.names("many") == [key.split("/")[1] for key in keys]
        assert len(proxy.requests) == 2
        assert [one.key for one in store.objects("many")] == keys
        assert len(proxy.requests) == 4
