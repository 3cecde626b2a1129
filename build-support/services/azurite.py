#!/usr/bin/env python3
"""Runs an Azure Blob Storage on this machine, to try things out: `azurite.py DIRECTORY`.

Microsoft's own Azurite, which keeps everything in memory, with one container. Its account is in the
environment, as AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (base64). When it answers,
the account's address is printed, as AZURE_STORAGE_ENDPOINT wants it; it ends with Ctrl-C, SIGTERM,
or the program that started it. It listens to this machine alone.
"""

from __future__ import annotations

import argparse
import base64
import email.utils
import hashlib
import hmac
import os
import sys
import urllib.request
from pathlib import Path

from installed import (
    HOST,
    free_ports,
    from_environment,
    node_packages,
    request_until_it_works,
)
from service import run, started, wait_for_the_end

API = "2021-12-02"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run an Azure Blob Storage on this machine.")
    parser.add_argument("directory", type=Path, help="where its log is written")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--container", default="flyte", help="is made (default: flyte)")
    options = parser.parse_args(argv)
    return run("azurite", lambda: serve(options.directory, options.port, options.container))


def serve(directory: Path, port: int, container: str) -> None:
    """Run the server until this program is interrupted or its parent is gone."""
    parent = os.getppid()
    directory.mkdir(parents=True, exist_ok=True)
    log = directory.resolve() / "azurite.log"
    account = from_environment("AZURE_STORAGE_ACCOUNT_NAME", "the account's name")
    key = from_environment("AZURE_STORAGE_ACCOUNT_KEY", "the account's key, in base64")
    script = node_packages("azurite") / "node_modules/azurite/dist/src/blob/main.js"
    port = port or free_ports(1)[0]
    command = [
        *("node", str(script), "--silent", "--skipApiVersionCheck", "--disableTelemetry"),
        *("--inMemoryPersistence", "--blobHost", HOST, "--blobPort", str(port)),
    ]
    env = {**os.environ, "AZURITE_ACCOUNTS": f"{account}:{key}"}
    with started(command, log, env=env) as server:
        request_until_it_works(
            server, log, lambda: _new_container(port, account, key, container), (201, 409)
        )
        print(f"http://{HOST}:{port}/{account}", flush=True)
        wait_for_the_end(server, parent, log)


def _new_container(port: int, account: str, key: str, container: str) -> urllib.request.Request:
    """Create Container, signed by the account's key ("Authorize with Shared Key", Azure Storage's
    REST reference).
    """
    date = email.utils.formatdate(usegmt=True)
    # The account stands twice: once as such, once as the first part of an emulator's path.
    signed = (
        "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{API}\n"
        f"/{account}/{account}/{container}\nrestype:container"
    )
    digest = hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()
    return urllib.request.Request(
        f"http://{HOST}:{port}/{account}/{container}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": API,
            "Authorization": f"SharedKey {account}:{base64.b64encode(digest).decode()}",
        },
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
