"""Infers dependencies from imports that Pants' parser loses, such as `b` of `import a, b`."""

from __future__ import annotations

import logging
import os
import unicodedata
from typing import Dict, Iterable, Mapping, Union

from pants.backend.python.dependency_inference.rules import (
    PythonImportDependenciesInferenceFieldSet,
    import_rules,
)
from pants.backend.python.dependency_inference.subsystem import PythonInferSubsystem
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonSourceField
from pants.build_graph.address import Address
from pants.engine.fs import PathGlobs
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import InferDependenciesRequest, InferredDependencies
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.code.import_scan import NO_INFER, StatedImport, stated_imports
from pants_flyte import engine
from pants_flyte.engine.types import ImportInfo, SuspectSources
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly, literal_glob
from pants_flyte.layout import root_path
from pants_flyte.subsystem import FlyteSubsystem

logger = logging.getLogger(__name__)


class InferLostImports(InferDependenciesRequest):  # type: ignore[type-arg]  # generic only since later versions
    infer_from = PythonImportDependenciesInferenceFieldSet


async def _source(path: str) -> bytes:
    """The content of a file; empty where it is gone, which Pants reports."""
    found = await engine.contents_matching(exactly([path]))
    return found[0].content if found else b""


async def _package(path: str) -> str:
    """The dotted package whose directory the file is in; "" for a source root."""
    root = root_path((await engine.source_roots([path]))[path])
    directory = os.path.relpath(os.path.dirname(path) or ".", root or ".")
    return "" if directory == "." else directory.replace(os.path.sep, ".")


def _lost(
    stated: Iterable[StatedImport], parsed: Mapping[str, ImportInfo]
) -> Dict[str, ImportInfo]:
    """What the source states and Pants' parser did not find.

    Only the parser knows whether a statement is weak, as inside `try: ... except ImportError`. It
    keeps the first name of a statement, so that name tells for all.
    """
    return {
        found.module: ImportInfo(
            found.line, weak=found.first not in parsed or parsed[found.first].weak
        )
        for found in reversed(list(stated))
        if found.module not in parsed
    }


def _decomposed(stated: Iterable[StatedImport]) -> Dict[str, ImportInfo]:
    """The names as the files of their modules may be spelled, where macOS gave them their names."""
    spelled = ((unicodedata.normalize("NFD", one.module), one) for one in stated)
    return {name: ImportInfo(one.line, weak=True) for name, one in spelled if name != one.module}


def _tell_of_unowned(
    address: Address, line_of: Mapping[str, int], python_infer: PythonInferSubsystem
) -> None:
    """Warn or fail as `[python-infer]` says: Pants cannot, since it never saw these names."""
    behavior = python_infer.unowned_dependency_behavior.value
    names = sorted(
        f"{name} (line: {line})"
        for name, line in line_of.items()
        if not any(f"{name}.".startswith(f"{n}.") for n in python_infer.ignored_unowned_imports)
    )
    if not names or behavior == "ignore":
        return
    error = FlyteTargetError(
        address,
        f"no target owns what it imports as {', '.join(names)}. Declare the target that provides "
        f"it, or write `{NO_INFER}` on the line of an import that needs none.",
    )
    if behavior == "error":
        raise error
    logger.warning(str(error))


@rule(desc="Look for sources of which Pants' parser may lose something", level=LogLevel.DEBUG)
async def suspect_sources(
    flyte: FlyteSubsystem, python_infer: PythonInferSubsystem
) -> SuspectSources:
    """The suspects of the whole repository, found by directory.

    They are a parameter of the inference: an await in the rule of each target would cost more than
    all that is read here.
    """
    if not (flyte.infer_lost_imports or flyte.infer_named_in_code) or not python_infer.imports:
        return SuspectSources(frozenset())
    targets = [
        target for target in await engine.all_targets() if target.has_field(PythonSourceField)
    ]
    paths = {target[PythonSourceField].file_path for target in targets}
    ordinary = {path for path in paths if path.endswith((".py", ".pyi"))}
    directories = sorted({literal_glob(os.path.dirname(path)) for path in ordinary})
    found = await engine.suspects_in_each(
        [PathGlobs([os.path.join(d, "*.py"), os.path.join(d, "*.pyi")]) for d in directories]
    )
    # A program without an ending is not looked for by directory: it is read where it is inferred.
    lost = frozenset(paths - ordinary).union(*(one.paths for one in found))
    return SuspectSources(
        lost if flyte.infer_lost_imports else frozenset(),
        naming=frozenset(paths) & frozenset().union(*(one.naming for one in found)),
    )


@rule(desc="Infer what Pants' parser of Python sources loses", level=LogLevel.DEBUG)
async def infer_lost_imports(
    request: InferLostImports,
    suspects: SuspectSources,
    python_infer: PythonInferSubsystem,
    python_setup: PythonSetup,
) -> InferredDependencies:
    fields = request.field_set
    path = fields.source.file_path
    if path not in suspects.paths:
        return InferredDependencies([])
    stated = stated_imports(await _source(path), await _package(path))
    lost = _lost(stated, await engine.parsed_imports(fields, python_setup))
    decomposed = _decomposed(stated)
    if not lost and not decomposed:
        return InferredDependencies([])
    owners = await engine.owners_of_imports(
        fields, {**decomposed, **lost}, fields.resolve.normalized_value(python_setup)
    )
    _tell_of_unowned(
        fields.address, {n: lost[n].line for n in owners.unowned if n in lost}, python_infer
    )
    return InferredDependencies(owners.addresses)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        *import_rules(),
        UnionRule(InferDependenciesRequest, InferLostImports),
    ]
