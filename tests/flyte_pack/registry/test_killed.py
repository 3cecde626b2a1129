"""A push that is killed at any request moves no tag wrongly, and the next push completes it."""

from __future__ import annotations

import os
import signal

import pytest

from flyte_pack.registry.push import push_image
from tests.support.faulty_registry import Fault, faulty_registry
from tests.support.processes import fork, wait
from tests.support.registries import make_image, session


def push(image, destination):
    plan = image.plan(destination)
    push_image(plan, str(image.layout.parent), [].append, session=session(), chunk=1 << 16)
    return 0


@pytest.mark.parametrize(
    ("request_", "after", "moved"),
    [
        ("^HEAD", 0, False),
        ("^POST", 0, False),
        ("^POST", 1, False),
        ("^PATCH", 0, False),
        ("^PATCH", 2, False),
        ("^PUT .*uploads", 0, False),
        ("^PUT .*uploads", 1, False),
        ("^PUT .*manifests/sha256", 0, False),
        ("^PUT .*manifests/v1", 0, True),  # the registry has done it by then
    ],
)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_kill_in_mid_push(tmp_path, registry, request_, after, moved, done):
    """done: whether the registry has done what was asked when the push is killed."""
    name = f"killed/{''.join(filter(str.isalnum, request_)).lower()}-{after}-{done}".lower()
    old, new = make_image(tmp_path / "old", 10), make_image(tmp_path / "new", 300_000)
    push(old, f"{registry.host}/{name}:v1")
    with faulty_registry(registry.host) as front:

        def kill(exchange):
            if done:
                exchange.forward()
            else:
                _ = exchange.body
            os.kill(child, signal.SIGKILL)

        front.faults = [Fault(request_, kill, after=after)]
        child = fork(lambda: push(new, f"{front.host}/{name}:v1"))
        assert wait(child) == -signal.SIGKILL
    expected = new if moved and done else old
    assert registry.tag(name, "v1") == expected.digest
    assert registry.holds(name, expected.digest)
    push(new, f"{registry.host}/{name}:v1")
    assert registry.tag(name, "v1") == new.digest
    assert registry.holds(name, new.digest)
    assert registry.holds(name, old.digest)
