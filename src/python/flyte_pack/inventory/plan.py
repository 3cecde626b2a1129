"""What an inventory is made from, which the rules write and `flyte_pack inventory` reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional, Tuple

from flyte_pack.json_fields import Digest, Document, Raw, SafePath
from flyte_pack.names import TargetAddress
from flyte_pack.oci.model import Platform

ENDING = ".cdx.json"  # by which readers know CycloneDX in JSON


@dataclass(frozen=True)
class PackagesWanted(Document):
    """Asks which packages the code of a bundle needs.

    requirements: what it asks for. lock: the file that pins that, if there is one, read for the
    CPython `python`.
    """

    NAME = "inventory plan"
    COMPACT = True

    requirements: Tuple[str, ...]
    lock: Optional[SafePath]
    python: str


class RequiredPackage(NamedTuple):
    """As a `Package` of `parts` has it, on the package index."""

    name: Raw
    version: Raw
    hashes: Tuple[Raw, ...]
    requires: Tuple[Raw, ...]


@dataclass(frozen=True)
class RequiredPackages(Document):
    """What `PackagesWanted` asks for. complete: whether that is all of it."""

    NAME = "required packages"
    COMPACT = True

    packages: Tuple[RequiredPackage, ...]
    complete: bool


@dataclass(frozen=True)
class BundleInventory(Document):
    """Asks for the inventory of a bundle.

    manifest: the file of its manifest. targets: of each owner of files in it, the target in a BUILD
    file. packages: the file of its `RequiredPackages`.
    """

    NAME = "inventory plan"
    COMPACT = True

    address: TargetAddress
    manifest: SafePath
    targets: Tuple[Tuple[Raw, Raw], ...]
    packages: SafePath


class CodeFile(NamedTuple):
    """A first-party file: its path in the image, and the target in a BUILD file, if one owns it."""

    path: Raw
    target: Optional[Raw]


@dataclass(frozen=True)
class PlatformPart:
    """An image on one platform.

    base: the digest of the base's manifest. layers: those of ours. python, libc: as for
    `WheelTarget`. pins: the file of the locked distributions that are in it, if there are some.
    """

    platform: Platform
    base: Digest
    layers: Tuple[Digest, ...]
    python: str
    libc: Optional[str]
    pins: Optional[SafePath]


@dataclass(frozen=True)
class ImageInventory(Document):
    """Asks for the inventory of an image, whose layers are at hand.

    digest: of the image. base: its name in a registry, or the address of its target.
    """

    NAME = "inventory plan"
    COMPACT = True

    address: TargetAddress
    digest: Digest
    base: str
    in_registry: bool
    platforms: Tuple[PlatformPart, ...]
    files: Tuple[CodeFile, ...]


class PackageSizes(NamedTuple):
    """Files of a `distribution` or `debian` package. size, packed: bytes, before and after
    compression.
    """

    kind: str
    name: Raw
    version: Raw
    files: int
    size: int
    packed: int


@dataclass(frozen=True)
class ArchiveSizes(Document):
    """What an archive or layer holds. files: of no package, each with its path and its sizes."""

    NAME = "sizes of an archive"
    COMPACT = True

    files: Tuple[Tuple[Raw, int, int], ...]
    packages: Tuple[PackageSizes, ...]
