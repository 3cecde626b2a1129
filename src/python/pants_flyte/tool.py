"""The program of this backend: `flyte_pack` with `flyte_shim`, from the installed packages."""

from __future__ import annotations

import importlib.resources
from typing import Mapping, Optional, Sequence, Tuple

from pants.backend.python.target_types import EntryPoint, PexLayout
from pants.backend.python.util_rules.pex import PexRequest
from pants.build_graph.address import Address
from pants.core.goals.run import RunRequest
from pants.engine.fs import Digest, GlobMatchErrorBehavior, PathGlobs
from pants.engine.process import InteractiveProcess

from flyte_pack.registry.plan import check_host
from flyte_shim.paths import path_problem
from pants_flyte import engine
from pants_flyte.errors import FlyteTargetError
from pants_flyte.globs import literal_glob
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem

_RESOURCE = "resource://"
_LOCK = "flyte_pack.lock"
_PREPARE = {
    "lockfile": "Prepare the packer",
    "image_lockfile": "Prepare what builds images",
    "deploy_lockfile": "Prepare what deploys and runs images",
}


async def _lock_file(flyte_pack: FlytePackSubsystem, needs: str) -> bytes:
    """The lock file that the option `needs` names."""
    option = f"[{flyte_pack.options_scope}].{needs}"
    place: str = getattr(flyte_pack, needs)
    if place.startswith(_RESOURCE):
        package, _, name = place[len(_RESOURCE) :].partition("/")
        try:
            return importlib.resources.files(package).joinpath(name).read_bytes()
        except (ImportError, OSError, ValueError):
            raise ValueError(
                f"`{option}` is {place}, and no Python package of this name has this file: give a "
                "path from the build root, or leave the option unset."
            ) from None
    found = await engine.contents_matching(
        PathGlobs(
            [literal_glob(place)],
            glob_match_error_behavior=GlobMatchErrorBehavior.error,
            description_of_origin=f"the option `{option}`",
        )
    )
    return found[0].content


async def program_pex(flyte_pack: FlytePackSubsystem, needs: str = "lockfile") -> PexRequest:
    """The program with its third-party packages, ready for a sandbox or the workspace.

    needs: the option of `[flyte-pack]` that names the lock file. Packing a bundle installs less
    than deploying it.

    The lock file goes to PEX as it is. Pants' own loader wants other things beside it in each
    version, and is about to refuse requirements files.
    """
    # Pants puts a head of `//` lines on the lock files that it generates; no format has such lines.
    lines = (await _lock_file(flyte_pack, needs)).splitlines(keepends=True)
    lock = b"".join(line for line in lines if not line.lstrip().startswith(b"//"))
    # PEX knows two formats: its own, which is JSON, and requirements files.
    form = ("--lock",) if lock.lstrip().startswith(b"{") else ("--no-transitive", "--requirement")
    return PexRequest(
        output_filename="flyte_pack.pex",
        internal_only=True,
        layout=PexLayout.ZIPAPP,
        additional_args=(*form, _LOCK),
        additional_inputs=await engine.create_digest({_LOCK: lock}),
        interpreter_constraints=flyte_pack.constraints(needs),
        main=EntryPoint("flyte_pack.__main__"),
        sources=await engine.program_sources(),
        description=_PREPARE[needs],
    )


async def interactive_program(
    flyte_pack: FlytePackSubsystem,
    command: Sequence[str],
    files: Sequence[Digest],
    env: Optional[Mapping[str, str]] = None,
) -> RunRequest:
    """`command` of the program that deploys, pushes and runs images, with these files at hand.

    The files are at `{chroot}`. What the user types follows `command`. env: variables that it gets
    besides those of the caller.
    """
    environment = await engine.tool_environment(await program_pex(flyte_pack, "deploy_lockfile"))
    return RunRequest(
        digest=await engine.merge_digests([environment.digest, *files]),
        args=(f"{{chroot}}/{environment.argv0}", *command),
        extra_env={**(env or {}), **environment.env},
        append_only_caches=environment.append_only_caches,
    )


def interactive_process(
    program: RunRequest, env: Mapping[str, str], *args: str
) -> InteractiveProcess:
    """The program as `experimental-deploy` and `publish` start it, in the build root."""
    return InteractiveProcess(
        argv=(*program.args, *args),
        env={**env, **program.extra_env},
        input_digest=program.digest,
        append_only_caches=program.append_only_caches,
        run_in_workspace=True,
    )


def report_arguments(flyte: FlyteSubsystem, what: str, address: Address) -> Tuple[str, ...]:
    """Where the program is to write its report, as arguments; none without `report_dir`."""
    if not flyte.report_dir:
        return ()
    problem = path_problem(flyte.report_dir)
    if problem:
        raise FlyteTargetError(
            address,
            "`[flyte].report_dir` names a directory below the build root, like dist/reports, not "
            f"{problem}.",
        )
    return "--report", f"{flyte.report_dir}/{what}.{address.path_safe_spec}.json"


def insecure_arguments(flyte: FlyteSubsystem) -> Tuple[str, ...]:
    """`[flyte].insecure_registries`, as arguments of the program."""
    hosts = map(check_host, flyte.insecure_registries)
    return tuple(part for host in hosts for part in ("--insecure", host))
