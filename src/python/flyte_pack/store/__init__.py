"""A store keeps bundles and the records of deployments, by key.

`Store` is the interface; `opening.open_store` opens the store that a URI names. A store writes every
object once, and whole or not at all. An object is written before anything that points to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from flyte_pack.json_fields import Sha256
from flyte_pack.store.uris import StoreError as StoreError


class State(Enum):
    """What a store has where an object should be."""

    MISSING = "missing"
    WHOLE = "whole"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Blob:
    """An object by what it must be: its key, its size in bytes, its SHA-256 in lower-case hexadecimal digits."""

    key: str
    size: int
    sha256: Sha256


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing shows it: its size in bytes, and when it was written, in seconds since 1970."""

    key: str
    size: int
    modified: float


class Store(Protocol):
    """Objects by key. A key is one or more path segments with "/" between them. Every method raises `StoreError`."""

    @property
    def uri(self) -> str:
        """The store's own address, the same wherever the store is the same."""

    def uri_of(self, key: str) -> str:
        """The address by which a container gets the object."""

    def size(self, key: str) -> int | None:
        """Size in bytes of an object, None where there is none."""

    def state(self, blob: Blob, deep: bool = False) -> State:
        """Whether the object is there and is what it must be, by size and checksum.

        An object store is believed the SHA-256 that was written with the object, in one request; `deep` reads all of it.
        """

    def read(self, key: str, limit: int) -> bytes | None:
        """A whole small object, None where there is none. Raises `StoreError` for one above `limit` bytes."""

    def stream(self, key: str) -> Iterator[bytes]:
        """The content of an object that is there, piece by piece; where it breaks off, it goes on from there."""

    def create(self, blob: Blob, content: Iterable[bytes]) -> bool:
        """Write an object unless there is one by that key; returns whether it did.

        Nobody ever sees a part of it. Content that is not what `blob` says is refused. Of any number of writers at
        once, one gets True.
        """

    def replace(self, blob: Blob, content: Iterable[bytes]) -> None:
        """Write an object in the place of a damaged one: for repairs, the one way to change what was written."""

    def names(self, prefix: str) -> list[str]:
        """The names directly below the key `prefix`, sorted; none where there is nothing."""

    def objects(self, prefix: str) -> Sequence[StoredObject]:
        """All objects below the key `prefix`, however deep, in the order of their keys."""

    def delete(self, key: str) -> None:
        """Remove an object; there may be none."""

    def sweep(self) -> None:
        """Remove what writers that were killed left behind, and nothing of those that live."""


def verified(store: Store, blob: Blob) -> Iterator[bytes]:
    """The content of an object that is there, piece by piece; raises `StoreError` where it is not what `blob` says.

    That shows at the end: what was read until then is to be thrown away.
    """
    size, digest = 0, hashlib.sha256()
    for piece in store.stream(blob.key):
        size += len(piece)
        digest.update(piece)
        if size <= blob.size:
            yield piece
    if (size, digest.hexdigest()) != (blob.size, blob.sha256):
        raise StoreError(
            f"{store.uri_of(blob.key)} is damaged: it has another size or SHA-256 than was recorded. "
            "Deploy what it is of again with --repair, or bring it back from a backup"
        )


def blob_of(key: str, content: bytes) -> Blob:
    """What the object with `content` must be."""
    return Blob(key, len(content), Sha256(hashlib.sha256(content).hexdigest()))


def check_key(key: str) -> list[str]:
    """The segments of a key. Raises `StoreError`."""
    segments = key.split("/")
    if not {"", ".", ".."}.isdisjoint(segments) or "\0" in key:
        raise StoreError(f"{key!a:.200} is no key of a store")
    return segments


def too_large(what: str, size: int) -> StoreError:
    """For an object that cannot be the record that it should be."""
    return StoreError(
        f"{what} has {size} bytes, which is not what deploying writes there: is this a store?"
    )
