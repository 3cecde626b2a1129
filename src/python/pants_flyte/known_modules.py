"""Which modules a resolve and the repository have, for messages about an import that fails."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Dict, Iterator, List, Set, Tuple

from pants.backend.python.dependency_inference import module_mapper
from pants.backend.python.dependency_inference.default_module_mapping import (
    DEFAULT_MODULE_MAPPING,
)
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    PythonRequirementModulesField,
    PythonRequirementResolveField,
    PythonRequirementsField,
)
from pants.build_graph.address import Address
from pants.engine.target import Target

from flyte_pack.locked import locked
from flyte_pack.names import normalized
from pants_flyte import engine
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.flyte_modules import MODULES
from pants_flyte.globs import exactly


async def _requirements_of(resolve: str, python_setup: PythonSetup) -> List[Target]:
    """The targets of its requirements. One of each type is asked for its fields: that is slow."""
    targets = await engine.all_targets()
    one_of_each = {type(target): target for target in targets}
    wanted = {kind for kind, one in one_of_each.items() if one.has_field(PythonRequirementsField)}
    return [
        target
        for target in targets
        if type(target) in wanted
        and target[PythonRequirementResolveField].normalized_value(python_setup) == resolve
    ]


async def modules_in(resolve: str, modules: FirstPartyModules, python_setup: PythonSetup) -> bytes:
    """JSON for `flyte_pack.flyte_side.missing.read`. modules: of the repository."""
    lock = python_setup.resolves.get(resolve) if python_setup.enable_resolves else None
    found = await engine.contents_matching(exactly([lock] if lock else []))
    requirements: Dict[str, Tuple[str, str]] = {}
    for target in await _requirements_of(resolve, python_setup):
        for module, distribution in provided(target):
            requirements.setdefault(module, (target.address.spec, distribution))
    known = {
        "resolve": resolve if python_setup.enable_resolves else None,
        "lock": lock,
        "locked": sorted(locked(found[0].content).names) if found else None,
        "first_party": _owners(modules, resolve),
        "requirements": requirements,
        "distributions": {module: name for name, of in MODULES.items() for module in of},
    }
    return json.dumps(known, sort_keys=True).encode()


@lru_cache(maxsize=16)
def _owners(modules: FirstPartyModules, resolve: str) -> Dict[str, str]:
    """The address that owns each module, by name.

    Kept, since each deployment and run asks, and the repository may have ten thousand.
    """
    found = {name: modules.find(name, resolve) for name in modules.by_name}
    return {name: one.owner.spec for name, one in found.items() if one}


async def requirements_by_distribution(
    resolve: str, python_setup: PythonSetup
) -> Dict[str, Tuple[Address, ...]]:
    """By normalized name: the targets of the resolve that require it."""
    found: Dict[str, Set[Address]] = {}
    for target in await _requirements_of(resolve, python_setup):
        for _, distribution in provided(target):
            found.setdefault(distribution, set()).add(target.address)
    return {name: tuple(sorted(addresses)) for name, addresses in found.items()}


def provided(target: Target) -> Iterator[Tuple[str, str]]:
    """The modules of a requirement, as Pants has them, each with its distribution."""
    explicit = target[PythonRequirementModulesField].value
    for requirement in target[PythonRequirementsField].value:
        # Called `name` where Pants parses requirements by the package `packaging`.
        name = str(getattr(requirement, "project_name", None) or getattr(requirement, "name", ""))
        assumed = mapped_modules(normalized(name)) or (name.lower().replace("-", "_"),)
        for module in explicit or assumed:
            yield module, normalized(name)


def mapped_modules(distribution: str) -> Tuple[str, ...]:
    """What Pants' mapping says that a distribution has. It has patterns in later versions."""
    patterns = getattr(module_mapper, "generate_mappings_from_pattern", None)
    found = DEFAULT_MODULE_MAPPING.get(distribution)
    return tuple(found or (patterns(distribution) if patterns is not None else ()))
