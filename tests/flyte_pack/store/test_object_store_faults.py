"""Broken requests to an object store are sent again, and no object is ever partial."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from flyte_pack.store import State, StoreError, blob_of, verified
from flyte_pack.store.opening import remote_store
from tests.support.object_stores import (
    REAL_STORES,
    Answer,
    Corrupt,
    CutAnswer,
    CutRequest,
    LoseAnswer,
    clean_environment,
    in_turn,
    proxied,
    unique,
)
from tests.support.registries import Clock

CONTENT = random.Random(2).randbytes(9 << 20)
BLOB = blob_of("archives/a.tar.gz", CONTENT)
BUSY = Answer(503, b"<Error><Code>SlowDown</Code></Error>")


@pytest.fixture(params=REAL_STORES)
def behind(request, monkeypatch):
    """A store behind a proxy, the proxy, and a clock that only the store's pauses move."""
    clean_environment(monkeypatch)
    with proxied(REAL_STORES[request.param]()) as (real, proxy):
        for name, value in real.env.items():
            monkeypatch.setenv(name, value)
        clock = Clock()
        yield remote_store(f"{real.uri}/{unique()}", real.env, clock.timing), proxy, clock


def reads(request):
    """The content; on GCS what is known of an object is asked for by GET too."""
    return request.method == "GET" and BLOB.key in request.path and "fields" not in request.query


def writes(request):
    return request.writes


def test_reading_goes_on_where_the_connection_broke(behind):
    store, proxy, clock = behind
    store.create(BLOB, [CONTENT])
    proxy.clear()
    proxy.times(3, CutAnswer(2_000_000), reads)
    assert b"".join(verified(store, BLOB)) == CONTENT
    gets = [request for request in proxy.requests if reads(request)]
    starts = [int(request.headers.get("range", "bytes=0-")[6:-1]) for request in gets]
    assert len(starts) == 4
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert len(clock.slept) == 3


def test_reading_goes_on_with_the_same_object_or_not_at_all(behind):
    store, proxy, _ = behind
    store.create(BLOB, [CONTENT])
    proxy.once(CutAnswer(4_000_000), reads)
    pieces = store.stream(BLOB.key)
    next(pieces)
    other = CONTENT[::-1]
    store.replace(blob_of(BLOB.key, other), [other])
    with pytest.raises(StoreError, match=r"archives/a\.tar\.gz was changed while it was read"):
        list(pieces)


def test_a_small_object_that_is_cut_short_is_read_anew(behind):
    store, proxy, _ = behind
    store.create(blob_of("record", b"0123456789"), [b"0123456789"])
    proxy.once(CutAnswer(4), lambda request: not request.writes)
    assert store.read("record", 10) == b"0123456789"


def test_reading_that_never_gets_on_ends_with_a_message(behind):
    store, proxy, clock = behind
    store.create(BLOB, [CONTENT])
    proxy.fault = lambda request: CutAnswer(0) if reads(request) else None
    with pytest.raises(StoreError, match=r"tried several times.*try later"):
        list(store.stream(BLOB.key))
    assert len(clock.slept) == 5
    assert clock.slept == sorted(clock.slept)


def test_an_object_that_changed_on_its_way_is_not_taken_for_whole(behind):
    store, proxy, _ = behind
    store.create(BLOB, [CONTENT])
    proxy.times(2, Corrupt(5_000_000), reads)
    assert store.state(BLOB, deep=True) is State.DAMAGED
    with pytest.raises(StoreError, match="is damaged"):
        list(verified(store, BLOB))
    assert store.state(BLOB, deep=True) is State.WHOLE


@pytest.mark.parametrize(
    "fault", [CutRequest(0), CutRequest(3_000_000), BUSY, Answer(500)], ids=str
)
def test_writing_that_broke_is_begun_anew(behind, fault):
    store, proxy, clock = behind
    proxy.times(2, fault, writes)
    assert store.create(BLOB, [CONTENT])
    assert len(clock.slept) == 2
    assert store.state(BLOB, deep=True) is State.WHOLE


def test_a_writer_whose_answer_was_lost_finds_out_that_it_wrote(behind):
    store, proxy, _ = behind
    proxy.once(LoseAnswer(), writes)
    assert store.create(BLOB, [CONTENT])
    assert len(proxy.writes) == 2
    assert not store.create(BLOB, [CONTENT])


def test_a_writer_that_was_overtaken_while_it_could_not_write_does_not_think_that_it_wrote(behind):
    store, proxy, _ = behind
    other = blob_of(BLOB.key, b"other")
    faults = in_turn(CutRequest(100))

    def overtaken(request):
        if not request.writes:
            return None
        fault = faults(request)
        if fault:
            proxy.fault = lambda request: None
            assert store.create(other, [b"other"])
        return fault

    proxy.fault = overtaken
    assert not store.create(BLOB, [CONTENT])
    assert store.state(other, deep=True) is State.WHOLE


def test_a_repair_that_broke_is_begun_anew(behind):
    store, proxy, _ = behind
    store.create(blob_of(BLOB.key, b"other"), [b"other"])
    proxy.once(CutRequest(3_000_000), writes)
    store.replace(BLOB, [CONTENT])
    assert store.state(BLOB, deep=True) is State.WHOLE


def test_until_it_can_be_written_there_is_nothing_to_see(behind):
    store, proxy, clock = behind
    proxy.fault = lambda request: CutRequest(8 << 20) if request.writes else None
    with pytest.raises(StoreError, match="tried several times"):
        store.create(BLOB, [CONTENT])
    assert len(clock.slept) == 5
    proxy.clear()
    assert store.objects("archives") == []
    assert store.state(BLOB) is State.MISSING


USES = {
    "size": lambda store: store.size("a"),
    "state": lambda store: store.state(blob_of("a", b"")),
    "read": lambda store: store.read("a", 1),
    "stream": lambda store: list(store.stream("a")),
    "names": lambda store: store.names("a"),
    "objects": lambda store: store.objects("a"),
    "create": lambda store: store.create(blob_of("new", b""), [b""]),
    "replace": lambda store: store.replace(blob_of("a", b"x"), [b"x"]),
    "delete": lambda store: store.delete("a"),
}


@pytest.mark.parametrize("use", USES)
def test_throttling_is_waited_for_a_while_with_longer_and_longer_pauses(behind, use):
    store, proxy, clock = behind
    store.create(blob_of("a", b""), [b""])
    proxy.times(3, BUSY)
    USES[use](store)
    assert len(clock.slept) == 3
    assert clock.slept == sorted(clock.slept)
    proxy.fault = lambda request: BUSY
    with pytest.raises(StoreError, match=r"too many requests, or is down.*try later"):
        USES[use](store)
    assert 10 < sum(clock.slept[3:]) < 600


@pytest.mark.parametrize("use", USES)
def test_every_request_that_a_use_takes_may_break_once(behind, use):
    store, proxy, _ = behind
    store.create(blob_of("a", b""), [b""])
    proxy.clear()
    USES[use](store)
    store.delete("new")
    for number in range(len(proxy.requests)):
        proxy.clear()
        proxy.fault = in_turn(*[None] * number, CutRequest(0))
        USES[use](store)
        store.delete("new")


@pytest.mark.parametrize("use", ["read", "names", "create"])
@pytest.mark.parametrize("kind", REAL_STORES)
def test_nobody_waits_for_ever_for_a_server_that_says_nothing(kind, use, monkeypatch):
    clean_environment(monkeypatch)
    monkeypatch.setattr("flyte_pack.store.by_obstore.SECONDS", 0.2)
    monkeypatch.setattr("flyte_pack.store.gcs.SECONDS", 0.2)
    silence = threading.Event()

    def silent(request):
        silence.wait(60)
        return Answer(500)

    with proxied(REAL_STORES[kind]()) as (real, proxy):
        for name, value in real.env.items():
            monkeypatch.setenv(name, value)
        store = remote_store(f"{real.uri}/{unique()}", real.env, Clock().timing)
        proxy.fault = silent
        try:
            with pytest.raises(
                StoreError, match=r"no answer in time \(tried several times\).*try later"
            ):
                USES[use](store)
        finally:
            silence.set()
    assert len(proxy.requests) > 1


def test_pauses_are_said(monkeypatch):
    clean_environment(monkeypatch)
    said = []
    with proxied(REAL_STORES["s3"]()) as (real, proxy):
        for name, value in real.env.items():
            monkeypatch.setenv(name, value)
        clock = Clock()
        timing = replace(clock.timing, say=said.append)
        store = remote_store(f"{real.uri}/{unique()}", real.env, timing)
        proxy.once(BUSY)
        assert store.names("a") == []
    assert len(said) == 1
    assert "trying again in 0.5 s" in said[0]


CONFLICT = Answer(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>")


def test_s3_may_have_to_be_asked_again_where_two_write_at_once(monkeypatch):
    clean_environment(monkeypatch)
    with proxied(REAL_STORES["s3"]()) as (real, proxy):
        for name, value in real.env.items():
            monkeypatch.setenv(name, value)
        store = remote_store(f"{real.uri}/{unique()}", real.env, Clock().timing)
        proxy.times(2, CONFLICT, writes)
        assert store.create(BLOB, [CONTENT])
        assert store.state(BLOB, deep=True) is State.WHOLE
