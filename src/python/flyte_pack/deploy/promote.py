"""`promote`: deploys in one domain what runs in another, the same archives and images.

Nothing is packaged. The settings are those of the domain that it goes to; so are the store, the
registry and the control plane. What tasks declare is asked of their code anew, for that domain.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from flyte_pack.deploy.git import now
from flyte_pack.deploy.handover import export
from flyte_pack.deploy.handover_import import in_registry, packaged_from
from flyte_pack.deploy.ledger import Ledger, Recorded
from flyte_pack.deploy.plan import Request
from flyte_pack.deploy.records import Provenance, VersionRecord
from flyte_pack.errors import UserError
from flyte_pack.names import TargetAddress
from flyte_pack.progress import Say
from flyte_pack.scratch import scratch_place
from flyte_pack.store import Store


def find(request: Request, store: Store, domain: str, which: str | None) -> Recorded:
    """The version to promote: `which`, or the one that is current in the other domain.

    store: of the other domain. A parametrized deployment has another address there.
    """
    if domain == request.domain:
        raise UserError(f"--from {domain} is the domain that this goes to: name another one")
    ours = request.plan.address
    theirs = TargetAddress(re.sub(r"(?<=[@,]domain=)[^,]+", domain, ours))
    ledger = Ledger(store, request.project, domain, theirs)
    if which is not None:
        version = ledger.find(which)
    elif current := ledger.current():
        version = current.version
    else:
        raise UserError(
            f"nothing was deployed yet as {theirs} in {request.project}/{domain} of {store.uri}. "
            "Name the store of that domain by --from-store, if it has another one"
        )
    recorded = ledger.recorded(version)
    if recorded is None:
        raise UserError(f"the record of version {version} is missing in {store.uri}")
    return recorded


@contextmanager
def promoted(
    request: Request, store: Store, recorded: Recorded, directory: str, say: Say
) -> Iterator[tuple[Request, str, Provenance]]:
    """A request to deploy the version as if it had been packaged; see `handover_import.imported`.

    store: that it is taken from.
    """
    record = recorded.record
    with tempfile.TemporaryDirectory(prefix="flyte-promote-", dir=scratch_place()) as scratch:
        folder = os.path.join(scratch, "version")
        handover = export(
            store,
            recorded,
            folder,
            say=say,
            insecure=request.plan.insecure_registries,
            without=_staying(request, record),
        )
        made = record.provenance
        source = f"{record.project}/{record.domain} {record.version}"
        with packaged_from(request, folder, directory, handover, record) as found:
            yield (*found, Provenance(now(), made.commit, made.dirty, source=source))


def _staying(request: Request, record: VersionRecord) -> set[str]:
    """The images that need no copy: those at hand for the domain, unless the code is in them."""
    if record.copy_style == "none":
        return set()
    registry = request.settings.registry
    images = {task.image for task in record.tasks if task.image is not None}
    return {image for image in images if registry is None or in_registry(image, registry)}
