"""Checks packaged bundles against their links, and finds out what a store lacks of them.

Others may write to a store. So what an index entry or a record says of a content is a claim: unless
its archive is byte for byte ours, it is read and its content hash computed before anybody uses it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from flyte_pack.deploy.contents import Wrong, check_bundle
from flyte_pack.deploy.records import StoredBundle, VersionRecord
from flyte_pack.errors import UserError
from flyte_pack.json_fields import InvalidData, Sha256
from flyte_pack.manifest import Manifest
from flyte_pack.meanwhile import all_of
from flyte_pack.names import TargetAddress
from flyte_pack.progress import Progress
from flyte_pack.remembered import Remembered
from flyte_pack.signing import Signer
from flyte_pack.store import Blob, State, Store, StoreKey, blob_of
from flyte_pack.task_link import LinkedBundle
from flyte_shim.hashing import sha256_file
from flyte_shim.signatures import MOST_BYTES, signed_text

_CHUNK = 1 << 20
_INDEX_LIMIT = 1 << 20


class Beaten(Exception):
    """Another deployer was first to say which archive a content has; the plan must be made anew."""


@dataclass(frozen=True)
class Put:
    """An object to write. source: a file's path, or the content. replace: a damaged object."""

    blob: Blob
    source: str | bytes
    replace: bool

    @property
    def names_others(self) -> bool:
        """Whether it is to be there only after what it names."""
        return isinstance(self.source, bytes)

    def into(self, store: Store, progress: Progress | None = None) -> bool:
        """Write it; returns whether that was needed. Raises `Beaten` if another is there."""
        content = [self.source] if isinstance(self.source, bytes) else _chunks(self.source)
        if progress:
            content = progress.of(content)
        if self.replace:
            store.replace(self.blob, content)
            return True
        created = store.create(self.blob, content)
        if not created and store.state(self.blob) is not State.WHOLE:
            raise Beaten
        return created


@dataclass(frozen=True)
class Settled:
    """A bundle as the store has it, or will have it after `puts`, which are in order.

    status: "new"; or "unchanged" or "repair", where it is there already, whole or not.
    """

    bundle: StoredBundle
    status: str
    puts: tuple[Put, ...]

    def named_by(self, record: VersionRecord) -> Settled:
        """Without a manifest that the record, which is there already, does not name."""
        named = next((b for b in record.bundles if b.archive == self.bundle.archive), self.bundle)
        if self.status != "unchanged" or named == self.bundle:
            return self
        return Settled(named, self.status, ())


def check_files(directory: str, address: TargetAddress, bundle: LinkedBundle) -> None:
    """Raises `UserError` unless archive and manifest are there and are what the link says."""
    expected = (
        (bundle.archive, bundle.archive_size, bundle.archive_hash),
        (bundle.manifest, bundle.manifest_size, bundle.manifest_hash),
    )
    listed = (
        () if bundle.sbom is None else ((bundle.sbom.path, bundle.sbom.size, bundle.sbom.sha256),)
    )
    for name, size, sha256 in (*expected, *listed):
        path = os.path.join(directory, name)
        try:
            whole = os.path.getsize(path) == size and sha256_file(path) == sha256
        except OSError as error:
            raise UserError(
                f"{address}: its bundle {name} cannot be read: {error.strerror}. Package it again"
            ) from None
        if not whole:
            raise UserError(
                f"{address}: its bundle {name} is not the one that was packaged for it. "
                "Package it again"
            )


def settle(store: Store, directory: str, ours: LinkedBundle, repair: bool) -> Settled:
    """Which archive and manifest stand for a bundle's content in the store, and what to write.

    The first deployer decides: if the index has the content, its archive is used, even if ours
    differs (made with another compressor). So is its manifest, unless the archive is ours: then
    ours goes beside it, as it tells which dependencies were there this time. `repair`: whether
    damaged objects may be replaced. Writes nothing. Raises `UserError`.
    """
    mine = StoredBundle(**ours.hashes)
    try:
        indexed = _indexed(store, mine)
    except InvalidData as error:
        if not repair:
            raise InvalidData(f"{error}. To write it anew, deploy with --repair") from None
        return _with_ours(store, directory, ours, mine, repair, replace_index=True)
    if indexed is None:
        return _with_ours(store, directory, ours, mine, repair, replace_index=False)
    blobs = (indexed.archive, indexed.manifest)
    states = _states(store, blobs)
    if all(state is State.WHOLE for state in states.values()):
        wrong = None if indexed == mine else _falsehood(store, indexed)
        if wrong is None:
            if indexed.archive == mine.archive and indexed.manifest != mine.manifest:
                return _with_our_manifest(store, directory, ours, mine, repair)
            return Settled(indexed, "unchanged", ())
        if not repair:
            raise UserError(
                f"{store.uri_of(mine.index_key)} says that {store.uri_of(wrong.blob.key)} is of "
                f"the content that is deployed here, and that is false: {wrong}. Somebody who may "
                "write to the store made it. To use what this build made from now on, deploy with "
                "--repair"
            )
        return _with_ours(store, directory, ours, mine, repair, replace_index=True)
    if indexed == mine:
        return _with_ours(store, directory, ours, mine, repair, replace_index=None)
    if not repair:
        worst = next(blob for blob, state in states.items() if state is not State.WHOLE)
        raise UserError(
            f"{store.uri_of(worst.key)} is {states[worst].value}, and this build makes another "
            "archive or manifest of the same content. Bring it back from a backup; or deploy with "
            "--repair, which uses this build's from now on (versions that name the other one stay "
            "without it)"
        )
    return _with_ours(store, directory, ours, mine, repair, replace_index=True)


def list_all(
    store: Store, directory: str, bundles: Iterable[LinkedBundle], repair: bool
) -> tuple[Put, ...]:
    """The inventories to write, of bundles that have one. Raises `UserError` for a damaged one."""
    wanted = {
        StoredBundle(**bundle.hashes).inventory(bundle.sbom): bundle.sbom.path
        for bundle in bundles
        if bundle.sbom is not None
    }
    states = _states(store, list(wanted))
    for blob, state in states.items():
        if state is State.DAMAGED and not repair:
            raise _damaged(store, blob)
    return tuple(
        Put(blob, os.path.join(directory, wanted[blob]), replace=state is State.DAMAGED)
        for blob, state in states.items()
        if state is not State.WHOLE
    )


def unsigned(
    store: Store, bundles: Iterable[StoredBundle], signer: Signer, repair: bool
) -> tuple[tuple[StoreKey, Sha256, bool], ...]:
    """What `signer` has yet to sign: the key of the signature, the archive's hash, and whether a
    damaged one is to be replaced. Raises `UserError` for a damaged one if that must not be.
    """
    found = []
    for bundle in dict.fromkeys(bundles):
        key = bundle.signature_key(signer.key_id)
        size = store.size(key)
        data = None if size is None else b""
        if size and size <= MOST_BYTES:
            data = store.read(key, MOST_BYTES)
        if data is not None and signer.is_mine(signed_text(bundle.archive_hash), _decoded(data)):
            continue
        if data is not None and not repair:
            raise UserError(
                f"{store.uri_of(key)} is damaged: it is not the signature that its name says. To "
                "sign anew, deploy with --repair"
            )
        found.append((key, bundle.archive_hash, data is not None))
    return tuple(found)


def signature(signer: Signer, archive_hash: Sha256) -> bytes:
    """The content of a signature's file. Raises `SigningError`."""
    return base64.b64encode(signer.sign(signed_text(archive_hash))) + b"\n"


def _decoded(data: bytes) -> bytes:
    try:
        return base64.b64decode(data.strip(), validate=True)
    except ValueError:
        return b""


def check_whole(store: Store, bundles: Iterable[StoredBundle]) -> None:
    """Raises `UserError` unless archive and manifest of each are whole, and hold its content."""
    for bundle in bundles:
        for blob in (bundle.archive, bundle.manifest):
            state = store.state(blob)
            if state is not State.WHOLE:
                raise UserError(
                    f"{store.uri_of(blob.key)} is {state.value}. Bring it back from a backup, or "
                    "deploy the commit that made it again, with --repair"
                )
        wrong = _falsehood(store, bundle)
        if wrong is not None:
            raise UserError(
                f"{store.uri_of(wrong.blob.key)} is not of the content that the version's record "
                f"names: {wrong}. The record is false: deploy the commit that it should be of"
            )


def check_kept(store: Store, bundles: Iterable[StoredBundle]) -> None:
    """Raises `Beaten` if somebody has pruned a bundle before our record named it."""
    for bundle in bundles:
        keys = (bundle.index_key, bundle.archive.key, bundle.manifest.key)
        if None in all_of((partial(store.size, key) for key in keys), store.at_once):
            raise Beaten


def _falsehood(store: Store, bundle: StoredBundle) -> Wrong | None:
    """What is wrong if its archive and manifest, which are whole, are of another content.

    That follows from the hashes alone, so it is remembered.
    """
    fact = ("bundle", *map(str, bundle.hashes.values()))
    remembered = Remembered()
    if not remembered.has(*fact):
        try:
            check_bundle(store, bundle)
        except Wrong as wrong:
            return wrong
        remembered.add(*fact)
    return None


def _indexed(store: Store, mine: StoredBundle) -> StoredBundle | None:
    data = store.read(mine.index_key, _INDEX_LIMIT)
    if data is None:
        return None
    what = store.uri_of(mine.index_key)
    indexed = StoredBundle.from_json(data, what)
    if indexed.content_hash != mine.content_hash:
        raise InvalidData(f"{what}: is about another content")
    return indexed


def _with_our_manifest(
    store: Store, directory: str, ours: LinkedBundle, mine: StoredBundle, repair: bool
) -> Settled:
    """The archive that is there, with what we know of it; the index entry stays as it is."""
    state = store.state(mine.manifest)
    if state is State.WHOLE:
        return Settled(mine, "unchanged", ())
    if state is State.DAMAGED and not repair:
        raise _damaged(store, mine.manifest)
    _check_manifest(directory, ours)
    path = os.path.join(directory, ours.manifest)
    put = Put(mine.manifest, path, replace=state is State.DAMAGED)
    return Settled(mine, "repair" if put.replace else "unchanged", (put,))


def _damaged(store: Store, blob: Blob) -> UserError:
    return UserError(
        f"{store.uri_of(blob.key)} is damaged: it has another size or SHA-256 than its name says. "
        "To replace it by what this build made, deploy with --repair"
    )


def _with_ours(
    store: Store,
    directory: str,
    ours: LinkedBundle,
    mine: StoredBundle,
    repair: bool,
    replace_index: bool | None,
) -> Settled:
    """Archive, manifest, then the index entry that names them (`replace_index` None: it does)."""
    puts = []
    blobs = (mine.archive, mine.manifest)
    states = _states(store, blobs)
    for blob, name in zip(blobs, (ours.archive, ours.manifest)):
        state = states[blob]
        if state is State.DAMAGED and not repair:
            raise _damaged(store, blob)
        if state is not State.WHOLE:
            puts.append(Put(blob, os.path.join(directory, name), replace=state is State.DAMAGED))
    _check_manifest(directory, ours)
    if replace_index is not None:
        content = mine.to_json()
        puts.append(Put(blob_of(mine.index_key, content), content, replace=replace_index))
    repairs = replace_index is None or any(put.replace for put in puts)
    return Settled(mine, "repair" if repairs else "new", tuple(puts))


def _states(store: Store, blobs: Sequence[Blob]) -> dict[Blob, State]:
    found = all_of((partial(store.state, blob) for blob in blobs), store.at_once)
    return dict(zip(blobs, found))


def _check_manifest(directory: str, ours: LinkedBundle) -> None:
    """Refuse a manifest that contradicts its link before it gets into the store."""
    with open(os.path.join(directory, ours.manifest), "rb") as file:
        data = file.read()
    try:
        manifest = Manifest.from_json(data)
    except InvalidData as error:
        raise UserError(f"{ours.manifest}: {error}. Package it again") from None
    found = (manifest.content_hash, manifest.archive_hash, manifest.archive_size)
    if found != (ours.content_hash, ours.archive_hash, ours.archive_size):
        raise UserError(
            f"{ours.manifest} is the manifest of another archive than {ours.archive}. "
            "Package it again"
        )


def _chunks(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise UserError(f"{path} cannot be read any more: {error.strerror}") from None
