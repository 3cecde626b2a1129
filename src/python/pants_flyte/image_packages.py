"""The third-party packages of an image: what the closure asks for, from the lock file, as layers for each platform."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Set, Tuple

from pants.backend.python.subsystems.repos import PythonRepos
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import (
    PythonRequirementResolveField,
    PythonRequirementsField,
    PythonResolveField,
)
from pants.backend.python.util_rules.interpreter_constraints import InterpreterConstraints
from pants.backend.python.util_rules.pex import VenvPex, VenvPexProcess
from pants.build_graph.address import Address
from pants.engine.fs import Digest, FileContent, PathGlobs
from pants.engine.target import Target
from pants.option.global_options import ca_certs_path_to_file_content
from pants.util.docutil import bin_name
from pants.util.logging import LogLevel

from flyte_pack.oci.model import Platform
from flyte_pack.oci.parts import Layer
from pants_flyte.base_image import Base
from pants_flyte.closure import reached_from
from pants_flyte.engine import (
    contents_matching,
    create_digest,
    find_python,
    merge_digests,
    subprocess_environment,
)
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import literal_glob
from pants_flyte.image_process import OUT, blobs, layers_of, run_steps
from pants_flyte.image_target_types import FlyteImageBytecodeField

_UV_CACHE = ".cache/flyte_uv"


async def requirements_of(address: Address, resolve: str, python_setup: PythonSetup) -> List[str]:
    """What the closure asks for, as it is written, sorted. Raises `FlyteTargetError` for another resolve's."""
    found: Set[str] = set()
    for target in await reached_from([address]):
        if not target.has_field(PythonRequirementsField):
            continue
        its = target[PythonRequirementResolveField].normalized_value(python_setup)
        if its != resolve:
            raise FlyteTargetError(
                address,
                f"it depends on {target.address}, which belongs to the resolve `{its}`, while the image's is `{resolve}`. "
                "Set `resolve`, or depend on the requirement of that resolve.",
            )
        found.update(str(requirement) for requirement in target[PythonRequirementsField].value)
    return sorted(found)


async def _lock_of(address: Address, resolve: str, python_setup: PythonSetup) -> FileContent:
    path = python_setup.resolves.get(resolve) if python_setup.enable_resolves else None
    if path is None:
        raise FlyteTargetError(
            address,
            "third-party packages of an image come from a lock file: set `[python].enable_resolves = true` and name one in "
            f"`[python.resolves]` for `{resolve}`.",
        )
    found = await contents_matching(PathGlobs([literal_glob(path)]))
    if not found:
        raise FlyteTargetError(
            address,
            f"the lock file of the resolve `{resolve}`, {path}, is not there. `{bin_name()} generate-lockfiles "
            f"--resolve={resolve}` makes it.",
        )
    return found[0]


async def package_layers(
    target: Target,
    base: Base,
    platforms: Sequence[Platform],
    tool: VenvPex,
    python_setup: PythonSetup,
    repos: PythonRepos,
    certificates: Optional[str],
) -> Tuple[Tuple[Tuple[Layer, ...], ...], Tuple[Digest, ...]]:
    """The layers for each platform, and the digests of their blobs."""
    address = target.address
    resolve = target[PythonResolveField].normalized_value(python_setup)
    roots = await requirements_of(address, resolve, python_setup)
    if not roots:
        return ((),) * len(platforms), ()
    lock = await _lock_of(address, resolve, python_setup)
    inputs = await create_digest(
        {
            "resolve.lock": lock.content,
            "roots.txt": "".join(f"{root}\n" for root in roots).encode(),
        }
    )
    trusted = [ca_certs_path_to_file_content(certificates)] if certificates else []
    trust = await create_digest({file.path: file.content for file in trusted})
    env = {
        **(await subprocess_environment()),
        **_index_environment(repos),
        **({"SSL_CERT_FILE": trusted[0].path} if trusted else {}),
    }
    # No address: images of the same packages share these processes. No path of the checkout: so do clones.
    common = ("--python", base.python)
    resolved = await run_steps(
        address,
        [
            VenvPexProcess(
                tool,
                argv=(
                    *("image-resolve", "--lock", "resolve.lock", "--roots", "roots.txt"),
                    *("--platform", str(platform), "--out", "subset.txt", *common),
                ),
                input_digest=await merge_digests([inputs, trust]),
                output_files=("subset.txt",),
                extra_env=env,
                append_only_caches={"flyte_uv": _UV_CACHE},
                description=f"Find the packages that {address} needs on {platform}",
                level=LogLevel.INFO,
            )
            for platform in platforms
        ],
    )
    bytecode: Tuple[str, ...] = ()
    if target[FlyteImageBytecodeField].value:
        python = await find_python(InterpreterConstraints([f"CPython=={base.python}.*"]))
        bytecode = ("--bytecode-python", python.path)
    installed = await run_steps(
        address,
        [
            VenvPexProcess(
                tool,
                argv=(
                    *("image-install", "--requirements", "subset.txt", "--out", OUT),
                    *("--platform", str(platform), *common, *bytecode),
                ),
                input_digest=await merge_digests([result.output_digest, trust]),
                output_directories=(OUT,),
                extra_env=env,
                append_only_caches={"flyte_uv": _UV_CACHE},
                description=f"Install the packages of {address} for {platform}",
                level=LogLevel.INFO,
            )
            for platform, result in zip(platforms, resolved)
        ],
    )
    layers = [await layers_of(result) for result in installed]
    return tuple(layers), tuple([await blobs(result) for result in installed])


def _index_environment(repos: PythonRepos) -> Dict[str, str]:
    """`[python-repos]` as uv's settings.

    In the environment, as URLs may hold credentials, and arguments show up in errors.
    """
    env = {"UV_CACHE_DIR": _UV_CACHE}
    indexes = repos.indexes
    if indexes:
        env["UV_DEFAULT_INDEX"] = indexes[0]
    else:
        env["UV_NO_INDEX"] = "1"
    if indexes[1:]:
        env["UV_INDEX"] = " ".join(indexes[1:])
    if repos.find_links:
        env["UV_FIND_LINKS"] = ",".join(repos.find_links)
    return env
