"""What a command can fail with, whichever room it happens in."""

from __future__ import annotations

from flyte_shim.errors import UserError

__all__ = ["UsageError", "UserError"]


class UsageError(UserError):
    """The command line cannot be understood; the message says what to type instead."""
