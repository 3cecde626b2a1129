"""The backend for S3, compatible stores and Azure Blob Storage, by obstore."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock
from typing import Any, Callable

import obstore
import obstore.store
from obstore import exceptions

from flyte_pack.http.retry import Broken
from flyte_pack.meanwhile import meanwhile
from flyte_pack.store import StoredObject, StoreError, StoreKey
from flyte_pack.store.credentials import S3Credentials, may_use_az
from flyte_pack.store.remote import SHA256, WRITER, Content, Exists, Found
from flyte_pack.store.trouble import NO_BUCKET, Doing, Place, failure, status_and_code
from flyte_shim.obstore_client import Panic, Plan, call, pieces
from flyte_shim.store_settings import S3
from flyte_shim.stores import Location

CONNECT_SECONDS = 15
# For a whole request. A longer read is resumed.
SECONDS = 30
LIST_SECONDS = 600  # for all pages; a server may send empty ones without end
SLOWEST = 1 << 16  # bytes a second, for a write
_PIECE = 1 << 20
_TYPES = {".json": "application/json", ".gz": "application/gzip"}
_FAILURES = (exceptions.BaseError, OSError, ValueError, Panic)


class ObstoreBackend:
    """A `flyte_pack.store.remote.Backend`; the location's key is the store's prefix."""

    def __init__(self, place: Place, location: Location, environ: Mapping[str, str]) -> None:
        """Raises UsageError, which names a variable."""
        self.place, self._location = place, location
        self._plan = Plan(location, environ)
        self._credentials: S3Credentials | None = None
        if location.kind == S3:
            self._credentials = S3Credentials(place, self._plan.s3, environ)
        elif may_use_az(self._plan, environ):
            self._plan.config = {**self._plan.config, "use_azure_cli": "true"}
        self._clients: dict[tuple[float, str], Any] = {}
        self._making = Lock()
        self._bucket_seen = False

    def head(self, path: str) -> Found | None:
        try:
            got = call(obstore.get, self._client(), path, options={"head": True})
        except FileNotFoundError:
            if not self._bucket_seen:
                # A response without a body does not tell a missing object from a missing bucket.
                self.get(path)
            return None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            self.get(path)  # the response to a GET has a body that says why; raises it
            raise self._failure(Doing.READ, error) from None
        except _FAILURES as error:
            raise self._failure(Doing.READ, error) from None
        self._bucket_seen = True
        return _found(got)

    def get(
        self, path: str, offset: int = 0, tag: str | None = None
    ) -> tuple[Found, Iterator[bytes]] | None:
        options: dict[str, Any] = {"range": {"offset": offset}} if offset else {}
        if tag:
            options["if_match"] = tag
        try:
            got = call(obstore.get, self._client(), path, options=options)
        except FileNotFoundError as error:
            status, code = status_and_code(str(error))
            failed = failure(self.place, Doing.READ, status, code)
            if code in ("NoSuchKey", "BlobNotFound"):
                self._bucket_seen = True
            elif not self._bucket_seen:
                raise self._no_store() if code is None else failed from None
            return None
        except exceptions.PreconditionError:
            raise StoreError(f"{self.place.uri}/{path} was changed while it was read") from None
        except _FAILURES as error:
            raise self._failure(Doing.READ, error) from None
        self._bucket_seen = True
        return _found(got), self._pieces(got)

    def put(self, path: str, content: Content, metadata: Mapping[str, str], new: bool) -> None:
        kind = _TYPES.get(os.path.splitext(path)[1], "application/octet-stream")
        attributes = {"Content-Type": kind, **metadata}
        # In steps, so that few sizes need a client of their own.
        client = self._client(SECONDS * (1 + len(content) // (SLOWEST * SECONDS)))
        try:
            _interruptibly(
                lambda: call(
                    obstore.put,
                    client,
                    path,
                    content,
                    attributes=attributes,
                    mode="create" if new else "overwrite",
                    use_multipart=False,
                )
            )
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise Exists from None
        except _FAILURES as error:
            raise self._failure(Doing.WRITE, error) from None

    def names(self, prefix: str) -> list[str]:
        with self._listing():
            client = self._client(below=prefix)
            found = _interruptibly(lambda: call(obstore.list_with_delimiter, client), LIST_SECONDS)
        paths = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return [path.rpartition("/")[2] for path in paths]

    def objects(self, prefix: str) -> list[StoredObject]:
        with self._listing():
            listed = call(obstore.list, self._client(below=prefix))
            pages = _interruptibly(
                lambda: list(iter(lambda: call(next, listed, None), None)), LIST_SECONDS
            )
        return [
            StoredObject(
                StoreKey(f"{prefix}/{one['path']}"), one["size"], one["last_modified"].timestamp()
            )
            for page in pages
            for one in page
        ]

    def delete(self, path: str) -> None:
        try:
            call(obstore.delete, self._client(), path)
        except FileNotFoundError as error:
            if status_and_code(str(error))[1] in NO_BUCKET:
                raise self._failure(Doing.DELETE, error) from None
        except _FAILURES as error:
            raise self._failure(Doing.DELETE, error) from None

    @contextmanager
    def _listing(self) -> Iterator[None]:
        try:
            yield
        except FutureTimeout:
            raise self.place.error("its listing does not end: check the endpoint") from None
        except _FAILURES as error:
            raise self._failure(Doing.LIST, error) from None
        self._bucket_seen = True

    def _pieces(self, got: Any) -> Iterator[bytes]:
        try:
            yield from pieces(got, _PIECE)
        except _FAILURES as error:
            raise self._failure(Doing.READ, error) from None

    def _no_store(self) -> StoreError:
        server = self.place.server or "the endpoint"
        return self.place.error(f"{server} is not an object store: check the endpoint")

    def _failure(self, doing: Doing, error: BaseException) -> StoreError | Broken:
        if self._credentials and (failed := self._credentials.failed):
            return failed
        if isinstance(error, Panic):
            return self.place.error(str(error))
        text = str(error)
        status, code = status_and_code(text)
        return failure(self.place, doing, status, code, text)

    def _client(self, seconds: float = 0, below: str = "") -> Any:
        """below: a prefix. (obstore escapes the prefix of a listing, so `~` would find nothing.)"""
        seconds = seconds or SECONDS
        with self._making:  # credentials are asked for once
            if (seconds, below) not in self._clients:
                self._clients[seconds, below] = self._new_client(seconds, below)
            return self._clients[seconds, below]

    def _new_client(self, seconds: float, below: str) -> Any:
        timeouts = {
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=seconds),
        }
        more: dict[str, Any] = {}
        if prefix := "/".join(filter(None, (self._location.key, below))):
            more["prefix"] = prefix
        if self._credentials:
            provider, region = self._credentials.find()
            if region:
                self._plan.at_region(region)
            if provider:
                more["credential_provider"] = provider
        try:
            # Only `Tries` repeats requests: it has one deadline and says what it waits for.
            return self._plan.make(obstore.store, timeouts, **more)
        except _FAILURES as error:
            raise self._unusable(error) from None

    def _unusable(self, error: BaseException) -> StoreError:
        failed = self._failure(Doing.READ, error)
        if isinstance(failed, StoreError):
            return failed
        given = self._plan.settings.identity_variables() or "the environment"
        what = str(failed) if failed.again == 0 else "its settings are invalid"
        return self.place.error(f"{what}: check {given}")


def _interruptibly(work: Callable[[], Any], seconds: float | None = None) -> Any:
    """Do `work` on a thread, so that Ctrl-C ends the wait: obstore notices it only at its end.

    Raises FutureTimeout after so many seconds. The server discards a partial request.
    """
    return meanwhile(work).result(seconds)


def _found(got: Any) -> Found:
    meta, attributes = got.meta, got.attributes
    return Found(meta["size"], meta["e_tag"] or "", attributes.get(SHA256), attributes.get(WRITER))
