"""Ships the code of a task, for a run of it by Flyte.

It is done as a deployment, but nothing is registered: the task goes along with its run, so that no
other run changes, whichever version it asks for. What is recorded has the address of the task; each
start has a history entry, which says `run`, so that `prune` knows when the code was used last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from flyte_pack.deploy.deployment import Deployment, Work
from flyte_pack.deploy.records import StoredBundle, VersionRecord

# As long as Flyte itself believes that an uploaded bundle is there.
_UPLOADED_SECONDS = 86400.0


class Shipment(Deployment):
    """One run that ships a task: `push_docker_images`, `prepare`, `push_images`, `carry_out`; then
    `request`.
    """

    NEEDS_VERSION = False  # an image that is built here has its code in its digest
    EACH_TIME = True

    def prepare(self) -> Work:
        work = super().prepare()
        assert self._registering is not None
        # The backend starts a run in any domain, also in one that the project does not have.
        self._registering.survey({}, ())
        return dataclasses.replace(work, control_plane=None, registers={})

    def _last_registered(self, current: VersionRecord | None) -> VersionRecord | None:
        return None  # nothing was registered under the address of a task

    def request(self, name: str, version: str) -> str:
        """The task of that name, as Flyte is told of it, in base64."""
        assert self._registering is not None
        return self._registering.request(name, version)

    def _uris(
        self, bundles: Mapping[str, StoredBundle], before: VersionRecord | None
    ) -> dict[str, str]:
        uris = super()._uris(bundles, self._last())
        if self._uploads:
            for key, uri in uris.items():
                self._remembered.add(*self._fact(bundles[key], uri))
        return uris

    def _last(self) -> VersionRecord | None:
        """The last record, with those tasks whose code this machine has uploaded."""
        recorded = self._before(self._ledger.current()) if self._uploads else None
        if recorded is None:
            return None
        record = recorded.record
        there = [
            task
            for task in record.tasks
            if task.bundle and task.code_uri and self._is_there(task.bundle, task.code_uri)
        ]
        return dataclasses.replace(record, tasks=tuple(there))

    def _is_there(self, bundle: StoredBundle, uri: str) -> bool:
        return self._remembered.has(*self._fact(bundle, uri), within=_UPLOADED_SECONDS)

    def _fact(self, bundle: StoredBundle, uri: str) -> tuple[str, ...]:
        assert self._registering is not None
        request = self._request
        where = (self._registering.identity, request.project, request.domain)
        return ("uploaded", *where, bundle.archive_hash, uri)
