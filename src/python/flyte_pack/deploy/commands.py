"""What the deploy program does at each of its commands; the result is a document for a report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from flyte_pack.deploy.ahead import nothing_to_do_next
from flyte_pack.deploy.bundles import check_whole
from flyte_pack.deploy.control_plane import Found, find_control_plane
from flyte_pack.deploy.deployment import Deployment
from flyte_pack.deploy.flyte_processes import Processes
from flyte_pack.deploy.git import now
from flyte_pack.deploy.gone import last_registered, removed
from flyte_pack.deploy.ledger import Ledger, Recorded, is_current
from flyte_pack.deploy.plan import Request
from flyte_pack.deploy.recorded import Again, register_recorded
from flyte_pack.deploy.records import HistoryEntry, Provenance, VersionRecord
from flyte_pack.deploy.registering import Registering
from flyte_pack.deploy.registration import TriggerName
from flyte_pack.diff import compare_all
from flyte_pack.errors import UserError
from flyte_pack.json_fields import InvalidData, as_json
from flyte_pack.meanwhile import all_of
from flyte_pack.progress import Say
from flyte_pack.store import Store, StoreError
from flyte_pack.store.opening import open_store
from flyte_shim import shown


class Commands:
    """One run of the program; `document` does it and returns the result."""

    def __init__(self, request: Request, directory: str, say: Say, processes: Processes) -> None:
        self._options = request.options
        self._request = request
        self._directory = directory
        self._say, self._processes = say, processes
        self._store: Store = open_store(request.store, os.getcwd(), say)
        self._ledger = Ledger(self._store, request.project, request.domain, request.plan.address)

    def document(self) -> dict[str, Any]:
        run = getattr(self, f"_{self._options.command}")  # a method below
        return {
            "command": self._options.command,
            "address": self._request.plan.address,
            "project": self._request.project,
            "domain": self._request.domain,
            "store": self._store.uri,
            **run(),
        }

    def _deploy(self) -> dict[str, Any]:
        return self._ship(self._request, self._directory)

    def _ship(
        self,
        request: Request,
        directory: str,
        action: str = "deploy",
        origin: Provenance | None = None,
    ) -> dict[str, Any]:
        """Deploy what was packaged into `directory`; the others are for `Deployment`."""
        options = self._options
        found = find_control_plane(request, os.getcwd(), os.environ, self._say)
        deployment = Deployment(
            request,
            store=self._store,
            ledger=self._ledger,
            directory=directory,
            build_root=os.getcwd(),
            found=found,
            say=self._say,
            action=action,
            origin=origin,
            processes=self._processes,
        )
        with deployment:
            deployment.push_docker_images()
            work = deployment.prepare()
            previous, number = work.current, work.history_number
            writes = work.writes(self._ledger)
            if not options.dry_run:
                deployment.ask(work)
            images = deployment.push_images()
            upload = {
                "bundles": sum(put.blob.size for put in work.puts),
                "images": sum(image["bytes"] for image in images),
            }
            if not options.dry_run:
                work, writes, number = deployment.carry_out(work)
                if found is not None:
                    nothing_to_do_next(request, directory)
        return {
            "dry_run": options.dry_run,
            "version": work.record.version,
            "previous": previous and previous.version,
            "history": number,
            "deployed": self._ledger.entry_key(number) in writes,
            "copy_style": work.record.copy_style,
            "control_plane": work.control_plane,
            "registered": deployment.registrations(work),
            "triggers": _stopped(work.removed if options.dry_run else deployment.stopped),
            "apps": list(work.removed_apps if options.dry_run else deployment.stopped_apps),
            "upload": upload,
            "images": images,
            "bundles": [{"status": s.status, **as_json(s.bundle)} for s in work.settled],
            "tasks": [
                {
                    "address": one.address,
                    "status": one.status,
                    "changes": list(one.what),
                    **({"kind": "app"} if one.kind == "app" else {}),
                }
                for one in work.changes
            ],
            "writes": list(writes),
        }

    def _list(self) -> dict[str, Any]:
        history = self._ledger.history()
        names = self._ledger.versions()
        looks = (partial(self._listed, version, history) for version in names)
        versions = all_of(looks, self._store.at_once)
        # Those that were current last come first; those that never were (killed runs) come last.
        versions.sort(key=lambda v: max(v["history"], default=0), reverse=True)
        return {
            "current": history[-1].version if history else None,
            "versions": versions,
            "history": [_entry(entry) for entry in history],
            "broken": sum(v["error"] is not None for v in versions),
        }

    def _listed(self, version: str, history: Sequence[HistoryEntry]) -> dict[str, Any]:
        entries = [entry for entry in history if entry.version == version]
        listed: dict[str, Any] = {
            "version": version,
            "current": bool(history) and history[-1].version == version,
            "history": [entry.number for entry in entries],
            "deployed": entries[-1].provenance.time if entries else None,
            "commit": None,
            "dirty": None,
            "unknown": None,
            "tasks": [],
            "error": None,
        }
        try:
            recorded = self._ledger.recorded(version, entries[-1] if entries else None)
        except (InvalidData, StoreError) as error:
            return {**listed, "error": shown.printable(str(error))}
        if recorded is None:
            return {**listed, "error": "it has disappeared"}
        origin = recorded.record.provenance
        tasks = [task.address for task in recorded.record.tasks]
        return {
            **listed,
            "commit": origin.commit,
            "dirty": origin.dirty,
            "unknown": origin.unknown,
            "tasks": tasks,
        }

    def _show(self) -> dict[str, Any]:
        version = self._version()
        current = self._ledger.current()
        recorded = self._recorded(version)
        return {
            "version": version,
            "current": is_current(current, recorded),
            "history": [_entry(e) for e in self._ledger.history() if e.version == version],
            "record": json.loads(recorded.record.to_json()),
        }

    def _diff(self) -> dict[str, Any]:
        from flyte_pack.deploy import versions

        options, new = self._options, None
        if options.checkout:
            old = self._named(options.which) if options.which else self._current()
        else:
            old = self._named(options.which or "-1")
            new = self._named(options.other) if options.other else self._current()
        before = self._recorded(old).record
        if new is None:
            after = versions.packaged(self._request, self._directory, before)
        else:
            after = versions.deployed(self._store, self._recorded(new).record)
        told = compare_all(versions.deployed(self._store, before, options.checkout), after)
        return {"old": old, "new": new, "differences": told}

    def _rollback(self) -> dict[str, Any]:
        version = self._named(self._options.which or "-1")
        recorded = self._recorded(version)
        current = self._ledger.current()
        check_whole(self._store, recorded.record.bundles)
        _check_addresses(self._store, recorded.record)
        found = find_control_plane(self._request, os.getcwd(), os.environ, self._say)
        where = found.identity if found else None
        adds = not is_current(current, recorded, where)
        number = (current.number if current else 0) + adds
        if not self._options.dry_run:
            self._store.sweep()
        again = self._register_again(found, recorded.record) if found and adds else Again()
        if adds and not self._options.dry_run:
            # The commit that is checked out has no part in it.
            origin = Provenance(now(), None, None)
            entry, adds = self._ledger.append("rollback", recorded, origin, where)
            number = entry.number
        return {
            "dry_run": self._options.dry_run,
            "version": version,
            "control_plane": where,
            "registered": [one.told() for one in again.registered],
            "triggers": [*_stopped(again.stopped), *_stopped(again.paused, "stays paused")],
            "apps": list(again.stopped_apps),
            "previous": current and current.version,
            "history": number,
            "deployed": adds,
            "writes": [self._ledger.entry_key(number)] if adds else [],
        }

    def _verify(self) -> dict[str, Any]:
        from flyte_pack.deploy.verify import verify

        every = self._options.all_versions
        versions = self._ledger.versions() if every else (self._version(),)
        checked = verify(
            self._store,
            self._ledger,
            versions,
            say=self._say,
            insecure=self._request.plan.insecure_registries,
            images=self._options.image_check,
        )
        return {
            "versions": list(versions),
            "checked": [dict(vars(one)) for one in checked],
            "broken": sum(one.status != "ok" for one in checked),
        }

    def _prune(self) -> dict[str, Any]:
        from flyte_pack.deploy.prune import DAY, GRACE_DAYS, RUN_DAYS, Prune

        options, now = self._options, time.time()
        days = GRACE_DAYS if options.older_than is None else options.older_than
        run_days = RUN_DAYS if options.runs_older_than is None else options.runs_older_than
        times = (now - days * DAY, now - run_days * DAY)
        prune = Prune(self._store, self._ledger, options.keep, *times, *self._active())
        plan = prune.plan()
        deleted, problems = prune.carry_out(plan, self._say) if options.yes else ([], [])
        return {
            "dry_run": not options.yes,
            "older_than_days": days,
            "runs_older_than_days": run_days,
            "versions": list(plan.versions),
            "objects": [{**vars(one), "deleted": one in deleted} for one in plan.objects],
            "young": [dict(vars(one)) for one in plan.young],
            "problems": problems,
            "broken": len(problems),
        }

    def _active(self) -> tuple[list[tuple[str, str]], list[tuple[str, tuple[str, ...]]]]:
        """(Flyte's name, version) of each task that an active trigger runs, if versions are to go;
        (Flyte's name, command) of each active app.

        They may be of an old one: of a deployment that was not registered since, or by hand.
        """
        if self._options.keep is None:
            return [], []
        found = find_control_plane(self._request, os.getcwd(), os.environ)
        if found is None:
            return [], []
        registering = Registering(found, self._request, self._directory, {}, self._say)
        with closing(registering):
            fired = [(task, version) for task, _, version in registering.active_triggers()]
            return fired, registering.active_apps(strict=True)

    def _export(self) -> dict[str, Any]:
        from flyte_pack.deploy.handover import export

        assert self._options.directory is not None
        recorded = self._recorded(self._version())
        insecure = self._request.plan.insecure_registries
        folder = self._options.directory
        handover = export(self._store, recorded, folder, say=self._say, insecure=insecure)
        return {
            "version": handover.version,
            "folder": os.path.abspath(folder),
            "images": sorted(handover.images),
            "files": len(handover.files),
            "bytes": sum(file.size for file in handover.files),
        }

    def _import(self) -> dict[str, Any]:
        from flyte_pack.deploy.handover_import import imported

        assert self._options.directory is not None
        folder = self._options.directory
        with imported(self._request, folder, self._directory, self._say) as found:
            request, directory, origin = found
            shipped = self._ship(request, directory, "import", origin)
        return {"folder": os.path.abspath(folder), **shipped}

    def _promote(self) -> dict[str, Any]:
        from flyte_pack.deploy.promote import find, promoted

        options = self._options
        assert options.from_domain is not None
        source = self._store
        if options.from_store is not None:
            source = open_store(options.from_store, os.getcwd(), self._say)
        recorded = find(self._request, source, options.from_domain, options.which)
        with promoted(self._request, source, recorded, self._directory, self._say) as found:
            request, directory, origin = found
            shipped = self._ship(request, directory, "promote", origin)
        return {"from": origin.source, **shipped}

    def _version(self) -> str:
        """The version that was typed, or the current one. Raises `UserError`."""
        if self._options.which is not None:
            return self._ledger.find(self._options.which)
        return self._current()

    def _current(self) -> str:
        current = self._ledger.current()
        if current is None:
            raise UserError(f"nothing was deployed yet in {self._place()}")
        return current.version

    def _named(self, which: str) -> str:
        """The version that was typed, or that was current so long ago."""
        if not which.startswith("-"):
            return self._ledger.find(which)
        steps = int(which[1:])
        versions: list[str] = []
        for entry in reversed(self._ledger.history()):
            if entry.version not in versions[-1:]:
                versions.append(entry.version)
        if len(versions) <= steps:
            known = f"{len(versions) - 1} before it" if versions else "nothing was deployed yet"
            raise UserError(f"there is no version {steps} before the current one: {known}")
        return versions[steps]

    def _register_again(self, found: Found, record: VersionRecord) -> Again:
        named = {task.image_ref_name: task.image for task in record.tasks}
        images = {name: image for name, image in named.items() if name and image}
        registering = Registering(
            found, self._request, self._directory, {**self._request.images, **images}, self._say
        )
        before = last_registered(self._ledger, found.identity)
        gone = removed(self._store, before, record)
        with closing(registering):
            return register_recorded(
                registering,
                self._store,
                self._ledger,
                record,
                before,
                gone,
                say=self._say,
                dry_run=self._options.dry_run,
                build_root=os.getcwd(),
            )

    def _recorded(self, version: str) -> Recorded:
        recorded = self._ledger.recorded(version)
        if recorded is None:
            raise UserError(f"the record of version {version} is missing in {self._place()}")
        return recorded

    def _place(self) -> str:
        return f"{self._request.project}/{self._request.domain} of {self._store.uri}"


def _check_addresses(store: Store, record: VersionRecord) -> None:
    """Raises `UserError` if the store was moved, and the commands fetch bundles from elsewhere."""
    for task in record.tasks:
        archive = task.bundle and (task.code_uri or store.uri_of(task.bundle.archive.key))
        if archive and not all(archive in one.command for one in task.tasks):
            raise UserError(
                f"version {record.version} was deployed while the store was not at {store.uri}, "
                f"and the commands of {task.address} fetch its code from where it was. Name the "
                "store as it was named then, or deploy that commit again"
            )


def _stopped(triggers: Iterable[TriggerName], status: str = "deactivated") -> list[dict[str, str]]:
    return [{"task": task, "name": name, "status": status} for task, name in sorted(triggers)]


def _entry(entry: HistoryEntry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "action": entry.action,
        "version": entry.version,
        **vars(entry.provenance),
    }
