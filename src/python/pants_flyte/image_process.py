"""Runs the steps of building an image, each a cacheable process that writes layers."""

from __future__ import annotations

import logging
import re
from typing import Any, Mapping, Optional, Sequence, Tuple

from pants.backend.python.util_rules.pex import VenvPex, VenvPexProcess
from pants.build_graph.address import Address
from pants.engine.fs import Digest, PathGlobs
from pants.engine.process import FallibleProcessResult
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.command import WARNING
from flyte_pack.image.compiler import Compiler
from flyte_pack.oci.parts import Layer, Layers
from pants_flyte import engine
from pants_flyte.errors import FlyteTargetError

logger = logging.getLogger(__name__)

# The directory that a step makes: layers in `blobs/`, and JSON files that describe them.
OUT = "out"
_BYTECODE_CACHE = ".cache/flyte_bytecode"
_NO_CACHES: Mapping[str, str] = FrozenDict()
_PROGRAM = re.compile(r"^flyte_pack [a-z-]+: ", re.MULTILINE)


def step(
    tool: VenvPex,
    argv: Sequence[str],
    inputs: Digest,
    description: str,
    *,
    compiler: Optional[Compiler] = None,
    append_only_caches: Mapping[str, str] = _NO_CACHES,
    **more: Any,
) -> VenvPexProcess:
    """compiler: for a step that compiles. more: as for `VenvPexProcess`."""
    if compiler is not None:
        argv = (*argv, "--compiler", str(compiler), "--bytecode-cache", _BYTECODE_CACHE)
        append_only_caches = {**append_only_caches, "flyte_bytecode": _BYTECODE_CACHE}
    return VenvPexProcess(
        tool,
        argv=argv,
        append_only_caches=append_only_caches,
        input_digest=inputs,
        output_directories=(OUT,),
        description=description,
        level=LogLevel.INFO,
        **more,
    )


async def run_steps(
    address: Address,
    processes: Sequence[VenvPexProcess],
    kept: Mapping[VenvPexProcess, Mapping[str, Digest]] = FrozenDict(),
) -> Tuple[FallibleProcessResult, ...]:
    """Run them at the same time, and hand on their warnings. kept: as in the port.

    Raises `FlyteTargetError` with the message of a failed one.
    """
    results = await engine.run_venv_pexes(processes, kept)
    for process, result in zip(processes, results):
        if result.exit_code == 1:  # a mistake that the program has a message for
            said = result.stderr.decode(errors="replace").strip()
            raise FlyteTargetError(address, _PROGRAM.sub("", said).replace(f"{address}: ", ""))
        if result.exit_code != 0:
            raise FlyteTargetError(
                address,
                f"{process.description}: failed with exit code {result.exit_code}:\n"
                + result.stderr.decode(errors="replace").strip(),
            )
    told = (line for r in results for line in r.stderr.decode(errors="replace").splitlines())
    for line in dict.fromkeys(told):  # once, where several platforms have it
        if line.startswith(WARNING):
            logger.warning(f"{address}: {line[len(WARNING) :]}")
    return results


async def described(result: FallibleProcessResult, name: str) -> bytes:
    """The file that a step made beside its blobs."""
    file = await engine.subset(result.output_digest, PathGlobs([f"{OUT}/{name}"]))
    return (await engine.contents(file))[0].content


async def blobs(result: FallibleProcessResult) -> Digest:
    """What a step made, as it belongs in a layout: `blobs/sha256/...`."""
    found = await engine.subset(result.output_digest, PathGlobs([f"{OUT}/blobs/**"]))
    return await engine.without_prefix(found, OUT)


async def layers_of(result: FallibleProcessResult) -> Tuple[Layer, ...]:
    """The layers that a step made, lowest first."""
    return Layers.from_json(await described(result, "layers.json")).layers
