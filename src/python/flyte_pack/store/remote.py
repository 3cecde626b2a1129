"""Stores in object storage: what S3, Azure and Google Cloud Storage have in common.

One request writes an object, whole or not at all, and only if the key does not exist. So nobody
sees a partial object, a killed writer leaves nothing, and one of two writers wins. Each object's
metadata holds its SHA-256 and a random name of its writer, by which a writer that lost the response
can tell whether it won. Whoever may write an object may write any metadata, so a SHA-256 there
shows damage, never that an object is whole: that takes reading it, once for each of its tags.
"""

from __future__ import annotations

import mmap
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Protocol, TypeVar, Union

from flyte_pack import store
from flyte_pack.http.retry import Broken, Timing, Tries
from flyte_pack.remembered import Remembered
from flyte_pack.store.trouble import Place

Content = Union[bytes, mmap.mmap]
SHA256, WRITER = "sha256", "writer"  # names of metadata; Azure allows only letters and digits
_IN_MEMORY = 8 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Found:
    """A server's description of an object; the tag changes with the content."""

    size: int
    tag: str
    sha256: str | None = None
    writer: str | None = None


class Exists(Exception):
    """The key exists, or another writer is writing it."""


class Backend(Protocol):
    """The requests to one kind of server, each sent once; a path is a key of the store.

    They raise `Broken` if another try may help, else `StoreError`.
    """

    place: Place

    def head(self, path: str) -> Found | None: ...

    def get(
        self, path: str, offset: int = 0, tag: str | None = None
    ) -> tuple[Found, Iterator[bytes]] | None:
        """The content from `offset` on, which must still have the tag `tag`; None if missing."""

    def put(self, path: str, content: Content, metadata: Mapping[str, str], new: bool) -> None:
        """Write a whole object; raises `Exists` if it must be `new` and is not."""

    def names(self, prefix: str) -> list[str]:
        """The names directly below, in any order."""

    def objects(self, prefix: str) -> list[store.StoredObject]: ...

    def delete(self, path: str) -> None: ...


class RemoteStore:
    """A `Store` that sends its requests through a `Backend` and repeats failed ones."""

    at_once = 8

    def __init__(
        self,
        backend: Backend,
        timing: Timing | None = None,
        remembered: Remembered | None = None,
    ) -> None:
        """remembered: where it is kept which objects were read; None to read them each time."""
        self.remembered = remembered
        self._backend, self._timing = backend, timing or Timing(sleep=time.sleep)
        self.uri = backend.place.uri

    def uri_of(self, key: store.StoreKey) -> str:
        return f"{self.uri}/{key}"

    def size(self, key: store.StoreKey) -> int | None:
        store.check_key(key)
        found = self._tried(lambda: self._backend.head(key))
        return None if found is None else found.size

    def state(self, blob: store.Blob, deep: bool = False) -> store.State:
        store.check_key(blob.key)
        found = self._tried(lambda: self._backend.head(blob.key))
        if found is None:
            return store.State.MISSING
        if found.size != blob.size:
            return store.State.DAMAGED
        if found.sha256 not in (None, blob.sha256) and not deep:
            return store.State.DAMAGED
        fact = ("object", self.uri, blob.key, found.tag, str(blob.size), blob.sha256)
        remembered = self.remembered if found.tag else None
        if remembered and not deep and remembered.has(*fact):
            return store.State.WHOLE
        state = store.state_of(blob, self.stream(blob.key, found.tag))
        if remembered and state is store.State.WHOLE:
            remembered.add(*fact)
        return state

    def read(self, key: store.StoreKey, limit: int) -> bytes | None:
        store.check_key(key)

        def attempt() -> bytes | None:
            got = self._backend.get(key)
            if got is None:
                return None
            found, pieces = got
            if found.size > limit:
                raise store.too_large(self.uri_of(key), found.size)
            data = b"".join(pieces)
            if len(data) != found.size:
                raise Broken("the answer was cut short")
            return data

        return self._tried(attempt)

    def stream(self, key: store.StoreKey, tag: str | None = None) -> Iterator[bytes]:
        """tag: the object must still have it."""
        store.check_key(key)
        tries, offset = Tries(self._timing, self.uri), 0
        while True:
            try:
                got = self._backend.get(key, offset, tag)
                if got is None:
                    raise store.StoreError(f"{self.uri_of(key)} does not exist")
                found, pieces = got
                tag = found.tag
                for piece in pieces:
                    offset += len(piece)
                    tries.progress()
                    yield piece
            except Broken as broken:
                self._wait(tries, broken)
            else:
                if offset == found.size:
                    return
                self._wait(tries, Broken("the answer was cut short"))

    def create(self, blob: store.Blob, content: Iterable[bytes]) -> bool:
        store.check_key(blob.key)
        writer = secrets.token_hex(16)
        metadata = {SHA256: blob.sha256, WRITER: writer}
        with _whole(blob, content) as whole:

            def attempt() -> bool:
                try:
                    self._backend.put(blob.key, whole, metadata, new=True)
                except Exists:
                    found = self._backend.head(blob.key)
                    if found is None:
                        raise Broken("another writer writes the same object") from None
                    # An earlier try of ours may have written it and lost the response.
                    return found.writer == writer
                return True

            return self._tried(attempt)

    def replace(self, blob: store.Blob, content: Iterable[bytes]) -> None:
        store.check_key(blob.key)
        metadata = {SHA256: blob.sha256, WRITER: secrets.token_hex(16)}
        with _whole(blob, content) as whole:
            self._tried(lambda: self._backend.put(blob.key, whole, metadata, new=False))

    def names(self, prefix: str) -> list[str]:
        store.check_key(prefix)
        return sorted(self._tried(lambda: self._backend.names(prefix)))

    def objects(self, prefix: str) -> list[store.StoredObject]:
        store.check_key(prefix)
        return sorted(self._tried(lambda: self._backend.objects(prefix)), key=lambda o: o.key)

    def delete(self, key: store.StoreKey) -> None:
        store.check_key(key)
        self._tried(lambda: self._backend.delete(key))

    def sweep(self) -> None:
        pass  # a killed writer leaves nothing here

    def _tried(self, attempt: Callable[[], _T]) -> _T:
        tries = Tries(self._timing, self.uri)
        while True:
            try:
                return attempt()
            except Broken as broken:
                self._wait(tries, broken)

    def _wait(self, tries: Tries, broken: Broken) -> None:
        if not tries.again(broken):
            server = self._backend.place.server
            at = f" at {server}" if server else ""
            tried = (
                " (tried several times). No object is partial; try later" if broken.again else ""
            )
            raise store.StoreError(f"{self.uri}{at}: {broken}{tried}") from None


@contextmanager
def _whole(blob: store.Blob, content: Iterable[bytes]) -> Iterator[Content]:
    """The content, checked against `blob`; large content is in a file without a name."""
    pieces = store.checked(blob, content)
    whole: Content
    try:
        if blob.size <= _IN_MEMORY:
            whole = b"".join(pieces)
        else:
            with tempfile.TemporaryFile() as file:
                file.writelines(pieces)
                file.flush()
                # The map keeps the file open until its last user is gone.
                whole = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except OSError as error:
        raise store.StoreError(
            f"cannot copy {blob.key} to {tempfile.gettempdir()}: {error.strerror}. Set TMPDIR to a "
            f"directory with {blob.size:,} free bytes"
        ) from None
    yield whole
