"""Writes the shim's log to standard error.

FLYTE_SHIM_LOG chooses the format: `text` (the default) writes only warnings and errors, `json` one
object a line for each event, `off` nothing.
"""

from __future__ import annotations

import sys
import time

from flyte_shim import shown
from flyte_shim.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Union

    Value = Union[str, int, float]

FORMATS = ("text", "json", "off")
VARIABLE = "FLYTE_SHIM_LOG"


class Log:
    """The events of one start; every event has the fields in `common`."""

    def __init__(self) -> None:
        self.format = FORMATS[0]
        self.common: dict[str, Value] = {}
        self._start = time.monotonic()

    def configure(self, environ: Mapping[str, str]) -> None:
        """Read FLYTE_SHIM_LOG; raises UsageError."""
        chosen = environ.get(VARIABLE) or self.format
        if chosen not in FORMATS:
            raise UsageError(
                f"{VARIABLE} is {shown.word(chosen)}; it is one of: {', '.join(FORMATS)}"
            )
        self.format = chosen

    def info(self, event: str, **fields: Value) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, message: str, **fields: Value) -> None:
        self._write("warning", event, {**fields, "message": _safe(message)})

    def error(self, message: str, code: int) -> None:
        self._write("error", "failed", {"code": code, "message": _safe(message)})

    def _write(self, level: str, event: str, fields: dict[str, Value]) -> None:
        if not sys.stderr or self.format == "off":
            return
        if self.format == "json":
            whole: dict[str, Value] = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "level": level,
                "event": event,
                "seconds": round(time.monotonic() - self._start, 4),
                **self.common,
                **fields,
            }
            sys.stderr.write(f"{_json(whole)}\n")
        elif level != "info":
            sys.stderr.write(f"flyte-shim: {level}: {fields['message']}\n")


def _safe(message: str) -> str:
    """On one line, whatever the caller has let through."""
    return shown.printable(shown.message(message))


def _json(fields: dict[str, Value]) -> str:
    try:
        # Importing the package json takes longer than a whole warm start.
        from _json import encode_basestring_ascii as quoted
    except ImportError:
        from json import dumps as quoted  # type: ignore[assignment]
    items = (
        f"{quoted(name)}: {quoted(value) if isinstance(value, str) else value}"
        for name, value in fields.items()
    )
    return f"{{{', '.join(items)}}}"
