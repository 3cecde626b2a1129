"""Gzip whose bytes are a function of the input alone: one pinned codec, fed in chunks of one size.

The codec is ISA-L's deflate at level 2 (the `isal` package), about ten times faster than zlib at
level 6 for archives 18 % larger. Its output depends on how the input is cut into writes, and nobody
promises that another version would write the same bytes, so both are fixed here.
"""

from __future__ import annotations

import hashlib
from io import FileIO
from queue import Queue
from threading import Thread
from types import ModuleType
from typing import Any

from flyte_pack.errors import UserError

ISAL_VERSION = "2.31.1"  # of the library, which the Python package `isal` is built with
LEVEL = 2
CHUNK = 1 << 18
_GZIP = 31  # as window bits: a gzip member (RFC 1952), which ISA-L gives no name, time or system
_QUEUED = 16


class GzipWriter:
    """Compresses into an open file, on a thread of its own while the caller reads on.

    A context manager; what went out is known after `finish`. The thread changes no byte: it takes
    chunks of one size, in order. A bundle smaller than a chunk does without it.
    """

    def __init__(self, file: FileIO, hash_input: bool = False) -> None:
        """hash_input: compute `input_sha256`. Raises `UserError` if the codec is another one."""
        self._codec = _pinned_codec()
        self._file = file
        self._deflate = self._new_member()
        self._digest = hashlib.sha256()
        self._input_digest = hashlib.sha256() if hash_input else None
        self._pending = bytearray()
        self._queue: Queue[bytearray | None] = Queue(_QUEUED)
        self._thread: Thread | None = None
        self._failure: BaseException | None = None
        self.size = 0

    @property
    def sha256(self) -> str:
        """SHA-256 of what went out, as lower-case hexadecimal digits."""
        return self._digest.hexdigest()

    @property
    def input_sha256(self) -> str:
        """SHA-256 of what came in, where that was asked for."""
        assert self._input_digest is not None
        return self._input_digest.hexdigest()

    def add(self, *pieces: bytes) -> None:
        """Take the next bytes. Raises what writing earlier ones to the file raised."""
        for piece in pieces:
            self._pending += piece
        while len(self._pending) >= CHUNK:
            if self._failure is not None:
                raise self._failure
            if self._thread is None:
                self._thread = Thread(target=self._compress_queue, daemon=True)
                self._thread.start()
            chunk, self._pending = self._pending, self._pending[CHUNK:]
            del chunk[CHUNK:]
            if self._input_digest is not None:  # here, while the thread compresses the one before
                self._input_digest.update(chunk)
            self._queue.put(chunk)

    def next_member(self) -> None:
        """End a gzip member; what is added next is in another one, which no edit of this changes.

        The members inflate to all that was added (RFC 1952, 2.2). Raises as `finish` does.
        """
        self.finish()
        self._pending = bytearray()
        self._deflate = self._new_member()

    def finish(self) -> None:
        """Write the rest and the trailer. Raises what writing to the file raised."""
        self._stop()
        if self._failure is not None:
            raise self._failure
        if self._input_digest is not None:
            self._input_digest.update(self._pending)
        self._write(self._deflate.compress(self._pending))
        self._write(self._deflate.flush())

    def __enter__(self) -> GzipWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _new_member(self) -> Any:
        return self._codec.compressobj(LEVEL, self._codec.DEFLATED, _GZIP)

    def _stop(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _compress_queue(self) -> None:
        while (chunk := self._queue.get()) is not None:
            # After a failure the queue is still emptied, or the caller would wait for room in it.
            if self._failure is None:
                try:
                    self._write(self._deflate.compress(chunk))
                except BaseException as error:
                    self._failure = error

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


def _pinned_codec() -> ModuleType:
    fix = "Install what flyte_pack/flyte-pack.lock pins"
    try:
        from isal import ISAL_VERSION as found
        from isal import isal_zlib
    except ImportError as error:
        raise UserError(f"the compressor isal cannot be imported: {error}. {fix}") from error
    if found != ISAL_VERSION:
        raise UserError(
            f"archives are pinned to ISA-L {ISAL_VERSION}, as another may write other bytes, "
            f"and this isal is built with {found}. {fix}"
        )
    module: ModuleType = isal_zlib
    return module
