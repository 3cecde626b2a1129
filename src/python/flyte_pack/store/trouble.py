"""What went wrong between us and an object store, in words that say what to change.

Servers and libraries put whole requests into what they say of errors: addresses, headers, answers. None of that is
repeated here: what they say is looked through for what we know, and the words are ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from flyte_pack.http.retry import BROKEN, STATUSES, Broken
from flyte_pack.store import StoreError
from flyte_shim.stores import AZURE, GCS, S3


class Doing(Enum):
    """What a request is for: the word for it, and the right that it takes on S3, GCS and Azure."""

    READ = ("read", "s3:GetObject", "storage.objects.get", "Storage Blob Data Reader")
    LIST = ("list", "s3:ListBucket", "storage.objects.list", "Storage Blob Data Reader")
    WRITE = ("write", "s3:PutObject", "storage.objects.create", "Storage Blob Data Contributor")
    DELETE = ("delete", "s3:DeleteObject", "storage.objects.delete", "Storage Blob Data Contributor")  # fmt: skip

    def right(self, kind: str) -> str:
        """The name of the right."""
        return self.value[{S3: 1, GCS: 2, AZURE: 3}[kind]]


@dataclass(frozen=True)
class Place:
    """A store as messages name it. server: `host[:port]`, where the user chose it."""

    kind: str
    uri: str
    bucket: str
    server: str | None = None

    def error(self, words: str) -> StoreError:
        """What a user is told."""
        return StoreError(f"{self.uri}: {words}")


_CREDENTIALS = {
    S3: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or Flyte's FLYTE_AWS_...), or AWS_PROFILE",
    GCS: "run `gcloud auth application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS",
    AZURE: "set AZURE_STORAGE_ACCOUNT_KEY, a SAS token or a service principal's variables, or run `az login`",
}
_SKEW = "this machine's clock is too far from the server's: set it right (most allow 15 minutes)"
_EXPIRED = (
    "the credentials have expired, or their session token is wrong: log in anew "
    "(`aws sso login`), or renew AWS_SESSION_TOKEN with the keys"
)
_REGION = "the bucket is in another region: set AWS_REGION to its own"
_AZURE_LOGIN = (
    "the account's key, token or login is not accepted: check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY "
    "(or whatever you log in with), the account's network rules, and that this machine's clock is right"
)
# By the code in the answer of S3 ("Error responses" of its API reference) or Azure ("Common REST API error codes").
_CODES = {
    "SignatureDoesNotMatch": "the secret key does not belong to the access key: correct AWS_SECRET_ACCESS_KEY "
    "(or FLYTE_AWS_SECRET_ACCESS_KEY)",
    "InvalidAccessKeyId": "the access key is unknown there: correct AWS_ACCESS_KEY_ID (or FLYTE_AWS_ACCESS_KEY_ID), "
    "or the endpoint",
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
    "EntityTooLarge": "the object is larger than the store takes in one piece",
    "RequestBodyTooLarge": "the object is larger than the store takes in one piece",
    "QuotaExceeded": "the store is full: make room, or raise its quota",
    "InsufficientStorage": "the store is full: make room, or raise its quota",
    "XMinioStorageFull": "the store is full: make room, or raise its quota",
    "KeyTooLongError": "the store's prefix is too long: choose a shorter one",
}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_NO_OBJECT = {"NoSuchKey", "BlobNotFound"}
# Not errors of ours: what they ask for is patience.
_PATIENCE = {"SlowDown", "RequestLimitExceeded", "ThrottlingException", "ServerBusy"}

_STATUS = re.compile(r"status code: ([1-5][0-9]{2})\b")
# The other form is obstore's own, for one of many objects.
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>|\(code: ([A-Za-z]{1,60})\)")
# Where machines are asked for credentials of their own: the last in every chain.
_METADATA = re.compile(r"//169\.254\.169\.254/|//169\.254\.170\.2/|/metadata/identity")
# What obstore says where there was no answer; ours, and how often it is tried again.
_CONNECTION = (
    (
        re.compile("InvalidCertificate|UnknownIssuer|CertExpired|NotValidForName"),
        "its certificate is not trusted: name a file with the authority's certificate in SSL_CERT_FILE",
        0,
    ),
    (
        re.compile("InvalidContentType|InvalidMessage|HandshakeFailure|AlertReceived"),
        "no TLS connection comes about: if it speaks plain HTTP, write http:// in the endpoint",
        0,
    ),
    (re.compile("dns error"), "there is no host of that name: check the endpoint", 2),
    (re.compile("ConnectionRefused"), "nothing listens there: check the endpoint", 3),
    (re.compile("TimedOut|timed out|Elapsed"), "no answer in time", BROKEN),
    (
        re.compile("redirect without LOCATION"),
        _REGION,
        0,
    ),
    (
        re.compile("token request|TokenRequest|Invalid Access Key|client assertion|azure cli|AzureCli"),
        "the credentials could not be used",
        0,
    ),
    (
        re.compile("[Ii]nvalid list response|Invalid header|[Ee][Tt]ag Header missing|[Mm]issing ETag|MissingEtag"),
        "what answers there is no object store: check the endpoint",
        0,
    ),
    (re.compile("URL scheme is not allowed"), "its endpoint has to be https://", 0),
    (re.compile("Account must be specified"), "set AZURE_STORAGE_ACCOUNT_NAME, or write the account into the URI", 0),
)  # fmt: skip


def no_bucket(code: str | None) -> bool:
    """Whether it is not an object alone that is missing."""
    return code in _NO_BUCKET


def status_and_code(text: str) -> tuple[int | None, str | None]:
    """The HTTP status, and the store's own code of the error, in what obstore says."""
    status, code = _STATUS.search(text), _CODE.search(text)
    return (int(status[1]) if status else None), ((code[1] or code[2]) if code else None)


def failure(
    place: Place, doing: Doing, status: int | None, code: str | None, text: str = ""
) -> StoreError | Broken:
    """What to raise: `Broken` for what may go better the next time.

    status, code: of the answer. text: looked through for what kept an answer from coming, and never repeated.
    """
    if _METADATA.search(text):
        return place.error(f"no credentials were found: {_CREDENTIALS[place.kind]}")
    if code in _PATIENCE or (status in STATUSES and code not in _CODES):
        again = STATUSES.get(status or 503, BROKEN)
        return Broken(_busy(status), again)
    if status == 507:
        code = "InsufficientStorage"
    if code in _CODES:
        return place.error(_CODES[code])
    if code in _NO_BUCKET or (status == 404 and code not in _NO_OBJECT and doing is not Doing.READ):
        what = "container" if place.kind == AZURE else "bucket"
        return place.error(
            f"there is no {what} {place.bucket}: make it, or correct the store's URI"
        )
    if status == 401:
        return place.error(f"the credentials are not accepted: {_CREDENTIALS[place.kind]}")
    if status == 403 or code == "AccessDenied":
        return place.error(
            f"these credentials may not {doing.value[0]} there: grant {doing.right(place.kind)}, or use others"
        )
    if status is not None:
        if 300 <= status < 400:
            return place.error(
                _REGION if place.kind == S3 else "it sends us elsewhere: check the endpoint"
            )
        known = f" ({code})" if code else ""  # letters alone
        return place.error(f"it refuses to {doing.value[0]}, with status {status}{known}")
    for pattern, words, again in _CONNECTION:
        if pattern.search(text):
            if "credentials" in words:
                words = f"{words}: {_CREDENTIALS[place.kind]}"
            return Broken(words, again)
    return Broken("the connection broke")


def _busy(status: int | None) -> str:
    if status in (429, 503, None):
        return "it is asked for too much at once, or is down for a while"
    return f"it answers with status {status}"
