"""Reads from a record what was registered: to register it again, or to see that nothing changed."""

from __future__ import annotations

import os
import tempfile

from flyte_pack.deploy.flyte_processes import Registered
from flyte_pack.deploy.records import RecordedTask, VersionRecord
from flyte_pack.deploy.registering import Registering, Shipped, Source
from flyte_pack.deploy.registration import DescribedTask
from flyte_pack.errors import UserError
from flyte_pack.progress import Say
from flyte_pack.scratch import scratch_place
from flyte_pack.store import Store
from flyte_pack.task_link import VERSION_HOLE


def register_recorded(
    registering: Registering, store: Store, record: VersionRecord, say: Say, dry_run: bool
) -> list[Registered]:
    """Register the tasks of a record under their recorded versions; a dry run only imports them.

    Raises `UserError`, `StoreError` or `RegistrationError`.
    """
    embedded = next((task.address for task in record.tasks if task.bundle is None), None)
    if embedded is not None:
        raise UserError(
            f"version {record.version} has the code of {embedded} in its image, and cannot be "
            "registered again from here: where its tasks are registered already, type "
            "--no-register"
        )
    with tempfile.TemporaryDirectory(prefix="flyte-deploy-", dir=scratch_place()) as scratch:
        shipped = [_shipped(task, store, scratch) for task in record.tasks]
        specifications = registering.describe(shipped)
        versions: dict[str, str] = {}
        for task in record.tasks:
            recorded = {one.name: one for one in task.tasks}
            for described in specifications.tasks[task.address]:
                one = recorded.get(described.attribute)
                if one is None:
                    continue
                if one.spec not in (None, described.spec):
                    say(
                        f"warning: Flyte {specifications.flyte} makes another specification of "
                        f"{described.name} than Flyte {record.flyte} made when version "
                        f"{record.version} was deployed; a control plane that has its version "
                        f"{one.version} keeps the old one"
                    )
                versions[described.name] = one.version
        if dry_run:
            return []
        return list(registering.register(versions))


def _shipped(task: RecordedTask, store: Store, scratch: str) -> Shipped:
    assert task.bundle is not None
    path = os.path.join(scratch, f"{task.bundle.archive_hash}.tar.gz")
    if not os.path.exists(path):
        with open(path, "xb") as file:
            file.writelines(store.stream(task.bundle.archive.key))
    uri = task.code_uri or store.uri_of(task.bundle.archive.key)
    return Shipped.of(task, task.image, Source(path, task.bundle.archive_hash, uri))


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
            kind=one.kind or "task",
        )
        for one in task.tasks
        if one.flyte_name is not None and one.spec is not None
    ]
