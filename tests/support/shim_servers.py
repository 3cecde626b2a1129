"""HTTP servers that answer with whatever bytes a test wants, for what no real server would send."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Callable, Optional, Union

Chunks = Union[bytes, Iterator[bytes]]


@dataclass(frozen=True)
class Asked:
    """A request: names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Scripted:
    """A server at `url`; `asked` are the requests so far, each answered with what `answer` gives
    for it.
    """

    answer: Callable[[Asked], Chunks]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)


def reply(
    status: int = 200, body: bytes = b"", length: Optional[int] = None, **headers: str
) -> bytes:
    """An answer. length: what it says, if that is not true."""
    lines = [
        f"HTTP/1.1 {status} Whatever",
        f"Content-Length: {len(body) if length is None else length}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def ranged(data: bytes, asked: Asked) -> bytes:
    """What a well-behaved server answers."""
    at = int(asked.headers.get("range", "bytes=0-")[len("bytes=") : -1])
    if not at:
        return reply(200, data)
    return reply(206, data[at:], Content_Range=f"bytes {at}-{len(data) - 1}/{len(data)}")


@contextmanager
def scripted(
    answer: Callable[[Asked], Chunks], tls: Optional[ssl.SSLContext] = None
) -> Iterator[Scripted]:
    """Serve for the time of a `with` block, on this machine; each connection has one request."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = Scripted(answer, f"http{'s' if tls else ''}://localhost:{port}")

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            connection.settimeout(60)
            wrapped = tls.wrap_socket(connection, server_side=True) if tls else connection
            with wrapped, wrapped.makefile("rb") as file:
                asked = _read(file)
                server.asked.append(asked)
                answered = server.answer(asked)
                for chunk in [answered] if isinstance(answered, bytes) else answered:
                    wrapped.sendall(chunk)
                if tls:
                    wrapped.unwrap()
                else:
                    wrapped.shutdown(socket.SHUT_WR)

    Thread(target=serve, daemon=True).start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _read(file) -> Asked:
    method, target, _ = file.readline().decode("latin-1").split(" ", 2)
    headers = {}
    while line := file.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return Asked(method, target, headers, file.read(int(headers.get("content-length", 0))))
