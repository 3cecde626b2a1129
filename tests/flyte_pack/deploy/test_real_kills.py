"""Wherever a deployment to real servers is killed, what is there is true, and the next run completes it.

The program is killed from outside, by SIGKILL: at instants that chance decides, and at its requests to the object store,
the registry and the control plane (before one is sent, while its body is, and when it was carried out). How often that is
done here is a matter of time: DEPLOY_KILLS=200 makes it as many as it takes to be sure.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from threading import Event, Lock, local

import pytest

from flyte_pack.task_link import LinkedTask
from tests.support.deploying import command
from tests.support.object_stores import Answer, CutRequest, Proxy, clean_environment
from tests.support.real_deployments import BUILT, RealDeployment, servers

KILLS = int(os.environ.get("DEPLOY_KILLS") or 60)
# So many in a row, of one deployment, before it is let through; and so many deployments into one store.
IN_A_ROW, IN_A_STORE = 4, 8
SENT, HALF, DONE = "before it is sent", "while its body is sent", "when it was carried out"


# One bundle, as each takes importing Flyte once more.
MODULE = """\
import flyte

env = flyte.TaskEnvironment(name="train-env")

@env.task
async def first(x: int = 1) -> int:
    return x + {seed}

@env.task
async def second(x: int = 1) -> int:
    return x

@env.task
async def third(x: int = 1) -> int:
    return x
"""
TASKS = ("first", "second", "third")


class Killer:
    """Kills a program at one of its requests, which are counted over all servers."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.disarm()

    def disarm(self) -> None:
        self.count, self.at, self.when, self.killed = 0, 0, "", False
        self.bodies: list[bool] = []
        self._target, self._known = 0, Event()

    def arm(self, at: int, when: str) -> None:
        self.disarm()
        self.at, self.when = at, when

    def aim(self, pid: int) -> None:
        """Say which program; it may be at its first request already."""
        self._target = pid
        self._known.set()

    def is_reached(self, has_body: bool) -> bool:
        with self._lock:
            self.count += 1
            self.bodies.append(has_body)
            return self.count == self.at

    def kill(self) -> None:
        assert self._known.wait(120)
        os.kill(self._target, signal.SIGKILL)
        self.killed = True


class Front(Proxy):
    """A proxy that has a `Killer` look at each request."""

    def __init__(self, upstream: str, killer: Killer) -> None:
        super().__init__(upstream)
        self._killer, self._here = killer, local()

    def clear(self) -> None:
        super().clear()
        self.fault = self._look

    def _look(self, request):
        self._here.kills = False
        if not self._killer.is_reached(request.size > 0):
            return None
        if self._killer.when == SENT:
            self._killer.kill()
            return Answer(503)
        if self._killer.when == HALF:
            return CutRequest(request.size // 2)
        self._here.kills = True
        return None

    def _ask(self, *asked):
        answer = super()._ask(*asked)
        if self._here.kills:
            self._killer.kill()
        return answer

    def _send_part(self, *part):
        super()._send_part(*part)
        self._killer.kill()


@pytest.fixture
def killer():
    return Killer()


@pytest.fixture
def root(tmp_path, monkeypatch, killer):
    clean_environment(monkeypatch)
    with servers(tmp_path / "servers", proxy=lambda at: Front(at, killer)) as running:
        running.clear()
        yield RealDeployment(tmp_path / "build", running)


def test_a_kill_at_any_instant_leaves_what_is_true_and_the_next_run_completes_it(root, killer):
    chance = random.Random(20)
    seconds, bodies = undisturbed(root, killer)
    requests = [
        (number, when)
        for number, has_body in enumerate(bodies, 1)
        for when in ((SENT, HALF, DONE) if has_body else (SENT, DONE))
    ]
    chance.shuffle(requests)
    kills, deployments, where = 0, 0, []
    while kills < KILLS:
        deployments += 1
        if deployments % IN_A_STORE == 0:
            root.new_store()
        package(root, deployments + 1)
        for attempt in range(IN_A_ROW):
            if (deployments + attempt) % 2:
                at = requests[(deployments * IN_A_ROW + attempt) // 2 % len(requests)]
                killed = killed_at_request(root, killer, *at)
            else:
                at = chance.uniform(0, seconds)
                killed = killed_after(root, killer, at)
            if not killed:
                break  # it had less to do than the first time, and got through
            kills += 1
            where.append(at)
            root.leave_no_process()
            check_true(root)
        verified = root.deploy("verify", "--all", "--output", "json").ok().json
        assert verified["broken"] == 0, where[-IN_A_ROW:]

        document = root.deploy("--output", "json").ok().json
        check_true(root)
        registered = {(one["name"], one["version"]) for one in document["registered"]}
        assert len(registered) == len(TASKS)
        assert registered <= root.servers.registered()
        listed = root.deploy("list", "--output", "json").ok().json
        assert listed["current"] == document["version"]
        assert root.servers.registry.tag(BUILT, "latest") == root.image_digest
        root.servers.clear()
        assert "Nothing to do" in root.deploy().ok().out
        assert root.servers.writes == []
    print(
        f"{kills} kills of {deployments} deployments, each of {len(bodies)} requests in {seconds:.1f} s"
    )


def package(root, seed):
    """An environment of tasks, another one for each `seed`: its code, the image that it runs in, and so all its versions."""
    padding = random.Random(seed).randbytes(20_000).hex()
    root.package(
        "train",
        MODULE.format(seed=seed),
        {"libs/padding.txt": padding},
        kind="environment",
        entry_point="services/ml/train.py:env",
        image=None,
        built_image=root.build_image(seed),
        tasks=tuple(LinkedTask(name, command(name)) for name in TASKS),
    )


def undisturbed(root, killer):
    """How long a deployment takes, and for each of its requests whether it has a body."""
    package(root, -1)
    root.deploy().ok()  # what is read from disk for the first time takes longer
    root.new_store()
    package(root, 0)
    killer.disarm()
    before = time.monotonic()
    root.deploy().ok()
    assert root.pids.read_text().split()
    return time.monotonic() - before, list(killer.bodies)


def killed_at_request(root, killer, number, when):
    """Whether it came to that request, and so was killed."""
    killer.arm(number, when)
    program = root.begin()
    killer.aim(program.pid)
    return ended_by_kill(program.end(), killer)


def killed_after(root, killer, seconds):
    program = root.begin()
    time.sleep(seconds)
    killer.disarm()
    os.kill(program.pid, signal.SIGKILL)  # perhaps it has ended, and nobody has waited for it yet
    return ended_by_kill(program.end(), killer)


def ended_by_kill(done, killer):
    killer.disarm()
    assert done.code in (0, -signal.SIGKILL), done.err
    assert "Traceback" not in done.err
    return done.code != 0


def check_true(root):
    """Every object is whole, and nothing that is written down is missing, in store, registry and control plane."""
    objects = root.objects()
    documents = {}
    for key, text in objects.items():
        kind, _, name = key.partition("/")
        if kind in ("archives", "manifests"):
            digest = hashlib.sha256(text.encode("latin-1")).hexdigest()
            assert name.split(".")[0] == digest, key
        else:
            assert kind in ("index", "deployments"), key
            documents[key] = json.loads(text)
    registered = None
    for key, document in documents.items():
        if key.startswith("index/"):
            bundles = [document]
        elif "/versions/" in key:
            bundles = [task["bundle"] for task in document["tasks"]]
            for task in document["tasks"]:
                check_image(root, task["image"])
        else:
            bundles = []
            record = key.replace(
                f"history/{document['number']}.json", f"versions/{document['version']}.json"
            )
            digest = hashlib.sha256(objects[record].encode("latin-1")).hexdigest()
            assert digest == document["record"], key
            registered = registered or root.servers.registered()
            for task in documents[record]["tasks"]:
                assert {(one["flyte_name"], one["version"]) for one in task["tasks"]} <= registered
        for bundle in bundles:
            assert {bundle["archive"], bundle["manifest"]} <= objects.keys(), key
    registry = root.servers.registry
    for tag in registry.tags(BUILT):
        assert registry.holds(BUILT, registry.tag(BUILT, tag))


def check_image(root, image):
    name, _, digest = image.partition("@")
    assert root.servers.registry.holds(name.partition("/")[2], digest), image
