"""What a deployment leaves in a store: one record a version, one history entry for each time the current one changes.

Both are JSON, written once and never changed. The keys of everything in a store are made here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from flyte_pack.json_fields import Fields, InvalidData, dump, load
from flyte_pack.names import InvalidName, check_version, escape_address
from flyte_pack.store import Blob
from flyte_pack.task_link import COPY_STYLES, KINDS, LinkedTask

SCHEMA = 1
ACTIONS = ("deploy", "rollback")
# 80 bits: two of a billion versions of one deployment coincide with a chance of one in two million, and even then the
# second one is refused, for the content of a version is compared and not only its name.
_VERSION_DIGITS = 20
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True)
class StoredBundle:
    """A bundle as a store holds it. Hashes are SHA-256 in lower-case hexadecimal digits, sizes are in bytes."""

    content_hash: str
    archive_hash: str
    archive_size: int
    manifest_hash: str
    manifest_size: int

    @property
    def archive(self) -> Blob:
        key = f"archives/{self.archive_hash}.tar.gz"
        return Blob(key, self.archive_size, self.archive_hash)

    @property
    def manifest(self) -> Blob:
        key = f"manifests/{self.manifest_hash}.json"
        return Blob(key, self.manifest_size, self.manifest_hash)

    @property
    def index_key(self) -> str:
        return f"index/{self.content_hash}.json"

    def to_json(self) -> bytes:
        """The index entry: which archive and manifest a store has for a content."""
        return dump({"schema": SCHEMA, **self.as_fields()})

    @classmethod
    def from_json(cls, data: bytes, what: str) -> StoredBundle:
        """Parse an index entry. Raises `InvalidData`."""
        return cls.from_fields(load(data, what, SCHEMA))

    def as_fields(self) -> dict[str, Any]:
        return {**vars(self), "archive": self.archive.key, "manifest": self.manifest.key}

    @classmethod
    def from_fields(cls, fields: Fields) -> StoredBundle:
        bundle = cls(
            content_hash=fields.sha256("content_hash"),
            archive_hash=fields.sha256("archive_hash"),
            archive_size=fields.integer("archive_size"),
            manifest_hash=fields.sha256("manifest_hash"),
            manifest_size=fields.integer("manifest_size"),
        )
        # The keys are there for people and other programs; here they follow from the hashes, and lead nowhere else.
        fields.choice("archive", (bundle.archive.key,))
        fields.choice("manifest", (bundle.manifest.key,))
        fields.end()
        return bundle


@dataclass(frozen=True)
class RecordedTask:
    """A `flyte_task` as it was deployed: image references resolved, commands filled in.

    image_ref_name: the name by which the image was looked up, None where the reference was written out.
    """

    address: str
    entry_point: str
    kind: str
    module: str
    root_dir: str | None
    bundle: StoredBundle | None
    image: str | None
    image_ref_name: str | None
    tasks: tuple[LinkedTask, ...]


@dataclass(frozen=True)
class Provenance:
    """When, and from which commit. Nobody's name and no machine's name: records are kept for good.

    time: UTC. commit: of the git checkout, None where there is none; dirty: whether files differed from the commit.
    """

    time: str
    commit: str | None
    dirty: bool | None

    @classmethod
    def from_fields(cls, fields: Fields) -> Provenance:
        provenance = cls(
            time=fields.text("time"),
            commit=fields.optional_text("commit"),
            dirty=fields.optional_boolean("dirty"),
        )
        fields.end()
        if not _TIME.fullmatch(provenance.time):
            raise InvalidData("provenance: 'time' is no time like 2026-01-31T12:00:00Z")
        if provenance.commit is not None and not _COMMIT.fullmatch(provenance.commit):
            raise InvalidData("provenance: 'commit' is no commit")
        return provenance


@dataclass(frozen=True)
class VersionRecord:
    """`versions/<version>.json`: all that was deployed under a version. Tasks are sorted by address."""

    address: str
    project: str
    domain: str
    version: str
    copy_style: str
    tasks: tuple[RecordedTask, ...]
    provenance: Provenance

    @property
    def bundles(self) -> tuple[StoredBundle, ...]:
        """The bundles of its tasks, each once."""
        return tuple(dict.fromkeys(t.bundle for t in self.tasks if t.bundle is not None))

    def spec(self) -> bytes:
        """What decides what runs, in canonical form: two records with equal specs are the same deployment.

        Left out: the version itself, provenance, addresses of targets (who says it, not what runs), the name by which
        an image was looked up, and the manifest, which describes the content that is here by its hash.
        """
        tasks = {
            json.dumps(
                {
                    "entry_point": task.entry_point,
                    "kind": task.kind,
                    "module": task.module,
                    "root_dir": task.root_dir,
                    "content_hash": task.bundle and task.bundle.content_hash,
                    "archive_hash": task.bundle and task.bundle.archive_hash,
                    "image": task.image,
                    "tasks": sorted((t.name, t.command) for t in task.tasks),
                },
                sort_keys=True,
            )
            for task in self.tasks
        }
        spec = {
            "project": self.project,
            "domain": self.domain,
            "copy_style": self.copy_style,
            "tasks": sorted(tasks),
        }
        return b"pants-flyte deployment 1\n" + json.dumps(spec, sort_keys=True).encode()

    def to_json(self) -> bytes:
        return dump(
            {
                "schema": SCHEMA,
                **vars(self),
                "tasks": [_task_fields(task) for task in self.tasks],
                "provenance": vars(self.provenance),
            }
        )

    @classmethod
    def from_json(cls, data: bytes, what: str) -> VersionRecord:
        """Parse what `to_json` wrote; `what` names it in errors. Raises `InvalidData`."""
        fields = load(data, what, SCHEMA)
        record = cls(
            address=fields.text("address"),
            project=fields.text("project"),
            domain=fields.text("domain"),
            version=_version(fields, what),
            copy_style=fields.choice("copy_style", COPY_STYLES),
            tasks=tuple(_task(task) for task in fields.nested_list("tasks")),
            provenance=Provenance.from_fields(fields.nested("provenance")),
        )
        fields.end()
        return record


@dataclass(frozen=True)
class HistoryEntry:
    """`history/<number>.json`: from then on `version` is the current one. The highest number counts.

    record: SHA-256 of the version's record, which tells when somebody changed it.
    """

    number: int
    action: str
    version: str
    record: str
    provenance: Provenance

    def to_json(self) -> bytes:
        return dump({"schema": SCHEMA, **vars(self), "provenance": vars(self.provenance)})

    @classmethod
    def from_json(cls, data: bytes, what: str) -> HistoryEntry:
        """Parse what `to_json` wrote; `what` names it in errors. Raises `InvalidData`."""
        fields = load(data, what, SCHEMA)
        entry = cls(
            number=fields.integer("number"),
            action=fields.choice("action", ACTIONS),
            version=_version(fields, what),
            record=fields.sha256("record"),
            provenance=Provenance.from_fields(fields.nested("provenance")),
        )
        fields.end()
        return entry


def deployment_key(project: str, domain: str, address: str) -> str:
    """The key below which everything of one deployment is."""
    return f"deployments/{project}/{domain}/{escape_address(address)}"


def version_of(spec: bytes) -> str:
    """The version of a deployment that nobody named: a function of its spec."""
    return hashlib.sha256(spec).hexdigest()[:_VERSION_DIGITS]


def _task_fields(task: RecordedTask) -> dict[str, Any]:
    return {
        **vars(task),
        "bundle": task.bundle and task.bundle.as_fields(),
        "tasks": [vars(t) for t in task.tasks],
    }


def _task(fields: Fields) -> RecordedTask:
    bundle = fields.optional_nested("bundle")
    task = RecordedTask(
        address=fields.text("address"),
        entry_point=fields.text("entry_point"),
        kind=fields.choice("kind", KINDS),
        module=fields.text("module"),
        root_dir=fields.optional_text("root_dir"),
        bundle=None if bundle is None else StoredBundle.from_fields(bundle),
        image=fields.optional_text("image"),
        image_ref_name=fields.optional_text("image_ref_name"),
        tasks=tuple(LinkedTask.from_fields(t) for t in fields.nested_list("tasks")),
    )
    fields.end()
    return task


def _version(fields: Fields, what: str) -> str:
    try:
        return check_version(fields.text("version"))
    except InvalidName as error:
        raise InvalidData(f"{what}: {error}") from None
