"""Uploads one blob: mounts it if possible, or sends chunks, and resumes after failures."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from typing import Callable
from urllib.parse import urlencode

from flyte_pack.http.retry import LEAST, Broken, Tries
from flyte_pack.http.transport import Answer
from flyte_pack.oci.model import Descriptor
from flyte_pack.registry import RegistryError
from flyte_pack.registry.auth import Denied
from flyte_pack.registry.client import Refused, Registry, may_pull, may_push
from flyte_pack.registry.pull import pieces
from flyte_shim.words import number

CHUNK = 16 << 20  # bytes in one request, and in memory for one blob
SMALLEST_CHUNK = 1 << 20  # for a proxy that takes no more
# A registry may drop an unfinished blob: distribution 2.8 does when a chunk breaks off.
_RESTARTS = 5


# Reads a blob: gives, from an offset, a number of bytes, fewer at the end only. Raises
# `RegistryError`.
Read = Callable[[int, int], bytes]


def read_file(path: str, offset: int, size: int) -> bytes:
    """Reads a blob in a layout."""
    try:
        with open(path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error.strerror}") from None


class RegistrySource:
    """A blob in another repository, which passes through memory in pieces."""

    def __init__(self, registry: Registry, repository: str, blob: Descriptor) -> None:
        self._registry, self._repository, self._blob = registry, repository, blob
        self._offset, self._last = 0, b""  # the last chunk, to be sent again
        self._stream: Iterator[bytes] | None = None

    def read(self, offset: int, size: int) -> bytes:
        ahead = offset - self._offset
        if 0 <= ahead < len(self._last):
            return self._last[ahead : ahead + size]
        if self._stream is None or ahead != len(self._last):
            self._stream = pieces(self._registry, self._repository, self._blob, offset)
        data = bytearray()
        # Ask once more at the end: that checks the whole.
        while len(data) < size or offset + len(data) >= self._blob.size:
            piece = next(self._stream, None)
            if piece is None:
                break
            data += piece
        self._last, self._offset = bytes(data), offset
        return self._last


class Upload:
    """An upload of one blob into one repository."""

    def __init__(
        self, registry: Registry, repository: str, blob: Descriptor, read: Read, chunk: int
    ) -> None:
        self._registry, self._repository = registry, repository
        self._blob, self._read, self._chunk = blob, read, chunk
        self._scopes = may_push(repository)
        self._location: str | None = None  # None: no upload has begun
        self._offset = 0  # bytes that the registry has
        self._restarts = 0
        self._digest, self._hashed = hashlib.sha256(), 0

    def mount(self, repository: str) -> bool:
        """Mount the blob from another repository of the registry; False: `run` must upload it."""
        query = urlencode({"mount": self._blob.digest, "from": repository})
        try:
            url = f"/v2/{self._repository}/blobs/uploads/?{query}"
            scopes = self._scopes | may_pull(repository)
            answer = self._registry.call("POST", url, scopes, body=b"", ok=(201, 202))
        except (Refused, Denied):
            return False  # no right to read, or nothing there: upload it
        if answer.status == 202:
            self._begun(answer)
        return answer.status == 201

    def run(self, sent: Callable[[int], object]) -> None:
        """Upload it. sent: hears how many bytes went out. Raises `RegistryError`."""
        tries = Tries(self._registry.timing, self._registry.name)
        furthest, unsure = 0, False
        while True:
            try:
                if unsure and self._ask():
                    return
                unsure = False
                if self._location is None:
                    url = f"/v2/{self._repository}/blobs/uploads/"
                    self._begun(self._attempt("POST", url, b"", (202,)))
                if self._offset - furthest >= min(LEAST, self._blob.size - furthest) > 0:
                    furthest = self._offset
                    tries.progress()
                if self._next(sent):
                    return
            except Broken as broken:
                unsure = True
                if not tries.again(broken):
                    raise self._registry.gave_up(broken) from None
            except Refused as refused:
                unsure = self._adapt(refused) or unsure

    def _adapt(self, refused: Refused) -> bool:
        """Change what was refused, or raise; True: first ask how far the upload came."""
        if refused.status == 413 and self._chunk > SMALLEST_CHUNK:
            self._chunk = max(self._chunk // 4, SMALLEST_CHUNK)
            return True
        if refused.status in (404, 416) and self._location and self._restarts < _RESTARTS:
            # The registry lost the upload, or disagrees about how far it is.
            self._restarts, self._location = self._restarts + 1, None
            return False
        if "DIGEST_INVALID" in refused.codes:
            raise RegistryError(
                f"{self._registry.name} got wrong bytes for {self._blob.digest}: something "
                "on the way changes them"
            ) from None
        raise refused

    def _next(self, sent: Callable[[int], object]) -> bool:
        """Send the next chunk; True if it was the last."""
        size = self._blob.size
        data = self._read(self._offset, min(self._chunk, size - self._offset))
        self._check(data)
        end = self._offset + len(data)
        assert self._location is not None
        if end < size or self._offset > 0:
            if data:
                part = f"{self._offset}-{end - 1}"
                answer = self._attempt("PATCH", self._location, data, (201, 202, 204), part)
                sent(len(data))
                self._location = self._registry.location(answer)
                self._offset = self._within(_received(answer, end))
                if self._offset < end:
                    raise Broken(f"it took {self._offset:,} of the first {end:,} bytes")
            if self._offset < size:
                return False
            data = b""
        mark = "&" if "?" in self._location else "?"
        self._attempt("PUT", f"{self._location}{mark}digest={self._blob.digest}", data, (201,))
        sent(len(data))
        return True

    def _check(self, data: bytes) -> None:
        """Raises `RegistryError` if the source has wrong content, before it is sent."""
        end = self._offset + len(data)
        fine = bool(data) or end == self._blob.size
        if end > self._hashed:
            self._digest.update(memoryview(data)[self._hashed - self._offset :])
            self._hashed = end
            fine = fine and (
                end < self._blob.size or f"sha256:{self._digest.hexdigest()}" == self._blob.digest
            )
        if not fine:
            raise RegistryError(
                f"the layout's file of {self._blob.digest} is damaged: "
                "remove the package and make it again"
            )

    def _ask(self) -> bool:
        """Ask, after a failure, how far the upload came; True if the blob is complete."""
        if self._registry.has_blob(self._repository, self._blob.digest, self._scopes):
            return True
        if self._location is not None:
            answer = self._attempt("GET", self._location, None, (202, 204))
            if answer.headers.get("location"):
                self._location = self._registry.location(answer)
            self._offset = self._within(_received(answer, 0))
        return False

    def _within(self, offset: int) -> int:
        if offset > self._blob.size:
            raise RegistryError(
                f"{self._registry.name} says that it has more of {self._blob.digest} than its "
                f"{self._blob.size:,} bytes: is there a proxy in between?"
            )
        return offset

    def _attempt(
        self,
        method: str,
        url: str,
        body: bytes | None,
        ok: tuple[int, ...],
        content_range: str = "",
    ) -> Answer:
        sent = {"Content-Type": "application/octet-stream"} if body else {}
        if content_range:
            sent["Content-Range"] = content_range
        return self._registry.call(method, url, self._scopes, sent, body, ok, once=True)

    def _begun(self, answer: Answer) -> None:
        self._location, self._offset = self._registry.location(answer), 0
        least = number(answer.headers.get("oci-chunk-min-length", "")) or 0
        self._chunk = max(self._chunk, min(least, 8 * CHUNK))


def _received(answer: Answer, unsaid: int) -> int:
    """The number of bytes in a Range header. Registries answer `0-0` for none."""
    found = re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", answer.headers.get("range", ""))
    if found is None:
        return unsaid
    return int(found[1]) + 1 if int(found[1]) else 0
