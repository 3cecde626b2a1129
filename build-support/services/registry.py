#!/usr/bin/env python3
"""Runs an image registry on this machine, to try things out: `registry.py DIRECTORY [--auth
none|basic|token]`.

The real docker-registry (Debian's package of that name, which is not installed by this), which keeps its blobs in DIRECTORY. When
it answers, its address is printed; it ends with Ctrl-C, SIGTERM, or the program that started it.
With --auth basic or token it lets in `--user`, by the password in the environment variable
REGISTRY_PASSWORD; with token there is a token server too, which issues JSON web tokens signed by
RS256. It listens to this machine alone.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from debian_packages import require
from service import ServiceError, run, started, wait_for_the_end

HOST = "127.0.0.1"
START_SECONDS = 60.0
PASSWORD = "REGISTRY_PASSWORD"
ISSUER, SERVICE = "pants-flyte", "registry"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run an image registry on this machine.")
    parser.add_argument("directory", type=Path, help="where it keeps what it is given")
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--auth", choices=("none", "basic", "token"), default="none")
    parser.add_argument("--user", default="user", help="who is let in (default: user)")
    parser.add_argument(
        "--token-seconds", type=int, default=300, help="how long a token is good for"
    )
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="files, for HTTPS")
    options = parser.parse_args(argv)
    return run("registry", lambda: serve(options))


def serve(options: argparse.Namespace) -> None:
    """Run the registry until this program is interrupted or its parent is gone."""
    require("docker-registry")
    program = shutil.which("docker-registry") or "docker-registry"
    parent = os.getppid()
    directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    port = options.port or _free_port()
    configuration = directory / "registry.json"
    # YAML's flow style: what JSON is a part of.
    configuration.write_text(json.dumps(_configuration(options, directory, port), indent=2))
    log = directory / "registry.log"
    env = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with started([program, "serve", str(configuration)], log, env=env) as server:
        _wait_until_it_answers(server, port, log)
        print(f"{HOST}:{port}", flush=True)
        wait_for_the_end(server, parent, log)


def _configuration(options: argparse.Namespace, directory: Path, port: int) -> dict[str, object]:
    http: dict[str, object] = {"addr": f"{HOST}:{port}", "secret": secrets.token_hex(16)}
    if options.tls:
        http["tls"] = {"certificate": options.tls[0], "key": options.tls[1]}
    configuration: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "data")},
            "delete": {"enabled": True},
        },
        "http": http,
    }
    if options.auth == "none":
        return configuration
    password = os.environ.get(PASSWORD)
    if not password:
        raise ServiceError(f"set {PASSWORD} in the environment: the password of {options.user}")
    if options.auth == "basic":
        passwords = directory / "htpasswd"
        passwords.write_text(f"{options.user}:{_bcrypt(password)}\n")
        auth: dict[str, object] = {"htpasswd": {"realm": "registry", "path": str(passwords)}}
    else:
        signer = Signer(directory)
        realm = serve_tokens(options.user, password, signer, options.token_seconds)
        auth = {
            "token": {
                "realm": realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(signer.certificate),
            }
        }
    return {**configuration, "auth": auth}


def _bcrypt(password: str) -> str:
    """The one hash that docker-registry reads; it is the C library's crypt that makes it
    (libcrypt).
    """
    import ctypes
    import ctypes.util

    library = ctypes.util.find_library("crypt")
    if library is None:
        raise ServiceError("libcrypt is missing: apt-get install libcrypt1")
    crypt = ctypes.CDLL(library).crypt
    crypt.restype = ctypes.c_char_p
    salt = base64.b64encode(secrets.token_bytes(17), b"./")[:21].decode()
    hashed = crypt(password.encode(), f"$2y$05${salt}u".encode())
    if hashed is None or not hashed.startswith(b"$2y$"):
        raise ServiceError("this machine's libcrypt makes no bcrypt hashes: install libxcrypt's")
    return str(hashed.decode())


def _free_port() -> int:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        port: int = holder.getsockname()[1]
        return port


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    lines = log.read_text(errors="replace").splitlines()
    raise ServiceError(f"it did not start ({lines[-1] if lines else 'it says nothing'}): see {log}")


# --- the token server ----------------------------------------------------------------------------


class Signer:
    """Signs tokens by a key of its own, made anew; openssl does both."""

    def __init__(self, directory: Path) -> None:
        self._key, self.certificate = directory / "token.key", directory / "token.crt"
        if shutil.which("openssl") is None:
            raise ServiceError("openssl is missing: apt-get install openssl")
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=token", "-keyout", str(self._key), "-out", str(self.certificate)),
            ],
            check=True,
            capture_output=True,
        )
        pem = self.certificate.read_text()
        self._x5c = "".join(pem.split("-----")[2].split())

    def token(self, claims: dict[str, object]) -> str:
        """A JSON web token (RFC 7519) which brings its certificate (x5c, RFC 7515)."""
        header = {"typ": "JWT", "alg": "RS256", "x5c": [self._x5c]}
        signed = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        done = subprocess.run(command, input=signed, check=True, capture_output=True)
        return f"{signed.decode()}.{_base64(done.stdout).decode()}"


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def serve_tokens(user: str, password: str, signer: Signer, seconds: int) -> str:
    """Start a token server on a thread; its address.

    `user` gets what it asks for, anybody else may pull from `public/`.

    The password is good as an identity token too.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass  # it would write queries down

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            given = self.headers.get("Authorization")
            expected = base64.b64encode(f"{user}:{password}".encode()).decode()
            known = given == f"Basic {expected}"
            self._answer("token", query, known, refused=given is not None and not known)

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            known = form.get("refresh_token") == [password]
            self._answer("access_token", form, known, refused=not known)

        def _answer(
            self, name: str, asked: dict[str, list[str]], known: bool, refused: bool
        ) -> None:
            access = []
            for scope in " ".join(asked.get("scope", [])).split():
                kind, repository, actions = scope.split(":", 2)
                public = ["pull"] if repository.startswith("public/") else []
                granted = [a for a in actions.split(",") if known or a in public]
                access.append({"type": kind, "name": repository, "actions": granted})
            now = int(time.time())
            claims: dict[str, object] = {
                "iss": ISSUER,
                "sub": user if known else "",
                "aud": SERVICE,
                "iat": now,
                "nbf": now - 5,
                "exp": now + seconds,
                "jti": secrets.token_hex(8),
                "access": access,
            }
            body: dict[str, object] = {"details": "who are you?"}
            if not refused:
                body = {name: signer.token(claims), "expires_in": seconds}
            data = json.dumps(body).encode()
            self.send_response(401 if refused else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer((HOST, 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://{HOST}:{server.server_address[1]}/token"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
