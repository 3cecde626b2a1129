"""A store: where bundles and the records of deployments are kept, by key.

`Store` is what deploying needs of one; `open_store` finds the one that a URI names. Every object is written once, whole
or not at all; objects that anything may point to are written before what points to them.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Callable, Protocol


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


SCHEMES = ("file", "s3", "gs", "abfs", "abfss")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# What each cloud allows, in short: its rules for new ones.
_BUCKETS = {
    "s3": (r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "a bucket (3 to 63 of a-z, 0-9, '.' and '-')"),
    "gs": (r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", "a bucket (3 or more of a-z, 0-9, '.', '_' and '-')"),
    "abfs": (r"(?=.{3,63}$)[a-z0-9](?:-?[a-z0-9])*", "a container (3 to 63 of a-z, 0-9 and single '-')"),
}  # fmt: skip
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}\.(?:dfs|blob)\.core(?:\.[a-z0-9-]+)+")
_EXAMPLES = {
    "s3": "s3://bucket/prefix",
    "gs": "gs://bucket/prefix",
    "abfs": "abfss://container@account.dfs.core.windows.net/prefix, or abfs://container/prefix with the account in "
    "AZURE_STORAGE_ACCOUNT_NAME",
}


def check_store_uri(uri: str) -> str:
    """`uri`, if `open_store` knows how to open such a one; looks at nothing but the text. Raises `StoreError`.

    The message repeats no text that may hold a password or a signature.
    """
    match = _SCHEME.fullmatch(uri)
    if match is None:
        raise StoreError(
            "a store is given as a URI, like s3://bucket/prefix, file:///srv/flyte or file://dist/flyte"
        )
    scheme, rest = match[1].lower(), match[2]
    authority, _, path = rest.partition("/")
    bucket, at, host = authority.partition("@")
    azure = scheme in ("abfs", "abfss")
    names_account = azure and at and _ACCOUNT.fullmatch(host) and ":" not in bucket
    if (at and not names_account) or (scheme != "file" and "@" in path):
        form = f". Azure's form is {_EXAMPLES['abfs']}" if azure else ""
        raise StoreError(
            "a store's URI must not hold a user or password: it would end up in commands and records. "
            f"Take it out, and give the credentials by the environment{form}"
        )
    odd = next((c for c in rest if not c.isprintable() or c in "?#%\\"), None)
    if odd is not None:
        raise StoreError(
            f"a store's URI must not hold {odd!a}: it means something else in some URIs"
        )
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise StoreError(f"{scheme}:// is no store that this pants-flyte knows; it knows {known}")
    if scheme == "file":
        return _check_file(uri, rest)
    kind = "abfs" if azure else scheme
    pattern, what = _BUCKETS[kind]
    if not re.fullmatch(pattern, bucket) or ".." in bucket:
        raise StoreError(f"this {scheme}:// URI names no {what[2:]}: write {_EXAMPLES[kind]}")
    prefix = path.rstrip("/")
    if prefix and {"", ".", ".."} & set(prefix.split("/")):
        raise StoreError(
            f"{uri!r:.200} has an empty, '.' or '..' part: write {_EXAMPLES[kind]} without"
        )
    return uri


def _check_file(uri: str, rest: str) -> str:
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


def open_store(uri: str, cwd: str, say: Callable[[str], object] | None = None) -> Store:
    """The store that `uri` names; a relative `file://` path is below the directory `cwd`. Writes and asks for nothing.

    Object stores are reached by what the environment says. say: is told of each pause before a request is sent again.
    Raises `StoreError`.
    """
    scheme, _, rest = check_store_uri(uri).partition("://")
    if scheme.lower() != "file":
        from flyte_pack.registry.retry import Timing
        from flyte_pack.store.remote import remote_store

        timing = Timing(time.sleep) if say is None else Timing(time.sleep, say=say)
        return remote_store(f"{scheme.lower()}://{rest.rstrip('/')}", os.environ, timing)
    from flyte_pack.store.file import FileStore

    path = os.path.join(cwd, rest.rstrip("/"))
    check_store_uri(f"file://{path}")
    return FileStore(path)


def read(store: Store, key: str, limit: int) -> bytes | None:
    """As `Store.read`."""
    return store.read(key, limit)


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
    return Blob(key, len(content), hashlib.sha256(content).hexdigest())


def check_key(key: str) -> list[str]:
    """The segments of a key. Raises `StoreError`."""
    segments = key.split("/")
    if not {"", ".", ".."}.isdisjoint(segments) or "\0" in key:
        raise StoreError(f"{key!a:.200} is no key of a store")
    return segments


def too_large(what: str, size: int) -> StoreError:
    """For an object that can not be the record that it should be."""
    return StoreError(
        f"{what} has {size} bytes, which is not what deploying writes there: is this a store?"
    )
