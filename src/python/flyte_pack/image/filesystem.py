"""Where things are in an image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

VENV = "opt/venv"
HOME = "/home/flyte"
MUSL = "musl"  # instead of a version of glibc
SHIM = "flyte-shim"
BASE_PATHS = "pants_flyte_base.pth"
LOCKED_PATHS = "pants_flyte_locked.pth"

_VERSION = re.compile(r"/.*python(3\.[0-9]{1,3})")


def version_in(interpreter: str) -> str | None:
    """`/usr/local/bin/python3.12` -> `3.12`; None for a path that does not say so."""
    found = _VERSION.fullmatch(interpreter)
    return found[1] if found else None


def site_packages(version: str) -> str:
    """Where packages are; `version` as in `3.12`."""
    return f"{VENV}/lib/python{version}/site-packages"


def pyvenv_cfg(interpreter: str, version: str, isolated: bool = False) -> str:
    """What makes `VENV` a virtual environment of `interpreter` (Python's documentation, "venv").

    The base's own packages stay importable, after ours: an image for GPUs may bring some that no
    lock file has. isolated: not those beside the interpreter, as in the base's own environment.
    """
    return (
        f"home = {os.path.dirname(interpreter)}\n"
        f"include-system-site-packages = {'false' if isolated else 'true'}\n"
        f"version = {version}\n"
    )


def base_paths(packages: Iterable[str], directories: Iterable[str]) -> str:
    """The text of `BASE_PATHS`, empty for none (Python's documentation, "site").

    It puts places of the base behind our packages. packages: those that may have `.pth` files.
    """
    lines = [f"import site; site.addsitedir({place!a})" for place in packages]
    return "".join(f"{line}\n" for line in (*lines, *directories))


def console_script(module: str, function: str) -> str:
    """A command that calls `function` of `module` (entry points specification)."""
    name = function.partition(".")[0]
    return (
        f"#!/{VENV}/bin/python\n"
        "import sys\n"
        f"from {module} import {name}\n\n"
        'if __name__ == "__main__":\n'
        f"    sys.exit({function}())\n"
    )
