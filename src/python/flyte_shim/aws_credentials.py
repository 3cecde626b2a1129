"""Finds a container's AWS credentials, in the order of AWS's SDKs.

The order: the environment; a profile, read by botocore if it is installed; a web identity (EKS
IRSA); the container's endpoint (ECS, EKS Pod Identity); the machine's metadata (IMDSv2 only). See
"Standardized credential providers" in the "AWS SDKs and Tools Reference Guide". No message holds a
credential.
"""

from __future__ import annotations

from urllib.parse import urlencode

from flyte_shim import shown
from flyte_shim.errors import SourceDenied, SourceUnavailable, UsageError
from flyte_shim.store_settings import CONTAINER, PROFILE, WEB_IDENTITY
from flyte_shim.web import TRANSIENT, Url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flyte_shim.stores import S3Settings
    from flyte_shim.web import Web

_ECS = "http://169.254.170.2"
# The only hosts that may receive a token without TLS.
_CONTAINER_HOSTS = (
    *("127.0.0.1", "::1", "localhost"),
    *("169.254.170.2", "169.254.170.23", "fd00:ec2::23"),
)
_IMDS = "http://169.254.169.254"
_IMDS_SECONDS = 1.0
_MAX_TOKEN = 1 << 16


class Credentials:
    """A key, its secret and the session's token; `origin` says where they come from.

    `expiration` is the moment of which the source says that they end then (ISO 8601), if any.
    """

    def __init__(
        self,
        access_key_id: str,
        secret_access_key: str,
        session_token: str | None,
        origin: str,
        expiration: str | None = None,
    ) -> None:
        self.expiration = expiration
        self.access_key_id, self.secret_access_key = access_key_id, secret_access_key
        self.session_token, self.origin = session_token, origin
        for value in (access_key_id, secret_access_key, session_token or "-"):
            if not (value.isascii() and value.isprintable() and " " not in value):
                raise UsageError(f"the credentials from {origin} have invalid characters")


def find_credentials(settings: S3Settings, web: Web) -> Credentials | None:
    """The credentials, or None if there are none; raises ShimError if a configured source fails."""
    key_id, secret = settings.access_key_id, settings.secret_access_key
    if settings.anonymous:
        return None
    if key_id and secret:
        origin = settings.identity_variables
        return Credentials(key_id, secret, settings.session_token, origin)
    if settings.identity == PROFILE and settings.table.get("config file"):
        found = _from_profile(next(iter(settings.parts.values())))
        if found:
            return found
    return find_role(settings, web)


def find_role(settings: S3Settings, web: Web) -> Credentials | None:
    """`find_credentials` without keys and profiles."""
    name, parts = settings.table.role()
    if name == WEB_IDENTITY:
        return _from_web_identity(settings, parts, web)
    if name == CONTAINER:
        return _from_container(settings, parts, web)
    return None if settings.table.true("no machine") else _from_machine(settings, web)


def _from_profile(name: str) -> Credentials | None:
    try:
        from botocore.session import Session
    except ImportError:
        return None
    try:
        found = Session(profile=name).get_credentials()
        frozen = found and found.get_frozen_credentials()
    except Exception as error:
        raise SourceDenied(
            f"no credentials in the profile {shown.word(name)} of AWS_PROFILE "
            f"({type(error).__name__})"
        ) from None
    if frozen is None:
        return None
    return Credentials(
        frozen.access_key, frozen.secret_key, frozen.token, f"the profile {shown.word(name)}"
    )


def _from_web_identity(settings: S3Settings, parts: dict[str, str], web: Web) -> Credentials:
    """Asks STS by AssumeRoleWithWebIdentity, an unsigned request."""
    region = settings.region
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    endpoint = settings.table.get("sts") or f"https://sts.{region.lower()}.{domain}"
    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": parts["AWS_ROLE_ARN"],
        "RoleSessionName": settings.table.get("session name") or "flyte-shim",
        "WebIdentityToken": _token_in(
            "AWS_WEB_IDENTITY_TOKEN_FILE", parts["AWS_WEB_IDENTITY_TOKEN_FILE"]
        ),
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    url = Url(f"{endpoint.rstrip('/')}/")
    with web.send("POST", url, headers, urlencode(form).encode()) as answer:
        status, text = answer.status, answer.text()
    if status in TRANSIENT:
        raise SourceUnavailable(f"STS at {url.netloc} has failed ({status})")
    values = [
        text.partition(f"<{name}>")[2].partition(f"</{name}>")[0].strip()
        for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    ]
    if status != 200 or not all(values[:3]):
        code = text.partition("<Code>")[2].partition("</Code>")[0].strip()
        label = f"{status} {code}" if code.isascii() and code.isalnum() else str(status)
        raise SourceDenied(
            f"STS at {url.netloc} gives no credentials for AWS_ROLE_ARN ({label}): does the role "
            "trust the cluster's identity provider and this service account?"
        )
    return Credentials(values[0], values[1], values[2], "the web identity", values[3])


def _from_container(settings: S3Settings, parts: dict[str, str], web: Web) -> Credentials:
    ((variable, where),) = parts.items()
    url = Url(_ECS + where if where.startswith("/") else where)
    if url.scheme == "http" and url.host not in _CONTAINER_HOSTS:
        raise UsageError(f"{variable} names {url.netloc} without TLS; use https://")
    headers = {"Accept": "application/json"}
    token = settings.table.get("container token")
    if path := settings.table.get("container token file"):
        token = _token_in(settings.table.variable("container token file"), path)
    if token:
        headers["Authorization"] = token
    with web.send("GET", url, headers, direct=True) as answer:
        status, text = answer.status, answer.text()
    if status in TRANSIENT:
        raise SourceUnavailable(f"the container's credentials endpoint has failed ({status})")
    found = _from_json(text, "the container's endpoint") if status == 200 else None
    if found is None:
        raise SourceDenied(
            f"the container's credentials endpoint {url.netloc} gives none ({status}): does the "
            "service account or task have a role?"
        )
    return found


def _from_machine(settings: S3Settings, web: Web) -> Credentials | None:
    """Asks IMDSv2, the end of the chain; None if nothing answers."""
    base = settings.table.get("machine") or _IMDS
    path = f"{base}/latest/meta-data/iam/security-credentials/"

    def ask(method: str, url: str, headers: dict[str, str]) -> str | None:
        with web.send(method, Url(url), headers, timeout=_IMDS_SECONDS, direct=True) as answer:
            return answer.text() if answer.status == 200 else None

    try:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "21600", "Content-Length": "0"}
        token = ask("PUT", f"{base}/latest/api/token", ttl)
        if not token or not _is_plain(token):
            return None
        headers = {"X-aws-ec2-metadata-token": token}
        role = (ask("GET", path, headers) or "").strip().partition("\n")[0]
        answer = ask("GET", path + role, headers) if role else None
    except SourceUnavailable:
        return None
    return _from_json(answer, "the machine's role") if answer else None


def _from_json(text: str, origin: str) -> Credentials | None:
    import json  # not needed when the environment has a key

    try:
        fields = json.loads(text)
        values = [fields[name] for name in ("AccessKeyId", "SecretAccessKey")]
        token, expiration = fields.get("Token"), fields.get("Expiration")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not all(isinstance(value, str) and value for value in (*values, token or "-")):
        return None
    ends = expiration if isinstance(expiration, str) else None
    return Credentials(values[0], values[1], token, origin, ends)


def _token_in(variable: str, path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            token = file.read(_MAX_TOKEN).strip()
    except OSError as error:
        raise UsageError(f"{variable} names {shown.uri(path)}: {error.strerror}") from None
    if not token or not _is_plain(token):
        raise UsageError(f"{variable} names {shown.uri(path)}, which holds no valid token")
    return token


def _is_plain(text: str) -> bool:
    """Whether `text` can be a header's value."""
    return text.isascii() and text.isprintable()
