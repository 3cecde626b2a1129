"""Reads archives by HTTP, resumes broken downloads, and turns responses into errors.

Serves `https://` URIs and the sources of stores that use HTTP.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urljoin

from flyte_shim import errors, shown
from flyte_shim.source import Source
from flyte_shim.web import TRANSIENT, Url, Web
from flyte_shim.words import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flyte_shim.source import Patience
    from flyte_shim.web import Answer

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class WebSource(Source):
    """An archive by HTTP. A subclass sends the request in `_answer` and may override `_refusal`."""

    def __init__(
        self,
        uri: str,
        patience: Patience,
        environ: Mapping[str, str],
        authorities: str | None = None,
    ) -> None:
        super().__init__(shown.uri(uri))
        self._web = Web(patience, environ, authorities)

    def read(self, offset: int) -> Iterator[bytes]:
        headers = {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self._etag:
                headers["If-Match"] = self._etag
        with self._answer(headers) as answer:
            if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise self._refusal(answer)
            skip = self._accept(answer, offset)
            for chunk in answer.chunks():
                # A server without ranges sends everything again.
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))

    def _accept(self, answer: Answer, offset: int) -> int:
        """Check the headers of a good response; returns how many of its bytes to skip."""
        etag = answer.header("etag")
        if offset and self._etag and etag and etag != self._etag:
            raise errors.SourceChanged(f"{self.uri} was replaced while it was read")
        # A weak tag never matches (RFC 9110, 8.8.3).
        self._etag = "" if etag.startswith("W/") else etag
        encoding = answer.header("content-encoding").lower()
        if encoding not in ("", "identity"):
            self.remark = f" The server sent it with Content-Encoding: {encoding[:20]!r}."
        if answer.status == HTTPStatus.OK:
            self._size = answer.length
            return offset
        unit, _, rest = answer.header("content-range").partition(" ")
        start, _, size = rest.partition("/")
        start = start.partition("-")[0]
        if unit.lower() != "bytes" or number(start) != offset:
            raise errors.UntrustedSource(
                f"{self.uri}: the server sent another range than requested"
            )
        self._size = number(size)
        return 0

    def _answer(self, headers: dict[str, str]) -> Answer:
        raise NotImplementedError

    def _refusal(self, answer: Answer) -> errors.ShimError:
        """The error for a response without an archive."""
        return refusal(self.uri, answer, answer.error_code())


class HttpSource(WebSource):
    """An archive at an https URL, perhaps signed; http needs a local host or a setting."""

    def __init__(self, uri: str, patience: Patience, environ: Mapping[str, str]) -> None:
        super().__init__(uri, patience, environ)
        self._url = Url(uri)
        self._signed = "?" in uri
        self._allow_http = environ.get("FLYTE_SHIM_ALLOW_HTTP") == "1"
        if self._url.scheme == "http" and not self._may_be_plain(self._url):
            raise errors.UsageError(
                f"{self.uri} is not encrypted; write https://, or set FLYTE_SHIM_ALLOW_HTTP=1"
            )

    def _answer(self, headers: dict[str, str]) -> Answer:
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._web.send("GET", url, headers)
            if answer.status not in _REDIRECTS:
                return answer
            answer.close()
            url = self._redirected(url, answer.header("location"))
        raise errors.UntrustedSource(f"{self.uri} redirects more than {MAX_REDIRECTS} times")

    def _redirected(self, url: Url, location: str) -> Url:
        try:
            # http.client reads headers as Latin-1; some servers send UTF-8.
            location = location.encode("latin-1").decode()
            target = Url(urljoin(str(url), location))
        except (errors.UsageError, ValueError):
            raise errors.UntrustedSource(f"{self.uri} redirects to an invalid URL") from None
        if target.scheme == "http" and (url.scheme == "https" or not self._may_be_plain(target)):
            raise errors.UntrustedSource(
                f"{self.uri} redirects to {target.netloc} without encryption: not followed"
            )
        return target

    def _may_be_plain(self, url: Url) -> bool:
        return self._allow_http or url.host in _LOCAL

    def _refusal(self, answer: Answer) -> errors.ShimError:
        if self._signed and answer.status in (400, 401, 403):
            code, skew = answer.error_code(), answer.clock_skew()
            why = f"this machine's clock is {skew}" if skew else "it has expired or does not fit"
            return errors.SourceDenied(
                f"the signed URL of {self.uri} is refused ({answer.label(code)}): {why}. "
                "Make a new one"
            )
        return super()._refusal(answer)


def refusal(uri: str, answer: Answer, code: str) -> errors.ShimError:
    """The error for a response's status; `code` is the store's own error code."""
    status, label = answer.status, answer.label(code)
    if status in TRANSIENT:
        return errors.SourceUnavailable(f"reading {uri} failed ({label})", answer.wait())
    if status in (404, 410):
        return errors.SourceMissing(f"there is no archive at {uri} ({label}). Deploy it again")
    if status in (412, 416):
        return errors.SourceChanged(f"{uri} was replaced while it was read ({label})")
    if status in (401, 403, 407):
        return errors.SourceDenied(f"{uri} may not be read ({label})")
    if status in _REDIRECTS:
        return errors.UntrustedSource(f"{uri}: the store redirects ({label}): not followed")
    return errors.UntrustedSource(f"{uri} cannot be read: the server answers {label}")
