"""Keeps out what must not ship: holds what the packers saw against what people allow.

`flyte_pack/secret_rules.py` says what counts as a secret, `flyte_pack/guards.py` looks for it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Tuple

from pants.build_graph.address import Address
from pants.engine.target import Target
from pants.source.filespec import FilespecMatcher

from flyte_pack.errors import UserError, listing
from flyte_pack.guards import Sighting
from flyte_pack.progress import megabytes
from flyte_pack.secret_rules import find_secrets, secret_file
from pants_flyte import engine
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly, matcher
from pants_flyte.image_target_types import FlyteImage
from pants_flyte.named_files import path_from_root
from pants_flyte.subsystem import VARIABLE, FlyteSubsystem, Secrets, variables_among
from pants_flyte.target_types import FlyteAllowSecretsField

logger = logging.getLogger(__name__)

_DOCS = "docs/guards.md"
_SHOWN = 50  # each has to be dealt with
_FEW = 10


@dataclass(frozen=True)
class Problem:
    """A line that tells of a secret, without the secret."""

    path: str
    line: int
    what: str


@dataclass(frozen=True)
class Allowed:
    """baseline: of each file, the hashes of what is none."""

    files: Tuple[FilespecMatcher, ...]
    variables: FrozenSet[str]
    baseline: Mapping[str, FrozenSet[str]]

    def files_among(self, paths: Iterable[str]) -> FrozenSet[str]:
        wanted = sorted(set(paths))
        return frozenset(path for files in self.files for path in files.matches(wanted))


async def check_files(
    target: Target,
    what: str,
    places: Iterable[str],
    owner_of: Mapping[str, Optional[Address]],
    sighting: Sighting,
    flyte: FlyteSubsystem,
) -> None:
    """Refuse secrets in files that ship, or tell of them; tell of large ones.

    what: ships them, such as "the bundle". places: their paths there. owner_of: by the path from
    the build root, before which the sources of the sighting have the name of a group. Raises
    `FlyteTargetError`.
    """
    try:
        large = flyte.large_file_bytes
    except UserError as error:
        raise FlyteTargetError(target.address, f"{error}.") from None
    for source, size in sighting.large:
        if large is not None and size > large:
            logger.warning(
                f"{target.address}: {_path(source)} has {megabytes(size)}, which {what} takes "
                "along to every container. Data belongs in a store, from which the task reads it "
                "(`flyte.io.File`). `[flyte].large_file` says from which size on this is told."
            )
    if flyte.secrets == Secrets.IGNORE:
        return
    named = [(path, kind) for path in owner_of for kind in (secret_file(path),) if kind]
    names = find_secrets("\n".join(places).encode())
    suspects = {*(path for path, _ in named), *map(_path, _sources(sighting))}
    _tell_of_unused(target, what, owner_of, suspects)
    if not (named or names or sighting.secrets):
        return
    allowed = await _allowed(target, flyte)
    paths = allowed.files_among(suspects)
    problems = [Problem(path, 0, kind) for path, kind in named if path not in paths]
    for source, line, rule, hashes in sighting.secrets:
        path = _path(source)
        if path not in paths and allowed.baseline.get(path, frozenset()).isdisjoint(hashes):
            problems.append(Problem(path, line, rule))
    told = sorted(set(problems), key=_key)
    lines = [_told(problem, owner_of.get(problem.path)) for problem in told]
    lines += [f"the name of a file in {what}: {found.rule}" for found in names]
    _tell(target.address, what, lines, flyte)


async def check_variables(
    target: Target, texts: Mapping[str, Mapping[str, str]], flyte: FlyteSubsystem
) -> None:
    """The same for variables and labels of an image. texts: by the field and the name."""
    if flyte.secrets == Secrets.IGNORE:
        return
    seen = [
        (field, name, found.rule)
        for field, values in texts.items()
        for name, value in sorted(values.items())
        for found in find_secrets(f"{name}={value}".encode())
    ]
    for name in variables_among(_entries(target)):
        if name not in {seen_name for _, seen_name, _ in seen}:
            _tell_of_idle(target.address, f"{VARIABLE}{name}", "variable or label of that name")
    if seen:
        variables = (await _allowed(target, flyte)).variables
        lines = [f"`{field}`: {n}: {rule}" for field, n, rule in seen if n not in variables]
        _tell(target.address, "the image", lines, flyte)


def _tell(address: Address, what: str, lines: Sequence[str], flyte: FlyteSubsystem) -> None:
    if not lines:
        return
    message = (
        f"{what} would ship what looks like secrets:\n{listing(lines, _SHOWN)}\nLet the task have "
        "them at run time (`flyte.Secret`, or the rights of its service account), and revoke what "
        "others may have seen. What is no secret can be allowed: with the comment `pragma: "
        "allowlist secret` on its line, a file or `env:NAME` in the field `allow_secrets`, or a "
        "baseline of detect-secrets (`[flyte].secrets_baseline`). A file that only "
        '`copy_style="all"` or a copied folder brings is left out by `.flyteignore`, '
        f"`.dockerignore` or `[flyte].all_excludes`. See {_DOCS}."
    )
    if flyte.secrets == Secrets.ERROR:
        raise FlyteTargetError(address, message)
    logger.warning(f"{FlyteTargetError(address, message)}")


def _tell_of_unused(
    target: Target, what: str, shipped: Iterable[str], suspects: Iterable[str]
) -> None:
    """Of globs that allow nothing. An image without code has none of the files that they match."""
    for entry in _entries(target):
        if entry.startswith(VARIABLE):
            continue
        allows = _matcher(target.address, [entry])
        may_match_code = isinstance(target, FlyteImage) and not allows.matches(sorted(shipped))
        if not may_match_code and not allows.matches(sorted(suspects)):
            _tell_of_idle(target.address, entry, f"file of {what} that it matches")


def _tell_of_idle(address: Address, entry: str, which: str) -> None:
    logger.warning(
        f"{address}: `{FlyteAllowSecretsField.alias}` has {entry!r}, which allows nothing: no "
        f"{which} holds what looks like a secret. Take it out, so that it hides none that comes."
    )


def _told(problem: Problem, owner: Optional[Address]) -> str:
    place = f"{problem.path}:{problem.line}" if problem.line else problem.path
    return f"{place}: {problem.what}" + (f" (owner: {owner})" if owner else "")


def _key(problem: Problem) -> Tuple[str, int, str]:
    return problem.path, problem.line, problem.what


def _sources(sighting: Sighting) -> List[str]:
    return [seen.source for seen in sighting.secrets]


def _path(source: str) -> str:
    return source.partition("/")[2]


# --- what people allow ----------------------------------------------------------------------------


async def _allowed(target: Target, flyte: FlyteSubsystem) -> Allowed:
    entries = _entries(target)
    here = _matcher(target.address, [one for one in entries if not one.startswith(VARIABLE)])
    try:
        everywhere = matcher(flyte.allowed_files, "[flyte].allow_secrets")
    except UserError as error:
        raise FlyteTargetError(target.address, f"{error}") from None
    return Allowed(
        (everywhere, here),
        frozenset((*flyte.allowed_variables, *variables_among(entries))),
        await _baseline(target.address, flyte),
    )


def _entries(target: Target) -> Sequence[str]:
    own = target[FlyteAllowSecretsField].value if target.has_field(FlyteAllowSecretsField) else ()
    return own or ()


def _matcher(address: Address, entries: Sequence[str]) -> FilespecMatcher:
    globs = [_from_root(address, one) for one in entries]
    try:
        return matcher(globs, FlyteAllowSecretsField.alias)
    except UserError as error:
        raise FlyteTargetError(address, f"{error}") from None


def _from_root(address: Address, glob: str) -> str:
    found = path_from_root(address, glob)
    if found is None:
        alias = FlyteAllowSecretsField.alias
        raise FlyteTargetError(address, f"`{alias}`: {glob!r} leaves the build root.")
    return found


async def _baseline(address: Address, flyte: FlyteSubsystem) -> Mapping[str, FrozenSet[str]]:
    """The file of `[flyte].secrets_baseline`, as detect-secrets writes it."""
    place = flyte.secrets_baseline
    if not place:
        return {}
    found = await engine.contents_matching(exactly([place]))
    if not found:
        raise FlyteTargetError(
            address, f"`[flyte].secrets_baseline` is {place!r}, and there is no such file."
        )
    try:
        baseline = read_baseline(found[0].content)
    except (ValueError, RecursionError):
        raise FlyteTargetError(
            address,
            f"{place}, the file of `[flyte].secrets_baseline`, is no baseline: `detect-secrets "
            f"scan path/to/code > {place}` writes one.",
        ) from None
    await _tell_of_gone(place, baseline)
    return baseline


async def _tell_of_gone(place: str, baseline: Mapping[str, FrozenSet[str]]) -> None:
    """Of files in the baseline that are no more. Those in hidden directories Pants does not see."""
    paths = sorted(path for path in baseline if not f"/{path}".count("/."))
    there = set((await engine.files_matching(exactly(paths))).files) if paths else set()
    if gone := [path for path in paths if path not in there]:
        _warn_once(
            f"{place}, the file of `[flyte].secrets_baseline`, has what is not in the repository: "
            f"{listing(gone, _FEW)}\nTake it out, so that it hides no secret that comes."
        )


@lru_cache(maxsize=16)
def _warn_once(message: str) -> None:
    """Many targets have one baseline."""
    logger.warning(message)


def read_baseline(content: bytes) -> Dict[str, FrozenSet[str]]:
    """Of each path, the hashes of its secrets, but for those that a person called real.

    Raises `ValueError` for what is none.
    """
    hashes: Dict[str, FrozenSet[str]] = {}
    try:
        for path, rows in json.loads(content)["results"].items():
            kept = (row["hashed_secret"] for row in rows if row.get("is_secret") is not True)
            hashes[path.replace("\\", "/")] = frozenset(kept)
    except (TypeError, KeyError, AttributeError):
        raise ValueError("no baseline") from None
    return hashes
