"""Reads from a record what was registered: to register it again, or to see that nothing changed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flyte_pack.deploy.flyte_processes import Registered
from flyte_pack.deploy.gone import apps_left_behind, firing, left_behind, removed_apps
from flyte_pack.deploy.ledger import Ledger
from flyte_pack.deploy.records import RecordedTask, StoredBundle, VersionRecord
from flyte_pack.deploy.registering import Registering, Shipped, Source
from flyte_pack.deploy.registration import DescribedTask, TriggerName, versions_to_send
from flyte_pack.deploy.source_link import SourceLink
from flyte_pack.errors import UserError
from flyte_pack.progress import Say
from flyte_pack.scratch import scratch_place
from flyte_pack.store import Store
from flyte_pack.task_link import VERSION_HOLE


@dataclass(frozen=True)
class Again:
    """What became of a recorded version at a control plane. stopped: triggers that it does not
    have, which fire no more; stopped_apps: such apps. paused: triggers that were paused by hand,
    and stay so.
    """

    registered: tuple[Registered, ...] = ()
    stopped: tuple[TriggerName, ...] = ()
    paused: tuple[TriggerName, ...] = ()
    stopped_apps: tuple[str, ...] = ()


def register_recorded(
    registering: Registering,
    store: Store,
    ledger: Ledger,
    record: VersionRecord,
    before: VersionRecord | None,
    gone: Mapping[TriggerName, str],
    *,
    say: Say,
    dry_run: bool,
    build_root: str,
) -> Again:
    """Make a recorded version what Flyte runs, where it is not; a dry run only imports its tasks.

    build_root: a checkout of the repository that `record` is of.
    before: the version that was registered there last. gone: its triggers that `record` has not.
    Raises `UserError`, `StoreError` or `RegistrationError`.
    """

    def only_tasks(versions: Mapping[str, str]) -> dict[str, str]:
        return {name: one for name, one in versions.items() if name not in record.app_names}

    wanted, tasks, surveyed = record.flyte_versions, list(record.tasks), None
    if not dry_run and all(one.flyte_name for task in tasks for one in task.tasks):
        surveyed = registering.survey(only_tasks(wanted), sorted({*record.triggers, *gone}))
        old = before.flyte_versions if before else {}
        apps = {name for name in record.app_names if old.get(name) != wanted[name]}
        send = versions_to_send(only_tasks(wanted), surveyed.tasks).keys() | apps
        # What Flyte runs already is not even imported.
        tasks = [t for t in tasks if any(one.flyte_name in send for one in t.tasks)]
    versions = _describe(registering, store, record, tasks, say) if tasks else {}
    if dry_run:
        return Again(stopped=tuple(gone), stopped_apps=removed_apps(store, before, record))
    if surveyed is None:
        surveyed = registering.survey(only_tasks(versions), sorted(gone))
    left = left_behind(registering, store, ledger, record)
    stopped = tuple(sorted({*left, *firing(gone, surveyed)}))
    for task, name in stopped:
        say(f"trigger {name} of {task} is not in version {record.version}: it will be deactivated")
    gone_apps = removed_apps(store, before, record)
    stopped_apps = apps_left_behind(registering, store, ledger, record, gone_apps)
    for name in stopped_apps:
        say(f"app {name} is not in version {record.version}: it will be deactivated")
    sent = set(versions_to_send(only_tasks(versions), surveyed.tasks))
    paused = tuple(
        one
        for one, trigger in surveyed.triggers.items()
        if trigger.paused and one[0] in sent and before is not None and one in before.triggers
    )
    present = [
        Registered(name, surveyed.tasks[name].newest or version, "present")
        for name, version in sorted(only_tasks(wanted).items())
        if name not in versions
    ]
    source = SourceLink(
        build_root, record.provenance, record.tasks, lambda one: _manifest(store, one)
    )
    registered = [*present, *registering.register(versions, surveyed, paused, source.told)]
    registering.deactivate(stopped)
    registering.stop_apps(stopped_apps)
    told = tuple(sorted(registered, key=lambda one: one.name))
    return Again(told, stopped, paused, stopped_apps)


def _describe(
    registering: Registering,
    store: Store,
    record: VersionRecord,
    tasks: Sequence[RecordedTask],
    say: Say,
) -> dict[str, str]:
    """Import recorded tasks, so that they can be registered; their versions by Flyte's names."""
    embedded = next((task.address for task in tasks if task.bundle is None), None)
    if embedded is not None:
        raise UserError(
            f"version {record.version} has the code of {embedded} in its image, and cannot be "
            "registered again from here: where its tasks are registered already, type "
            "--no-register"
        )
    with tempfile.TemporaryDirectory(prefix="flyte-deploy-", dir=scratch_place()) as scratch:
        specifications = registering.describe(
            [_shipped(task, store, scratch) for task in tasks], again=True
        )
    versions: dict[str, str] = {}
    for task in tasks:
        recorded = {one.name: one for one in task.tasks}
        for described in specifications.tasks[task.address]:
            one = recorded.get(described.attribute)
            if one is None:
                continue
            if one.spec not in (None, described.spec):
                say(
                    f"warning: Flyte {specifications.flyte} makes another specification of "
                    f"{described.name} than Flyte {record.flyte} made when version "
                    f"{record.version} was deployed"
                )
            versions[described.name] = one.version
    return versions


def _shipped(task: RecordedTask, store: Store, scratch: str) -> Shipped:
    assert task.bundle is not None
    path = os.path.join(scratch, f"{task.bundle.archive_hash}.tar.gz")
    if not os.path.exists(path):
        with open(path, "xb") as file:
            file.writelines(store.stream(task.bundle.archive.key))
    uri = task.code_uri or store.uri_of(task.bundle.archive.key)
    return Shipped.of(task, task.image, Source(path, task.bundle.archive_hash, uri))


def _manifest(store: Store, bundle: StoredBundle) -> bytes:
    return b"".join(store.stream(bundle.manifest.key))


def described(task: RecordedTask) -> list[DescribedTask]:
    """What Flyte made of a task when it was registered."""
    return [
        DescribedTask(
            address=task.address,
            attribute=one.name,
            name=one.flyte_name,
            spec=one.spec,
            command=tuple(VERSION_HOLE if part == one.version else part for part in one.command),
            triggers=one.triggers,
            environments=one.environments or (),
            reusable=bool(one.reusable),
            along=bool(one.along),
            kind=one.kind or "task",
        )
        for one in task.tasks
        if one.flyte_name is not None and one.spec is not None
    ]
