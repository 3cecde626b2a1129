"""Deployments to real servers: an object store, a registry and a control plane, each watched by a
proxy in front of it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, Callable

from flyte_pack.registry.credentials import Keychain
from flyte_pack.registry.push import push_image
from flyte_pack.store import Store
from flyte_pack.store.opening import open_store
from flyte_pack.task_link import LinkedImage
from tests.support.control_plane import RealControlPlane, control_plane
from tests.support.deploying import BuildRoot, Done, Program
from tests.support.flyte_versions import python_with_flyte
from tests.support.object_stores import Proxy, RealStore, Request, seaweedfs, unique
from tests.support.processes import in_child
from tests.support.registries import RealRegistry, make_image, real_registry, session

TASK = """\
    import flyte
    {head}

    env = flyte.TaskEnvironment(name="{name}-env")

    @env.task
    async def {name}(x: int = 1) -> int:
        return x + {value}
"""
_ASKS = re.compile(r"/(?:Get|List)\w*$")  # of Flyte, without a change
BUILT, NAMED = "bikes/train", "bikes/score"  # repositories


@dataclass(frozen=True)
class Servers:
    """The three, and proxies in front of them: "store", "registry" and "flyte"."""

    store: RealStore
    registry: RealRegistry
    plane: RealControlPlane
    proxies: dict[str, Proxy]

    @property
    def registry_host(self) -> str:
        return self.proxies["registry"].endpoint.partition("://")[2]

    @property
    def endpoint(self) -> str:
        return self.proxies["flyte"].endpoint.partition("://")[2]

    def clear(self) -> None:
        """Forget the requests so far, and let all go right from now."""
        for proxy in self.proxies.values():
            proxy.clear()

    @property
    def requests(self) -> list[tuple[str, Request]]:
        """Which server was asked for what."""
        return [(name, one) for name, proxy in self.proxies.items() for one in proxy.requests]

    def counts(self) -> dict[str, int]:
        """How many requests there were, by server and method."""
        found: dict[str, int] = {}
        for name, request in self.requests:
            # All that Flyte is asked comes as POST.
            asked = request.path.rpartition("/")[2] if name == "flyte" else request.method
            found[f"{name} {asked}"] = found.get(f"{name} {asked}", 0) + 1
        return dict(sorted(found.items()))

    @property
    def writes(self) -> list[str]:
        """All that changed something, or may have. Flyte is asked by POST, too."""
        return [
            f"{name} {one.method} {one.path}"
            for name, one in self.requests
            if (not _ASKS.search(one.path) if name == "flyte" else one.writes)
        ]

    def registered(self) -> set[tuple[str, str]]:
        """(name, version) of each task that Flyte has."""
        return {(task["name"], task["version"]) for task in self.plane.state()["tasks"]}


@contextmanager
def servers(
    directory: Path,
    *plane: str,
    registry_auth: str = "none",
    proxy: Callable[[str], Proxy] = Proxy,
    flyte_proxy: Callable[[str], Proxy] | None = None,
) -> Iterator[Servers]:
    """Serve for the time of a `with` block. plane: options of the control plane. proxy,
    flyte_proxy: make one, for an address.
    """
    with ExitStack() as stack:
        registry = stack.enter_context(real_registry(directory / "registry", registry_auth))
        running = stack.enter_context(
            control_plane(directory / "plane", "--project", "flytesnacks", *plane)
        )
        store = seaweedfs()
        at = {"store": store.endpoint}
        at.update(registry=f"http://{registry.host}", flyte=f"http://{running.endpoint}")
        makers = {"flyte": flyte_proxy or proxy}
        proxies = {name: makers.get(name, proxy)(address) for name, address in at.items()}
        for one in proxies.values():
            stack.callback(one.close)
        yield Servers(store.at(proxies["store"].endpoint), registry, running, proxies)


def push_named(servers: Servers, layout: Path, keychain: Keychain | None = None) -> None:
    """Push the image that `score` runs in."""
    image = make_image(layout, 5000)
    plan = image.plan(f"{servers.registry.host}/{NAMED}:1")
    push_image(plan, str(layout.parent), [].append, session=session(keychain))


class RealDeployment(BuildRoot):
    """Two tasks: `train` needs a library and runs in an image that is built here, `score` in one
    that is named.

    uri: of its store. pids: a file with the process ids of all that was started to describe and
    register tasks.
    """

    def __init__(self, root: Path, servers: Servers) -> None:
        super().__init__(root)
        self.servers = servers
        self.home, self.scratch, self.pids = root / "home", root / "scratch", root / "pids"
        for directory in (self.home, self.scratch):
            directory.mkdir()
        self.new_store()
        program = self.dist / "python"
        program.write_text(f'#!/bin/sh\necho $$ >>{self.pids}\nexec {python_with_flyte()} "$@"\n')
        program.chmod(0o755)

    def new_store(self) -> None:
        """From now on, another one, which is empty."""
        self.uri = f"{self.servers.store.uri}/{unique()}"

    def package_all(self, seed: int = 1, library: int = 1) -> None:
        """Package both tasks.

        Another `seed` makes both others, and the image; another `library` makes `train` another.
        """
        image = self.build_image(seed)
        head = "from libs.features import FACTOR"
        self.package(
            "train",
            dedent(TASK.format(name="train", value="FACTOR", head=head)),
            {"libs/features.py": f"FACTOR = {library}\n"},
            image=None,
            built_image=image,
        )
        body = dedent(TASK.format(name="score", value=seed, head=""))
        self.package("score", body, image="scorer")

    def build_image(self, seed: int, size: int = 20_000) -> LinkedImage:
        """An image of random bytes, which will be pushed."""
        name, push = f"image-{seed}", self.dist / f"push-{seed}.json"
        if not push.exists():
            image = make_image(self.dist / name, size + seed)
            made = image.plan(f"{self.servers.registry_host}/{BUILT}:latest")
            push.write_bytes(made.to_json())
        self.pushes = (push.name,)
        self.image_digest = json.loads(push.read_bytes())["digest"]
        return LinkedImage("services/ml:image", name, self.image_digest, None, "/app")

    def plan(self, **changes: Any) -> Path:
        environment = {
            "python": "python",
            "env": {},
            "identity": "packages",
            "known": None,
            "tasks": sorted(link.address for link in self.links.values()),
        }
        given = {
            "endpoint": self.servers.endpoint,
            "insecure": True,
            "environments": [environment],
            "pushes": list(self.pushes),
            "store": self.uri,
            "images": {"scorer": f"{self.servers.registry_host}/{NAMED}:1"},
            **changes,
        }
        return super().plan(**given)

    def begin(
        self,
        *typed: str,
        env: Mapping[str, str] | None = None,
        first: Callable[[], Any] = lambda: None,
        plan: Mapping[str, Any] | None = None,
    ) -> Program:
        """Start the program on what a user typed."""

        def prepare() -> None:
            tempfile.tempdir = None  # TMPDIR is another one from here on
            first()

        return Program(
            self.root,
            self.arguments(*typed, plan=plan),
            first=prepare,
            env={**self.environment, **(env or {})},
        )

    def deploy(self, *typed: str, **how: Any) -> Done:
        return self.begin(*typed, **how).end()

    @property
    def environment(self) -> dict[str, str]:
        """By which the program finds the store, and nothing of whoever runs the tests."""
        return {
            **self.servers.store.env,
            "HOME": str(self.home),
            "TMPDIR": str(self.scratch),
            "FLYTE_API_KEY": "",
            "DOCKER_CONFIG": str(self.home / "docker"),
        }

    def in_store(self, look: Callable[[Store], Any]) -> Any:
        """What `look` finds, as JSON: in a child, since the client of a store has threads, which no
        fork takes along.
        """
        found = self.root / "found"

        def child() -> int:
            os.environ.update(self.servers.store.env)
            found.write_text(json.dumps(look(open_store(self.uri, "/"))))
            return 0

        assert in_child(child) == 0
        return json.loads(found.read_text())

    def objects(self) -> dict[str, str]:
        """All that is in the store, by key; in Latin-1, which has a character for every byte."""
        bucket, _, prefix = self.uri.rpartition("/")

        def look(store: Store) -> dict[str, str]:
            below = open_store(bucket, "/").objects(prefix)
            keys = [one.key[len(prefix) + 1 :] for one in below]
            return {key: b"".join(store.stream(key)).decode("latin-1") for key in keys}

        found: dict[str, str] = self.in_store(look)
        return found

    def done(self) -> set[tuple[str, str]]:
        """Deploy; (name, version) of each task as it is registered now."""
        registered = self.deploy("--output", "json").ok().json["registered"]
        return {(one["name"], one["version"]) for one in registered}

    def scratch_left(self) -> list[str]:
        """Temporary files that are there."""
        return sorted(path.name for path in self.scratch.iterdir())

    def leave_no_process(self) -> None:
        """Wait until all that the program started is gone; what goes on is an error."""
        started = self.pids.read_text().split() if self.pids.exists() else []
        self.pids.unlink(missing_ok=True) if started else None
        for _ in range(2400):
            left = [pid for pid in started if _runs(pid)]
            if not left:
                return
            time.sleep(0.1)
        raise AssertionError(f"still running: {left}")


def _runs(pid: str) -> bool:
    """Whether it is a process of `flyte_side`, and alive."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"flyte_side" in command  # one that has ended, and that nobody waits for, has none
