"""`flyte-explain --diff`: what differs from a file, a target, or a deployed version."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence

from pants.build_graph.address import Address
from pants.core.util_rules.distdir import DistDir
from pants.engine.process import InteractiveProcess
from pants.engine.target import Target
from pants.util.docutil import bin_name

from flyte_pack import diff
from flyte_pack.deploy.options import DeployOptions
from flyte_pack.diff import Side
from flyte_pack.errors import UserError
from flyte_pack.explain_json import read_artifact
from pants_flyte import engine
from pants_flyte.build_types import Explained, ExplainRequest
from pants_flyte.deployment import DeploymentFieldSet
from pants_flyte.environment import callers_environment
from pants_flyte.explain import KINDS
from pants_flyte.first_party import FirstPartyModules
from pants_flyte.goals.deploy import deploy_program
from pants_flyte.image_target_types import FlyteImage
from pants_flyte.old_sides import (
    Kind,
    Old,
    address_of,
    deployments_of,
    of_one,
    read_directory,
    read_file,
    side_of_explained,
)
from pants_flyte.subsystem import FlyteSubsystem
from pants_flyte.target_types import FlyteDeployment
from pants_flyte.task_packages import PackageSettings
from pants_flyte.tool import interactive_process, program_pex

# What decides which Pants starts, and how.
_OF_PANTS = (
    *("PANTS_VERSION", "PANTS_CONFIG_FILES", "PANTS_BIN_NAME", "PANTS_SHA", "SCIE_BASE"),
    *("PANTS_LOCAL_STORE_DIR", "PANTS_NAMED_CACHES_DIR", "PYENV_ROOT", "XDG_CACHE_HOME"),
)


@dataclass(frozen=True)
class Deploying:
    """What it takes to start the program that reads stores."""

    flyte: FlyteSubsystem
    packages: PackageSettings
    modules: FirstPartyModules
    dist_dir: DistDir


async def differences(
    typed: str, old: Old, explained: Sequence[Explained]
) -> Sequence[Mapping[str, Any]]:
    """How the only one of `explained` differs from a file or target. Raises `UserError`."""
    with_layers = old.kind in (Kind.LAYOUT, Kind.TARGET)
    if old.kind is not Kind.TARGET:
        await _check_kinds(typed, old.kind is Kind.LAYOUT, explained)
    after = of_one([await side_of_explained(one, with_layers) for one in explained], typed)
    if old.kind is Kind.FILE:
        before = read_file(old.text)
    elif old.kind is Kind.LAYOUT:
        before = read_directory(old.text)
    else:
        address = await _explained_address(typed, await address_of(old.text))
        (target,) = await engine.targets_at([address])
        await _check_kinds(typed, isinstance(target, FlyteImage), explained)
        (other,) = await engine.explain_each([ExplainRequest(address)])
        before = await side_of_explained(other, with_layers)
    return diff.compare_all([before], [after])


async def _check_kinds(typed: str, is_image: bool, explained: Sequence[Explained]) -> None:
    """Raises `UserError` if an image and a bundle would be compared. is_image: of `typed`."""
    for target in await engine.targets_at([one.address for one in explained]):
        if isinstance(target, FlyteImage) != is_image:
            what = "an image" if is_image else "a bundle"
            other = "`flyte_image`" if is_image else "task, app or bundle"
            raise UserError(
                f"--diff={typed} is {what}, and {target.address} is a `{target.alias}`: name the "
                f"{other} to compare it with"
            )


async def _explained_address(typed: str, address: Address) -> Address:
    """Of the one target there that ships something. Raises `UserError`."""
    found = await engine.targets_at([address])
    kinds = sorted({target.alias for target in found})
    if len(found) == 1 and isinstance(found[0], KINDS):
        return found[0].address
    if kinds == [FlyteDeployment.alias]:
        raise UserError(f"--diff={typed} is a `flyte_deployment`: name one of its tasks")
    wanted = " or a ".join(f"`{kind.alias}`" for kind in KINDS)
    raise UserError(f"--diff={typed} is a `{'`, `'.join(kinds)}`: name a {wanted}")


async def since_revision(
    old: Old, addresses: Sequence[Address], explained: Sequence[Explained], deploying: Deploying
) -> Sequence[Mapping[str, Any]]:
    """How each of `explained` differs from what it was. Raises `UserError`.

    addresses: of what was asked about; another Pants explains them, as they were.
    """
    flyte_pack = deploying.packages.flyte_pack
    tool = await engine.tool_environment(await program_pex(flyte_pack))
    with tempfile.TemporaryDirectory() as scratch:
        output = os.path.join(scratch, "told.json")
        process = InteractiveProcess(
            argv=(
                *(f"{{chroot}}/{tool.argv0}", "explain-at", "--revision", old.text),
                *("--pants", bin_name(), "--output", output, "--"),
                *(address.spec for address in addresses),
            ),
            env={
                **(await callers_environment(deploying.flyte)),
                **(await engine.environment_variables(_OF_PANTS)),
                **tool.env,
            },
            input_digest=tool.digest,
            append_only_caches=tool.append_only_caches,
            run_in_workspace=True,
        )
        if await engine.run_interactive(process):
            raise UserError(f"what was there at {old.text} is not known")
        with open(output, "rb") as file:
            told = json.loads(file.read())["artifacts"]
    before = [Side(one["address"], read_artifact(one)) for one in told]
    after = {one.artifact.root: Side(one.artifact.root, one.artifact) for one in explained}
    return diff.compare_all(before, list(after.values()))


async def deployed(
    typed: str,
    old: Old,
    addresses: Sequence[Address],
    deploying: Deploying,
    as_json: bool,
    output_file: Optional[str],
) -> int:
    """Have the program tell it that deploys, for it reads stores; gives the exit code.

    Raises `UserError`.
    """
    deployment = await _deployment_of(typed, await engine.targets_at(addresses))
    options = DeployOptions(command="diff", which=old.text or None, checkout=True)
    program = await deploy_program(
        DeploymentFieldSet.create(deployment),
        options,
        deploying.flyte,
        deploying.packages,
        deploying.modules,
        deploying.dist_dir,
        more=("--output-file", os.path.abspath(output_file)) if output_file else (),
    )
    words = ("diff", *((old.text,) if old.text else ()), "--checkout")
    form = ("--output", "json") if as_json else ()
    environment = await callers_environment(deploying.flyte)
    return await engine.run_interactive(interactive_process(program, environment, *words, *form))


async def since_version(
    typed: str, old: Old, addresses: Sequence[Address], deploying: Deploying
) -> Sequence[Mapping[str, Any]]:
    """What `deployed` tells. Raises `UserError`."""
    with tempfile.TemporaryDirectory() as scratch:
        output = os.path.join(scratch, "told.json")
        if await deployed(typed, old, addresses, deploying, True, output):
            raise UserError(f"what differs from {typed} is not known")
        with open(output, "rb") as file:
            found: Sequence[Mapping[str, Any]] = json.loads(file.read())["differences"]
    return found


async def _deployment_of(typed: str, targets: Sequence[Target]) -> Target:
    found: List[Target] = []
    for target in targets:
        if isinstance(target, FlyteDeployment):
            found.append(target)
            continue
        theirs = await deployments_of(target.address)
        if len(theirs) != 1:
            names = ", ".join(sorted(address.spec for address in theirs))
            has = (
                f"several have {target.address}: {names}"
                if theirs
                else f"none has {target.address}"
            )
            raise UserError(
                f"--diff={typed} is a version of a `flyte_deployment`, and {has}. Name "
                "the deployment instead of the task"
            )
        found += await engine.targets_at(theirs)
    found = list(dict.fromkeys(found))
    if len(found) != 1:
        names = ", ".join(target.address.spec for target in found) or "none"
        raise UserError(f"--diff={typed} takes one `flyte_deployment`, not {names}")
    return found[0]
