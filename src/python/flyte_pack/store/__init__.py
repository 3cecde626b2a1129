"""A store keeps bundles and the records of deployments, by key.

`Store` is the interface; `opening.open_store` opens the store that a URI names. A store writes
every object once, and whole or not at all. An object is written before anything that points to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NewType, Protocol

from flyte_pack.json_fields import Sha256
from flyte_pack.store.uris import StoreError as StoreError

# Path segments, joined by "/": the name of an object in a store.
StoreKey = NewType("StoreKey", str)


class State(Enum):
    """The state of an object in a store."""

    MISSING = "missing"
    WHOLE = "whole"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Blob:
    """What an object must be: its key, its size in bytes and its SHA-256 in hexadecimal digits."""

    key: StoreKey
    size: int
    sha256: Sha256


@dataclass(frozen=True)
class StoredObject:
    """An object in a listing: its size in bytes, and its time of writing in seconds since 1970."""

    key: StoreKey
    size: int
    modified: float


class Store(Protocol):
    """Objects by key: path segments, joined by "/". Every method raises `StoreError`."""

    @property
    def uri(self) -> str:
        """The store's URI; the same store always has the same URI."""

    @property
    def at_once(self) -> int:
        """How many requests are best sent at once."""

    def uri_of(self, key: StoreKey) -> str:
        """The URI by which a container reads the object."""

    def size(self, key: StoreKey) -> int | None:
        """The size of an object in bytes, None if there is none."""

    def state(self, blob: Blob, deep: bool = False) -> State:
        """Whether the object exists and has the right size and checksum.

        The whole object is read for this; `deep` is to read it even if this machine has read it
        before, and the server says that it is the same since.
        """

    def read(self, key: StoreKey, limit: int) -> bytes | None:
        """A whole small object, None if there is none; fails if it has more than `limit` bytes."""

    def stream(self, key: StoreKey) -> Iterator[bytes]:
        """The content of an existing object in pieces; resumes after a broken connection."""

    def create(self, blob: Blob, content: Iterable[bytes]) -> bool:
        """Write an object unless the key exists; returns whether it did.

        Nobody sees a partial object. Content that does not match `blob` is refused. Of several
        concurrent writers exactly one gets True.
        """

    def replace(self, blob: Blob, content: Iterable[bytes]) -> None:
        """Overwrite a damaged object; only repairs do this."""

    def names(self, prefix: str) -> list[str]:
        """The sorted names directly below the key `prefix`."""

    def objects(self, prefix: str) -> Sequence[StoredObject]:
        """All objects at any depth below the key `prefix`, sorted by key."""

    def delete(self, key: StoreKey) -> None:
        """Remove an object if it exists."""

    def sweep(self) -> None:
        """Remove what killed writers left, and nothing of living ones."""


def verified(store: Store, blob: Blob) -> Iterator[bytes]:
    """The content of an existing object in pieces; raises `StoreError` if it does not match `blob`.

    The error comes at the end; the caller must then discard what it has read.
    """
    damaged = (
        f"{store.uri_of(blob.key)} is damaged: its size or SHA-256 differs from the record. "
        "Deploy it again with --repair, or restore it from a backup"
    )
    return checked(blob, store.stream(blob.key), damaged)


def checked(blob: Blob, content: Iterable[bytes], message: str = "") -> Iterator[bytes]:
    """`content`; at its end raises `StoreError` with `message` if it does not match `blob`."""
    message = message or f"the content of {blob.key} changed while it was read"
    size, digest = 0, hashlib.sha256()
    for piece in content:
        size += len(piece)
        if size > blob.size:
            raise StoreError(message)
        digest.update(piece)
        yield piece
    if (size, digest.hexdigest()) != (blob.size, blob.sha256):
        raise StoreError(message)


def state_of(blob: Blob, content: Iterable[bytes]) -> State:
    """Whether `content` has the SHA-256 of `blob`."""
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    return State.WHOLE if digest.hexdigest() == blob.sha256 else State.DAMAGED


def blob_of(key: StoreKey, content: bytes) -> Blob:
    return Blob(key, len(content), Sha256(hashlib.sha256(content).hexdigest()))


def check_key(key: str) -> list[str]:
    """The segments of a key. Raises `StoreError`."""
    segments = key.split("/")
    if not {"", ".", ".."}.isdisjoint(segments) or "\0" in key:
        raise StoreError(f"{key!a:.200} is an invalid key")
    return segments


def too_large(what: str, size: int) -> StoreError:
    return StoreError(f"{what} has {size} bytes, too many for a record: is this a store?")
