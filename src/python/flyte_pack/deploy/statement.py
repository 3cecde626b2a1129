"""Says what a version was made from.

It is a function of the version's record and of what the build knows, so there is no other time in
it than in the record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from flyte_pack import provenance
from flyte_pack.deploy.ledger import Recorded
from flyte_pack.json_fields import Sha256
from flyte_pack.provenance import Material, Origin
from flyte_pack.store import Blob, StoreKey

BUILD_TYPE = "urn:pants-flyte:deployment:1"  # docs/inventory.md says what it means


def statement(
    recorded: Recorded,
    record_key: StoreKey,
    materials: Sequence[Material],
    inventories: Iterable[Blob],
    built: Collection[str],
) -> bytes:
    """materials: what was built from, beside the commit. inventories: what was listed. built: the
    digests of the images that were built for it; its others are what it was made with.
    """
    record = recorded.record
    blobs = [blob for bundle in record.bundles for blob in (bundle.archive, bundle.manifest)]
    subjects = {Material(record_key, recorded.sha256)}
    subjects.update(Material(blob.key, blob.sha256) for blob in blobs)
    made_of = set(materials)
    for task in record.tasks:
        name, _, digest = (task.image or "").partition("@")
        if digest:
            known = Material(name, Sha256(digest.partition(":")[2]))
            (subjects if digest in built else made_of).add(known)
    return provenance.statement(
        BUILD_TYPE,
        {
            "target": record.address,
            "project": record.project,
            "domain": record.domain,
            "version": record.version,
            "copyStyle": record.copy_style,
            "tasks": [
                {"target": task.address, "entryPoint": task.entry_point} for task in record.tasks
            ],
        },
        subjects,
        Origin(record.provenance.commit, record.provenance.dirty),
        made_of,
        (Material(blob.key, blob.sha256) for blob in inventories),
    )
