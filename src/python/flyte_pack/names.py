"""Names of projects, domains, versions, images, registries and endpoints: what may be one, and how a target address becomes
part of a store's key.

Projects, domains and versions become parts of keys as they are, so they are held to characters that are the same
everywhere: in a file name on any system, in an object store's key, in a URI.
"""

from __future__ import annotations

import hashlib
import re

from flyte_pack.errors import UserError
from flyte_shim import shown

PROJECT_LENGTH = 63
DOMAIN_LENGTH = 63
VERSION_LENGTH = 128
_ADDRESS_LENGTH = 160

_SEGMENT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_REF_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*)")

# The grammar of distribution's `reference` package (the OCI distribution specification links to it), without a bare
# name: that is what tells a reference from the name of one.
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\]"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?:{_HOST})(?::[0-9]{{1,5}})?/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"
    r"(?:@sha256:[0-9a-f]{64}|@sha512:[0-9a-f]{128})?"
)
_ENDPOINT = re.compile(rf"(?:(?:dns:///|https?://))?(?:{_HOST})(?::[0-9]{{1,5}})?/?", re.IGNORECASE)


class InvalidName(UserError):
    """A project, domain, version, image, address, ... that can not be used; the message says what would be one."""


def check_project(text: str) -> str:
    """`text`, if it may be a project's name. Raises `InvalidName`."""
    return _segment("project", text, PROJECT_LENGTH)


def check_domain(text: str) -> str:
    """`text`, if it may be a domain's name. Raises `InvalidName`."""
    return _segment("domain", text, DOMAIN_LENGTH)


def check_version(text: str) -> str:
    """`text`, if it may be a version. Raises `InvalidName`."""
    return _segment("version", text, VERSION_LENGTH)


def check_ref_name(text: str) -> str:
    """`text`, if code may call an image so in `Image.from_ref_name`. Raises `InvalidName`."""
    if not _REF_NAME.fullmatch(text):
        raise InvalidName(
            "the name of an image is made of letters, digits, '.', '_' and '-'"
            + f", and {shown.word(text, 80, '@?')} is not"
        )
    return text


def check_image(text: str) -> str:
    """`text`, if it is a reference to an image, like `registry.example/team/name:tag`. Raises `InvalidName`.

    The message does not repeat a text that may hold a password.
    """
    if "://" in text:
        raise InvalidName(
            "an image is given as registry/name:tag, without a scheme such as https:// before it"
        )
    _, at, digest = text.partition("@")
    if at and not digest.startswith(("sha256:", "sha512:")):
        raise InvalidName(
            "the '@' in an image is for a digest, like registry/name@sha256:...: a user or password is never part "
            "of it (log in to the registry instead)"
        )
    if len(text) > 512 or not any(c in text for c in "/:@") or not _REFERENCE.fullmatch(text):
        raise InvalidName(
            f"{shown.word(text, 200, '@?')} is no image: write registry/name:tag or registry/name@sha256:<64 digits>, "
            "the name in lower case"
        )
    return text


def check_registry(text: str) -> str:
    """`text` without a "/" at its end, if it names a registry or a place in one. Raises `InvalidName`."""
    if "://" in text or "@" in text:
        raise InvalidName(
            "a registry is a host, perhaps with a path, like ghcr.io/org: no scheme, no user, no password"
        )
    place = text.rstrip("/")
    check_image(f"{place}/name:tag")
    return place


def check_endpoint(text: str) -> str:
    """`text`, if it is where a Flyte control plane may be: HOST[:PORT], perhaps after dns:///, http:// or https://.

    Raises `InvalidName`, with a message that does not repeat a text that may hold a password.
    """
    if "@" in text:
        raise InvalidName(
            "an endpoint holds no user and no password: what logs in is configured in Flyte's own config.yaml "
            "(--flyte-config) or by its environment variables"
        )
    if not _ENDPOINT.fullmatch(text) or len(text) > 300:
        raise InvalidName(
            "an endpoint is a host, perhaps with a port or a scheme, and no path: flyte.example.com, localhost:8090, "
            "dns:///flyte.example.com or https://flyte.example.com:8443"
        )
    return text


def check_org(text: str) -> str:
    """`text`, if it may be an organization's name. Raises `InvalidName`."""
    return _segment("org", text, PROJECT_LENGTH)


def escape_address(address: str) -> str:
    """The path segment that stands for the address of a target; no two addresses share one.

    Lower-case letters, digits, `_`, `-` and inner `.` stand for themselves, `~-` for `/`, `~.` for `:`, `~` and two
    hexadecimal digits for any other byte of the address in UTF-8 (capital letters too: some file systems take `A` for
    `a`). What would be too long for a file name ends in `~~` and the SHA-256 of the address. Raises `InvalidName`.
    """
    if not address:
        raise InvalidName("the address of a target is empty")
    last = len(address) - 1
    escaped = "".join(_escape(c, inner=0 < position < last) for position, c in enumerate(address))
    if len(escaped) <= _ADDRESS_LENGTH:
        return escaped
    digest = hashlib.sha256(address.encode()).hexdigest()
    return f"{escaped[: _ADDRESS_LENGTH - len(digest) - 2]}~~{digest}"


def _segment(what: str, text: str, length: int) -> str:
    if not _SEGMENT.fullmatch(text) or len(text) > length:
        raise InvalidName(
            f"{shown.word(text, 80, '@?')} can not be {'an' if what == 'org' else 'a'} {what}: up to {length} letters, digits, '.', '_' and '-', "
            "with no '.' or '-' at the start and no '.' at the end"
        )
    return text


def _escape(character: str, inner: bool) -> str:
    if character in "abcdefghijklmnopqrstuvwxyz0123456789_-" or (character == "." and inner):
        return character
    if character == "/":
        return "~-"
    if character == ":":
        return "~."
    return "".join(f"~{byte:02x}" for byte in character.encode())
