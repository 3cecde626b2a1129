"""Real container tools for tests: what Debian packages have, and a docker engine of a test
session's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVICES = Path(__file__).resolve().parents[2] / "build-support" / "services"


def need(*packages: str) -> None:
    """Have the programs of these Debian packages: installed where that can be; else a failure in
    CI, and a skip elsewhere.
    """
    script = str(SERVICES / "debian_packages.py")
    done = subprocess.run(
        [sys.executable, script, *packages], capture_output=True, text=True, check=False
    )
    if done.returncode:
        _give_up(done.stderr.strip())


def need_root() -> None:
    """Be root: a docker engine takes that."""
    if os.geteuid() != 0:
        _give_up("this takes being root")


def _give_up(reason: str) -> None:
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@dataclass(frozen=True)
class DockerEngine:
    """host: for DOCKER_HOST. client: the path of the `docker` that belongs to it."""

    host: str
    client: str

    @property
    def environment(self) -> dict[str, str]:
        """What a user of this engine sets: its client comes first on PATH."""
        path = os.pathsep.join((os.path.dirname(self.client), os.environ["PATH"]))
        return {"DOCKER_HOST": self.host, "PATH": path}

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS`."""
        done = subprocess.run(
            [self.client, *arguments],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def clear(self) -> None:
        """Forget all images."""
        found = self("image", "ls", "--quiet", "--no-trunc").stdout.split()
        if found:
            self("image", "rm", "--force", *sorted(set(found)))


@contextmanager
def docker_engine(directory: Path) -> Iterator[DockerEngine]:
    """A running one without images, for the time of a `with` block."""
    need("docker.io")
    need_root()
    server = subprocess.Popen(
        [sys.executable, str(SERVICES / "docker_engine.py"), str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        host, client = server.stdout.readline().strip(), server.stdout.readline().strip()
        assert client, "the docker engine did not start: see what it printed to stderr"
        yield DockerEngine(host, client)
    finally:
        server.terminate()
        server.communicate()


def debian_base() -> Path:
    """An image layout of a small Debian with python3, made once on this machine."""
    need("mmdebstrap")
    script = str(SERVICES / "debian_base.py")
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        _give_up("Debian's packages can't be had: see what debian_base.py printed")
    return Path(done.stdout.strip())
