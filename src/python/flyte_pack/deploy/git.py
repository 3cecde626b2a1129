"""When, and from which commit, a deployment is made. No deployment fails for want of a commit."""

from __future__ import annotations

import datetime

from flyte_pack.deploy.records import Provenance
from flyte_pack.provenance import origin_of

_FILE = "file://"


def provenance(build_root: str, store_uri: str) -> Provenance:
    """The time, and the commit of the git checkout that `build_root` is in, if it is in one.

    dirty: whether a file below the build root differs from the commit. Ignored files do not count,
    nor does a store there: the first deployment would make every later one dirty.
    """
    store = [store_uri[len(_FILE) :]] if store_uri.startswith(_FILE) else []
    found = origin_of(build_root, store)
    return Provenance(now(), found.commit, found.dirty, found.unknown)


def now() -> str:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
