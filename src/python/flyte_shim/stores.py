"""Parses the URIs of object stores, and the environment variables that say how to reach them.

This module uses no network, no files and not the process's own environment. Flyte's variables come
before those of the clouds' own tools. obstore itself reads `GOOGLE_*`, `AZURE_*` and most of
`AWS_*`.
"""

from __future__ import annotations

from flyte_shim import shown
from flyte_shim.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

S3, GCS, AZURE = "s3", "gs", "abfs"
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
    not signed.
    """

    endpoint: str | None = None
    region = DEFAULT_REGION
    virtual_hosted: bool | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    anonymous = False
    request_payer = False


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


def s3_settings(environ: Mapping[str, str]) -> S3Settings:
    """What the environment says about S3; raises UsageError.

    The endpoint: FLYTE_AWS_ENDPOINT; then, unless AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true,
    AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_ENDPOINT. The key: FLYTE_AWS_ACCESS_KEY_ID with
    FLYTE_AWS_SECRET_ACCESS_KEY, else AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY. The token:
    AWS_SESSION_TOKEN or AWS_TOKEN; it goes with Flyte's key if no other AWS_ACCESS_KEY_ID is set.
    """
    found, get = S3Settings(), environ.get
    endpoint = get("FLYTE_AWS_ENDPOINT")
    if not endpoint and not _true(get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")):
        endpoint = get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL") or get("AWS_ENDPOINT")
    if endpoint and not endpoint.lower().startswith(("http://", "https://")):
        raise UsageError(
            "the endpoint of S3 is an invalid URL; set AWS_ENDPOINT_URL to one with http(s)://"
        )
    found.endpoint = endpoint.rstrip("/") if endpoint else None
    key_id, secret = get("FLYTE_AWS_ACCESS_KEY_ID"), get("FLYTE_AWS_SECRET_ACCESS_KEY")
    token = get("AWS_SESSION_TOKEN") or get("AWS_TOKEN")
    if key_id and secret:
        if get("AWS_ACCESS_KEY_ID", key_id) != key_id:
            token = None
    else:
        key_id, secret = get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:
        found.access_key_id, found.secret_access_key = key_id, secret
        found.session_token = token or None
    if style := get("FLYTE_AWS_S3_ADDRESSING_STYLE"):
        found.virtual_hosted = style == "virtual"
    elif virtual := get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
        found.virtual_hosted = _true(virtual)
    found.region = get("AWS_REGION") or get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    found.anonymous = _true(get("AWS_SKIP_SIGNATURE"))
    found.request_payer = (get("AWS_REQUEST_PAYER") or "").lower() in ("requester", "true", "1")
    return found


def obstore_config(location: Location, environ: Mapping[str, str]) -> dict[str, str]:
    """The `config` that makes obstore reach `location`, in addition to what obstore reads itself.

    It holds the settings of S3, STORAGE_EMULATOR_HOST for GCS as Google's own libraries read it, or
    the account that an Azure URI names. Raises UsageError.
    """
    config: dict[str, str] = {}
    if location.kind == S3:
        settings = s3_settings(environ)
        given = {
            "region": settings.region,
            "endpoint": settings.endpoint,
            "access_key_id": settings.access_key_id,
            "secret_access_key": settings.secret_access_key,
            "session_token": settings.session_token,
            "skip_signature": "true" if settings.anonymous else None,
        }
        config = {name: value for name, value in given.items() if value}
        if settings.virtual_hosted is not None:
            config["virtual_hosted_style_request"] = str(settings.virtual_hosted).lower()
    elif location.kind == GCS:
        emulator = gcs_emulator(environ)
        if emulator and not environ.get("GOOGLE_BASE_URL"):
            import json  # slower to import than this module

            # obstore before 0.9 takes the address only in a service account.
            config["service_account_key"] = json.dumps(
                {
                    "gcs_base_url": emulator,
                    "disable_oauth": True,
                    **dict.fromkeys(("client_email", "private_key", "private_key_id"), ""),
                }
            )
    elif location.account:
        config["account_name"] = location.account
        if location.cloud != _AZURE_CLOUD and not endpoint_of(location, environ):
            config["endpoint"] = f"https://{location.account}.blob.core.{location.cloud}"
    return config


def allows_http(location: Location, environ: Mapping[str, str]) -> bool:
    """Whether the environment names an endpoint without TLS for this store."""
    endpoint = endpoint_of(location, environ) or ""
    if location.kind == GCS and endpoint and "://" not in endpoint:
        return True
    if location.kind == AZURE and _true(environ.get("AZURE_STORAGE_USE_EMULATOR")):
        return True
    return endpoint.lower().startswith("http://")


def endpoint_of(location: Location, environ: Mapping[str, str]) -> str | None:
    """The server's URL if the environment replaces the cloud's own. Raises UsageError."""
    if location.kind == S3:
        return s3_settings(environ).endpoint
    if location.kind == GCS:
        return environ.get("GOOGLE_BASE_URL") or gcs_emulator(environ)
    return environ.get("AZURE_STORAGE_ENDPOINT") or environ.get("AZURE_ENDPOINT")


def gcs_emulator(environ: Mapping[str, str]) -> str | None:
    host = environ.get("STORAGE_EMULATOR_HOST")
    return f"http://{host}" if host and "://" not in host else host or None


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


def _true(text: str | None) -> bool:
    return (text or "").strip().lower() in ("1", "true", "yes", "on")
