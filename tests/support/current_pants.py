"""The newer Pants that this machine has, if any: tests of both generations take it from here.

Named by `PANTS_FLYTE_TEST_PANTS`, else one that the official launcher has installed. Nothing here
downloads a Pants. The PEX tool that it wants is made from the package index, once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Optional

import pytest

from tests.support.bootstrapping import BOOTSTRAP
from tests.support.build_root import clean_environment

OLDEST = (2, 30)
HOW = (
    "there is no Pants 2.30 or later here: set PANTS_FLYTE_TEST_PANTS to the bin/pants of one, or "
    "start one with Pants' official launcher"
)


@dataclass(frozen=True)
class CurrentPants:
    program: Path
    version: str

    @cached_property
    def environment(self) -> dict[str, str]:
        """What tells it that it is meant, and where its PEX tool is."""
        return {"PANTS_VERSION": self.version, "NO_SCIE_WARNING": "1", **self._pex_tool()}

    @cached_property
    def sources(self) -> Optional[Path]:
        """The directory that `pants/` lies in; None where it cannot be told."""
        return _site_packages(self.program)

    def _pex_tool(self) -> Mapping[str, str]:
        pex_cli = _pex_cli()
        wanted = pex_cli.wanted_version(str(self.sources)) if self.sources else None
        if not wanted:
            return {}
        cache = _cache_home() / "pants-flyte"
        return dict(pex_cli.variables(pex_cli.make(wanted, str(cache), clean_environment())))


def require_current_pants() -> CurrentPants:
    """The newest there is; skips the test, or the module, where there is none."""
    found = find_current_pants(os.environ)
    if found is None:
        pytest.skip(HOW, allow_module_level=True)
    return found


def find_current_pants(env: Mapping[str, str]) -> Optional[CurrentPants]:
    named = env.get("PANTS_FLYTE_TEST_PANTS")
    if named:
        program = Path(named).absolute()
        version = _version_of(program)
        assert release(version) >= OLDEST, f"PANTS_FLYTE_TEST_PANTS is {named}: {version}"
        return CurrentPants(program, version)
    found = [
        CurrentPants(program, program.parents[1].name)
        for program in _nce_cache(env).glob("*/bindings/venvs/*/bin/pants")
        if os.access(program, os.X_OK) and release(program.parents[1].name) >= OLDEST
    ]
    return max(found, key=lambda pants: release(pants.version), default=None)


def release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with; none for what is no version, or one with extras."""
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(?:\.?[a-z]+\d+)?", version)
    return tuple(map(int, match.groups())) if match else ()


def _nce_cache(env: Mapping[str, str]) -> Path:
    """Where the launcher keeps what it installs (a-scie/jump, docs/packaging.md: SCIE_BASE)."""
    if env.get("SCIE_BASE"):
        return Path(env["SCIE_BASE"]).expanduser()
    if sys.platform == "darwin":
        return Path(env["HOME"]) / "Library" / "Caches" / "nce"
    return _cache_home(env) / "nce"


def _cache_home(env: Mapping[str, str] = os.environ) -> Path:
    named = env.get("XDG_CACHE_HOME", "")
    return Path(named) if named.startswith("/") else Path(env["HOME"]) / ".cache"


def _version_of(program: Path) -> str:
    """What it says of itself, in a build root that asks for no version.

    The launcher would download one: it is asked for its own version (which is below 2.30).
    """
    with tempfile.TemporaryDirectory() as root:
        Path(root, "pants.toml").write_text("[GLOBAL]\npantsd = false\n")
        env = {"NO_SCIE_WARNING": "1", "PANTS_BOOTSTRAP_VERSION": "report"}
        done = subprocess.run(
            [program, "--version"],
            cwd=root,
            env=clean_environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, f"PANTS_FLYTE_TEST_PANTS is {program}: {done.stderr}"
    return done.stdout.split()[-1]


def _site_packages(program: Path) -> Optional[Path]:
    """Of the environment that a program is in, or of the one that a short script starts."""
    for environment in (program.parents[1], program.resolve().parents[1]):
        for found in environment.glob("lib/python3*/site-packages/pants/version.py"):
            return found.parents[1]
    text = program.read_bytes()[:4096]
    for named in re.findall(rb"/[^\s\"']+/bin/pants\b", text):
        started = Path(os.fsdecode(named))
        if started != program and started.is_file():
            return _site_packages(started)
    return None


def _pex_cli() -> ModuleType:
    spec = spec_from_file_location("pex_cli", BOOTSTRAP / "pex_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
