"""The Pants versions that this backend was tried on, and the warning and error for others."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import Iterator, Tuple

from pants.base.exceptions import BackendConfigurationError
from pants.version import PANTS_SEMVER

from flyte_shim import __version__

# By `build-support/test_on.sh`; docs/pants-versions.md says with what.
OLDEST = "2.17"
NEWEST = "2.33"

logger = logging.getLogger(__name__)


def untried(release: Tuple[int, ...]) -> bool:
    """Whether this release is newer than all that were tried."""
    return release[:2] > tuple(int(part) for part in NEWEST.split("."))


def warn_if_untried() -> None:
    """One line at the start of a newer Pants: most of them work."""
    if untried(PANTS_SEMVER.release):
        logger.warning(
            f"pants-flyte {__version__} was last tried on Pants {NEWEST}, and this is "
            f"{PANTS_SEMVER}."
        )


@contextmanager
def explained() -> Iterator[None]:
    """Adds the versions to any error that Pants raises as it reads our rules."""
    try:
        yield
    except Exception as error:
        raise BackendConfigurationError(
            f"Pants {PANTS_SEMVER} cannot load pants-flyte {__version__}, which was tried on Pants "
            f"{OLDEST} to {NEWEST}. Set `pants_version` to one of these, or use a pants-flyte that "
            f"was tried on yours. Pants says: {type(error).__name__}: {error}"
        ) from error
