"""The program of this backend: `flyte_pack` with `flyte_shim`, from the installed package's own files."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from pants.backend.python.target_types import EntryPoint
from pants.backend.python.util_rules.pex import PexRequest
from pants.backend.python.util_rules.pex_requirements import EntireLockfile, Lockfile
from pants.engine.fs import CreateDigest, Digest, FileContent

from pants_flyte.engine import create_digest
from pants_flyte.subsystem import FlytePackSubsystem

_PACKAGES = ("flyte_pack", "flyte_shim")


async def program_sources() -> Digest:
    """The modules of the program, wherever this backend is installed (a checkout, a wheel)."""
    files = []
    for package in _PACKAGES:
        top = Path(str(importlib.import_module(package).__file__)).parent
        for path in sorted(top.rglob("*.py")):
            name = os.path.join(package, path.relative_to(top).as_posix())
            files.append(FileContent(name, path.read_bytes()))
    return await create_digest(CreateDigest(files))


async def program_pex(flyte_pack: FlytePackSubsystem) -> PexRequest:
    """The program with what it needs from others, ready to be asked for in a sandbox or the workspace."""
    return PexRequest(
        output_filename="flyte_pack.pex",
        internal_only=True,
        requirements=EntireLockfile(
            Lockfile(
                url=flyte_pack.lockfile,
                url_description_of_origin="the option `[flyte-pack].lockfile`",
                resolve_name=flyte_pack.options_scope,
            )
        ),
        interpreter_constraints=flyte_pack.constraints,
        main=EntryPoint("flyte_pack.__main__"),
        sources=await program_sources(),
        description="Prepare the packer",
    )
