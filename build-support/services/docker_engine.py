#!/usr/bin/env python3
"""Runs a docker engine of its own on this machine, to try things out: `docker_engine.py DIRECTORY`.

The real dockerd of the distribution (Debian's docker.io), which keeps what it has in DIRECTORY;
beside any other that runs. It has no network for its containers and touches no firewall. When it
answers, two lines are printed: what DOCKER_HOST is to be, and the path of the distribution's own
client, as another `docker` may come first on PATH. It ends, and removes what it had, with Ctrl-C,
SIGTERM, or the program that started it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from service import ServiceError, run, started, wait_for_the_end

START_SECONDS = 60.0
STOP_SECONDS = 30.0
# Where distributions have them; /usr/local may hold others.
_DIRECTORIES = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run a docker engine on this machine.")
    parser.add_argument("directory", type=Path, help="where it keeps what it has, meanwhile")
    options = parser.parse_args(argv)
    return run("docker_engine", lambda: serve(options.directory))


def serve(directory: Path) -> None:
    """Run the engine until this program is interrupted or its parent is gone."""
    dockerd, docker = find("dockerd"), find("docker")
    if os.geteuid() != 0:
        raise ServiceError("a docker engine of one's own takes being root")
    parent = os.getppid()
    data = directory.resolve() / "data"
    data.mkdir(parents=True, exist_ok=True)
    # The path of a socket has 107 bytes at most (unix(7)).
    with tempfile.TemporaryDirectory(prefix="dockerd-") as short:
        address = f"unix://{short}/d.sock"
        command = [
            dockerd,
            *("--iptables=false", "--ip6tables=false", "--bridge=none"),
            *(
                "--data-root",
                str(data),
                "--exec-root",
                f"{short}/exec",
                "--pidfile",
                f"{short}/pid",
            ),
            *("--host", address),
        ]
        log = directory / "dockerd.log"
        # In a session of its own: Ctrl-C is for us, who then end it in order.
        with started(command, log, new_session=True, stop_seconds=STOP_SECONDS) as server:
            _wait_until_it_answers(server, docker, address, log)
            print(address, docker, sep="\n", flush=True)
            try:
                wait_for_the_end(server, parent, log)
            finally:
                # Made for containers on the host's network, and left mounted by the engine.
                namespace = f"{short}/exec/netns/default"
                subprocess.run(["umount", "--lazy", namespace], capture_output=True, check=False)
    shutil.rmtree(data, ignore_errors=True)


def find(program: str) -> str:
    """The distribution's own. Raises `ServiceError`."""
    for directory in _DIRECTORIES:
        path = f"{directory}/{program}"
        if os.access(path, os.X_OK):
            return path
    raise ServiceError(f"{program} is missing: apt-get install docker.io")


def _wait_until_it_answers(
    server: subprocess.Popen[bytes], docker: str, address: str, log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    version = [docker, "--host", address, "version"]
    while time.monotonic() < deadline and server.poll() is None:
        if subprocess.run(version, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    lines = log.read_text(errors="replace").splitlines()
    raise ServiceError(
        f"the engine did not start ({lines[-1] if lines else 'it says nothing'}): see {log}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
