"""What a command can fail with, whichever room it happens in."""

from __future__ import annotations

from collections.abc import Iterable

from flyte_shim.errors import UserError

__all__ = ["UsageError", "UserError", "listing"]

_SHOWN = 8  # how many culprits an error names before it only counts them


class UsageError(UserError):
    """The command line cannot be understood; the message says what to type instead."""


def listing(lines: Iterable[str], most: int = _SHOWN) -> str:
    """The first of them as the points of a list, and how many more there are."""
    every = list(lines)
    shown = "".join(f"\n  * {line}" for line in every[:most])
    more = f"\n  * and {len(every) - most} more" if len(every) > most else ""
    return f"{shown}{more}\n"
