"""Where archives are read from, and the download of one into a file whose hash is known.

A `Source` is all that a kind of store has to provide: how large the archive is, and its bytes from
an offset on. Retries, limits and the hash are the same for every kind, in `download`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time

from flyte_shim.errors import HashMismatch, SourceMissing, SourceUnavailable, TooLarge, UsageError
from flyte_shim.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ATTEMPTS = 5
_CHUNK = 1 << 20
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


class Source:
    """One archive, somewhere. Subclasses override both methods."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def size(self) -> int | None:
        """The archive's size in bytes, None where the store does not say.

        Raises SourceMissing, or SourceUnavailable for what may pass.
        """
        raise NotImplementedError

    def read(self, offset: int) -> Iterator[bytes]:
        """The archive's bytes from `offset` on, in chunks of at most a few MiB; raises as `size`."""
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

    def _failure(self, error: OSError) -> SourceMissing | SourceUnavailable:
        if error.errno in _TRANSIENT:
            return SourceUnavailable(f"Reading {self.uri} failed: {error.strerror}.")
        return SourceMissing(f"There is no archive to read at {self.uri}: {error.strerror}.")


SCHEMES: dict[str, type[Source]] = {"file": FileSource}


def open_source(uri: str) -> Source:
    """The source for a URI or a plain path; nothing is read yet. Raises UsageError."""
    scheme = _scheme(uri)
    if not scheme:
        return FileSource(uri)
    try:
        return SCHEMES[scheme](uri)
    except KeyError:
        raise UsageError(
            f"No way to read {uri}: this flyte-shim reads plain paths and "
            f"{', '.join(f'{name}://' for name in sorted(SCHEMES))}."
        ) from None


def download(
    source: Source, path: str, sha256: str, limit: int, pause: float = 0.2, attempts: int = ATTEMPTS
) -> None:
    """Copy the archive of `source` into a new file at `path`; its hash is `sha256`, or it fails.

    At most `limit` bytes are read. What SourceUnavailable stands for is tried `attempts` times, each
    going on where the last one broke off, with `pause` seconds before the second and twice as long
    before each further one. Raises SourceMissing, SourceUnavailable, TooLarge, HashMismatch, and
    OSError for what writing does.
    """
    digest = hashlib.sha256()
    count = 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for attempt in range(1, attempts + 1):
            try:
                _check_size(source.size() or 0, limit, source)
                for chunk in source.read(count):
                    count += len(chunk)
                    _check_size(count, limit, source)
                    digest.update(chunk)
                    write_all(fd, chunk)
                break
            except SourceUnavailable as error:
                if attempt == attempts:
                    raise SourceUnavailable(f"{error} Gave up after {attempts} attempts.") from None
                time.sleep(pause * 2 ** (attempt - 1))
    finally:
        os.close(fd)
    if digest.hexdigest() != sha256:
        raise HashMismatch(
            f"The archive at {source.uri} ({count} bytes) has the SHA-256 {digest.hexdigest()}, "
            f"expected was {sha256}: it is damaged, or another archive was put in its place. "
            "It was not opened; deploy the bundle again."
        )


def _check_size(size: int, limit: int, source: Source) -> None:
    if size > limit:
        raise TooLarge(
            f"The archive at {source.uri} is larger than {limit} bytes. If that is right, "
            "set FLYTE_SHIM_MAX_ARCHIVE_BYTES."
        )


def _scheme(uri: str) -> str:
    """The scheme of a URI in lower case (RFC 3986, 3.1), empty for a plain path."""
    scheme, colon, rest = uri.partition(":")
    known = scheme.lower()
    is_uri = colon and (rest.startswith("//") or known in SCHEMES)
    return known if is_uri and scheme.isascii() and scheme[:1].isalpha() else ""


def _file_path(uri: str) -> bytes:
    if not _scheme(uri):
        return os.fsencode(uri)
    rest = uri.partition(":")[2]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise UsageError(
                f"{uri} names the host {host!r}; a file URI has none: file:///absolute/path."
            )
        rest = slash + rest
    if not rest.startswith("/"):
        raise UsageError(f"{uri} has no absolute path; write file:///absolute/path.")
    if "?" in rest or "#" in rest:
        raise UsageError(f"{uri} has a '?' or '#' in it; in a file URI these are %3F and %23.")
    path, *escaped = os.fsencode(rest).split(b"%")
    for part in escaped:
        if len(part) < 2 or part[:2].strip(b"0123456789abcdefABCDEF"):
            raise UsageError(f"{uri} has a '%' that two hexadecimal digits do not follow.")
        path += bytes((int(part[:2], 16),)) + part[2:]
    if b"\0" in path:
        raise UsageError(f"{uri} has a NUL in it.")
    return path
