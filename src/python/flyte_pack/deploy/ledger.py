"""The records of one deployment in a store: its versions, the current one, the history."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from flyte_pack.deploy.records import HistoryEntry, Provenance, VersionRecord, deployment_key
from flyte_pack.errors import UserError
from flyte_pack.json_fields import InvalidData, Sha256
from flyte_pack.meanwhile import all_of
from flyte_pack.names import InvalidName, TargetAddress, check_version
from flyte_pack.store import Store, StoreError, StoreKey, blob_of
from flyte_shim.hashing import sha256_bytes

_RECORD_LIMIT = 64 << 20
_ENTRY_LIMIT = 1 << 20
_ENTRY = re.compile(r"([1-9][0-9]{0,15})\.json")
_ATTEMPTS = 1000


@dataclass(frozen=True)
class Recorded:
    """A version's record, and the SHA-256 of the bytes that are in the store for it."""

    record: VersionRecord
    sha256: Sha256


class Ledger:
    """Reads and appends. An invalid record raises `InvalidData` or `StoreError`."""

    def __init__(self, store: Store, project: str, domain: str, address: TargetAddress) -> None:
        self._store = store
        self._address = address
        self._project = project
        self._domain = domain
        self._key = deployment_key(project, domain, address)

    def version_key(self, version: str) -> StoreKey:
        return StoreKey(f"{self._key}/versions/{version}.json")

    def entry_key(self, number: int) -> StoreKey:
        return StoreKey(f"{self._key}/history/{number}.json")

    def versions(self) -> tuple[str, ...]:
        """The versions that there are, sorted by name; files of other names are none of ours."""
        found = []
        for name in self._store.names(f"{self._key}/versions"):
            with suppress(InvalidName):
                if name.endswith(".json"):
                    found.append(check_version(name[: -len(".json")]))
        return tuple(found)

    def history(self) -> tuple[HistoryEntry, ...]:
        """All entries, the oldest first."""
        return tuple(
            all_of(
                (partial(self._entry, number) for number in self._numbers()), self._store.at_once
            )
        )

    def newest_first(self) -> Iterator[HistoryEntry]:
        """All entries; each is read when it is asked for."""
        return (self._entry(number) for number in reversed(self._numbers()))

    def current(self) -> HistoryEntry | None:
        """The entry that counts, None where nothing was deployed."""
        numbers = self._numbers()
        return self._entry(numbers[-1]) if numbers else None

    def find(self, text: str) -> str:
        """The version that `text` names: in full, or by a start that only one has."""
        versions = self.versions()
        if text in versions:
            return text
        fitting = [version for version in versions if version.startswith(text)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise UserError(f"{text} could be {_some(fitting)}: type more of it")
        known = f"there are {_some(versions)}" if versions else "nothing was deployed there yet"
        raise UserError(
            f"there is no version {text} in {self._project}/{self._domain} of {self._store.uri}: "
            f"{known}"
        )

    def recorded(self, version: str, latest: HistoryEntry | None = None) -> Recorded | None:
        """What was deployed under a version, None where nothing was.

        latest: its own last entry, if it was looked up just now.
        """
        key = self.version_key(version)
        what = self._store.uri_of(key)
        data = self._store.read(key, _RECORD_LIMIT)
        if data is None:
            return None
        recorded = Recorded(VersionRecord.from_json(data, what), Sha256(sha256_bytes(data)))
        expected = (version, self._project, self._domain, self._address)
        record = recorded.record
        if (record.version, record.project, record.domain, record.address) != expected:
            raise InvalidData(f"{what}: is the record of another deployment or version")
        try:
            record.check_version()
        except ValueError as error:
            raise InvalidData(f"{what}: {error}") from None
        latest = latest or self._latest_entry_of(version)
        if latest is not None and latest.record != recorded.sha256:
            raise InvalidData(
                f"{what}: was changed after history entry {latest.number} made it the current one"
            )
        return recorded

    def append(
        self,
        action: str,
        recorded: Recorded,
        provenance: Provenance,
        registered: str | None = None,
        again: bool = False,
        after: HistoryEntry | None = None,
    ) -> tuple[HistoryEntry, bool]:
        """Make a version current; returns the entry that counts, and whether it was written now.

        registered: the control plane that has its tasks. again: also if it is the current one.
        after: the entry that counted a while ago, which spares a look if it still does. Of two
        deployers that append at once, one takes the next number and the other looks again.
        """
        # That nothing needs to be written takes a look: another deployer may have come since.
        stale = after is not None and is_current(after, recorded, registered)
        known = None if stale else after
        for _ in range(_ATTEMPTS):
            current, known = known or self.current(), None
            if current and not again and is_current(current, recorded, registered):
                return current, False
            number = 1 if current is None else current.number + 1
            entry = HistoryEntry(
                number, action, recorded.record.version, recorded.sha256, provenance, registered
            )
            content = entry.to_json()
            if self._store.create(blob_of(self.entry_key(number), content), [content]):
                return entry, True
        raise StoreError(f"{self._store.uri_of(self._key)}/history: others take every next number")

    def _numbers(self) -> list[int]:
        names = self._store.names(f"{self._key}/history")
        return sorted(int(match[1]) for name in names if (match := _ENTRY.fullmatch(name)))

    def _entry(self, number: int) -> HistoryEntry:
        key = self.entry_key(number)
        what = self._store.uri_of(key)
        data = self._store.read(key, _ENTRY_LIMIT)
        if data is None:
            raise StoreError(f"{what} has disappeared")
        try:
            return _numbered(HistoryEntry.from_json(data, what), number, what)
        except InvalidData as error:
            raise InvalidData(
                f"{error}. Bring it back from a backup; or remove it, if it is the last one, "
                "and the one before counts"
            ) from None

    def _latest_entry_of(self, version: str) -> HistoryEntry | None:
        return next((entry for entry in self.newest_first() if entry.version == version), None)


def is_current(
    current: HistoryEntry | None, recorded: Recorded, registered: str | None = None
) -> bool:
    """Whether the entry that counts is about this record, at the control plane `registered`."""
    if current is None or registered not in (None, current.registered):
        return False
    return (current.version, current.record) == (recorded.record.version, recorded.sha256)


def _numbered(entry: HistoryEntry, number: int, what: str) -> HistoryEntry:
    if entry.number != number:
        raise InvalidData(f"{what}: says that it is number {entry.number}")
    return entry


def _some(versions: Iterable[str]) -> str:
    names = list(versions)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
