"""Sends one HTTP request, without retries: plain HTTP, proxies, limits, errors without secrets."""

from __future__ import annotations

import http.client
import io
import os
import ssl
import sys
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from threading import Event, Lock
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from flyte_pack.http import HttpError
from flyte_pack.http.retry import BROKEN, Broken
from flyte_pack.oci.reference import DOCKER_HUB, is_loopback
from flyte_shim import shown
from flyte_shim.words import check_word, number

CONNECT_SECONDS = 15.0
PROBE_SECONDS = 5.0
READ_SECONDS = 60.0  # without a byte
SLOWEST = 1024  # bytes a second, over
SLOWEST_SECONDS = 30.0
PIECE = 1 << 16
MAX_ANSWER = 4 << 20  # bytes of an answer that is not a blob
ANSWER_SECONDS = 300.0  # until such an answer is whole
MAX_HEADERS = 1 << 20  # bytes; also of what is between the pieces of a body
MAX_HOST = 300  # characters of a host and its port
CONNECTIONS = 8
_UNREAD: Any = {"redirect": False, "retries": False, "preload_content": False}  # of `urlopen`


@dataclass(frozen=True)
class Answer:
    """An answer with its whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Transport:
    """Connections to any number of servers. Thread-safe."""

    def __init__(
        self,
        insecure: Collection[str] = (),
        read_seconds: float = READ_SECONDS,
        slowest_seconds: float = SLOWEST_SECONDS,
    ) -> None:
        """insecure: `host[:port]` of servers that may use plain HTTP."""
        self._insecure = frozenset(insecure)
        self._timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds)
        self._slowest_seconds = slowest_seconds
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._origins: dict[str, str] = {}
        self._probing, self._lock = Lock(), Lock()
        self.requests = 0
        self.stopped = Event()  # once set, every transfer ends at its next piece

    def origin(self, registry: str) -> str:
        """`https://host`, or `http://host` if that is allowed and it has no TLS."""
        host = "registry-1.docker.io" if registry == DOCKER_HUB else registry
        if not (is_loopback(host) or host in self._insecure):
            return f"https://{host}"
        with self._probing:
            if host not in self._origins:
                self._origins[host] = f"{'https' if self._has_tls(host) else 'http'}://{host}"
            return self._origins[host]

    def resolve(self, url: str, location: str, registry: str) -> str:
        """The absolute URL of `location` in the answer to `url`. Raises `HttpError` if unsafe.

        Plain HTTP is for hosts that are named as insecure; after plain HTTP, for this machine too.
        """
        try:
            check_word(location, "a location", error=HttpError)
            target = urljoin(url, location)
            parts = urlsplit(target)
            netloc, host, _ = parts.netloc, parts.hostname, parts.port
        except (ValueError, HttpError):
            raise HttpError(f"{registry} names an invalid URL") from None
        said = shown.uri(target)[:200]
        if len(netloc) > MAX_HOST:
            raise HttpError(f"{registry} names an invalid URL: its host is too long")
        if parts.scheme not in ("http", "https") or not host or "@" in netloc:
            raise HttpError(f"{registry} names an invalid URL: {said}")
        meant = netloc in self._insecure or (is_loopback(netloc) and url.startswith("http:"))
        if parts.scheme == "http" and not meant:
            raise HttpError(
                f"{registry} names a URL without TLS: {said}. "
                "Set the registry's external URL to https (behind a proxy that ends TLS: "
                "X-Forwarded-Proto), or name that host as insecure"
            )
        return target

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Raises `Broken` without a whole answer, `HttpError` for one that is too long."""
        with self.open(method, url, headers, body) as response:
            return self.read(response, method, url)

    def read(self, response: BaseHTTPResponse, method: str, url: str) -> Answer:
        """Read the rest of an answer; raises as `send`."""
        data = bytearray()
        began = time.monotonic()
        for piece in self.pieces(response, method):
            data += piece
            if time.monotonic() - began > ANSWER_SECONDS:
                raise Broken(f"the answer was not whole after {ANSWER_SECONDS:g} s")
            if len(data) > MAX_ANSWER:
                raise HttpError(
                    f"{urlsplit(url).netloc} answered with more than {MAX_ANSWER:,} bytes, "
                    "not with a document"
                )
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, headers, bytes(data), url)

    @contextmanager
    def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Iterator[BaseHTTPResponse]:
        """An answer with an unread body; the caller follows redirects. Raises `Broken`."""
        with self._lock:
            self.requests += 1
        sent = {"Accept-Encoding": "identity", "User-Agent": "pants-flyte", **headers}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        with _said_plainly():
            response = self._pool(url).urlopen(
                method,
                url,
                body=_Body(body, self.stopped) if body else body,
                headers=sent,
                decode_content=False,
                timeout=self._timeout,
                **_UNREAD,
            )
        try:
            yield response
        finally:
            response.close()  # after the whole body, the connection is in its pool again

    def pieces(self, response: BaseHTTPResponse, method: str = "GET") -> Iterator[bytes]:
        """The body as it comes. Raises `Broken` if it breaks off or is too slow."""
        length = "" if method == "HEAD" else response.headers.get("Content-Length", "")
        expected = number(length)
        count = 0
        while True:
            if self.stopped.is_set():
                raise Broken("called off", 0)
            with _said_plainly():
                piece = response.read1(PIECE)
            if not piece:
                break
            count += len(piece)
            yield piece
        if expected is not None and count < expected:
            raise Broken(f"the answer was cut short: {count:,} of {expected:,} bytes")

    def _has_tls(self, host: str) -> bool:
        """Whether a handshake succeeds. An untrusted certificate is an error."""
        limit = urllib3.Timeout(connect=PROBE_SECONDS, read=PROBE_SECONDS)
        url = f"https://{host}/v2/"
        try:
            response = self._pool(url).urlopen("GET", url, timeout=limit, **_UNREAD)
        except (HTTPError, OSError) as error:
            if any(isinstance(one, ssl.SSLCertVerificationError) for one in _causes(error)):
                raise _plainly(error) from None
            return False
        response.close()
        return True

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = None if is_loopback(parts.netloc) else _proxy(parts)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _new_pool(proxy, self._slowest_seconds)
            return self._pools[proxy]


class _Body(BytesIO):
    """A request's body in pieces: the time limit is for a piece, and `stopped` ends it."""

    def __init__(self, data: bytes, stopped: Event) -> None:
        super().__init__(data)
        self._stopped = stopped

    def read(self, size: int | None = -1, /) -> bytes:
        if self._stopped.is_set():
            raise Broken("called off", 0)
        return super().read(size)


class _Paced(io.RawIOBase):
    """What comes from a server: headers, the lines between chunks, the body. Raises `Broken`.

    A time limit of a socket is for one read, so a server that sends a byte now and then could hold
    a request for ever. How long it takes to begin is left to that limit.
    """

    def __init__(self, raw: io.RawIOBase, slowest_seconds: float) -> None:
        self._raw, self._slowest_seconds = raw, slowest_seconds
        self._counted = self._waited = 0.0
        self.count, self.most = 0, MAX_HEADERS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = time.monotonic()
        size = self._raw.readinto(buffer)
        if self.count:
            self._waited += time.monotonic() - began
        self.count += size or 0
        if self.count > self.most:
            raise Broken(f"it answers with more than {MAX_HEADERS:,} bytes of headers", 0)
        if self._waited > self._slowest_seconds:
            if (self.count - self._counted) / self._waited < SLOWEST:
                raise Broken(f"less than {SLOWEST} bytes a second")
            self._counted, self._waited = self.count, 0.0
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer that comes at a pace, with headers that end, and chunks and trailers that do."""

    def __init__(self, slowest_seconds: float, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._paced = _Paced(self.fp.detach(), slowest_seconds)
        self.fp = io.BufferedReader(self._paced, PIECE)

    def read1(self, n: int = -1) -> bytes:
        # What is around a chunk may be longer than the chunk, and trailers may have no end.
        self._paced.most = self._paced.count + MAX_HEADERS
        return super().read1(n)

    def read(self, amt: int | None = None) -> bytes:
        self._paced.most = sys.maxsize
        return super().read(amt)


def _new_pool(proxy: str | None, slowest_seconds: float) -> urllib3.PoolManager:
    context = ssl.create_default_context()  # the system's authorities, or SSL_CERT_FILE's
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        path = os.environ.get(name)
        if path and os.path.exists(path):
            directory = os.path.isdir(path)
            context.load_verify_locations(
                cafile=None if directory else path, capath=path if directory else None
            )
    settings: Any = {"ssl_context": context, "maxsize": CONNECTIONS, "blocksize": PIECE}
    if proxy is None:
        return _paced(urllib3.PoolManager(**settings), slowest_seconds)
    parts = urlsplit(proxy)
    user, password = parts.username, unquote(parts.password or "")
    secret = f"{unquote(user)}:{password}" if user else None
    headers = urllib3.make_headers(proxy_basic_auth=secret)
    manager = urllib3.ProxyManager(proxy, proxy_headers=headers, **settings)
    return _paced(manager, slowest_seconds)


def _paced(manager: urllib3.PoolManager, slowest_seconds: float) -> urllib3.PoolManager:
    response = staticmethod(partial(_Response, slowest_seconds))

    class Plain(HTTPConnection):  # type: ignore[misc]
        response_class = response

    class WithTls(HTTPSConnection):  # type: ignore[misc]
        response_class = response

    class Plains(urllib3.HTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = Plain

    class WithTlss(urllib3.HTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = WithTls

    manager.pool_classes_by_scheme = {"http": Plains, "https": WithTlss}
    return manager


def _proxy(target: SplitResult) -> str | None:
    """The proxy of the environment for a URL (HTTPS_PROXY, NO_PROXY and the like)."""
    if urllib.request.proxy_bypass(target.netloc):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


@contextmanager
def _said_plainly() -> Iterator[None]:
    """Turn what urllib3 raises into `Broken`: it holds whole URLs, which may be signed."""
    try:
        yield
    except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
        raise _plainly(error) from None


def _plainly(error: BaseException) -> Broken:
    causes = list(_causes(error))
    for one in causes:
        if isinstance(one, ssl.SSLCertVerificationError):
            return Broken(
                f"its certificate is not trusted ({one.verify_message}). "
                "Name a file with the authority's certificate in SSL_CERT_FILE",
                0,
            )
    for one in causes:
        if isinstance(one, ssl.SSLError):
            passing = isinstance(one, ssl.SSLEOFError)  # somebody closed the connection
            return Broken(
                "the TLS handshake fails. Plain HTTP is for registries on this machine, "
                "and for those that you name as insecure",
                BROKEN if passing else 0,
            )
    if isinstance(error, exceptions.NameResolutionError):
        return Broken("there is no host of that name")
    if isinstance(error, exceptions.ProxyError):
        return Broken("the proxy of the environment cannot be used (HTTPS_PROXY, NO_PROXY)")
    refused = isinstance(error, exceptions.NewConnectionError)
    if isinstance(error, exceptions.TimeoutError) and not refused:
        return Broken("no answer in time")
    for one in causes:
        if isinstance(one, OSError) and one.strerror:
            return Broken(shown.line(one.strerror.lower()))
    if any(isinstance(one, http.client.IncompleteRead) for one in causes):
        return Broken("the answer was cut short")
    if any(isinstance(one, http.client.RemoteDisconnected) for one in causes):
        return Broken("it closed the connection")
    return Broken(f"the connection broke ({type(causes[-1]).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and its causes."""
    seen: list[BaseException] = []
    left: list[object] = [error]
    while left and len(seen) < 20:
        one = left.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            left += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
