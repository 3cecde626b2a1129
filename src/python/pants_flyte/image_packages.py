"""The layers of third-party packages: what the closure requires, from the lock file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import FrozenSet, List, Mapping, Optional, Sequence, Set, Tuple

from pants.backend.python.subsystems.repos import PythonRepos
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    PythonRequirementResolveField,
    PythonRequirementsField,
    PythonResolveField,
)
from pants.backend.python.util_rules.pex import VenvPex
from pants.build_graph.address import Address
from pants.engine.fs import Digest, FileContent
from pants.engine.process import FallibleProcessResult
from pants.engine.target import Target
from pants.option.global_options import ca_certs_path_to_file_content
from pants.util.docutil import bin_name

from flyte_pack.image.compiler import Compiler
from flyte_pack.image.environment import PACKAGE_LAYERS, Environment
from flyte_pack.json_fields import canonical
from flyte_pack.oci.model import Platform
from flyte_pack.oci.parts import Layer
from pants_flyte import engine
from pants_flyte.closure import reached_from
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import exactly
from pants_flyte.image_process import OUT, blobs, layers_of, run_steps, step
from pants_flyte.image_target_types import (
    FlyteImageLockExtrasField,
    FlyteImageLockGroupsField,
)

_UV_CACHE = ".cache/flyte_uv"
_LOCK = "resolve.lock"
_ROOTS = "roots.txt"
PINS = "subset.txt"
_INDEXES = "indexes.json"


async def requirements_of(address: Address, resolve: str, python_setup: PythonSetup) -> List[str]:
    """What the closure requires, sorted. Raises `FlyteTargetError` for another resolve's."""
    found: Set[str] = set()
    for target in await reached_from([address], python_setup):
        if not target.has_field(PythonRequirementsField):
            continue
        its = target[PythonRequirementResolveField].normalized_value(python_setup)
        if its != resolve:
            raise FlyteTargetError(
                address,
                f"it depends on {target.address}, which belongs to the resolve `{its}`, while the "
                f"image's is `{resolve}`. Set `resolve`, or depend on the requirement of that "
                "resolve.",
            )
        found.update(str(requirement) for requirement in target[PythonRequirementsField].value)
    return sorted(found)


async def lock_of(address: Address, resolve: str, python_setup: PythonSetup) -> FileContent:
    path = python_setup.resolves.get(resolve) if python_setup.enable_resolves else None
    if path is None:
        raise FlyteTargetError(
            address,
            "third-party packages of an image come from a lock file: set "
            "`[python].enable_resolves = true` and name one in `[python.resolves]` for "
            f"`{resolve}`.",
        )
    found = await engine.contents_matching(exactly([path]))
    if not found:
        raise FlyteTargetError(
            address,
            f"the lock file of the resolve `{resolve}`, {path}, is not there. `{bin_name()} "
            f"generate-lockfiles --resolve={resolve}` makes it, from the `python_requirement` "
            "targets of that resolve, of which Flyte has to be one.",
        )
    return found[0]


@dataclass(frozen=True)
class _Tool:
    """What the steps share.

    address: for errors; images of the same packages share processes. settings: a digest of where
    packages are, and of certificates, where some are configured.
    """

    address: Address
    program: VenvPex
    environments: Mapping[Platform, Environment]
    settings: Digest
    env: Mapping[str, str]


@dataclass(frozen=True)
class Packages:
    """layers: for each platform. names: of its distributions. blobs: digests of the layers.

    pins: for each platform the file `PINS`, as `image-resolve` wrote it; none without packages.
    """

    layers: Tuple[Tuple[Layer, ...], ...]
    blobs: Tuple[Digest, ...]
    names: Tuple[FrozenSet[str], ...]
    pins: Tuple[Digest, ...] = ()


async def package_layers(
    target: Target,
    *,
    roots: Sequence[str],
    environments: Mapping[Platform, Environment],
    room: int,
    program: VenvPex,
    python_setup: PythonSetup,
    repos: PythonRepos,
    certificates: Optional[str],
    compilers: Mapping[Platform, Optional[Compiler]],
) -> Packages:
    """roots: of `requirements_of`. room: how many layers there may be."""
    address = target.address
    if not roots:
        return Packages(((),) * len(environments), (), (frozenset(),) * len(environments))
    resolve = target[PythonResolveField].normalized_value(python_setup)
    lock = await lock_of(address, resolve, python_setup)
    settings, env = await _where_packages_are(repos, certificates)
    tool = _Tool(address, program, environments, settings, env)
    subsets = await _resolved(tool, lock, resolve, roots, choice_of(target))
    argv: Tuple[str, ...] = ("image-install", "--requirements", PINS, "--out", OUT)
    if room < PACKAGE_LAYERS:
        argv = (*argv, "--max-layers", str(room))
    about = f"Install the packages of {address} for"
    installed = await _on_each(tool, argv, subsets, about, tuple(compilers.values()))
    return Packages(
        tuple([await layers_of(result) for result in installed]),
        tuple([await blobs(result) for result in installed]),
        tuple([await _names_in(subset) for subset in subsets]),
        tuple(subsets),
    )


async def _names_in(subset: Digest) -> FrozenSet[str]:
    """Of the distributions that `image-resolve` has chosen, normalized."""
    pins = (await engine.contents(subset))[0].content.decode()
    return frozenset(line.partition("==")[0] for line in pins.splitlines() if "==" in line)


def choice_of(image: Target) -> Tuple[str, ...]:
    """The arguments that say what a lock file is read for."""
    extras, groups = image[FlyteImageLockExtrasField], image[FlyteImageLockGroupsField]
    return (
        *(word for extra in sorted(extras.value or ()) for word in ("--extra", extra)),
        *(word for group in sorted(groups.value or ()) for word in ("--group", group)),
    )


async def _where_packages_are(
    repos: PythonRepos, certificates: Optional[str]
) -> Tuple[Digest, Mapping[str, str]]:
    """For the steps that ask indexes: files, and variables."""
    trusted = [ca_certs_path_to_file_content(certificates)] if certificates else []
    files = {_INDEXES: _indexes(repos), **{file.path: file.content for file in trusted}}
    env = {
        **(await engine.subprocess_environment()),
        "UV_CACHE_DIR": _UV_CACHE,
        **({"SSL_CERT_FILE": trusted[0].path} if trusted else {}),
    }
    return await engine.create_digest(files), env


async def resolved_here(
    address: Address,
    lock: FileContent,
    roots: Sequence[str],
    interpreter: str,
    *,
    resolve: str,
    choice: Sequence[str],
    program: VenvPex,
    repos: PythonRepos,
    certificates: Optional[str],
) -> FileContent:
    """Requirements with hashes: the locked packages that `roots` need in an interpreter of this
    machine. choice: of `choice_of`. Raises `FlyteTargetError`.
    """
    settings, env = await _where_packages_are(repos, certificates)
    (result,) = await run_steps(
        address,
        [
            step(
                program,
                (
                    *_resolving(resolve, choice),
                    *("--interpreter", interpreter, "--indexes", _INDEXES),
                ),
                await engine.merge_digests([await _question(lock, roots), settings]),
                f"Find the packages that {address} needs here",
                output_files=(PINS,),
                extra_env=env,
                append_only_caches={"flyte_uv": _UV_CACHE},
            )
        ],
    )
    return (await engine.contents(result.output_digest))[0]


def _resolving(resolve: str, choice: Sequence[str]) -> Tuple[str, ...]:
    return (
        *("image-resolve", "--lock", _LOCK, "--resolve", resolve),
        *("--roots", _ROOTS, "--out", PINS),
        *choice,
    )


async def _question(lock: FileContent, roots: Sequence[str]) -> Digest:
    wanted = "".join(f"{root}\n" for root in roots).encode()
    return await engine.create_digest({_LOCK: lock.content, _ROOTS: wanted})


async def _resolved(
    tool: _Tool, lock: FileContent, resolve: str, roots: Sequence[str], choice: Sequence[str]
) -> Sequence[Digest]:
    """The locked packages that `roots` need on each platform."""
    files = await _question(lock, roots)
    argv = _resolving(resolve, choice)
    about = f"Find the packages that {tool.address} needs on"
    count = len(tool.environments)
    results = await _on_each(tool, argv, [files] * count, about, [None] * count)
    return [result.output_digest for result in results]


async def _on_each(
    tool: _Tool,
    argv: Sequence[str],
    inputs: Sequence[Digest],
    about: str,
    compilers: Sequence[Optional[Compiler]],
) -> Tuple[FallibleProcessResult, ...]:
    """Run a step for each platform, with the input of each, and what compiles there."""
    digests = [await engine.merge_digests([digest, tool.settings]) for digest in inputs]
    return await run_steps(
        tool.address,
        [
            step(
                tool.program,
                (*argv, "--platform", str(platform), *_options(environment)),
                digest,
                f"{about} {platform}",
                compiler=compiler,
                output_files=(PINS,),
                extra_env=tool.env,
                append_only_caches={"flyte_uv": _UV_CACHE},
            )
            for (platform, environment), digest, compiler in zip(
                tool.environments.items(), digests, compilers
            )
        ],
    )


def _options(environment: Environment) -> Tuple[str, ...]:
    libc = ("--libc", environment.libc) if environment.libc else ()
    return ("--indexes", _INDEXES, "--python", environment.version, *libc)


def _indexes(repos: PythonRepos) -> bytes:
    """`[python-repos]` as uv's settings, in a file: see `flyte_pack.image.uv.take_indexes`."""
    first, others = repos.indexes[:1], repos.indexes[1:]
    return canonical(
        {
            **({"UV_DEFAULT_INDEX": first[0]} if first else {"UV_NO_INDEX": "1"}),
            **({"UV_INDEX": " ".join(others)} if others else {}),
            **({"UV_FIND_LINKS": ",".join(repos.find_links)} if repos.find_links else {}),
        }
    )
