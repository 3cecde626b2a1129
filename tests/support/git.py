"""Git, as a user would run it, whatever this machine's settings of it are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

NEUTRAL = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
_SETTINGS = ("user.name=n", "user.email=e@e.test", "protocol.file.allow=always")


def git(where: Path, *arguments: str, **env: str) -> str:
    """Its output. A failure is an error. env: variables, beside those of this process."""
    settings = (part for setting in _SETTINGS for part in ("-c", setting))
    return subprocess.run(
        ["git", *settings, *arguments],
        cwd=where,
        env={**os.environ, **NEUTRAL, **env},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
