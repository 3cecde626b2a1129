"""The store in a directory: `file://`.

A writer writes an object to a temporary file in `.tmp`, flushes it to the disk and names it by a
hard link, which fails if the name exists. So creation is all or nothing and happens once, for
concurrent writers and for one that is killed. Without hard links, a lock and a rename do the same.

The store opens each directory below its parent and follows no symbolic link, so others who write
to the store cannot lead a reader or writer out of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from flyte_pack import store
from flyte_shim.files import write_all

_TEMPORARY = ".tmp"
_LOCK = "lock"
_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# The errors of link(2) on a file system without hard links, or with no more of them.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_NO_LOCKS = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}


class FileStore:
    """A `Store` in the directory `root`, an absolute path; the first write makes it."""

    at_once = 1

    def __init__(self, root: str) -> None:
        self._root = root
        self.uri = f"file://{root}"

    def uri_of(self, key: store.StoreKey) -> str:
        return f"{self.uri}/{key}"

    def size(self, key: store.StoreKey) -> int | None:
        with self._object(key) as fd:
            return None if fd is None else os.fstat(fd).st_size

    def state(self, blob: store.Blob, deep: bool = False) -> store.State:
        # A directory keeps no checksums, so this always reads the whole object.
        size = self.size(blob.key)
        if size is None:
            return store.State.MISSING
        if size != blob.size:
            return store.State.DAMAGED
        return store.state_of(blob, self.stream(blob.key))

    def read(self, key: store.StoreKey, limit: int) -> bytes | None:
        size = self.size(key)
        if size is None:
            return None
        if size > limit:
            raise store.too_large(self.uri_of(key), size)
        return b"".join(self.stream(key))

    def stream(self, key: store.StoreKey) -> Iterator[bytes]:
        with self._object(key) as fd:
            if fd is None:
                raise store.StoreError(f"{self._root}/{key} does not exist")
            while chunk := os.read(fd, _CHUNK):
                yield chunk

    def create(self, blob: store.Blob, content: Iterable[bytes]) -> bool:
        *parents, target = store.check_key(blob.key)
        with self._errors(blob.key), self._temporary(blob, content) as (temporary, name):
            with self._new_directory(parents) as directory:
                try:
                    os.link(name, target, src_dir_fd=temporary, dst_dir_fd=directory)
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    if not _rename_new(name, target, temporary, directory):
                        return False
                os.fsync(directory)
                return True

    def replace(self, blob: store.Blob, content: Iterable[bytes]) -> None:
        *parents, target = store.check_key(blob.key)
        with self._errors(blob.key), self._temporary(blob, content) as (temporary, name):
            with self._new_directory(parents) as directory:
                os.replace(name, target, src_dir_fd=temporary, dst_dir_fd=directory)
                os.fsync(directory)

    def names(self, prefix: str) -> list[str]:
        with self._errors(prefix), self._directory(store.check_key(prefix)) as fd:
            return [] if fd is None else sorted(os.listdir(fd))

    def objects(self, prefix: str) -> list[store.StoredObject]:
        with self._errors(prefix), self._directory(store.check_key(prefix)) as fd:
            found = [] if fd is None else list(_walk(fd, prefix))
        return sorted(found, key=lambda o: o.key)

    def delete(self, key: store.StoreKey) -> None:
        *parents, name = store.check_key(key)
        with self._errors(key), self._directory(parents) as directory:
            if directory is not None:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
                os.fsync(directory)

    def sweep(self) -> None:
        # A writer holds a lock on its temporary file until it ends. Failures do not matter here: a
        # store that is not writable fails at the next write.
        with suppress(OSError, store.StoreError), self._directory([_TEMPORARY]) as directory:
            if directory is None:
                return
            for name in os.listdir(directory):
                if name != _LOCK:
                    with suppress(OSError):
                        _remove_if_dead(name, directory)

    @contextmanager
    def _temporary(self, blob: store.Blob, content: Iterable[bytes]) -> Iterator[tuple[int, str]]:
        """A flushed temporary file with `content`, as (directory, name); removed at the end."""
        with self._new_directory([_TEMPORARY]) as directory:
            name, fd = _locked_file(directory)
            try:
                for chunk in store.checked(blob, content):
                    write_all(fd, chunk)
                os.fsync(fd)
                yield directory, name
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
                os.close(fd)

    @contextmanager
    def _object(self, key: store.StoreKey) -> Iterator[int | None]:
        """A descriptor of the object, None if there is none."""
        *parents, name = store.check_key(key)
        with self._errors(key), self._directory(parents) as directory:
            fd = None if directory is None else _open_file(name, directory)
            try:
                yield fd
            finally:
                if fd is not None:
                    os.close(fd)

    @contextmanager
    def _directory(self, segments: list[str]) -> Iterator[int | None]:
        """A descriptor of the directory, None if there is none."""
        try:
            fd = self._open_directory(segments, create=False)
        except FileNotFoundError:
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _new_directory(self, segments: list[str]) -> Iterator[int]:
        """A descriptor of the directory, which is made if there is none."""
        os.makedirs(self._root, exist_ok=True)
        fd = self._open_directory(segments, create=True)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open_directory(self, segments: list[str], create: bool) -> int:
        # The root itself may be a symbolic link, because the user names it.
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for segment in segments:
            parent = fd
            try:
                if create:
                    _make_directory(segment, parent)
                fd = os.open(segment, _DIRECTORY, dir_fd=parent)
            finally:
                os.close(parent)
        return fd

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turns system errors into messages that a user can act on."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                reason = (
                    "it or a directory above it is a symbolic link or of the wrong type; "
                    "a store holds only plain files and directories"
                )
            raise store.StoreError(
                f"cannot access {self._root}/{key} in the store: {reason}"
            ) from None


def _walk(directory: int, key: str) -> Iterator[store.StoredObject]:
    """The objects below the directory with the key `key`."""
    for name in os.listdir(directory):
        below = f"{key}/{name}"
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                yield store.StoredObject(store.StoreKey(below), found.st_size, found.st_mtime)
                continue
            child = os.open(name, _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            continue  # another process removed it
        try:
            yield from _walk(child, below)
        finally:
            os.close(child)


def _make_directory(name: str, parent: int) -> None:
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        return
    os.fsync(parent)


def _open_file(name: str, directory: int) -> int | None:
    try:
        fd = os.open(name, _FILE, dir_fd=directory)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENOTDIR, "not a regular file")
    return fd


def _locked_file(directory: int) -> tuple[str, int]:
    """A new file as (name, descriptor), locked while its writer lives."""
    while True:
        name = secrets.token_hex(16)
        # Read-only from the start, against accidental changes.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o444, dir_fd=directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            # Without locks, a sweep removes nothing either.
            if error.errno not in _NO_LOCKS:
                raise
        # A sweep may have removed the file before it was locked.
        if os.fstat(fd).st_nlink:
            return name, fd
        os.close(fd)


def _remove_if_dead(name: str, directory: int) -> None:
    fd = os.open(name, _FILE, dir_fd=directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    finally:
        os.close(fd)


def _rename_new(name: str, target: str, temporary: int, directory: int) -> bool:
    """Name a new file without hard links: rename it under a lock that all writers take."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(_LOCK, flags, 0o666, dir_fd=temporary)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            os.stat(target, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, target, src_dir_fd=temporary, dst_dir_fd=directory)
            return True
        return False
    finally:
        os.close(fd)
