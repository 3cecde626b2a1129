"""The plan of a push, which the rules write and `flyte_pack push` reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Optional, Tuple

from flyte_pack.json_fields import Digest, Document, SafePath
from flyte_pack.names import InvalidName, TargetAddress
from flyte_pack.oci.reference import Reference
from flyte_pack.provenance import Material
from flyte_shim import shown

# distribution specification, "Pulling manifests"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")


def parse_name(name: str) -> Reference:
    """A repository without tag and digest. Raises `InvalidName`."""
    if "/" not in name:
        raise InvalidName(
            f"{shown.name(name)} is not a registry/repository, "
            "such as registry.example.com/team/app"
        )
    reference = Reference.parse(name)
    if reference.digest is not None or ":" in name.rpartition("/")[2]:
        raise InvalidName(f"{shown.name(name)}: a repository has neither tag nor digest")
    return reference


def check_tag(tag: str) -> str:
    """`tag`, if it is valid. Raises `InvalidName`."""
    if not _TAG.fullmatch(tag):
        raise InvalidName(
            f"{shown.name(tag)} is not a tag: use up to 128 letters, digits, '_', '.' and '-', "
            "without '.' or '-' at the start"
        )
    return tag


def check_host(host: str) -> str:
    """`host`, if it is a valid `host[:port]`. Raises `InvalidName`."""
    if not _HOST.fullmatch(host):
        raise InvalidName(
            f"{shown.name(host)} is not a host[:port], such as registry.example.com:5000"
        )
    return host


def _check_name(text: str) -> str:
    parse_name(text)
    return text


Name = Annotated[str, _check_name]  # registry/repository


@dataclass(frozen=True)
class Destination:
    """Where an image goes. tags: what points to the image there afterwards."""

    name: Name
    tags: Tuple[Annotated[str, check_tag], ...] = ()

    @property
    def reference(self) -> Reference:
        return parse_name(self.name)


@dataclass(frozen=True)
class PushPlan(Document):
    """One image to push.

    address: its target. layout: its OCI layout, relative to the directory of packaged files.
    digest: of the manifest or index in the layout. insecure: `host[:port]` of registries that may
    be spoken to over plain HTTP. siblings: images that may share layers with this one. sbom: its
    inventory, a file of CycloneDX beside the layout, if there is one. materials: what it was built
    from, for a statement of that; None: none is made.
    """

    NAME = "push plan"
    OMITTED = ("sbom", "materials")

    address: TargetAddress
    layout: SafePath
    digest: Digest
    destinations: Tuple[Destination, ...]
    insecure: Tuple[Annotated[str, check_host], ...] = ()
    siblings: Tuple[Name, ...] = ()
    sbom: Optional[SafePath] = None
    materials: Optional[Tuple[Material, ...]] = None
