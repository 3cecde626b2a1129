"""The program of this backend: `flyte_pack` with `flyte_shim`, from the installed package's own files."""

from __future__ import annotations

import importlib
import importlib.resources
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence, Tuple

from pants.backend.python.target_types import EntryPoint
from pants.backend.python.util_rules.pex import PexRequest
from pants.core.goals.run import RunRequest
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import CreateDigest, Digest, FileContent, GlobMatchErrorBehavior, PathGlobs
from pants.engine.process import InteractiveProcess
from pants.util.frozendict import FrozenDict

from pants_flyte.engine import (
    contents_matching,
    create_digest,
    environment_variables,
    merge_digests,
    tool_environment,
)
from pants_flyte.globs import literal_glob
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem

_PACKAGES = ("flyte_pack", "flyte_shim")
_RESOURCE = "resource://"
_LOCK = "flyte_pack.lock"
_PREPARE = {
    "lockfile": "Prepare the packer",
    "image_lockfile": "Prepare what builds images",
    "deploy_lockfile": "Prepare what deploys and runs images",
}
_ENVIRONMENT = (
    *("HOME", "LANG", "LC_ALL", "PATH", "TERM", "TMPDIR", "USER", "XDG_CACHE_HOME"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("DOCKER_CONFIG", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    # What stores, and the credential helpers of registries, go by.
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
    *(
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_DEFAULT_PROFILE",
        "AWS_CONFIG_FILE",
        "AWS_CA_BUNDLE",
    ),
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    *("AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    *("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_REQUEST_PAYER", "AWS_SKIP_SIGNATURE"),
    *("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_EC2_METADATA_DISABLED", "AWS_TOKEN"),
    *("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CONFIG_DIR", "AZURE_ENDPOINT"),
    *("AZURE_FEDERATED_TOKEN_FILE", "AZURE_SKIP_SIGNATURE", "AZURE_TENANT_ID"),
    *("AZURE_USE_AZURE_CLI", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
    *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_CLIENT_ID", "AZURE_STORAGE_CLIENT_SECRET"),
    *("AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    *("AZURE_STORAGE_TENANT_ID", "AZURE_STORAGE_TOKEN", "AZURE_STORAGE_USE_EMULATOR"),
    *("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET"),
    *("CLOUDSDK_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_BASE_URL"),
    *("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SKIP_SIGNATURE"),
    *("GCE_METADATA_HOST", "STORAGE_EMULATOR_HOST"),
    *("FLYTE_AWS_ENDPOINT", "FLYTE_AWS_ACCESS_KEY_ID", "FLYTE_AWS_SECRET_ACCESS_KEY"),
    *("FLYTE_AWS_S3_ADDRESSING_STYLE", "GOOGLE_CLOUD_PROJECT"),
    # Where Flyte is, and how to log in there.
    *("UCTL_CONFIG", "FLYTECTL_CONFIG", "FLYTE_API_KEY", "FLYTE_ADMIN_ENDPOINT"),
    *("FLYTE_ADMIN_AUTHTYPE", "FLYTE_ADMIN_CACERTFILEPATH", "FLYTE_ADMIN_CLIENTID"),
    *("FLYTE_ADMIN_CLIENTSECRETENVVAR", "FLYTE_ADMIN_CLIENTSECRETLOCATION"),
    *("FLYTE_ADMIN_COMMAND", "FLYTE_AUTH_COMMAND", "FLYTE_AUTH_PROXY_COMMAND"),
    *("FLYTE_ADMIN_DISABLEKEYRING", "FLYTE_ADMIN_HTTPPROXYURL", "FLYTE_ADMIN_INSECURE"),
    *("FLYTE_ADMIN_INSECURESKIPVERIFY", "FLYTE_ADMIN_SCOPES"),
    *("DBUS_SESSION_BUS_ADDRESS", "GNUPGHOME"),
    *("PASSWORD_STORE_DIR", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"),
)


async def program_sources() -> Digest:
    """The modules of the program, wherever this backend is installed (a checkout, a wheel)."""
    files = []
    for package in _PACKAGES:
        top = Path(str(importlib.import_module(package).__file__)).parent
        for path in sorted(top.rglob("*.py")):
            name = os.path.join(package, path.relative_to(top).as_posix())
            files.append(FileContent(name, path.read_bytes()))
    return await create_digest(CreateDigest(files))


async def _lock_file(flyte_pack: FlytePackSubsystem, needs: str) -> bytes:
    """The lock file that the option `needs` names."""
    option = f"[{flyte_pack.options_scope}].{needs}"
    place: str = getattr(flyte_pack, needs)
    if place.startswith(_RESOURCE):
        package, _, name = place[len(_RESOURCE) :].partition("/")
        try:
            return importlib.resources.files(package).joinpath(name).read_bytes()
        except (ImportError, OSError, ValueError):
            raise ValueError(
                f"`{option}` is {place}, and no Python package of this name has this file: give a "
                "path from the build root, or leave the option unset."
            ) from None
    found = await contents_matching(
        PathGlobs(
            [literal_glob(place)],
            glob_match_error_behavior=GlobMatchErrorBehavior.error,
            description_of_origin=f"the option `{option}`",
        )
    )
    return found[0].content


async def program_pex(flyte_pack: FlytePackSubsystem, needs: str = "lockfile") -> PexRequest:
    """The program with what it needs from others, ready to be asked for in a sandbox or the workspace.

    The lock file goes to PEX as it is. Pants' own loader of lock files wants other things beside them in each
    version, and is about to refuse requirements files.

    needs: the option of `[flyte-pack]` that names the lock file: packing a bundle installs less than deploying it.
    """
    # Pants puts a head of `//` lines on the lock files that it generates; no format has such lines.
    lines = (await _lock_file(flyte_pack, needs)).splitlines(keepends=True)
    lock = b"".join(line for line in lines if not line.lstrip().startswith(b"//"))
    # PEX knows two formats: its own, which is JSON, and requirements files.
    form = ("--lock",) if lock.lstrip().startswith(b"{") else ("--no-transitive", "--requirement")
    return PexRequest(
        output_filename="flyte_pack.pex",
        internal_only=True,
        additional_args=(*form, _LOCK),
        additional_inputs=await create_digest(CreateDigest([FileContent(_LOCK, lock)])),
        interpreter_constraints=flyte_pack.constraints(needs),
        main=EntryPoint("flyte_pack.__main__"),
        sources=await program_sources(),
        description=_PREPARE[needs],
    )


@dataclass(frozen=True)
class Program:
    """The program, ready to start in the build root; what the user typed goes behind `args`. In `args` and in the names of
    files, `{chroot}` is where `digest` is."""

    digest: Digest
    args: Tuple[str, ...]
    env: FrozenDict[str, str]
    append_only_caches: FrozenDict[str, str]

    def run_request(self) -> RunRequest:
        return RunRequest(
            digest=self.digest,
            args=self.args,
            extra_env=self.env,
            append_only_caches=self.append_only_caches,
        )

    def interactive_process(self, env: Mapping[str, str], *args: str) -> InteractiveProcess:
        return InteractiveProcess(
            argv=(*self.args, *args),
            env={**env, **self.env},
            input_digest=self.digest,
            append_only_caches=self.append_only_caches,
            run_in_workspace=True,
        )


async def interactive_program(
    flyte_pack: FlytePackSubsystem, command: Sequence[str], files: Sequence[Digest]
) -> Program:
    """`command` of the program that deploys, pushes and runs images, with these files at hand."""
    environment = await tool_environment(await program_pex(flyte_pack, "deploy_lockfile"))
    return Program(
        digest=await merge_digests([environment.digest, *files]),
        args=(f"{{chroot}}/{environment.argv0}", *command),
        env=environment.env,
        append_only_caches=environment.append_only_caches,
    )


def insecure_arguments(flyte: FlyteSubsystem) -> Tuple[str, ...]:
    """`[flyte].insecure_registries`, for whatever speaks to registries."""
    return tuple(part for host in flyte.insecure_registries for part in ("--insecure", host))


async def callers_environment(flyte: FlyteSubsystem) -> EnvironmentVars:
    """What a program that reaches stores and registries wants of the caller's environment; more by option."""
    names = (*_ENVIRONMENT, *flyte.deploy_env_vars)
    return await environment_variables(EnvironmentVarsRequest(names))
