"""Knows which modules the packages of a resolve have: by its requirements, its lock file, the base
image and the wheels that are at hand.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import (
    Collection,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Optional,
    Set,
    Tuple,
    Union,
)

from pants.backend.python.dependency_inference.default_module_mapping import (
    DEFAULT_MODULE_MAPPING,
)
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    InterpreterConstraintsField,
    PythonRequirementResolveField,
    PythonRequirementsField,
)
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Dependencies, Target
from pants.engine.unions import UnionRule
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.code.completeness import (
    ThirdParty,
    names_of,
)
from flyte_pack.code.wheel_modules import Question
from flyte_pack.locked import locked
from flyte_pack.names import normalized
from pants_flyte import engine
from pants_flyte.base_image import base_of, image_of
from pants_flyte.closure import reached_from
from pants_flyte.code_scans import answer_of
from pants_flyte.errors import FlyteTargetError
from pants_flyte.flyte_modules import MODULES
from pants_flyte.globs import exactly
from pants_flyte.known_modules import mapped_modules, provided
from pants_flyte.subsystem import FlytePackSubsystem


@dataclass(frozen=True)
class ResolvesKnown:
    """The distributions of each resolve, without what an artifact requires of them.

    locks: the contents of their lock files.
    """

    of: FrozenDict[str, ThirdParty]
    locks: FrozenDict[str, bytes]


def _mapped() -> Dict[str, Tuple[str, ...]]:
    """Module -> the distributions that are known to have it."""
    found: Dict[str, Set[str]] = defaultdict(set)
    for distribution, modules in (*DEFAULT_MODULE_MAPPING.items(), *MODULES.items()):
        for module in modules:
            found[module].add(normalized(distribution))
    return {module: tuple(sorted(names)) for module, names in found.items()}


def _with_patterns(
    mapped: FrozenDict[str, Tuple[str, ...]], locked: FrozenSet[str]
) -> FrozenDict[str, Tuple[str, ...]]:
    """And what patterns of Pants' mapping say of the distributions in a lock file."""
    more: Dict[str, Tuple[str, ...]] = {}
    for distribution in sorted(locked):
        for module in mapped_modules(distribution):
            if distribution not in mapped.get(module, ()):
                more[module] = (*more.get(module, mapped.get(module, ())), distribution)
    return FrozenDict({**mapped, **more}) if more else mapped


@rule(desc="Look for the modules of requirements", level=LogLevel.DEBUG)
async def find_resolves_known(python_setup: PythonSetup) -> ResolvesKnown:
    """A rule, since each artifact needs it: found once."""
    modules: Dict[str, Dict[str, List[Tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    targets = await engine.all_targets()
    one_of_each = {type(target): target for target in targets}  # the question is slow
    kinds = {kind for kind, one in one_of_each.items() if one.has_field(PythonRequirementsField)}
    for target in targets:
        if type(target) in kinds:
            resolve = target[PythonRequirementResolveField].normalized_value(python_setup)
            for module, distribution in provided(target):
                modules[resolve][module].append((target.address.spec, distribution))
    locks = dict(python_setup.resolves) if python_setup.enable_resolves else {}
    contents = {
        file.path: file.content
        for file in await engine.contents_matching(exactly(sorted(set(locks.values()))))
    }
    mapped = FrozenDict(_mapped())
    known, held = {}, {}
    for resolve in sorted({*modules, *locks}):
        path = locks.get(resolve)
        content = contents.get(path) if path is not None else None
        pinned = None if content is None else locked(content)
        if content is not None:
            held[resolve] = content
        known[resolve] = ThirdParty(
            resolve=resolve if python_setup.enable_resolves else "",
            lock=path,
            modules=FrozenDict({m: tuple(of) for m, of in modules[resolve].items()}),
            locked=None if pinned is None else pinned.names,
            needs=FrozenDict(pinned.needs) if pinned and pinned.needs is not None else None,
            mapped=mapped if pinned is None else _with_patterns(mapped, pinned.names),
            having=FrozenDict(),
        )
    return ResolvesKnown(FrozenDict(known), FrozenDict(held))


async def with_base(
    known: ThirdParty, target: Target, flyte_pack: FlytePackSubsystem, python_setup: PythonSetup
) -> ThirdParty:
    """With what the base image has, if that is known. Asked only where something is missing."""
    image = await image_of(target)
    if image is None:
        return known
    try:
        base = await base_of(image, flyte_pack, python_setup)
    except FlyteTargetError:  # building the image reports it
        return replace(known, is_known=False)
    environments = base.environments.values()
    return replace(
        known,
        in_base=frozenset(one.name for e in environments for one in e.distributions),
        is_known=all(e.has_flyte is not None for e in environments),
    )


async def with_wheels(
    known: ThirdParty, target: Target, content: Optional[bytes], modules: Collection[str]
) -> ThirdParty:
    """With what the wheels that are at hand say of modules that nothing else is known of."""
    if content is None or not modules:
        return known
    lock = locked(content)
    installed = known.installed()
    needed = (lock.names if installed is None else installed & lock.names) - lock.conditional
    question = Question(
        sorted(names_of(modules)),
        {name: lock.versions_of(name) for name in sorted(lock.names)},
        sorted(needed),
    )
    found = await answer_of(target.address, question)
    return replace(known, having=found.having, all_at_hand=found.is_all and bool(needed))


async def third_party_of(
    target: Target,
    resolve: str,
    known: ResolvesKnown,
    python_setup: PythonSetup,
) -> ThirdParty:
    required: Set[str] = set()
    for one in await reached_from([target.address], python_setup):
        if one.has_field(PythonRequirementsField):
            required.add(one.address.spec)
    (explicit,) = await engine.explicit_dependencies([target.get(Dependencies)])
    excluded = {address.spec for address in explicit.ignores}
    return replace(
        known.of.get(resolve, ThirdParty()),
        required=frozenset(required),
        excluded=frozenset(excluded),
        is_known=await image_of(target) is not None,
    )


def minors_of(target: Target, python_setup: PythonSetup) -> Tuple[int, ...]:
    if not target.has_field(InterpreterConstraintsField):
        return ()
    versions = engine.configured_constraints(
        target, python_setup
    ).partition_into_major_minor_versions(
        # More than the universe of this Pants, which may be older than what runs the code.
        [*python_setup.interpreter_versions_universe, *(f"3.{minor}" for minor in range(7, 16))]
    )
    return tuple(int(v.partition(".")[2]) for v in versions if v.startswith("3."))


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
