"""Infers dependencies from data files on what they name by dotted words, where that is asked for.

Hydra's `_target_: models.resnet.ResNet`, entries of settings in TOML, a pipeline in JSON. A word is
taken for a name only if the repository has that module, so nothing need be known of the format.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Iterable, Iterator, Union

from pants.build_graph.address import Address
from pants.core.target_types import FileSourceField, ResourceSourceField
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import FieldSet, InferDependenciesRequest, InferredDependencies
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from pants_flyte import engine
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.globs import exactly
from pants_flyte.subsystem import FlyteSubsystem

_FORMATS = (".yaml", ".yml", ".json", ".toml", ".ini", ".cfg")
_LONGEST = 1_000_000  # bytes; what is longer is no settings file
_NAME = re.compile(rb"(?<![\w./:@-])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_]\w*)?(?![\w./@-])")


@dataclass(frozen=True)
class ResourceFieldSet(FieldSet):
    required_fields = (ResourceSourceField,)
    source: ResourceSourceField


@dataclass(frozen=True)
class FileFieldSet(FieldSet):
    required_fields = (FileSourceField,)
    source: FileSourceField


class InferFromResource(InferDependenciesRequest):  # type: ignore[type-arg]  # generic only since later versions
    infer_from = ResourceFieldSet


class InferFromFile(InferDependenciesRequest):  # type: ignore[type-arg]  # generic only since later versions
    infer_from = FileFieldSet


def _owners(content: bytes, modules: FirstPartyModules) -> Iterator[Address]:
    """Of the modules that are named, or that hold what is named, where there is one owner."""
    for written in sorted(set(_NAME.findall(content))):
        name = written.decode().partition(":")[0]
        while "." in name and name not in modules.by_name:
            name = name.rpartition(".")[0]
        found = [one for one in modules.by_name.get(name, ()) if not one.is_test]
        if len(found) == 1 and not (found[0].is_package and "." not in name):
            yield found[0].owner


async def _inferred(
    path: str, modules: FirstPartyModules, flyte: FlyteSubsystem
) -> InferredDependencies:
    if not flyte.infer_named_in_data or os.path.splitext(path)[1] not in _FORMATS:
        return InferredDependencies([])
    found = await engine.contents_matching(exactly([path]))
    if not found or len(found[0].content) > _LONGEST:
        return InferredDependencies([])
    return InferredDependencies(sorted(set(_owners(found[0].content, modules))))


@rule(desc="Infer what a resource names", level=LogLevel.DEBUG)
async def infer_from_resource(
    request: InferFromResource, modules: FirstPartyModules, flyte: FlyteSubsystem
) -> InferredDependencies:
    return await _inferred(request.field_set.source.file_path, modules, flyte)


@rule(desc="Infer what a file names", level=LogLevel.DEBUG)
async def infer_from_file(
    request: InferFromFile, modules: FirstPartyModules, flyte: FlyteSubsystem
) -> InferredDependencies:
    return await _inferred(request.field_set.source.file_path, modules, flyte)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        UnionRule(InferDependenciesRequest, InferFromResource),
        UnionRule(InferDependenciesRequest, InferFromFile),
    ]
