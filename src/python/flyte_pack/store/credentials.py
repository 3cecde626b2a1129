"""Finds the deploying user's credentials, as each cloud's own tools find them.

The environment comes first. A cloud's own library is imported only to read a profile, a log-in or a
key file.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from flyte_pack.store.trouble import Place
from flyte_shim.stores import gcs_emulator, s3_settings

_PROJECTS = "https://cloudresourcemanager."
_GCS_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


def s3_credentials(place: Place, environ: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """A credential provider for obstore, and the config of its region. Raises `StoreError`.

    boto3 reads profiles, SSO and roles. obstore itself finds static keys and the identity of a
    workload or machine; then the provider is None.
    """
    settings = s3_settings(environ)
    if settings.access_key_id or settings.anonymous or not _has_profiles(environ):
        return None, {}
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise place.error(
            "AWS profiles need boto3, which this program has on CPython 3.10 and later: allow one "
            "in [flyte-pack].interpreter_constraints, or put the keys into the environment "
            "(`aws configure export-credentials --format env`)"
        ) from None
    try:
        session = boto3.Session()
        found = session.get_credentials()
        if found is not None:
            found.get_frozen_credentials()
    except (BotoCoreError, ClientError) as error:
        raise place.error(
            f"cannot get AWS credentials ({type(error).__name__}): log in again (`aws sso login`), "
            "or correct AWS_PROFILE or that profile in AWS's configuration files"
        ) from None
    if found is None:
        raise place.error(
            "no credentials were found, in the profile or elsewhere: log in, set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or choose another AWS_PROFILE"
        )
    from obstore.auth.boto3 import Boto3CredentialProvider

    provider = Boto3CredentialProvider(session)
    # obstore itself reads the environment's region.
    named = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    region = None if named else session.region_name
    provider.config = {}
    return provider, {"region": region} if region else {}


def _has_profiles(environ: Mapping[str, str]) -> bool:
    """Whether a profile is chosen, or files may have a default and no workload identity is set."""
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
    """Obstore's config: the log-in of `az`, unless the environment has credentials for obstore."""
    if any(environ.get(name) for name in _AZURE_KEYS) or shutil.which("az") is None:
        return {}
    return {"use_azure_cli": "true"}


def gcs_asks_for_nothing(environ: Mapping[str, str]) -> bool:
    """Whether requests carry no credentials: for an emulator, or if the environment says so."""
    anonymous = environ.get("GOOGLE_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes", "on")
    return anonymous or (gcs_emulator(environ) is not None and not environ.get("GOOGLE_BASE_URL"))


_NO_PROJECT = SimpleNamespace(status=404, headers={}, data=b"{}")


class GoogleCredentials:
    """Google's application default ones: a key file, a log-in, a federated or machine identity."""

    def __init__(self, place: Place) -> None:
        self._place = place
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
                file = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
                # For some kinds of files `default` needs a library that is not installed.
                self._found, _ = (
                    google.auth.load_credentials_from_file(file, scopes=[_GCS_SCOPE], request=send)
                    if file
                    else google.auth.default(scopes=[_GCS_SCOPE], request=send)
                )
            if not self._found.valid:
                self._found.refresh(send)
        except (google.auth.exceptions.GoogleAuthError, ImportError, OSError, ValueError) as error:
            raise self._place.error(
                f"cannot get Google's credentials ({type(error).__name__}): run `gcloud auth "
                "application-default login`, or name a valid key file in "
                "GOOGLE_APPLICATION_CREDENTIALS"
            ) from None
        return f"Bearer {self._found.token}"
