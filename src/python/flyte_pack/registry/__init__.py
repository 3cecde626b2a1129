"""Pushes images to registries and fetches layers of bases (OCI distribution specification 1.0)."""

from __future__ import annotations

from flyte_pack.http import HttpError


class RegistryError(HttpError):
    """An image cannot be pushed or fetched; the message says where, why and what to change."""
