"""Turns the errors of object stores into messages that say what to change.

The errors of servers and libraries may hold whole requests and responses. Messages never repeat
their text; it is only searched for known statuses and codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from flyte_pack.http.retry import BROKEN, STATUSES, Broken
from flyte_pack.store import StoreError
from flyte_shim.store_settings import AZURE, GCS, S3


class Doing(Enum):
    """What a request does: its verb, and the permission that it needs on S3, GCS and Azure."""

    READ = ("read", "s3:GetObject", "storage.objects.get", "Storage Blob Data Reader")
    LIST = ("list", "s3:ListBucket", "storage.objects.list", "Storage Blob Data Reader")
    WRITE = ("write", "s3:PutObject", "storage.objects.create", "Storage Blob Data Contributor")
    DELETE = ("delete", "s3:DeleteObject", "storage.objects.delete", WRITE[3])


@dataclass(frozen=True)
class Place:
    """A store as messages name it. server: `host[:port]` if the user chose it."""

    kind: str
    uri: str
    bucket: str
    server: str | None = None

    def error(self, words: str) -> StoreError:
        return StoreError(f"{self.uri}: {words}")


CREDENTIALS = {
    S3: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or FLYTE_AWS_...), or AWS_PROFILE",
    GCS: "run `gcloud auth application-default login`, or name a key file in "
    "GOOGLE_APPLICATION_CREDENTIALS",
    AZURE: "set AZURE_STORAGE_ACCOUNT_KEY, a SAS token or a service principal's variables, or run "
    "`az login`",
}
_SKEW = "this machine's clock is too far from the server's: correct it (most allow 15 minutes)"
_EXPIRED = (
    "the credentials have expired, or their session token is wrong: log in again "
    "(`aws sso login`), or renew AWS_SESSION_TOKEN with the keys"
)
_REGION = "the bucket is in another region: set AWS_REGION to its own"
_AZURE_LOGIN = (
    "the account's key, token or login is not accepted: check AZURE_STORAGE_ACCOUNT_NAME and "
    "AZURE_STORAGE_ACCOUNT_KEY (or your other login), the account's network rules and this "
    "machine's clock"
)
_TOO_LARGE = "the object is larger than the store takes in one request"
_FULL = "the store is full: make room, or raise its quota"
_NO_STORE = "the server is not an object store: check the endpoint"
# By the error code of S3 ("Error responses" of its API reference) or Azure ("Common REST API error
# codes").
_CODES = {
    "SignatureDoesNotMatch": "the secret key does not belong to the access key: correct "
    "AWS_SECRET_ACCESS_KEY (or FLYTE_AWS_SECRET_ACCESS_KEY)",
    "InvalidAccessKeyId": "the access key is unknown there: correct AWS_ACCESS_KEY_ID (or "
    "FLYTE_AWS_ACCESS_KEY_ID), or the endpoint",
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _SKEW,
    "RequestExpired": _SKEW,
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "AuthenticationFailed": _AZURE_LOGIN,
    "AuthorizationFailure": _AZURE_LOGIN,
    "InvalidAuthenticationInfo": _AZURE_LOGIN,
    "NoAuthenticationInformation": _AZURE_LOGIN,
    "AccountIsDisabled": "the account is disabled",
    "EntityTooLarge": _TOO_LARGE,
    "RequestBodyTooLarge": _TOO_LARGE,
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "XMinioStorageFull": _FULL,
    "KeyTooLongError": "the store's prefix is too long: choose a shorter one",
}
NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_NO_OBJECT = {"NoSuchKey", "BlobNotFound"}
# The server asks for fewer requests.
_PATIENCE = {"SlowDown", "RequestLimitExceeded", "ThrottlingException", "ServerBusy"}

_STATUS = re.compile(r"status code: ([1-5][0-9]{2})\b")
# The second form is obstore's own, for one of many objects.
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>|\(code: ([A-Za-z]{1,60})\)")
# The metadata services of machines, the last in every chain of credentials.
_METADATA = re.compile(r"//169\.254\.169\.254/|//169\.254\.170\.2/|/metadata/identity")
# What obstore says if there was no response: a pattern, our message, and the number of retries.
_CONNECTION = (
    (
        "InvalidCertificate|UnknownIssuer|CertExpired|NotValidForName",
        "its certificate is not trusted: set SSL_CERT_FILE to a file with the authority's",
        0,
    ),
    (
        "InvalidContentType|InvalidMessage|HandshakeFailure|AlertReceived",
        "TLS failed: if the server speaks plain HTTP, write http:// in the endpoint",
        0,
    ),
    ("dns error", "there is no host of that name: check the endpoint", 2),
    ("ConnectionRefused", "nothing listens there: check the endpoint", 3),
    ("TimedOut|timed out|Elapsed", "no answer in time", BROKEN),
    ("redirect without LOCATION", _REGION, 0),
    (
        "token request|TokenRequest|Invalid Access Key|client assertion|azure cli|AzureCli",
        "the credentials could not be used",
        0,
    ),
    (
        "[Ii]nvalid list response|Invalid header|[Ee][Tt]ag Header missing|[Mm]issing ETag"
        "|MissingEtag",
        _NO_STORE,
        0,
    ),
    ("URL scheme is not allowed", "its endpoint must be https://", 0),
    (
        "Account must be specified",
        "set AZURE_STORAGE_ACCOUNT_NAME, or write the account into the URI",
        0,
    ),
)


def status_and_code(text: str) -> tuple[int | None, str | None]:
    """The HTTP status and the store's own error code in obstore's message."""
    status, code = _STATUS.search(text), _CODE.search(text)
    return (int(status[1]) if status else None), ((code[1] or code[2]) if code else None)


def failure(
    place: Place, doing: Doing, status: int | None, code: str | None, text: str = ""
) -> StoreError | Broken:
    """The error to raise: `Broken` if another try may help.

    status, code: of the response. text: searched for the reason of a missing response.
    """
    if _METADATA.search(text):
        return place.error(f"no credentials were found: {CREDENTIALS[place.kind]}")
    if code in _PATIENCE or (status in STATUSES and code not in _CODES):
        words = f"it answers with status {status}"
        if status in (429, 503, None):
            words = "it has too many requests, or is down for a while"
        return Broken(words, STATUSES.get(status or 503, BROKEN))
    if status == 507:
        code = "InsufficientStorage"
    if code in _CODES:
        return place.error(_CODES[code])
    if code in NO_BUCKET or (status == 404 and code not in _NO_OBJECT and doing is not Doing.READ):
        what = "container" if place.kind == AZURE else "bucket"
        return place.error(
            f"there is no {what} {place.bucket}: make it, or correct the store's URI"
        )
    if status is not None or code == "AccessDenied":
        return _refused(place, doing, status or 403, code)
    for pattern, words, again in _CONNECTION:
        if re.search(pattern, text):
            if "credentials" in words:
                words = f"{words}: {CREDENTIALS[place.kind]}"
            return Broken(words, again)
    return Broken("the connection broke")


def _refused(place: Place, doing: Doing, status: int, code: str | None) -> StoreError:
    verb = doing.value[0]
    if status == 401:
        return place.error(f"the credentials are not accepted: {CREDENTIALS[place.kind]}")
    if status == 403 or code == "AccessDenied":
        right = doing.value[(S3, GCS, AZURE).index(place.kind) + 1]
        return place.error(f"these credentials may not {verb} there: grant {right}, or use others")
    if 300 <= status < 400:
        return place.error(_REGION if place.kind == S3 else "it redirects us: check the endpoint")
    known = f" ({code})" if code else ""  # only letters
    return place.error(f"it refuses to {verb}, with status {status}{known}")
