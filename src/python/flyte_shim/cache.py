"""The cache of unpacked bundles: one read-only entry for each archive hash, shared by processes.

    CACHE/<uid>/                      0700, owned by the user with this numeric id
        entries/<hash>/               0700, complete as soon as it has this name
            files/                    the bundle; directories 0500, files 0444 or 0555
            bytecode/                 0700, what Python compiles from files/, by its directories
            lock                      a user of the entry holds a shared flock on it
        work/<hash>.lock              the maker or remover of the entry holds an exclusive flock
        work/<hash>.d/                an entry that is being made or removed

A lock is a flock on an open file. The kernel releases it when its last holder dies. No file records
the holder, so nothing can be stale. Three rules make this safe:

* A lock counts only if its path still names the locked file once the lock is held. A waiter may get
  the lock of a file that was removed or moved meanwhile; it releases the lock and starts again. So
  a holder may remove the file of its own lock, and lock files do not pile up.
* Only the holder of `work/<hash>.lock` touches `work/<hash>.d` or the name `entries/<hash>`. A new
  holder that finds `work/<hash>.d` removes it: its maker died.
* An entry gets its name by one rename, when it is complete and its maker holds the shared lock.

These rules cover the following cases:

1. Many processes start at once with an empty cache. One gets `work/<hash>.lock`, makes the entry,
   removes the lock file and releases the lock. Each of the others then gets a lock on a removed
   file, starts again and finds the entry.
2. A process is killed while it makes the entry. `<hash>.d` and the lock file stay. The next
   process, with any bundle, tries each lock in `work` without waiting and removes what nobody
   holds. This also covers a kill between the rename and the removal of the lock file.
3. A sweeper and a maker meet at one hash. If the sweeper has the lock, the maker waits, gets a
   removed file and starts again. If the maker has it, the sweeper continues with the next name.
4. A user and an evictor meet. The evictor takes `work/<hash>.lock`; takes the entry's `lock`
   exclusively without waiting, or gives up; renames the entry to `work/<hash>.d`; releases the
   entry's lock; removes the directory; removes and releases `work/<hash>.lock`. A user with the
   shared lock stops it. A user that arrives later waits for the rename, finds that the path is
   gone, and makes the entry again once the evictor has released `work/<hash>.lock`.
5. A user becomes its command. The command inherits the descriptor of the shared lock across exec,
   so the entry stays as long as the command, or a child with the descriptor, lives.
"""

from __future__ import annotations

import fcntl
import os
import time

from flyte_shim.errors import StorageError
from flyte_shim.files import make_directory, remove_tree, write_all
from flyte_shim.safe import check_private, first_usable, safe_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

_OTHERWISE = "set FLYTE_SHIM_CACHE to another directory"
_HASH_LENGTH = 64
# The task waits for the eviction.
EVICTION_SECONDS = 2.0
# Shells use the descriptors below 10 for redirections.
_FIRST_FD = 10


class Entry:
    """A bundle in the cache; a shared lock prevents its eviction while this process lives.

    `files` is its directory, `is_new` whether this process made it.
    """

    def __init__(self, files: str, is_new: bool) -> None:
        self.files, self.is_new = files, is_new


class Cache:
    """The entries of one user below one cache directory; `root` is the user's own directory."""

    def __init__(self, root: str) -> None:
        self.root = root

    @classmethod
    def open(cls, directory: str | None, warn: Callable[[str], None]) -> Cache:
        """The cache in `directory`, or in the first usable default place; raises StorageError.

        A container may lack a writable HOME, so some defaults are among the temporary files. `warn`
        is told of those that are not safe. A given `directory` may be read-only if it holds the
        entry.
        """
        if not directory:
            return cls(first_usable("flyte-shim", _OTHERWISE, _writable, warn))
        try:
            return cls(_private(safe_directory(directory, _OTHERWISE)))
        except StorageError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{error.strerror} ({error.filename or directory})"
        raise StorageError(f"the cache directory {directory} cannot be used: {reason}")

    def entry(self, archive_hash: str, fill: Callable[[str], int]) -> Entry:
        """The entry of an archive, made by `fill` if there is none.

        `fill` gets a new directory, makes `files` in it with their final modes, and returns the
        bytes used on disk. One process at a time calls it; if it fails, its directory is removed.
        Raises StorageError and whatever `fill` raises.
        """
        self._sweep()
        if found := self._find(archive_hash):
            return found
        lock = self._lock_to_make(archive_hash, wait=True)
        assert lock is not None
        try:
            return self._find(archive_hash) or self._make(archive_hash, fill)
        finally:
            self._unlock(archive_hash, lock)

    def trim(self, bound: int) -> dict[str, int]:
        """Evict entries until all together use at most `bound` bytes; returns the evicted sizes.

        The least recently used entries go first; entries in use stay. After EVICTION_SECONDS the
        next process that makes an entry continues. Sizes are recorded when an entry is made, so
        they do not include bytecode.
        """
        until = time.monotonic() + EVICTION_SECONDS
        entries = sorted(filter(None, map(self._usage, os.listdir(f"{self.root}/entries"))))
        total = sum(size for _, _, size in entries)
        evicted: dict[str, int] = {}
        for used, archive_hash, size in entries:
            if total <= bound or (evicted and time.monotonic() > until):
                break
            by_us = self._evict(archive_hash, used)
            if by_us is not None:
                total -= size
            if by_us:
                evicted[archive_hash] = size
        return evicted

    def _usage(self, archive_hash: str) -> tuple[int, str, int] | None:
        """An entry's time of last use, name and size; None if it is gone."""
        try:
            fd = os.open(f"{self.root}/entries/{archive_hash}/lock", os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            digits = os.read(fd, 20).strip()
            return os.fstat(fd).st_mtime_ns, archive_hash, int(digits) if digits.isdigit() else 0
        finally:
            os.close(fd)

    def _evict(self, archive_hash: str, used: int) -> bool | None:
        """Remove an entry unless a process has used it since `used`; see case 4 above.

        Returns None if it stays, and False if another process removes it.
        """
        path, work = f"{self.root}/entries/{archive_hash}", f"{self.root}/work/{archive_hash}.d"
        making = self._lock_to_make(archive_hash, wait=False)
        if making is None:
            return False
        try:
            using = os.open(f"{path}/lock", os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(using, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(using).st_mtime_ns != used:
                    return None
                remove_tree(work)
                os.rename(path, work)
            finally:
                os.close(using)
            remove_tree(work)
        except BlockingIOError:
            return None
        except FileNotFoundError:
            return False
        finally:
            self._unlock(archive_hash, making)
        return True

    def _find(self, archive_hash: str) -> Entry | None:
        """The entry with its shared lock, if it exists; see case 4 above."""
        path = f"{self.root}/entries/{archive_hash}"
        while True:
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                return None
            try:
                check_private(path, _OTHERWISE)
                check_private(f"{path}/files", _OTHERWISE)
                fd = os.open(f"{path}/lock", os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                if _is_still(path, status):
                    raise StorageError(
                        f"the cache entry {path} is damaged: its lock or files are missing. "
                        "Remove it"
                    ) from None
                continue
            if _locked(fd, f"{path}/lock", fcntl.LOCK_SH):
                try:  # noqa: SIM105
                    os.utime(fd)
                except OSError:
                    pass  # A read-only cache evicts nothing either.
                return _held(path, fd, is_new=False)

    def _make(self, archive_hash: str, fill: Callable[[str], int]) -> Entry:
        path, work = f"{self.root}/entries/{archive_hash}", f"{self.root}/work/{archive_hash}.d"
        remove_tree(work)
        os.mkdir(work, 0o700)
        try:
            size = fill(work)
            fd = os.open(f"{work}/lock", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            write_all(fd, b"%d\n" % size)
            fcntl.flock(fd, fcntl.LOCK_SH)
            os.rename(work, path)
        except BaseException:
            remove_tree(work)
            raise
        return _held(path, fd, is_new=True)

    def _lock_to_make(self, archive_hash: str, wait: bool) -> int | None:
        """The exclusive lock for `archive_hash`, or None if it is taken and `wait` is False."""
        path = f"{self.root}/work/{archive_hash}.lock"
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                if _locked(fd, path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB):
                    return fd
            except BlockingIOError:
                os.close(fd)
                return None

    def _unlock(self, archive_hash: str, fd: int) -> None:
        os.unlink(f"{self.root}/work/{archive_hash}.lock")
        os.close(fd)

    def _sweep(self) -> None:
        """Remove what dead processes left; see cases 2 and 3 above."""
        names = os.listdir(f"{self.root}/work")
        for archive_hash in {name.partition(".")[0] for name in names}:
            if len(archive_hash) != _HASH_LENGTH:
                continue
            lock = self._lock_to_make(archive_hash, wait=False)
            if lock is not None:
                try:  # noqa: SIM105
                    remove_tree(f"{self.root}/work/{archive_hash}.d")
                except OSError:
                    pass  # This must not stop a task; a later start tries again.
                self._unlock(archive_hash, lock)


def seal(directory: str, directories: dict[str, bool]) -> None:
    """Make `directory`/files read-only, and let Python keep its bytecode in `directory`/bytecode.

    `directories` maps the directories below `files` to whether they hold modules. There
    `__pycache__` is a link into `directory`/bytecode, because root can write into any directory.
    (PYTHONPYCACHEPREFIX would also hide the bytecode of the image's installed packages.) The top
    gets no link, because Python compiles its files in the working directory.
    """
    root = os.fsencode(directory)
    for name, holds_modules in directories.items():
        path = name.encode()
        here = b"%b/files/%b" % (root, path)
        cached = b"%b/__pycache__" % here
        if holds_modules and path and not os.path.lexists(cached):
            os.makedirs(b"%b/bytecode/%b" % (root, path), 0o700)
            os.symlink(b"../" * (path.count(b"/") + 2) + b"bytecode/" + path, cached)
        os.chmod(here, 0o500)


def _private(directory: str) -> str:
    """The user's own directory in the safe `directory`, made if it does not exist."""
    root = f"{directory}/{os.geteuid()}"
    for path in (root, f"{root}/entries", f"{root}/work"):
        if not os.path.lexists(path):
            make_directory(path)
        check_private(path, _OTHERWISE)
    return root


def _writable(directory: str) -> str:
    root = _private(directory)
    if not os.access(f"{root}/work", os.W_OK | os.X_OK):
        raise StorageError(f"the cache directory {directory} cannot be written")
    return root


def _locked(fd: int, path: str, operation: int) -> bool:
    """Lock `fd` and return whether `path` still names that file; if not, close `fd`."""
    fcntl.flock(fd, operation)
    if _is_still(path, os.fstat(fd)):
        return True
    os.close(fd)
    return False


def _is_still(path: str, status: os.stat_result) -> bool:
    """Whether `path` still names the file or directory of `status`."""
    try:
        return os.path.samestat(status, os.lstat(path))
    except FileNotFoundError:
        return False


def _held(path: str, fd: int, is_new: bool) -> Entry:
    # The copy shares the lock. Unlike one of os.dup it is inherited; nobody closes it.
    fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FD)
    os.close(fd)
    return Entry(f"{path}/files", is_new)
