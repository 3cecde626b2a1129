"""Decides what may be shown: whoever prints, logs or records foreign text calls this module.

It hides by default, cuts text before it looks for secrets, and looks in linear time. It imports
nothing at the top, for the shim's warm start; `flyte_side` loads this file by its path.
"""

from __future__ import annotations

HIDDEN = "..."
NOT_REPEATED = "(not repeated here)"
LOOKED_AT = 8 << 10  # characters of a foreign text that are looked at; what is shown is shorter
_LONGEST = 64 << 10  # characters of a message of ours
_LONGEST_URI = 1_000  # characters of a URI or path
_LONGEST_HOST = 255
# Schemes that make a URI also with too few slashes or too many. After those of stores stands a
# bucket, which has no port; after some, a container and the account.
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
_STORES = (*_CONTAINERS, "adl", "az", "azure", "gcs", "gs", "s3", "s3a", "s3n")
_SCHEMES = (*_STORES, "http", "https")
# What stands before "=", or in JSON before ":", where a secret follows; also at a name's end.
_NAMES_OF_SECRETS = (
    r"(?:pass(?:word|wd|phrase)|pwd|secret|signature|(?:\b|_)(?:sig|sas)|credential|token|jwt"
    r"|(?:account|access|api|client|private|secret|shared|signing)[-_]?key(?:[-_]?id)?)"
)
_LOGINS = ("bearer", "basic", "negotiate", "ntlm", "sharedkey", "sharedkeylite")


def printable(text: str) -> str:
    """`text` with escapes for what could steer a terminal or cannot be encoded."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def uri(text: str) -> str:
    """A URI's scheme, host and path (RFC 3986, 3), or a plain path, on one line.

    A query may be a signature, which is as good as a password. Of what is mistyped, that is shown
    which is surely no secret, perhaps none of it.
    """
    import re

    plain = _decoded(text.strip())
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]{0,11}):([/\\]*)", plain)
    if found and found[1].lower() == "file":
        said = found[0] + _path(plain[found.end() :])
    elif found and (found[1].lower() in _SCHEMES or found[2].startswith("//")):
        said = found[0] + _place(found[1], plain[found.end() :])
    elif ":" in plain and not re.match(r"\.{0,2}/|[\w.-]+:[0-9]{1,5}(/[^@]*)?$", plain):
        return NOT_REPEATED
    else:
        said = _path(plain)
    return printable(said if len(said) <= _LONGEST_URI else said[:_LONGEST_URI] + HIDDEN)


def word(text: str) -> str:
    """A typed word in quotes, unless it could hold a secret."""
    return ascii(text) if len(text) <= 40 and not set("@:/?#%&=\\") & set(text) else NOT_REPEATED


def name(text: str) -> str:
    """A typed or configured name, such as an image's, in quotes, unless it could hold a secret."""
    hide = len(text) > 300 or "://" in text or set("@?#%&=\\") & set(text)
    return NOT_REPEATED if hide else ascii(text)


def line(text: str, secrets: tuple[str, ...] = (), longest: int = 300) -> str:
    """Free text of a server or a tool, on one line, without `secrets` and probable others."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return printable(_without_tokens(_without_credentials(_cut(text, LOOKED_AT))))[:longest]


def message(text: str) -> str:
    """A message of ours, perhaps of several lines; it may quote a URI with a secret."""
    lines = _cut(text, _LONGEST).splitlines()
    return "\n".join(printable(_without_credentials(one)) for one in lines)


def _cut(text: str, longest: int) -> str:
    """The beginning of `text`. A part of a word at its end might be a part of a secret."""
    if len(text) <= longest:
        return text
    whole, _, _ = text[:longest].rpartition(" ")
    return whole or text[:longest]


def _decoded(text: str) -> str:
    """`text` with the delimiters of URIs as they are, which may be percent-encoded, even twice."""
    if "%" not in text:
        return text
    import re

    codes = r"%(?:25)*(2[36Ff]|3[AaBbDdFf]|40|5[Cc])"
    return re.sub(codes, lambda found: chr(int(found[1], 16)), text)


def _path(text: str) -> str:
    """A path without a query and fragment, and without what could be user information in it."""
    import re

    body = re.split(r"[?#]", text, maxsplit=1)[0]
    if "@" in body:
        lead = body[: len(body) - len(body.lstrip("/\\"))]
        body = f"{lead}{HIDDEN}@{body.rpartition('@')[2]}"
    elif ":" in body and "@" in text:
        return HIDDEN
    return _without_values(body)


def _place(scheme: str, rest: str) -> str:
    """What follows the slashes of a URI: host and path, and the container in an Azure store."""
    import re

    authority = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    user, at, host = authority.rpartition("@")
    path = rest[len(authority) :]
    if "@" in path and (at or ":" in host or "." not in host):
        # Then "/" or "?" may be in the password, and all before the "@" belongs to it.
        at, host = "", HIDDEN
    is_container = re.fullmatch(r"\$?[a-z0-9-]{1,63}|CONTAINER", user)
    if not (at and scheme.lower() in _CONTAINERS and is_container):
        user, at = "", ""
    bare = re.sub(r"\[[0-9A-Fa-f:.]*\]", "", host)  # without the colons of IPv6
    port = r"\W*" if scheme.lower() in _STORES else r"(([0-9]{1,5}|PORT)\b)?(\W[^:]*)?"
    if len(host) > _LONGEST_HOST or (":" in bare and not re.fullmatch(rf"[^:]*:{port}", bare)):
        user, at, host = "", "", HIDDEN
    return f"{user}{at}{host}{_path(path)}"


def _without_credentials(text: str) -> str:
    """Hide what is secret by its place: in a URI, after `Bearer`, after `password=`."""
    import re

    parts = re.split(r"(\s+)", text)  # words, with what is between them
    hide = False
    for at in range(0, len(parts), 2):
        one = parts[at]
        if hide and one:
            parts[at] = HIDDEN
        elif not one.isalnum():
            parts[at] = _without_uris(_decoded(one))
        is_name = re.search(rf"(?i){_NAMES_OF_SECRETS}['\"]:$", one)
        hide = bool(is_name) or one.lower().endswith(_LOGINS)
    # JSON web tokens have three parts.
    whole = "".join(parts)
    return re.sub(r"\beyJ[\w.~+/=-]*", lambda m: HIDDEN if m[0].count(".") > 1 else m[0], whole)


def _without_uris(one: str) -> str:
    """A word of a text with what `_place` leaves of a URI, or of what looks like a mistyped one."""
    import re

    if "://" in one:
        first, *rest = re.split(r"[?#]", one, maxsplit=1)[0].split("://")
        if rest and "@" in one and "@" not in "".join(rest):
            rest[-1] += "?@"  # `_place` heeds it
        schemes = (
            re.search(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]*$", before) for before in [first, *rest]
        )
        places = [_place(found[0] if found else "", more) for found, more in zip(schemes, rest)]
        return "://".join([_without_values(first), *places])
    if found := re.search(rf"(?i)(?<![a-z0-9])(file|{'|'.join(_SCHEMES)}):[/\\]*(?=[^/\\])", one):
        before = _without_values(one[: found.start()])
        return f"{before}{found[0]}{_place(found[1], one[found.end() :])}"
    one = re.split(r"\?(?=[\w.-]+=)", one, maxsplit=1)[0]
    before, at, after = one.rpartition("@")
    # Not the address of a target with parameters, and not a digest.
    if at and ":" in before and not re.match(r"sha(256|512):|\w+=", after):
        one = f"{HIDDEN}@{after}"
    return _without_values(one)


def _without_values(text: str) -> str:
    """Without what stands after `password=` and the like."""
    import re

    text = re.sub(rf"(?i)({_NAMES_OF_SECRETS}=)(?!=)\S+", lambda found: found[1] + HIDDEN, text)
    quoted = rf"(?i)({_NAMES_OF_SECRETS}['\"]:)(['\"]?)[^'\",}}\s]+"
    return re.sub(quoted, lambda found: f"{found[1]}{found[2]}{HIDDEN}", text)


def _without_tokens(text: str) -> str:
    """Hide tokens by their length."""
    import re

    return re.sub(
        r"(sha256:|sha512:)?[A-Za-z0-9_]{32,}",
        lambda m: m[0] if m[1] or not any(map(str.isdigit, m[0])) else HIDDEN,
        text,
    )
