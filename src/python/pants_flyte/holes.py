"""Values for `{git_commit}`, `{version}` and `{env.NAME}` in labels, tags and variables."""

from __future__ import annotations

from typing import Collection, Dict, Optional

from pants.base.build_environment import get_buildroot
from pants.build_graph.address import Address
from pants.engine.process import Process, ProcessCacheScope

from pants_flyte import engine
from pants_flyte.errors import FlyteTargetError


async def hole_values(
    address: Address, wanted: Collection[str], version: Optional[str]
) -> Dict[str, str]:
    """The values of those of `wanted` that have one; `git_commit` must."""
    values = {} if version is None else {"version": version}
    if "git_commit" in wanted:
        values["git_commit"] = await _git_commit(address)
    variables = sorted(hole[4:] for hole in wanted if hole.startswith("env."))
    if variables:
        found = await engine.environment_variables(variables)
        values.update((f"env.{name}", value) for name, value in found.items())
    return values


async def _git_commit(address: Address) -> str:
    git = await engine.find_binary("git")
    if git is not None:
        result = await engine.run_process(
            Process(
                (git, "-C", get_buildroot(), "rev-parse", "--verify", "HEAD"),
                env={
                    "HOME": "/",
                    # The checkout may be someone else's, as in a container. Reading the name of a
                    # commit runs nothing of it.
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                },
                description="Find the commit that is checked out",
                cache_scope=ProcessCacheScope.PER_SESSION,
            )
        )
        if result.exit_code == 0:
            return result.stdout.decode().strip()
    raise FlyteTargetError(
        address, "{git_commit} has no value: this is no git checkout with a commit."
    )
