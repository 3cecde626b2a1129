"""Deploys: checks and plans all, then writes what is missing, in an order that survives kills.

The order is: images, archives and manifests, the index entries that name them, the version's record
that names those, the tasks at the control plane, and the history entry that names the record and
where its tasks are registered. Each is written whole or not at all, and after what it points to. So
all that a kill leaves is true, and the next run does the rest.

Others may write to a store, so what its history says of a control plane is a claim. Tasks count as
registered there only if this machine has registered them, or has found by importing them that the
record is what it would have written; else they are registered again, which changes nothing there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from flyte_pack.deploy import records
from flyte_pack.deploy.bundles import (
    Beaten,
    Put,
    Settled,
    check_files,
    check_kept,
    check_whole,
    list_all,
    settle,
    signature,
    unsigned,
)
from flyte_pack.deploy.changes import TaskChange, compare, describe
from flyte_pack.deploy.control_plane import Found
from flyte_pack.deploy.flyte_processes import Processes, Registered
from flyte_pack.deploy.git import now, provenance
from flyte_pack.deploy.gone import (
    apps_left_behind,
    firing,
    last_registered,
    left_behind,
    removed,
    removed_apps,
)
from flyte_pack.deploy.images import look_for_all, push_all, read_pushes
from flyte_pack.deploy.ledger import Ledger, Recorded, is_current
from flyte_pack.deploy.links import one_copy_style, read_links, shipped_of
from flyte_pack.deploy.plan import Request
from flyte_pack.deploy.recorded import described
from flyte_pack.deploy.records import HistoryEntry, RecordedTask, StoredBundle, VersionRecord
from flyte_pack.deploy.registering import Registering, Specifications
from flyte_pack.deploy.registration import Surveyed, TriggerName
from flyte_pack.deploy.source_link import SourceLink, web_at
from flyte_pack.deploy.statement import statement
from flyte_pack.deploy.task_images import images_of, pinned
from flyte_pack.errors import UserError
from flyte_pack.json_fields import InvalidData, Sha256
from flyte_pack.meanwhile import all_of, meanwhile
from flyte_pack.names import TargetAddress
from flyte_pack.progress import Progress, Say
from flyte_pack.provenance import STATEMENT_TYPE, Origin
from flyte_pack.remembered import Remembered
from flyte_pack.signing import envelope, signer_of
from flyte_pack.store import Store, StoreError, StoreKey, blob_of
from flyte_pack.task_link import BUNDLE_URI_HOLE, VERSION_HOLE, LinkedBundle, TaskLink

_ATTEMPTS = 100


@dataclass(frozen=True)
class Work:
    """All that is decided before anything is written, against the store as it is.

    record: the version's, which is in the store as `existing`, or is to be written (in the place of
    a damaged one, with `replace_record`). current: the entry that counts before. registers: version
    by Flyte's name of the tasks to register at `control_plane`; both are empty where none are.
    removed: triggers that were registered there and that the version does not have, with the
    version of the task that they ran; removed_apps: such apps, by Flyte's names. agrees: whether
    `record` says in full what this run would have written. inventories: of bundles, to be written.
    unsigned: as `bundles.unsigned` gives it.
    """

    settled: tuple[Settled, ...]
    record: VersionRecord
    existing: Recorded | None
    replace_record: bool
    current: HistoryEntry | None
    changes: tuple[TaskChange, ...]
    control_plane: str | None
    registers: Mapping[str, str]
    removed: Mapping[TriggerName, str]
    removed_apps: tuple[str, ...]
    agrees: bool
    inventories: tuple[Put, ...] = ()
    unsigned: tuple[tuple[StoreKey, Sha256, bool], ...] = ()

    @property
    def puts(self) -> tuple[Put, ...]:
        """In the order in which they are written: what is named by others comes first."""
        puts = [*self.inventories, *(put for settled in self.settled for put in settled.puts)]
        return tuple(sorted(puts, key=lambda put: put.names_others))

    @property
    def is_current(self) -> bool:
        """Whether the version is the current one already, so that the history needs no entry."""
        return self.existing is not None and is_current(
            self.current, self.existing, self.control_plane
        )

    @property
    def history_number(self) -> int:
        """The number of the entry that counts afterwards."""
        return (self.current.number if self.current else 0) + (not self.is_current)

    def writes(self, ledger: Ledger) -> tuple[StoreKey, ...]:
        """The keys to be written, in order."""
        keys = [put.blob.key for put in self.puts] + [key for key, _, _ in self.unsigned]
        if self.existing is None:
            keys.append(ledger.version_key(self.record.version))
        if not self.is_current:
            keys.append(ledger.entry_key(self.history_number))
        return tuple(keys)


class Deployment:
    """One run that deploys: `push_docker_images`, `prepare`, then perhaps `carry_out`. A context
    manager.

    request: what and where. directory: of the packaged files. build_root: the checkout. found:
    where to register. action: for the history. origin: where the version is from, by default the
    checkout. processes: that need Flyte; some may have been started already.

    NEEDS_VERSION: whether code in images takes a named version. EACH_TIME: whether the history gets
    an entry for a version that is the current one, too.
    """

    NEEDS_VERSION = True
    EACH_TIME = False

    def __init__(
        self,
        request: Request,
        *,
        store: Store,
        ledger: Ledger,
        directory: str,
        build_root: str,
        found: Found | None,
        say: Say,
        action: str = "deploy",
        origin: records.Provenance | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._action, self._origin = action, origin
        self._request = request
        self._store = store
        self._ledger = ledger
        self._directory = directory
        self._build_root = build_root
        self._repair, self._dry_run = request.options.repair, request.options.dry_run
        self._say = say
        self._links = read_links(directory, request.plan.tasks)
        self._copy_style = one_copy_style(request, self._links, self.NEEDS_VERSION)
        self._pushes = read_pushes(directory, request.plan.pushes)
        self._images = images_of(request, self._links, self._pushes)
        self._signer = signer_of(os.environ)
        self.registered: list[Registered] = []
        self.stopped: tuple[TriggerName, ...] = ()
        self.stopped_apps: tuple[str, ...] = ()
        self._surveyed: Surveyed | None = None
        self._uploads = request.options.upload == "flyte"
        named = request.settings.version
        if named is not None and records.is_computed(named):
            raise UserError(
                f"the version {named} looks like those that are computed of what is deployed: name "
                "another one, or none, to have one computed"
            )
        if self._uploads and found is None:
            raise UserError("--upload flyte takes a control plane: type --endpoint HOST, too")
        self._registering: Registering | None = None
        self._remembered = Remembered()
        self._made_from: Future[records.Provenance] | None = None
        self._images_there: Future[list[dict[str, Any]] | None] | None = None
        self._pushed_before: list[dict[str, Any]] = []
        if found is not None:
            self._images = pinned(self._images, self._links, request, say)
            self._registering = Registering(
                found, request, directory, self._ref_names(), say, processes
            )
        # Each once: many tasks may share a bundle.
        bundles = {link.bundle: link.address for link in self._links if link.bundle is not None}
        for bundle, address in bundles.items():
            check_files(directory, address, bundle)

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *error: object) -> None:
        if self._registering is not None:
            self._registering.close()

    def push_docker_images(self) -> None:
        """Push the images that Docker has built, before anything is planned: only that tells the
        digests, which are part of the version. Raises `UserError`.
        """
        plan = self._request.plan
        if not plan.docker_images:
            return
        # Only who has such images pays for the HTTP client.
        from flyte_pack.deploy.docker_images import push_docker_images

        done = push_docker_images(
            plan.docker_images,
            search_path=plan.docker_path or (),
            insecure=plan.insecure_registries,
            say=self._say,
            dry_run=self._dry_run,
        )
        for link in self._links:
            for one in done:
                if link.published_by == one.address:
                    self._images = {**self._images, link.address: (one.reference, None)}
        self._pushed_before = [told for one in done for told in one.told]

    def push_images(self) -> list[dict[str, Any]]:
        """Push the images that were built for it; returns what was done, as the report has it.

        This comes before any record, as no record may name an image that a container cannot pull.
        """
        there = None if self._images_there is None else self._images_there.result()
        if there is None:
            done = push_all(
                self._pushes, self._directory, self._say, self._dry_run, self._origin_of_files
            )
            return [*self._pushed_before, *done]
        for image in there:
            self._say(f"{image['reference']}: there already")
        return [*self._pushed_before, *there]

    def prepare(self) -> Work:
        """Plan it; writes nothing. Raises `UserError`."""
        # What does not depend on one another is asked for at once.
        looked_up = meanwhile(self._look_up)
        if self._images_there is None:
            self._images_there = meanwhile(
                partial(look_for_all, self._pushes, self._directory, self._origin_of_files)
            )
        bundles_of = [one.bundle for one in self._links if one.bundle]
        listed = meanwhile(
            partial(list_all, self._store, self._directory, bundles_of, self._repair)
        )
        linked = {one.content_hash: one for one in bundles_of}
        asked = (
            partial(settle, self._store, self._directory, one, self._repair)
            for one in linked.values()
        )
        settled: dict[str, Settled] = dict(zip(linked, all_of(asked, self._store.at_once)))
        bundles = {key: value.bundle for key, value in settled.items()}
        current, recorded = looked_up.result()
        before = recorded.record if recorded else None
        plane = self._registering.identity if self._registering else None
        own = before if recorded and self._remembered.has(*_fact(plane, recorded)) else None
        registered = plane is not None and current is not None and current.registered == plane
        kept = own if registered and not self._repair else None
        record = self._record(bundles, own, kept)
        existing, damaged = self._existing(record, recorded)
        if existing is not None:
            stored = {value.bundle for value in settled.values()}
            check_whole(self._store, (b for b in existing.record.bundles if b not in stored))
        after = record if existing is None else existing.record
        if existing is not None:
            settled = {key: one.named_by(after) for key, one in settled.items()}
        last = self._last_registered(before if registered else None)
        return Work(
            settled=tuple(settled.values()),
            record=after,
            existing=existing,
            replace_record=damaged,
            current=current,
            changes=compare(before, after, self._store.uri_of),
            control_plane=plane,
            registers=self._to_register(record, kept),
            removed=removed(self._store, last, after),
            removed_apps=removed_apps(self._store, last, after),
            agrees=dataclasses.replace(after, provenance=record.provenance) == record,
            inventories=listed.result(),
            unsigned=self._unsigned(one.bundle for one in settled.values()),
        )

    def _unsigned(
        self, bundles: Iterable[StoredBundle]
    ) -> tuple[tuple[StoreKey, Sha256, bool], ...]:
        if self._signer is None:
            return ()
        return unsigned(self._store, bundles, self._signer, self._repair)

    def _look_up(self) -> tuple[HistoryEntry | None, Recorded | None]:
        """The entry that counts, and the record that it names."""
        current = self._ledger.current()
        return current, self._before(current)

    def _ask_git(self) -> Future[records.Provenance]:
        """Where the version is from: several runs of git, which begin with the first call."""

        def ask() -> records.Provenance:
            if self._origin is not None:
                return self._origin
            if self._registering is not None:
                web_at(self._build_root)  # it is remembered
            return provenance(self._build_root, self._store.uri)

        self._made_from = self._made_from or meanwhile(ask)
        return self._made_from

    def _origin_of_files(self) -> Origin:
        made = self._ask_git().result()
        return Origin(made.commit, made.dirty)

    def _last_registered(self, current: VersionRecord | None) -> VersionRecord | None:
        """What was registered last where this goes. current: the record that counts, if it was."""
        if self._registering is None:
            return None
        return current or last_registered(self._ledger, self._registering.identity)

    def ask(self, work: Work) -> None:
        """Ask Flyte what it has, and whether it takes this; writes nothing. Raises `UserError`."""
        if self._registering is None:
            return
        if not (work.registers or work.removed or work.removed_apps):
            return
        apps = work.record.app_names
        tasks = {name: one for name, one in work.registers.items() if name not in apps}
        self._surveyed = self._registering.survey(tasks, tuple(work.removed))
        if self._request.settings.version is not None:
            self._registering.check(tasks)
        left = left_behind(self._registering, self._store, self._ledger, work.record)
        gone = {**left, **{one: work.removed[one] for one in firing(work.removed, self._surveyed)}}
        self.stopped = tuple(sorted(gone))
        for task, name in self.stopped:
            self._say(
                f"trigger {name} of {task} is in the code no more: it will be deactivated, and "
                f"stops running version {gone[task, name]}"
            )
        self.stopped_apps = apps_left_behind(
            self._registering, self._store, self._ledger, work.record, work.removed_apps
        )
        for name in self.stopped_apps:
            self._say(f"app {name} is deployed no more: it will be deactivated")

    def carry_out(self, work: Work) -> tuple[Work, tuple[StoreKey, ...], int]:
        """Write what is missing; returns the work, written keys, number of the current entry.

        If another deployer gets in between, its objects are used, and the rest is planned anew.
        """
        self._store.sweep()
        written: list[StoreKey] = []
        for _ in range(_ATTEMPTS):
            try:
                number = self._attempt(work, written)
            except Beaten:
                work = self.prepare()
            else:
                return work, tuple(written), number
        raise StoreError(f"{self._store.uri} changes faster than it can be read: is this a store?")

    def _attempt(self, work: Work, written: list[StoreKey]) -> int:
        total = sum(put.blob.size for put in work.puts)
        progress = Progress(self._say, f"to {self._store.uri}", total)
        self._put([put for put in work.puts if not put.names_others], written, progress)
        self._put([put for put in work.puts if put.names_others], written, progress)
        self._sign(work, written)
        if work.is_current and not work.registers and not self.EACH_TIME:
            return work.history_number
        origin = self._ask_git().result()
        if origin.unknown:
            what = "the commit is unknown" if origin.commit is None else "dirty is unknown"
            self._say(f"{what}: {origin.unknown}")
        recorded = work.existing
        if recorded is None:
            record = dataclasses.replace(work.record, provenance=origin)
            content = record.to_json()
            blob = blob_of(self._ledger.version_key(record.version), content)
            self._put([Put(blob, content, work.replace_record)], written)
            recorded = Recorded(record, blob.sha256)
            check_kept(self._store, record.bundles)
        self._state(recorded, origin, written)
        self._register(work.registers, origin)
        if self._registering is not None:
            self._registering.deactivate(self.stopped)
            self._registering.stop_apps(self.stopped_apps)
        if work.agrees and work.control_plane is not None:
            self._remembered.add(*_fact(work.control_plane, recorded))
        entry, appended = self._ledger.append(
            self._action,
            recorded,
            origin,
            work.control_plane,
            again=self.EACH_TIME,
            after=work.current,
        )
        if appended:
            written.append(self._ledger.entry_key(entry.number))
        return entry.number

    def _sign(self, work: Work, written: list[StoreKey]) -> None:
        """Put what containers may require beside the archives, before anything names these."""
        if self._signer is None:
            return
        puts = []
        for key, archive_hash, replace in work.unsigned:
            content = signature(self._signer, archive_hash)
            puts.append(Put(blob_of(key, content), content, replace))
        self._put(puts, written)
        if work.unsigned and self._uploads:
            self._say(
                "warning: the signatures of the bundles are in the store, and not beside what "
                "Flyte's data proxy has: containers that require one refuse these bundles"
            )

    def _state(
        self, recorded: Recorded, origin: records.Provenance, written: list[StoreKey]
    ) -> None:
        """Write what the version was made from, if that was asked for.

        Not of a record of another commit: then it is that commit's to say, and it has.
        """
        materials, made = self._request.plan.materials, recorded.record.provenance
        if materials is None or (made.commit, made.dirty) != (origin.commit, origin.dirty):
            return
        record_key = self._ledger.version_key(recorded.record.version)
        key = records.statement_key(record_key)
        if self._store.size(key) is None:
            listed = [
                StoredBundle(**link.bundle.hashes).inventory(link.bundle.sbom)
                for link in self._links
                if link.bundle is not None and link.bundle.sbom is not None
            ]
            built = {one.built_image.digest for one in self._links if one.built_image is not None}
            content = statement(recorded, record_key, materials, listed, built)
            signed_key = records.envelope_key(key)
            if self._signer is not None and self._store.size(signed_key) is None:
                signed = envelope(self._signer, content, STATEMENT_TYPE)
                self._put([Put(blob_of(signed_key, signed), signed, replace=False)], written)
            self._put([Put(blob_of(key, content), content, replace=False)], written)

    def _put(
        self, puts: Sequence[Put], written: list[StoreKey], progress: Progress | None = None
    ) -> None:
        """Write what names none of the others; those that were needed are `written`."""
        for put in puts:
            self._say(f"writing {put.blob.key} ({put.blob.size:,} bytes)")
        works = (partial(put.into, self._store, progress) for put in puts)
        needed = all_of(works, self._store.at_once)
        written += [put.blob.key for put, was in zip(puts, needed) if was]

    # --- registration ----------------------------------------------------------------------------

    def _ref_names(self) -> dict[str, str]:
        """The image that code gets where it names one by a ref name."""
        used = {ref: image for image, ref in self._images.values() if ref and image}
        return {**self._request.images, **used}

    def _to_register(self, record: VersionRecord, kept: VersionRecord | None) -> dict[str, str]:
        """Version by Flyte's name, of the tasks that the control plane may not have."""
        wanted = record.flyte_versions if self._registering else {}
        known = kept.flyte_versions if kept else {}
        return {name: version for name, version in wanted.items() if known.get(name) != version}

    def registrations(self, work: Work) -> list[dict[str, str]]:
        """Each Flyte task and app with its version: is it new, present there, there again, or
        unchanged?

        An app has a `kind`, and where it was deployed now and that is known, a `url`.
        """
        if self._registering is None:
            return []
        done = {one.name: one for one in self.registered}
        record = {**work.record.flyte_versions, **work.registers}
        found = []
        for name, version in sorted(record.items()):
            one, status = done.get(name), "unchanged"
            if name in work.registers:
                status = one.status if one else "new"
            given = one.version if one else version
            found.append({"name": name, "version": given, "status": status})
            if name in work.record.app_names:
                found[-1]["kind"] = "app"
            if one is not None and one.url is not None:
                found[-1]["url"] = one.url
        return found

    def _register(self, versions: Mapping[str, str], origin: records.Provenance) -> None:
        if self._registering is None or not versions:
            return
        # What comes from elsewhere is of a commit that this checkout need not have.
        source = None
        if self._origin is None:
            source = SourceLink(self._build_root, origin, self._links, self._manifest).told
        self.registered.extend(self._registering.register(versions, self._surveyed, source=source))

    def _manifest(self, bundle: LinkedBundle) -> bytes:
        with open(os.path.join(self._directory, bundle.manifest), "rb") as file:
            return file.read()

    # --- the record ------------------------------------------------------------------------------

    def _record(
        self,
        bundles: Mapping[str, StoredBundle],
        before: VersionRecord | None,
        kept: VersionRecord | None,
    ) -> VersionRecord:
        """The record to write. Its provenance is filled in when it is written.

        before: the current version's, if this machine made or checked it. kept: the same, if the
        control plane has its tasks, which are not made anew.
        """
        request = self._request
        inputs: dict[str, str] = {}
        specifications: Specifications | None = None
        uris = self._uris(bundles, before)
        if self._registering is not None:
            shipped = shipped_of(self._links, self._directory, uris, self._images)
            inputs = self._registering.inputs(shipped)
            kept_tasks = kept.tasks if kept else ()
            known = [t for t in kept_tasks if t.inputs and t.inputs == inputs.get(t.address)]
            if kept is not None and len(known) == len(kept.tasks) == len(inputs):
                return kept  # importing the tasks would come to the same
            self._ask_git()
            specifications = self._registering.describe(
                shipped, [one for task in known for one in described(task)]
            )

        flyte = specifications.flyte if specifications else None
        if flyte == "" and before is not None:  # there was nothing to make one of
            flyte = before.flyte

        inputs_json = json.dumps(sorted(inputs.items())).encode()
        digest = hashlib.sha256(inputs_json).hexdigest() if inputs else None

        with_holes = tuple(
            dataclasses.replace(
                self._task(link, bundles, uris, specifications), inputs=inputs.get(link.address)
            )
            for link in self._links
        )

        def record(version: str | None) -> VersionRecord:
            return VersionRecord(
                address=request.plan.address,
                project=request.project,
                domain=request.domain,
                version=version or VERSION_HOLE,
                copy_style=self._copy_style,
                tasks=with_holes if version is None else self._with_versions(with_holes),
                provenance=records.Provenance(now(), None, None),
                inputs=digest,
                flyte=flyte,
            )

        return record(request.settings.version or records.version_of(record(None).spec()))

    def _uris(
        self, bundles: Mapping[str, StoredBundle], before: VersionRecord | None
    ) -> dict[str, str]:
        """Where containers get each bundle, by content hash: the store, or the data proxy's."""
        if not self._uploads:
            return {key: self._store.uri_of(one.archive.key) for key, one in bundles.items()}
        tasks = before.tasks if before else ()
        known = {t.bundle.archive_hash: t.code_uri for t in tasks if t.bundle}
        uris = {key: known.get(bundle.archive_hash) or "" for key, bundle in bundles.items()}
        files = {
            f"{link.bundle.archive_hash}.tar.gz": (link.bundle.content_hash, link.bundle.archive)
            for link in self._links
            if link.bundle is not None and not uris[link.bundle.content_hash]
        }
        if files and self._dry_run:
            self._say(
                "warning: Flyte decides where bundles go when they are uploaded, so the versions "
                "below will be others"
            )
            return {key: uri or f"flyte://{key}" for key, uri in uris.items()}
        if files:
            assert self._registering is not None
            self._say(f"uploading {len(files)} bundles through Flyte's data proxy")
            paths = {n: os.path.join(self._directory, path) for n, (_, path) in files.items()}
            for name, uri in self._registering.upload(paths).items():
                if not uri.endswith(f"/{name}"):
                    raise UserError(
                        f"Flyte's data proxy put {name} under another name: report this"
                    )
                uris[files[name][0]] = uri
        return uris

    def _task(
        self,
        link: TaskLink,
        bundles: Mapping[str, StoredBundle],
        uris: Mapping[str, str],
        specifications: Specifications | None,
    ) -> RecordedTask:
        """A task with holes for the versions, of which these are computed."""
        bundle = None if link.bundle is None else bundles[link.bundle.content_hash]
        uri = {} if bundle is None else {BUNDLE_URI_HOLE: uris[bundle.content_hash]}
        if specifications is None:
            ones = [
                records.DeployedTask(
                    task.name, tuple(uri.get(a, a) for a in task.command), VERSION_HOLE
                )
                for task in link.tasks
            ]
        else:
            ones = [
                records.DeployedTask(
                    name=task.attribute,
                    command=task.command,
                    version=VERSION_HOLE,
                    flyte_name=task.name,
                    spec=task.spec,
                    triggers=task.triggers,
                    environments=task.environments,
                    reusable=task.reusable or None,
                    along=task.along or None,
                    kind="app" if task.kind == "app" else None,
                )
                for task in specifications.tasks[link.address]
            ]
        image, ref_name = self._images[link.address]
        return RecordedTask(
            address=link.address,
            entry_point=link.entry_point,
            kind=link.kind,
            module=link.module,
            root_dir=link.root_dir,
            bundle=bundle,
            image=image,
            image_ref_name=ref_name,
            tasks=tuple(ones),
            code_uri=uris[bundle.content_hash] if bundle and self._uploads else None,
        )

    def _with_versions(self, tasks: tuple[RecordedTask, ...]) -> tuple[RecordedTask, ...]:
        request = self._request
        computed = records.task_versions(request.project, request.domain, tasks)

        def filled(address: TargetAddress, one: records.DeployedTask) -> records.DeployedTask:
            version = request.settings.version or computed[address, one.name]
            command = tuple(version if part == VERSION_HOLE else part for part in one.command)
            return dataclasses.replace(one, version=version, command=command)

        return tuple(
            dataclasses.replace(task, tasks=tuple(filled(task.address, one) for one in task.tasks))
            for task in tasks
        )

    def _existing(
        self, record: VersionRecord, before: Recorded | None
    ) -> tuple[Recorded | None, bool]:
        """What is recorded under the version, and whether that is damaged and to be written anew.

        A whole record must be the same as what is to be deployed. (Both come from one look:
        another deployer may write in between two.) before: the current version's record.
        """
        try:
            if before is not None and before.record.version == record.version:
                existing: Recorded | None = before
            else:
                existing = self._ledger.recorded(record.version)
        except InvalidData as error:
            if self._request.settings.version is not None:
                raise InvalidData(
                    f"{error}. Bring it back from a backup, or deploy under another version"
                ) from None
            if not self._repair:
                raise InvalidData(f"{error}. To write it anew, deploy with --repair") from None
            return None, True
        if existing is not None and not existing.record.is_same(record):
            changes = describe(compare(existing.record, record, self._store.uri_of))
            raise UserError(
                f"version {record.version} exists with other content in "
                f"{record.project}/{record.domain}: {changes}. A version never changes: name "
                "another one, or none, to have one computed"
            )
        return existing, False

    def _before(self, current: HistoryEntry | None) -> Recorded | None:
        """The current version's record, to compare with; None and a warning if it is unreadable."""
        if current is None:
            return None
        try:
            recorded = self._ledger.recorded(current.version, current)
        except (InvalidData, StoreError) as error:
            self._say(f"warning: the current version cannot be compared with: {error}")
            return None
        if recorded is None:
            self._say(f"warning: the record of the current version {current.version} is missing")
        return recorded


def _fact(control_plane: str | None, recorded: Recorded) -> tuple[str, ...]:
    """That the control plane has the tasks of a record, and that these are what it says."""
    return "registered", control_plane or "", recorded.sha256
