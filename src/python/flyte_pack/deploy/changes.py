"""What a deployment changes: its tasks against those of the current version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flyte_pack.deploy.records import RecordedTask, VersionRecord
from flyte_pack.names import TargetAddress
from flyte_pack.store import StoreKey
from flyte_pack.task_link import BUNDLE_URI_HOLE, VERSION_HOLE


@dataclass(frozen=True)
class TaskChange:
    """address: the target. status: new, changed, unchanged, removed. what: changed parts.

    kind: of the target, as of `task_link`.
    """

    address: TargetAddress
    status: str
    what: tuple[str, ...] = ()
    kind: str = "task"


def compare(
    before: VersionRecord | None, after: VersionRecord, uri_of: Callable[[StoreKey], str]
) -> tuple[TaskChange, ...]:
    """How the tasks differ, by address. Another version alone is no change of a task.

    `uri_of` gives the address of a stored object, which stands in the commands.
    """
    old = {t.address: _parts(t, before, uri_of) for t in before.tasks} if before else {}
    kinds = {task.address: task.kind for task in before.tasks} if before else {}
    changes = []
    for task in after.tasks:
        parts = _parts(task, after, uri_of)
        if task.address not in old:
            changes.append(TaskChange(task.address, "new", kind=task.kind))
            continue
        was = old.pop(task.address)
        what = tuple(name for name, value in parts.items() if was[name] != value)
        # New code implies a new archive, and any change implies a new specification.
        follows = ({"archive"} if "code" in what else set()) | (
            {"specification"} if what[1:] else set()
        )
        what = tuple(name for name in what if name not in follows)
        status = "changed" if what else "unchanged"
        changes.append(TaskChange(task.address, status, what, task.kind))
    changes += (TaskChange(address, "removed", kind=kinds[address]) for address in old)
    return tuple(sorted(changes, key=lambda change: change.address))


def describe(changes: tuple[TaskChange, ...]) -> str:
    """The changes in one line, for an error."""
    words = [
        f"{change.address} ({', '.join(change.what) or change.status})"
        for change in changes
        if change.status != "unchanged"
    ]
    return "; ".join(words[:5]) + (f"; and {len(words) - 5} more" if len(words) > 5 else "")


def _parts(
    task: RecordedTask, record: VersionRecord, uri_of: Callable[[StoreKey], str]
) -> dict[str, object]:
    where = task.bundle and (task.code_uri or uri_of(task.bundle.archive.key))
    uris = {where: BUNDLE_URI_HOLE} if where else {}
    return {
        "code": task.bundle and task.bundle.content_hash,
        "archive": task.bundle and task.bundle.archive_hash,
        "image": task.image,
        "entry point": (task.entry_point, task.kind, task.module),
        "root_dir": task.root_dir,
        "copy_style": record.copy_style,
        "command": sorted(
            (t.name, [{t.version: VERSION_HOLE, **uris}.get(part, part) for part in t.command])
            for t in task.tasks
        ),
        "specification": sorted((t.name, t.spec or "", t.triggers) for t in task.tasks),
    }
