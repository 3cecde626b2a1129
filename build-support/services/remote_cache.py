#!/usr/bin/env python3
"""Runs a remote cache for Pants on this machine, to try things out: `remote_cache.py DIRECTORY`.

A real BuildGrid, which keeps its blobs in DIRECTORY. It is installed once, from
build-support/locks/buildgrid.lock, into the user's cache. When the server answers, its address is
printed, as `--remote-store-address` wants it; it ends with Ctrl-C, SIGTERM, or the program that
started it. Nobody is asked for a password, so it listens to this machine alone.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

from service import ServiceError, run, started, wait_for_the_end

LOCK = Path(__file__).resolve().parents[1] / "locks" / "buildgrid.lock"
START_SECONDS = 60.0
HOST = "127.0.0.1"

CONFIGURATION = """\
server:
  - !channel
    address: {address}
    insecure-mode: true
description: A remote cache for Pants
storages:
  - !disk-storage &blobs
    path: {blobs}
caches:
  - !lru-action-cache &actions
    storage: *blobs
    max-cached-refs: 10000
    allow-updates: true
    cache-failed-actions: false
instances:
  - name: ''
    storages: []
    services:
      - !action-cache
        cache: *actions
      - !cas
        storage: *blobs
      - !bytestream
        storage: *blobs
# More requests at a time are refused. Pants may have 128 at each of the two services.
thread-pool-size: 300
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run a remote cache for Pants on this machine.")
    parser.add_argument("directory", type=Path, help="where it keeps what it is given")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    options = parser.parse_args(argv)
    return run("remote_cache", lambda: serve(options.directory, options.port, install()))


def serve(directory: Path, port: int, installed: Path) -> None:
    """Run the server until this program is interrupted or its parent is gone."""
    parent = os.getppid()
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with reserved(port) as free:
        address = f"{HOST}:{free}"
        configuration = directory / "buildgrid.yml"
        blobs = directory / "blobs"
        configuration.write_text(CONFIGURATION.format(address=address, blobs=blobs))
        log = directory / "buildgrid.log"
        command = [str(installed / "bin" / "bgd"), "server", "start", str(configuration)]
        with started(command, log) as server:
            _wait_until_it_answers(server, free, log)
            print(f"grpc://{address}", flush=True)
            wait_for_the_end(server, parent, log)


@contextlib.contextmanager
def reserved(port: int) -> Iterator[int]:
    """A port that nobody else is given meanwhile, though the server may listen on it.

    gRPC binds with SO_REUSEPORT, which lets it share a port that we hold in the same way. A socket
    that does not listen gets no connections.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind((HOST, port))
        except OSError as error:
            raise ServiceError(f"port {port} is taken: choose another with --port.") from error
        yield holder.getsockname()[1]


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.05)
    lines = log.read_text(errors="replace").splitlines()
    raise ServiceError(
        f"the server did not start ({lines[-1] if lines else 'it says nothing'}): see {log}"
    )


# --- installing ----------------------------------------------------------------------------------


def install() -> Path:
    """The directory of BuildGrid as the lock file pins it; made if need be, once whoever starts."""
    python = find_python()
    identity = LOCK.read_bytes() + python.encode()
    home = user_cache() / f"buildgrid-{hashlib.sha256(identity).hexdigest()[:16]}"
    complete = home / "complete"
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.with_suffix(".lock"), "w") as lock:
        # The children hold the lock too: those of a start that was killed may still be writing.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            print(
                f"remote_cache: installing BuildGrid into {home} ...", file=sys.stderr, flush=True
            )
            shutil.rmtree(home, ignore_errors=True)
            pip = [str(home / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet"]
            for command in (
                [python, "-I", "-m", "venv", str(home)],
                [*pip, "--require-hashes", "--requirement", str(LOCK)],
            ):
                done = subprocess.run(
                    command,
                    pass_fds=[lock.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr,
                )
                if done.returncode:
                    raise ServiceError(
                        "BuildGrid could not be installed: the message above says why."
                    )
            complete.touch()
    return home


def user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pants-flyte"


def find_python() -> str:
    """A CPython 3.12, which the lock file is made for."""
    check = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 12))"
    pyenv = os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv"
    on_path = shutil.which("python3.12")
    candidates = [
        sys.executable,
        *([on_path] if on_path else []),
        *sorted(glob.glob(f"{pyenv}/versions/3.12.*/bin/python3.12")),
    ]
    for candidate in candidates:
        # A pyenv shim of a version that is not enabled is a program that fails.
        if subprocess.run([candidate, "-I", "-c", check], capture_output=True).returncode == 0:
            return os.path.realpath(candidate)
    raise ServiceError("there is no CPython 3.12 on PATH or under pyenv: install it.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
