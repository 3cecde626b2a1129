"""When, and from which commit, a deployment is made. No deployment fails for want of a commit."""

from __future__ import annotations

import datetime
import os
import subprocess

from flyte_pack.deploy.records import Provenance

_TIMEOUT = 60  # seconds
_FILE = "file://"


def provenance(build_root: str, store_uri: str) -> Provenance:
    """The time, and the commit of the git checkout that `build_root` is in, if it is in one.

    dirty: whether a file below the build root differs from the commit. Ignored files do not count,
    nor does a store there: the first deployment would make every later one dirty.
    """
    commit = _git(build_root, "rev-parse", "--verify", "HEAD^{commit}")
    if not commit:
        return Provenance(now(), None, None)
    paths = ["."]
    if store_uri.startswith(_FILE):
        store = os.path.relpath(store_uri[len(_FILE) :], build_root)
        if store.partition("/")[0] != "..":
            paths.append(f":(exclude,literal){store}")
    status = _git(build_root, "status", "--porcelain", "--untracked-files=normal", "--", *paths)
    return Provenance(now(), commit, None if status is None else bool(status))


def now() -> str:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _git(directory: str, *arguments: str) -> str | None:
    # No lock is taken and no program that the repository's settings name is started.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
