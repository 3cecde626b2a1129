"""The backend for Google Cloud Storage, by its JSON API.

https://cloud.google.com/storage/docs/json_api/v1. docs/dependencies.md says why not by obstore.
"""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime, timezone
from hashlib import md5
from threading import Lock
from typing import Any
from urllib.parse import quote, urlencode

from flyte_pack.http import HttpError
from flyte_pack.http.retry import Broken
from flyte_pack.http.transport import Answer, Transport
from flyte_pack.store import StoredObject, StoreError, StoreKey
from flyte_pack.store.credentials import GoogleCredentials
from flyte_pack.store.remote import SHA256, WRITER, Content, Exists, Found
from flyte_pack.store.trouble import Doing, Place, failure
from flyte_shim.store_settings import GCS, Settings
from flyte_shim.stores import Location, endpoint_of, gcs_is_anonymous

ENDPOINT = "https://storage.googleapis.com"
SECONDS = 30.0  # without a byte
MOST_PAGES = 20_000  # of a listing, 1,000 objects each
_FIELDS = "size,generation,metadata"
_LISTED = "prefixes,nextPageToken,items(name,size,updated)"
_CODES = {"rateLimitExceeded": "SlowDown", "userRateLimitExceeded": "SlowDown"}


class GcsBackend:
    """A `flyte_pack.store.remote.Backend`; the location's key is the store's prefix."""

    def __init__(self, place: Place, location: Location, environ: Mapping[str, str]) -> None:
        """Raises UsageError, which names a variable."""
        self.place = place
        settings = Settings(GCS, environ)
        self._endpoint = endpoint_of(location, settings) or ENDPOINT
        if self._endpoint.startswith("https:"):
            settings.get("authorities")  # `Transport` reads that file, and cannot name the variable
        self._credentials, self._signing = None, Lock()
        if not gcs_is_anonymous(settings):
            self._credentials = GoogleCredentials(place, settings)
        self._transport = Transport(read_seconds=SECONDS)
        self._objects = f"/storage/v1/b/{quote(location.bucket, safe='')}/o"
        self._prefix = f"{location.key}/" if location.key else ""
        self._bucket_seen = False

    def head(self, path: str) -> Found | None:
        answer = self._send("GET", self._url(path, fields=_FIELDS))
        if answer.status == 404:
            self._know_bucket()
            return None
        found = self._document(Doing.READ, answer)
        metadata, tag = found.get("metadata") or {}, str(found.get("generation", ""))
        size = _number(found.get("size"))
        if size is None or not isinstance(metadata, dict):
            raise self._no_store()
        return Found(size, tag, metadata.get(SHA256), metadata.get(WRITER))

    def get(
        self, path: str, offset: int = 0, tag: str | None = None
    ) -> tuple[Found, Iterator[bytes]] | None:
        same = {"generation": tag} if tag else {}
        url = self._url(path, alt="media", **same)
        sent = {"Range": f"bytes={offset}-"} if offset else {}
        with ExitStack() as stack:
            response = stack.enter_context(self._transport.open("GET", url, self._signed(sent)))
            headers = {name.lower(): value for name, value in response.headers.items()}
            if response.status not in (200, 206):
                answer = self._transport.read(response, "GET", url)
                if answer.status == 404 and tag:
                    raise StoreError(f"{self.place.uri}/{path} was changed while it was read")
                if answer.status == 404:
                    self._know_bucket()
                    return None
                raise self._failure(Doing.READ, answer)
            self._bucket_seen = True
            if offset and response.status != 206:
                raise self.place.error("the server ignores ranges: check the endpoint")
            whole = headers.get("content-range", "").rpartition("/")[2]
            whole = whole or headers.get("content-length", "")
            size = _number(whole)
            if size is None:
                raise Broken("the response has no size")
            found = Found(size, headers.get("x-goog-generation", tag or ""))
            pieces = self._transport.pieces(response)
            return found, _closing(pieces, stack.pop_all())
        raise AssertionError("unreachable")

    def put(self, path: str, content: Content, metadata: Mapping[str, str], new: bool) -> None:
        # One request with two parts (RFC 2387): the metadata and the object.
        boundary = secrets.token_hex(16)
        kind = "application/json" if path.endswith(".json") else "application/octet-stream"
        described = {
            "name": f"{self._prefix}{path}",
            "contentType": kind,
            "metadata": dict(metadata),
            "md5Hash": b64encode(md5(content, usedforsecurity=False).digest()).decode(),
        }
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode(),
                json.dumps(described).encode(),
                f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode(),
                content,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        url = f"{self._endpoint}/upload{self._objects}?uploadType=multipart"
        if new:
            url += "&ifGenerationMatch=0"
        sent = {"Content-Type": f"multipart/related; boundary={boundary}"}
        answer = self._send("POST", url, sent, body)
        if answer.status == 412 and new:
            raise Exists
        self._document(Doing.WRITE, answer)

    def names(self, prefix: str) -> list[str]:
        pages = self._pages(prefix, delimiter="/")
        return [
            name.rstrip("/").rpartition("/")[2]
            for page in pages
            for name in (*page.prefixes, *(name for name, _, _ in page.items))
        ]

    def objects(self, prefix: str) -> list[StoredObject]:
        cut = len(self._prefix)
        return [
            StoredObject(StoreKey(name[cut:]), size, seconds)
            for page in self._pages(prefix)
            for name, size, seconds in page.items
        ]

    def delete(self, path: str) -> None:
        answer = self._send("DELETE", self._url(path))
        if answer.status == 404:
            self._know_bucket()
        elif answer.status not in (200, 204):
            raise self._failure(Doing.DELETE, answer)

    def _pages(self, prefix: str, **more: str) -> Iterator[_Page]:
        asked = {"prefix": f"{self._prefix}{prefix}/", "maxResults": "1000"}
        token = ""
        seen: set[str] = set()
        while token not in seen and len(seen) < MOST_PAGES:
            seen.add(token)
            document = self._list({**asked, **more, **({"pageToken": token} if token else {})})
            try:
                page = _Page(document, asked["prefix"])
            except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
                raise self._no_store() from None
            yield page
            token = page.next
            if not token:
                return
        raise self.place.error("its listing does not end: check the endpoint")

    def _list(self, asked: dict[str, str]) -> dict[str, Any]:
        query = urlencode({**asked, "fields": _LISTED})
        answer = self._send("GET", f"{self._endpoint}{self._objects}?{query}")
        return self._document(Doing.LIST, answer)

    def _know_bucket(self) -> None:
        """Raise if the bucket is missing, not only an object."""
        if not self._bucket_seen:
            self._list({"maxResults": "1", "prefix": self._prefix})

    def _document(self, doing: Doing, answer: Answer) -> dict[str, Any]:
        if answer.status != 200:
            raise self._failure(doing, answer)
        try:
            document = json.loads(answer.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._no_store()
        self._bucket_seen = True
        return document

    def _url(self, path: str, **query: str) -> str:
        tail = f"?{urlencode(query)}" if query else ""
        return f"{self._endpoint}{self._objects}/{quote(self._prefix + path, safe='')}{tail}"

    def _signed(self, headers: Mapping[str, str]) -> dict[str, str]:
        if self._credentials is None:
            return dict(headers)
        with self._signing:
            return {**headers, "Authorization": self._credentials.header()}

    def _send(
        self, method: str, url: str, headers: Mapping[str, str] = {}, body: bytes | None = None
    ) -> Answer:
        try:
            return self._transport.send(method, url, self._signed(headers), body)
        except HttpError:
            raise self._no_store() from None

    def _no_store(self) -> StoreError:
        return self.place.error("the server is not an object store: check the endpoint")

    def _failure(self, doing: Doing, answer: Answer) -> StoreError | Broken:
        try:
            reason = json.loads(answer.body)["error"]["errors"][0]["reason"]
        except (ValueError, LookupError, TypeError, RecursionError):
            reason = None
        code = _CODES.get(reason) if isinstance(reason, str) else None
        return failure(self.place, doing, answer.status, code)


class _Page:
    """One page of a listing. Raises several kinds of errors for what is none."""

    def __init__(self, document: dict[str, Any], prefix: str) -> None:
        self.next = document.get("nextPageToken") or ""
        self.prefixes: list[str] = document.get("prefixes") or []
        self.items = [
            (item["name"], int(item["size"]), _seconds(item["updated"]))
            for item in document.get("items") or []
        ]
        names = (*self.prefixes, *(name for name, _, _ in self.items))
        if not isinstance(self.next, str) or not all(name.startswith(prefix) for name in names):
            raise ValueError


def _number(value: object) -> int | None:
    """A size, which JSON has as text."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _seconds(moment: str) -> float:
    """Parses RFC 3339, always UTC here; the fraction has any number of digits."""
    whole = datetime.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S")
    return whole.replace(tzinfo=timezone.utc).timestamp()


def _closing(pieces: Iterator[bytes], stack: ExitStack) -> Iterator[bytes]:
    with stack:
        yield from pieces
