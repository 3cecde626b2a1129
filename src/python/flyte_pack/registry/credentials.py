"""Finds credentials as docker does: DOCKER_AUTH_CONFIG, credential helpers, `config.json`.

The rules are those of docker/cli: `cli/config/configfile`, `cli/config/credentials`,
`cli/config/memorystore`. It reads the names of fields without regard to case, as Go's JSON does.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyte_pack import children
from flyte_pack.oci.reference import DOCKER_HUB
from flyte_pack.registry import RegistryError
from flyte_shim import shown
from flyte_shim.words import check_word

HUB_KEY = "https://index.docker.io/v1/"  # docker's key of Docker Hub
HELPER_SECONDS = 60.0  # some ask a person, or a cloud
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN_USER = "<token>"  # noqa: S105  # of a helper: the secret is an identity token
_HUB_NAMES = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_NOT_FOUND = "credentials not found in native keychain"  # what every helper says (its protocol)
_IN_ENVIRONMENT = "DOCKER_AUTH_CONFIG"
_MOST = 4 << 20  # bytes of a configuration, and of a helper's answer


@dataclass(frozen=True)
class Credentials:
    """source: for messages. identity_token: replaces user and password, if set.

    registry_token: a bearer token that is sent as it is, and replaces all others.
    """

    user: str
    password: str = field(repr=False)
    source: str
    identity_token: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raises `RegistryError` for what cannot be sent (RFC 7617, 2)."""
        check_word(self.user, f"the user name from {self.source}", error=RegistryError)
        for text in (self.password, self.identity_token or "", self.registry_token or ""):
            check_word(text, f"the secret from {self.source}", lines=True, error=RegistryError)


class Keychain:
    """Docker's configuration of registries, read on demand."""

    def __init__(
        self, environ: Mapping[str, str] = os.environ, helper_seconds: float = HELPER_SECONDS
    ) -> None:
        directory = environ.get("DOCKER_CONFIG") or os.path.join(
            environ.get("HOME") or os.path.expanduser("~"), ".docker"
        )
        self._path = os.path.join(directory, "config.json")
        self._variable = environ.get(_IN_ENVIRONMENT) or ""
        self._helper_seconds = helper_seconds
        self.ignored = ""  # for messages: what docker ignores too

    def find(self, registry: str) -> Credentials | None:
        """The credentials for `registry`, a host, perhaps with a port; None where it has none."""
        key = HUB_KEY if registry in _HUB_NAMES else registry
        found = self._from_variable().get(key)
        if found is not None:
            return found
        config = self._config()
        helpers = self._object(config, "credHelpers")
        helper = helpers[key] if key in helpers else _field(config, "credsStore")
        entry = self._stored(self._object(config, "auths"), key)
        if helper:
            # What `auths` has for a registry with a helper is an old address of a person's.
            found = self._ask(helper, key)
        elif entry is not None:
            found = self._entry(entry, registry)
        token = _field(entry, "registrytoken") if isinstance(entry, dict) else None
        if token and isinstance(token, str):
            return Credentials("", "", self._path, registry_token=token)
        return found

    def _from_variable(self) -> dict[str, Credentials]:
        """By key. Docker warns of a variable that is not as it takes it, and goes on."""
        if not self._variable:
            return {}
        try:
            auths = _only(json.loads(self._variable), "auths") or {}
            pairs = {key: _decoded(_only(entry, "auth")) for key, entry in auths.items()}
        except (ValueError, AttributeError, TypeError, RecursionError):
            self.ignored = (
                f"{_IN_ENVIRONMENT} is ignored, as docker does: it is not "
                '{"auths": {"REGISTRY": {"auth": "..."}}}'
            )
            return {}
        return {key: Credentials(*pair, _IN_ENVIRONMENT) for key, pair in pairs.items()}

    def _stored(self, auths: dict[str, Any], key: str) -> object:
        """The entry of `auths` for it. Docker takes any one of its host; we, the first."""
        if key in auths:
            return auths[key]
        return next((auths[name] for name in sorted(auths) if _host(name) == key), None)

    def _config(self) -> dict[str, Any]:
        try:
            with open(self._path, "rb") as file:
                config = _first_value(file.read(_MOST))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise RegistryError(f"{self._path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            # Python's own message would quote the file.
            raise RegistryError(
                f"{self._path} is not a JSON document: mend it, or remove it and log in again "
                "(docker login)"
            ) from None
        if config is None:
            return {}
        if not isinstance(config, dict):
            raise RegistryError(f"{self._path} is not a JSON object: mend it, or log in again")
        return config

    def _object(self, config: dict[str, Any], key: str) -> dict[str, Any]:
        value = _field(config, key) or {}
        if not isinstance(value, dict):
            raise RegistryError(f"{self._path}: {key!r} is not a JSON object: mend it")
        return value

    def _entry(self, entry: object, registry: str) -> Credentials | None:
        bad = RegistryError(
            f"{self._path}: the entry of {registry} is invalid: log in again "
            f"(docker login {registry})"
        )
        if not isinstance(entry, dict):
            raise bad
        names = ("auth", "username", "password", "identitytoken")
        auth, user, password, token = (_field(entry, name) or "" for name in names)
        if not all(isinstance(one, str) for one in (auth, user, password, token)):
            raise bad
        if auth:
            try:
                user, password = _decoded(auth)
            except ValueError:
                raise bad from None
        if not (user or password or token):
            return None  # `docker login` leaves it where a helper has the secret
        return Credentials(user, password, self._path, token or None)

    def _ask(self, name: object, key: str) -> Credentials | None:
        """Ask a helper for `key`, by the protocol of docker-credential-helpers."""
        if not isinstance(name, str) or not _HELPER.fullmatch(name):
            raise RegistryError(
                f"{self._path}: {name!a:.80} is not the name of a credential helper"
            )
        program = f"docker-credential-{name}"
        where = f"{program}, which {self._path} names for {key},"
        try:
            done = children.run(
                [program, "get"],
                input=key.encode(),
                # A helper in Python has another environment than ours.
                env={k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PEX_"))},
                timeout=self._helper_seconds,
            )
        except FileNotFoundError:
            raise RegistryError(
                f"{where} is not on PATH: install it, or remove it from that file"
            ) from None
        except subprocess.TimeoutExpired:
            raise RegistryError(
                f"{where} gave no answer within {self._helper_seconds:g} s: "
                f"check that `{program} list` works"
            ) from None
        except OSError as error:
            raise RegistryError(f"{where} cannot be started: {error.strerror}") from None
        if done.returncode:
            said = (done.stdout.strip() or done.stderr.strip()).decode(errors="replace")
            if said == _NOT_FOUND:
                return None
            # The protocol has a message here; an answer in JSON might hold the secret.
            said = "" if "{" in said else f": {shown.line(said, longest=200)}"
            raise RegistryError(f"{where} failed with exit code {done.returncode}{said}")
        try:
            answer = _first_value(done.stdout[:_MOST])
        except (ValueError, RecursionError):
            answer = None
        user, secret = (_field(answer, name) or "" for name in ("Username", "Secret"))
        if not (isinstance(answer, dict) and isinstance(user, str) and isinstance(secret, str)):
            raise RegistryError(f"{where} gave an answer without Username and Secret")
        if user == _TOKEN_USER:
            return Credentials("", "", program, secret) if secret else None
        return Credentials(user, secret, program) if user or secret else None


def _first_value(data: bytes) -> Any:
    """The first JSON value, which is all that docker reads; None where there is nothing."""
    text = data.decode("utf-8-sig").strip()
    return json.JSONDecoder().raw_decode(text)[0] if text else None


def _field(document: object, name: str) -> Any:
    """A field of a JSON object; of several that differ in case, the last, as Go takes them."""
    if not isinstance(document, dict):
        return None
    found = [value for key, value in document.items() if key.lower() == name.lower()]
    return found[-1] if found else None


def _only(document: object, name: str) -> Any:
    """The field of a JSON object that has no other. Raises `ValueError`."""
    if not isinstance(document, dict) or {key.lower() for key in document} - {name}:
        raise ValueError
    return _field(document, name)


def _decoded(auth: object) -> tuple[str, str]:
    """User and password of an `auth`. Raises `ValueError`."""
    if not isinstance(auth, str) or not auth:
        raise ValueError
    pair = base64.b64decode(auth.replace("\r", "").replace("\n", ""), validate=True).decode()
    user, colon, password = pair.partition(":")
    if not colon or not user:
        raise ValueError
    return user, password.strip("\0")


def _host(key: str) -> str:
    """The registry of a key of `auths`, which may be a URL such as https://host/v1/."""
    _, scheme, rest = key.rpartition("://")
    host = rest.partition("/")[0]
    return host.rpartition("@")[2] if scheme else host
