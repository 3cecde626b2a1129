"""Makes a cache entry of an archive: download, check the hash, unpack, make read-only."""

from __future__ import annotations

import os

from flyte_shim.cache import seal
from flyte_shim.errors import UsageError
from flyte_shim.extract import Limits, extract
from flyte_shim.source import download, open_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT_VARIABLES = {
    "archive_bytes": "FLYTE_SHIM_MAX_ARCHIVE_BYTES",
    "files": "FLYTE_SHIM_MAX_FILES",
    "total_bytes": "FLYTE_SHIM_MAX_BYTES",
}


def fetch(uri: str, sha256: str, directory: str, limits: Limits) -> None:
    """Make `directory`/files from the archive at `uri`; raises ShimError or OSError."""
    archive = f"{directory}/archive"
    download(open_source(uri), archive, sha256, limits.archive_bytes)
    directories = extract(archive, f"{directory}/files", limits, _mtime(sha256))
    os.unlink(archive)
    seal(directory, directories)


def limits_from(environ: Mapping[str, str]) -> Limits:
    """The limits that the environment sets, defaults for the others; raises UsageError."""
    values = {}
    for name, variable in LIMIT_VARIABLES.items():
        text = environ.get(variable)
        if text:
            if not (text.isascii() and text.isdigit()):
                raise UsageError(f"{variable} is {text!r}; it takes a number, 1000000 say.")
            values[name] = int(text)
    return Limits(**values)


def _mtime(sha256: str) -> int:
    """The time that the files of an archive bear, somewhere between 1985 and 2017.

    Python takes compiled bytecode for a module's own if the source's time (in seconds) and size are
    the recorded ones. A working directory may see one bundle after another, with files of the same
    size within a second of each other: a time that depends on the archive keeps them apart.
    """
    return 500_000_000 + int(sha256[:8], 16) % 1_000_000_000
