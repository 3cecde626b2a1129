"""Compares what the code's own Image asks for with the `flyte_image` that a task is linked to.

All of it is told as warnings: the base may have more than is known here, and the linked image is
what counts. What the source does not say literally is left to the same check at deployment, by
`flyte_pack.flyte_side.images`; the words are those of `flyte_pack.flyte_side.asked`.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
from dataclasses import dataclass
from typing import (
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.build_graph.address import Address
from pants.core.target_types import TargetGeneratorSourcesHelperSourcesField
from pants.engine.fs import PathGlobs
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule
from pants.util.logging import LogLevel

from flyte_pack.code.image_scan import Asked, Copied, FilePath
from flyte_pack.flyte_side import asked as words
from flyte_pack.image.copy_rules import file_destination, folder_destination
from flyte_pack.locked import locked
from flyte_pack.names import normalized
from flyte_shim import shown
from pants_flyte import engine
from pants_flyte import image_target_types as types
from pants_flyte.build_types import AskedImage, AskedImageRequest, BuiltImage
from pants_flyte.changed import ordinary_owners
from pants_flyte.entry_point import Repository, find_entry_module, image_asked, repository_of
from pants_flyte.errors import FlyteTargetError
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.globs import exactly, literal_glob
from pants_flyte.image_packages import lock_of
from pants_flyte.known_modules import requirements_by_distribution
from pants_flyte.layout import root_path
from pants_flyte.target_types import FlyteEntryPointField, FlyteTaskImageField

logger = logging.getLogger(__name__)


# --- the files that an Image names ----------------------------------------------------------------


async def _files_named(repository: Repository, asked: Asked) -> Dict[FilePath, str]:
    """Where the files are that an Image names, of those that there are.

    A path that is not from the build root is relative to where Flyte runs: here the top of a
    bundle, otherwise the build root, or the module's directory.
    """
    module = repository.entry.path
    root = root_path((await engine.source_roots([module]))[module])
    copied = [one.src for one in asked.copied]
    candidates: Dict[FilePath, List[str]] = {}
    for path in (*asked.requirements, *asked.projects, *copied):
        tops = ("",) if path.from_root else (root, "", os.path.dirname(module))
        places = [os.path.normpath(os.path.join(top, path.path)) for top in tops]
        candidates[path] = [p for p in places if p.split(os.sep)[0] != os.pardir]
    every = sorted({place for places in candidates.values() for place in places})
    existing = await engine.files_matching(PathGlobs([literal_glob(place) for place in every]))
    there = {*existing.files, *existing.dirs}
    found = {path: [p for p in places if p in there] for path, places in candidates.items()}
    return {path: places[0] for path, places in found.items() if places}


async def owners_of_lists(repository: Repository) -> Tuple[Address, ...]:
    """The owners of the files of requirements that the Image of the entry point names, as far as
    these are not shipped: what `python_requirements` makes of its `source`.
    """
    found = await image_asked(repository)
    if found is None or not (found[1].requirements or found[1].projects):
        return ()
    named = await _files_named(repository, found[1])
    lists = [named[p] for p in (*found[1].requirements, *found[1].projects) if p in named]
    owners = await ordinary_owners(lists)
    return tuple(
        owner.address
        for of_file in owners.values()
        for owner in of_file
        if owner.has_field(TargetGeneratorSourcesHelperSourcesField)
    )


# --- what is compared -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Compared:
    """image: the target, and what was built of it. locked: names of distributions in the lock file
    of its resolve.
    """

    task: Address
    image: Target
    built: BuiltImage
    resolve: str
    locked: FrozenSet[str]

    def variables(self, wanted: Mapping[str, Optional[str]]) -> Iterator[str]:
        own: Mapping[str, str] = self.image[types.FlyteImageEnvField].value or {}
        if unset := [name for name in wanted if name not in own]:
            yield words.variables(unset)
        others = [
            name
            for name, value in wanted.items()
            if value is not None and own.get(name, value) != value and "{env." not in own[name]
        ]
        if others:
            yield words.other_values(others)

    def apt(self, wanted: Sequence[str]) -> Iterator[str]:
        own = self.image[types.FlyteImageAptPackagesField].value
        has = {one.partition("=")[0] for one in own}
        if unmet := [one for one in wanted if one.partition("=")[0] not in has]:
            yield words.apt(unmet)

    def workdir(self, wanted: Optional[str]) -> Iterator[str]:
        if wanted is not None and posixpath.normpath(wanted) != self.built.workdir:
            yield words.workdir(wanted)

    def python(self, wanted: Optional[Tuple[int, int]]) -> Iterator[str]:
        has = self.built.pythons
        if wanted is not None and any(one != f"{wanted[0]}.{wanted[1]}" for one in has):
            yield words.python(wanted, ", ".join(has))

    def copied(self, one: Copied, path: str) -> Iterator[str]:
        """path: from the build root."""
        files = self.built.code.items()
        only, workdir = one.contents_only, self.built.workdir
        if one.is_folder:
            top = folder_destination(path, one.dst, only, workdir)
            inside = f"{path}/" if path != "." else ""
            met = any(
                source.startswith(inside) and place == posixpath.join(top, source[len(inside) :])
                for place, source in files
            )
        else:
            met = (file_destination(path, one.dst, workdir), path) in files
        if not met:
            field = "source_folders" if one.is_folder else "source_files"
            yield words.copied(path, one.dst, f"`{field}`", _entry(self.image.address, one, path))


def _entry(address: Address, one: Copied, path: str) -> str:
    """What to write into a BUILD file."""
    directory = f"{address.spec_path}/" if address.spec_path else ""
    src = path[len(directory) :] if path.startswith(directory) else f"//{path}"
    only = ', "copy_contents_only": True' if one.contents_only else ""
    return f'{{"src": {json.dumps(src)}, "dst": {json.dumps(one.dst)}{only}}}'


async def _compared(task: Address, built: BuiltImage, python_setup: PythonSetup) -> _Compared:
    (image,) = await engine.targets_at([built.address])
    resolve = image[PythonResolveField].normalized_value(python_setup)
    try:
        names = locked((await lock_of(task, resolve, python_setup)).content).names
    except FlyteTargetError:
        names = frozenset()  # without a lock file an image has no packages but its base's
    return _Compared(task, image, built, resolve, names)


async def _packages_compared(
    compared: _Compared,
    wanted: Iterable[str],
    python_setup: PythonSetup,
    file: Optional[str] = None,
) -> List[str]:
    """wanted: requirements. file: that they are in."""
    unlocked, unmet = [], []
    for one in wanted:
        name = normalized(words.distribution_of(one) or "")
        if name in compared.built.distributions:
            continue
        if name not in compared.locked:
            unlocked.append(one)
        elif ";" not in one:  # the marker may be about other platforms
            unmet.append(name)
    lines = [*(words.packages_of_file(file, unlocked) if file else words.packages(unlocked))]
    if unmet:
        targets = await requirements_by_distribution(compared.resolve, python_setup)
        bring = [str(next(iter(targets.get(name, ())), "")) for name in unmet]
        lines.append(words.packages_left_out(unmet, compared.image.address.spec, bring))
    return lines


async def _lists_compared(
    compared: _Compared, asked: Asked, files: Mapping[FilePath, str], python_setup: PythonSetup
) -> List[str]:
    """The files of requirements. What is read is owned by what the task reaches: then an edit
    selects the task under `--changed-since`.
    """
    lists = [
        *((path, words.requirements_in) for path in asked.requirements),
        *((path, words.project_dependencies) for path in asked.projects),
    ]
    places = [files[path] for path, _ in lists if path in files]
    if not places:
        return []
    owners = await ordinary_owners(places)
    reached = {t.address for t in (await engine.transitive_targets([compared.task])).closure}
    read = [p for p in places if any(owner.address in reached for owner in owners[p])]
    texts = {file.path: file.content for file in await engine.contents_matching(exactly(read))}
    lines: List[str] = []
    for path, requirements_in in lists:
        place = files.get(path)
        if place in texts:
            wanted = requirements_in(texts[place].decode(errors="replace"))
            lines += await _packages_compared(compared, wanted, python_setup, place)
        elif place is not None:
            owner = next((str(owner.address) for owner in owners[place]), "")
            lines.append(words.not_read(place, owner, str(compared.task)))
    return lines


@rule(desc="Compare a linked image with what the code asks for", level=LogLevel.DEBUG)
async def compare_with_asked(
    request: AskedImageRequest, modules: FirstPartyModules, python_setup: PythonSetup
) -> AskedImage:
    """A rule, so that a task and its image say it once."""
    (task,) = await engine.targets_at([request.task])
    resolve = task[PythonResolveField].normalized_value(python_setup)
    entry = task[FlyteEntryPointField].value
    linked = task[FlyteTaskImageField].to_unparsed_address_inputs()
    if request.image.address not in await engine.resolve_addresses(linked):
        return AskedImage(())  # the engine repeats an earlier question to see if its answer holds
    try:
        module = await find_entry_module(request.task, entry, resolve, python_setup)
        repository = await repository_of(request.task, module, resolve, modules, python_setup)
        found = await image_asked(repository)
    except FlyteTargetError:
        found = None  # building the task reports it; this may be about the image
    if found is None or found[1] == Asked():
        return AskedImage(())
    environment, asked = found
    files = await _files_named(repository, asked)
    (built,) = await engine.build_images([request.image])
    compared = await _compared(request.task, built, python_setup)
    lines = [
        *compared.python(asked.python),
        *await _packages_compared(compared, asked.packages, python_setup),
        *await _lists_compared(compared, asked, files, python_setup),
        *compared.apt(asked.apt),
        *compared.variables(asked.variables),
        *compared.workdir(asked.workdir),
    ]
    for one in asked.copied:
        path = files.get(one.src)
        # The code itself comes in a bundle, or is checked by `embedded`.
        if path is not None and not f"{module.path}/".startswith("" if path == "." else f"{path}/"):
            lines += compared.copied(one, path)
    if asked.commands:
        lines.append(words.commands(map(shown.line, asked.commands)))
    for line in lines:
        logger.warning(shown.printable(f"{request.task}: environment {environment}: {line}"))
    return AskedImage(tuple(lines))


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
