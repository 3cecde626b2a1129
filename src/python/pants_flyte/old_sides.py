"""What `flyte-explain --diff=OLD` compares with: OLD as it was typed, and what it stands for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from glob import escape, glob
from typing import Sequence, Tuple

from pants.base.build_environment import get_buildroot
from pants.build_graph.address import Address
from pants.engine.addresses import UnparsedAddressInputs

from flyte_pack.diff import Side
from flyte_pack.errors import UserError
from flyte_pack.manifest import Manifest
from flyte_pack.manifest_graph import artifact_of, is_whole
from flyte_pack.oci.compared import side_of
from flyte_pack.oci.layout import open_layout
from pants_flyte import engine
from pants_flyte import target_types as types
from pants_flyte.build_types import Explained, ImageRequest
from pants_flyte.built_layout import layout_of
from pants_flyte.image_target_types import FlyteImage

_LIMIT = 1 << 30  # bytes of a manifest
_ENDING = ".manifest.json"


class Kind(Enum):
    DEPLOYED = "deployed"
    FILE = "file"
    LAYOUT = "layout"
    TARGET = "target"
    REVISION = "revision"


@dataclass(frozen=True)
class Old:
    """text: the version ("" for the current one), the path, the address or the revision."""

    kind: Kind
    text: str


def parse(typed: str) -> Old:
    """What was typed. A file comes before a target, and a target before a revision of git."""
    prefix, _, rest = typed.partition(":")
    if typed in ("version:", "git:"):
        raise UserError(
            f"--diff={typed} names no {'version' if typed == 'version:' else 'revision'}"
        )
    if (rest if prefix == "git" else typed).startswith("-"):
        raise UserError(f"--diff={typed} is an option, and no revision of git")
    if typed == "current":
        return Old(Kind.DEPLOYED, "")
    if prefix == "version" and rest:
        return Old(Kind.DEPLOYED, rest)
    if prefix == "git" and rest:
        return Old(Kind.REVISION, rest)
    place = os.path.join(get_buildroot(), typed)
    if os.path.isfile(place):
        return Old(Kind.FILE, place)
    if os.path.isdir(place):
        if os.path.exists(os.path.join(place, "oci-layout")):
            return Old(Kind.LAYOUT, place)
        found = glob(os.path.join(escape(place), f"*{_ENDING}"))
        if len(found) == 1:
            return Old(Kind.FILE, found[0])
        if found:
            names = ", ".join(sorted(map(os.path.basename, found)))
            raise UserError(f"--diff={typed} has several manifests: name one of {names}")
        return Old(Kind.TARGET, typed)
    if os.path.isabs(typed) and not typed.startswith("//"):
        raise UserError(f"--diff={typed}: there is no such file or folder")
    if ":" in typed or "#" in typed or typed.startswith("//"):
        return Old(Kind.TARGET, typed)
    return Old(Kind.REVISION, typed)


def read_file(path: str) -> Side:
    """The bundle that a manifest describes. Raises `UserError`."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _LIMIT:
        raise UserError(f"{path} has more than {_LIMIT:,} bytes, too many for a manifest")
    manifest = Manifest.from_json(data, path)
    artifact = artifact_of(manifest)
    return Side(artifact.root, artifact, is_whole(manifest))


def read_directory(path: str) -> Side:
    """The image in a layout. Raises `UserError`."""
    return side_of(path, open_layout(path))


async def address_of(typed: str) -> Address:
    found = await engine.resolve_addresses(
        UnparsedAddressInputs(
            [typed], owning_address=None, description_of_origin="the option `--diff`"
        )
    )
    return found[0]


async def side_of_explained(explained: Explained, with_layers: bool) -> Side:
    """What the checkout has. with_layers: whether to build an image, for what it is made of."""
    (target,) = await engine.targets_at([explained.address])
    if not (with_layers and isinstance(target, FlyteImage)):
        return Side(explained.address.spec, explained.artifact)
    (image,) = await engine.build_images([ImageRequest(target.address)])
    return side_of(target.address.spec, await layout_of(image), explained.artifact)


async def deployments_of(task: Address) -> Tuple[Address, ...]:
    """The `flyte_deployment`s that name a task."""
    found = []
    for target in await engine.all_targets():
        if isinstance(target, types.FlyteDeployment):
            unparsed = target[types.FlyteDeploymentTasksField].to_unparsed_address_inputs()
            named = await engine.targets_at(await engine.resolve_addresses(unparsed))
            if task in (one.address for one in named):
                found.append(target.address)
    return tuple(found)


def of_one(sides: Sequence[Side], typed: str) -> Side:
    """The only one, to be compared with a single file or target. Raises `UserError`."""
    if len(sides) != 1:
        names = ", ".join(side.address for side in sides) or "none"
        raise UserError(
            f"--diff={typed} is one bundle or image, to be compared with one target, not with "
            f"{names}"
        )
    return sides[0]
