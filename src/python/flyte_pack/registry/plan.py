"""The plan of a push, which the rules write and `flyte_pack push` reads."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from flyte_pack.json_fields import Fields, InvalidData, dump, load
from flyte_pack.names import InvalidName
from flyte_pack.oci.model import InvalidImage, check_digest
from flyte_pack.oci.reference import Reference
from flyte_shim import shown

SCHEMA = 1
# distribution specification, "Pulling manifests"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")


@dataclass(frozen=True)
class Destination:
    """name: `registry/repository`. tags: those that will point to the image."""

    name: str
    tags: tuple[str, ...] = ()

    @property
    def reference(self) -> Reference:
        return parse_name(self.name)


@dataclass(frozen=True)
class PushPlan:
    """address: of the target. layout: a path below the packaged files. digest: of the image in it.

    insecure: `host[:port]` of registries that may use plain HTTP. siblings: `registry/repository`
    of images that may share layers with this one.
    """

    address: str
    layout: str
    digest: str
    destinations: tuple[Destination, ...]
    insecure: tuple[str, ...] = ()
    siblings: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        return dump({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, data: bytes, what: str) -> PushPlan:
        """Parse what `to_json` wrote. what: names it in errors. Raises `InvalidData`."""
        fields = load(data, what, SCHEMA)
        plan = cls(
            address=fields.text("address"),
            layout=fields.text("layout"),
            digest=fields.text("digest"),
            destinations=tuple(map(_destination, fields.nested_list("destinations"))),
            insecure=fields.texts("insecure"),
            siblings=fields.texts("siblings"),
        )
        fields.end()
        try:
            check_digest(plan.digest)
            for name in (*(d.name for d in plan.destinations), *plan.siblings):
                parse_name(name)
            for tag in (tag for d in plan.destinations for tag in d.tags):
                check_tag(tag)
            for host in plan.insecure:
                check_host(host)
        except (InvalidImage, InvalidName) as error:
            raise InvalidData(f"{what}: {error}") from None
        if plan.layout.startswith("/") or ".." in plan.layout.split("/"):
            raise InvalidData(
                f"{what}: the layout {plan.layout!r:.200} is not below the packaged files"
            )
        return plan


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


def _destination(fields: Fields) -> Destination:
    destination = Destination(fields.text("name"), fields.texts("tags"))
    fields.end()
    return destination
