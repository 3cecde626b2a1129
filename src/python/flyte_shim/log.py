"""What the shim says on standard error: a line of text for what is wrong, or JSON for every event.

FLYTE_SHIM_LOG chooses: `text` (the default) has warnings and errors only, so that a start that goes
well says nothing; `json` has one object a line for each event; `off` has nothing at all.
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
    """The events of one start. `common` are the fields that each has, from when they are known."""

    def __init__(self) -> None:
        self.format = FORMATS[0]
        self.common: dict[str, Value] = {}
        self._start = time.monotonic()

    def configure(self, environ: Mapping[str, str]) -> None:
        """Obey FLYTE_SHIM_LOG; raises UsageError."""
        chosen = environ.get(VARIABLE) or self.format
        if chosen not in FORMATS:
            raise UsageError(f"{VARIABLE} is {chosen!r}; it is one of: {', '.join(FORMATS)}.")
        self.format = chosen

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    def info(self, event: str, **fields: Value) -> None:
        """Something went well."""
        self._write("info", event, fields)

    def warning(self, event: str, message: str, **fields: Value) -> None:
        """Something that a person may want to mend; `message` says it in a sentence."""
        self._write("warning", event, {**fields, "message": message})

    def error(self, message: str, code: int) -> None:
        """What ends the start, with the exit code `code`."""
        self._write("error", "failed", {"code": code, "message": message})

    def _write(self, level: str, event: str, fields: dict[str, Value]) -> None:
        if not sys.stderr or self.format == "off":
            return
        if self.format == "json":
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            seconds = round(self.seconds(), 4)
            whole: dict[str, Value] = {
                "time": now,
                "level": level,
                "event": event,
                "seconds": seconds,
            }
            whole.update({**self.common, **fields})
            sys.stderr.write(f"{_json(whole)}\n")
        elif level != "info":
            message = shown.printable(str(fields["message"]))
            sys.stderr.write(f"flyte-shim: {level}: {message}\n")


def _json(fields: dict[str, Value]) -> str:
    try:
        # What the package json is built on; importing that takes longer than all of a warm start.
        from _json import encode_basestring_ascii as quoted
    except ImportError:
        from json import dumps as quoted  # type: ignore[assignment]
    items = (
        f"{quoted(name)}: {quoted(value) if isinstance(value, str) else value}"
        for name, value in fields.items()
    )
    return f"{{{', '.join(items)}}}"
