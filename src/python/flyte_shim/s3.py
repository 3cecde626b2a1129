"""Reads archives from S3 and compatible stores by signed GET requests with ranges.

The signature is AWS Signature Version 4 ("Authenticating Requests: Using the Authorization Header"
in the S3 API reference).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from urllib.parse import quote

from flyte_shim import shown
from flyte_shim.aws_credentials import Credentials, find_credentials
from flyte_shim.errors import ShimError, SourceDenied, SourceMissing, SourceUnavailable
from flyte_shim.http_source import WebSource, refusal
from flyte_shim.stores import S3Settings, locate
from flyte_shim.web import TRANSIENT, Url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from flyte_shim.source import Patience
    from flyte_shim.web import Answer

_EMPTY = hashlib.sha256(b"").hexdigest()
_PASSING = {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"}
_WRONG = {"InvalidAccessKeyId": "key", "SignatureDoesNotMatch": "secret"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}


class S3Source(WebSource):
    """An archive at `s3://bucket/key`."""

    def __init__(self, uri: str, patience: Patience, environ: Mapping[str, str]) -> None:
        self._settings = S3Settings(environ)
        super().__init__(uri, patience, environ, self._settings.authorities())
        self._location = locate(uri)
        self._region = self._settings.region
        self._credentials: Credentials | None = None
        self._asked = False

    def _answer(self, headers: dict[str, str]) -> Answer:
        answer = self._send(headers)
        region = answer.header("x-amz-bucket-region")
        # The bucket may be in another region than the configured one.
        if (
            answer.status in (301, 307, 400)
            and self._settings.endpoint is None
            and region not in ("", self._region)
            and region.replace("-", "").isalnum()
            and region.isascii()
        ):
            answer.close()
            self._region = region
            answer = self._send(headers)
        return answer

    def _send(self, headers: dict[str, str]) -> Answer:
        if not self._asked and not self._settings.anonymous:
            self._credentials = find_credentials(self._settings, self._web)
            self._asked = True
        url = Url(self.url())
        if self._settings.request_payer:
            headers = {**headers, "x-amz-request-payer": "requester"}
        if self._credentials:
            headers = signed(url, headers, self._region, self._credentials, time.time())
        return self._web.send("GET", url, headers)

    def url(self) -> str:
        """The archive's URL, without a signature."""
        base, _ = self._settings.bucket_url(self._location.bucket, self._region)
        return f"{base}/{quote(self._location.key, safe='/~')}"

    def _refusal(self, answer: Answer) -> ShimError:
        code, bucket = answer.error_code(), self._location.bucket
        label = answer.label(code)
        if answer.status in TRANSIENT or code in _PASSING:
            return SourceUnavailable(f"reading {self.uri} failed ({label})", answer.wait())
        if code == "NoSuchBucket":
            return SourceMissing(
                f"there is no bucket {bucket} ({label}), so no archive at {self.uri}. "
                f"{self._asked_store()}"
            )
        if answer.status not in (400, 401, 403):
            return refusal(self.uri, answer, code)
        denied = f"{self.uri} may not be read ({label})"
        skew = answer.clock_skew()
        if code == "RequestTimeTooSkewed" or skew:
            return SourceDenied(f"{denied}: this machine's clock is {skew or 'wrong'}; set it")
        if self._settings.anonymous:
            return SourceDenied(
                f"{self.uri} is not public ({label}), and AWS_SKIP_SIGNATURE forbids credentials"
            )
        if self._credentials is None:
            return SourceDenied(
                f"{self.uri} is not public ({label}), and no credentials were found: neither in "
                "the environment, nor a web identity, nor the container's or the machine's. Give "
                "the task's service account a role, or set AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY{self._settings.table.halves()}"
            )
        origin = self._credentials.origin
        if code in _WRONG:
            return SourceDenied(
                f"{denied}: the {_WRONG[code]} from {origin} is wrong for this store. "
                f"{self._asked_store()}"
            )
        if code in _EXPIRED:
            return SourceDenied(f"{denied}: the session from {origin} has expired")
        return SourceDenied(
            f"{denied} with the credentials from {origin}: they need s3:GetObject for bucket "
            f"{bucket} (without s3:ListBucket, a missing archive gives the same error)"
        )

    def _asked_store(self) -> str:
        endpoint = self._settings.endpoint
        if endpoint:
            return f"The store is {shown.uri(endpoint)}; check {self._settings.endpoint_variable}"
        return f"The store is AWS; is {self._settings.endpoint_variable} missing?"


def signed(
    url: Url, headers: Mapping[str, str], region: str, credentials: Credentials, now: float
) -> dict[str, str]:
    """`headers` with their signature, for a GET of `url` without a query at the Unix time `now`."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    own = {"host": url.netloc, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    if credentials.session_token:
        own["x-amz-security-token"] = credentials.session_token
    every = sorted({name.lower(): value for name, value in {**headers, **own}.items()}.items())
    names = ";".join(name for name, _ in every)
    lines = "".join(f"{name}:{value}\n" for name, value in every)
    request = f"GET\n{url.target}\n\n{lines}\n{names}\n{_EMPTY}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}").hex()
    del own["host"]
    own["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return {**headers, **own}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
