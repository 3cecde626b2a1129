"""Which triggers and apps Flyte goes on with that are not deployed any more, and are to be stopped.

A control plane drops a trigger only where the same task is registered with another one, and an app
never. So what a deployment had registered and does not have now is deactivated, but for what
somebody else owns: a trigger that runs another version than this deployment gave it, an app that
was started by another command, and what another deployment in the store has.

What it had registered is in the record of the version that was registered last; but for what a
deployment left behind that ended halfway. So Flyte is asked what is active, and whatever one of
the records says is known as the deployment's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from flyte_pack.deploy.ledger import Ledger
from flyte_pack.deploy.records import HistoryEntry, VersionRecord, deployment_key, is_computed
from flyte_pack.deploy.registering import Registering
from flyte_pack.deploy.registration import Surveyed, TriggerName, is_of
from flyte_pack.json_fields import Document, InvalidData
from flyte_pack.store import Store, StoreError, StoreKey

_D = TypeVar("_D", bound=Document)
_ENTRY = re.compile(r"(deployments/[^/]+/[^/]+/[^/]+)/history/([1-9][0-9]{0,15})\.json")
_LIMIT = 64 << 20


def removed(
    store: Store, before: VersionRecord | None, after: VersionRecord
) -> dict[TriggerName, str]:
    """The triggers of `before`, which was registered last, that `after` does not have.

    Each with the version of its task that it ran. What cannot be read counts for nothing.
    """
    if before is None:
        return {}
    gone = before.triggers - after.triggers
    if not gone:
        return {}
    for other in _others(store, after):
        gone -= other.triggers
    return {(task, name): before.flyte_versions[task] for task, name in sorted(gone)}


def firing(gone: Mapping[TriggerName, str], surveyed: Surveyed) -> tuple[TriggerName, ...]:
    """Those that do fire, and run what this deployment has registered."""
    return tuple(
        one
        for one, version in gone.items()
        if (seen := surveyed.triggers.get(one)) and seen.active and is_of(version, seen.version)
    )


def left_behind(
    registering: Registering, store: Store, ledger: Ledger, after: VersionRecord
) -> dict[TriggerName, str]:
    """The triggers that fire for a version of this deployment, and that `after` does not have.

    Each with the version of its task. Flyte and the records are asked only where one is nobody's.
    """
    gone = set(registering.firing()) - after.triggers
    for other in _others(store, after) if gone else ():
        gone -= other.triggers
    if not gone:
        return {}
    known = ledger.versions()
    seen = registering.survey({}, sorted(gone)).triggers
    ours = {
        one: trigger.version
        for one, trigger in sorted(seen.items())
        if trigger.active and _may_be_ours(trigger.version, known)
    }
    found: dict[TriggerName, str] = {}
    for version in known if ours else ():
        with suppress(InvalidData, StoreError):
            record = _read(store, ledger.version_key(version), VersionRecord)
            if record is None:
                continue
            for one in ours.keys() & record.triggers:
                if is_of(record.flyte_versions[one[0]], ours[one]):
                    found[one] = ours[one]
    return found


def _may_be_ours(version: str, known: Sequence[str]) -> bool:
    """Whether it looks like what a deployment with the versions `known` gives a task."""
    return is_computed(version.partition(".")[0]) or any(is_of(one, version) for one in known)


def removed_apps(
    store: Store, before: VersionRecord | None, after: VersionRecord
) -> tuple[str, ...]:
    """The apps of `before`, which was registered last, that `after` does not have; Flyte's names.

    What cannot be read counts for nothing.
    """
    gone = set(before.app_names - after.app_names) if before else set()
    for other in _others(store, after) if gone else ():
        gone -= other.app_names
    return tuple(sorted(gone))


def apps_left_behind(
    registering: Registering,
    store: Store,
    ledger: Ledger,
    after: VersionRecord,
    likely: Sequence[str],
) -> tuple[str, ...]:
    """The apps that run as a version of this deployment had them, and that `after` does not have.

    likely: some of them, perhaps; another one has a version of ours in its command. Records are
    read only where there is one that nobody else has.
    """
    gone = [one for one in registering.active_apps() if one[0] not in after.app_names]
    if not gone:
        return ()
    theirs = {name for other in _others(store, after) for name in other.app_names}
    known = ledger.versions()
    gone = [
        (name, command)
        for name, command in gone
        if name not in theirs
        and (name in likely or any(is_computed(part) or part in known for part in command))
    ]
    found: set[str] = set()
    for version in known if gone else ():
        with suppress(InvalidData, StoreError):
            record = _read(store, ledger.version_key(version), VersionRecord)
            found.update(name for name, command in gone if record and runs(record, name, command))
    return tuple(sorted(found))


def runs(record: VersionRecord, app: str, command: Sequence[str]) -> bool:
    """Whether this version starts the app, by Flyte's name, with that command."""
    every = (one for task in record.tasks for one in task.tasks if one.kind == "app")
    return any((one.flyte_name, one.command) == (app, tuple(command)) for one in every)


def last_registered(ledger: Ledger, plane: str) -> VersionRecord | None:
    """The record of the version that was registered at a control plane last."""
    for entry in ledger.newest_first():
        if entry.registered == plane:
            with suppress(InvalidData, StoreError):
                recorded = ledger.recorded(entry.version)
                if recorded is not None:
                    return recorded.record
    return None


def _others(store: Store, record: VersionRecord) -> Iterator[VersionRecord]:
    """The current records of the other deployments to the same project and domain."""
    ours = deployment_key(record.project, record.domain, record.address)
    numbers: dict[str, int] = {}
    for one in store.objects(ours.rpartition("/")[0]):
        match = _ENTRY.fullmatch(one.key)
        if match and match[1] != ours:
            numbers[match[1]] = max(int(match[2]), numbers.get(match[1], 0))
    for place, number in sorted(numbers.items()):
        with suppress(InvalidData, StoreError):
            entry = _read(store, f"{place}/history/{number}.json", HistoryEntry)
            other = entry and _read(store, f"{place}/versions/{entry.version}.json", VersionRecord)
            if other:
                yield other


def _read(store: Store, key: str, kind: type[_D]) -> _D | None:
    data = store.read(StoreKey(key), _LIMIT)
    return None if data is None else kind.from_json(data, store.uri_of(StoreKey(key)))
