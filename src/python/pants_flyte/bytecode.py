"""Who compiles an image's modules: a CPython of this machine, or none.

Where `bytecode` is unset, what is installed here decides whether an image has bytecode. It does not
decide which: by default that of the base's own release, the same from every machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Mapping, Optional, Tuple

from pants.backend.python.util_rules.pex import VenvPex
from pants.build_graph.address import Address
from pants.engine.fs import EMPTY_DIGEST
from pants.engine.process import ProcessCacheScope
from pants.engine.target import Target
from pants.util.docutil import bin_name

from flyte_pack.image.compiler import Compiler, Found
from flyte_pack.image.environment import Environment
from flyte_pack.oci.model import Platform
from pants_flyte import engine
from pants_flyte.errors import FlyteTargetError
from pants_flyte.image_process import OUT, described, run_steps, step
from pants_flyte.image_target_types import FlyteImageBytecodeField
from pants_flyte.subsystem import FlyteSubsystem, ImageBytecode


@dataclass(frozen=True)
class Compilers:
    """of: for each platform, if it is to be compiled. notes: for a person, what is not as usual."""

    of: Mapping[Platform, Optional[Compiler]]
    notes: Tuple[str, ...] = ()

    @property
    def for_all(self) -> Optional[Compiler]:
        """For what all platforms share."""
        found = set(self.of.values())
        return found.pop() if len(found) == 1 else None


async def compilers_for(
    target: Target,
    base: Address,
    environments: Mapping[Platform, Environment],
    flyte: FlyteSubsystem,
    tool: VenvPex,
) -> Compilers:
    """Raises `FlyteTargetError` if `bytecode` is `True` and this machine has no such CPython."""
    wanted, by = target[FlyteImageBytecodeField].value, flyte.image_bytecode
    if wanted is False or (wanted is None and by is ImageBytecode.OFF):
        return Compilers(dict.fromkeys(environments))
    any_release = by is ImageBytecode.MINOR
    versions = sorted({environment.version for environment in environments.values()})
    searched = [v for v in versions if any_release or v.count(".") == 2]
    places = await engine.interpreter_search_paths() if searched else ()
    results = await run_steps(
        target.address,
        [
            step(
                tool,
                (
                    *("image-compiler", "--python", version, "--out", OUT),
                    *(("--any-release",) if any_release else ()),
                    *("--search-path", os.pathsep.join(places)),
                ),
                EMPTY_DIGEST,
                f"Look for a CPython {version} to compile {target.address} with",
                # What is on this machine, Pants cannot see change.
                cache_scope=ProcessCacheScope.PER_RESTART_ALWAYS,
            )
            for version in searched
        ],
    )
    found = {
        version: Found.from_json(await described(result, Found.NAME)).compiler
        for version, result in zip(searched, results)
    }
    notes = []
    for version in versions:
        compiler = found.get(version)
        if compiler is None:
            lack = _lack(version, base, any_release)
            if wanted:
                raise FlyteTargetError(
                    target.address,
                    f"`bytecode`: {lack}. Or leave `bytecode` unset: the image then has none here.",
                )
            notes.append(f"without bytecode: {lack} (`{bin_name()} help flyte_image`, `bytecode`)")
        elif compiler.release != version:
            notes.append(
                f"compiled by CPython {compiler.release}, and the base's is {version}: a machine "
                "with another release makes another image"
            )
    return Compilers({p: found.get(e.version) for p, e in environments.items()}, tuple(notes))


def _lack(version: str, base: Address, any_release: bool) -> str:
    if not any_release and version.count(".") < 2:
        return (
            f"which release of CPython {version} {base} has is not known: set its `python_version`"
        )
    return (
        f"there is no CPython {version} in `[python-bootstrap].search_path`: install it (Pants' "
        "daemon looks when it starts)"
    ) + ("" if any_release else ', or set `[flyte].image_bytecode` to "minor"')
