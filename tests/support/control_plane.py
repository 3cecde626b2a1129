"""A real control plane for a test's own, and task modules to register with it."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from flyte_pack.deploy.registration import Code, ControlPlane, Entry, Registrar
from tests.support.flyte_versions import NEWEST, python_with_flyte

SCRIPT = Path(__file__).resolve().parents[2] / "build-support" / "services" / "control_plane.py"
CLIENT_ID, SECRET = "ci", "planted-secret-91c4"
# What becomes of a task that is registered again under its version.
EXISTING = ("upsert", "already_exists")
IMAGE = "registry.example/team/trainer@sha256:" + "0" * 64


@dataclass(frozen=True)
class RealControlPlane:
    """A control plane that runs. endpoint: as users write it.

    It is looked into past its authentication.
    """

    endpoint: str
    directory: Path
    tls: bool

    def state(self) -> dict[str, Any]:
        """{"tasks": [...], "triggers": [...], "runs": [...], "requests": {method: how many}}."""
        return self._control("state")

    @property
    def tasks(self) -> dict[str, str]:
        """The version of each task that was registered last, by its name."""
        return {task["name"]: task["version"] for task in self.state()["tasks"]}

    @property
    def latest(self) -> dict[str, str]:
        """The version that whoever names none gets, by the task's name: it was there last."""
        tasks = sorted(self.state()["tasks"], key=lambda task: task["created_at"])
        return {task["name"]: task["version"] for task in tasks}

    @property
    def firing(self) -> dict[str, str]:
        """The version that each active trigger runs, by `task/trigger`."""
        return {
            f"{one['task_name']}/{one['name']}": one["task_version"]
            for one in self.state()["triggers"]
            if one["active"] and not one["deleted"]
        }

    def pause(self, task: str, trigger: str, project: str = "flytesnacks") -> None:
        """Deactivate a trigger, as somebody does in Flyte's own pages."""
        domain = "development"
        self._control("pause", project=project, domain=domain, task_name=task, name=trigger)

    def requests(self, method: str) -> int:
        return self.state()["requests"].get(method, 0)

    def fault(self, method: str, kind: str, times: int = 1, seconds: float = 1.0) -> None:
        """kind: unavailable, permission_denied, unauthenticated, slow, or drop (do it, and break
        the answer off).
        """
        self._control("fault", method=method, kind=kind, times=times, seconds=seconds)

    def fault_no_more(self) -> None:
        """All goes right from now on."""
        self._control("fault", method="", kind="none", only=True)

    def outcome(self, task: str, **how: Any) -> None:
        """How runs of a task end from now on: outputs={name: value}, error=TEXT, or hold=True (not
        at all); logs=[LINE, ...].
        """
        self._control("outcome", task=task, **how)

    def _control(self, what: str, **told: Any) -> Any:
        scheme = "https" if self.tls else "http"
        data = json.dumps(told).encode() if told else None
        unverified = ssl._create_unverified_context()
        # No proxy of the machine's is between a test and its own server.
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
        )
        url = f"{scheme}://{self.endpoint}/control/{what}"
        with opener.open(url, data, timeout=120) as answer:
            return json.load(answer)


@contextmanager
def control_plane(
    directory: Path, *options: str, line: str = NEWEST, environ: Mapping[str, str] | None = None
) -> Iterator[RealControlPlane]:
    """One with the project `bikes`, for the time of a `with` block; with `--auth secret`, `SECRET`
    is the secret.

    The same directory makes it the same one again. line: of Flyte, which it is served with.
    """
    server = subprocess.Popen(
        [str(python_with_flyte(line)), str(SCRIPT), str(directory), "--project", "bikes", *options],
        env={**os.environ, "CONTROL_PLANE_SECRET": SECRET, **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        endpoint = server.stdout.readline().strip()
        assert endpoint, "the control plane did not start: see what it printed to stderr"
        yield RealControlPlane(endpoint, directory, "--tls" in options)
    finally:
        server.terminate()
        server.communicate()


# --- what is registered --------------------------------------------------------------------------

WORKFLOWS = """\
    import flyte
    from libs.features import FACTOR

    leaf = flyte.TaskEnvironment(name="leaf")
    env = flyte.TaskEnvironment(name="ml", depends_on=[leaf])

    @leaf.task
    async def double(x: int = 2) -> int:
        return x * FACTOR

    hourly = flyte.Trigger(name="hourly", automation=flyte.Cron("0 * * * *"), inputs={"n": 3})

    @env.task(triggers=(hourly,))
    async def train(n: int) -> int:
        return await double(n)

    @env.task
    async def score(n: int, name: str = "a") -> int:
        return n
"""
FILES = {"services/ml/workflows.py": WORKFLOWS, "libs/features.py": "FACTOR = 2\n"}


def unpacked(root: Path, files: Mapping[str, str] = FILES) -> str:
    """A directory with `files`, which are dedented, as that of an unpacked bundle; its path."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(content))
    return os.path.realpath(root)


def entry(
    point: str = "services/ml/workflows.py:env",
    kind: str = "environment",
    image: str | None = IMAGE,
    address: str = "services/ml:train",
) -> Entry:
    file, _, attribute = point.partition(":")
    module = file[: -len(".py")].replace("/", ".")
    return Entry(address, file, module, kind, attribute, image)


def code(root: str, *entries: Entry, uri: str | None = "s3://bundles/archives/ab.tar.gz") -> Code:
    return Code(root, uri, uri and "ab" * 32, entries or (entry(),))


def registrar(
    plane: RealControlPlane | None = None, line: str = NEWEST, **fields: Any
) -> Registrar:
    """For project bikes, domain development; without a control plane, for one that is not there."""
    endpoint = plane.endpoint if plane else "localhost:1"
    given: dict[str, Any] = {
        "python": [str(python_with_flyte(line))],
        "environ": {**os.environ},
        "control_plane": ControlPlane(endpoint=endpoint, insecure=True),
        "project": "bikes",
        "domain": "development",
        "images": {},
        "import_environ": {"PATH": os.defpath},
        **fields,
    }
    return Registrar(**given)
