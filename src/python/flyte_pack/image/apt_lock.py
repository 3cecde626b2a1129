"""The lock file of an image's Debian packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Optional, Tuple

from flyte_pack.json_fields import Digest, Document, SafePath, Sha256, matching
from flyte_pack.oci.model import Platform
from flyte_shim.paths import path_problem

# A name (Debian Policy, 5.6.7), and never `name-`, which has apt remove a package (apt-get(8)).
PACKAGE = r"[a-z0-9][a-z0-9+.-]*[a-z0-9+]"
REQUEST = PACKAGE + r"(=[A-Za-z0-9.+~:-]+)?"


def repository_problem(uri: str) -> str | None:
    """Why a package cannot be fetched from there by everyone who has the lock file."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in ("http", "https"):
        return "it is not http:// or https://"
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        return "it has a user, a password or a query"
    return None


def _repository(uri: str) -> str:
    if problem := repository_problem(uri) or path_problem(uri.partition("://")[2].strip("/")):
        raise ValueError(problem)
    return uri


_Name = Annotated[str, matching(PACKAGE, "not the name of a package")]


@dataclass(frozen=True)
class LockedDeb:
    """path: of the file, from the `repository` of the base's sources. links: what its maintainer
    scripts would have made, `(path, target)`.
    """

    name: _Name
    version: str
    architecture: str
    repository: Annotated[str, _repository]
    path: SafePath
    size: int
    sha256: Sha256
    links: Tuple[Tuple[SafePath, str], ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class LockedPlatform:
    """debs: those that the base lacks, by name. moved: directories that are links in the base, and
    where they lead: `lib` to `usr/lib`.
    """

    platform: Platform
    debs: Tuple[LockedDeb, ...]
    moved: Tuple[Tuple[SafePath, SafePath], ...]


@dataclass(frozen=True)
class AptLock(Document):
    """base: digest of the base image. packages, skipped_scripts: as the target has them, sorted."""

    NAME = "lock file of Debian packages"

    base: Digest
    packages: Tuple[str, ...]
    skipped_scripts: Tuple[str, ...]
    platforms: Tuple[LockedPlatform, ...]

    def for_platform(self, platform: Platform) -> Optional[LockedPlatform]:
        return next((one for one in self.platforms if one.platform == platform), None)


def mirrored(uri: str, mirrors: dict[str, str]) -> str:
    """`uri` in the mirror of the longest prefix that has one."""
    for prefix in sorted(mirrors, key=len, reverse=True):
        plain = prefix.rstrip("/")
        if f"{uri}/".startswith(f"{plain}/"):
            return mirrors[prefix].rstrip("/") + uri[len(plain) :]
    return uri
