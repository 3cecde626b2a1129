"""The environment variables of the caller that programs which reach stores and registries get.

Pants prints the environment of a process with `-ldebug`, writes it to its log files, and gives that
of a sandboxed process to caches and remote workers. So no secret is in a sandboxed process, and
the values of an interactive one are `Unshown`.
"""

from __future__ import annotations

from typing import Mapping

from pants.util.frozendict import FrozenDict

from flyte_pack.signing import VARIABLES as SIGNING_VARIABLES
from flyte_shim.store_settings import VARIABLES as STORE_VARIABLES
from pants_flyte import engine
from pants_flyte.subsystem import FlyteSubsystem

# None of them holds a secret, but that a proxy's URL may have a password.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_PLAIN = (
    # The user and the machine.
    "HOME",
    "LANG",
    "LC_ALL",
    "PATH",
    "TERM",
    "TMPDIR",
    "USER",
    "XDG_CACHE_HOME",
    # Proxies and certificates.
    *_PROXIES,
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    # Docker, and the credential helpers of registries.
    "DOCKER_AUTH_CONFIG",
    "DOCKER_CONFIG",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "PASSWORD_STORE_DIR",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
)
_NAMES = (
    *_PLAIN,
    # Where stores are, and their credentials; flyte_shim reads them, or the clouds' own tools do.
    *STORE_VARIABLES,
    "AZURE_CONFIG_DIR",
    "CLOUDSDK_CONFIG",
    "GOOGLE_CLOUD_PROJECT",
    "IDENTITY_HEADER",
    # Who signs.
    *SIGNING_VARIABLES,
    # Where Flyte is, and how to log in there.
    "UCTL_CONFIG",
    "FLYTECTL_CONFIG",
    "FLYTE_API_KEY",
    "FLYTE_ADMIN_ENDPOINT",
    "FLYTE_ADMIN_AUTHTYPE",
    "FLYTE_ADMIN_CACERTFILEPATH",
    "FLYTE_ADMIN_CLIENTID",
    "FLYTE_ADMIN_CLIENTSECRETENVVAR",
    "FLYTE_ADMIN_CLIENTSECRETLOCATION",
    "FLYTE_ADMIN_COMMAND",
    "FLYTE_AUTH_COMMAND",
    "FLYTE_AUTH_PROXY_COMMAND",
    "FLYTE_ADMIN_DISABLEKEYRING",
    "FLYTE_ADMIN_HTTPPROXYURL",
    "FLYTE_ADMIN_INSECURE",
    "FLYTE_ADMIN_INSECURESKIPVERIFY",
    "FLYTE_ADMIN_SCOPES",
)


class Unshown(str):
    """A value that Pants passes on as it is, and that no log of it shows.

    `experimental-deploy` and `publish` print the whole process: `Execute InteractiveProcess(...)`.
    """

    def __repr__(self) -> str:
        return "'...'"


async def callers_environment(flyte: FlyteSubsystem) -> Mapping[str, str]:
    """What a program gets that deploys or pushes; `[flyte].deploy_env_vars` adds to it.

    Only for an interactive process.
    """
    found = await engine.environment_variables((*_NAMES, *flyte.deploy_env_vars))
    return FrozenDict({name: Unshown(value) for name, value in found.items()})


async def plain_environment() -> Mapping[str, str]:
    """What a sandboxed program gets that reads images: no credentials, no proxy with a user."""
    found = await engine.environment_variables(_PLAIN)
    return FrozenDict(
        {name: value for name, value in found.items() if name not in _PROXIES or "@" not in value}
    )
