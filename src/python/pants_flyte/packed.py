"""What a target takes in its archive, or in the layers of its image: it is packed for that."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import replace
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.util_rules.pex import VenvPexProcess
from pants.build_graph.address import Address
from pants.engine.fs import Digest
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.unions import UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.explain import NO_OWNER, Artifact, InLayer, PackedLayer, ShippedFile
from flyte_pack.inventory.plan import ArchiveSizes
from flyte_pack.oci.compared import side_of
from flyte_pack.oci.model import blob_path
from pants_flyte import engine
from pants_flyte import target_types as types
from pants_flyte.build_types import BuiltImage, ImageRequest, Packed, PackedRequest, TaskRequest
from pants_flyte.built_layout import layout_of
from pants_flyte.bundle import build_bundle
from pants_flyte.globs import exactly
from pants_flyte.image_process import run_steps
from pants_flyte.image_target_types import FlyteImage
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.task import bundle_request_of
from pants_flyte.tool import program_pex
from pants_flyte.unowned import OwnedFiles

_SIZES = "sizes.json"


# Pants looks for what a rule awaits while this module is loaded: so its helpers stand above it.


async def _measured(
    address: Address,
    digest: Digest,
    paths: Sequence[str],
    directory: str,
    flyte_pack: FlytePackSubsystem,
) -> Sequence[ArchiveSizes]:
    """paths: of archives below `directory` in `digest`. Each has a process, whose result stays."""
    tool = await engine.venv_pex(await program_pex(flyte_pack))
    processes = []
    for path in paths:
        held = await engine.subset(digest, exactly([os.path.join(directory, path)]))
        processes.append(
            VenvPexProcess(
                tool,
                argv=("archive-sizes", "--archive", path, "--out", _SIZES),
                input_digest=await engine.without_prefix(held, directory) if directory else held,
                output_files=(_SIZES,),
                description=f"Measure {os.path.basename(path)} of {address}",
                level=LogLevel.DEBUG,
            )
        )
    results = await run_steps(address, processes)
    found = [await engine.contents(result.output_digest) for result in results]
    return [ArchiveSizes.from_json(one.content) for (one,) in found]


def _layer(layer: PackedLayer, sizes: Optional[ArchiveSizes]) -> PackedLayer:
    if sizes is None:
        return layer
    parts = [InLayer(*package) for package in sizes.packages]
    parts += (InLayer("other", path, "", 1, size, packed) for path, size, packed in sizes.files)
    return _with_parts(layer, parts)


def _with_parts(layer: PackedLayer, parts: Iterable[InLayer]) -> PackedLayer:
    """With these parts, those alike as one."""
    sums: Dict[Tuple[str, str, str], List[int]] = defaultdict(lambda: [0, 0, 0])
    for kind, name, version, *numbers in parts:
        alike = sums[kind, name, version]
        for at, number in enumerate(numbers):
            alike[at] += number
    summed = [InLayer(*who, *numbers) for who, numbers in sums.items()]
    return layer._replace(
        files=sum(part.files for part in summed),
        size=sum(part.size for part in summed),
        parts=tuple(sorted(summed, key=lambda part: (-part.size, part))),
    )


async def _of_image(image: BuiltImage, flyte_pack: FlytePackSubsystem) -> Packed:
    layers = side_of(image.address.spec, await layout_of(image)).layers or ()
    ours = list(dict.fromkeys(layer.digest for layer in layers if not layer.of_base))
    paths = list(map(blob_path, ours))
    found = await _measured(image.address, image.digest, paths, image.layout, flyte_pack)
    sizes = dict(zip(ours, found))
    files: Dict[str, int] = {}
    for one in found:
        files.update((path, packed) for path, _, packed in one.files)
    return Packed(
        None,
        FrozenDict(files),
        tuple(
            _layer(
                PackedLayer(layer.platform, layer.what, layer.digest, layer.size),
                sizes.get(layer.digest),
            )
            for layer in layers
        ),
        image.workdir,
    )


@rule(desc="Measure what a Flyte target takes when packed", level=LogLevel.DEBUG)
async def measure_packed(
    request: PackedRequest,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    owned: OwnedFiles,
) -> Packed:
    """A rule of its own, as explaining needs to know less. Raises what packaging raises."""
    (target,) = await engine.targets_at([request.address])
    image, bundle = None, None
    if isinstance(target, FlyteImage):
        (image,) = await engine.build_images([ImageRequest(target.address)])
    elif isinstance(target, types.FlyteTask):
        wanted = TaskRequest(target.address, copy_style=request.copy_style, image=False)
        (task,) = await engine.build_tasks([wanted])
        image, bundle = task.image, task.bundle
    else:
        asked = bundle_request_of(target, flyte, python_setup)
        bundle = await build_bundle(asked, frozenset(), flyte, flyte_pack, python_setup, owned)
    if image is not None:
        return await _of_image(image, flyte_pack)
    if bundle is None:  # the code is in an image that is none of our targets
        return Packed(None, FrozenDict())
    (sizes,) = await _measured(target.address, bundle.digest, [bundle.archive], "", flyte_pack)
    return Packed(
        bundle.summary.archive_size,
        FrozenDict({path: packed for path, _, packed in sizes.files}),
    )


def with_packed(artifact: Artifact, packed: Packed) -> Artifact:
    """With the sizes of its files, and what of each layer belongs to which library."""
    place = {file.path: _in_image(file.path, packed.workdir) for file in artifact.files}
    files = tuple(
        file._replace(packed=packed.files.get(place[file.path])) for file in artifact.files
    )
    of_path = {place[file.path]: file for file in files}
    return replace(
        artifact,
        files=files,
        packed=packed.archive,
        layers=tuple(_by_library(layer, of_path) for layer in packed.layers)
        if packed.workdir
        else None,
    )


def _in_image(path: str, workdir: str) -> str:
    """path: as an explanation has it, from the working directory or, with `/`, the top."""
    return os.path.join(workdir, path)[1:] if workdir else path


def _by_library(layer: PackedLayer, files: Mapping[str, ShippedFile]) -> PackedLayer:
    if layer.parts is None:
        return layer
    parts = []
    for part in layer.parts:
        if part.kind == "other":
            file = files.get(part.name)
            kind = "other" if file is None else "library"
            part = part._replace(kind=kind, name="" if file is None else _library(file))
        parts.append(part)
    return _with_parts(layer, parts)


def _library(file: ShippedFile) -> str:
    return file.library or NO_OWNER


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
