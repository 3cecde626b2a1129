#!/usr/bin/env python3
"""Makes a base image out of Debian's packages, to try things out: `debian_base.py [--push
HOST/REPOSITORY:TAG]`.

Debian's smallest system with its python3 and certificates, by mmdebstrap, as an image layout whose
path is printed. It is made once per recipe, and kept in the user's cache; the same recipe on the
same packages gives the same bytes.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from debian_packages import ensure
from service import ServiceError

SUITE = "bookworm"
PYTHON = "/usr/bin/python3.11"
PACKAGES = ("python3", "ca-certificates")
# Reproducible, and without what no container reads.
EPOCH = "1700000000"
OPTIONS = (
    "--variant=minbase",
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")),
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_PIECE = 1 << 20


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make a base image out of Debian's packages.")
    parser.add_argument(
        "--push", metavar="HOST/REPOSITORY:TAG", help="push it there, by plain HTTP"
    )
    options = parser.parse_args(argv)
    try:
        layout = make()
        if options.push:
            push(layout, options.push)
    except ServiceError as error:
        print(f"debian_base: {error}", file=sys.stderr)
        return 1
    print(layout)
    return 0


def make() -> Path:
    """The image layout; its one image is named `latest`. Raises `ServiceError`."""
    recipe = json.dumps([SUITE, PACKAGES, EPOCH, OPTIONS, platform.machine()])
    home = _user_cache() / f"debian-base-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            ensure("mmdebstrap")
            scratch = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
            try:
                _install(scratch / "root.tar")
                _write_layout(scratch / "root.tar", scratch / "layout")
                (scratch / "layout").rename(home)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return home


def push(layout: Path, reference: str) -> None:
    """Push the image, by plain HTTP to a registry on this machine. Raises `ServiceError`."""
    ensure("skopeo")
    source, target = f"oci:{layout}:latest", f"docker://{reference}"
    command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", source, target]
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
        raise ServiceError(f"skopeo could not push {source} to {target}: its message is above")


def _install(tar: Path) -> None:
    print(f"debian_base: putting Debian's {SUITE} together ...", file=sys.stderr, flush=True)
    command = [
        "mmdebstrap",
        "--quiet",
        *OPTIONS,
        f"--include={','.join(PACKAGES)}",
        SUITE,
        str(tar),
    ]
    env = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    if done.returncode:
        raise ServiceError("mmdebstrap failed: its message is above")


def _write_layout(tar: Path, layout: Path) -> None:
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    diff_id = hashlib.sha256()
    with tar.open("rb") as plain, (layout / "layer").open("wb") as packed:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=packed, mtime=0) as out:
            while piece := plain.read(_PIECE):
                diff_id.update(piece)
                out.write(piece)
    digest = hashlib.sha256()
    with (layout / "layer").open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    size = (layout / "layer").stat().st_size
    (layout / "layer").rename(blobs / digest.hexdigest())
    machine = platform.machine()
    target = {"architecture": _ARCHITECTURES.get(machine, machine), "os": "linux"}
    media_type = "application/vnd.oci.image.{}.v1+json".format
    config = _add(
        blobs,
        media_type("config"),
        {
            **target,
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["/usr/bin/python3"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id.hexdigest()}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "mmdebstrap"}],
        },
    )
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": f"sha256:{digest.hexdigest()}",
        "size": size,
    }
    manifest = _add(
        blobs,
        media_type("manifest"),
        {
            "schemaVersion": 2,
            "mediaType": media_type("manifest"),
            "config": config,
            "layers": [layer],
        },
    )
    named = {"org.opencontainers.image.ref.name": "latest"}
    index = {
        "schemaVersion": 2,
        "manifests": [{**manifest, "platform": target, "annotations": named}],
    }
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def _add(blobs: Path, media_type: str, document: dict[str, object]) -> dict[str, object]:
    data = json.dumps(document, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pants-flyte"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
