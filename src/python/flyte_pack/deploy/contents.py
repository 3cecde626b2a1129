"""What a store really has of a bundle: every claim about it is computed again from the bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from flyte_pack.deploy.records import StoredBundle
from flyte_pack.json_fields import InvalidData
from flyte_pack.manifest import Manifest
from flyte_pack.progress import Progress
from flyte_pack.store import Blob, Store, StoreError
from flyte_shim import shown
from flyte_shim.errors import ArchiveError
from flyte_shim.extract import Limits, read_members

_MANIFEST_LIMIT = 1 << 30
# Containers have limits of their own; here only whole archives matter.
_LIMITS = Limits(archive_bytes=1 << 62, files=1 << 40, total_bytes=1 << 62)


class Wrong(Exception):
    """What is wrong with an object. status: "missing" or "damaged"; blob: what it should be."""

    def __init__(self, blob: Blob, status: str, problem: str) -> None:
        super().__init__(problem)
        self.blob, self.status = blob, status


def check_bundle(store: Store, bundle: StoredBundle) -> None:
    """Raises `Wrong` unless the archive and manifest are those, and hold that very content."""
    check_archive(store, bundle.archive, read_manifest(store, bundle))


def read_manifest(store: Store, bundle: StoredBundle) -> Manifest:
    """The manifest, which is about that content and archive. Raises `Wrong`."""
    blob = bundle.manifest
    try:
        data = store.read(blob.key, _MANIFEST_LIMIT)
    except StoreError as error:
        raise Wrong(blob, "damaged", str(error)) from None
    if data is None:
        raise Wrong(blob, "missing", "it is not in the store")
    _check(blob, len(data), hashlib.sha256(data).hexdigest())
    try:
        manifest = Manifest.from_json(data)
    except InvalidData as error:
        raise Wrong(blob, "damaged", shown.printable(str(error))) from None
    found = (manifest.content_hash, manifest.archive_hash, manifest.archive_size)
    if found != (bundle.content_hash, bundle.archive_hash, bundle.archive_size):
        raise Wrong(blob, "damaged", "it describes another archive than the record names")
    return manifest


def check_archive(
    store: Store, blob: Blob, manifest: Manifest | None, progress: Progress | None = None
) -> None:
    """Read it once, for its own hash and for each file, which must be as the manifest says.

    A manifest's own content hash covers what it says about files. Raises `Wrong`.
    """
    try:
        size = store.size(blob.key)
        if size is None:
            raise Wrong(blob, "missing", "it is not in the store")
        _check_size(blob, size)
        content = store.stream(blob.key)
        stream = _Hashed(progress.of(content) if progress else content)
        inner: str | None = None
        try:
            inner = _differs(stream, manifest)
        except ArchiveError as error:
            inner = str(error)
        stream.drain()
    except StoreError as error:
        raise Wrong(blob, "damaged", str(error)) from None
    _check(blob, stream.size, stream.sha256)
    if inner is not None:
        raise Wrong(blob, "damaged", shown.printable(inner))


def _differs(stream: _Hashed, manifest: Manifest | None) -> str | None:
    """How the archive's files differ from the manifest's, if they do. Raises `ArchiveError`."""
    expected = {file.path: file for file in manifest.files} if manifest else {}
    for path, executable, chunks in read_members(cast(BinaryIO, stream), _LIMITS):
        size, digest = 0, hashlib.sha256()
        file = expected.pop(path, None)
        if manifest is not None and file is None:
            return f"it holds {path!r:.200}, or holds it twice, and its manifest does not"
        another = f"{path!r:.200} in it is another than its manifest says"
        for chunk in chunks:
            size += len(chunk)
            if file is not None and size > file.size:
                return another  # whoever wrote it must not have us inflate more than there is
            digest.update(chunk)
        mode = 0o755 if executable else 0o644
        if file and (size, mode, digest.hexdigest()) != (file.size, file.mode, file.sha256):
            return another
    if expected:
        return f"it lacks {next(iter(expected))!r:.200}, which its manifest has"
    return None


class _Hashed:
    """A stream as a file to read from, hashed on the way."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._digest = hashlib.sha256()
        self.size = 0

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; none at the end only."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._digest.update(chunk)
            self.size += len(chunk)
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:count], self._rest[count:]
        return bytes(piece)

    def drain(self) -> None:
        while self.read(1 << 20):
            pass

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _check_size(blob: Blob, size: int) -> None:
    if size != blob.size:
        raise Wrong(blob, "damaged", f"it has {size:,} bytes, not {blob.size:,}")


def _check(blob: Blob, size: int, sha256: str) -> None:
    _check_size(blob, size)
    if sha256 != blob.sha256:
        raise Wrong(blob, "damaged", f"its SHA-256 is {sha256}, not {blob.sha256}")
