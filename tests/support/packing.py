"""Trees to pack, their plans, and the packer as a process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import flyte_shim
from flyte_pack.bundle_plan import BundlePlan, BundleSummary, PlanFile
from flyte_pack.manifest import Manifest

SOURCE_ROOT = str(Path(flyte_shim.__file__).parent.parent)


@dataclass(frozen=True)
class Bundle:
    """The three outputs of the packer, below one directory; `options` are what it calls them."""

    directory: Path

    @property
    def archive(self) -> Path:
        return self.directory / "bundle.tar.gz"

    @property
    def manifest(self) -> Manifest:
        return Manifest.from_json((self.directory / "manifest.json").read_bytes())

    @property
    def summary(self) -> BundleSummary:
        return BundleSummary.from_json((self.directory / "summary.json").read_bytes())

    @property
    def options(self) -> dict[str, str]:
        return {
            "--archive": str(self.archive),
            "--manifest": str(self.directory / "manifest.json"),
            "--summary": str(self.directory / "summary.json"),
        }


def noise(size: int) -> bytes:
    """`size` bytes that do not compress, always the same."""
    blocks = (hashlib.sha256(b"%d" % n).digest() for n in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def write_tree(top: Path, files: Mapping[str, bytes], executable: Iterable[str] = ()) -> Path:
    """Write `files` below `top`, in the order they come; gives `top`."""
    top.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        place = top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    for path in executable:
        (top / path).chmod((top / path).stat().st_mode | 0o100)
    return top


def plan_of(paths: Iterable[str], **changes: object) -> BundlePlan:
    """A plan that takes each file to where it is."""
    files = tuple(PlanFile(path, path, None, "all", None) for path in paths)
    values = {"copy_style": "all", "root_dir": None, "entry_points": (), "files": files}
    return BundlePlan(**{**values, **changes})


def packer(plan: Path, sources: Path, bundle: Bundle, python: str = sys.executable) -> list[str]:
    """The command that a rule runs."""
    options = {"--plan": str(plan), "--sources": str(sources), **bundle.options}
    words = [word for option in options.items() for word in option]
    return [python, "-m", "flyte_pack", "bundle", *words]


def run_packer(
    command: list[str], codec: str, env: Mapping[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess:
    """Run it with `codec` and our packages on the path, and no other environment."""
    path = os.pathsep.join((SOURCE_ROOT, codec))
    base = {"PATH": os.defpath, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, env={**base, **(env or {})}, capture_output=True, text=True, check=False, **options
    )
