"""Talks HTTP to registries: pushes images, fetches the layers of bases, pins bases (OCI distribution specification 1.0)."""

from __future__ import annotations


class RegistryError(Exception):
    """What keeps an image from being pushed or fetched; the message says where, what is wrong and what to change.

    It never holds a password, a token or a signed address.
    """
