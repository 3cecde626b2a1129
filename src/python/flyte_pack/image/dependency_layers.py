"""Splits installed distributions into layers, and writes them.

A layer of one distribution depends on that distribution alone, so all images that have it share the
blob. docs/image-dependencies.md tells how the split was chosen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flyte_pack.image.environment import PACKAGE_LAYERS
from flyte_pack.image.filesystem import VENV
from flyte_pack.image.installed import Distribution, Member
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.parts import Layer

OWN_LAYER = 1 << 20  # bytes, as installed
# Each writer has a thread that compresses, so two cores are busy with one.
_WRITERS = max(1, (os.cpu_count() or 1) // 2)


@dataclass(frozen=True)
class Group:
    """Distributions of one layer; what: for a person."""

    what: str
    distributions: tuple[Distribution, ...]

    @property
    def size(self) -> int:
        return sum(d.size for d in self.distributions)

    def members(self) -> list[Member]:
        """Their files, sorted by path; what two bring alike is there once."""
        by_path = {m.path: m for d in self.distributions for m in d.members}
        return [by_path[path] for path in sorted(by_path)]


def split(
    distributions: Sequence[Distribution],
    max_layers: int = PACKAGE_LAYERS,
    own_layer: int = OWN_LAYER,
) -> list[Group]:
    """The layers, lowest first.

    Each distribution of `own_layer` bytes or more has one of its own, in order of names; the others
    share the last. If that makes more than `max_layers`, only the largest have their own.
    """
    large = sorted(
        (d for d in distributions if d.name and d.size >= own_layer),
        key=lambda d: (-d.size, d.name),
    )
    if len(large) + (len(large) < len(distributions)) > max_layers:
        large = large[: max_layers - 1]
    groups = [Group(str(d), (d,)) for d in sorted(large, key=lambda d: d.name)]
    rest = tuple(sorted((d for d in distributions if d not in large), key=lambda d: d.name))
    if rest:
        many = len([d for d in rest if d.name])
        groups.append(Group(str(rest[-1]) if many == 1 else f"{many} smaller distributions", rest))
    return groups


def write_layers(groups: Sequence[Group], directory: str) -> list[Layer]:
    """Write each group as a layer below `directory`, in the order given."""
    with ThreadPoolExecutor(_WRITERS) as executor:
        # The largest first, so that none is left over when the others are done.
        order = sorted(range(len(groups)), key=lambda i: -groups[i].size)
        futures = {i: executor.submit(_write, groups[i], directory) for i in order}
        return [futures[i].result() for i in range(len(groups))]


def _write(group: Group, directory: str) -> Layer:
    with LayerWriter(directory) as layer:
        for member in group.members():
            layer.add_parents(member.path, VENV)
            if member.content is not None:
                layer.add_bytes(member.path, member.content, member.mode)
            else:
                layer.add_file(member.path, member.source, member.mode)
        return layer.finish(group.what)
