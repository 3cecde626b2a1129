"""Decides what may be shown: whoever prints, logs or records foreign text calls this module.

It hides by default, and cuts text before it looks for secrets, so that long texts cost little. It
imports nothing at the top, for the shim's warm start; `flyte_side` loads this file by its path.
"""

from __future__ import annotations

HIDDEN = "..."
NOT_REPEATED = "(not repeated here)"
LOOKED_AT = 8 << 10  # characters of a foreign text that are looked at; what is shown is shorter
_LONGEST = 64 << 10  # characters of a message of ours
_SECRET_NAMES = ("apikey", "api_key", "password", "passwd", "secret", "signature", "token")


def printable(text: str) -> str:
    """`text` with escapes for what could steer a terminal or cannot be encoded."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def uri(text: str) -> str:
    """A URI without user information, query and fragment (RFC 3986, 3).

    A query may be a signature, which is as good as a password. A plain path stays as it is.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or "/" in scheme:
        return text
    return f"{scheme}://{_bare(scheme, rest)}"


def word(text: str) -> str:
    """A typed word in quotes, unless it could hold a secret."""
    return ascii(text) if len(text) <= 40 and not set("@:/?") & set(text) else NOT_REPEATED


def name(text: str) -> str:
    """A typed or configured name, such as an image's, in quotes, unless it could hold a secret."""
    hide = len(text) > 300 or "://" in text or set("@?") & set(text)
    return NOT_REPEATED if hide else ascii(text)


def line(text: str, secrets: tuple[str, ...] = (), longest: int = 300) -> str:
    """Free text of a server or a tool, on one line, without `secrets` and probable others."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    if len(text) > LOOKED_AT:
        # A part of a word at the end might be a part of a secret.
        whole, _, _ = text[:LOOKED_AT].rpartition(" ")
        text = whole or text[:LOOKED_AT]
    return printable(_without_tokens(_without_credentials(text)))[:longest]


def message(text: str) -> str:
    """A message of ours, perhaps of several lines; it may quote a URI with a secret."""
    return "\n".join(printable(_without_credentials(one)) for one in text[:_LONGEST].splitlines())


def _without_credentials(text: str) -> str:
    """Hide what is secret by its place: in a URI, after `Bearer`, after `password=`."""
    import re

    parts = re.split(r"(\s+)", text)  # words, with what is between them
    hide = False
    for at in range(0, len(parts), 2):
        one = parts[at]
        name, equals, value = one.partition("=")
        if hide and one:
            parts[at] = HIDDEN
        elif "://" in one:
            first, *rest = one.partition("?")[0].split("://")
            pairs = zip([first, *rest], rest)
            parts[at] = "://".join([first, *(_bare(scheme, more) for scheme, more in pairs)])
        elif equals and value[:1] != "=" and name.lower().endswith(_SECRET_NAMES):
            parts[at] = f"{name}={HIDDEN}"
        hide = bool(one) and one.lower().endswith(("bearer", "basic"))
    return "".join(parts)


def _bare(scheme: str, rest: str) -> str:
    """What follows `://`, without user information, query and fragment."""
    rest = rest.partition("?")[0].partition("#")[0]
    authority, slash, path = rest.partition("/")
    if not scheme.lower().endswith(("abfs", "abfss")):  # whose user information is the container
        authority = authority.rpartition("@")[2]
    return f"{authority}{slash}{path}"


def _without_tokens(text: str) -> str:
    """Hide JSON web tokens, and other tokens by their length."""
    import re

    text = re.sub(r"\beyJ[\w.~+/=-]*", lambda m: HIDDEN if m[0].count(".") > 1 else m[0], text)
    return re.sub(
        r"(sha256:|sha512:)?[A-Za-z0-9_]{32,}",
        lambda m: m[0] if m[1] or not any(map(str.isdigit, m[0])) else HIDDEN,
        text,
    )
