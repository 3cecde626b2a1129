"""Says what a version was made from: an in-toto statement with SLSA's provenance.

in-toto attestation framework 1.0, "Statement"; SLSA 1.0, "Provenance". It is a function of the
version's record and of what the build knows, so there is no other time in it than in the record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from flyte_pack.deploy.ledger import Recorded
from flyte_pack.deploy.plan import Material
from flyte_pack.deploy.records import Provenance
from flyte_pack.json_fields import Sha256, dump
from flyte_pack.store import Blob, StoreKey
from flyte_shim import __version__

STATEMENT_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
# docs/inventory.md says what these mean.
BUILD_TYPE = "urn:pants-flyte:deployment:1"
BUILDER = "urn:pants-flyte:builder"


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
    document = {
        "_type": STATEMENT,
        "subject": [_resource(name, digest) for name, digest in sorted(subjects)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "target": record.address,
                    "project": record.project,
                    "domain": record.domain,
                    "version": record.version,
                    "copyStyle": record.copy_style,
                    "tasks": [
                        {"target": task.address, "entryPoint": task.entry_point}
                        for task in record.tasks
                    ],
                },
                "resolvedDependencies": [
                    *_commit(record.provenance),
                    *(_resource(one.name, one.sha256) for one in sorted(made_of)),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"pants-flyte": __version__}},
                "byproducts": [
                    _resource(blob.key, blob.sha256)
                    for blob in sorted(set(inventories), key=lambda blob: blob.key)
                ],
            },
        },
    }
    return dump(document)


def _commit(made: Provenance) -> list[dict[str, Any]]:
    if made.commit is None:
        return []
    known = {} if made.dirty is None else {"annotations": {"dirty": made.dirty}}
    return [{"name": "the checkout", "digest": {"gitCommit": made.commit}, **known}]


def _resource(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}
