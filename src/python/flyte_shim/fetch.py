"""Makes a cache entry from an archive: download, check the hash, unpack, make read-only.

The standard library reads S3, even where obstore is installed: see docs/dependencies.md. obstore
reads Google Cloud Storage and Azure.
"""

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
_LONGEST = 31_536_000  # seconds; clocks and timers take no more than some years
_MOST = 1 << 62
CACHE_VARIABLE = "FLYTE_SHIM_CACHE_MAX_BYTES"
_CACHE_BYTES = 10 << 30


def fetch(
    uri: str,
    sha256: str,
    directory: str,
    environ: Mapping[str, str],
    retrying: Callable[[SourceUnavailable, int], None] | None = None,
) -> tuple[int, int, int]:
    """Make `directory`/files from the archive at `uri`; raises ShimError or OSError.

    `environ` sets limits and says how to reach stores; `retrying` is told of failed attempts.
    Returns the bytes of the archive, the number of attempts and the bytes used on disk.
    """
    limits, patience = limits_from(environ), patience_from(environ)
    archive = f"{directory}/archive"
    source = open_source(uri, patience, environ)
    size, attempts = download(source, archive, sha256, limits.archive_bytes, patience, retrying)
    directories, disk_bytes = extract(archive, f"{directory}/files", limits, _mtime(sha256))
    os.unlink(archive)
    seal(directory, directories)
    return size, attempts, disk_bytes


def open_source(uri: str, patience: Patience, environ: Mapping[str, str]) -> Source:
    """The source for a URI or a plain path; reads nothing. `environ` says how to reach stores.

    Raises UsageError.
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
        f"cannot read {shown.uri(uri)}: this flyte-shim reads plain paths and "
        f"{', '.join(f'{name}://' for name in SCHEMES)}"
    )


def limits_from(environ: Mapping[str, str]) -> Limits:
    """The limits that the environment sets, else the defaults; raises UsageError."""
    return Limits(**_numbers(environ, LIMIT_VARIABLES))


def patience_from(environ: Mapping[str, str]) -> Patience:
    """How long to try, from the environment; the deadline counts from now. Raises UsageError."""
    patience = _numbers(environ, PATIENCE_VARIABLES, _LONGEST)
    retries = _number(environ, "FLYTE_STORAGE_RETRIES")
    if retries is not None:
        patience["attempts"] = retries + 1
    return Patience(**patience)


def cache_bytes_from(environ: Mapping[str, str], root: str) -> int:
    """The most bytes that the cache at `root` may hold, 0 for no limit; raises UsageError.

    The default is 10 GiB, or a quarter of the file system if that is less.
    """
    bound = _number(environ, CACHE_VARIABLE)
    if bound is not None:
        return bound
    disk = os.statvfs(root)
    return min(_CACHE_BYTES, disk.f_frsize * disk.f_blocks // 4)


def _numbers(
    environ: Mapping[str, str], variables: dict[str, str], most: int = _MOST
) -> dict[str, int]:
    numbers = ((name, _number(environ, variable, most)) for name, variable in variables.items())
    return {name: value for name, value in numbers if value is not None}


def _number(environ: Mapping[str, str], variable: str, most: int = _MOST) -> int | None:
    text = environ.get(variable, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError(f"{variable} is {shown.word(text)}; it takes a number, 1000000 say")
    if int(text) > most:
        raise UsageError(f"{variable} is {shown.word(text)}; it takes at most {most}")
    return int(text)


def _mtime(sha256: str) -> int:
    """The modification time of an archive's files, between 1985 and 2017.

    Python accepts bytecode that records the source's time (in seconds) and size. The archive's own
    time tells apart two bundles' files of the same path and size in one working directory.
    """
    return 500_000_000 + int(sha256[:8], 16) % 1_000_000_000
