"""Reads all that is below `deployments/` of a store, before anything is deleted from the store.

Deleting goes by what records do not name. So whatever is not understood stops it: an object of
another name or place, one that cannot be read or that says it belongs elsewhere, a history entry
without its record, a record without a history entry, a gap in a history.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeVar

from flyte_pack.deploy.records import (
    RUN,
    HistoryEntry,
    StoredBundle,
    VersionRecord,
    deployment_key,
    statement_key,
)
from flyte_pack.errors import UserError
from flyte_pack.json_fields import Document, InvalidData
from flyte_pack.names import TargetAddress
from flyte_pack.store import Store, StoredObject, StoreError, StoreKey
from flyte_shim import shown
from flyte_shim.hashing import sha256_bytes

BACKUP = "bring it back from a backup"
_LIMIT = 64 << 20
_D = TypeVar("_D", bound=Document)
_CLOCKS = 3600.0  # seconds that this clock and the store's may differ
_KEY = re.compile(
    r"(deployments/[^/]+/[^/]+/[^/]+)/(?:versions/([^/]+)|history/([1-9][0-9]{0,15}))\.json"
)


@dataclass
class _Deployment:
    """What one deployment has: entries by number, records' keys by version."""

    entries: dict[int, tuple[StoredObject, HistoryEntry]] = field(default_factory=dict)
    records: dict[str, StoredObject] = field(default_factory=dict)


@dataclass(frozen=True)
class _Record:
    sha256: str
    record: VersionRecord


def stop(problem: str, fix: str) -> UserError:
    return UserError(f"{problem}. So it is not known what is needed, and nothing is pruned: {fix}")


def listed(store: Store, prefix: str) -> dict[StoreKey, StoredObject]:
    """The objects below `prefix`. Raises `UserError` if the clocks differ by much."""
    found = {one.key: one for one in store.objects(prefix)}
    latest = max(found.values(), key=lambda one: one.modified, default=None)
    if latest is not None and latest.modified > time.time() + _CLOCKS:
        raise stop(
            f"{store.uri_of(latest.key)} was written in the future by this machine's clock",
            "set the clock of this machine, or of the one that wrote it",
        )
    return found


class Survey:
    """before: what was written after this time may be of a deployer at work, in seconds since 1970.

    A record that was there once counts, whatever a later listing leaves out.
    """

    def __init__(self, store: Store, before: float) -> None:
        self._store, self._before = store, before
        self._records: dict[StoredObject, _Record] = {}
        self._entries: dict[StoredObject, HistoryEntry] = {}
        self._runs: set[str] = set()

    def check(self) -> None:
        """Raises `UserError` unless every object is understood and fits the others."""
        deployments: dict[str, _Deployment] = {}
        for one in listed(self._store, "deployments").values():
            place, version, number = self._parts(one)
            deployment = deployments.setdefault(place, _Deployment())
            if version:
                if self._record(one) is not None:
                    deployment.records[version] = one
            elif (entry := self._entry(one, int(number))) is not None:
                deployment.entries[int(number)] = one, entry
        for place, deployment in deployments.items():
            self._check_history(place, deployment)
        self._runs = {
            place
            for place, deployment in deployments.items()
            if deployment.entries and deployment.entries[max(deployment.entries)][1].action == RUN
        }

    def runs(self) -> set[tuple[str, str, TargetAddress]]:
        """(project, domain, address) of each task that was run without a deployment."""
        records = [found.record for found in self._records.values()]
        where = {(one.project, one.domain, one.address) for one in records}
        return {place for place in where if deployment_key(*place) in self._runs}

    def named(self, dropped: Collection[str] = ()) -> set[str]:
        """Keys of the archives and manifests of all records but those `dropped`, as of now; of the
        directories of their inventories, and of their statements.
        """
        for one in listed(self._store, "deployments").values():
            if self._parts(one)[1]:
                self._record(one)
        return {
            key
            for one, found in self._records.items()
            if one.key not in dropped
            for bundle in found.record.bundles
            for key in (bundle.archive.key, bundle.manifest.key, bundle.inventories)
        } | {statement_key(one.key) for one in self._records if one.key not in dropped}

    def check_named(self, contents: Collection[str], dropped: Collection[str]) -> None:
        """Raises `UserError` unless the keys `contents` have what old records need.

        dropped: keys of records that go.
        """
        if contents and not self._records:
            raise stop(
                f"{self._store.uri} has bundles, and no record of any deployment",
                "check the store's URI and that deployments/ below it is whole; "
                "to give the whole store up, remove it by other means",
            )
        for one, found in self._records.items():
            for bundle in found.record.bundles:
                self._check_bundle(one, bundle, contents, dropped)

    def _check_bundle(
        self,
        one: StoredObject,
        bundle: StoredBundle,
        contents: Collection[str],
        dropped: Collection[str],
    ) -> None:
        for blob in (bundle.archive, bundle.manifest):
            if blob.key in contents or one.key in dropped or one.modified > self._before:
                continue
            if self._store.size(blob.key) is None:
                raise stop(
                    f"{self._store.uri_of(one.key)} names {blob.key}, which is missing",
                    f"{BACKUP}, or deploy that version again; --keep may drop the version",
                )

    def forget(self, key: StoreKey) -> None:
        """The record was deleted on purpose: what it names may go."""
        for one in [one for one in self._records if one.key == key]:
            del self._records[one]

    # --- objects ---------------------------------------------------------------------------------

    def _parts(self, one: StoredObject) -> tuple[str, str, str]:
        """The key of its deployment; and its version or its number."""
        match = _KEY.fullmatch(one.key)
        if match is None:
            raise stop(
                f"{shown.printable(self._store.uri_of(one.key))} is neither a version's record nor "
                "a history entry",
                "remove it if it is none of pants-flyte's, or use the version that wrote it",
            )
        return match[1], match[2] or "", match[3] or ""

    def _record(self, one: StoredObject) -> _Record | None:
        """None if it is gone since it was listed: another one prunes."""
        if one not in self._records:
            data, what = self._read(one)
            if data is None:
                return None
            record = self._parsed(VersionRecord, data, what)
            place = deployment_key(record.project, record.domain, record.address)
            if one.key != f"{place}/versions/{record.version}.json":
                raise stop(
                    f"{what} is the record of another deployment or version",
                    f"{BACKUP}, or move it",
                )
            self._records[one] = _Record(sha256_bytes(data), record)
        return self._records[one]

    def _entry(self, one: StoredObject, number: int) -> HistoryEntry | None:
        if one not in self._entries:
            data, what = self._read(one)
            if data is None:
                return None
            entry = self._parsed(HistoryEntry, data, what)
            if entry.number != number:
                raise stop(f"{what} says that it is number {entry.number}", BACKUP)
            self._entries[one] = entry
        return self._entries[one]

    def _read(self, one: StoredObject) -> tuple[bytes | None, str]:
        what = shown.printable(self._store.uri_of(one.key))
        try:
            return self._store.read(one.key, _LIMIT), what
        except StoreError as error:
            raise stop(f"{what} cannot be read: {error}", BACKUP) from None

    def _parsed(self, kind: type[_D], data: bytes, what: str) -> _D:
        try:
            return kind.from_json(data, what)
        except InvalidData as error:
            raise stop(
                str(error), f"{BACKUP}, or remove it if it is none of pants-flyte's"
            ) from None

    # --- a deployment ----------------------------------------------------------------------------

    def _check_history(self, place: str, deployment: _Deployment) -> None:
        where = f"{self._store.uri}/{place}"
        numbers = sorted(deployment.entries)
        for number, after in zip(numbers, numbers[1:]):
            if after != number + 1:
                raise stop(f"{where}/history/{number + 1}.json is missing", BACKUP)
        latest = {e.version: (o, e) for _, (o, e) in sorted(deployment.entries.items())}
        for version, (one, entry) in latest.items():
            self._check_current(f"{where}/versions/{version}.json", version, one, entry, deployment)
        for version in sorted(deployment.records.keys() - latest.keys()):
            self._check_without_history(deployment.records[version], numbers, deployment)

    def _check_current(
        self,
        what: str,
        version: str,
        one: StoredObject,
        entry: HistoryEntry,
        deployment: _Deployment,
    ) -> None:
        said = self._store.uri_of(one.key)
        record = deployment.records.get(version)
        if record is None:
            # A deployer wrote it after its place was listed, or the listing has left it out.
            record = StoredObject(StoreKey(what[len(self._store.uri) + 1 :]), 0, one.modified)
        found = self._record(record)
        if found is None:
            raise stop(f"{said} names {what}, which is missing", BACKUP)
        if found.sha256 != entry.record:
            raise stop(
                f"{what} was changed after {said} made it the current one",
                f"{BACKUP}, or deploy that again with --repair",
            )

    def _check_without_history(
        self, one: StoredObject, numbers: list[int], deployment: _Deployment
    ) -> None:
        """A record may lack an entry while its deployer works, or after `prune` was killed, which
        removes the oldest entries first.
        """
        if one.modified > self._before:
            return
        if numbers and numbers[0] > 1 and one.modified < deployment.entries[numbers[0]][0].modified:
            return
        raise stop(
            f"{self._store.uri_of(one.key)} has no history entry: its deployer was killed, or the "
            "entry was lost",
            "deploy that version again, bring the entry back from a backup, or remove the record",
        )
