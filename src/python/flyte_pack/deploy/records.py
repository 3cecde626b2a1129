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
from flyte_pack.task_link import COPY_STYLES, KINDS

SCHEMA = 1
ACTIONS = ("deploy", "rollback", "import")
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
class DeployedTask:
    """One Flyte task. name: the one it has in its module. version: its own, which changes only with what it runs.

    flyte_name, spec, triggers: what Flyte calls it, the SHA-256 of its specification (see `registration`), and the names
    of its triggers; None and empty where it was not registered.
    """

    name: str
    command: tuple[str, ...]
    version: str
    flyte_name: str | None = None
    spec: str | None = None
    triggers: tuple[str, ...] = ()

    def as_fields(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_fields(cls, fields: Fields, version: str) -> DeployedTask:
        """`version`: the deployment's, which records of before had for all tasks."""
        fields.default("version", version)
        for name in ("flyte_name", "spec"):
            fields.default(name, None)
        fields.default("triggers", [])
        task = cls(
            name=fields.text("name"),
            command=fields.texts("command"),
            version=fields.text("version"),
            flyte_name=fields.optional_text("flyte_name"),
            spec=fields.optional_text("spec"),
            triggers=fields.texts("triggers"),
        )
        fields.end()
        return task


@dataclass(frozen=True)
class RecordedTask:
    """A `flyte_task` as it was deployed: image references resolved, commands filled in.

    image_ref_name: the name by which the image was looked up, None where the reference was written out. code_uri: where
    containers get the bundle, None where that is the store. inputs: SHA-256 of all that its specifications follow from, None
    where it was not registered.
    """

    address: str
    entry_point: str
    kind: str
    module: str
    root_dir: str | None
    bundle: StoredBundle | None
    image: str | None
    image_ref_name: str | None
    tasks: tuple[DeployedTask, ...]
    code_uri: str | None = None
    inputs: str | None = None


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
    """`versions/<version>.json`: all that was deployed under a version. Tasks are sorted by address.

    inputs: of all its tasks; where it is the same, nothing of what is registered has changed. None where nothing was
    registered. flyte: the version of Flyte that made the specifications.
    """

    address: str
    project: str
    domain: str
    version: str
    copy_style: str
    tasks: tuple[RecordedTask, ...]
    provenance: Provenance
    inputs: str | None = None
    flyte: str | None = None

    @property
    def bundles(self) -> tuple[StoredBundle, ...]:
        """The bundles of its tasks, each once."""
        return tuple(dict.fromkeys(t.bundle for t in self.tasks if t.bundle is not None))

    @property
    def flyte_versions(self) -> dict[str, str]:
        """The version of each Flyte task that was registered, by Flyte's name."""
        return {
            one.flyte_name: one.version
            for task in self.tasks
            for one in task.tasks
            if one.flyte_name is not None
        }

    def is_same(self, other: VersionRecord) -> bool:
        """Whether both are the same deployment; that one of them was not registered makes no difference."""
        both = self.inputs is not None and other.inputs is not None
        neither = self.inputs is None and other.inputs is None
        return self.spec(both or neither) == other.spec(both or neither)

    def spec(self, with_commands: bool = True) -> bytes:
        """What decides what runs, in canonical form: two records with equal specs are the same deployment.

        with_commands: False leaves out what Flyte adds to what is here anyway, when it registers a task.

        Left out: the version itself, what registering started from, provenance, addresses of targets (who says it, not what runs), the name by which
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
                    "tasks": with_commands
                    and sorted((t.name, t.command, t.spec or "") for t in task.tasks),
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
        fields.default("inputs", None)
        fields.default("flyte", None)
        version = _version(fields, what)
        record = cls(
            address=fields.text("address"),
            project=fields.text("project"),
            domain=fields.text("domain"),
            version=version,
            inputs=fields.optional_text("inputs"),
            flyte=fields.optional_text("flyte"),
            copy_style=fields.choice("copy_style", COPY_STYLES),
            tasks=tuple(_task(task, version) for task in fields.nested_list("tasks")),
            provenance=Provenance.from_fields(fields.nested("provenance")),
        )
        fields.end()
        return record


@dataclass(frozen=True)
class HistoryEntry:
    """`history/<number>.json`: from then on `version` is the current one. The highest number counts.

    record: SHA-256 of the version's record, which tells when somebody changed it. registered: the control plane that has
    its tasks, None where they were not registered.
    """

    number: int
    action: str
    version: str
    record: str
    provenance: Provenance
    registered: str | None = None

    def to_json(self) -> bytes:
        return dump({"schema": SCHEMA, **vars(self), "provenance": vars(self.provenance)})

    @classmethod
    def from_json(cls, data: bytes, what: str) -> HistoryEntry:
        """Parse what `to_json` wrote; `what` names it in errors. Raises `InvalidData`."""
        fields = load(data, what, SCHEMA)
        fields.default("registered", None)
        entry = cls(
            number=fields.integer("number"),
            action=fields.choice("action", ACTIONS),
            version=_version(fields, what),
            record=fields.sha256("record"),
            provenance=Provenance.from_fields(fields.nested("provenance")),
            registered=fields.optional_text("registered"),
        )
        fields.end()
        return entry


def deployment_key(project: str, domain: str, address: str) -> str:
    """The key below which everything of one deployment is."""
    return f"deployments/{project}/{domain}/{escape_address(address)}"


def version_of(spec: bytes) -> str:
    """The version of a deployment, or of a task, that nobody named: a function of its spec."""
    return hashlib.sha256(spec).hexdigest()[:_VERSION_DIGITS]


def task_spec(project: str, domain: str, task: RecordedTask, one: DeployedTask) -> bytes:
    """What decides what one Flyte task runs, in canonical form; `one.command` has a hole where the version goes."""
    spec = {
        "project": project,
        "domain": domain,
        "module": task.module,
        "name": one.name,
        "content_hash": task.bundle and task.bundle.content_hash,
        "archive_hash": task.bundle and task.bundle.archive_hash,
        "image": task.image,
        "command": one.command,
        "spec": one.spec,
    }
    return b"pants-flyte task 1\n" + json.dumps(spec, sort_keys=True).encode()


def _task_fields(task: RecordedTask) -> dict[str, Any]:
    return {
        **vars(task),
        "bundle": task.bundle and task.bundle.as_fields(),
        "tasks": [t.as_fields() for t in task.tasks],
    }


def _task(fields: Fields, version: str) -> RecordedTask:
    bundle = fields.optional_nested("bundle")
    fields.default("code_uri", None)
    fields.default("inputs", None)
    task = RecordedTask(
        address=fields.text("address"),
        entry_point=fields.text("entry_point"),
        kind=fields.choice("kind", KINDS),
        module=fields.text("module"),
        root_dir=fields.optional_text("root_dir"),
        bundle=None if bundle is None else StoredBundle.from_fields(bundle),
        image=fields.optional_text("image"),
        image_ref_name=fields.optional_text("image_ref_name"),
        code_uri=fields.optional_text("code_uri"),
        inputs=fields.optional_text("inputs"),
        tasks=tuple(DeployedTask.from_fields(t, version) for t in fields.nested_list("tasks")),
    )
    fields.end()
    return task


def _version(fields: Fields, what: str) -> str:
    try:
        return check_version(fields.text("version"))
    except InvalidName as error:
        raise InvalidData(f"{what}: {error}") from None
