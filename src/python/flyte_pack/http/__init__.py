"""Sends HTTP requests for registries and stores: one way to connect, one policy of retries."""

from __future__ import annotations

from flyte_shim.errors import UserError


class HttpError(UserError):
    """A server's answer cannot be used; the message says which server, why and what to change.

    It never holds a password, a token or a signed URL.
    """
