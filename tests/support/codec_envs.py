"""The CPythons of this machine, each with what a lock file of src/python/flyte_pack/ pins, such as
the codec.

It is installed with pip, hashes required, into a cache that later runs and parallel test
processes share: `$XDG_CACHE_HOME/pants-flyte/test-envs`, or the same below `~/.cache`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import flyte_pack

LOCK = Path(flyte_pack.__file__).with_name("flyte-pack.lock")
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pants-flyte" / "test-envs"
)

_ABOUT = """
import sys
about = [sys.implementation.name, "%d.%d" % sys.version_info[:2], sys.implementation.cache_tag]
print("\\n".join([*about, sys.base_prefix + "/bin/python" + about[1]]))
"""


@cache
def find_cpython(version: str) -> str | None:
    """A working CPython `version` (as "3.11"): pyenv's, enabled or not, or one on PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    candidates = [str(p) for p in sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
    candidates += [str(Path(d, f"python{version}")) for d in os.get_exec_path()]
    working = (python for python in candidates if _about(python)[:2] == ["cpython", version])
    return next(working, None)


def needed_cpython(version: str) -> str:
    """As `find_cpython`; without one, the test fails in CI and is skipped elsewhere."""
    import pytest  # a benchmark does without

    python = find_cpython(version)
    if python is None:
        assert not os.environ.get("CI"), f"CI needs a CPython {version}"
        pytest.skip(f"this machine has no CPython {version}: install it, with pyenv for example")
    return python


def codec_for(python: str) -> str:
    """The directory to put on the PYTHONPATH of `python` for the codec; made if it is not there."""
    return locked_packages(LOCK, python)


@cache
def locked_packages(lock: Path, python: str) -> str:
    """The directory to put on the PYTHONPATH of `python` for what `lock` pins; made if it is not
    there.
    """
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    place = CACHE / f"{lock.stem}-{digest[:16]}-{_about(python)[2]}"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        # Made aside and moved into place in one step: of two that race, one wins and both are
        # right.
        made = tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent)
        try:
            # An environment that Pants made has no pip; the interpreter that it was made from has.
            base = _about(python)[3]
            pip = [base, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run(
                [*pip, "--require-hashes", "-r", str(lock), "--target", made],
                env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},
                check=True,
            )
            os.rename(made, place)
        except OSError:
            if not place.exists():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return str(place)


def _about(python: str) -> list[str]:
    """Implementation, version, tag and base interpreter of an interpreter; nothing for what is
    none.
    """
    if not os.access(python, os.X_OK):
        return []
    done = subprocess.run([python, "-c", _ABOUT], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()
