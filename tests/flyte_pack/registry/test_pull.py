"""A base's layers come whole and checked, or not at all; with a real, faulty docker-registry."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import replace
from threading import Thread

import pytest

from flyte_pack.http import HttpError
from flyte_pack.names import InvalidName
from flyte_pack.oci.model import blob_path, digest_of
from flyte_pack.registry import RegistryError
from flyte_pack.registry.pull import complete
from flyte_pack.registry.push import push_image
from tests.support.faulty_registry import (
    Fault,
    changed,
    cut_short,
    damaged,
    passed_on,
    reset,
    status,
    trickling,
)
from tests.support.processes import fork, in_child, wait
from tests.support.registries import Clock, make_image, session

ALWAYS = 1000


@pytest.fixture(scope="module")
def base(registry, tmp_path_factory):
    image = make_image(tmp_path_factory.mktemp("base") / "image", 400_000, 200_000, 0)
    plan = image.plan(f"{registry.host}/library/base:1")
    push_image(plan, str(image.layout.parent), [].append, session=session())
    return image


def pull(front, layers, directory, clock=None, said=None, **transport):
    say = (said if said is not None else []).append
    ours = session(clock=clock, **transport)
    return complete(f"{front.host}/library/base:1", layers, str(directory), say, session=ours)


def assert_whole(directory, layers):
    blobs = directory / "blobs" / "sha256"
    assert sorted(os.listdir(blobs)) == sorted(layer.digest[7:] for layer in layers)
    for layer in layers:
        assert digest_of((directory / blob_path(layer.digest)).read_bytes()) == layer.digest


def test_what_is_missing_is_fetched_and_nothing_twice(tmp_path, base, front):
    assert pull(front, base.layers[:1], tmp_path) == base.layers[0].size
    front.requests.clear()
    assert pull(front, base.layers, tmp_path) == sum(one.size for one in base.layers[1:])
    assert front.count("^GET") == 2
    assert_whole(tmp_path, base.layers)
    front.requests.clear()
    assert pull(front, base.layers, tmp_path) == 0
    assert not front.requests


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (Fault("GET", cut_short), 2),
        (Fault("GET", cut_short, 3), 4),
        (Fault("GET", reset, 2), 3),
        (Fault("GET", status(503, retry_after="3"), 2), 3),
        (Fault("GET", status(429)), 2),
    ],
)
def test_a_stream_that_breaks_is_gone_on_with(tmp_path, base, front, fault, requests):
    front.faults = [replace(fault)]
    pull(front, base.layers[:1], tmp_path)
    assert front.count("GET") == requests
    assert_whole(tmp_path, base.layers[:1])


def test_a_server_without_ranges_sends_it_all_again(tmp_path, base, front):
    front.faults = [Fault("GET", cut_short), Fault("GET", passed_on(range=""))]
    pull(front, base.layers[:1], tmp_path)
    assert_whole(tmp_path, base.layers[:1])


def test_a_trickle_is_given_up_and_asked_for_anew(tmp_path, base, front):
    front.faults = [Fault("GET", trickling)]
    pull(front, base.layers[:1], tmp_path, slowest_seconds=1.0)
    assert front.count("GET") == 2
    assert_whole(tmp_path, base.layers[:1])


def test_silence_ends_too(tmp_path, base, front):
    def silent(exchange):
        exchange.begin(200, {"Content-Length": "9"})
        exchange.handler.connection.settimeout(30)
        exchange.handler.rfile.read(1)  # until the client goes

    front.faults = [Fault("GET", silent)]
    pull(front, base.layers[:1], tmp_path, read_seconds=2.0)
    assert_whole(tmp_path, base.layers[:1])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("GET", damaged, ALWAYS), "with wrong content, damaged"),
        (Fault("GET", status(404), ALWAYS), "does not have sha256:.* any more: .* lock it anew"),
        (Fault("GET", status(403), ALWAYS), "403 for GET .*docker login"),
        (Fault("GET", status(416), ALWAYS), "416 for GET"),
        (Fault("GET", status(200, b"x" * 500_000), ALWAYS), "more than its"),
        (Fault("GET", status(200, b"<html>"), ALWAYS), "of the .* bytes of sha256:.* came"),
        (Fault("GET", reset, ALWAYS), "reset|closed"),
        (Fault("GET", status(307, location="http://x.example/b"), ALWAYS), "without TLS"),
        (Fault("GET", status(500), ALWAYS), "500 for GET"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing(tmp_path, base, front, fault, message):
    front.faults = [replace(fault)]
    with pytest.raises(HttpError, match=message):
        pull(front, base.layers[:1], tmp_path)
    assert os.listdir(tmp_path / "blobs" / "sha256") == []
    front.faults = []
    pull(front, base.layers, tmp_path)
    assert_whole(tmp_path, base.layers)


def test_another_part_than_was_asked_for_is_not_taken(tmp_path, base, front):
    wrong = changed(content_range="bytes 5-9/10")
    front.faults = [Fault("GET", cut_short), Fault("GET", wrong)]
    pull(front, base.layers[:1], tmp_path)
    assert front.count("GET") == 3
    assert_whole(tmp_path, base.layers[:1])


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, base, front):
    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(RegistryError, match=r"cannot be written: File too large: make room"):
            pull(front, base.layers, tmp_path)
        return 0

    assert in_child(limited) == 0
    assert not [name for name in os.listdir(tmp_path / "blobs/sha256") if name.startswith(".")]
    pull(front, base.layers, tmp_path)
    assert_whole(tmp_path, base.layers)


def test_many_at_once_fetch_each_blob_once(tmp_path, base, front):
    threads = [Thread(target=pull, args=(front, base.layers, tmp_path)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert front.count("GET") == len(base.layers)
    assert_whole(tmp_path, base.layers)


def test_a_kill_leaves_no_blob_that_is_not_whole(tmp_path, base, front):
    def act(exchange):
        code, found, body = exchange.forward()
        exchange.begin(code, {**found, "Content-Length": str(len(body))})
        exchange.handler.wfile.write(body[:150_000])
        exchange.handler.wfile.flush()
        partial = tmp_path / "blobs/sha256" / f".{base.layers[0].digest[7:]}.partial"
        while not (partial.exists() and partial.stat().st_size):
            pass
        os.kill(child, signal.SIGKILL)

    front.faults = [Fault("GET", act)]
    child = fork(lambda: pull(front, base.layers[:1], tmp_path))
    assert wait(child) == -signal.SIGKILL
    assert not (tmp_path / blob_path(base.layers[0].digest)).exists()
    pull(front, base.layers[:1], tmp_path)
    assert_whole(tmp_path, base.layers[:1])


def test_it_is_said_what_is_fetched(tmp_path, base, front):
    said = []
    pull(front, base.layers, tmp_path, said=said, clock=Clock())
    assert "fetching 3 layers" in said[0]
    assert f"{front.host}/library/base" in said[0]


def test_a_base_without_a_usable_name_is_refused(tmp_path, base):
    with pytest.raises(InvalidName, match="'not a name:latest' is not an image"):
        complete("not a name", base.layers, str(tmp_path), print)
