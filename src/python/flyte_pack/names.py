"""Checks names of projects, domains, versions, images, registries and endpoints.

Projects, domains and versions are parts of a store's keys. So they have only characters that mean
the same in a file name, in an object store's key and in a URI. Other addresses are escaped.
"""

from __future__ import annotations

import hashlib
import re
from functools import partial
from typing import NewType

from flyte_pack.errors import UserError
from flyte_shim import shown

# The address of a target, as Pants writes it: `services/ml:train`.
TargetAddress = NewType("TargetAddress", str)
_ADDRESS_LENGTH = 160

_SEGMENT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_REF_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*)")

# The grammar of distribution's `reference` package, which the OCI distribution specification links
# to. A bare name is not a reference here.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\]"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?:{_HOST})(?::[0-9]{{1,5}})?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"
    r"(?:@sha256:[0-9a-f]{64}|@sha512:[0-9a-f]{128})?"
)
_ENDPOINT = re.compile(rf"(?:(?:dns:///|https?://))?(?:{_HOST})(?::[0-9]{{1,5}})?/?", re.IGNORECASE)


class InvalidName(UserError):
    """An invalid project, domain, version, image, ...; the message says what is valid."""


def _segment(what: str, length: int, text: str) -> str:
    if not _SEGMENT.fullmatch(text) or len(text) > length:
        raise InvalidName(
            f"{shown.name(text)} cannot be {'an' if what == 'org' else 'a'} {what}: "
            f"use up to {length} letters, digits, '.', '_' and '-', "
            "without '.' or '-' at the start or '.' at the end"
        )
    return text


# `text`, if it is valid. They raise `InvalidName`, as all checks here do.
check_project = partial(_segment, "project", 63)
check_domain = partial(_segment, "domain", 63)
check_version = partial(_segment, "version", 128)
check_org = partial(_segment, "org", 63)


def normalized(distribution: str) -> str:
    """PyPA, "Names and normalization"."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def check_ref_name(text: str) -> str:
    """The name of an image in `Image.from_ref_name`."""
    if not _REF_NAME.fullmatch(text):
        raise InvalidName(
            "the name of an image has letters, digits, '.', '_' and '-', "
            f"and {shown.name(text)} does not"
        )
    return text


def check_image(text: str) -> str:
    """A reference to an image, such as `registry.example/team/name:tag`."""
    if "://" in text:
        raise InvalidName("an image is registry/name:tag, without a scheme such as https://")
    _, at, digest = text.partition("@")
    if at and not digest.startswith(("sha256:", "sha512:")):
        raise InvalidName(
            "the '@' in an image is for a digest, as in registry/name@sha256:...; "
            "an image holds no user or password (log in to the registry instead)"
        )
    if len(text) > 512 or not any(c in text for c in "/:@") or not _REFERENCE.fullmatch(text):
        raise InvalidName(
            f"{shown.name(text)} is not an image: write registry/name:tag or "
            "registry/name@sha256:<64 digits>, the name in lower case"
        )
    return text


def check_registry(text: str) -> str:
    """A registry, a place in one, or "@" and a name; returns it without a final "/"."""
    if re.fullmatch(r"@[A-Za-z0-9_-][A-Za-z0-9_.-]*", text):
        return text
    if "://" in text or "@" in text:
        raise InvalidName(
            "a registry is a host, perhaps with a path, such as ghcr.io/org, "
            "without scheme, user or password"
        )
    place = text.rstrip("/")
    check_image(f"{place}/name:tag")
    return place


def check_endpoint(text: str) -> str:
    """A control plane's address: HOST[:PORT], perhaps after dns:///, http:// or https://."""
    if "@" in text:
        raise InvalidName(
            "an endpoint holds no user and no password: configure the login in Flyte's own "
            "config.yaml (--flyte-config) or by its environment variables"
        )
    if not _ENDPOINT.fullmatch(text) or len(text) > 300:
        raise InvalidName(
            "an endpoint is a host, perhaps with a port or a scheme, without a path: "
            "flyte.example.com, localhost:8090, dns:///flyte.example.com or "
            "https://flyte.example.com:8443"
        )
    return text


def escape_address(address: TargetAddress) -> str:
    """A path segment for the address of a target; no two addresses share one.

    Lower-case letters, digits, `_`, `-` and inner `.` stay. `/` becomes `~-`, `:` becomes `~.`, and
    any other byte in UTF-8 `~` and two hexadecimal digits; so do capital letters, for file systems
    that take `A` for `a`. A long segment ends in `~~` and the SHA-256 of the address.
    """
    if not address:
        raise InvalidName("the address of a target is empty")
    last = len(address) - 1
    escaped = "".join(_escape(c, inner=0 < position < last) for position, c in enumerate(address))
    if len(escaped) <= _ADDRESS_LENGTH:
        return escaped
    digest = hashlib.sha256(address.encode()).hexdigest()
    return f"{escaped[: _ADDRESS_LENGTH - len(digest) - 2]}~~{digest}"


def _escape(character: str, inner: bool) -> str:
    if character in "abcdefghijklmnopqrstuvwxyz0123456789_-" or (character == "." and inner):
        return character
    if character == "/":
        return "~-"
    if character == ":":
        return "~."
    return "".join(f"~{byte:02x}" for byte in character.encode())
