"""Answers a registry's challenge: basic authentication, and bearer tokens for scopes.

Basic is RFC 7617. Tokens follow distribution's "Token Authentication Specification", identity
tokens its "OAuth2 Token Authentication".
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Tuple
from urllib.parse import urlencode, urlsplit

from flyte_pack.http.retry import STATUSES, Broken, Timing, Tries
from flyte_pack.http.transport import Answer, Transport
from flyte_pack.registry import RegistryError
from flyte_pack.registry.credentials import Credentials, Keychain
from flyte_shim import shown

CLIENT_ID = "pants-flyte"
SHORTEST_LIFE = 60.0  # seconds; the life of a token without expires_in
LONGEST_LIFE = 86400.0  # a longer one is taken for this
LONGEST_CHALLENGE = 8192  # characters
MARGIN = 0.1  # the share of its life by which a token is renewed early

_CHALLENGE = re.compile(r"(?:^|,)\s*(basic|bearer)(?=[\s,]|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'(?<![\w-])([A-Za-z][\w-]{0,63})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Challenge:
    """What a WWW-Authenticate header asks for. url: of the request that it answers."""

    scheme: str
    realm: str
    service: str
    scopes: frozenset[str]
    url: str

    @classmethod
    def parse(cls, header: str, url: str) -> Challenge | None:
        """Prefers bearer; None if neither is offered (RFC 9110, section 11.6.1)."""
        if len(header) > LONGEST_CHALLENGE:
            return None
        # A quoted string may look like another challenge.
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', lambda quoted: "_" * len(quoted[0]), header)
        found = list(_CHALLENGE.finditer(bare))
        ends = [one.start() for one in found[1:]] + [len(header)]
        offered = {one[1].lower(): header[one.end() : end] for one, end in zip(found, ends)}
        scheme = next((one for one in ("bearer", "basic") if one in offered), None)
        if scheme is None:
            return None
        values = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
            for name, quoted, plain in _PARAMETER.findall(offered[scheme])
        }
        realm, service, scope = (values.get(name, "") for name in ("realm", "service", "scope"))
        return cls(scheme, realm, service, frozenset(scope.split()), url)


_Token = Tuple[str, float]  # and until when it holds


class Auth:
    """Headers for the requests to one registry. Thread-safe."""

    def __init__(
        self, registry: str, transport: Transport, keychain: Keychain, timing: Timing
    ) -> None:
        self._registry, self._transport = registry, transport
        self._keychain, self._timing = keychain, timing
        self._challenge: Challenge | None = None
        self._tokens: dict[frozenset[str], _Token] = {}
        self._credentials: Credentials | None = None
        self._asked = False
        self._lock = Lock()

    def headers(self, scopes: frozenset[str]) -> dict[str, str]:
        """Headers for a request for `scopes`; none before the first challenge."""
        with self._lock:
            if self._challenge is None:
                return {}
            if self._challenge.scheme == "basic":
                credentials = self._find()
                return {} if credentials is None else {"Authorization": _basic(credentials)}
            token = self._tokens.get(scopes)
            if token is None or token[1] <= self._timing.monotonic():
                token = self._tokens[scopes] = self._fetch(self._challenge, scopes)
            return {"Authorization": f"Bearer {token[0]}"}

    def refused(self, answer: Answer, scopes: frozenset[str], sent: Mapping[str, str]) -> bool:
        """Take note of a 401; whether the request may pass with new headers."""
        challenge = Challenge.parse(answer.headers.get("www-authenticate", ""), answer.url)
        if challenge is None:
            raise RegistryError(
                f"{self._registry} refuses access, and offers neither basic nor bearer login"
            )
        with self._lock:
            self._challenge = challenge
            if challenge.scheme == "basic":
                return not sent and self._find() is not None
            known = self._tokens.get(scopes)
            if sent and known is not None and sent.get("Authorization") != f"Bearer {known[0]}":
                return True  # another thread has renewed it
            self._tokens.pop(scopes, None)
            return True

    def explain(self) -> str:
        """What to change after a final refusal."""
        credentials = self._credentials
        login = f"docker login {self._registry}"
        if credentials is None:
            ignored = f" ({self._keychain.ignored})" if self._keychain.ignored else ""
            return f"docker's config.json has no credentials for it{ignored}: log in ({login})"
        user = shown.printable(credentials.user)
        token = "registry" if credentials.registry_token else "identity"
        who = f"the user {user!r}" if user else f"the {token} token"
        return (
            f"{who} (from {credentials.source}) is refused: log in again ({login}), "
            "or ask for the permission"
        )

    def secrets(self) -> tuple[str, ...]:
        """What the registry knows, may repeat, and nobody may see."""
        with self._lock:
            secrets = [text for text, _ in self._tokens.values()]
            if (known := self._credentials) is not None:
                secrets += [known.password, known.identity_token or "", _basic(known)[6:]]
                secrets.append(known.registry_token or "")
        return tuple(secrets)

    def _find(self) -> Credentials | None:
        if not self._asked:
            self._credentials = self._keychain.find(self._registry)
            self._asked = True
        return self._credentials

    def _fetch(self, challenge: Challenge, scopes: frozenset[str]) -> _Token:
        credentials = self._find()
        if credentials is not None and credentials.registry_token:
            return credentials.registry_token, math.inf
        if not challenge.realm:
            raise RegistryError(f"{self._registry} asks for a token, but not from which server")
        realm = self._transport.resolve(challenge.url, challenge.realm, self._registry)
        server = f"the token server {urlsplit(realm).netloc} of {self._registry}"
        query = [("service", challenge.service)] if challenge.service else []
        wanted = sorted(scopes or challenge.scopes)
        if credentials is not None and credentials.identity_token:
            form = [
                *query,
                ("scope", " ".join(wanted)),
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", credentials.identity_token),
            ]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._send("POST", realm, headers, urlencode(form).encode())
        else:
            query += [("scope", scope) for scope in wanted]
            headers = {} if credentials is None else {"Authorization": _basic(credentials)}
            address = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            answer = self._send("GET", address, headers, None)
        if answer.status in (400, 401, 403):
            raise Denied(f"{server} refuses ({answer.status}): {self.explain()}")
        if answer.status != 200:
            raise RegistryError(f"{server} answers {answer.status}: try again later")
        return self._token(answer, server)

    def _send(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        server = f"the token server {urlsplit(url).netloc} of {self._registry}"

        def once() -> Answer:
            answer = self._transport.send(method, url, headers, body)
            if (again := STATUSES.get(answer.status)) is None:
                return answer
            raise Broken(f"answers {answer.status}", again, answer.headers.get("retry-after"))

        def gave_up(broken: Broken) -> RegistryError:
            return RegistryError(f"{server} cannot be used: {broken}")

        return Tries(self._timing, server).run(once, gave_up)

    def _token(self, answer: Answer, server: str) -> _Token:
        try:
            document = json.loads(answer.body)
            text = document.get("token") or document.get("access_token")
            life = document.get("expires_in") or SHORTEST_LIFE
        except (ValueError, AttributeError, RecursionError):
            text = life = None
        if (
            not isinstance(text, str)
            or not re.fullmatch(r"[\x21-\x7e]+", text)
            or not isinstance(life, (int, float))
            or life != life  # not a number
        ):
            raise RegistryError(f"{server} answers without a token: is there a proxy in between?")
        life = min(max(life, SHORTEST_LIFE), LONGEST_LIFE)
        return text, self._timing.monotonic() + life * (1 - MARGIN)


class Denied(RegistryError):
    """The token server refuses these scopes."""


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.user}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
