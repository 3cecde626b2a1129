"""Finds the deploying user's credentials, as each cloud's own tools find them.

`flyte_shim/store_settings.py` has the order. The environment comes first. A cloud's own library is
imported only to read a profile, a log-in or a key file.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

from flyte_pack.http.retry import Broken
from flyte_pack.store import StoreError
from flyte_pack.store.trouble import CREDENTIALS, Place
from flyte_shim.aws_credentials import find_role
from flyte_shim.errors import ShimError, SourceUnavailable
from flyte_shim.obstore_client import Plan
from flyte_shim.source import Patience
from flyte_shim.store_settings import DEFAULTS, KEY_FILE, KEY_JSON, PROFILE, S3, VARIABLES, Settings
from flyte_shim.stores import S3Settings
from flyte_shim.web import Web

_PROJECTS = "https://cloudresourcemanager."
_GCS_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_ROLE_SECONDS, _ROLE_DEADLINE = 10.0, 60.0
_RENEWED = timedelta(minutes=15)  # of a role that does not say when it ends


class S3Credentials:
    """Who signs the requests, where the environment has no key: a profile, or a role.

    `failed` is why credentials could not be renewed, the last time that they ended.
    """

    def __init__(self, place: Place, settings: S3Settings, environ: Mapping[str, str]) -> None:
        self._place, self._settings, self._environ = place, settings, environ
        self._provider: Any = None
        self.failed: StoreError | Broken | None = None

    def find(self) -> tuple[Any, str | None]:
        """A credential provider for obstore or None, and the profile's region if it counts.

        Raises `StoreError` and `Broken`.
        """
        settings = self._settings
        if settings.access_key_id or settings.anonymous:
            return None, None
        if _has_profiles(settings, self._environ):
            self._provider = self._provider or self._profile()
            region = None if settings.named_region else self._provider.region
            return self._provider, region
        if self._provider is None:
            self._role()
            self._provider = self._role
        return self._provider, None

    def _role(self) -> dict[str, Any]:
        try:
            patience = Patience(timeout=_ROLE_SECONDS, deadline=_ROLE_DEADLINE)
            web = Web(patience, self._environ, self._settings.authorities())
            found = find_role(self._settings, web)
            if found is None:
                raise self._place.error(
                    f"no credentials were found: {CREDENTIALS[S3]}{self._settings.table.halves()}"
                )
        except SourceUnavailable as error:
            self.failed = Broken(str(error))
            raise self.failed from None
        except StoreError as error:
            self.failed = error
            raise
        except ShimError as error:
            self.failed = self._place.error(str(error))
            raise self.failed from None
        self.failed = None
        return {
            "access_key_id": found.access_key_id,
            "secret_access_key": found.secret_access_key,
            "token": found.session_token,
            "expires_at": _moment(found.expiration),
        }

    def _profile(self) -> Any:
        """Raises `StoreError`."""
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise self._place.error(
                "AWS profiles need boto3, which this program has on CPython 3.10 and later: allow "
                "one in [flyte-pack].interpreter_constraints, or put the keys into the environment "
                "(`aws configure export-credentials --format env`)"
            ) from None
        _forget_blank()
        settings = self._settings
        named = next(iter(settings.parts.values())) if settings.identity == PROFILE else None
        try:
            session = boto3.Session(profile_name=named)
            found = session.get_credentials()
            if found is not None:
                found.get_frozen_credentials()
        except (BotoCoreError, ClientError, ValueError) as error:
            raise self._place.error(
                f"cannot get AWS credentials ({type(error).__name__}): log in again (`aws sso "
                "login`), or correct AWS_PROFILE or that profile in AWS's configuration files"
            ) from None
        if found is None:
            raise self._place.error(
                "no credentials were found, in the profile or elsewhere: log in, set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or choose another AWS_PROFILE"
            )
        from obstore.auth.boto3 import Boto3CredentialProvider

        provider: Any = Boto3CredentialProvider(session)
        provider.region = session.region_name
        provider.config = {}
        return provider


def _has_profiles(settings: S3Settings, environ: Mapping[str, str]) -> bool:
    """Whether a profile is chosen, or files may have a default and no workload identity is set."""
    if settings.identity:
        return settings.identity == PROFILE
    home = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".aws")
    files = {"config file": "config", "shared file": "credentials"}
    return any(
        os.path.exists(os.path.expanduser(settings.table.get(name) or os.path.join(home, default)))
        for name, default in files.items()
    )


def _moment(text: str | None) -> datetime:
    """When credentials end (ISO 8601, in UTC)."""
    try:
        end = datetime.strptime((text or "")[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return datetime.now(timezone.utc) + _RENEWED
    return end.replace(tzinfo=timezone.utc)


def _forget_blank() -> None:
    """Blank variables are as good as not set; the clouds' libraries do not all think so."""
    for name in (*VARIABLES, "CLOUDSDK_CONFIG", "GOOGLE_CLOUD_PROJECT", "AZURE_CONFIG_DIR"):
        if not os.environ.get(name, "-").strip():
            del os.environ[name]


def may_use_az(plan: Plan, environ: Mapping[str, str]) -> bool:
    """Whether the log-in of `az` counts: no identity is set, and it is there."""
    settings = plan.settings
    elsewhere = settings.identity()[0] or settings.get("identity endpoint")
    forbidden = environ.get("AZURE_USE_AZURE_CLI", "").strip()
    return not elsewhere and not forbidden and shutil.which("az") is not None


_NO_PROJECT = SimpleNamespace(status=404, headers={}, data=b"{}")


class GoogleCredentials:
    """Google's application default ones: a key file, a log-in, a federated or machine identity."""

    def __init__(self, place: Place, settings: Settings) -> None:
        """Raises UsageError."""
        self._place = place
        self._kind, parts = settings.identity()
        self._given = next(iter(parts.values()), "")
        self._variables = settings.identity_variables()
        self._found: Any = None

    def header(self) -> str:
        """The value of `Authorization`, renewed when it expires. Raises `StoreError`."""
        with warnings.catch_warnings():
            # The user cannot act on google-auth's warning about an old CPython.
            warnings.simplefilter("ignore", FutureWarning)
            import google.auth
            import google.auth.exceptions
            import google.auth.transport.urllib3
            import urllib3

        request = google.auth.transport.urllib3.Request(
            urllib3.PoolManager(timeout=urllib3.Timeout(15, 30))
        )

        def send(url: str, *args: Any, **kwargs: Any) -> Any:
            # google-auth also asks for the project of a federated identity, which is not needed.
            return _NO_PROJECT if url.startswith(_PROJECTS) else request(url, *args, **kwargs)

        try:
            if self._found is None:
                # For some kinds of files `default` needs a library that is not installed.
                self._found = self._load(google.auth, scopes=[_GCS_SCOPE], request=send)
            if not self._found.valid:
                self._found.refresh(send)
        except (google.auth.exceptions.GoogleAuthError, ImportError, OSError, ValueError) as error:
            raise self._place.error(
                f"cannot get Google's credentials ({type(error).__name__}): "
                + (f"check {self._variables}" if self._variables else CREDENTIALS["gs"])
            ) from None
        token = self._found.token
        if not (isinstance(token, str) and token.isascii() and token.isprintable()):
            raise self._place.error("Google's service gives no valid token: check the credentials")
        return f"Bearer {token}"

    def _load(self, auth: Any, **more: Any) -> Any:
        if self._kind == KEY_JSON:
            return auth.load_credentials_from_dict(json.loads(self._given), **more)[0]
        if self._kind in (KEY_FILE, DEFAULTS):
            return auth.load_credentials_from_file(self._given, **more)[0]
        _forget_blank()
        return auth.default(**more)[0]
