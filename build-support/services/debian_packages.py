#!/usr/bin/env python3
"""Sees to it that programs from Debian's packages are there: `debian_packages.py docker.io skopeo
...`.

Root on a machine with apt-get gets what is missing installed; anybody else is told what to install.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from service import ServiceError

# A program of each, by which its presence is told on any system.
PROGRAMS = {
    "bubblewrap": "bwrap",
    "buildah": "buildah",
    "docker-registry": "docker-registry",
    "docker.io": "dockerd",
    "mmdebstrap": "mmdebstrap",
    "nodejs": "node",
    "npm": "npm",
    "skopeo": "skopeo",
    "umoci": "umoci",
}
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Install the Debian packages that tests use.")
    parser.add_argument("packages", nargs="+", choices=sorted(PROGRAMS))
    try:
        ensure(*parser.parse_args(argv).packages)
    except ServiceError as error:
        print(f"debian_packages: {error}", file=sys.stderr)
        return 1
    return 0


def ensure(*packages: str) -> None:
    """Have the programs of these packages. Raises `ServiceError`."""
    if not _missing(packages):
        return
    apt = shutil.which("apt-get", path=_PATH)
    fix = f"apt-get install {' '.join(_missing(packages))}"
    if apt is None or os.geteuid() != 0:
        raise ServiceError(f"missing here: {', '.join(_missing(packages))}. As root: {fix}")
    with open(_lock_file(), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Lists of packages that are there already are good enough, if they are good at all.
        for update in (False, True):
            missing = _missing(packages)
            if missing and update:
                _run([apt, "update"])
            if missing:
                _run([apt, "install", "-y", "--no-install-recommends", *missing])
    if missing := _missing(packages):
        raise ServiceError(f"apt-get could not install {', '.join(missing)}: see its messages")


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [p for p in packages if shutil.which(PROGRAMS[p], path=_PATH) is None]


def _lock_file() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pants-flyte"
    cache.mkdir(parents=True, exist_ok=True)
    return cache / "debian-packages.lock"


def _run(command: list[str]) -> None:
    # Services that a package brings are not to be started: tests start their own.
    policy = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(
        command,
        env={**os.environ, **policy},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
