#!/usr/bin/env python3
"""Runs all that a deployment reaches on this machine, to try things out: `everything.py DIRECTORY`.

An S3 object store (SeaweedFS, port 8333), an image registry (port 5000) and a control plane of
Flyte that runs nothing (port 8090), each by the script beside this one, which says more. They keep
what they are given in DIRECTORY. When all answer, it prints what to put into the environment; it
ends with Ctrl-C, SIGTERM, or the program that started it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from installed import find_python, python_packages
from service import ServiceError, run

HERE = Path(__file__).resolve().parent
KEYS = {
    "S3_WRITER_KEY": "writer",
    "S3_WRITER_SECRET": "writers-secret",
    "S3_READER_KEY": "reader",
    "S3_READER_SECRET": "readers-secret",
}
ENDED_SECONDS = 15.0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Run an S3 store, a registry and a control plane on this machine."
    )
    parser.add_argument("directory", type=Path, help="where they keep what they are given")
    parser.add_argument("--s3-port", type=int, default=8333)
    parser.add_argument("--registry-port", type=int, default=5000)
    parser.add_argument("--flyte-port", type=int, default=8090)
    options = parser.parse_args(argv)
    return run("everything", lambda: serve(options))


def serve(options: argparse.Namespace) -> None:
    """Run them until this program is interrupted or its parent is gone."""
    parent = os.getppid()
    directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    python = find_python()
    flyte = {**os.environ, "PYTHONPATH": str(python_packages("flyte-2.12.lock"))}
    with ExitStack() as stack:
        servers = []
        for name, interpreter, port, environ in (
            ("seaweedfs", sys.executable, options.s3_port, {**os.environ, **KEYS}),
            ("registry", sys.executable, options.registry_port, dict(os.environ)),
            ("control_plane", python, options.flyte_port, flyte),
        ):
            server = stack.enter_context(
                subprocess.Popen(
                    [interpreter, HERE / f"{name}.py", directory / name, "--port", str(port)],
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(_end, server)
            servers.append(server)
        s3, registry, control_plane = map(_address, servers)
        print(
            f"# store: s3://flyte/...   registry: {registry}   "
            f"endpoint: {control_plane} (insecure)\n"
            f"export AWS_ENDPOINT_URL={s3} AWS_REGION=us-east-1\n"
            f"export AWS_ACCESS_KEY_ID={KEYS['S3_WRITER_KEY']} "
            f"AWS_SECRET_ACCESS_KEY={KEYS['S3_WRITER_SECRET']}",
            flush=True,
        )
        while os.getppid() == parent:
            for server in servers:
                if server.poll() is not None:
                    raise ServiceError(f"{server.args[1]} has ended")
            time.sleep(0.1)


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    if not address:
        raise ServiceError(f"{server.args[1]} did not start")
    return address


def _end(server: subprocess.Popen[str]) -> None:
    server.terminate()
    try:
        server.wait(ENDED_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
