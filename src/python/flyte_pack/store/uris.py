"""Checks the URI of a store by its text alone, also for the build rules, which have no client."""

from __future__ import annotations

import re

from flyte_pack.errors import UserError


class StoreError(UserError):
    """A store cannot be used or holds invalid data; the message says what to do."""


SCHEMES = ("file", "s3", "gs", "abfs", "abfss")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# The clouds' rules for new buckets, in short.
_BUCKETS = {
    "s3": (r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "bucket (3 to 63 of a-z, 0-9, '.' and '-')"),
    "gs": (
        r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]",
        "bucket (3 or more of a-z, 0-9, '.', '_' and '-')",
    ),
    "abfs": (
        r"(?=.{3,63}$)[a-z0-9](?:-?[a-z0-9])*",
        "container (3 to 63 of a-z, 0-9 and single '-')",
    ),
}
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}\.(?:dfs|blob)\.core(?:\.[a-z0-9-]+)+")
_EXAMPLES = {
    "s3": "s3://bucket/prefix",
    "gs": "gs://bucket/prefix",
    "abfs": "abfss://container@account.dfs.core.windows.net/prefix, or abfs://container/prefix "
    "with the account in AZURE_STORAGE_ACCOUNT_NAME",
}


def check_store_uri(uri: str) -> str:
    """`uri` if it is valid for `open_store`. Raises `StoreError`.

    The message repeats no text that may hold a password or a signature.
    """
    match = _SCHEME.fullmatch(uri)
    if match is None:
        raise StoreError(
            "a store is given as a URI, like s3://bucket/prefix, file:///srv/flyte or file://dist/flyte"
        )
    scheme, rest = match[1].lower(), match[2]
    authority, _, path = rest.partition("/")
    bucket, at, host = authority.partition("@")
    azure = scheme in ("abfs", "abfss")
    names_account = azure and at and _ACCOUNT.fullmatch(host) and ":" not in bucket
    if (at and not names_account) or (scheme != "file" and "@" in path):
        form = f". Azure's form is {_EXAMPLES['abfs']}" if azure else ""
        raise StoreError(
            "a store's URI must not hold a user or password: commands and records would show it. "
            f"Remove it, and give credentials by the environment{form}"
        )
    odd = next((c for c in rest if not c.isprintable() or c in "?#%\\"), None)
    if odd is not None:
        raise StoreError(f"a store's URI must not hold {odd!a}, which has a meaning in some URIs")
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise StoreError(f"{scheme}:// is not a store that pants-flyte knows; it knows {known}")
    if scheme == "file":
        return _check_file(uri, rest)
    kind = "abfs" if azure else scheme
    pattern, what = _BUCKETS[kind]
    if not re.fullmatch(pattern, bucket) or ".." in bucket:
        raise StoreError(f"this {scheme}:// URI names no {what}: write {_EXAMPLES[kind]}")
    prefix = path.rstrip("/")
    if prefix and {"", ".", ".."} & set(prefix.split("/")):
        raise StoreError(
            f"{uri!r:.200} has an empty, '.' or '..' part: write {_EXAMPLES[kind]} without"
        )
    return uri


def _check_file(uri: str, rest: str) -> str:
    path = rest.rstrip("/")
    if not path or {"", ".", ".."} & set(path.lstrip("/").split("/")) or rest.startswith("//"):
        raise StoreError(
            f"{uri!r:.200} names no directory: write file:///srv/flyte, or file://dist/flyte for "
            "one below the build root, with no empty, '.' or '..' part"
        )
    if path.partition("/")[0] == "localhost":
        raise StoreError(
            "file://localhost/... is ambiguous: write file:///... for an absolute path"
        )
    return uri
