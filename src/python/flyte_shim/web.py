"""Sends HTTP requests with a deadline; responses are untrusted.

Messages show only numbers and error codes of a response, and only what `shown` keeps of a URL.
"""

from __future__ import annotations

import http.client
import os
import ssl
import threading
import time
from socket import SHUT_RDWR, socket
from urllib.parse import SplitResult, quote, urlsplit

from flyte_shim import __version__, shown
from flyte_shim.errors import SourceUnavailable, UntrustedSource, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from flyte_shim.source import Patience

_CONNECT_SECONDS = 10.0
_READ = 1 << 18
# The part of an error's body that is searched for the error code.
_ERROR_BYTES = 1 << 16
# Temporary failures (RFC 9110, 15; RFC 6585, 4); 425 is "Too Early".
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_WAIT = 30.0
_MAX_HOST = 300  # characters of a host and its port
# Stores accept smaller differences between the clocks.
_SKEW_SECONDS = 240


class Url:
    """An absolute http(s) URL without user information; `target` is the encoded path and query."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise UsageError(f"{shown.uri(url)} is an invalid URL") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{shown.uri(url)} is an invalid URL; write https://HOST/PATH")
        if len(parts.netloc) > _MAX_HOST:
            raise UsageError(f"{shown.uri(url)} is an invalid URL: its host is too long")
        if "@" in parts.netloc:
            raise UsageError(f"{shown.uri(url)} has user information, which is not allowed")
        self.scheme, self.host = parts.scheme, parts.hostname
        self.port = port or (443 if parts.scheme == "https" else 80)
        self.netloc = quote(parts.netloc, safe=":[].-_")
        query = f"?{parts.query}" if parts.query else ""
        self.target = quote((parts.path or "/") + query, safe="%/:?#[]@!$&'()*+,;=~")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"


class Answer:
    """A response: status, headers, and a body that can be read once. The caller closes it."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        watchdog: threading.Timer,
        host: str,
    ) -> None:
        self.status = response.status
        self.length: int | None = response.length
        self._connection, self._response = connection, response
        self._watchdog, self._host = watchdog, host

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._watchdog.cancel()
        self._response.close()
        self._connection.close()

    def header(self, name: str) -> str:
        return (self._response.headers.get(name) or "").strip()

    def chunks(self) -> Iterator[bytes]:
        """The body; raises SourceUnavailable if it is shorter than announced."""
        count = 0
        try:
            while chunk := self._response.read1(_READ):
                count += len(chunk)
                yield chunk
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceUnavailable(
                f"{self._host} broke off after {count} bytes: {_cause(error)}"
            ) from None
        if self.length is not None and count < self.length:
            raise SourceUnavailable(f"{self._host} broke off after {count} of {self.length} bytes")

    def text(self, limit: int = _ERROR_BYTES) -> str:
        """The beginning of the body, as much as arrives."""
        data = b""
        try:
            for chunk in self.chunks():
                data += chunk
                if len(data) >= limit:
                    break
        except SourceUnavailable:
            pass
        return data[:limit].decode("utf-8", "replace")

    def error_code(self) -> str:
        """The `<Code>` in a store's XML error, or an empty string."""
        code = self.text().partition("<Code>")[2].partition("</Code>")[0].strip()
        return code if code.isascii() and code.isalnum() and len(code) < 60 else ""

    def label(self, code: str) -> str:
        """The status and the store's own `code`, for a message."""
        return f"{self.status} {code}" if code else f"{self.status}"

    def wait(self) -> float:
        """How many seconds the server asks us to wait (RFC 9110, 10.2.3), at most _MAX_WAIT."""
        text = self.header("retry-after")
        return min(float(text), _MAX_WAIT) if text.isascii() and text.isdigit() else 0.0

    def clock_skew(self) -> str:
        """How far this machine's clock is from the server's; empty if too little to matter."""
        from email.utils import parsedate_to_datetime

        try:
            skew = time.time() - parsedate_to_datetime(self.header("date")).timestamp()
        except (TypeError, ValueError, OverflowError, IndexError):
            return ""
        if abs(skew) < _SKEW_SECONDS:
            return ""
        return f"{abs(skew) / 60:.0f} minutes {'ahead of' if skew > 0 else 'behind'} the server's"


class Web:
    """Sends requests, each on its own connection, within the time that `patience` leaves.

    `authorities` is a file of certificates to trust instead of the system's.
    """

    def __init__(
        self, patience: Patience, environ: Mapping[str, str], authorities: str | None = None
    ) -> None:
        self._patience, self._environ, self._authorities = patience, environ, authorities

    def send(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float | None = None,
        direct: bool = False,
    ) -> Answer:
        """The response, with any status. Raises SourceUnavailable and UntrustedSource.

        `timeout` is how many seconds the server may be silent; `direct` ignores proxies.
        """
        timeout = min(timeout or self._patience.timeout, self._patience.left())
        proxy = None if direct else proxy_of(url, self._environ)
        whole = {
            "Host": url.netloc,
            "User-Agent": f"flyte-shim/{__version__}",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **headers,
        }
        target = url.target
        if proxy and url.scheme == "http":  # TLS uses a tunnel instead
            target = str(url)
            whole.update(_authorization(proxy))
        try:
            connection = self._connection(url, proxy, min(timeout, _CONNECT_SECONDS))
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise UntrustedSource(
                f"the certificate of {url.netloc} cannot be verified: {error.verify_message}. "
                "For a private authority, set SSL_CERT_FILE to a file with its certificate"
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceUnavailable(f"no connection to {url.netloc}: {_cause(error)}") from None
        sock = connection.sock
        sock.settimeout(timeout)
        # A server that sends single bytes is never silent, so a timer cuts the connection at the
        # deadline. The base class's method leaves the TLS state to the reading thread.
        watchdog = threading.Timer(self._patience.left(), _cut, (sock,))
        watchdog.daemon = True
        watchdog.start()
        try:
            connection.request(method, target, body, whole)
            return Answer(connection, connection.getresponse(), watchdog, url.netloc)
        except BaseException as error:
            watchdog.cancel()
            connection.close()
            if not isinstance(error, (OSError, http.client.HTTPException, ValueError)):
                raise
            raise SourceUnavailable(f"{url.netloc} does not answer: {_cause(error)}") from None

    def _connection(
        self, url: Url, proxy: SplitResult | None, timeout: float
    ) -> http.client.HTTPConnection:
        host, port = (proxy.hostname or "", proxy.port or 80) if proxy else (url.host, url.port)
        if url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout)
        connection = http.client.HTTPSConnection(
            host, port, timeout=timeout, context=_tls(self._authorities)
        )
        if proxy:
            connection.set_tunnel(url.host, url.port, _authorization(proxy))
        return connection


def _cut(sock: socket) -> None:
    try:  # noqa: SIM105
        socket.shutdown(sock, SHUT_RDWR)
    except OSError:
        pass


def _cause(error: Exception) -> str:
    """Why a connection failed, without any text of the server."""
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'the connection was closed'})"
    if isinstance(error, UnicodeError):
        return "invalid host name"
    if isinstance(error, TimeoutError):  # before 3.10 a class of its own, with a text
        return "it takes too long"
    if isinstance(error, OSError):
        text = error.strerror or str(error)
        return "it takes too long" if text == "timed out" else text
    return f"its response is not HTTP ({type(error).__name__})"


def _tls(authorities: str | None) -> ssl.SSLContext:
    """Trusts the file `authorities`, else SSL_CERT_FILE and SSL_CERT_DIR, else the system's.

    Some images have no authorities; then certifi's are used if it is installed.
    """
    if not authorities:
        paths = ssl.get_default_verify_paths()
        if not os.environ.get(paths.openssl_cafile_env, "-").strip():
            # OpenSSL takes a blank variable for a file without certificates.
            authorities = paths.openssl_cafile if os.path.exists(paths.openssl_cafile) else None
        if not authorities and not paths.cafile and not paths.capath:
            try:
                from certifi import where
            except ImportError:
                pass
            else:
                authorities = where()
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise UsageError(
            f"cannot read the certificates in {shown.uri(authorities or '')}: "
            f"{error.strerror or error.args[0]}"
        ) from None


def proxy_of(url: Url, environ: Mapping[str, str]) -> SplitResult | None:
    """The proxy that the environment names for a URL, by the rules of Python and curl."""
    variable = f"{url.scheme}_proxy"
    if not any(name.lower() == variable for name in environ):
        return None
    from urllib import request

    # typeshed lacks these two functions; every CPython has them.
    known: Any = request
    proxy = known.getproxies_environment().get(url.scheme)
    if not proxy or known.proxy_bypass_environment(url.host):
        return None
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        valid = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    # urlsplit drops line breaks.
    if not valid or not (proxy.isascii() and proxy.isprintable()) or " " in proxy:
        raise UsageError(f"{variable.upper()} is not a valid proxy; write http://HOST:PORT")
    return parts


def _authorization(proxy: SplitResult) -> dict[str, str]:
    """The header for a proxy that has a user in its URL."""
    if not proxy.username:
        return {}
    from base64 import b64encode
    from urllib.parse import unquote

    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
