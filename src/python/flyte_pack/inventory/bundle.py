"""Packs a bundle and writes its inventory: `python -m flyte_pack bundle-with-inventory`.

One process does both, since a person waits for it after each edit. It needs the standard library
alone: `program` has read the lock file before, which an edit seldom changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from flyte_pack import bundle, command
from flyte_pack.errors import UsageError
from flyte_pack.fresh import fresh_file
from flyte_pack.inventory import cyclonedx
from flyte_pack.inventory.parts import File, Package
from flyte_pack.inventory.plan import BundleInventory, RequiredPackages
from flyte_pack.manifest import Manifest

_USAGE = "usage: python -m flyte_pack bundle-with-inventory PLAN OUT.cdx.json [what `bundle` takes]"


def main(argv: Sequence[str]) -> int:
    """The command: a `BundleInventory`, the file to be written, and what `bundle` takes.

    Returns its exit code.
    """
    if list(argv) in (["-h"], ["--help"]):
        print(_USAGE)
        return 0
    return bundle.main(list(argv[2:])) or command.guarded(
        "flyte_pack bundle-with-inventory", lambda: _write(argv[:2])
    )


def _write(files: Sequence[str]) -> None:
    if len(files) != 2:
        raise UsageError(_USAGE)
    plan, out = files
    with command.no_garbage():
        content = of_bundle(BundleInventory.from_json(_read(plan)))
    with fresh_file(out) as path, open(path, "wb") as file:
        file.write(content)


def of_bundle(plan: BundleInventory) -> bytes:
    """The inventory of a packed bundle. Raises `InvalidData` or `OSError`."""
    manifest = Manifest.from_json(_read(plan.manifest))
    required = RequiredPackages.from_json(_read(plan.packages))
    targets = dict(plan.targets)
    return cyclonedx.document(
        cyclonedx.bundle(plan.address, manifest.content_hash, manifest.archive_hash),
        (
            File(one.path, one.sha256, None if one.owner is None else targets[one.owner])
            for one in manifest.files
        ),
        [
            Package("pypi", one.name, one.version, one.hashes, requires=one.requires)
            for one in required.packages
        ],
        complete=required.complete,
    )


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
