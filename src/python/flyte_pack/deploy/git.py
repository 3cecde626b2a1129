"""When, and from which commit, a deployment is made. No deployment fails for want of a commit."""

from __future__ import annotations

import datetime

from flyte_pack.checkout import NoCheckout, Unknown, commit_of, is_dirty
from flyte_pack.deploy.records import Provenance

_FILE = "file://"


def provenance(build_root: str, store_uri: str) -> Provenance:
    """The time, and the commit of the git checkout that `build_root` is in, if it is in one.

    dirty: whether a file below the build root differs from the commit. Ignored files do not count,
    nor does a store there: the first deployment would make every later one dirty.
    """
    store = [store_uri[len(_FILE) :]] if store_uri.startswith(_FILE) else []
    commit = None
    try:
        commit = commit_of(build_root)
        return Provenance(now(), commit, is_dirty(build_root, commit, store))
    except NoCheckout:
        return Provenance(now(), None, None)
    except Unknown as why:
        return Provenance(now(), commit, None, str(why))


def now() -> str:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
