"""Infers the dependencies on modules whose imports Pants' own parser loses, such as `b` of `import a, b`."""

from __future__ import annotations

import logging
import os
from typing import Dict, Iterable, Mapping, Optional, Union

from pants.backend.python.dependency_inference.rules import (
    PythonImportDependenciesInferenceFieldSet,
    import_rules,
)
from pants.backend.python.dependency_inference.subsystem import PythonInferSubsystem
from pants.backend.python.subsystems.setup import PythonSetup
from pants.build_graph.address import Address
from pants.engine.fs import PathGlobs
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import (
    InferDependenciesRequest,
    InferredDependencies,
)
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.import_scan import NO_INFER, StatedImport, is_suspect, stated_imports
from pants_flyte.engine import (
    contents_matching,
    owners_of_imports,
    parsed_imports,
    source_roots,
)
from pants_flyte.engine.types import ImportInfo
from pants_flyte.errors import FlyteTargetError
from pants_flyte.layout import literal_glob, root_path
from pants_flyte.subsystem import FlyteSubsystem

logger = logging.getLogger(__name__)


class InferLostImports(InferDependenciesRequest):  # type: ignore[type-arg]  # generic only since later versions
    infer_from = PythonImportDependenciesInferenceFieldSet


async def _source(path: str) -> Optional[bytes]:
    """The content of a file; None where it is gone, of which Pants tells.

    Asked for by directory: the engine then answers once for all files in it, and what it does for
    one file is most of what this inference costs.
    """
    directory = literal_glob(os.path.dirname(path))
    globs = [os.path.join(directory, "*.py"), os.path.join(directory, "*.pyi")]
    if not path.endswith((".py", ".pyi")):
        globs = [literal_glob(path)]
    for file in await contents_matching(PathGlobs(globs)):
        if file.path == path:
            return file.content
    return None


async def _package(path: str) -> str:
    """The dotted package whose directory the file is in; "" for a source root."""
    root = root_path((await source_roots([path]))[path])
    directory = os.path.relpath(os.path.dirname(path) or ".", root or ".")
    return "" if directory == "." else directory.replace(os.path.sep, ".")


def _lost(
    stated: Iterable[StatedImport], parsed: Mapping[str, ImportInfo]
) -> Dict[str, ImportInfo]:
    """What the source states and Pants' parser did not find.

    Only the parser knows whether a statement is weak, as inside `try: ... except ImportError`; the
    first name of a statement, which it keeps, tells.
    """
    return {
        found.module: ImportInfo(
            found.line, weak=found.first not in parsed or parsed[found.first].weak
        )
        for found in reversed(list(stated))
        if found.module not in parsed
    }


def _tell_of_unowned(
    address: Address, line_of: Mapping[str, int], python_infer: PythonInferSubsystem
) -> None:
    """Warn or fail as `[python-infer]` says; Pants never saw these names and can't."""
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
        f"no target owns what it imports as {', '.join(names)}. Declare the target that provides it, or write "
        f"`{NO_INFER}` on the line of an import that needs none.",
    )
    if behavior == "error":
        raise error
    logger.warning(str(error))


@rule(desc="Infer what Pants' parser of Python sources loses", level=LogLevel.DEBUG)
async def infer_lost_imports(
    request: InferLostImports,
    flyte: FlyteSubsystem,
    python_infer: PythonInferSubsystem,
    python_setup: PythonSetup,
) -> InferredDependencies:
    if not (flyte.infer_lost_imports and python_infer.imports):
        return InferredDependencies([])
    fields = request.field_set
    path = fields.source.file_path
    source = await _source(path)
    if source is None or not is_suspect(source):
        return InferredDependencies([])
    stated = stated_imports(source, await _package(path))
    lost = _lost(stated, await parsed_imports(fields, python_setup))
    if not lost:
        return InferredDependencies([])
    owners = await owners_of_imports(fields, lost, fields.resolve.normalized_value(python_setup))
    _tell_of_unowned(fields.address, {n: lost[n].line for n in owners.unowned}, python_infer)
    return InferredDependencies(owners.addresses)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return [
        *collect_rules(),
        *import_rules(),
        UnionRule(InferDependenciesRequest, InferLostImports),
    ]
