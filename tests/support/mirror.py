"""A package index as companies have them: TLS by an authority of their own, behind a proxy."""

from __future__ import annotations

import contextlib
import hashlib
import html
import re
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

HOST = "mirror.test"  # a name that resolves nowhere: only the proxy leads there


@dataclass(frozen=True)
class Mirror:
    """A running mirror, and what it was asked for."""

    proxy: str
    certificate: Path
    index: str = f"https://{HOST}/simple/"
    requested: list[str] = field(default_factory=list)
    """Paths, in the order they were asked for."""
    connected: list[str] = field(default_factory=list)
    """`host:port` of every connection through the proxy."""


@contextlib.contextmanager
def mirror(wheels: Path, scratch: Path) -> Iterator[Mirror]:
    """Serves the wheels in a directory until the block ends."""
    authority = trustme.CA()
    certificate = scratch / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(tls)

    requested: list[str] = []
    connected: list[str] = []
    index = ThreadingHTTPServer(("127.0.0.1", 0), _index_handler(wheels, requested))
    index.socket = tls.wrap_socket(index.socket, server_side=True, do_handshake_on_connect=False)
    proxy = ThreadingHTTPServer(
        ("127.0.0.1", 0), _proxy_handler(index.server_address[1], connected)
    )
    for server in (index, proxy):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Mirror(
            proxy=f"http://127.0.0.1:{proxy.server_address[1]}",
            certificate=certificate,
            requested=requested,
            connected=connected,
        )
    finally:
        for server in (proxy, index):
            server.shutdown()
            server.server_close()


def _index_handler(wheels: Path, requested: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(SimpleHTTPRequestHandler):
        """PEP 503: `/simple/<project>/` lists files, which lie at the top."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(wheels), **kwargs)

        def do_GET(self):
            requested.append(self.path)
            match = re.fullmatch(r"/simple/([a-z0-9-]+)/", self.path)
            if not match:
                super().do_GET()
                return
            links = [
                f'<a href="/{path.name}#sha256={_sha256(path)}">{html.escape(path.name)}</a>'
                for path in sorted(wheels.glob("*.whl"))
                if _normalized(path.name.split("-")[0]) == match[1]
            ]
            if not links:
                self.send_error(404)
                return
            body = "\n".join(["<!DOCTYPE html><html><body>", *links, "</body></html>"]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            """Not on stderr: tests read that."""

    return Handler


def _proxy_handler(target_port: int, connected: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """CONNECT (RFC 9110, 9.3.6), to the mirror whatever the name."""

        def do_CONNECT(self):
            connected.append(self.path)
            with socket.create_connection(("127.0.0.1", target_port)) as upstream:
                self.send_response(200)
                self.end_headers()
                self._pump(upstream)
            self.close_connection = True

        def _pump(self, upstream: socket.socket) -> None:
            other = {self.connection: upstream, upstream: self.connection}
            with contextlib.suppress(OSError):
                while True:
                    for ready in select.select(list(other), [], [])[0]:
                        data = ready.recv(1 << 16)
                        if not data:
                            return
                        other[ready].sendall(data)

        def log_message(self, *args):
            """Not on stderr: tests read that."""

    return Handler


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
