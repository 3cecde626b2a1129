"""Puts bundles into real object stores, for the shim to fetch."""

from __future__ import annotations

import datetime
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import obstore
from obstore.store import AzureStore, S3Store

from flyte_shim.stores import locate
from tests.support.object_stores import Proxy, RealStore, proxied


def publish(store: RealStore, key: str, data: bytes) -> str:
    """Put `data`; its URI.

    Like the deploy program, Google's emulator takes it by the JSON API only.
    """
    location = locate(f"{store.uri}/{key}")
    if location.kind == "gs":
        path = (
            f"upload/storage/v1/b/{location.bucket}/o?uploadType=media&name={quote(key, safe='')}"
        )
        request = urllib.request.Request(f"{store.endpoint}/{path}", data, method="POST")
        request.add_header("Content-Type", "application/gzip")
        urllib.request.urlopen(request, timeout=120).read()
    else:
        obstore.put(_client(store), key, data)
    return location.uri


@contextmanager
def behind_proxy(store: RealStore) -> Iterator[tuple[RealStore, Proxy]]:
    """As `proxied`; Google's emulator serves archives under one host's name only, so it gets to see
    that one.
    """
    with proxied(store) as (reached, proxy):
        ask, host = proxy._ask, urlsplit(store.endpoint).netloc

        def ask_by_name(handler: Any, headers: list[tuple[str, str]], body: bytes) -> Any:
            named = [(name, host if name.lower() == "host" else value) for name, value in headers]
            return ask(handler, named, body)

        if store.uri.startswith("gs:"):
            proxy._ask = ask_by_name  # type: ignore[method-assign]
        yield reached, proxy


def signed_url(store: RealStore, key: str, seconds: float) -> str:
    """A URL that lets anyone read `key` for so long."""
    return obstore.sign(_client(store), "GET", key, datetime.timedelta(seconds=seconds))


def _client(store: RealStore) -> Any:
    location = locate(f"{store.uri}/")
    make = AzureStore if location.kind == "abfs" else S3Store
    config: Any = {name.lower(): value for name, value in store.env.items()}
    return make(location.bucket, config=config, client_options={"allow_http": True})
