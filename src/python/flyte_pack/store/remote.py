"""Stores in object storage: what S3, Azure and Google Cloud Storage have in common.

An object is written by one request, which the server carries out whole or not at all, and only where there is no object
by that key: so nobody ever sees a part of one, a writer that is killed leaves nothing behind, and of two writers one
wins. With each object go its SHA-256 and a name of the writer's, by which a writer whose answer was lost finds out that
it was the one.
"""

from __future__ import annotations

import hashlib
import mmap
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Protocol, TypeVar, Union

from flyte_pack.http.retry import Broken, Timing, Tries
from flyte_pack.store import Blob, State, StoredObject, StoreError, check_key, too_large
from flyte_pack.store.trouble import Place

Content = Union[bytes, mmap.mmap]
SHA256, WRITER = "sha256", "writer"  # names of metadata; Azure takes letters and digits only
_IN_MEMORY = 8 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Found:
    """What a server says of an object. tag: another one for other content. sha256, writer: what was written beside it."""

    size: int
    tag: str
    sha256: str | None = None
    writer: str | None = None


class Exists(Exception):
    """There is an object by that key, or somebody else is writing one."""


class Backend(Protocol):
    """The requests to one kind of server, each sent once. They raise `Broken` where another try may help, `StoreError`
    where it can't. A path is a key of the store.
    """

    place: Place

    def head(self, path: str) -> Found | None:
        """What is there."""

    def get(
        self, path: str, offset: int = 0, tag: str | None = None
    ) -> tuple[Found, Iterator[bytes]] | None:
        """The content from `offset` on, of what `tag` says if there is one; None where there is nothing."""

    def put(self, path: str, content: Content, metadata: Mapping[str, str], new: bool) -> None:
        """Write all of an object; where it is to be `new` and is not, `Exists` is raised."""

    def names(self, prefix: str) -> list[str]:
        """The names directly below, in any order."""

    def objects(self, prefix: str) -> list[StoredObject]:
        """All objects below."""

    def delete(self, path: str) -> None:
        """Remove an object, if it is there."""


class RemoteStore:
    """A `flyte_pack.store.Store` of a `Backend`."""

    def __init__(self, backend: Backend, timing: Timing | None = None) -> None:
        self._backend, self._timing = backend, timing or Timing(sleep=time.sleep)
        self.uri = backend.place.uri

    def uri_of(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def size(self, key: str) -> int | None:
        check_key(key)
        found = self._tried(lambda: self._backend.head(key))
        return None if found is None else found.size

    def state(self, blob: Blob, deep: bool = False) -> State:
        check_key(blob.key)
        found = self._tried(lambda: self._backend.head(blob.key))
        if found is None:
            return State.MISSING
        if found.size != blob.size:
            return State.DAMAGED
        if found.sha256 is not None and not deep:
            return State.WHOLE if found.sha256 == blob.sha256 else State.DAMAGED
        # Whoever brought it here wrote no SHA-256 beside it, or we are to know for certain.
        digest = hashlib.sha256()
        for piece in self.stream(blob.key):
            digest.update(piece)
        return State.WHOLE if digest.hexdigest() == blob.sha256 else State.DAMAGED

    def read(self, key: str, limit: int) -> bytes | None:
        check_key(key)

        def attempt() -> bytes | None:
            got = self._backend.get(key)
            if got is None:
                return None
            found, pieces = got
            if found.size > limit:
                raise too_large(self.uri_of(key), found.size)
            data = b"".join(pieces)
            if len(data) != found.size:
                raise Broken("the answer was cut short")
            return data

        return self._tried(attempt)

    def stream(self, key: str) -> Iterator[bytes]:
        check_key(key)
        tries, offset = Tries(self._timing, self.uri), 0
        tag = None
        while True:
            try:
                got = self._backend.get(key, offset, tag)
                if got is None:
                    raise StoreError(f"{self.uri_of(key)} does not exist")
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

    def create(self, blob: Blob, content: Iterable[bytes]) -> bool:
        check_key(blob.key)
        writer = secrets.token_hex(16)
        metadata = {SHA256: blob.sha256, WRITER: writer}
        with _whole(blob, content) as whole:

            def attempt() -> bool:
                try:
                    self._backend.put(blob.key, whole, metadata, new=True)
                except Exists:
                    found = self._backend.head(blob.key)
                    if found is None:
                        raise Broken("somebody else writes the same object") from None
                    # It may be by an earlier try of ours, whose answer was lost.
                    return found.writer == writer
                return True

            return self._tried(attempt)

    def replace(self, blob: Blob, content: Iterable[bytes]) -> None:
        check_key(blob.key)
        metadata = {SHA256: blob.sha256, WRITER: secrets.token_hex(16)}
        with _whole(blob, content) as whole:
            self._tried(lambda: self._backend.put(blob.key, whole, metadata, new=False))

    def names(self, prefix: str) -> list[str]:
        check_key(prefix)
        return sorted(self._tried(lambda: self._backend.names(prefix)))

    def objects(self, prefix: str) -> list[StoredObject]:
        check_key(prefix)
        return sorted(self._tried(lambda: self._backend.objects(prefix)), key=lambda o: o.key)

    def delete(self, key: str) -> None:
        check_key(key)
        self._tried(lambda: self._backend.delete(key))

    def sweep(self) -> None:
        pass  # a writer that was killed leaves nothing here

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
                " (tried several times). What is written is whole; try later"
                if broken.again
                else ""
            )
            raise StoreError(f"{self.uri}{at}: {broken}{tried}") from None


@contextmanager
def _whole(blob: Blob, content: Iterable[bytes]) -> Iterator[Content]:
    """The content, checked to be what `blob` says; a large one lies in a file that has no name."""
    changed = StoreError(f"what was to become {blob.key} changed while it was read")
    size, digest, small = 0, hashlib.sha256(), blob.size <= _IN_MEMORY
    pieces: list[bytes] = []
    try:
        with tempfile.TemporaryFile() as file:
            for piece in content:
                size += len(piece)
                if size > blob.size:
                    raise changed
                digest.update(piece)
                if small:
                    pieces.append(piece)
                else:
                    file.write(piece)
            if (size, digest.hexdigest()) != (blob.size, blob.sha256):
                raise changed
            file.flush()
            # The map holds the file open, and is let go of with its last user.
            whole: bytes | mmap.mmap = b"".join(pieces)
            if not small:
                whole = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except OSError as error:
        raise StoreError(
            f"{blob.key} could not be copied to {tempfile.gettempdir()}: {error.strerror}. Name a directory with "
            f"{blob.size:,} bytes of room in TMPDIR"
        ) from None
    yield whole
