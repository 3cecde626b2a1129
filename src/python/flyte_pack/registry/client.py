"""Speaks to one registry by the OCI distribution specification 1.0, with logins and retries."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from urllib3.response import BaseHTTPResponse

from flyte_pack.http.retry import STATUSES, Broken, Timing, Tries
from flyte_pack.http.transport import Answer, Transport
from flyte_pack.oci.model import (
    DIGEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    InvalidImage,
    check_digest,
    digest_of,
)
from flyte_pack.progress import Say
from flyte_pack.registry import RegistryError
from flyte_pack.registry.auth import Auth
from flyte_pack.registry.credentials import Keychain
from flyte_shim import shown

ACCEPT = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))
_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 5
_RENEWALS = 2
_IS_REGISTRY = "is it a registry, or is there a proxy in between?"


def may_pull(repository: str) -> frozenset[str]:
    return frozenset({f"repository:{repository}:pull"})


def may_push(repository: str) -> frozenset[str]:
    return frozenset({f"repository:{repository}:pull,push"})


class Refused(RegistryError):
    """The registry refuses. `codes`: its error codes. `digests`: those in its error's details."""

    def __init__(
        self, text: str, status: int, codes: tuple[str, ...] = (), digests: tuple[str, ...] = ()
    ) -> None:
        super().__init__(text)
        self.status, self.codes, self.digests = status, codes, digests


class Session:
    """What the requests of one run share."""

    def __init__(
        self,
        insecure: Collection[str] = (),
        transport: Transport | None = None,
        keychain: Keychain | None = None,
        timing: Timing | None = None,
        say: Say = lambda line: None,
    ) -> None:
        """insecure: `host[:port]` that may use plain HTTP. say: hears of each retry."""
        self.transport = transport or Transport(insecure)
        self.keychain = keychain or Keychain()
        self.timing = timing or Timing(self.transport.stopped.wait, say=say)
        self._registries: dict[str, Registry] = {}

    def registry(self, name: str) -> Registry:
        known = self._registries.get(name)
        return known or self._registries.setdefault(name, Registry(name, self))


class Registry:
    """Thread-safe; methods raise `RegistryError`. name: the host, perhaps with a port."""

    def __init__(self, name: str, session: Session) -> None:
        self.name = name
        self.transport, self.timing = session.transport, session.timing
        self._auth = Auth(name, session.transport, session.keychain, session.timing)

    # --- manifests and small blobs ---------------------------------------------------------------

    def manifest_digest(
        self, repository: str, reference: str, scopes: frozenset[str]
    ) -> str | None:
        """The digest of the manifest or index; None if the registry does not have it."""
        url = f"/v2/{repository}/manifests/{reference}"
        try:
            answer = self.call("HEAD", url, scopes, {"Accept": ACCEPT})
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        if _content_type(answer) not in (*INDEX_TYPES, *MANIFEST_TYPES):
            raise self._no_registry(answer)
        if reference.startswith("sha256:"):
            return reference
        said = answer.headers.get("docker-content-digest")
        if said is None:  # the specification only recommends the header
            return digest_of(self.manifest(repository, reference, scopes)[0])
        try:
            return check_digest(said)
        except InvalidImage:
            raise self._no_digest() from None

    def manifest(
        self, repository: str, reference: str, scopes: frozenset[str]
    ) -> tuple[bytes, str]:
        """The manifest or index as served, checked against its digest, and its media type."""
        url = f"/v2/{repository}/manifests/{reference}"
        answer = self.call("GET", url, scopes, {"Accept": ACCEPT})
        media_type = _content_type(answer)
        if media_type not in (*INDEX_TYPES, *MANIFEST_TYPES):
            raise self._no_registry(answer)
        said = answer.headers.get("docker-content-digest", "")
        expected = reference if reference.startswith("sha256:") else said
        if expected and digest_of(answer.body) != expected:
            if expected is said and not DIGEST.fullmatch(said):
                raise self._no_digest()
            raise RegistryError(
                f"{self.name} serves another manifest than {expected} in {repository}"
            )
        return answer.body, media_type

    def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> bool:
        """Write it under its digest, or under a tag.

        Returns whether the registry lists a manifest with a `subject` among the referrers of that
        (distribution specification 1.1, "Pushing Manifests with Subject").
        """
        url = f"/v2/{repository}/manifests/{reference}"
        headers = {"Content-Type": media_type}
        answer = self.call("PUT", url, may_push(repository), headers, data, (201, 202))
        said = answer.headers.get("docker-content-digest")
        if said is not None and said != digest_of(data):
            raise RegistryError(f"{self.name} stores a manifest under a wrong digest")
        return "oci-subject" in answer.headers

    def has_blob(self, repository: str, digest: str, scopes: frozenset[str]) -> bool:
        try:
            answer = self.call("HEAD", f"/v2/{repository}/blobs/{digest}", scopes)
        except Refused as refused:
            if refused.status == 404:
                return False
            raise
        if _content_type(answer) == "text/html":
            raise self._no_registry(answer)
        return True

    # --- requests --------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        url: str,
        scopes: frozenset[str],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        ok: Collection[int] = (200,),
        once: bool = False,
    ) -> Answer:
        """Send a request for an answer with a status of `ok`. url: may be a path.

        once: without retries; raises `Broken` for what one may mend.
        """

        def attempt() -> Answer:
            with self.exchange(method, url, scopes, headers or {}, body) as (response, address):
                answer = self.transport.read(response, method, address)
            if answer.status in ok:
                return answer
            raise self.refusal(answer, method, address)

        return attempt() if once else Tries(self.timing, self.name).run(attempt, self.gave_up)

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        scopes: frozenset[str],
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> Iterator[tuple[BaseHTTPResponse, str]]:
        """An answer with an unread body, and its URL, after challenges and redirects."""
        origin = self.transport.origin(self.name)
        address = f"{origin}{url}" if url.startswith("/") else url
        hops = renewals = 0
        while True:
            # Credentials are for the registry alone, not for where it redirects to.
            ours = _origin(address) == origin
            auth = self._auth.headers(scopes) if ours else {}
            with self.transport.open(method, address, {**headers, **auth}, body) as response:
                if response.status == 401 and ours and renewals < _RENEWALS:
                    renewals += 1
                    answer = self.transport.read(response, method, address)
                    if self._auth.refused(answer, scopes, auth):
                        continue
                    raise self.refusal(answer, method, address)
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location and method in ("GET", "HEAD"):
                    hops += 1
                    if hops > _HOPS:
                        raise RegistryError(f"{self.name} redirects more than {_HOPS} times")
                    address = self.transport.resolve(address, location, self.name)
                    continue
                yield response, address
                return

    def location(self, answer: Answer) -> str:
        """The URL of the next request of an upload."""
        location = answer.headers.get("location")
        if not location:
            raise RegistryError(
                f"{self.name} starts an upload without a Location: is it a registry?"
            )
        return self.transport.resolve(answer.url, location, self.name)

    # --- errors ----------------------------------------------------------------------------------

    def gave_up(self, broken: Broken) -> RegistryError:
        return RegistryError(f"{self.name}: {broken}")

    def refusal(self, answer: Answer, method: str, address: str) -> Exception:
        """`Broken` if a retry may help, else `Refused`."""
        errors = _errors(answer)
        # The response is untrusted, and may repeat our credentials.
        said = "; ".join(f"{code} {text}".strip() for code, text, _ in errors)
        said = shown.line(said, self._auth.secrets())
        what = f"{method} {_path(address)} at {urlsplit(address).netloc}"
        text = f"{answer.status} for {what}{f' ({said})' if said else ''}"
        if answer.status in STATUSES:
            return Broken(text, STATUSES[answer.status], answer.headers.get("retry-after"))
        if answer.status in (401, 403) and _origin(address) == self.transport.origin(self.name):
            text = f"{text}: {self._auth.explain()}"
        elif "NAME_UNKNOWN" in (code for code, _, _ in errors) and method == "POST":
            text = f"{text}: create the repository first, as this registry does not"
        elif answer.status == 413:
            text = f"{text}: raise the size limit of requests of the registry, or of its proxy"
        elif answer.status < 400:
            text = f"{text}, an unexpected status: {_IS_REGISTRY}"
        elif not errors and answer.body and _content_type(answer) == "text/html":
            text = f"{text}, with a web page: {_IS_REGISTRY}"
        digests = tuple(d for _, _, detail in errors for d in _digests(detail))
        codes = tuple(code for code, _, _ in errors)
        return Refused(f"{self.name}: {text}", answer.status, codes, digests)

    def cleaned(self, text: str) -> str:
        """A message that quotes a document of the registry, which may repeat our credentials."""
        return shown.line(text, self._auth.secrets(), longest=600)

    def _no_digest(self) -> RegistryError:
        return RegistryError(
            f"{self.name} answers with a Docker-Content-Digest that is not sha256: and 64 "
            f"hexadecimal digits: {_IS_REGISTRY}"
        )

    def _no_registry(self, answer: Answer) -> RegistryError:
        kind = shown.line(_content_type(answer), longest=80) or "no type"
        return RegistryError(f"{self.name} answers with {kind}, not an image: {_IS_REGISTRY}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _path(url: str) -> str:
    """For messages: without the query, and without the state that an upload's path may hold."""
    path = urlsplit(url).path
    head, uploads, _ = path.partition("/blobs/uploads/")
    return shown.printable(f"{head}{uploads.rstrip('/')}"[:200])


def _content_type(answer: Answer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def _errors(answer: Answer) -> list[tuple[str, str, Any]]:
    """(code, message, detail) of an error answer (distribution specification, "Error Codes")."""
    try:
        raw = json.loads(answer.body)["errors"]
        return [
            (str(one.get("code") or ""), str(one.get("message") or ""), one.get("detail"))
            for one in raw[:10]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _digests(detail: object) -> Iterator[str]:
    values = detail.values() if isinstance(detail, dict) else [detail]
    for value in values:
        try:
            yield check_digest(value)
        except InvalidImage:
            continue
