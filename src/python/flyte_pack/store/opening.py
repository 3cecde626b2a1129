"""Opens the store that a URI names. Nothing is sent to a server or written before its first use."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flyte_pack.progress import Say
from flyte_pack.store import Store, StoreError
from flyte_pack.store.uris import check_store_uri
from flyte_shim.errors import UsageError
from flyte_shim.store_settings import GCS, S3, Settings
from flyte_shim.stores import S3Settings, endpoint_of, locate

if TYPE_CHECKING:
    from flyte_pack.http.retry import Timing
    from flyte_pack.store.remote import Backend, RemoteStore

# Importing a client takes time, so each kind of store imports only its own.


def open_store(uri: str, cwd: str, say: Say | None = None) -> Store:
    """The store at `uri`; a relative `file://` path is below the directory `cwd`.

    The environment says how object stores are reached. `say` is told of each pause before a request
    is sent again. Raises `StoreError`.
    """
    scheme, _, rest = check_store_uri(uri).partition("://")
    if scheme.lower() != "file":
        from flyte_pack.http.retry import Timing

        timing = Timing(time.sleep) if say is None else Timing(time.sleep, say=say)
        return remote_store(f"{scheme.lower()}://{rest.rstrip('/')}", os.environ, timing)
    from flyte_pack.store.file import FileStore

    path = os.path.join(cwd, rest.rstrip("/"))
    check_store_uri(f"file://{path}")
    return FileStore(path)


def remote_store(uri: str, environ: Mapping[str, str], timing: Timing | None = None) -> RemoteStore:
    """The object store at `uri`, which was checked. Raises `StoreError`."""
    from flyte_pack.store.remote import RemoteStore
    from flyte_pack.store.trouble import Place

    try:
        location = locate(f"{uri}/")
        location.key = location.key.rstrip("/")
        endpoint = endpoint_of(location, Settings(location.kind, environ))
        if location.kind == S3 and endpoint:
            settings = S3Settings(environ)
            url, virtual = settings.bucket_url(location.bucket, settings.region)
            endpoint = url if virtual else endpoint
        # Messages must not show the rest of the endpoint's URL.
        server = urlsplit(endpoint).netloc.rpartition("@")[2] if endpoint else None
        place = Place(location.kind, uri, location.bucket, server)
        backend: Backend
        if location.kind == GCS:
            from flyte_pack.store.gcs import GcsBackend

            backend = GcsBackend(place, location, environ)
        else:
            from flyte_pack.store.by_obstore import ObstoreBackend

            backend = ObstoreBackend(place, location, environ)
    except UsageError as error:
        raise StoreError(f"{uri}: {error}") from None
    return RemoteStore(backend, timing)
