#!/usr/bin/env python3
"""Makes the libraries of the report of `flyte-explain`, as one script, with their licences:
`vendor.py`; `vendor.py --check` compares, and `vendor.py --packages` says where they are installed.

build-support/locks/report/package-lock.json pins them, and what bundles them, by SHA-512. After a
change there, or of entry.mjs, run this and commit what it writes. It needs node and npm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "services"))

from installed import node_packages  # noqa: E402
from service import ServiceError  # noqa: E402

VENDOR = HERE.parents[1] / "src/python/flyte_pack/report/vendor"
SCRIPT, LICENSES = "libraries.js", "LICENSES.txt"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make the libraries of the HTML report.")
    parser.add_argument("--check", action="store_true", help="only compare what is there")
    parser.add_argument("--packages", action="store_true", help="only print where node has them")
    options = parser.parse_args(argv)
    try:
        if options.packages:
            print(node_packages("report") / "node_modules")
            return 0
        made = libraries()
    except (ServiceError, subprocess.CalledProcessError) as error:
        print(f"vendor: {error}", file=sys.stderr)
        return 1
    differs = [
        name for name, data in made.items()
        if not (VENDOR / name).exists() or (VENDOR / name).read_bytes() != data
    ]  # fmt: skip
    if options.check:
        for name in differs:
            print(f"vendor: {VENDOR / name} is not what the lock file pins", file=sys.stderr)
        return 1 if differs else 0
    for name in differs:
        (VENDOR / name).write_bytes(made[name])
        print(f"wrote {VENDOR / name}")
    return 0


def libraries() -> dict[str, bytes]:
    """The files of `VENDOR` by name. Raises `ServiceError`, `CalledProcessError`."""
    packages = node_packages("report") / "node_modules"
    with tempfile.TemporaryDirectory() as place:
        for script in HERE.glob("*.mjs"):
            shutil.copy(script, place)
        os.symlink(packages, Path(place, "node_modules"))
        done = subprocess.run(
            ["node", "bundle.mjs"],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    if done.returncode:
        raise ServiceError(f"node could not bundle the libraries: {done.stderr.decode()}")
    names = done.stderr.decode().split()
    licenses = "\n".join(_license(packages / name) for name in names)
    return {SCRIPT: done.stdout, LICENSES: licenses.encode()}


def _license(package: Path) -> str:
    about = json.loads((package / "package.json").read_bytes())
    text = (package / "LICENSE").read_text().strip()
    return f"{about['name']} {about['version']} ({about['license']})\n\n{text}\n\n{'-' * 72}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
