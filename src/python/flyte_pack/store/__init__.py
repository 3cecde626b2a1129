"""A store: where bundles and the records of deployments are kept, by key.

`Store` is what deploying needs of one; `open_store` finds the one that a URI names. Every object is written once, whole
or not at all; objects that anything may point to are written before what points to them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class StoreError(Exception):
    """A store that can not be used, or holds what it must not; the message says which and what to do."""


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
    sha256: str


class Store(Protocol):
    """Objects by key. A key is one or more path segments with "/" between them. Every method raises `StoreError`."""

    @property
    def uri(self) -> str:
        """The store's own address, the same wherever the store is the same."""

    def uri_of(self, key: str) -> str:
        """The address by which a container gets the object."""

    def size(self, key: str) -> int | None:
        """Size in bytes of an object, None where there is none."""

    def state(self, blob: Blob) -> State:
        """Whether the object is there and is what it must be, by size and checksum."""

    def stream(self, key: str) -> Iterator[bytes]:
        """The content of an object that is there, piece by piece."""

    def create(self, blob: Blob, content: Iterable[bytes]) -> bool:
        """Write an object unless there is one by that key; returns whether it did.

        Nobody ever sees a part of it. Content that is not what `blob` says is refused. Of any number of writers at
        once, one gets True.
        """

    def replace(self, blob: Blob, content: Iterable[bytes]) -> None:
        """Write an object in the place of a damaged one: for repairs, the one way to change what was written."""

    def names(self, prefix: str) -> list[str]:
        """The names directly below the key `prefix`, sorted; none where there is nothing."""

    def sweep(self) -> None:
        """Remove what writers that were killed left behind, and nothing of those that live."""


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def check_store_uri(uri: str) -> str:
    """`uri`, if `open_store` knows how to open such a one; looks at nothing but the text. Raises `StoreError`.

    The message repeats no text that may hold a password or a signature.
    """
    match = _SCHEME.fullmatch(uri)
    if match is None:
        raise StoreError("a store is given as a URI, like file:///srv/flyte or file://dist/flyte")
    scheme, rest = match[1].lower(), match[2]
    if "@" in rest.partition("/")[0] or (scheme != "file" and "@" in rest):
        raise StoreError(
            "a store's URI must not hold a user or password: it would end up in commands and records. "
            "Take it out, and give the credentials by the environment"
        )
    odd = next((c for c in rest if not c.isprintable() or c in "?#%\\"), None)
    if odd is not None:
        raise StoreError(
            f"a store's URI must not hold {odd!a}: it means something else in some URIs"
        )
    if scheme != "file":
        raise StoreError(f"{scheme}:// is no store that this pants-flyte knows; it knows file://")
    path = rest.rstrip("/")
    if not path or {"", ".", ".."} & set(path.lstrip("/").split("/")) or rest.startswith("//"):
        raise StoreError(
            f"{uri!r:.200} names no directory: write file:///srv/flyte, or file://dist/flyte for one below the build "
            "root, with no empty, '.' or '..' part"
        )
    if path.partition("/")[0] == "localhost":
        raise StoreError(
            "file://localhost/... reads two ways: write file:///... for an absolute path"
        )
    return uri


def open_store(uri: str, cwd: str) -> Store:
    """The store that `uri` names; a relative `file://` path is below the directory `cwd`. Writes nothing.

    Raises `StoreError`.
    """
    from flyte_pack.store.file import FileStore

    path = os.path.join(cwd, check_store_uri(uri).partition("://")[2].rstrip("/"))
    check_store_uri(f"file://{path}")
    return FileStore(path)


def read(store: Store, key: str, limit: int) -> bytes | None:
    """A whole small object, None where there is none. Raises `StoreError` for one above `limit` bytes."""
    size = store.size(key)
    if size is None:
        return None
    if size > limit:
        raise StoreError(
            f"{store.uri_of(key)} has {size} bytes, which is not what deploying writes there: is this a store?"
        )
    return b"".join(store.stream(key))


def blob_of(key: str, content: bytes) -> Blob:
    """What the object with `content` must be."""
    return Blob(key, len(content), hashlib.sha256(content).hexdigest())
