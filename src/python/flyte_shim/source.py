"""A source gives an archive's bytes; `download` copies them into a file and checks their hash.

Each kind of store has a subclass of `Source`. Retries, limits, the deadline and the hash are the
same for all of them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time

from flyte_shim import errors, shown
from flyte_shim.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Callable

_CHUNK = 1 << 20
_MAX_PAUSE = 10.0
# After an attempt that brought this many bytes, failures are counted from the start.
_PROGRESS = 1 << 20
# Errors of network file systems and disks that may pass.
_TRANSIENT = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}
)


class Patience:
    """How long and how often to try; times are in seconds.

    The download fails after `attempts` in a row without progress. `pause` is the wait before the
    second attempt; it doubles each time. `timeout` is how long a server may be silent. `deadline`
    counts from when this object was made.
    """

    def __init__(
        self, attempts: int = 5, pause: float = 0.2, timeout: float = 30.0, deadline: float = 900.0
    ) -> None:
        self.attempts, self.pause = attempts, pause
        self.timeout, self.deadline = timeout, deadline
        self._until = time.monotonic() + deadline

    def left(self) -> float:
        """The time until the deadline; raises SourceUnavailable when it has passed."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise errors.SourceUnavailable(
                f"the download is not done after {self.deadline:g} seconds. If the archive is that "
                "large, set FLYTE_SHIM_DEADLINE to more"
            )
        return left

    def pause_after(self, attempt: int, wait: float) -> float:
        """How long to wait after attempt number `attempt` if the store asks for `wait`.

        Up to half of the pause is random: containers refused together do not return together.
        """
        pause = min(self.pause * (1 << min(attempt - 1, 20)), _MAX_PAUSE)
        return max(wait, pause * (0.5 + int.from_bytes(os.urandom(2), "big") / (1 << 17)))


class Source:
    """One archive. `uri` may be printed; `remark` is a likely reason for a wrong hash."""

    remark = ""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._size: int | None = None
        self._etag = ""

    def size(self) -> int | None:
        """The archive's size in bytes, None until it is known; makes no request."""
        return self._size

    def read(self, offset: int) -> Iterator[bytes]:
        """The archive's bytes from `offset` on, in chunks of at most a few MiB.

        Raises ShimError: SourceUnavailable if a later attempt may work, and SourceChanged if the
        bytes before `offset` are no longer valid.
        """
        raise NotImplementedError


class FileSource(Source):
    """An archive in a file system: a plain path or a `file:` URI (RFC 8089)."""

    def __init__(self, uri: str) -> None:
        super().__init__(shown.uri(uri))
        self._path = _file_path(uri)

    def size(self) -> int | None:
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise self._failure(error) from None
        if not stat.S_ISREG(status.st_mode):
            raise errors.SourceMissing(f"{self.uri} is not a regular file")
        return status.st_size

    def read(self, offset: int) -> Iterator[bytes]:
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(offset)
                while chunk := file.read(_CHUNK):
                    yield chunk
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> errors.ShimError:
        if error.errno in _TRANSIENT:
            return errors.SourceUnavailable(f"reading {self.uri} failed: {error.strerror}")
        if error.errno in (errno.EACCES, errno.EPERM):
            return errors.SourceDenied(f"{self.uri} may not be read: {error.strerror}")
        return errors.SourceMissing(f"there is no archive to read at {self.uri}: {error.strerror}")


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
    retrying: Callable[[errors.SourceUnavailable, int], None] | None = None,
) -> tuple[int, int]:
    """Copy the archive of `source` into a new file at `path` and check that its hash is `sha256`.

    Reads at most `limit` bytes. After SourceUnavailable the next attempt resumes where the last one
    stopped; `retrying` gets the error and the number of the attempt. Returns the archive's size in
    bytes and the number of attempts. Raises ShimError or OSError.
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
            except errors.SourceUnavailable as error:
                if digest.hexdigest() == sha256:
                    break  # The connection broke after the last byte.
                patience.left()
                failures = 1 if count - before >= _PROGRESS else failures + 1
                if failures >= patience.attempts:
                    raise errors.SourceUnavailable(
                        f"{error}; gave up after {attempt} attempts"
                    ) from None
                if isinstance(error, errors.SourceChanged):
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
        patience.left()  # A connection cut at the deadline may look like the end of the archive.
        raise errors.HashMismatch(
            f"the archive at {source.uri} ({count} bytes) has the SHA-256 {digest.hexdigest()}, "
            f"but {sha256} was expected: it is damaged or was replaced.{source.remark} "
            "The shim did not open it; deploy the bundle again"
        )
    return count, attempt


def _check_size(size: int | None, limit: int, source: Source) -> None:
    if size and size > limit:
        raise errors.TooLarge(
            f"the archive at {source.uri} is larger than {limit} bytes. If that is right, "
            "set FLYTE_SHIM_MAX_ARCHIVE_BYTES"
        )


def _file_path(uri: str) -> bytes:
    if not scheme_of(uri):
        return os.fsencode(uri)
    rest, name = uri.partition(":")[2], shown.uri(uri)
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise errors.UsageError(
                f"{name} names a host; a file URI has none: file:///absolute/path"
            )
        rest = slash + rest
    if not rest.startswith("/"):
        raise errors.UsageError(f"{name} has no absolute path; write file:///absolute/path")
    if "?" in rest or "#" in rest:
        raise errors.UsageError(
            f"{name} has a '?' or '#' in it; in a file URI these are %3F and %23"
        )
    path, *escaped = os.fsencode(rest).split(b"%")
    for part in escaped:
        if len(part) < 2 or part[:2].strip(b"0123456789abcdefABCDEF"):
            raise errors.UsageError(f"{name} has a '%' that two hexadecimal digits do not follow")
        path += bytes((int(part[:2], 16),)) + part[2:]
    if b"\0" in path:
        raise errors.UsageError(f"{name} has a NUL in it")
    return path
