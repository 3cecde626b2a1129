"""Installs what the services here are made of, once, from lock files with hashes, into the user's
cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from pathlib import Path

from debian_packages import ensure
from remote_cache import find_python, user_cache
from service import ServiceError

LOCKS = Path(__file__).resolve().parents[1] / "locks"
HOST = "127.0.0.1"
START_SECONDS = 60.0


def python_packages(lock: str) -> Path:
    """A directory with the packages of a lock file of `LOCKS`: a place to take programs from, no
    environment.
    """

    def install(home: Path, pass_fds: tuple[int, ...]) -> None:
        _run(
            *(
                find_python(),
                "-I",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ),
            *("--no-input", "--no-deps", "--require-hashes", "--ignore-requires-python"),
            *("--only-binary", ":all:", "--root-user-action", "ignore"),
            *("--target", str(home), "--requirement", str(LOCKS / lock)),
            pass_fds=pass_fds,
        )

    return _once(Path(lock).stem, (LOCKS / lock).read_bytes(), install)


def node_packages(directory: str) -> Path:
    """A directory whose `node_modules` has the packages of a package-lock.json in a directory of
    `LOCKS`.
    """
    ensure("nodejs", "npm")
    files = [LOCKS / directory / name for name in ("package.json", "package-lock.json")]

    def install(home: Path, pass_fds: tuple[int, ...]) -> None:
        home.mkdir()
        for file in files:
            shutil.copy(file, home)
        _run(
            *("npm", "ci", "--ignore-scripts", "--omit=optional", "--omit=dev", "--no-audit"),
            *("--no-fund", "--no-update-notifier", "--loglevel=error"),
            pass_fds=pass_fds,
            cwd=home,
        )

    return _once(directory, b"\0".join(file.read_bytes() for file in files), install)


def _once(name: str, pinned: bytes, install: Callable[[Path, tuple[int, ...]], None]) -> Path:
    home = user_cache() / "test-envs" / f"{name}-{hashlib.sha256(pinned).hexdigest()[:16]}"
    home.parent.mkdir(parents=True, exist_ok=True)
    complete = home / "complete"
    with open(f"{home}.lock", "w") as lock:
        # The children hold the lock too: those of a start that was killed may still be writing.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            print(f"installing {name} into {home} ...", file=sys.stderr, flush=True)
            shutil.rmtree(home, ignore_errors=True)
            install(home, (lock.fileno(),))
            complete.touch()
    return home


def _run(*command: str, pass_fds: tuple[int, ...], cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, pass_fds=pass_fds, cwd=cwd, stdin=subprocess.DEVNULL, stdout=sys.stderr
    )
    if done.returncode:
        raise ServiceError(f"{command[0]} could not install it: the message above says why.")


def free_ports(count: int) -> list[int]:
    """Different ones, which nobody listened on just now.

    They lie below those that systems give to whoever connects: a server of several parts connects
    to itself before the last of them listens.
    """
    holders: dict[int, socket.socket] = {}
    try:
        while len(holders) < count:
            port = secrets.randbelow(12_000) + 20_000
            holder = socket.socket()
            try:
                holder.bind((HOST, port))
            except OSError:
                holder.close()
            else:
                holders[port] = holder
        return list(holders)
    finally:
        for holder in holders.values():
            holder.close()


def request_until_it_works(
    server: subprocess.Popen[bytes],
    log: Path,
    make: Callable[[], urllib.request.Request],
    good: Collection[int],
) -> None:
    """Send a request anew until its answer has one of the statuses `good`.

    Raises `ServiceError`.
    """
    deadline, said = time.monotonic() + START_SECONDS, ""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with opener.open(make(), timeout=5) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status, said = error.code, f"status {error.code}"
        except OSError as error:
            said = str(error)
            time.sleep(0.05)
            continue
        if status in good:
            return
        time.sleep(0.05)
    lines = log.read_text(errors="replace").splitlines()
    fatal = [line for line in lines if line.startswith(("F", "panic"))] or lines[-1:]
    raise ServiceError(
        f"it did not start ({said}; {fatal[0] if fatal else 'it says nothing'}): see {log}"
    )


def from_environment(name: str, what: str) -> str:
    """The value of a variable that must be there. Raises `ServiceError`."""
    value = os.environ.get(name)
    if not value:
        raise ServiceError(f"set {name} in the environment: {what}")
    return value
