"""Real object stores for tests, each with a bucket of its own; and a proxy that counts requests to
them, or spoils them.

`seaweedfs()`, `azurite()` and `fake_gcs()` are started by the first who asks and serve until the
process ends: give each test a prefix of its own (`unique()`). `proxied()` puts a `Proxy` in front
of one.
"""

from __future__ import annotations

import atexit
import base64
import dataclasses
import functools
import http.client
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Callable, Optional, Union
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

import flyte_pack
from tests.support.containers import SERVICES
from tests.support.flyte_env import environment

BUCKET = "flyte-tests"
ACCOUNT = "plantedaccount"
WRITER = ("PLANTEDWRITERKEY0001", "planted-writer-secret-5c2e")
READER = ("PLANTEDREADERKEY0002", "planted-reader-secret-91bd")
ACCOUNT_KEY = base64.b64encode(b"planted-azure-account-key-77f0" * 2).decode()
SECRETS = (WRITER[1], READER[1], ACCOUNT_KEY)


@dataclass(frozen=True)
class RealStore:
    """An object store that runs. uri: of its bucket. endpoint: its address.

    env: by which a writer reaches it. reader: the same for who may only read, where there is such a
    user. environ_key: the variable that holds the address.
    """

    uri: str
    endpoint: str
    environ_key: str
    env: dict[str, str]
    reader: dict[str, str] = field(default_factory=dict)

    def at(self, endpoint: str) -> RealStore:
        """The same, reached by another address."""
        parts, there = urlsplit(self.endpoint), endpoint + urlsplit(self.endpoint).path
        assert parts.scheme == "http"
        env, reader = ({**e, self.environ_key: there} if e else {} for e in (self.env, self.reader))
        return dataclasses.replace(self, endpoint=there, env=env, reader=reader)


def unique() -> str:
    """A name that nobody had."""
    return f"t{secrets.token_hex(6)}"


def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in this process' environment says anything about object stores."""
    prefixes = ("AWS_", "AZURE_", "FLYTE_", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR", "MSI_")
    for name in list(os.environ):
        if name.startswith((*prefixes, "IDENTITY_")):
            monkeypatch.delenv(name)
    # Nor do the files of whoever runs the tests.
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, "/nonexistent")


@functools.cache
def seaweedfs() -> RealStore:
    """S3."""
    keys = zip(
        ("S3_WRITER_KEY", "S3_WRITER_SECRET", "S3_READER_KEY", "S3_READER_SECRET"), WRITER + READER
    )
    endpoint = _serve("seaweedfs", dict(keys), "--bucket", BUCKET)

    def env(user: tuple[str, str]) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": user[0],
            "AWS_SECRET_ACCESS_KEY": user[1],
            "AWS_REGION": "us-east-1",
        }

    return RealStore(f"s3://{BUCKET}", endpoint, "AWS_ENDPOINT_URL", env(WRITER), env(READER))


@functools.cache
def azurite() -> RealStore:
    """Azure Blob Storage."""
    account = {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
    }
    endpoint = _serve("azurite", account, "--container", BUCKET)
    env = {**account, "AZURE_STORAGE_ENDPOINT": endpoint}
    uri = f"abfs://{BUCKET}@{ACCOUNT}.dfs.core.windows.net"
    return RealStore(uri, endpoint, "AZURE_STORAGE_ENDPOINT", env)


@functools.cache
def fake_gcs() -> RealStore:
    """Google Cloud Storage; it asks for no credentials."""
    endpoint = _serve("fake_gcs", {}, "--bucket", BUCKET)
    env = {"STORAGE_EMULATOR_HOST": endpoint}
    return RealStore(f"gs://{BUCKET}", endpoint, "STORAGE_EMULATOR_HOST", env)


REAL_STORES: dict[str, Callable[[], RealStore]] = {
    "s3": seaweedfs,
    "abfs": azurite,
    "gs": fake_gcs,
}


def _serve(name: str, env: dict[str, str], *options: str) -> str:
    """Start one of build-support's services, until this process ends; its address."""
    directory = tempfile.mkdtemp(prefix=f"{name}-")
    server = subprocess.Popen(
        [sys.executable, str(SERVICES / f"{name}.py"), directory, *options],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stderr is not None
    address = server.stdout.readline().strip()
    if not address:
        reason = server.communicate()[1].strip()
        shutil.rmtree(directory, ignore_errors=True)
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    owner = os.getpid()

    def stop() -> None:
        if os.getpid() == owner:  # and not a child of this process
            server.terminate()
            server.communicate()
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    return address


@functools.cache
def deploy_python() -> Path:
    """The `python` of an environment with what flyte-deploy.lock pins, for a CPython that all of it
    is there for.
    """
    return environment(Path(flyte_pack.__file__).with_name("flyte-deploy.lock"))


# --- the proxy -----------------------------------------------------------------------------------

WRITES = frozenset({"PUT", "POST", "DELETE", "PATCH"})


@dataclass(frozen=True)
class Request:
    """One that came by. path: without quoting. headers: by lower-case name. size: of its body."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    size: int

    @property
    def writes(self) -> bool:
        return self.method in WRITES


@dataclass(frozen=True)
class CutAnswer:
    """The connection breaks after so many bytes of the answer's body."""

    after: int


@dataclass(frozen=True)
class CutRequest:
    """The connection breaks after so many bytes of the request's body; the server sees those, and
    no more.
    """

    after: int


@dataclass(frozen=True)
class LoseAnswer:
    """The server does what it is asked for, and its answer never arrives."""


@dataclass(frozen=True)
class Corrupt:
    """One bit of the answer's body, at this offset, is another."""

    at: int = 0


@dataclass(frozen=True)
class Delay:
    """The request is passed on after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """The server never hears of it."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Rewrite:
    """The request is passed on with these headers instead of its own (None: without)."""

    headers: tuple[tuple[str, Optional[str]], ...]


Fault = Union[CutAnswer, CutRequest, LoseAnswer, Corrupt, Delay, Answer, Rewrite]


class Proxy:
    """requests: all so far. Set `fault` to have some of them go wrong: it is asked about each."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port or 80
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Optional[Fault]] = lambda request: None
        self._lock = Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: object) -> None:
                pass

            def __getattr__(self, name: str) -> object:
                if name.startswith("do_"):
                    return lambda: proxy._pass_on(self)
                raise AttributeError(name)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that was killed, as tests do

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.writes]

    def clear(self) -> None:
        """Forget the requests so far, and let all go right from now."""
        self.fault = lambda request: None
        self.requests.clear()

    def once(self, fault: Fault, when: Callable[[Request], bool] = lambda request: True) -> None:
        """The next request for which `when` holds goes wrong; no other."""
        self.times(1, fault, when)

    def times(
        self, count: int, fault: Fault, when: Callable[[Request], bool] = lambda request: True
    ) -> None:
        """The next `count` of them go wrong."""
        left = iter(range(count))
        self.fault = lambda r: fault if when(r) and next(left, None) is not None else None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        chunked = "chunked" in handler.headers.get("Transfer-Encoding", "").lower()
        if "100-continue" in handler.headers.get("Expect", "").lower():
            handler.send_response_only(100)
            handler.end_headers()
        url = urlsplit(handler.path)
        request = Request(
            method=handler.command,
            path=unquote(url.path),
            query=parse_qs(url.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in handler.headers.items()},
            size=length,
        )
        with self._lock:
            self.requests.append(request)
        fault = self.fault(request)  # it may send requests of its own
        if isinstance(fault, CutRequest):
            self._send_part(handler, handler.rfile.read(min(fault.after, length)))
            _hang_up(handler)
            return
        body = b"".join(_chunks(handler)) if chunked else handler.rfile.read(length)
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
        if isinstance(fault, Answer):
            _answer(handler, fault.status, list(fault.headers), fault.body)
            return
        headers = [(n, v) for n, v in handler.headers.items() if n.lower() != "transfer-encoding"]
        if chunked:
            headers.append(("Content-Length", str(len(body))))
        if isinstance(fault, Rewrite):
            named = {name.lower() for name, _ in fault.headers}
            headers = [(n, v) for n, v in headers if n.lower() not in named]
            headers += [(n, v) for n, v in fault.headers if v is not None]
        status, answered, content = self._ask(handler, headers, body)
        if isinstance(fault, LoseAnswer):
            _hang_up(handler)
        elif isinstance(fault, CutAnswer):
            _answer(handler, status, answered, content, stop_after=fault.after)
        else:
            if isinstance(fault, Corrupt) and len(content) > fault.at:
                changed = bytearray(content)
                changed[fault.at] ^= 1
                content = bytes(changed)
            _answer(handler, status, answered, content)

    def _ask(
        self, handler: BaseHTTPRequestHandler, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=120)
        try:
            connection.putrequest(
                handler.command, handler.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in headers:
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _send_part(self, handler: BaseHTTPRequestHandler, part: bytes) -> None:
        """What a server sees of a client whose connection breaks."""
        lines = [f"{handler.command} {handler.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in handler.headers.items()]
        with socket.create_connection((self._host, self._port), 10) as there, suppress(OSError):
            there.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + part)


def _chunks(handler: BaseHTTPRequestHandler) -> Iterator[bytes]:
    """RFC 9112, section 7.1."""
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        yield handler.rfile.read(size)
        handler.rfile.readline()
    while handler.rfile.readline().strip():
        pass


def _answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    stop_after: Optional[int] = None,
) -> None:
    handler.send_response_only(status)
    told = {"content-length": str(len(body))}
    for name, value in headers:
        if name.lower() == "content-length" and handler.command == "HEAD":
            told["content-length"] = value
        elif name.lower() not in ("transfer-encoding", "content-length", "connection"):
            handler.send_header(name, value)
    if status not in (204, 304):
        handler.send_header("Content-Length", told["content-length"])
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body[:stop_after])
    if stop_after is not None:
        _hang_up(handler)


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    with suppress(OSError):
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(store: RealStore) -> Iterator[tuple[RealStore, Proxy]]:
    """The store as it is reached through a proxy of its own, for the time of a `with` block."""
    proxy = Proxy(store.endpoint)
    try:
        yield store.at(proxy.endpoint), proxy
    finally:
        proxy.close()


def in_turn(*faults: Optional[Fault]) -> Callable[[Request], Optional[Fault]]:
    """For `Proxy.fault`: one fault for each request, in this order, and then none."""
    left = itertools.chain(faults, itertools.repeat(None))
    return lambda request: next(left)
