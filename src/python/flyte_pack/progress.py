"""Tells the person who waits what happens, and how far transfers are.

A `Console` is a `Say`. On a terminal, a `Progress` redraws one line through it; with another
`Say`, or without a terminal (a pipe, CI), it says a line now and then.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock
from typing import Callable, TextIO

from flyte_shim import shown

Say = Callable[[str], None]

EVERY = 5.0  # seconds between two lines about one transfer
REDRAWN_EVERY = 0.1  # seconds between two drawings of a terminal's last line
_CLEAR = "\r\x1b[K"  # to the start of the line, and erase to its end (ECMA-48, "EL")


def write(stream: TextIO, text: str) -> None:
    """Write and flush; characters that the stream cannot encode become escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; Python would complain again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Console:
    """Lines on a stream; on a terminal, one more at the bottom is redrawn. Thread-safe."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._lock = Lock()
        self._drawn = False
        # Some CI systems have a terminal, and keep all its output as a log.
        self.redraws = stream.isatty() and environ.get("TERM") != "dumb" and not environ.get("CI")

    def __call__(self, line: str) -> None:
        """Write a line that stays; it may quote foreign text."""
        with self._lock:
            write(self._stream, f"{_CLEAR if self._drawn else ''}{shown.message(line)}\n")
            self._drawn = False

    def draw(self, line: str) -> None:
        """Redraw the last line, if `redraws`; an empty one clears it."""
        if not self.redraws:
            return
        with self._lock:
            if line or self._drawn:
                import shutil  # slow to import, and most commands draw nothing

                # A line as wide as the terminal could not be erased by going to its start.
                width = shutil.get_terminal_size().columns - 1
                write(self._stream, f"{_CLEAR}{line[:width]}")
            self._drawn = bool(line)


class Progress:
    """Counts transferred bytes. what: begins each line. Thread-safe."""

    def __init__(
        self, say: Say, what: str, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._what, self._total, self._clock = say, what, total, clock
        self._console = say if isinstance(say, Console) and say.redraws else None
        self._lock = Lock()
        self._started = self._said = clock()
        self.done = 0

    def add(self, count: int) -> None:
        """Count more transferred bytes."""
        with self._lock:
            self.done += count
            now = self._clock()
            ended = self.done >= self._total
            if not ended and now - self._said < (REDRAWN_EVERY if self._console else EVERY):
                return
            self._said = now
            line = "" if ended else self._line(now)
        if self._console:
            self._console.draw(line)
        elif line:  # the caller tells of the end
            self._say(line)

    def of(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks; each counts once the caller asks for the next."""
        for chunk in chunks:
            yield chunk
            self.add(len(chunk))

    def _line(self, now: float) -> str:
        rate = megabytes(self.done / max(now - self._started, 1e-3))
        percent = 100 * self.done // self._total
        done, total = megabytes(self.done), megabytes(self._total)
        return f"  {self._what}: {done} of {total} ({percent} %), {rate}/s"


def megabytes(count: float) -> str:
    """A number of bytes for a person."""
    if count < 1000:
        return f"{count:.0f} B"
    if count < 999_950:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:,.1f} MB"
