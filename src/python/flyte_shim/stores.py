"""Which object in which store a URI names, and what the environment says about reaching that store.

Nothing here touches the network, the file system or the process' own environment. The variables are
those that Flyte reads, and beside them those that the clouds' own tools read; where both say
something, Flyte's are obeyed. What obstore reads by itself (`GOOGLE_*`, `AZURE_*`, most of `AWS_*`)
is left to it.
"""

from __future__ import annotations

from flyte_shim import shown
from flyte_shim.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

S3, GCS, AZURE = "s3", "gs", "abfs"
# What each scheme of a URI stands for.
KINDS = {"s3": S3, "gs": GCS, "abfs": AZURE, "abfss": AZURE}
DEFAULT_REGION = "us-east-1"
_AZURE_HOSTS = (".dfs.core.", ".blob.core.")
_AZURE_CLOUD = "windows.net"


class Location:
    """An object, or a prefix: `kind` of store, its bucket or container, the key without a `/` before it.

    `account` is the Azure account, if the URI names it, and `cloud` the domain of its Azure.
    """

    __slots__ = ("account", "bucket", "cloud", "key", "kind", "uri")

    def __init__(
        self,
        uri: str,
        kind: str,
        bucket: str,
        key: str,
        account: str | None = None,
        cloud: str = _AZURE_CLOUD,
    ) -> None:
        self.uri = uri
        self.kind = kind
        self.bucket = bucket
        self.key = key
        self.account = account
        self.cloud = cloud


class S3Settings:
    """How to reach S3, or what speaks its protocol; None is for what nothing says.

    `endpoint` is a URL without a slash at its end; without one it is AWS. `virtual_hosted` says that
    the bucket goes into the host's name. The credentials are static ones; without them the usual
    chain is asked, unless `anonymous` says that requests are not signed.
    """

    __slots__ = (
        *("access_key_id", "anonymous", "endpoint", "region", "request_payer"),
        *("secret_access_key", "session_token", "virtual_hosted"),
    )

    def __init__(
        self,
        endpoint: str | None = None,
        region: str = DEFAULT_REGION,
        virtual_hosted: bool | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        anonymous: bool = False,
        request_payer: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.region = region
        self.virtual_hosted = virtual_hosted
        self.access_key_id = access_key_id
        self.secret_access_key = secret_access_key
        self.session_token = session_token
        self.anonymous = anonymous
        self.request_payer = request_payer


def locate(uri: str) -> Location:
    """Parse `s3://bucket/key`, `gs://bucket/key` and the forms that Azure has; raises UsageError.

    For Azure they are `abfs[s]://container@account.dfs.core.windows.net/key` and, with the account
    in the environment, `abfs[s]://container/key`. Keys are taken as they are written: nothing in
    them is percent-encoded.
    """
    scheme, _, rest = uri.partition("://")
    kind = KINDS.get(scheme.lower())
    if kind is None:
        raise UsageError(f"{shown.uri(uri)} names no object store: {', '.join(KINDS)} are known.")
    authority, _, key = rest.partition("/")
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"{shown.uri(uri)} has a '?' or '#' in it; a bundle's address has neither. "
            "Give a presigned URL as it is, with https://."
        )
    account, cloud = None, _AZURE_CLOUD
    bucket, at, host = authority.partition("@")
    if at and kind == AZURE:
        account, cloud = _azure_account(uri, host.lower())
    elif at:
        raise UsageError(
            f"{shown.uri(uri)} has an '@' in its bucket: credentials do not belong in an address, "
            "they are taken from the environment."
        )
    bucket_ok = bucket.replace("-", "").replace("_", "").replace(".", "").replace("$", "")
    if not (bucket_ok.isascii() and bucket_ok.isalnum()):
        raise UsageError(f"{shown.uri(uri)} has no bucket; write {scheme}://BUCKET/KEY.")
    if "\0" in key or "\r" in key or "\n" in key:
        raise UsageError(f"{shown.uri(uri)!r} has a control character in it.")
    return Location(uri, kind, bucket, key, account, cloud)


def s3_settings(environ: Mapping[str, str]) -> S3Settings:
    """What the environment says about S3; raises UsageError.

    The endpoint: FLYTE_AWS_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_ENDPOINT (none where
    AWS_IGNORE_CONFIGURED_ENDPOINT_URLS is true, but Flyte's). The key: FLYTE_AWS_ACCESS_KEY_ID with
    FLYTE_AWS_SECRET_ACCESS_KEY, else AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY and
    AWS_SESSION_TOKEN (or AWS_TOKEN); the session's token goes with Flyte's key, too, if there is no
    other key that it could belong to. The region: AWS_REGION, AWS_DEFAULT_REGION. The rest:
    FLYTE_AWS_S3_ADDRESSING_STYLE (`virtual` or `path`), AWS_VIRTUAL_HOSTED_STYLE_REQUEST,
    AWS_SKIP_SIGNATURE, AWS_REQUEST_PAYER.
    """
    get = environ.get
    endpoint = get("FLYTE_AWS_ENDPOINT")
    if not endpoint and not _true(get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")):
        endpoint = (
            get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL") or get("AWS_ENDPOINT") or None
        )
    if endpoint and not endpoint.lower().startswith(("http://", "https://")):
        raise UsageError(
            "The endpoint of S3 is no URL; set AWS_ENDPOINT_URL to one with http(s)://."
        )
    key_id, secret = get("FLYTE_AWS_ACCESS_KEY_ID"), get("FLYTE_AWS_SECRET_ACCESS_KEY")
    token = get("AWS_SESSION_TOKEN") or get("AWS_TOKEN")
    if key_id and secret:
        if get("AWS_ACCESS_KEY_ID", key_id) != key_id:
            token = None
    else:
        key_id, secret = get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")
    if not (key_id and secret):
        key_id = secret = token = None
    virtual: bool | None = None
    style = get("FLYTE_AWS_S3_ADDRESSING_STYLE")
    if style:
        virtual = style == "virtual"
    elif get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"):
        virtual = _true(get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"))
    return S3Settings(
        endpoint=endpoint.rstrip("/") if endpoint else None,
        region=get("AWS_REGION") or get("AWS_DEFAULT_REGION") or DEFAULT_REGION,
        virtual_hosted=virtual,
        access_key_id=key_id or None,
        secret_access_key=secret or None,
        session_token=token or None,
        anonymous=_true(get("AWS_SKIP_SIGNATURE")),
        request_payer=(get("AWS_REQUEST_PAYER") or "").lower() in ("requester", "true", "1"),
    )


def obstore_config(location: Location, environ: Mapping[str, str]) -> dict[str, str]:
    """The `config` that makes an obstore store reach `location`, over what obstore reads by itself.

    For S3 it is all that `s3_settings` finds; for GCS, STORAGE_EMULATOR_HOST, as Google's own
    libraries read it; for Azure the account that the URI names. Raises UsageError.
    """
    config: dict[str, str] = {}
    if location.kind == S3:
        settings = s3_settings(environ)
        config["region"] = settings.region
        if settings.endpoint:
            config["endpoint"] = settings.endpoint
        if settings.access_key_id and settings.secret_access_key:
            config["access_key_id"] = settings.access_key_id
            config["secret_access_key"] = settings.secret_access_key
            if settings.session_token:
                config["session_token"] = settings.session_token
        if settings.virtual_hosted is not None:
            config["virtual_hosted_style_request"] = str(settings.virtual_hosted).lower()
        if settings.anonymous:
            config["skip_signature"] = "true"
    elif location.kind == GCS:
        emulator = environ.get("STORAGE_EMULATOR_HOST")
        if emulator and not environ.get("GOOGLE_BASE_URL"):
            import json  # which takes longer than the rest of this module

            # As a service account: before 0.9 obstore has no other way to say it.
            url = emulator if "://" in emulator else f"http://{emulator}"
            config["service_account_key"] = json.dumps(
                {
                    "gcs_base_url": url,
                    "disable_oauth": True,
                    **dict.fromkeys(("client_email", "private_key", "private_key_id"), ""),
                }
            )
    elif location.account:
        config["account_name"] = location.account
        own = environ.get("AZURE_STORAGE_ENDPOINT") or environ.get("AZURE_ENDPOINT")
        if location.cloud != _AZURE_CLOUD and not own:
            config["endpoint"] = f"https://{location.account}.blob.core.{location.cloud}"
    return config


def allows_http(location: Location, environ: Mapping[str, str]) -> bool:
    """Whether whoever set the environment has named an endpoint without TLS for this store."""
    if location.kind == S3:
        endpoint = s3_settings(environ).endpoint
    elif location.kind == GCS:
        endpoint = environ.get("GOOGLE_BASE_URL") or environ.get("STORAGE_EMULATOR_HOST")
        if endpoint and "://" not in endpoint:
            return True
    else:
        if _true(environ.get("AZURE_STORAGE_USE_EMULATOR")):
            return True
        endpoint = environ.get("AZURE_STORAGE_ENDPOINT") or environ.get("AZURE_ENDPOINT")
    return (endpoint or "").lower().startswith("http://")


def _azure_account(uri: str, host: str) -> tuple[str, str]:
    """The account and the cloud's domain in `ACCOUNT.dfs.core.DOMAIN`."""
    account = host.partition(".")[0]
    for infix in _AZURE_HOSTS:
        if account.isascii() and account.isalnum() and host.startswith(account + infix):
            return account, host[len(account + infix) :]
    raise UsageError(
        f"{shown.uri(uri)} does not name an Azure account; "
        "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY."
    )


def _true(text: str | None) -> bool:
    return (text or "").strip().lower() in ("1", "true", "yes", "on")
