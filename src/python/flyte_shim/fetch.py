"""Makes a cache entry of an archive: download, check the hash, unpack, make read-only."""

from __future__ import annotations

import os

from flyte_shim import shown
from flyte_shim.cache import seal
from flyte_shim.errors import UsageError
from flyte_shim.extract import Limits, extract
from flyte_shim.source import SCHEMES, FileSource, Patience, download, scheme_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Callable

    from flyte_shim.errors import SourceUnavailable
    from flyte_shim.source import Source

LIMIT_VARIABLES = {
    "archive_bytes": "FLYTE_SHIM_MAX_ARCHIVE_BYTES",
    "files": "FLYTE_SHIM_MAX_FILES",
    "total_bytes": "FLYTE_SHIM_MAX_BYTES",
}
PATIENCE_VARIABLES = {
    "pause": "FLYTE_STORAGE_BACKOFF_SECONDS",
    "timeout": "FLYTE_SHIM_TIMEOUT",
    "deadline": "FLYTE_SHIM_DEADLINE",
}
CACHE_VARIABLE = "FLYTE_SHIM_CACHE_MAX_BYTES"
_CACHE_BYTES = 10 << 30


class Fetched:
    """What a fetch has made: bytes of the archive, and of the disk; and attempts that it took."""

    __slots__ = ("archive_bytes", "attempts", "disk_bytes")

    def __init__(self, archive_bytes: int, attempts: int, disk_bytes: int) -> None:
        self.archive_bytes = archive_bytes
        self.attempts = attempts
        self.disk_bytes = disk_bytes


def fetch(
    uri: str,
    sha256: str,
    directory: str,
    environ: Mapping[str, str],
    retrying: Callable[[SourceUnavailable, int], None] | None = None,
) -> Fetched:
    """Make `directory`/files from the archive at `uri`; raises ShimError or OSError.

    `environ` has limits, and how stores are reached; `retrying` hears of attempts that failed.
    """
    limits, patience = limits_from(environ), patience_from(environ)
    archive = f"{directory}/archive"
    source = open_source(uri, patience, environ)
    size, attempts = download(source, archive, sha256, limits.archive_bytes, patience, retrying)
    extracted = extract(archive, f"{directory}/files", limits, _mtime(sha256))
    os.unlink(archive)
    seal(directory, extracted.directories)
    return Fetched(size, attempts, extracted.disk_bytes)


def open_source(uri: str, patience: Patience, environ: Mapping[str, str]) -> Source:
    """The source for a URI or a plain path; nothing is read yet. Raises UsageError.

    `environ` says how stores are reached: see `stores`.
    """
    scheme = scheme_of(uri)
    if scheme in ("", "file"):
        return FileSource(uri)
    if scheme in ("http", "https"):
        from flyte_shim.http_source import HttpSource

        return HttpSource(uri, patience, environ)
    if scheme == "s3":
        from flyte_shim.s3 import S3Source

        return S3Source(uri, patience, environ)
    if scheme in SCHEMES:
        from flyte_shim.obstore_source import ObstoreSource

        return ObstoreSource(uri, patience, environ)
    raise UsageError(
        f"No way to read {shown.uri(uri)}: this flyte-shim reads plain paths and "
        f"{', '.join(f'{name}://' for name in SCHEMES)}."
    )


def limits_from(environ: Mapping[str, str]) -> Limits:
    """The limits that the environment sets, defaults for the others; raises UsageError."""
    numbers = ((name, _number(environ, variable)) for name, variable in LIMIT_VARIABLES.items())
    return Limits(**{name: value for name, value in numbers if value is not None})


def patience_from(environ: Mapping[str, str]) -> Patience:
    """How long to try, in the same way; its deadline begins now. Flyte's own variables count."""
    numbers = ((name, _number(environ, variable)) for name, variable in PATIENCE_VARIABLES.items())
    patience = {name: value for name, value in numbers if value is not None}
    retries = _number(environ, "FLYTE_STORAGE_RETRIES")
    if retries is not None:
        return Patience(attempts=retries + 1, **patience)
    return Patience(**patience)


def cache_bytes_from(environ: Mapping[str, str], root: str) -> int:
    """How much the cache in the directory `root` may hold, 0 for no bound; raises UsageError.

    By default 10 GiB, or a quarter of the file system if that is less.
    """
    bound = _number(environ, CACHE_VARIABLE)
    if bound is not None:
        return bound
    disk = os.statvfs(root)
    return min(_CACHE_BYTES, disk.f_frsize * disk.f_blocks // 4)


def _number(environ: Mapping[str, str], variable: str) -> int | None:
    text = environ.get(variable)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError(f"{variable} is {text!r}; it takes a number, 1000000 say.")
    return int(text)


def _mtime(sha256: str) -> int:
    """The time that the files of an archive bear, somewhere between 1985 and 2017.

    Python takes compiled bytecode for a module's own if the source's time (in seconds) and size are
    the recorded ones. A working directory may see one bundle after another, with files of the same
    size within a second of each other: a time that depends on the archive keeps them apart.
    """
    return 500_000_000 + int(sha256[:8], 16) % 1_000_000_000
