"""A server in front of a real registry that passes everything on, but for the faults that a test
asks it to make.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Callable, Optional

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class Exchange:
    """A request, and what can be done about it."""

    handler: BaseHTTPRequestHandler
    backend: str
    method: str
    path: str
    headers: dict[str, str]
    _body: Optional[bytes] = None

    @property
    def length(self) -> int:
        return int(self.headers.get("Content-Length", 0))

    @property
    def body(self) -> bytes:
        if self._body is None:
            self._body = self.handler.rfile.read(self.length)
        return self._body

    def forward(self, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """The real registry's answer; `headers` stand in for the request's own, with _ for -."""
        connection = http.client.HTTPConnection(self.backend, timeout=120)
        try:
            changed = {name.replace("_", "-").lower(): value for name, value in headers.items()}
            kept = {n: v for n, v in self.headers.items() if n.lower() not in changed}
            connection.request(self.method, self.path, self.body, {**kept, **changed})
            answer = connection.getresponse()
            found = {n: v for n, v in answer.getheaders() if n.lower() not in _HOP}
            data = answer.read()
            if self.method == "HEAD" and answer.getheader("Content-Length"):
                found["Content-Length"] = answer.getheader("Content-Length")
            return answer.status, found, data
        finally:
            connection.close()

    def forward_half(self) -> None:
        """Half of the request's body reaches the registry; then the connection ends."""
        half = self.length // 2
        data = self.handler.rfile.read(half)
        head = f"{self.method} {self.path} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        with socket.create_connection(tuple_of(self.backend)) as connection:
            connection.sendall(head.encode() + b"\r\n" + data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):  # until it has written down what came
                pass

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.begin(
            status, {**headers, "Content-Length": headers.get("Content-Length", str(len(body)))}
        )
        if self.method != "HEAD":
            self.handler.wfile.write(body)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        _ = self.body  # or what is left of it would be taken for the next request
        self.handler.send_response_only(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def reset(self) -> None:
        """End the connection as a crash does (RST)."""
        self.handler.connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.handler.close_connection = True
        self.handler.connection.close()


Action = Callable[[Exchange], None]


@dataclass
class Fault:
    """`action` for the first `times` requests that `pattern` is found in, as `METHOD path`, after
    letting `after` pass.
    """

    pattern: str
    action: Action
    times: int = 1
    after: int = 0


@dataclass
class FaultyRegistry:
    """`requests`: what came, as `METHOD path`. `secrets`: each Authorization header that came."""

    host: str
    backend: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def find(self, request: str) -> Action | None:
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, request):
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault.action
        return None

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.requests)


@contextmanager
def faulty_registry(
    backend: str, tls: ssl.SSLContext | None = None, name: str = "127.0.0.1", **headers: str
) -> Iterator[FaultyRegistry]:
    """For the time of a `with` block; `backend` is the real one's host.

    `headers` go with what is passed on to it.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            # What speaks TLS to us learns at once that we don't.
            if tls or self.connection.recv(1, socket.MSG_PEEK) != b"\x16":
                try:
                    super().handle()
                except (ConnectionError, ValueError):
                    self.close_connection = True  # the client went, or a fault closed it

        def finish(self) -> None:
            with suppress(ConnectionError, ValueError):
                super().finish()

        def _serve(self) -> None:
            # A header may come several times, as skopeo's Accept does (RFC 9110, section 5.3).
            came = {name: ", ".join(self.headers.get_all(name, ())) for name in self.headers}
            exchange = Exchange(self, backend, self.command, self.path, came)
            if "Authorization" in exchange.headers:
                front.secrets.add(exchange.headers["Authorization"])
            action = front.find(f"{self.command} {self.path}")
            (action or passed_on(**headers))(exchange)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    front = FaultyRegistry(f"{name}:{server.server_address[1]}", backend)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def tuple_of(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return name, int(port)


# --- what to do with a request -------------------------------------------------------------------


def passed_on(**headers: str) -> Action:
    """Nothing wrong; `headers` change the request's own."""
    return lambda exchange: exchange.reply(*exchange.forward(**headers))


def status(code: int, body: bytes = b"", **headers: str) -> Action:
    """An answer of our own; the request does not reach the registry."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.reply(code, named, body)


def reset(exchange: Exchange) -> None:
    """The request is read and lost."""
    _ = exchange.body
    exchange.reset()


def reset_in_the_request(exchange: Exchange) -> None:
    """The registry gets half of the body."""
    exchange.forward_half()
    exchange.reset()


class HalfTaken:
    """What a registry does that keeps the half of a chunk that it got: it tells of it when it is
    asked.

    docker-registry 2.8 gives such an upload up. So it gets the half as a whole chunk; its answer to
    that is withheld, until the client asks how far the upload is.
    """

    def __init__(self) -> None:
        self._state: dict[str, dict[str, str]] = {}

    def chunk(self, exchange: Exchange) -> None:
        half = exchange.length // 2
        exchange._body = exchange.handler.rfile.read(half)
        start = int(exchange.headers["Content-Range"].partition("-")[0])
        code, found, _ = exchange.forward(
            content_length=str(half), content_range=f"{start}-{start + half - 1}"
        )
        assert code == 202
        self._state[exchange.path.partition("?")[0]] = found
        exchange.reset()

    def asked(self, exchange: Exchange) -> None:
        exchange.reply(204, self._state[exchange.path.partition("?")[0]])

    def faults(self, times: int) -> tuple[Fault, Fault]:
        return Fault("^PATCH", self.chunk, times), Fault("^GET .*uploads", self.asked, times)


def answer_lost(exchange: Exchange) -> None:
    """The registry has done it, and nobody hears of it."""
    exchange.forward()
    exchange.reset()


def changed(**headers: str | None) -> Action:
    """The registry's answer with other headers; None takes one away."""

    def act(exchange: Exchange) -> None:
        code, found, body = exchange.forward()
        names = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        kept = {n: v for n, v in found.items() if n.lower() not in names}
        exchange.reply(code, {**kept, **{n: v for n, v in names.items() if v is not None}}, body)

    return act


def rewritten(header: str, change: Callable[[str], str]) -> Action:
    """The registry's answer with one header changed."""

    def act(exchange: Exchange) -> None:
        code, found, body = exchange.forward()
        exchange.reply(code, {n: change(v) if n == header else v for n, v in found.items()}, body)

    return act


def cut_short(exchange: Exchange) -> None:
    """Half of the registry's answer."""
    code, found, body = exchange.forward()
    exchange.begin(code, {**found, "Content-Length": str(len(body))})
    exchange.handler.wfile.write(body[: len(body) // 2])
    exchange.handler.wfile.flush()
    exchange.reset()


def damaged(exchange: Exchange) -> None:
    """The registry's answer with its first byte another."""
    code, found, body = exchange.forward()
    exchange.reply(code, found, bytes([body[0] ^ 1]) + body[1:])


def trickling(exchange: Exchange) -> None:
    """A byte of the registry's answer now and then, until the client goes."""
    code, found, body = exchange.forward()
    exchange.begin(code, {**found, "Content-Length": str(len(body))})
    for at in range(len(body)):
        exchange.handler.wfile.write(body[at : at + 1])
        exchange.handler.wfile.flush()
        time.sleep(0.02)
