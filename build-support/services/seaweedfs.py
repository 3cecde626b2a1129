#!/usr/bin/env python3
"""Runs an object store that speaks S3 on this machine, to try things out: `seaweedfs.py DIRECTORY`.

The real SeaweedFS, which keeps its objects in DIRECTORY, with a bucket and two users: a writer, who
may do everything with objects, and a reader. Their keys are in the environment, as S3_WRITER_KEY,
S3_WRITER_SECRET, S3_READER_KEY and S3_READER_SECRET. When it answers, its address is printed, as
AWS_ENDPOINT_URL wants it; it ends with Ctrl-C, SIGTERM, or the program that started it. It listens
to this machine alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from installed import (
    HOST,
    free_ports,
    from_environment,
    python_packages,
    request_until_it_works,
)
from service import run, started, wait_for_the_end

RIGHTS = {"WRITER": ["Read", "Write", "List", "Tagging"], "READER": ["Read", "List"]}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run an S3 object store on this machine.")
    parser.add_argument("directory", type=Path, help="where it keeps what it is given")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--bucket", default="flyte", help="is made (default: flyte)")
    options = parser.parse_args(argv)
    return run("seaweedfs", lambda: serve(options.directory, options.port, options.bucket))


def serve(directory: Path, port: int, bucket: str) -> None:
    """Run the server until this program is interrupted or its parent is gone."""
    parent = os.getppid()
    users = directory.resolve() / "s3.json"
    log = directory.resolve() / "seaweedfs.log"
    data = directory.resolve() / "data"
    data.mkdir(parents=True, exist_ok=True)
    identities = [_identity(user, rights) for user, rights in RIGHTS.items()]
    users.touch(mode=0o600)
    users.write_text(json.dumps({"identities": identities}))
    weed = python_packages("object-stores.lock") / "bin" / "weed"
    s3, filer, *others = free_ports(8)
    s3 = port or s3
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    command = [
        *(str(weed), "server", f"-ip={HOST}", f"-ip.bind={HOST}", f"-dir={data}"),
        *(f"-{name}={number}" for name, number in zip(names, others)),
        *("-filer", f"-filer.port={filer}", f"-filer.port.grpc={others[4]}"),
        *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={others[5]}", f"-s3.config={users}"),
        # What is of no use here, listens on ports of its own choice, or calls home.
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-master.telemetry=false"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=20", "-volume.preStopSeconds=0"),
    ]
    with _no_sockets_left(s3, filer, *others), started(command, log, stop_seconds=1) as server:
        # A bucket is a directory of the filer's; it asks nobody for a password.
        make_bucket = lambda: urllib.request.Request(  # noqa: E731
            f"http://{HOST}:{filer}/buckets/{bucket}/", method="POST"
        )
        request_until_it_works(server, log, make_bucket, (200, 201, 409))  # 409: it was there
        # Without credentials it refuses to show the bucket, once it knows its users.
        ask = lambda: urllib.request.Request(f"http://{HOST}:{s3}/{bucket}")  # noqa: E731
        request_until_it_works(server, log, ask, (403,))
        print(f"http://{HOST}:{s3}", flush=True)
        wait_for_the_end(server, parent, log)


@contextmanager
def _no_sockets_left(*ports: int) -> Iterator[None]:
    """It makes sockets in /tmp too, named after its ports, and is killed before it has removed
    them: its own end takes longer than anybody wants to wait for what is thrown away.
    """
    try:
        yield
    finally:
        for port in ports:
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink()


def _identity(user: str, rights: list[str]) -> dict[str, object]:
    key = from_environment(f"S3_{user}_KEY", f"the access key of the {user.lower()}")
    secret = from_environment(f"S3_{user}_SECRET", f"the secret key of the {user.lower()}")
    credentials = [{"accessKey": key, "secretKey": secret}]
    return {"name": user.lower(), "credentials": credentials, "actions": rights}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
