"""What a deployment leaves in a store: one record for each version, and a history of current ones.

Records and history entries are JSON, written once and never changed. The keys of all objects in a
store are made here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Optional, Tuple

from flyte_pack.json_fields import Document, Sha256, matching, one_of
from flyte_pack.manifest import BundleHashes
from flyte_pack.names import TargetAddress, check_version, escape_address
from flyte_pack.store import Blob, StoreKey
from flyte_pack.task_link import VERSION_HOLE, CopyStyle, Kind, LinkedFile
from flyte_shim.signatures import signature_ending

RUN = "run"  # of a task, without a deployment
ACTIONS = ("deploy", "rollback", "import", "promote", RUN)
# 80 bits: the chance that two of a billion versions of one deployment coincide is one in two
# million. Then the second is refused, as the contents of versions are compared, not only names.
_VERSION_DIGITS = 20
_check_time = matching(
    "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", "not a time like 2026-01-31T12:00:00Z"
)
_check_commit = matching("[0-9a-f]{40,64}", "not a commit")
_Version = Annotated[str, check_version]


@dataclass(frozen=True)
class StoredBundle(Document, BundleHashes):
    """A bundle as a store has it. As a document: the index entry of a content."""

    NAME = "index entry"
    # For people and other programs; here the keys follow from the hashes and lead nowhere else.
    DERIVED = {"archive": "archive_key", "manifest": "manifest_key"}

    @property
    def archive_key(self) -> StoreKey:
        return StoreKey(f"archives/{self.archive_hash}.tar.gz")

    @property
    def manifest_key(self) -> StoreKey:
        return StoreKey(f"manifests/{self.manifest_hash}.json")

    @property
    def archive(self) -> Blob:
        return Blob(self.archive_key, self.archive_size, self.archive_hash)

    @property
    def manifest(self) -> Blob:
        return Blob(self.manifest_key, self.manifest_size, self.manifest_hash)

    @property
    def index_key(self) -> StoreKey:
        return StoreKey(f"index/{self.content_hash}.json")

    @property
    def inventories(self) -> StoreKey:
        """The directory of the inventories (SBOMs) of its content, of which there may be some."""
        return StoreKey(f"inventories/{self.content_hash}")

    def signature_key(self, key_id: str) -> StoreKey:
        """Of its archive, by a key. key_id: as of `flyte_pack.signing.Signer`."""
        return StoreKey(f"{self.archive_key}{signature_ending(key_id)}")

    def inventory(self, file: LinkedFile) -> Blob:
        return Blob(StoreKey(f"{self.inventories}/{file.sha256}.cdx.json"), file.size, file.sha256)


@dataclass(frozen=True)
class DeployedTask:
    """One Flyte task. name: the one it has in its module. version: changes only with what it runs.

    flyte_name, spec, triggers: what Flyte calls it, the SHA-256 of its specification (see
    `registration`), and the names of its triggers; None and empty where it was not registered.
    kind: "app", or None for a task. environments, reusable, along: as of
    `registration.DescribedTask`, if they are known.
    """

    OMITTED = ("kind", "environments", "reusable", "along")

    name: str
    command: Tuple[str, ...]
    version: str
    flyte_name: Optional[str] = None
    spec: Optional[str] = None
    triggers: Tuple[str, ...] = ()
    kind: Optional[Annotated[str, one_of("app")]] = None
    environments: Optional[Tuple[str, ...]] = None
    reusable: Optional[bool] = None
    along: Optional[bool] = None


@dataclass(frozen=True)
class RecordedTask:
    """A `flyte_task` or `flyte_app` as it was deployed: images resolved, commands filled in.

    image_ref_name: the name by which the image was looked up, None where the reference was written
    out. code_uri: where containers get the bundle, None where that is the store. inputs: SHA-256 of
    all that its specifications follow from, None where it was not registered.
    """

    address: TargetAddress
    entry_point: str
    kind: Kind
    module: str
    root_dir: Optional[str]
    bundle: Optional[StoredBundle]
    image: Optional[str]
    image_ref_name: Optional[str]
    tasks: Tuple[DeployedTask, ...]
    code_uri: Optional[str] = None
    inputs: Optional[str] = None


@dataclass(frozen=True)
class Provenance:
    """When, and from which commit; no name of a person or machine, as records are kept for good.

    time: UTC. commit: of the git checkout, None where there is none; dirty: whether files differed
    from the commit. unknown: why there is no answer although there is a checkout. source: of what
    was promoted, the project, domain and version that it was taken from.
    """

    OMITTED = ("unknown", "source")

    time: Annotated[str, _check_time]
    commit: Optional[Annotated[str, _check_commit]]
    dirty: Optional[bool]
    unknown: Optional[str] = None
    source: Optional[str] = None


@dataclass(frozen=True)
class VersionRecord(Document):
    """`versions/<version>.json`: what was deployed under a version. Tasks are sorted by address.

    inputs: of all its tasks; if it is the same, nothing of what is registered has changed. None
    where nothing was registered. flyte: the version of Flyte that made the specifications.
    """

    NAME = "version record"

    address: TargetAddress
    project: str
    domain: str
    version: _Version
    copy_style: CopyStyle
    tasks: Tuple[RecordedTask, ...]
    provenance: Provenance
    inputs: Optional[str] = None
    flyte: Optional[str] = None

    @property
    def bundles(self) -> tuple[StoredBundle, ...]:
        """The bundles of its tasks, each once."""
        return tuple(dict.fromkeys(t.bundle for t in self.tasks if t.bundle is not None))

    @property
    def computed_version(self) -> str:
        """The version that is computed for what the record says; another if somebody named it."""
        tasks = tuple(
            dataclasses.replace(task, tasks=tuple(map(_with_hole, task.tasks)))
            for task in self.tasks
        )
        return version_of(dataclasses.replace(self, tasks=tasks).spec())

    def check_version(self) -> None:
        """Raises `ValueError` if a version that looks like a computed one is of another content.

        Whoever types such a version gets what it was computed of, or nothing.
        """
        if is_computed(self.version):
            holes = tuple(
                dataclasses.replace(task, tasks=tuple(map(_with_hole, task.tasks)))
                for task in self.tasks
            )
            wanted = task_versions(self.project, self.domain, holes)
            found = {(t.address, one.name): one.version for t in self.tasks for one in t.tasks}
            if self.version != self.computed_version or found != wanted:
                raise ValueError("was changed: its version is that of another content")

    @property
    def flyte_versions(self) -> dict[str, str]:
        """The version of each Flyte task that was registered, by Flyte's name."""
        return {
            one.flyte_name: one.version
            for task in self.tasks
            for one in task.tasks
            if one.flyte_name is not None
        }

    @property
    def triggers(self) -> frozenset[tuple[str, str]]:
        """(Flyte's name of the task, name) of each trigger that was registered."""
        return frozenset(
            (one.flyte_name, trigger)
            for task in self.tasks
            for one in task.tasks
            if one.flyte_name is not None
            for trigger in one.triggers
        )

    @property
    def app_names(self) -> frozenset[str]:
        """Flyte's names of the apps among them."""
        every = (one for task in self.tasks for one in task.tasks)
        return frozenset(one.flyte_name for one in every if one.kind == "app" and one.flyte_name)

    def is_same(self, other: VersionRecord) -> bool:
        """Whether both are the same deployment, even if only one of them was registered."""
        both = self.inputs is not None and other.inputs is not None
        neither = self.inputs is None and other.inputs is None
        return self.spec(both or neither) == other.spec(both or neither)

    def spec(self, with_commands: bool = True) -> bytes:
        """What decides what runs, in canonical form: records with equal specs are one deployment.

        with_commands: False leaves out what Flyte adds when it registers a task.

        The spec leaves out the version, the inputs of registering, provenance, addresses of targets
        (they do not decide what runs), the name by which an image was looked up, and the manifest,
        which describes the content whose hash is in the spec.
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


@dataclass(frozen=True)
class HistoryEntry(Document):
    """`history/<number>.json`: makes `version` the current one. The highest number counts.

    record: SHA-256 of the version's record, which tells when somebody changed it. registered: the
    control plane that has its tasks, None where they were not registered.
    """

    NAME = "history entry"

    number: int
    action: Annotated[str, one_of(*ACTIONS)]
    version: _Version
    record: Sha256
    provenance: Provenance
    registered: Optional[str] = None


def deployment_key(project: str, domain: str, address: TargetAddress) -> StoreKey:
    """The key below which everything of one deployment is."""
    return StoreKey(f"deployments/{project}/{domain}/{escape_address(address)}")


def statement_key(version_key: StoreKey) -> StoreKey:
    """Where the statement is of what a version was made from. version_key: of its record."""
    place = version_key.partition("/")[2]
    return StoreKey(f"statements/{place[: -len('.json')]}.intoto.json")


def envelope_key(statement: StoreKey) -> StoreKey:
    """Where a statement is in its signed form."""
    return StoreKey(f"{statement}l")


def is_computed(version: str) -> bool:
    """Whether a version looks like those of `version_of`; a user cannot name such a one."""
    return re.fullmatch(rf"[0-9a-f]{{{_VERSION_DIGITS}}}", version) is not None


def _with_hole(task: DeployedTask) -> DeployedTask:
    command = tuple(VERSION_HOLE if part == task.version else part for part in task.command)
    return dataclasses.replace(task, command=command)


def version_of(spec: bytes) -> str:
    """The computed version of a deployment or task: a function of its spec."""
    return hashlib.sha256(spec).hexdigest()[:_VERSION_DIGITS]


def task_versions(
    project: str, domain: str, tasks: Tuple[RecordedTask, ...]
) -> dict[tuple[TargetAddress, str], str]:
    """The computed version of each Flyte task, by the address of its target and its name.

    A run's child is looked up under the version of its parent. So tasks that may start one another
    share a version, which is a function of the specs of all of them. The commands have holes where
    versions go.
    """
    specs = {
        (task.address, one.name): task_spec(project, domain, task, one)
        for task in tasks
        for one in task.tasks
    }
    # The groups that an environment belongs to, joined as tasks reach from one to another.
    group: dict[str, set[str]] = {}
    for task in tasks:
        for one in task.tasks:
            joined = set().union(*(group.get(name, {name}) for name in one.environments or ()))
            group.update(dict.fromkeys(joined, joined))
    members: dict[object, list[tuple[TargetAddress, str]]] = {}
    for task in tasks:
        for one in task.tasks:
            key = (task.address, one.name)
            of = min(group[one.environments[0]]) if one.environments else key
            members.setdefault(of, []).append(key)
    found = {}
    for keys in members.values():
        if keys[1:]:
            together = sorted(hashlib.sha256(specs[key]).hexdigest() for key in keys)
            version = version_of(b"pants-flyte tasks 1\n" + json.dumps(together).encode())
        else:
            version = version_of(specs[keys[0]])
        found.update(dict.fromkeys(keys, version))
    return found


def task_spec(project: str, domain: str, task: RecordedTask, one: DeployedTask) -> bytes:
    """What decides what one Flyte task runs, in canonical form.

    `one.command` has a hole where the version goes.
    """
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
