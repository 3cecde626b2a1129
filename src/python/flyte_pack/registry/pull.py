"""Fetches blobs: streamed, checked by size and SHA-256, resumed after a failure."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from flyte_pack.http.retry import LEAST, Broken, Tries
from flyte_pack.http.transfers import in_parallel
from flyte_pack.oci.model import Descriptor, blob_path
from flyte_pack.oci.reference import Reference
from flyte_pack.progress import Progress, Say, megabytes
from flyte_pack.registry import RegistryError
from flyte_pack.registry.client import Registry, Session, may_pull
from flyte_shim.words import number


def complete(
    base_name: str,
    descriptors: Iterable[Descriptor],
    directory: str,
    say: Say,
    insecure: Collection[str] = (),
    session: Session | None = None,
) -> int:
    """Fetch the blobs that the layout `directory` lacks from the repository of `base_name`.

    Returns the number of bytes. A blob appears whole or not at all, also when several of these
    run at once. Raises `UserError`.
    """
    base = Reference.parse(base_name)
    missing = {
        one.digest: one
        for one in descriptors
        if not os.path.exists(os.path.join(directory, blob_path(one.digest)))
    }
    if not missing:
        return 0
    session = session or Session(insecure, say=say)
    registry = session.registry(base.registry)
    total = sum(one.size for one in missing.values())
    say(f"fetching {len(missing)} layers ({megabytes(total)}) from {base.name}")
    progress = Progress(say, f"from {base.name}", total)
    os.makedirs(os.path.join(directory, "blobs", "sha256"), exist_ok=True)
    with in_parallel(session.transport.stopped) as submit:
        for one in sorted(missing.values(), key=lambda one: -one.size):
            submit(_fetch, registry, base.repository, one, directory, progress)
    return progress.done


def pieces(
    registry: Registry, repository: str, blob: Descriptor, offset: int = 0
) -> Iterator[bytes]:
    """The blob from `offset` to its end, checked by size and, from 0, by digest.

    Raises `RegistryError` for wrong content, and after the last retry.
    """
    what = f"{registry.name}/{repository} serves {blob.digest}"
    digest = hashlib.sha256() if offset == 0 else None
    tries, furthest = Tries(registry.timing, registry.name), offset
    while offset < blob.size or (blob.size == 0 and digest is not None):
        try:
            for piece in _from(registry, repository, blob, offset):
                offset += len(piece)
                if offset > blob.size:
                    raise RegistryError(f"{what} with more than its {blob.size:,} bytes")
                if digest is not None:
                    digest.update(piece)
                yield piece
                if offset - furthest >= min(LEAST, blob.size - furthest):
                    furthest = offset
                    tries.progress()
            if offset == blob.size:
                break
            broken = Broken(f"{offset:,} of the {blob.size:,} bytes of {blob.digest} came")
        except Broken as error:
            broken = error
        if not tries.again(broken):
            raise registry.gave_up(broken)
    if digest is not None and f"sha256:{digest.hexdigest()}" != blob.digest:
        raise RegistryError(
            f"{what} with wrong content, damaged there or on the way. Push that image again"
        )


def read(registry: Registry, repository: str, blob: Descriptor, limit: int) -> bytes:
    """A small blob, checked. Raises `RegistryError`."""
    if blob.size > limit:
        raise RegistryError(
            f"{registry.name}/{repository}: {blob.digest} has {blob.size:,} bytes, more than the "
            f"{limit:,} of a document"
        )
    return b"".join(pieces(registry, repository, blob))


def _from(registry: Registry, repository: str, blob: Descriptor, offset: int) -> Iterator[bytes]:
    """One try. Raises `Broken` and `RegistryError`."""
    url = f"/v2/{repository}/blobs/{blob.digest}"
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    with registry.exchange("GET", url, may_pull(repository), headers) as (response, address):
        skip = 0
        if response.status == 206:
            start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if start is None or number(start[1]) != offset:
                raise Broken(f"a wrong part of {blob.digest} came")
        elif response.status == 200:
            skip = offset  # the server ignores ranges
        else:
            answer = registry.transport.read(response, "GET", address)
            if answer.status == 404:
                raise RegistryError(
                    f"{registry.name}/{repository} does not have {blob.digest} any more: push that "
                    "image again, or, if it is a base, lock it anew "
                    "(./pants run path:base -- lock)"
                )
            raise registry.refusal(answer, "GET", address)
        for piece in registry.transport.pieces(response):
            rest, skip = piece[skip:], max(0, skip - len(piece))
            if rest:
                yield rest


def _fetch(
    registry: Registry, repository: str, blob: Descriptor, directory: str, progress: Progress
) -> None:
    path = os.path.join(directory, blob_path(blob.digest))
    try:
        with _partial(path) as file:
            if file is None:
                return
            for piece in pieces(registry, repository, blob):
                file.write(piece)
                progress.add(len(piece))
            file.flush()
            os.replace(file.name, path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        fix = ": make room there" if full else ""
        raise RegistryError(f"{path} cannot be written: {error.strerror}{fix}") from None


@contextmanager
def _partial(path: str) -> Iterator[BinaryIO | None]:
    """A file beside `path` that nobody else writes meanwhile; None once `path` exists.

    It has the same name in every run, so that the next run overwrites what a killed one left.
    """
    name = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.partial")
    while True:
        with open(name, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # While we waited, another run may have renamed the file, or removed it.
            done = os.path.exists(path)
            if not done and not os.fstat(file.fileno()).st_nlink:
                continue
            try:
                if not done:
                    file.truncate(0)
                yield None if done else file
            finally:
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), os.stat(name)):
                        os.unlink(name)
            return
