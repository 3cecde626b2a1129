"""What a deployment needs of the build to be registered: its settings, also from a file, and the packages of each resolve."""

from __future__ import annotations

import os
from typing import Dict, List, Optional, Sequence, Tuple

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.backend.python.util_rules.pex import VenvPexProcess
from pants.backend.python.util_rules.pex_from_targets import PexFromTargetsRequest
from pants.build_graph.address import Address
from pants.engine.env_vars import EnvironmentVarsRequest
from pants.engine.fs import Digest, PathGlobs
from pants.util.logging import LogLevel

from flyte_pack.deploy.config import DeployConfig, Settings
from flyte_pack.deploy.control_plane import VARIABLES, is_known
from flyte_pack.deploy.plan import Environment
from pants_flyte.engine import (
    contents,
    environment_variables,
    requirements_pex,
    snapshot,
    targets_at,
    tool_environment,
    venv_pex,
)
from pants_flyte.errors import FlyteTargetError
from pants_flyte.image_process import run_steps
from pants_flyte.layout import literal_glob
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.tool import program_pex

_SETTINGS = "settings.json"


async def file_settings(
    address: Address,
    path: Optional[str],
    origin: str,
    domain: Optional[str],
    flyte_pack: FlytePackSubsystem,
) -> Settings:
    """What the settings file says for a domain. path: from the build root; origin: who names it, for errors.

    Raises `FlyteTargetError`.
    """
    if path is None:
        return Settings()
    found = await snapshot(PathGlobs([literal_glob(path)]))
    if found.files != (path,):
        raise FlyteTargetError(address, f"{origin} names the file {path!r}, and there is none.")
    # The rules have no reader of YAML.
    (result,) = await run_steps(
        address,
        [
            VenvPexProcess(
                await venv_pex(await program_pex(flyte_pack, "deploy_lockfile")),
                argv=("deploy-config", "--file", path, "--output", _SETTINGS),
                input_digest=found.digest,
                output_files=(_SETTINGS,),
                description=f"Read {path}",
                level=LogLevel.DEBUG,
            )
        ],
    )
    data = (await contents(result.output_digest))[0].content
    return DeployConfig.from_json(data, path).for_domain(domain)


async def is_registered(endpoint: Optional[str], flyte_config: Optional[str]) -> bool:
    """Whether the deploy program will register tasks: it looks in the same places."""
    environ = await environment_variables(EnvironmentVarsRequest(VARIABLES))
    return is_known(endpoint, flyte_config, os.getcwd(), environ)


async def environments_of(
    addresses: Sequence[Address], python_setup: PythonSetup
) -> Tuple[List[Environment], List[Digest]]:
    """An interpreter with the packages that the tasks reach, for each of their resolves, and the files it consists of."""
    by_resolve: Dict[str, List[Address]] = {}
    for target in await targets_at(addresses):
        resolve = target[PythonResolveField].normalized_value(python_setup)
        by_resolve.setdefault(resolve, []).append(target.address)
    environments, digests = [], []
    for number, (_, tasks) in enumerate(sorted(by_resolve.items())):
        request = await requirements_pex(
            PexFromTargetsRequest(
                tasks,
                output_filename=f"tasks_{number}.pex",
                internal_only=True,
                include_source_files=False,
                include_local_dists=True,
            )
        )
        tool = await tool_environment(request)
        environments.append(
            Environment(
                python=os.path.normpath(tool.python),
                env=dict(tool.env),
                identity=tool.digest.fingerprint,
                tasks=tuple(sorted(task.spec for task in tasks)),
            )
        )
        digests.append(tool.digest)
    return environments, digests


def of_options(flyte: FlyteSubsystem) -> Settings:
    """The settings that `[flyte]` has: what holds where nothing else says anything."""
    return Settings(
        endpoint=flyte.endpoint,
        insecure=flyte.insecure or None,
        org=flyte.org,
        images=tuple(sorted(flyte.images.items())),
    )
