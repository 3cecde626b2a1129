#!/usr/bin/env python3
"""Runs a control plane of Flyte on this machine, to register with: `PYTHON control_plane.py
DIRECTORY [--auth secret]`.

PYTHON has flyte and uvicorn: what is served over the wire are Flyte's own generated classes, for
tasks, triggers, runs, projects, and the data proxy. Nothing runs: a run "ends" as it is told to
beforehand. It keeps what it is given in DIRECTORY, and answers as Flyte's open-source backend does
(at the commit that `control_plane_services.py` names, as far as our tests go). So it takes what that
takes: another content under a version that is there, and unknown domains. When it answers, its
address is printed; it ends with Ctrl-C, SIGTERM, or the program that started it. It listens to this
machine alone.

For tests there is more, as JSON: GET /control/state, and POST /control/fault, outcome
and pause.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

import control_plane_apps
import control_plane_runs
import control_plane_services
import uvicorn
from control_plane_services import CLIENT_ID, EXISTING, Plane
from control_plane_store import Store

HOST = "127.0.0.1"
CLIENT_SECRET = "CONTROL_PLANE_SECRET"
UNAUTHENTICATED = "/flyteidl2.auth.AuthMetadataService/"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run a control plane of Flyte on this machine.")
    parser.add_argument("directory", type=Path, help="where it keeps what it is given")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--project", action="append", help="that exists (default: flytesnacks)")
    parser.add_argument(
        "--domain", action="append", help="default: development, staging, production"
    )
    parser.add_argument(
        "--existing",
        choices=EXISTING,
        default=EXISTING[0],
        help="what becomes of a task that is registered again under its version: upsert, as with "
        "the open-source backend, takes the new content; already_exists refuses it",
    )
    parser.add_argument(
        "--auth",
        choices=("none", "secret"),
        default="none",
        help=f"secret: let in whoever has a token, which the client {CLIENT_ID} gets for the "
        f"secret in {CLIENT_SECRET}",
    )
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="files, for HTTPS")
    parser.add_argument(
        "--uploads",
        metavar="s3://BUCKET/PREFIX",
        help="where uploads go, by AWS_* of the environment (default: into the directory)",
    )
    modes, default = control_plane_apps.MODES, control_plane_apps.MODES[0]
    parser.add_argument("--apps", choices=modes, default=default, help="how apps are deployed")
    options = parser.parse_args(argv)
    options.project = options.project or ["flytesnacks"]
    options.domain = options.domain or ["development", "staging", "production"]
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(options))
    return 0


async def serve(options: argparse.Namespace) -> None:
    """Serve until this program is told to end, or its parent is gone."""
    parent = os.getppid()
    application = ControlPlane(options)
    config = uvicorn.Config(
        application,
        host=HOST,
        port=options.port,
        lifespan="off",
        log_level="error",
        ssl_certfile=options.tls and options.tls[0],
        ssl_keyfile=options.tls and options.tls[1],
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if not serving.done():
        port = server.servers[0].sockets[0].getsockname()[1]
        application.plane.address = f"{'https' if options.tls else 'http'}://localhost:{port}"
        print(f"localhost:{port}", flush=True)
    while not serving.done():
        if os.getppid() != parent:
            server.should_exit = True
        await asyncio.sleep(0.1)
    await serving


class ControlPlane:
    """The ASGI application: counts, lets in, fails where it is told to, and hands on to the
    services.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.store = Store(options.directory)
        self.plane = Plane(options, self.store)
        self.tokens: set[str] = set()
        self.codes: dict[str, int] = {}
        self.faults: list[dict[str, Any]] = []
        modules = (control_plane_services, control_plane_runs, control_plane_apps)
        self.services = {a.path: a for module in modules for a in module.applications(self.plane)}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path: str = scope["path"]
        headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
        if path.startswith("/control/"):
            await _json(send, 200, self._control(path, await _body(receive)))
        elif path.startswith("/oauth2/"):
            query = parse_qs(scope["query_string"].decode())
            await self._log_in(path, query, headers, await _body(receive), send)
        elif path.startswith("/upload/"):
            query = parse_qs(scope["query_string"].decode())
            await self._upload(path, query, headers, await _body(receive), send)
        else:
            await self._call(path, headers, scope, receive, send)

    async def _call(
        self, path: str, headers: dict[str, str], scope: Any, receive: Any, send: Any
    ) -> None:
        service, _, method = path.rpartition("/")
        app = self.services.get(service)
        self.store.count(method)
        if app is None:
            await _refuse(send, 404, "unimplemented", f"no {service} here")
            return
        token = headers.get("authorization", "").partition(" ")[2]
        if (
            self.options.auth != "none"
            and not path.startswith(UNAUTHENTICATED)
            and token not in self.tokens
        ):
            await _refuse(send, 401, "unauthenticated", "the token is missing, or not known")
            return
        fault = next((one for one in self.faults if one["method"] == method and one["times"]), None)
        if fault is None:
            await app(scope, receive, send)
            return
        fault["times"] -= 1
        if fault["kind"] == "slow":
            await asyncio.sleep(fault["seconds"])
            await app(scope, receive, send)
        elif fault["kind"] == "drop":
            # What was asked for is done, and nobody hears of it: the answer breaks off.
            async def nowhere(message: Any) -> None:
                pass

            await app(scope, receive, nowhere)
            start = {"type": "http.response.start", "status": 200}
            await send({**start, "headers": [(b"content-length", b"10")]})
            raise ConnectionResetError
        else:
            status = {"unavailable": 503, "permission_denied": 403, "unauthenticated": 401}
            await _refuse(send, status.get(fault["kind"], 500), fault["kind"], "as it was told to")

    def _control(self, path: str, body: bytes) -> Any:
        if path == "/control/state":
            return self.store.state()
        told = json.loads(body)
        if path == "/control/fault":
            if told.pop("only", False):
                self.faults.clear()
            self.faults.append({"times": 1, "seconds": 1.0, **told})
        elif path == "/control/outcome":
            self.plane.outcomes[told.pop("task")] = told
        elif path == "/control/pause":
            self.store.activate([SimpleNamespace(**told)], False)
        return {}

    async def _log_in(
        self,
        path: str,
        query: dict[str, list[str]],
        headers: dict[str, str],
        body: bytes,
        send: Any,
    ) -> None:
        """OAuth 2: a client's secret (RFC 6749, 4.4), a browser (4.1), or another device (RFC
        8628).

        Whoever comes with a browser is let in; another device is, when its code is asked for a
        second time.
        """
        form = {key: value[0] for key, value in parse_qs(body.decode()).items()}
        step = path.rpartition("/")[2]
        self.store.count(step)
        if step == "authorize":
            code = self._code()
            back = urlencode({"code": code, "state": query["state"][0]})
            location = f"{query['redirect_uri'][0]}?{back}".encode()
            await send(
                {"type": "http.response.start", "status": 302, "headers": [(b"location", location)]}
            )
            await send({"type": "http.response.body"})
            return
        if step == "device":
            at = f"{self.plane.address}/device"
            told = {"user_code": "PLANT-ED", "verification_uri": at, "expires_in": 60}
            await _json(send, 200, {"device_code": self._code(waits=1), "interval": 0, **told})
            return
        code = form.get("device_code") or form.get("code")
        if code is not None:
            if self.codes.get(code):
                self.codes[code] -= 1
                await _json(send, 400, {"error": "authorization_pending"})
                return
            known = self.codes.pop(code, None) is not None
        else:
            given = headers.get("authorization", "").partition(" ")[2]
            user, _, secret = base64.b64decode(given).decode().partition(":")
            user = form.get("client_id", unquote(user))
            secret = form.get("client_secret", unquote(secret))
            known = (user, secret) == (CLIENT_ID, os.environ.get(CLIENT_SECRET))
        if not known:
            error = {"error": "invalid_client", "error_description": "wrong secret, or code"}
            await _json(send, 401, error)
            return
        token = secrets.token_hex(16)
        self.tokens.add(token)
        await _json(send, 200, {"access_token": token, "token_type": "bearer", "expires_in": 600})

    def _code(self, waits: int = 0) -> str:
        code = secrets.token_hex(8)
        self.codes[code] = waits
        return code

    async def _upload(
        self,
        path: str,
        query: dict[str, list[str]],
        headers: dict[str, str],
        body: bytes,
        send: Any,
    ) -> None:
        """As an object store: the signature holds for one name and one Content-MD5."""
        name, md5 = path[len("/upload/") :], headers.get("content-md5", "")
        if query.get("signature") != [self.store.signature(f"{name}{md5}")]:
            await _json(send, 403, {"error": "SignatureDoesNotMatch"})
            return
        found = hashlib.md5(body, usedforsecurity=False).digest()
        if md5 and base64.b64encode(found).decode() != md5:
            await _json(send, 400, {"error": "BadDigest"})
            return
        self.store.count("upload")
        target = self.store.directory / "uploads" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
        await _json(send, 200, {})


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _json(send: Any, status: int, what: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(what).encode()})


async def _refuse(send: Any, status: int, code: str, message: str) -> None:
    """An error as the Connect protocol has it for unary calls."""
    await _json(send, status, {"code": code, "message": message})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
