"""Makes obstore's clients, for the shim and the builder, from `store_settings.py` alone.

obstore itself reads many variables of the environment, and its own names for them win over what it
is told (`from_env` in the builders of Rust's crate object_store). So they are hidden from it while
it makes a client, and all that counts is passed explicitly.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from threading import Lock

from flyte_shim.errors import UsageError
from flyte_shim.store_settings import (
    AZURE,
    CLI,
    DEFAULTS,
    GCS,
    KEY,
    KEY_FILE,
    KEY_JSON,
    NOBODY,
    PRINCIPAL,
    S3,
    SAS,
    TOKEN,
    WORKLOAD,
    Settings,
)
from flyte_shim.stores import (
    S3Settings,
    azure_account,
    endpoint_of,
    gcs_is_anonymous,
)
from flyte_shim.web import Url, proxy_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Callable

    from flyte_shim.stores import Location

_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_")
_NAMES = ("SERVICE_ACCOUNT", "IDENTITY_ENDPOINT")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_GCS = "https://storage.googleapis.com"
# The services of machines and containers that give credentials; no proxy reaches them.
_NO_PROXY = "169.254.169.254,169.254.170.2,metadata.google.internal,localhost,127.0.0.1"
_hiding = Lock()


class Panic(Exception):
    """A fault inside of obstore: Rust's panic, which Python does not take for an Exception."""


class Plan:
    """All that a client of one store gets; `make` makes one.

    `config` and `client_options` are those of obstore. Raises UsageError, which names the variable.
    """

    def __init__(self, location: Location, environ: Mapping[str, str]) -> None:
        self.location = location
        self.settings = settings = Settings(location.kind, environ)
        self.environ = environ
        self.identity, self._parts = settings.identity()
        self.config: dict[str, str] = {}
        self.client_options: dict[str, Any] = {"user_agent": "pants-flyte"}
        self._authorities: str | None = None
        if location.kind == S3:
            self.s3 = S3Settings(environ)
            self.at_region(self.s3.region)
        elif location.kind == GCS:
            self.config = self._gcs()
        else:
            self.config = self._azure()
        self._reach(self.config.get("endpoint") or endpoint_of(location, settings) or _GCS)

    def at_region(self, region: str) -> None:
        """S3: the bucket is in this region."""
        s3 = self.s3
        endpoint, virtual = s3.bucket_url(self.location.bucket, region)
        if not virtual:
            endpoint = endpoint.rpartition("/")[0]  # obstore adds the bucket
        self.config = {
            "region": region,
            "endpoint": endpoint,
            "virtual_hosted_style_request": str(virtual).lower(),
        }
        if s3.request_payer:
            self.config["request_payer"] = "true"
        if s3.anonymous:
            self.config["skip_signature"] = "true"
        if s3.access_key_id and s3.secret_access_key:
            self.config["access_key_id"] = s3.access_key_id
            self.config["secret_access_key"] = s3.secret_access_key
        if s3.session_token:
            self.config["session_token"] = s3.session_token

    def make(
        self, obstore_store: Any, timeouts: Mapping[str, Any], retries: int = 0, **more: Any
    ) -> Any:
        """A client of `obstore.store`; raises what obstore raises, and Panic."""
        kind = {S3: "S3Store", GCS: "GCSStore", AZURE: "AzureStore"}[self.location.kind]
        with self._hidden():
            return call(
                getattr(obstore_store, kind),
                self.location.bucket,
                config=self.config,
                client_options={**self.client_options, **timeouts},
                retry_config={"max_retries": retries},
                **more,
            )

    def _reach(self, endpoint: str) -> None:
        """How the server is reached: with TLS or without, through a proxy, trusting whom."""
        options = self.client_options
        options["allow_http"] = endpoint.startswith("http:")
        proxy = proxy_of(Url(f"{endpoint}/"), self.environ)
        if proxy:
            options["proxy_url"] = proxy.geturl()
            named = self.environ.get("no_proxy") or self.environ.get("NO_PROXY") or ""
            options["proxy_excludes"] = ",".join(filter(None, (named.strip(), _NO_PROXY)))
        if not options["allow_http"]:
            self._authorities = self.settings.get("authorities")

    def _gcs(self) -> dict[str, str]:
        settings, server = self.settings, endpoint_of(self.location, self.settings)
        if gcs_is_anonymous(settings):
            import json  # slower to import than this module

            # obstore before 0.9 takes the address only in a service account. With one, it looks for
            # no other credentials.
            nobody = {
                "gcs_base_url": server or _GCS,
                "disable_oauth": True,
                **dict.fromkeys(("client_email", "private_key", "private_key_id"), ""),
            }
            config = {"service_account_key": json.dumps(nobody)}
            if self.identity == NOBODY:
                config["skip_signature"] = "true"
            return config
        config = {"base_url": server} if server else {}
        names = {
            KEY_JSON: "service_account_key",
            KEY_FILE: "service_account",
            DEFAULTS: "application_credentials",
        }
        if self.identity:
            config[names[self.identity]] = next(iter(self._parts.values()))
        return config

    def _azure(self) -> dict[str, str]:
        location, settings = self.location, self.settings
        account = azure_account(location, settings)
        config: dict[str, str] = {"account_name": account} if account else {}
        if settings.true("emulator"):
            config["use_emulator"] = "true"
        elif endpoint := settings.get("endpoint"):
            config["endpoint"] = endpoint
        elif account:
            config["endpoint"] = f"https://{account}.blob.core.{location.cloud}"
        else:
            raise UsageError(
                f"{settings.variable('account')} is not set: set it to the account, or write "
                "the account into the URI"
            )
        parts = list(self._parts.values())
        simple = {
            TOKEN: "token",
            KEY: "account_key",
            SAS: "sas_token",
            NOBODY: "skip_signature",
            CLI: "use_azure_cli",
        }
        if self.identity in simple:
            config[simple[self.identity]] = parts[0]
        elif self.identity in (PRINCIPAL, WORKLOAD):
            proof = "client_secret" if self.identity == PRINCIPAL else "federated_token_file"
            config.update(zip(("client_id", "tenant_id", proof), parts))
            if host := settings.get("authority host"):
                config["authority_host"] = host
        else:
            machine = {
                "msi_endpoint": settings.get("identity endpoint"),
                "client_id": settings.get("client"),
            }
            config.update({name: value for name, value in machine.items() if value})
        return config

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        """Nothing of the environment speaks to obstore.

        Only C sees it so, not Python's `os.environ`, and only while a client is made.
        """
        changed: dict[str, str | None] = {
            name: None
            for name, value in os.environ.items()
            if name.startswith(_PREFIXES)
            or name in _NAMES
            or name.lower() in _PROXIES
            or not value.strip()
        }
        changed["SSL_CERT_FILE"] = self._authorities
        with _hiding:
            try:
                for name, value in changed.items():
                    _put(name, value)
                yield
            finally:
                for name in changed:
                    _put(name, os.environ.get(name))


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.unsetenv(name)
    else:
        os.putenv(name, value)


def call(function: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """The result of one of obstore's functions; the one place that knows of Rust's panics."""
    try:
        return function(*args, **more)
    except BaseException as error:
        raise_panic(error)
        raise


def pieces(result: Any, size: int) -> Iterator[bytes]:
    """The bytes of a `GetResult`, in chunks of about `size` bytes."""
    stream = call(iter, call(result.stream, min_chunk_size=size))
    while (piece := call(next, stream, None)) is not None:
        yield bytes(piece)


def raise_panic(error: BaseException) -> None:
    """Raise Panic if `error` is a panic; its text may hold settings."""
    if type(error).__module__ == "pyo3_runtime":
        raise Panic("obstore itself failed: one of the settings may be invalid") from None
