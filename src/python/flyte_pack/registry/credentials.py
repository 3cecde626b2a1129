"""Finds credentials where docker keeps them: `config.json`, and credential helpers."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyte_pack.oci.reference import DOCKER_HUB
from flyte_pack.registry import RegistryError
from flyte_shim import shown
from flyte_shim.words import check_word

HUB_KEY = "https://index.docker.io/v1/"  # docker's key of Docker Hub
HELPER_SECONDS = 60.0  # some ask a person, or a cloud
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN_USER = "<token>"  # noqa: S105  # of a helper: the secret is an identity token


@dataclass(frozen=True)
class Credentials:
    """source: for messages. identity_token: replaces user and password, if set."""

    user: str
    password: str = field(repr=False)
    source: str
    identity_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raises `RegistryError` for what cannot be sent (RFC 7617, 2)."""
        check_word(self.user, f"the user name from {self.source}", error=RegistryError)
        for text in (self.password, self.identity_token or ""):
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
        self._helper_seconds = helper_seconds

    def find(self, registry: str) -> Credentials | None:
        """The credentials for `registry`, a host, perhaps with a port."""
        config = self._config()
        key = HUB_KEY if registry == DOCKER_HUB else registry
        helpers = self._object(config, "credHelpers")
        helper = helpers.get(registry) or helpers.get(key) or config.get("credsStore")
        if helper and (found := self._ask(helper, key)) is not None:
            return found
        auths = self._object(config, "auths")
        entry = auths.get(key)
        if entry is None:
            entry = next((auths[name] for name in auths if _host(name) == _host(key)), None)
        return None if entry is None else self._entry(entry, registry)

    def _config(self) -> dict[str, Any]:
        try:
            with open(self._path, "rb") as file:
                config = json.load(file)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RegistryError(f"{self._path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            # Python's own message would quote the file.
            raise RegistryError(
                f"{self._path} is not a JSON document: mend it, or remove it and log in again "
                "(docker login)"
            ) from None
        if not isinstance(config, dict):
            raise RegistryError(f"{self._path} is not a JSON object: mend it, or log in again")
        return config

    def _object(self, config: dict[str, Any], key: str) -> dict[str, Any]:
        value = config.get(key) or {}
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
        auth, user = entry.get("auth") or "", entry.get("username") or ""
        password, token = entry.get("password") or "", entry.get("identitytoken") or ""
        if not all(isinstance(one, str) for one in (auth, user, password, token)):
            raise bad
        if auth:
            try:
                pair = base64.b64decode(auth, validate=True).decode()
            except (binascii.Error, ValueError):
                raise bad from None
            user, colon, password = pair.partition(":")
            if not colon:
                raise bad
            password = password.rstrip("\0")
        if not user and not token:
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
            done = subprocess.run(
                [program, "get"],
                input=key.encode(),
                capture_output=True,
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
            if "credentials not found" in said:
                return None
            # The protocol has a message here; an answer in JSON might hold the secret.
            said = "" if "{" in said else f": {shown.line(said, longest=200)}"
            raise RegistryError(f"{where} failed with exit code {done.returncode}{said}")
        try:
            answer = json.loads(done.stdout)
            user, secret = answer["Username"], answer["Secret"]
        except (ValueError, KeyError, TypeError, RecursionError):
            user = secret = None
        if not isinstance(user, str) or not isinstance(secret, str):
            raise RegistryError(f"{where} gave an answer without Username and Secret")
        if user == _TOKEN_USER:
            return Credentials("", "", program, secret)
        return Credentials(user, secret, program)


def _host(key: str) -> str:
    """The registry of a key of `auths`, which may be a URL such as https://host/v1/."""
    host, _, path = (key.partition("://")[2] if "://" in key else key).partition("/")
    return host if path.strip("/") in ("", "v1", "v2") else key
