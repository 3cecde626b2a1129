"""What a target ships and why, without packing it: what packaging would pack, as a graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import FrozenSet, Iterable, Optional, Sequence, Tuple, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.build_graph.address import Address
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte import target_types as types
from pants_flyte.artifact import entries_of, with_files, without_files
from pants_flyte.build_types import (
    Contents,
    Explained,
    ExplainRequest,
    ImageRequest,
    PackedRequest,
    Shipped,
    ShippedRequest,
    TaskRequest,
)
from pants_flyte.bundle import contents_of
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.image import wants_code
from pants_flyte.image_code import contents_of_image
from pants_flyte.image_packages import requirements_of
from pants_flyte.image_target_types import FlyteImage, FlyteImageWorkdirField
from pants_flyte.packed import with_packed
from pants_flyte.subsystem import FlyteSubsystem
from pants_flyte.targets import checked
from pants_flyte.task import bundle_request_of, code_asked

# What has files. A deployment is its tasks.
KINDS = (types.FlyteBundle, types.FlyteTask, FlyteImage)


async def _contents_of_image(
    target: Target, flyte: FlyteSubsystem, python_setup: PythonSetup
) -> Tuple[Contents, str]:
    """The code that it holds, and what it copies; and what to call it."""
    address = target.address
    resolve = target[PythonResolveField].normalized_value(python_setup)
    await requirements_of(address, resolve, python_setup)  # raises what building raises
    with_code = wants_code(target, ImageRequest(address))
    workdir = target[FlyteImageWorkdirField].value or ""
    contents = await contents_of_image(
        target, with_code, workdir, flyte, python_setup, reasons=True
    )
    inside = f"{workdir[1:]}/"
    files = {
        path[len(inside) :] if path.startswith(inside) else f"/{path}": file
        for path, file in contents.placed.items()
    }
    what = "an image" if with_code else "an image for code that comes in bundles"
    return replace(contents, placed=files), what


@dataclass(frozen=True)
class Asked:
    """A target that was asked about, and what is to be explained for it."""

    address: Address
    requests: Tuple[ExplainRequest, ...]
    is_deployment: bool = False


async def asked_about(targets: Iterable[Target], packed: bool) -> Tuple[Asked, ...]:
    """Without targets that ship nothing. A deployment ships what its tasks ship.

    packed: as of `ExplainRequest`.
    """
    asked = []
    for target in targets:
        if isinstance(target, types.FlyteDeployment):
            unparsed = target[types.FlyteDeploymentTasksField].to_unparsed_address_inputs()
            tasks = await engine.targets_at(await engine.resolve_addresses(unparsed))
            style = target[types.FlyteDeploymentCopyStyleField].value
            requests = dict.fromkeys(
                ExplainRequest(checked(task, types.FlyteTask).address, style, packed)
                for task in tasks
            )
            asked.append(Asked(target.address, tuple(requests), True))
        elif isinstance(target, KINDS):
            asked.append(Asked(target.address, (ExplainRequest(target.address, packed=packed),)))
    return tuple(asked)


@rule(desc="Find what a Flyte target ships", level=LogLevel.DEBUG)
async def find_shipped(
    request: ShippedRequest,
    flyte: FlyteSubsystem,
    modules: FirstPartyModules,
    python_setup: PythonSetup,
) -> Shipped:
    """A rule that an edit does not run again: see `explain_each`."""
    (target,) = await engine.targets_at([request.address])
    root, what, beside = target.address, "a bundle", "all"
    owners: FrozenSet[Address] = frozenset()
    copy_style: Optional[str] = None
    if isinstance(target, FlyteImage):
        contents, what = await _contents_of_image(target, flyte, python_setup)
        beside = "copied"
    else:
        if isinstance(target, types.FlyteTask):
            wanted = TaskRequest(target.address, copy_style=request.copy_style)
            asked = await code_asked(wanted, flyte, modules, python_setup)
            bundle, owners = asked.bundle, asked.entry_owners
            if bundle.address != target.address:
                root, what = bundle.address, f"the bundle of {target.address}"
            elif asked.embedded:
                what = "its code, in its image"
        else:
            bundle = bundle_request_of(target, flyte, python_setup)
        contents = await contents_of(bundle, owners, flyte)
        copy_style = bundle.copy_style
    graph = contents.closure.graph
    entries = owners or entries_of(root, graph)
    resolve = target[PythonResolveField].normalized_value(python_setup)
    artifact = await without_files(root, entries, graph, resolve, python_setup)
    return Shipped(what, resolve, copy_style, beside, contents, artifact)


@rule(desc="Explain what a Flyte target ships", level=LogLevel.DEBUG)
async def explain(request: ExplainRequest) -> Explained:
    """A rule, so that another question about the same target is answered at once."""
    asked = ShippedRequest(request.address, request.copy_style)
    (shipped,) = await engine.shipped_each([asked])
    artifact = await with_files(shipped.artifact, shipped.contents, shipped.beside)
    if request.packed:
        packed = await engine.packed(PackedRequest(request.address, request.copy_style))
        artifact = with_packed(artifact, packed)
    excluded = shipped.contents.closure.graph.excluded
    return Explained(
        request.address,
        shipped.what,
        artifact,
        shipped.resolve,
        shipped.copy_style,
        tuple((address, *taken) for address, taken in sorted(excluded.items())),
    )


async def explain_each(requests: Sequence[ExplainRequest]) -> Sequence[Explained]:
    """Of each. First what they ship is found, and only then the bytes of that are asked for.

    After an edit Pants looks at all that `explain` had asked for at once, and runs it anew as soon
    as it sees that bytes have changed. What it has not come to by then, such as the closure, it
    would find anew, too.
    """
    await engine.shipped_each(
        [ShippedRequest(request.address, request.copy_style) for request in requests]
    )
    return await engine.explain_each(requests)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
