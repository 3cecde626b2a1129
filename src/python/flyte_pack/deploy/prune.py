"""Finds what is in a store and no version needs, and removes it, beside deployers at work.

Needed are the archives and manifests that the record of any version of any deployment names, or an
index entry that is needed or young, the inventories of such a content, the signatures of such an
archive, and a record's statement.
Whatever is below `deployments/` and not as expected could name anything, or be what is left of
something that did. So before anything goes, every object there is read and checked against its key
and the others (`Survey`), and what is not understood stops it.

A deployer who starts now may find an index entry and name what
it names. So entries go first, then the records are read once more, and only then goes what the
entries named. Objects younger than a grace time stay: a deployer may name them in a record next.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flyte_pack.deploy.gone import runs
from flyte_pack.deploy.ledger import Ledger
from flyte_pack.deploy.records import StoredBundle
from flyte_pack.deploy.registration import is_of
from flyte_pack.deploy.survey import BACKUP, Survey, listed, stop
from flyte_pack.json_fields import InvalidData
from flyte_pack.progress import Say
from flyte_pack.store import Store, StoredObject, StoreError, StoreKey, blob_of

DAY = 86400.0
GRACE_DAYS = 1
RUN_DAYS = 30
_RECORD_LIMIT = 64 << 20
_INDEX_LIMIT = 1 << 20
_CONTENT = {
    "archive": re.compile(r"archives/([0-9a-f]{64})\.tar\.gz"),
    "signature": re.compile(r"archives/([0-9a-f]{64})\.tar\.gz\.[0-9a-f]{16}\.sig"),
    "manifest": re.compile(r"manifests/([0-9a-f]{64})\.json"),
    "inventory": re.compile(r"inventories/([0-9a-f]{64})/([0-9a-f]{64})\.cdx\.json"),
    "statement": re.compile(r"statements/.+\.intoto\.jsonl?"),
}
_INDEX = re.compile(r"index/([0-9a-f]{64})\.json")


@dataclass(frozen=True)
class Unneeded:
    """An object that can go. kind: history, record, index or one of `_CONTENT`. size: in bytes."""

    kind: str
    key: StoreKey
    size: int


@dataclass(frozen=True)
class PrunePlan:
    """What can go, in order. versions: of this deployment. young: too recent to go yet."""

    versions: tuple[str, ...]
    objects: tuple[Unneeded, ...]
    young: tuple[Unneeded, ...]


class Prune:
    """One run: `plan`, then perhaps `carry_out`. Raises `UserError`, `InvalidData` or `StoreError`.

    keep: how many versions of the ledger's deployment stay, None for all. before: only what was
    written before this time goes, in seconds since 1970. runs_before: versions of tasks that were
    only run, and last before this time, go, but for the last of each task. fired: (Flyte's name,
    version) of tasks that must stay because a trigger runs them. apps: (Flyte's name, command) of
    those that are active, and must stay.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        keep: int | None,
        before: float,
        runs_before: float = 0.0,
        fired: Collection[tuple[str, str]] = (),
        apps: Collection[tuple[str, tuple[str, ...]]] = (),
    ) -> None:
        self._fired, self._apps = fired, apps
        self._store = store
        self._runs_before = min(before, runs_before)
        self._ledgers: dict[StoreKey, Ledger] = {}  # by the keys of records that may go
        self._ledger = ledger
        self._keep = keep
        self._before = before
        self._survey = Survey(store, before)
        self._entries: dict[StoredObject, StoredBundle] = {}

    def plan(self) -> PrunePlan:
        """Look at everything; writes nothing."""
        self._survey.check()
        history: list[StoreKey] = []
        versions: dict[str, StoreKey] = {}
        if self._keep is not None:
            history, versions = self._surplus(self._ledger, self._keep, self._before)
        dropped = set(versions.values())
        for place in sorted(self._survey.runs()):
            entries, run = self._surplus(Ledger(self._store, *place), 1, self._runs_before)
            history += entries
            dropped.update(run.values())
        records = self._list("deployments")
        found = [Unneeded("history", key, records[key].size) for key in history if key in records]
        found += [Unneeded("record", key, records[key].size) for key in sorted(dropped)]
        needed = self._named_by_records(dropped)
        index = self._list("index")
        contents = {
            key: one
            for name in ("archives", "manifests", "inventories", "statements")
            for key, one in self._list(name).items()
            if any(pattern.fullmatch(key) for pattern in _CONTENT.values())
        }
        self._survey.check_named(contents, dropped)
        young: list[Unneeded] = []
        for key, entry in self._index_entries(index).items():
            names = (entry.archive.key, entry.manifest.key)
            mine = Unneeded("index", key, index[key].size)
            if entry.archive.key in needed:
                needed.update((*names, entry.inventories))
            elif (
                max(o.modified for o in (index[key], *map(contents.get, names)) if o) > self._before
            ):
                needed.update((*names, entry.inventories))
                young += [mine, *(_content(contents[k]) for k in names if k in contents)]
            else:
                found.append(mine)
        for key, one in contents.items():
            if _need(key) not in needed:
                (young if one.modified > self._before else found).append(_content(one))
        return PrunePlan(tuple(versions), tuple(found), tuple(young))

    def carry_out(self, plan: PrunePlan, say: Say) -> tuple[list[Unneeded], list[str]]:
        """Delete what is still needed by nobody.

        Returns what was deleted, and what to do about objects that a deployer named meanwhile.
        """
        self._survey.check()  # again, as others may have written since
        self._store.sweep()
        deleted: list[Unneeded] = []
        for one in plan.objects:
            if self._delete(one):
                say(f"deleted {one.key} ({one.size:,} bytes)")
                deleted.append(one)
        named = self._named_by_records() | self._named_by_index()
        problems = [
            f"{self._store.uri_of(one.key)} was named by a deployer while it was deleted: deploy "
            "that again, which writes it anew"
            for one in deleted
            if _need(one.key) in named
        ]
        return deleted, problems

    # --- versions of this deployment -------------------------------------------------------------

    def _surplus(
        self, ledger: Ledger, keep: int, before: float
    ) -> tuple[list[StoreKey], dict[str, StoreKey]]:
        """(keys of history entries, keys of records by version) that go; `keep` versions are left.

        These are the ones that were current last, and those that were so after `before`. The
        entries that stay are the newest, without a gap.
        """
        entries = ledger.history()
        objects = self._list("deployments")

        def is_old(key: StoreKey) -> bool:
            return key in objects and objects[key].modified <= before

        last = {entry.version: entry.number for entry in entries}
        ranked = sorted(last, key=lambda version: -last[version])
        kept = keep
        for position in range(kept, len(ranked)):
            if not is_old(ledger.entry_key(last[ranked[position]])):
                kept = position + 1
        dropped = [version for version in ranked[kept:] if not self._is_active(ledger, version)]
        newest = max((last[version] for version in dropped), default=0)
        # Those that never were current: of deployers that were killed, or are at work.
        dropped += [
            version
            for version in ledger.versions()
            if version not in last
            and is_old(ledger.version_key(version))
            and not self._is_active(ledger, version)
        ]
        numbers = [entry.number for entry in entries if entry.number <= newest]
        keys = {version: ledger.version_key(version) for version in dropped}
        self._ledgers.update((key, ledger) for key in keys.values())
        return (
            [ledger.entry_key(number) for number in numbers],
            {version: key for version, key in keys.items() if key in objects},
        )

    def _is_active(self, ledger: Ledger, version: str) -> bool:
        """Whether a trigger runs a task of this version, or an app of it runs."""
        recorded = ledger.recorded(version) if self._fired or self._apps else None
        if recorded is None:
            return False
        versions = recorded.record.flyte_versions
        return any(
            task in versions and is_of(versions[task], fired) for task, fired in self._fired
        ) or any(runs(recorded.record, *app) for app in self._apps)

    def _is_used_again(self, key: StoreKey) -> bool:
        """Whether somebody has made the version of this record current meanwhile."""
        ledger = self._ledgers[key]
        return any(ledger.version_key(e.version) == key for e in ledger.history())

    # --- what is needed --------------------------------------------------------------------------

    def _named_by_records(self, dropped: Collection[str] = ()) -> set[str]:
        """What all records but those `dropped` name, as of now."""
        return self._survey.named(dropped)

    def _index_entries(
        self, index: Mapping[StoreKey, StoredObject]
    ) -> dict[StoreKey, StoredBundle]:
        """By key. Raises `UserError` for one that cannot be read, since it could name anything."""
        for one in index.values():
            if one not in self._entries and _INDEX.fullmatch(one.key):
                entry = self._index_entry(one.key)
                if entry is not None:  # else gone since it was listed: another one prunes
                    self._entries[one] = entry
        return {key: self._entries[one] for key, one in index.items() if one in self._entries}

    def _index_entry(self, key: StoreKey) -> StoredBundle | None:
        what = self._store.uri_of(key)
        try:
            data = self._store.read(key, _INDEX_LIMIT)
            entry = None if data is None else StoredBundle.from_json(data, what)
        except (InvalidData, StoreError) as error:
            raise stop(
                str(error), f"{BACKUP}, or deploy that content again with --repair"
            ) from None
        if entry is not None and entry.index_key != key:
            raise stop(f"{what} is about another content", "deploy that content with --repair")
        return entry

    def _named_by_index(self) -> set[str]:
        entries = self._index_entries(self._list("index")).values()
        return {
            key
            for entry in entries
            for key in (entry.archive.key, entry.manifest.key, entry.inventories)
        }

    def _list(self, prefix: str) -> dict[StoreKey, StoredObject]:
        return listed(self._store, prefix)

    # --- deletion --------------------------------------------------------------------------------

    def _delete(self, one: Unneeded) -> bool:
        """Whether it went. By then, whatever led to it has gone."""
        if one.kind == "record":
            return self._delete_record(one)
        if one.kind == "index":
            return self._delete_index(one)
        if one.kind in _CONTENT and _need(one.key) in (
            self._named_by_records() | self._named_by_index()
        ):
            return False
        self._store.delete(one.key)
        return True

    def _delete_index(self, index: Unneeded) -> bool:
        entry = self._index_entry(index.key)
        if entry is None or entry.archive.key in self._named_by_records():
            return False
        self._store.delete(index.key)
        if entry.archive.key not in self._named_by_records():
            return True
        # A record names it since: its deployer has found the entry before it went.
        content = entry.to_json()
        self._store.create(blob_of(index.key, content), [content])
        return False

    def _delete_record(self, record: Unneeded) -> bool:
        data = self._store.read(record.key, _RECORD_LIMIT)
        if data is None or self._is_used_again(record.key):
            return False
        self._store.delete(record.key)
        if not self._is_used_again(record.key):
            self._survey.forget(record.key)
            return True
        # Somebody rolled back to it between the two.
        self._store.create(blob_of(record.key, data), [data])
        return False


def _need(key: StoreKey) -> str:
    """What has to be named for it to be needed: for an inventory its directory, for a signed
    statement the statement, and for a signature its archive.
    """
    if _CONTENT["signature"].fullmatch(key):
        return key.rsplit(".", 2)[0]
    if key.endswith(".intoto.jsonl"):
        return key[:-1]
    return key.rpartition("/")[0] if _CONTENT["inventory"].fullmatch(key) else key


def _content(one: StoredObject) -> Unneeded:
    kind = next(kind for kind, pattern in _CONTENT.items() if pattern.fullmatch(one.key))
    return Unneeded(kind, one.key, one.size)
