"""Finds in layers what an inventory lists: distributions, Debian packages, hashes of code."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import compat32

from packaging.markers import InvalidMarker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flyte_pack.errors import UserError
from flyte_pack.image.filesystem import SHIM, VENV
from flyte_pack.image.pins import holds
from flyte_pack.image.wheel_target import WheelTarget
from flyte_pack.inventory.parts import Package
from flyte_pack.oci.inflate import inflate
from flyte_pack.oci.tar_stream import REGULAR, Member, TarStream
from flyte_shim import __version__

_METADATA = re.compile(rf"{VENV}/lib/python3\.[0-9]+/site-packages/[^/]+\.dist-info/METADATA")
_SHIM = re.compile(rf"{VENV}/lib/python3\.[0-9]+/site-packages/flyte_shim/__init__\.py")
# As `image/apt_layers.py` writes them.
_CONTROL = re.compile(r"var/lib/dpkg/status\.d/[a-z0-9][a-z0-9+-]*(\.[a-z0-9+.-]+)?")
_MAX_METADATA = 4 << 20
_MAX_LICENCE = 120  # longer: the text of one rather than its name
_UNKNOWN = frozenset(("", "UNKNOWN"))


@dataclass
class LayerContents:
    """metadata: files of distributions and of Debian packages. hashes: of the code, by path."""

    metadata: list[bytes] = field(default_factory=list)
    controls: list[bytes] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    has_shim: bool = False


def read_layer(path: str, code: Collection[str]) -> LayerContents:
    """code: paths whose hashes are wanted. Raises `UserError` or `OSError`."""
    found = LayerContents()
    with open(path, "rb") as file:
        for member in TarStream(inflate(file, path), path):
            name = member.name.decode(errors="surrogateescape")
            if member.kind != REGULAR:
                continue
            if name in code:
                digest = hashlib.sha256()
                for piece in member.content():
                    digest.update(piece)
                found.hashes[name] = digest.hexdigest()
            elif _METADATA.fullmatch(name):
                found.metadata.append(_content(member, name))
            elif _CONTROL.fullmatch(name) and not name.endswith(".md5sums"):
                found.controls.append(_content(member, name))
            elif _SHIM.fullmatch(name):
                found.has_shim = True
    return found


def _content(member: Member, name: str) -> bytes:
    if member.size > _MAX_METADATA:
        raise UserError(f"{name!a:.200} has {member.size:,} bytes, which is too much")
    return b"".join(member.content())


def packages_in(layers: Iterable[LayerContents], target: WheelTarget) -> Iterator[Package]:
    for layer in layers:
        for metadata in layer.metadata:
            yield distribution(metadata, target)
        for control in layer.controls:
            yield _debian(control)
        if layer.has_shim:
            yield Package("pypi", SHIM, __version__)


def distribution(metadata: bytes, target: WheelTarget) -> Package:
    """Of its METADATA (PyPA, "Core metadata specifications"). Raises `UserError`."""
    fields = _fields(metadata, "METADATA of a distribution")
    requires = set()
    for text in fields.get("requires-dist", ()):
        try:
            requirement = Requirement(text)
            if holds(requirement.marker, target):
                requires.add(canonicalize_name(requirement.name))
        except (InvalidRequirement, InvalidMarker):
            continue  # it was installed all the same
    expression = fields.get("license-expression", [""])[0]
    return Package(
        "pypi",
        canonicalize_name(_one(fields, "name")),
        _one(fields, "version"),
        licences=() if expression else _licences(fields),
        expression=expression or None,
        requires=tuple(sorted(requires)),
    )


def _debian(control: bytes) -> Package:
    fields = _fields(control, "control file of a Debian package")
    needs = ", ".join([*fields.get("depends", ()), *fields.get("pre-depends", ())])
    requires = {re.split(r"[ (:]", one.strip(), maxsplit=1)[0] for one in re.split(r"[,|]", needs)}
    return Package(
        "deb",
        _one(fields, "package"),
        _one(fields, "version"),
        requires=tuple(sorted(requires - {""})),
        qualifiers={"arch": _one(fields, "architecture")},
    )


def _licences(fields: dict[str, list[str]]) -> tuple[str, ...]:
    """Names: of the classifiers or, if there are none, of the field that holds a name or a text."""
    classified = [
        text.rpartition(" :: ")[2]
        for text in fields.get("classifier", ())
        if text.startswith("License :: ") and text != "License :: OSI Approved"
    ]
    if classified:
        return tuple(sorted(set(classified)))
    text = fields.get("license", [""])[0]
    return () if text in _UNKNOWN or len(text) > _MAX_LICENCE or "\n" in text else (text,)


def _fields(data: bytes, what: str) -> dict[str, list[str]]:
    """The fields of a header like an e-mail's, by lower-case name; they are not checked."""
    message = BytesParser(policy=compat32).parsebytes(data, headersonly=True)
    fields: dict[str, list[str]] = {"": [what]}
    for name, value in message.items():
        text = str(value).encode(errors="surrogateescape").decode(errors="replace")
        fields.setdefault(name.lower(), []).append(text.strip())
    return fields


def _one(fields: dict[str, list[str]], name: str) -> str:
    value = fields.get(name, [""])[0]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!:~-]{0,199}", value):
        raise UserError(f"{fields[''][0]}: its {name} is {value!a:.80}")
    return value
