"""Finds the credentials of whoever deploys, the way each cloud's own tools do.

What is in the environment is obeyed first. The clouds' own libraries are imported only where something of theirs is to
be read: a profile, a log-in, a key file.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Callable

from flyte_pack.store import StoreError
from flyte_pack.store.trouble import Place
from flyte_shim.stores import GCS, S3, Location, s3_settings

_PROJECTS = "https://cloudresourcemanager."
_GCS_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


@dataclass(frozen=True)
class S3Credentials:
    """provider: for obstore; None where obstore finds them itself. config: what comes along with them."""

    provider: Callable[[], Any] | None = None
    config: dict[str, str] = field(default_factory=dict)


def s3_credentials(place: Place, environ: Mapping[str, str]) -> S3Credentials:
    """Static keys, the identity of a workload or machine: obstore's own. A profile, SSO or a role: by boto3.

    Raises `StoreError`.
    """
    settings = s3_settings(environ)
    if settings.access_key_id or settings.anonymous or not _has_profiles(environ):
        return S3Credentials()
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise place.error(
            "AWS profiles are read by boto3, which comes with this program on CPython 3.10 and later: allow one in "
            "[flyte-pack].interpreter_constraints, or put the keys into the environment "
            "(`aws configure export-credentials --format env`)"
        ) from None
    try:
        session = boto3.Session()
        found = session.get_credentials()
        if found is not None:
            found.get_frozen_credentials()
    except (BotoCoreError, ClientError) as error:
        raise place.error(
            f"AWS credentials could not be had ({type(error).__name__}): log in anew (`aws sso login`), or correct "
            "AWS_PROFILE or what it is set to in AWS's configuration files"
        ) from None
    if found is None:
        raise place.error(
            "no credentials were found, in the profile or elsewhere: log in, set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or choose another AWS_PROFILE"
        )
    from obstore.auth.boto3 import Boto3CredentialProvider

    provider = Boto3CredentialProvider(session)
    # The region of the environment, where there is one, is obstore's already.
    named = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    region = None if named else session.region_name
    provider.config = {}
    return S3Credentials(provider, {"region": region} if region else {})


def _has_profiles(environ: Mapping[str, str]) -> bool:
    """Whether somebody chose a profile, or has files with a default one, and no workload's identity says otherwise."""
    if environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE"):
        return True
    workload = (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    if any(environ.get(name) for name in workload):
        return False
    home = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".aws")
    files = {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials"}
    return any(
        os.path.exists(os.path.expanduser(environ.get(name) or os.path.join(home, default)))
        for name, default in files.items()
    )


_AZURE_KEYS = (
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"),
    *("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN"),
    *("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"),
    *("AZURE_USE_AZURE_CLI", "AZURE_SKIP_SIGNATURE", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"),
)


def azure_config(environ: Mapping[str, str]) -> dict[str, str]:
    """For obstore, which reads Azure's variables itself: without any, whoever is logged in with `az`."""
    if any(environ.get(name) for name in _AZURE_KEYS) or shutil.which("az") is None:
        return {}
    return {"use_azure_cli": "true"}


def endpoint_of(location: Location, environ: Mapping[str, str]) -> str | None:
    """The URL of the server that the environment names instead of the cloud's own. Raises `UsageError`."""
    if location.kind == S3:
        return s3_settings(environ).endpoint
    if location.kind == GCS:
        return environ.get("GOOGLE_BASE_URL") or _emulator(environ)
    return environ.get("AZURE_STORAGE_ENDPOINT") or environ.get("AZURE_ENDPOINT")


def gcs_asks_for_nothing(environ: Mapping[str, str]) -> bool:
    """Whether requests go out without credentials: to an emulator, or because the environment says so."""
    anonymous = environ.get("GOOGLE_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes", "on")
    return anonymous or (_emulator(environ) is not None and not environ.get("GOOGLE_BASE_URL"))


def _emulator(environ: Mapping[str, str]) -> str | None:
    host = environ.get("STORAGE_EMULATOR_HOST")
    return f"http://{host}" if host and "://" not in host else host or None


class _Nothing:
    """An answer of Google's that nobody asked for."""

    status = 404
    headers: Mapping[str, str] = {}
    data = b"{}"


class GoogleCredentials:
    """Google's "application default credentials": a key file, a log-in, a federated identity, or the machine's."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._found: Any = None

    def header(self) -> str:
        """For `Authorization`; asked for anew when the last one runs out. Raises `StoreError`."""
        with warnings.catch_warnings():
            # That it is the last one for an old CPython is nothing that whoever deploys can change.
            warnings.simplefilter("ignore", FutureWarning)
            import google.auth
            import google.auth.exceptions
            import google.auth.transport.urllib3
            import urllib3

        request = google.auth.transport.urllib3.Request(
            urllib3.PoolManager(timeout=urllib3.Timeout(15, 30))
        )

        def send(url: str, *args: Any, **kwargs: Any) -> Any:
            # Of federated identities it wants to know the project's number, too, which is of no use to us.
            return _Nothing() if url.startswith(_PROJECTS) else request(url, *args, **kwargs)

        try:
            if self._found is None:
                file = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
                # By `default` some kinds of files are read with the help of a library that we have no use for.
                self._found, _ = (
                    google.auth.load_credentials_from_file(file, scopes=[_GCS_SCOPE], request=send)
                    if file
                    else google.auth.default(scopes=[_GCS_SCOPE], request=send)
                )
            if not self._found.valid:
                self._found.refresh(send)
        except (google.auth.exceptions.GoogleAuthError, ImportError, OSError, ValueError) as error:
            raise self._unusable(error) from None
        return f"Bearer {self._found.token}"

    def _unusable(self, error: Exception) -> StoreError:
        return self._place.error(
            f"no credentials of Google's could be had ({type(error).__name__}): run `gcloud auth application-default "
            "login`, or name a key file that is good in GOOGLE_APPLICATION_CREDENTIALS"
        )
