#!/usr/bin/env python3
"""Sees to it that programs from Debian's packages are there: `debian_packages.py docker.io skopeo
...`.

Root on a machine with apt-get gets what is missing installed; anybody else is told what to install.
The services that come with it are neither started nor left enabled: tests start their own.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service import ServiceError

# A program of each, by which its presence is told on any system.
PROGRAMS = {
    "bubblewrap": "bwrap",
    "buildah": "buildah",
    "chromium": "chromium",
    "docker-registry": "docker-registry",
    "docker.io": "dockerd",
    "mmdebstrap": "mmdebstrap",
    "nodejs": "node",
    "npm": "npm",
    "skopeo": "skopeo",
    "umoci": "umoci",
}
POLICY = Path("/usr/sbin/policy-rc.d")  # asked before a package starts a service (invoke-rc.d(8))
ETC = Path("/etc")
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


def require(*packages: str) -> None:
    """Raises `ServiceError` where programs of these packages are missing; installs nothing."""
    if missing := " ".join(_missing(packages)):
        raise ServiceError(
            f"missing here: {missing}. As root: python3 {Path(__file__).resolve()} {missing} "
            "(apt-get install starts and enables their services, this does not)"
        )


def ensure(*packages: str) -> None:
    """Have the programs of these packages, installed if need be. Raises `ServiceError`."""
    if not _missing(packages):
        return
    apt = shutil.which("apt-get", path=_PATH)
    fix = f"apt-get install {' '.join(_missing(packages))}"
    if apt is None or os.geteuid() != 0:
        raise ServiceError(f"missing here: {', '.join(_missing(packages))}. As root: {fix}")
    with open(_lock_file(), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = enabled(ETC)
        with nothing_started(POLICY):
            # Lists of packages that are there already are good enough, if they are good at all.
            for update in (False, True):
                missing = _missing(packages)
                if missing and update:
                    _run([apt, "update"])
                if missing:
                    _run([apt, "install", "-y", "--no-install-recommends", *missing])
        _disable(enabled(ETC) - before)
    if missing := _missing(packages):
        raise ServiceError(f"apt-get could not install {', '.join(missing)}: see its messages")


@contextmanager
def nothing_started(policy: Path) -> Iterator[None]:
    """Forbid that packages start services; where there is a policy already, that holds."""
    try:
        with policy.open("x") as file:
            file.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:
        yield
        return
    try:
        policy.chmod(0o755)
        yield
    finally:
        policy.unlink()


def enabled(etc: Path) -> set[str]:
    """Names of the services that start with the machine, as systemd and System V's init know it."""
    units = {path.name for path in etc.glob("systemd/system/*.wants/*")}
    return units | {path.name[3:] for path in etc.glob("rc[2-5].d/S[0-9][0-9]*")}


def _disable(names: set[str]) -> None:
    units = sorted(name for name in names if "." in name)
    if units and shutil.which("systemctl", path=_PATH):
        _run(["systemctl", "disable", *units])
    for name in sorted(enabled(ETC) & names - set(units)):
        _run(["update-rc.d", name, "disable"])


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [p for p in packages if shutil.which(PROGRAMS[p], path=_PATH) is None]


def _lock_file() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pants-flyte"
    cache.mkdir(parents=True, exist_ok=True)
    return cache / "debian-packages.lock"


def _run(command: list[str]) -> None:
    subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": _PATH},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
