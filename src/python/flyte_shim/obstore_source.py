"""Reads archives from Google Cloud Storage and Azure by obstore, which Flyte depends on.

obstore finds credentials itself: in the environment, or as a service account, workload identity or
managed identity. Its messages hold URLs and text of the server, so only codes are taken from them.
"""

from __future__ import annotations

import re

from flyte_shim import errors, shown
from flyte_shim.obstore_client import Panic, Plan, call, pieces
from flyte_shim.source import Source
from flyte_shim.stores import locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from flyte_shim.source import Patience

_CHUNK = 1 << 20
_CONNECT_SECONDS = 10.0
_SILENCES = 10
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")


class ObstoreSource(Source):
    """An archive at `gs://bucket/key` or `abfs[s]://...`; raises UsageError without obstore."""

    def __init__(self, uri: str, patience: Patience, environ: Mapping[str, str]) -> None:
        super().__init__(shown.uri(uri))
        self._location, self._patience = locate(uri), patience
        self._plan = Plan(self._location, environ)
        try:
            import obstore
        except ImportError:
            raise errors.UsageError(
                f"{self.uri} needs the package obstore, which Flyte depends on: install it beside "
                "flyte-shim, or give a presigned https:// URL"
            ) from None
        self._obstore = obstore

    def read(self, offset: int) -> Iterator[bytes]:
        options: Any = {}
        if offset:
            options["range"] = {"offset": offset}
            if self._etag:
                options["if_match"] = self._etag
        store = self._checked_store()
        try:
            result = call(self._obstore.get, store, self._location.key, options=options)
            self._check(offset, result.meta)
            yield from pieces(result, _CHUNK)
        except (errors.ShimError, GeneratorExit):
            raise
        except Exception as error:
            raise self._failure(error) from None

    def _check(self, offset: int, meta: Mapping[str, Any]) -> None:
        etag = meta.get("e_tag")
        if offset and self._etag and etag != self._etag:
            raise errors.SourceChanged(f"{self.uri} was replaced while it was read")
        self._size, self._etag = meta["size"], etag or ""

    def _checked_store(self) -> Any:
        """The store; makes no request, so a failure comes from the settings."""
        try:
            return self._store()
        except errors.ShimError:
            raise
        except Exception as error:
            given = self._plan.settings.identity_variables() or self._plan.settings.variable(
                "endpoint"
            )
            raise errors.UsageError(
                f"the settings for {self.uri} are invalid ({type(error).__name__}): check "
                f"{given}, and the file that it names"
            ) from None

    def _store(self) -> Any:
        import obstore.store

        left, silent = self._patience.left(), self._patience.timeout
        connect = _ms(min(silent, _CONNECT_SECONDS))

        def store(**timeouts: str) -> Any:
            return self._plan.make(obstore.store, {"connect_timeout": connect, **timeouts})

        try:
            return store(timeout=_ms(left), read_timeout=_ms(silent))
        except ValueError:
            # obstore before 0.9 has only a timeout for the whole request; the next try resumes.
            return store(timeout=_ms(min(left, silent * _SILENCES)))

    def _failure(self, error: Exception) -> errors.ShimError:
        """The error for an exception of obstore or of Rust's runtime."""
        text, kind, uri = str(error), type(error).__name__, self.uri
        if isinstance(error, Panic):
            return errors.UntrustedSource(f"{uri} cannot be read: {error}")
        who = (
            self._plan.settings.identity_variables() or "the identity of the task's service account"
        )
        status = int((_STATUS.search(text) or [0, 0])[1])
        code = (_CODE.search(text) or ["", ""])[1]
        label = f"{status or kind} {code}".strip()
        if any(no in code for no in ("BucketNotFound", "ContainerNotFound", "NoSuchBucket")):
            return errors.SourceMissing(
                f"there is no bucket or container {self._location.bucket} for {uri} ({label})"
            )
        if isinstance(error, FileNotFoundError) or status in (404, 410):
            return errors.SourceMissing(f"there is no archive at {uri} ({label}). Deploy it again")
        if kind == "PreconditionError" or status in (412, 416):
            return errors.SourceChanged(f"{uri} was replaced while it was read ({label})")
        if "performing token request" in text:
            message = (
                f"no credentials for {uri}: the environment has none, and the identity service of "
                f"the machine or service account answers {label}"
            )
            return (
                errors.SourceDenied(message)
                if 400 <= status < 500
                else errors.SourceUnavailable(message)
            )
        if kind in ("PermissionDeniedError", "UnauthenticatedError") or status in (401, 403, 407):
            return errors.SourceDenied(
                f"{uri} may not be read ({label}): the credentials are wrong or may not read it, "
                f"or this machine's clock is off. Check {who}"
            )
        if "certificate" in text or "UnknownIssuer" in text:
            return errors.UntrustedSource(
                f"the certificate of the store of {uri} cannot be verified. For a private "
                "authority, add its certificate to the image's"
            )
        if 400 <= status < 500 and status not in (408, 425, 429):
            return errors.UntrustedSource(f"{uri} cannot be read: the store answers {label}")
        if "kind: Connect" in text:
            return errors.SourceUnavailable(f"no connection to the store of {uri}")
        why = "it takes too long" if "imed out" in text or "TimedOut" in text else label
        return errors.SourceUnavailable(f"reading {uri} failed: {why}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"
