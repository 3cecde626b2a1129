"""Makes small wheels of any kind, and serves them as a package index on this machine."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PURE = "py3-none-any"
AMD64 = "cp312-cp312-manylinux_2_17_x86_64"
ARM64 = "cp312-cp312-manylinux_2_17_aarch64"


@dataclass(frozen=True)
class Wheel:
    """A wheel to be made (PyPA, "Binary distribution format"). files: by their paths in it;
    `{data}` and `{info}` stand for the names of its special directories. listed: rows of RECORD
    that are said besides, or instead of the right ones.
    """

    name: str
    version: str = "1.0"
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    scripts: Mapping[str, str] = field(default_factory=dict)
    tag: str = PURE
    listed: tuple[tuple[str, str, str], ...] = ()
    unlisted: tuple[str, ...] = ()
    executable: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        return f"{self._base}-{self.tag}.whl"

    @property
    def _base(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}"

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def content(self) -> bytes:
        info = f"{self._base}.dist-info"
        names = {"data": f"{self._base}.data", "info": info}
        files = {name.format(**names): _bytes(content) for name, content in self.files.items()}
        files = files or {f"{self.name.replace('-', '_')}.py": b""}
        metadata = ["Metadata-Version: 2.1", f"Name: {self.name}", f"Version: {self.version}"]
        metadata += [f"Provides-Extra: {extra}" for extra in self.extras]
        metadata += [f"Requires-Dist: {requirement}" for requirement in self.requires]
        files[f"{info}/METADATA"] = "\n".join([*metadata, ""]).encode()
        pure = "true" if self.tag.endswith("-any") else "false"
        lines = [
            "Wheel-Version: 1.0",
            "Generator: tests",
            f"Root-Is-Purelib: {pure}",
            f"Tag: {self.tag}",
        ]
        files[f"{info}/WHEEL"] = "\n".join([*lines, ""]).encode()
        if self.scripts:
            entries = [f"{name} = {called}\n" for name, called in self.scripts.items()]
            files[f"{info}/entry_points.txt"] = ("[console_scripts]\n" + "".join(entries)).encode()
        said = {row[0]: row for row in self.listed}
        rows = [
            said.pop(n, (n, record_hash(c), str(len(c))))
            for n, c in files.items()
            if n not in self.unlisted
        ]
        record = io.StringIO()
        csv.writer(record, lineterminator="\n").writerows(
            [*rows, *said.values(), (f"{info}/RECORD", "", "")]
        )
        files[f"{info}/RECORD"] = record.getvalue().encode()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in files.items():
                member = zipfile.ZipInfo(name)
                mode = (
                    0o755
                    if name.format(**names) in [e.format(**names) for e in self.executable]
                    else 0o644
                )
                member.external_attr = (0o100000 | mode) << 16
                archive.writestr(member, content)
        return buffer.getvalue()


def record_hash(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


def lock_of(wheels: Iterable[Wheel]) -> str:
    """A lock file of requirements with hashes; wheels of one name and version, for several
    platforms, are one pin.
    """
    pins: dict[str, list[str]] = {}
    for wheel in wheels:
        pins.setdefault(f"{wheel.name}=={wheel.version}", []).append(
            f"--hash=sha256:{wheel.sha256}"
        )
    return "".join(" \\\n    ".join([pin, *hashes]) + "\n" for pin, hashes in sorted(pins.items()))


@contextmanager
def serve_index(
    wheels: Iterable[Wheel], password: str = "", rename: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A package index (PyPA, "Simple repository API") with `wheels`; its URL, which needs
    `password` if that is given.

    rename: files that are served under another name.
    """
    pages: dict[str, dict[str, bytes]] = {}
    for wheel in wheels:
        page = pages.setdefault(wheel.name.lower().replace("_", "-").replace(".", "-"), {})
        page[(rename or {}).get(wheel.file_name, wheel.file_name)] = wheel.content

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            expected = "Basic " + base64.b64encode(f"user:{password}".encode()).decode()
            if password and self.headers.get("Authorization") != expected:
                return self._answer(401, b"", "text/plain")
            parts = [part for part in self.path.split("/") if part]
            page = pages.get(parts[1]) if len(parts) > 1 else None
            if page is None or (len(parts) == 3 and parts[2] not in page):
                return self._answer(404, b"", "text/plain")
            if len(parts) == 3:
                return self._answer(200, page[parts[2]], "application/octet-stream")
            links = [
                f'<a href="{name}#sha256={hashlib.sha256(content).hexdigest()}">{name}</a>'
                for name, content in page.items()
            ]
            return self._answer(
                200, "\n".join(["<!DOCTYPE html><body>", *links]).encode(), "text/html"
            )

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="tests"')
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_wheel(directory: Path, wheel: Wheel) -> Path:
    path = directory / wheel.file_name
    path.write_bytes(wheel.content)
    return path


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
