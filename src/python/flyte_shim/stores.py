"""Parses the URIs of object stores, and says where their servers are.

This module uses no network and not the process's own environment. `store_settings.py` has the table
of the variables.
"""

from __future__ import annotations

import re

from flyte_shim import shown
from flyte_shim.errors import UsageError
from flyte_shim.store_settings import (
    AZURE,
    FLYTE_KEY,
    GCS,
    KEY,
    NOBODY,
    S3,
    SAS,
    Settings,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# The kind of store for each scheme.
KINDS = {"s3": S3, "gs": GCS, "abfs": AZURE, "abfss": AZURE}
DEFAULT_REGION = "us-east-1"
_AZURE_HOSTS = (".dfs.core.", ".blob.core.")
_AZURE_CLOUD = "windows.net"


class Location:
    """An object or a prefix: the kind of store, its bucket or container, the key without first `/`.

    `account` is the Azure account if the URI names it; `cloud` is the domain of its Azure cloud.
    """

    def __init__(
        self, uri: str, kind: str, bucket: str, key: str, account: str | None, cloud: str
    ) -> None:
        self.uri, self.kind, self.bucket, self.key = uri, kind, bucket, key
        self.account, self.cloud = account, cloud


class S3Settings:
    """How to reach S3 or a compatible store; None means not set.

    `endpoint` is a URL without a final slash; None is AWS. `virtual_hosted` puts the bucket into
    the host name. Static credentials come before the usual chain; with `anonymous`, requests are
    not signed. `names` has the variables that gave the values, for messages.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Raises UsageError."""
        self.table = table = Settings(S3, environ)
        self.identity, self.parts = table.identity()
        self.identity_variables = table.identity_variables()
        self.endpoint = table.get("endpoint")
        self.endpoint_variable = table.variable("endpoint")
        self.named_region = table.get("region")
        self.region = self.named_region or DEFAULT_REGION
        self.anonymous = self.identity == NOBODY
        self.request_payer = table.true("payer")
        self.virtual_hosted: bool | None = None
        style, virtual = table.get("style"), table.get("virtual")
        if style in ("virtual", "path") or (virtual and style is None):
            self.virtual_hosted = style == "virtual" if style else virtual == "true"
        self.access_key_id: str | None = None
        self.secret_access_key: str | None = None
        self.session_token: str | None = None
        if self.identity in (FLYTE_KEY, KEY):
            self.access_key_id, self.secret_access_key = self.parts.values()
            # A token belongs to the key that it came with.
            if environ.get("AWS_ACCESS_KEY_ID", "").strip() in ("", self.access_key_id):
                self.session_token = table.get("token")

    def authorities(self) -> str | None:
        """A file of certificates; of no use without TLS, and then not looked at."""
        tls = not (self.endpoint or "https:").startswith("http:")
        return self.table.get("authorities") if tls else None

    def bucket_url(self, bucket: str, region: str) -> tuple[str, bool]:
        """The bucket's URL without a final slash, and whether it is in the host's name."""
        endpoint, virtual = self.endpoint, self.virtual_hosted
        if endpoint is None:
            domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
            endpoint = f"https://s3.{region.lower()}.{domain}"
            if virtual is None:  # AWS's certificate does not match a bucket name with a dot
                virtual = "." not in bucket
        scheme, _, host = endpoint.partition("://")
        if not virtual or _ADDRESS.match(host):
            return f"{endpoint}/{bucket}", False
        if host.startswith(f"{bucket}."):  # as Flyte's own client wants it
            return endpoint, True
        return f"{scheme}://{bucket}.{host}", True


# An IP address, which has no names below it.
_ADDRESS = re.compile(r"\[|[0-9]+(\.[0-9]+){3}([:/]|$)")


def locate(uri: str) -> Location:
    """Parse `s3://bucket/key`, `gs://bucket/key` or one of Azure's forms; raises UsageError.

    Azure's forms are `abfs[s]://container@account.dfs.core.windows.net/key` and, with the account
    in the environment, `abfs[s]://container/key`. Keys are not percent-encoded.
    """
    scheme, _, rest = uri.partition("://")
    kind = KINDS.get(scheme.lower())
    if kind is None:
        raise UsageError(f"{shown.uri(uri)} has an unknown scheme; known are {', '.join(KINDS)}")
    authority, _, key = rest.partition("/")
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"{shown.uri(uri)} must not hold '?' or '#'. Give a presigned URL unchanged, with https://"
        )
    account, cloud = None, _AZURE_CLOUD
    bucket, at, host = authority.partition("@")
    if at and kind == AZURE:
        account, cloud = _azure_account(uri, host.lower())
    elif at:
        raise UsageError(
            f"{shown.uri(uri)} has an '@' in its bucket; give credentials by the environment"
        )
    bucket_ok = bucket.replace("-", "").replace("_", "").replace(".", "").replace("$", "")
    if not (bucket_ok.isascii() and bucket_ok.isalnum()):
        raise UsageError(f"{shown.uri(uri)} has no bucket; write {scheme}://BUCKET/KEY")
    if "\0" in key or "\r" in key or "\n" in key:
        raise UsageError(f"{shown.uri(uri)} has a control character")
    return Location(uri, kind, bucket, key, account, cloud)


def endpoint_of(location: Location, settings: Settings) -> str | None:
    """The server's URL if the environment replaces the cloud's own. Raises UsageError."""
    if location.kind == GCS:
        return settings.get("endpoint") or settings.get("emulator")
    if location.kind == AZURE and settings.true("emulator"):
        return settings.get("emulator url") or "http://127.0.0.1:10000"
    return settings.get("endpoint")


def gcs_is_anonymous(settings: Settings) -> bool:
    """Whether requests carry no credentials: for an emulator, or if the environment says so."""
    emulated = settings.get("emulator") is not None and settings.get("endpoint") is None
    return emulated or settings.identity()[0] == NOBODY


def azure_account(location: Location, settings: Settings) -> str | None:
    """The account of the URI, else of the environment. Raises UsageError.

    What belongs to the environment's account alone is not used for another: its key, its signature,
    its endpoint.
    """
    named, variable = settings.get("account"), settings.variable("account")
    account = location.account or named
    if not account:
        return None
    if named and named != account and settings.identity()[0] in (KEY, SAS):
        raise UsageError(
            f"the URI names the account {account}, and {variable} the account {named}, which "
            f"{settings.identity_variables()} belongs to: unset {variable} if it is of {account}, "
            "else set that account's own"
        )
    endpoint = settings.get("endpoint")
    host = (endpoint or "").partition("://")[2]
    there = next((host.partition(one)[0] for one in _AZURE_HOSTS if one in host), account)
    if there != account:
        raise UsageError(
            f"{settings.variable('endpoint')} is the server of the account {there}, and the "
            f"account is {account}: unset the variable, or correct the account"
        )
    return account


def _azure_account(uri: str, host: str) -> tuple[str, str]:
    """The account and the cloud's domain in `ACCOUNT.dfs.core.DOMAIN`."""
    account = host.partition(".")[0]
    for infix in _AZURE_HOSTS:
        if account.isascii() and account.isalnum() and host.startswith(account + infix):
            return account, host[len(account + infix) :]
    raise UsageError(
        f"{shown.uri(uri)} names no Azure account; "
        "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY"
    )
