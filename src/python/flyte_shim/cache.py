"""The cache of unpacked bundles: one read-only entry for each archive hash, shared by processes.

    CACHE/<uid>/                      0700, made by the user whose numeric id it bears
        entries/<hash>/               0700, complete from the moment it has this name
            files/                    the bundle; directories 0500, files 0444 or 0555
            bytecode/                 0700, what Python compiles from files/, by its directories
            lock                      who uses the entry holds a shared flock on it
        work/<hash>.lock               who makes or removes the entry holds an exclusive flock on it
        work/<hash>.d/                 an entry that is being made, or removed

A lock is a flock on an open file: the kernel gives it up when its last holder dies, however it
dies, and no file says who holds it, which could be stale. What makes that safe:

* A lock counts only if, once it is held, its path still names the file that was locked. A waiter
  may be given the lock of a file that was removed or moved away meanwhile; it lets go and begins
  again. So a holder may remove the file of a lock that it holds, and no lock files pile up.
* Only the holder of `work/<hash>.lock` touches `work/<hash>.d` or the name `entries/<hash>`. What a
  new holder finds in `work/<hash>.d` was left by one that died: it is removed.
* An entry gets its name by one rename, when it is complete and its maker holds the shared lock.

The interleavings that this is for:

1. Many start at once, nothing is cached. All miss; one gets `work/<hash>.lock`, makes the entry,
   removes the lock file, lets go. Each of the others is then given a lock on a removed file, begins
   again, and finds the entry.
2. One is killed while it makes the entry. Its lock is gone with it; `<hash>.d` and the lock file
   stay. Whoever starts next, with whatever bundle, sees that `work` is not empty, tries each lock
   there without waiting, and removes what nobody holds. If it is killed between the rename and the
   removal of the lock file, the same happens to the lock file.
3. A sweeper and a maker of the same hash meet. The sweeper has the lock: the maker waits, is given
   a removed file, begins again. The maker has it: the sweeper goes on to the next name.
4. A user and an evictor meet. To evict is: take `work/<hash>.lock`; take the entry's `lock`
   exclusively, without waiting, and leave the entry alone if that fails; rename the entry to
   `work/<hash>.d`; let go of the entry's lock; remove the directory; remove and let go of
   `work/<hash>.lock`. A user that holds the shared lock stops it. A user that comes while the
   evictor holds the lock waits for the rename, then finds that the path is gone, and makes the
   entry anew, after the evictor is done with `work/<hash>.lock`.
5. A user becomes its command. The descriptor of the shared lock is inherited across exec; the entry
   stays as long as the command, or a child that inherited the descriptor, lives.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from flyte_shim.errors import StorageError
from flyte_shim.files import make_directory, remove_tree, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

# What is there is used only if it is the user's own: see _check_owner.
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108
_HASH_LENGTH = 64
# A task waits for it.
EVICTION_SECONDS = 2.0
# Shells take the descriptors below 10 for their scripts' redirections.
_FIRST_FD = 10


class Entry:
    """A bundle in the cache, kept from eviction by a shared lock as long as this process lives.

    `files` is the directory that holds it, `is_new` whether this process made it. The lock's
    descriptor is inheritable.
    """

    __slots__ = ("archive_hash", "files", "is_new", "lock_fd")

    def __init__(self, archive_hash: str, path: str, lock_fd: int, is_new: bool) -> None:
        self.archive_hash = archive_hash
        self.is_new = is_new
        self.files = f"{path}/files"
        self.lock_fd = lock_fd


class Cache:
    """The entries of one user below one cache directory; `root` is the user's own directory."""

    def __init__(self, root: str) -> None:
        self.root = root

    @classmethod
    def open(cls, directory: str | None) -> Cache:
        """The cache in `directory`, or in the first default place that can be used.

        The defaults are `$XDG_CACHE_HOME/flyte-shim`, `~/.cache/flyte-shim` and a directory of the
        user's own in the directory for temporary files: in a container HOME may be missing, or may
        not be writable. A given `directory` may be read-only, for what is in it already. Raises
        StorageError.
        """
        if directory:
            return cls(_private(os.path.abspath(directory), writable=False))
        failure = None
        for candidate in _default_directories():
            try:
                return cls(_private(candidate, writable=True))
            except StorageError as error:
                failure = error
        raise StorageError(
            f"No place for the cache: {failure} Set FLYTE_SHIM_CACHE to a directory that the user "
            f"with the id {os.geteuid()} can write."
        )

    def entry(self, archive_hash: str, fill: Callable[[str], int]) -> Entry:
        """The entry of an archive; if there is none, `fill` makes what is in it.

        `fill` gets a new directory and makes `files` in it, with the modes that the entry shall
        have; it returns how many bytes of the disk that takes. It is called in one process at a time, and what it made is removed if it fails.
        Raises StorageError, and whatever `fill` raises.
        """
        self._sweep()
        found = self._find(archive_hash)
        if found:
            return found
        lock = self._lock_to_make(archive_hash, wait=True)
        assert lock is not None
        try:
            return self._find(archive_hash) or self._make(archive_hash, fill)
        finally:
            self._unlock(archive_hash, lock)

    def trim(self, bound: int) -> dict[str, int]:
        """Evict entries until all together take at most `bound` bytes; the sizes of those evicted.

        The least recently used go first; what is in use stays, as does what is taken by another
        process. After some seconds the rest is left to the next one that makes an entry. Sizes are
        those recorded when an entry was made: bytecode, which comes later, is not in them.
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
        """When an entry was last used, its name and its size; None if it is gone."""
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
        """Remove an entry, unless somebody has used it since `used`; see the module's text, 4.

        None if it stays; False if somebody else has removed it, or does.
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
        """The entry if it is there, with its shared lock; see the module's text, 4."""
        path = f"{self.root}/entries/{archive_hash}"
        while True:
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                return None
            _check_owner(path, status)
            try:
                fd = os.open(f"{path}/lock", os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                if _is_still(path, status):
                    raise StorageError(
                        f"The cache entry {path} is damaged: its lock is missing. Remove it."
                    ) from None
                continue
            if _locked(fd, f"{path}/lock", fcntl.LOCK_SH):
                try:  # noqa: SIM105
                    os.utime(fd)
                except OSError:
                    pass  # A cache that is read-only evicts nothing either.
                return _held(archive_hash, path, fd, is_new=False)

    def _make(self, archive_hash: str, fill: Callable[[str], int]) -> Entry:
        work = f"{self.root}/work/{archive_hash}.d"
        path = f"{self.root}/entries/{archive_hash}"
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
        return _held(archive_hash, path, fd, is_new=True)

    def _lock_to_make(self, archive_hash: str, wait: bool) -> int | None:
        """An exclusive lock for `archive_hash`, or None if it is taken and we do not wait."""
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
        """Remove what processes that died have left; see the module's text, 2 and 3."""
        names = os.listdir(f"{self.root}/work")
        for archive_hash in {name.partition(".")[0] for name in names}:
            if len(archive_hash) != _HASH_LENGTH:
                continue
            lock = self._lock_to_make(archive_hash, wait=False)
            if lock is not None:
                try:  # noqa: SIM105
                    remove_tree(f"{self.root}/work/{archive_hash}.d")
                except OSError:
                    pass  # Litter does not keep a task from its start; a later start tries again.
                self._unlock(archive_hash, lock)


def seal(directory: str, directories: dict[str, bool]) -> None:
    """Make `directory`/files read-only, and let Python keep the bytecode of its modules beside it.

    `directories` are those below `files`, and whether each holds modules. Python writes bytecode
    into `__pycache__` of a module's directory, and a user who is root can write into any; so that
    is a link to a directory in `directory`/bytecode. (PYTHONPYCACHEPREFIX would do as much, and
    would hide the bytecode that an image holds for all its installed packages.) The top of the
    bundle gets none: its files are seen in the working directory, and Python compiles them there.
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


def _default_directories() -> list[str]:
    environ, uid = os.environ, os.geteuid()
    places = [
        (environ.get("XDG_CACHE_HOME"), "flyte-shim"),
        (environ.get("HOME"), ".cache/flyte-shim"),
        *((base, f"flyte-shim-{uid}") for base in (environ.get("TMPDIR"), *TEMPORARY)),
    ]
    # The XDG base directory specification has relative paths ignored; they are no use to us either.
    return [f"{base}/{name}" for base, name in places if base and base.startswith("/")]


def _private(directory: str, writable: bool) -> str:
    """The user's own directory in the cache directory, made if it is not there."""
    root = f"{directory}/{os.geteuid()}"
    try:
        if not os.path.lexists(root):
            os.makedirs(directory, exist_ok=True)
            make_directory(root)
        _check_owner(root, os.lstat(root))
        make_directory(f"{root}/entries")
        make_directory(f"{root}/work")
    except OSError as error:
        raise StorageError(
            f"The cache directory {directory} can not be used: {error.strerror} ({error.filename})."
        ) from None
    if writable and not os.access(f"{root}/work", os.W_OK | os.X_OK):
        raise StorageError(f"The cache directory {directory} can not be written.")
    return root


def _check_owner(path: str, status: os.stat_result) -> None:
    """Refuse what another user could have put there, or could change."""
    uid = os.geteuid()
    if not stat.S_ISDIR(status.st_mode):
        raise StorageError(f"{path}, in the cache, is not a directory. Remove it.")
    if status.st_uid != uid:
        raise StorageError(
            f"{path}, in the cache, belongs to the user with the id {status.st_uid}, and this is "
            f"the user with the id {uid}. Remove it, or set FLYTE_SHIM_CACHE to another directory."
        )
    if status.st_mode & stat.S_IWOTH:
        raise StorageError(f"{path}, in the cache, can be written by anyone. Remove it.")


def _locked(fd: int, path: str, operation: int) -> bool:
    """Lock `fd`; whether `path` still names that file. If it does not, `fd` is closed."""
    fcntl.flock(fd, operation)
    if _is_still(path, os.fstat(fd)):
        return True
    os.close(fd)
    return False


def _is_still(path: str, status: os.stat_result) -> bool:
    """Whether `path` names the very file or directory that `status` is of."""
    try:
        return os.path.samestat(status, os.lstat(path))
    except FileNotFoundError:
        return False


def _held(archive_hash: str, path: str, fd: int, is_new: bool) -> Entry:
    # F_DUPFD, unlike os.dup, gives a descriptor that is inherited; it shares the lock.
    lock_fd = fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FD)
    os.close(fd)
    return Entry(archive_hash, path, lock_fd, is_new)
