"""Where archives are read from, and the download of one into a file whose hash is known.

A `Source` is all that a kind of store has to provide: how large the archive is, and its bytes from
an offset on. Retries, limits, the deadline and the hash are the same for every kind, in `download`.

S3 is read by the standard library even where obstore is there: what can go wrong then has a name, a
server is believed as little as by `web`, and it does not matter which obstore an image has. obstore
imports faster than http.client and ssl, by about 20 ms, of a start that unpacks an archive and is
followed by that of Flyte. For Google's and Azure's own protocols, and ways to log in, it is used.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time

from flyte_shim import shown
from flyte_shim.errors import (
    HashMismatch,
    SourceChanged,
    SourceDenied,
    SourceMissing,
    SourceUnavailable,
    TooLarge,
    UsageError,
)
from flyte_shim.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Callable

_CHUNK = 1 << 20
_MAX_PAUSE = 10.0
# An attempt that has brought this many bytes was none in vain: counting begins again.
_PROGRESS = 1 << 20
# What a network file system or a disk gives in passing.
_TRANSIENT = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EIO,
        errno.ENFILE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


class Patience:
    """How long and how often to try; times are in seconds.

    `attempts` in a row may bring nothing, with `pause` before the second and twice as long before
    each further one. A server may be silent for `timeout`. All of it ends `deadline` after this was
    made.
    """

    __slots__ = ("_until", "attempts", "deadline", "pause", "timeout")

    def __init__(
        self,
        attempts: int = 5,
        pause: float = 0.2,
        timeout: float = 30.0,
        deadline: float = 900.0,
    ) -> None:
        self.attempts = attempts
        self.pause = pause
        self.timeout = timeout
        self.deadline = deadline
        self._until = time.monotonic() + deadline

    def left(self) -> float:
        """Until the deadline; raises SourceUnavailable when there is nothing left."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise SourceUnavailable(
                f"The download is not done after {self.deadline:g} seconds. If the archive is that "
                "large, set FLYTE_SHIM_DEADLINE to more."
            )
        return left

    def pause_after(self, attempt: int, wait: float) -> float:
        """How long to wait after `attempt`, counted from 1, where a store asks for `wait`.

        Up to half is chance: many containers that were turned away together come back one by one.
        """
        pause = min(self.pause * (1 << min(attempt - 1, 20)), _MAX_PAUSE)
        return max(wait, pause * (0.5 + int.from_bytes(os.urandom(2), "big") / (1 << 17)))


class Source:
    """One archive, somewhere. Subclasses override both methods; `uri` is what may be printed.

    `remark` is what `read` has noticed and a wrong hash may come from.
    """

    remark = ""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def size(self) -> int | None:
        """The archive's size in bytes, None where that is not known, or not yet.

        Raises SourceMissing, SourceDenied, or SourceUnavailable for what may pass.
        """
        raise NotImplementedError

    def read(self, offset: int) -> Iterator[bytes]:
        """The archive's bytes from `offset` on, in chunks of at most a few MiB.

        Raises what `size` does, UntrustedSource, and SourceChanged where what was read before
        `offset` is of no use any more.
        """
        raise NotImplementedError


class FileSource(Source):
    """An archive in a file system, by plain path or by `file:` URI (RFC 8089)."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._path = _file_path(uri)

    def size(self) -> int | None:
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise self._failure(error) from None
        if not stat.S_ISREG(status.st_mode):
            raise SourceMissing(f"{self.uri} is not a regular file.")
        return status.st_size

    def read(self, offset: int) -> Iterator[bytes]:
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(offset)
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> SourceDenied | SourceMissing | SourceUnavailable:
        if error.errno in _TRANSIENT:
            return SourceUnavailable(f"Reading {self.uri} failed: {error.strerror}.")
        if error.errno in (errno.EACCES, errno.EPERM):
            return SourceDenied(f"{self.uri} may not be read: {error.strerror}.")
        return SourceMissing(f"There is no archive to read at {self.uri}: {error.strerror}.")


SCHEMES = ("abfs", "abfss", "file", "gs", "http", "https", "s3")


def scheme_of(uri: str) -> str:
    """The scheme of a URI in lower case (RFC 3986, 3.1), empty for a plain path."""
    scheme, colon, rest = uri.partition(":")
    known = scheme.lower()
    is_uri = colon and (rest.startswith("//") or known in SCHEMES)
    return known if is_uri and scheme.isascii() and scheme[:1].isalpha() else ""


def download(
    source: Source,
    path: str,
    sha256: str,
    limit: int,
    patience: Patience,
    retrying: Callable[[SourceUnavailable, int], None] | None = None,
) -> tuple[int, int]:
    """Copy the archive of `source` into a new file at `path`; its hash is `sha256`, or it fails.

    At most `limit` bytes are read. What SourceUnavailable stands for is tried again as `patience`
    says, each time going on where it broke off; `retrying` hears of it, with the number of the
    attempt. Returns the archive's size in bytes and the number of attempts. Raises what a Source
    does, TooLarge, HashMismatch, and OSError for what writing does.
    """
    digest = hashlib.sha256()
    count = failures = 0
    attempt = 1
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        while True:
            before = count
            try:
                patience.left()
                _check_size(source.size(), limit, source)
                for chunk in source.read(count):
                    count += len(chunk)
                    _check_size(source.size(), limit, source)
                    _check_size(count, limit, source)
                    digest.update(chunk)
                    write_all(fd, chunk)
                break
            except SourceUnavailable as error:
                if digest.hexdigest() == sha256:
                    break  # It broke off behind the last byte.
                patience.left()
                failures = 1 if count - before >= _PROGRESS else failures + 1
                if failures >= patience.attempts:
                    raise SourceUnavailable(f"{error} Gave up after {attempt} attempts.") from None
                if isinstance(error, SourceChanged):
                    count, digest = 0, hashlib.sha256()
                    os.ftruncate(fd, 0)
                    os.lseek(fd, 0, os.SEEK_SET)
                if retrying:
                    retrying(error, attempt)
                time.sleep(min(patience.pause_after(failures, error.wait), patience.left()))
                attempt += 1
    finally:
        os.close(fd)
    if digest.hexdigest() != sha256:
        patience.left()  # What was cut at the deadline may look like the end of the archive.
        raise HashMismatch(
            f"The archive at {source.uri} ({count} bytes) has the SHA-256 {digest.hexdigest()}, "
            f"expected was {sha256}: it is damaged, or another archive was put in its place."
            f"{source.remark} It was not opened; deploy the bundle again."
        )
    return count, attempt


def _check_size(size: int | None, limit: int, source: Source) -> None:
    if size and size > limit:
        raise TooLarge(
            f"The archive at {source.uri} is larger than {limit} bytes. If that is right, "
            "set FLYTE_SHIM_MAX_ARCHIVE_BYTES."
        )


def _file_path(uri: str) -> bytes:
    if not scheme_of(uri):
        return os.fsencode(uri)
    rest, name = uri.partition(":")[2], shown.uri(uri).partition("?")[0]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise UsageError(f"{name} names a host; a file URI has none: file:///absolute/path.")
        rest = slash + rest
    if not rest.startswith("/"):
        raise UsageError(f"{name} has no absolute path; write file:///absolute/path.")
    if "?" in rest or "#" in rest:
        raise UsageError(f"{name} has a '?' or '#' in it; in a file URI these are %3F and %23.")
    path, *escaped = os.fsencode(rest).split(b"%")
    for part in escaped:
        if len(part) < 2 or part[:2].strip(b"0123456789abcdefABCDEF"):
            raise UsageError(f"{name} has a '%' that two hexadecimal digits do not follow.")
        path += bytes((int(part[:2], 16),)) + part[2:]
    if b"\0" in path:
        raise UsageError(f"{name} has a NUL in it.")
    return path
