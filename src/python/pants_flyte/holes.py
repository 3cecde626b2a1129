"""Values for `{git_commit}`, `{version}` and `{env.NAME}` in labels, tags and variables."""

from __future__ import annotations

from typing import Collection, Dict, Optional

from pants.build_graph.address import Address

from pants_flyte import engine
from pants_flyte.errors import FlyteTargetError


async def hole_values(
    address: Address, wanted: Collection[str], version: Optional[str]
) -> Dict[str, str]:
    """The values of those of `wanted` that have one; `git_commit` must."""
    values = {} if version is None else {"version": version}
    if "git_commit" in wanted:
        found = await engine.checked_out()
        if found.unknown:
            raise FlyteTargetError(address, f"{{git_commit}} has no value: {found.unknown}.")
        values["git_commit"] = found.commit
    variables = sorted(hole[4:] for hole in wanted if hole.startswith("env."))
    if variables:
        environment = await engine.environment_variables(variables)
        values.update((f"env.{name}", value) for name, value in environment.items())
    return values
