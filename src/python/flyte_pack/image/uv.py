"""Runs the installer uv, told only where packages are, and explains its failures."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Dict

from flyte_pack.errors import UserError
from flyte_pack.image.running import quietly
from flyte_pack.image.wheel_target import WheelTarget
from flyte_pack.json_fields import read
from flyte_shim import shown

# The variables of uv that say where packages come from, and how to get them. Others would change
# what is installed, or how, by what a user has in the shell.
_KEPT = re.compile(
    r"UV_(CACHE_DIR|DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|INDEX_.*_(USERNAME|PASSWORD)"
    r"|FIND_LINKS|NO_INDEX|OFFLINE|KEYRING_PROVIDER|INSECURE_HOST|SYSTEM_CERTS|NATIVE_TLS"
    r"|(HTTP|REQUEST)_[A-Z_]*|CONCURRENT_[A-Z]*|CREDENTIALS_DIR)"
)
# Every part is bounded, so that the time is linear in a complaint, which names what an index has.
_NAME = r"(?<![A-Za-z0-9._-])(?P<name>[A-Za-z0-9._-]{1,200}?)"
_LONGEST = 16_384  # characters of a complaint that are read
_NO_WHEEL = re.compile(
    _NAME + r"==(?P<version>\S{1,200}) has no (usable wheels|wheels with a matching)"
    r"(?: (?P<kind>[\w ]{1,80}?) tag)?(?: \(e\.g\., `(?P<tag>[^`]+)`\))?"
)
_MISMATCH = re.compile(
    r"Hash mismatch for `(?P<name>[^`=]+?)==(?P<version>[^`]+)`.*?Computed:\s+(?P<hash>\S+)",
    re.DOTALL,
)
_ABSENT = re.compile(
    r"there is no version of (?P<pin>\S{1,200}?==[^\s,]+)"
    r"|\b(?P<name>\S{1,200}) was not found in the "
)
_INSTALLING = re.compile(r"Failed to install: \S+ \((?P<name>[^=)]+)==(?P<version>[^)]+)\)")
_DIRECTORY_OF_SCRIPTS = re.compile(
    r"invalid entry \(directory\) in the `scripts` directory: (?P<above>\S*?)\.data/(?P<below>.*)"
)
_IN_THE_WAY = re.compile(r"File exists|Is a directory|Not a directory")
# Which index wants them is not known where another has the name in another version.
_CREDENTIALS = (
    "Where an index wants a password: a netrc file has it for the host, and NETRC, which names the "
    "file, is in `[subprocess-environment].env_vars`"
)
_REFUSED = re.compile(r"\b(401 Unauthorized|403 Forbidden)\b")
_UNREACHABLE = re.compile(
    r"Request failed after|error sending request|Failed to fetch|[45]\d\d [A-Z]\w+"
)


def add_indexes(parser: argparse.ArgumentParser) -> None:
    """Add the option `--indexes FILE`, which `take_indexes` reads."""
    parser.add_argument(
        "--indexes", help="where packages are: uv's variables, as a JSON object in a file"
    )


def take_indexes(path: str | None) -> None:
    """Set the variables of the file in our environment.

    They come in a file, as URLs may hold passwords: Pants logs a step's arguments and variables,
    and puts them into remote caches, but not the content of its files. Raises `UserError`.
    """
    if path is None:
        return
    with open(path, encoding="utf-8") as file:
        variables = read(Dict[str, str], json.load(file), path)
    if not all(map(_KEPT.fullmatch, variables)):
        raise UserError(f"{path} has other variables than those of package indexes")
    os.environ.update(variables)


class FileInTheWay(UserError):
    """The installer found a file where it wanted a directory, or the reverse."""


def run_uv(
    arguments: Sequence[str], target: WheelTarget, environ: Mapping[str, str], hide: str = ""
) -> str:
    """What `uv pip ARGUMENTS` prints for `target`; only wheels are taken.

    hide: a directory that errors do not name. Raises `UserError`.
    """
    command = [
        *(_uv(), "pip", *arguments, *target.uv_options),
        *("--python", sys.executable, "--only-binary", ":all:", "--no-config"),
        *("--color", "never", "--no-progress"),
    ]
    if environ.get("UV_INDEX") or environ.get("UV_EXTRA_INDEX_URL"):
        # Hashes decide what is taken, so all indexes are equal, as for pip. (With a single index
        # uv would no longer report that it wants credentials.)
        command += ["--index-strategy", "unsafe-best-match"]
    env = {n: v for n, v in environ.items() if not n.startswith("UV_") or _KEPT.fullmatch(n)}
    env["UV_PYTHON_DOWNLOADS"] = "never"
    done = quietly(command, env=env)
    if done.returncode:
        said = done.stderr
        for place in (hide, os.path.relpath(hide)) if hide else ():
            said = said.replace(f"{place}/", "")
        if _INSTALLING.search(said) and _IN_THE_WAY.search(said):
            raise FileInTheWay(explain(said, target))
        raise UserError(explain(said, target))
    return done.stdout


def explain(text: str, target: WheelTarget) -> str:
    """What uv's complaint means, and what mends it."""
    text = text[:_LONGEST]
    if found := _NO_WHEEL.search(text):
        others = re.search(r"Wheels are available for `.*", text)
        return (
            f"{found['name']} {found['version']} has no wheel for {target} (platform tag "
            f"{target.platform_tag} or older). {shown.line(others[0]) + '. ' if others else ''}Pin "
            "a version that has one; set `glibc` of the `flyte_base_image` if the image has a "
            "newer glibc; or build the wheel and put it on an index or in a directory of wheels "
            "(`[python-repos].find_links`), with its hash in the lock file"
        )
    if found := _MISMATCH.search(text):
        return (
            f"the wheel of {found['name']} {found['version']} for {target} has the hash "
            f"{found['hash']}, which is not in the lock file. If that was made for another "
            "platform, make it anew for all of them; if not, the index has replaced that wheel"
        )
    if (found := _INSTALLING.search(text)) and (entry := _DIRECTORY_OF_SCRIPTS.search(text)):
        where = f"{entry['above'].rpartition('/')[2]}.data/{entry['below']}"
        return (
            f"the wheel of {found['name']} {found['version']} has a directory among its programs, "
            f"{shown.line(where)}, and the installer takes only files there. Pin another "
            "version; or build the wheel without it and put it in a directory of wheels "
            "(`[python-repos].find_links`), with its hash in the lock file"
        )
    if found := _REFUSED.search(text):
        return f"the package index refuses us: {_decisive(text)}. {_CREDENTIALS}"
    if found := _ABSENT.search(text):
        what = (found["pin"] or found["name"]).replace("==", " ")
        return (
            f"{what} is not on the package index: {_decisive(text)}. It was withdrawn, or is on "
            f"an index that `[python-repos].indexes` lacks or that refuses us. {_CREDENTIALS}"
        )
    if _UNREACHABLE.search(text):
        return (
            f"the package index cannot be reached: {_decisive(text)}. Check the network, "
            "`[python-repos].indexes`, HTTPS_PROXY and SSL_CERT_FILE"
        )
    return f"the installer failed: {_decisive(text)}"


def _decisive(text: str) -> str:
    """The causes that uv gives, outermost first, on one line."""
    _, _, causes = text.partition("error: ")
    lines = [line.strip().removeprefix("cause: ") for line in (causes or text).splitlines()]
    return shown.line("; ".join(filter(None, lines)), longest=600).rstrip(".")


def _uv() -> str:
    try:
        return str(importlib.import_module("uv").find_uv_bin())
    except (ImportError, FileNotFoundError):
        raise UserError(
            "the installer uv is missing. Install what flyte_pack/flyte-image.lock pins"
        ) from None
