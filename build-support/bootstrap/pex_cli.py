"""Makes the PEX tool, which Pants would download from GitHub, out of the package index.

A directory holds one: the tool, `pex`, and `known_versions`, what Pants has to be told of it. The
digest of the tool is part of Pants' cache keys, so its bytes are the same wherever it is made by
the same version of Python: no compression (zlib differs between systems), no time stamps and no
path of this machine. Pants names the interpreter that it runs it with; the shebang is never used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Mapping
from urllib.parse import quote

_PLATFORMS = ("linux_x86_64", "linux_arm64", "macos_x86_64", "macos_arm64")
_SOURCE = os.path.join("pants", "backend", "python", "util_rules", "pex_cli.py")


def wanted_version(site_packages: str) -> str | None:
    """The version that the Pants installed there asks for, as `2.97.1`."""
    try:
        with open(os.path.join(site_packages, _SOURCE), encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return None
    found = re.search(r'^ *(?:default_version|_?PEX_VERSION) = "v([0-9.]+)"', text, re.MULTILINE)
    return found[1] if found else None


def command(python: str, version: str, directory: str, *source: str) -> list[str]:
    """What makes `directory`/pex; `python` has PEX, and `source` tells it where the wheel is."""
    same_bytes = ["--no-compress", "--no-compile", "--python-shebang", "/usr/bin/env python3"]
    target = ["-c", "pex", "-o", os.path.join(directory, "pex"), "--disable-cache"]
    return [python, "-I", "-m", "pex", f"pex=={version}", *target, *same_bytes, *source]


def record(version: str, directory: str) -> None:
    """Writes `known_versions` for the tool in `directory`."""
    with open(os.path.join(directory, "pex"), "rb") as file:
        data = file.read()
    fact = f"{hashlib.sha256(data).hexdigest()}|{len(data)}"
    with open(os.path.join(directory, "known_versions"), "w", encoding="ascii") as file:
        file.writelines(f"v{version}|{name}|{fact}\n" for name in _PLATFORMS)


def make(version: str, cache: str, env: Mapping[str, str]) -> str:
    """The directory of the tool in `cache`, made by this very Python, unless it is there.

    `env` tells pip where to look. Raises OSError or subprocess.CalledProcessError. Two at once both
    make it, and the second to be ready throws its own away.
    """
    # Another minor version of Python makes other bytes.
    maker = f"cpython-{sys.version_info[0]}.{sys.version_info[1]}"
    directory = os.path.join(cache, f"pex-cli-{version}-{maker}")
    if os.path.isdir(directory):
        return directory
    os.makedirs(cache, exist_ok=True)
    making = tempfile.mkdtemp(prefix=".pex-cli.making-", dir=cache)
    try:
        venv, wheels, tool = (os.path.join(making, name) for name in ("venv", "wheels", "tool"))
        inside = os.path.join(venv, "bin", "python")
        pip = [inside, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
        os.mkdir(tool)
        _run([sys.executable, "-I", "-m", "venv", venv], env, making)
        pinned = ["--no-deps", f"pex=={version}"]
        # Of the two wheels of newer versions, the one that runs on all Pythons, as the tasks' may
        # be older than ours.
        any_python = ["--only-binary=:all:", "--python-version", "3.11"]
        _run([*pip, "download", "--dest", wheels, *any_python, *pinned], env, making)
        (wheel,) = os.listdir(wheels)
        _run([*pip, "install", "--no-deps", os.path.join(wheels, wheel)], env, making)
        # Not resolved by PEX: the pip in it does not run on the newest Pythons.
        source = ["--pre-resolved-dist", os.path.join(wheels, wheel)]
        _run(command(inside, version, tool, *source), env, making)
        record(version, tool)
        with contextlib.suppress(OSError):
            os.rename(tool, directory)
        if not os.path.isdir(directory):
            raise FileNotFoundError(directory)
        return directory
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _run(command: list[str], env: Mapping[str, str], scratch: str) -> None:
    subprocess.run(
        command,
        env={**env, "PEX_IGNORE_RCFILES": "1", "PIP_USER": "0", "TMPDIR": scratch},
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_common_modes,
    )


def _common_modes() -> None:
    os.umask(0o022)  # the modes of files go into the tool


def variables(directory: str) -> dict[str, str]:
    """How Pants is told of the tool in `directory`."""
    with open(os.path.join(directory, "known_versions"), encoding="ascii") as file:
        known_versions = file.read().split()
    return {
        "PANTS_PEX_CLI_VERSION": known_versions[0].partition("|")[0],
        "PANTS_PEX_CLI_KNOWN_VERSIONS": repr(known_versions),
        "PANTS_PEX_CLI_URL_TEMPLATE": "file://" + plain_path(os.path.join(directory, "pex")),
    }


def plain_path(path: str) -> str:
    """A path to the same file that a file:// URL can hold as it is.

    Pants escapes the path of such a URL and opens it without unescaping: one with a space in it is
    never found. A link in the directory for temporary files helps; it needs no trust, as Pants
    checks the hash of what it finds there.
    """
    if quote(path) == path:
        return path
    name = f"pants-flyte-{os.getuid()}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    link = os.path.join("/tmp", name, os.path.basename(path))
    if not os.path.exists(link):
        os.makedirs(os.path.dirname(link), mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another start made it just now
            os.symlink(path, link)
    return link
