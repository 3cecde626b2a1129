"""Builds a `flyte_image`: an OCI layout of a base, third-party packages, the shim and code."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Dict, FrozenSet, Iterable, Mapping, Optional, Pattern, Sequence, Tuple, Union

from pants.backend.python.subsystems.repos import PythonRepos
from pants.backend.python.subsystems.setup import PythonSetup
from pants.backend.python.target_types import PythonResolveField
from pants.build_graph.address import Address
from pants.core.goals.package import OutputPathField
from pants.engine.rules import Rule, collect_rules, rule
from pants.engine.target import Target
from pants.engine.unions import UnionRule
from pants.option.global_options import GlobalOptions
from pants.util.frozendict import FrozenDict
from pants.util.logging import LogLevel

from flyte_pack.errors import listing
from flyte_pack.image.assemble import ImageSettings, assemble
from flyte_pack.image.environment import (
    Environment,
    beside,
    private_directory,
    room_for_packages,
)
from flyte_pack.image.filesystem import HOME, SHIM, VENV
from flyte_pack.names import InvalidName, check_ref_name
from flyte_pack.oci.model import TITLE, InvalidImage, Platform
from flyte_pack.oci.parts import Layer, layer_path_problem
from flyte_pack.progress import megabytes
from flyte_pack.task_link import LinkedFile
from flyte_shim.words import word_problem
from pants_flyte import engine
from pants_flyte import image_target_types as types
from pants_flyte.base_image import Base, image_platforms, load_base
from pants_flyte.build_types import BuiltImage, ImageRequest
from pants_flyte.bundle import NEAR
from pants_flyte.bytecode import compilers_for
from pants_flyte.errors import FlyteTargetError
from pants_flyte.flyte_in_image import check_flyte
from pants_flyte.guards import check_files, check_variables
from pants_flyte.holes import hole_values
from pants_flyte.image_apt import apt_layers
from pants_flyte.image_code import (
    code_layer,
    code_of,
    hiding_process,
    shim_processes,
    sighting_of,
)
from pants_flyte.image_packages import package_layers, requirements_of
from pants_flyte.image_process import blobs, layers_of
from pants_flyte.inventory import image_sbom, wants_sbom
from pants_flyte.subsystem import FlytePackSubsystem, FlyteSubsystem
from pants_flyte.target_types import checked_output_path
from pants_flyte.targets import target_at
from pants_flyte.tool import program_pex
from pants_flyte.unowned import OwnedFiles

logger = logging.getLogger(__name__)

_VARIABLE = re.compile(r"\{(env\.[A-Za-z_][A-Za-z0-9_]*)\}")
_HOLE = re.compile(r"\{([a-z_]+|env\.[A-Za-z_][A-Za-z0-9_]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_USER = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?")


async def _settings(target: Target, flyte: FlyteSubsystem) -> ImageSettings:
    address = target.address
    user, workdir = (
        target[types.FlyteImageUserField].value,
        target[types.FlyteImageWorkdirField].value,
    )
    if not _USER.fullmatch(user or ""):
        raise FlyteTargetError(
            address, f"`user` is {user!r}; give numbers of user and group, such as `1000:1000`."
        )
    if not workdir or not workdir.startswith("/") or layer_path_problem(workdir[1:]):
        raise FlyteTargetError(
            address,
            f"`workdir` is {workdir!r}; give an absolute path below `/`, such as "
            "`/home/flyte/task`.",
        )
    env: Mapping[str, str] = target[types.FlyteImageEnvField].value or {}
    for name in env:
        if not _NAME.fullmatch(name):
            raise FlyteTargetError(address, f"`env`: {name!r} cannot be the name of a variable.")
    own: Mapping[str, str] = target[types.FlyteImageLabelsField].value or {}
    labels = {**flyte.image_labels, **own}
    # Variables often hold braces of their own.
    filled = await _filled(address, "env", env, _VARIABLE, None)
    return ImageSettings(
        # The entry point is the shim. If a pod has a command of its own, a0 starts the shim.
        env={"HOME": HOME, "_F_EXEC_WRAPPER": f"/{VENV}/bin/flyte-shim", **filled},
        labels={
            TITLE: address.spec,
            **await _filled(address, "labels", labels, _HOLE, flyte.version),
        },
        user=user or "",
        workdir=workdir,
        entrypoint=("flyte-shim", "--"),
    )


async def _filled(
    address: Address,
    field: str,
    texts: Mapping[str, str],
    holes: Pattern[str],
    version: Optional[str],
) -> Dict[str, str]:
    """With what stands in braces replaced. Raises `FlyteTargetError` for what has no value."""
    wanted = {hole for text in texts.values() for hole in holes.findall(text)}
    values = await hole_values(address, wanted, version)
    for hole in sorted(wanted - values.keys()):
        advice = "known are {git_commit}, {version} (`--flyte-version=V`) and {env.NAME}"
        if hole.startswith("env."):
            advice = f"the variable {hole[4:]} is not set"
        raise FlyteTargetError(address, f"`{field}`: `{{{hole}}}` has no value: {advice}.")
    filled = {key: holes.sub(lambda match: values[match[1]], text) for key, text in texts.items()}
    for key, text in filled.items():
        if problem := word_problem(key) or word_problem(text, lines=True):
            raise FlyteTargetError(address, f"`{field}`: {key!a:.100} or its value {problem}.")
    return filled


@rule(desc="Build a Flyte image", level=LogLevel.DEBUG)
async def build_image(
    request: ImageRequest,
    flyte: FlyteSubsystem,
    flyte_pack: FlytePackSubsystem,
    python_setup: PythonSetup,
    repos: PythonRepos,
    global_options: GlobalOptions,
    owned: OwnedFiles,
) -> BuiltImage:
    address = request.address
    target = await target_at(address, types.FlyteImage)
    with_code = wants_code(target, request)
    own_output = with_code == bool(target[types.FlyteImageCodeField].value)
    settings = await _settings(target, flyte)
    await check_variables(target, {"env": settings.env, "labels": settings.labels}, flyte)
    named = target[types.FlyteImageBaseField].to_unparsed_address_inputs()
    (base_target,) = await engine.targets_at(await engine.resolve_addresses(named))
    await engine.check_dependencies([target[types.FlyteImageDependenciesField]])
    base = await load_base(base_target, flyte_pack, python_setup)
    platforms = image_platforms(target, base)
    tool = await engine.venv_pex(await program_pex(flyte_pack, "image_lockfile"))

    code = await code_of(target, with_code, settings.workdir, flyte, python_setup, owned)
    resolve = target[PythonResolveField].normalized_value(python_setup)
    roots = await requirements_of(address, resolve, python_setup)
    environments = {platform: base.environments[platform] for platform in platforms}
    _check_user(address, base, settings, environments.values())
    if any(environment.user_packages for environment in environments.values()):
        # They would come before the locked packages.
        settings = replace(settings, env={"PYTHONNOUSERSITE": "1", **settings.env})
    apt = await apt_layers(target, base, platforms, flyte, tool)
    compilers = await compilers_for(target, base.address, environments, flyte, tool)
    compiles_code = bool(code.files) and compilers.for_all is not None
    packages = await package_layers(
        target,
        roots=roots,
        environments=environments,
        room=_room(base, platforms, bool(roots), (apt is not None) + compiles_code),
        program=tool,
        python_setup=python_setup,
        repos=repos,
        certificates=global_options.ca_certs_path,
        compilers=compilers.of,
    )
    settled = [beside(e, names) for e, names in zip(environments.values(), packages.names)]
    lacking = [e for (e, _), names in zip(settled, packages.names) if "flyte" not in names]
    await check_flyte(target, roots, lacking, python_setup)
    shims = await shim_processes(
        [
            (environment, "flyte" in names or environment.has_flyte is not False, compiler)
            for (environment, _), names, compiler in zip(
                settled, packages.names, compilers.of.values()
            )
        ],
        tool,
        address,
    )
    # What of the base gives way is hidden by a layer below ours.
    hiding = [await hiding_process(left, tool, address) for _, left in settled if left.what]
    done, embedded = await code_layer(
        address, code, settings, (*shims, *hiding), tool, compilers.for_all
    )
    owner_of = dict.fromkeys(code.files.values())
    seen = await sighting_of(embedded[-1])
    await check_files(target, "the image", code.files, owner_of, seen, flyte)
    hidden = iter(done[len(shims) :])
    code_layers = [layer for result in embedded for layer in await layers_of(result)]
    layers = {}
    for platform, (_, left), of_platform, shim in zip(platforms, settled, packages.layers, done):
        below = await layers_of(next(hidden)) if left.what else ()
        debian = apt.layers[platform] if apt else ()
        layers[platform] = (*debian, *below, *of_platform, *await layers_of(shim), *code_layers)
    _check_budget(target, base, layers, flyte)
    image = assemble(base.image, layers, settings)
    output = target[OutputPathField]
    layout = checked_output_path(output, output.value_or_default(file_ending=None))
    layout += "" if own_output else "-with-code"
    documents = await engine.create_digest(image.documents)
    ours = [await blobs(result) for result in (*done, *embedded)]
    parts = [documents, base.blobs, *(apt.blobs if apt else ()), *packages.blobs, *ours]
    digest = await engine.under_prefix(await engine.merge_digests(parts), layout)
    sbom: Optional[LinkedFile] = None
    if wants_sbom(target, flyte):
        listed, sbom = await image_sbom(
            address,
            image.digest,
            layout,
            base=base,
            layers=layers,
            environments=environments,
            code=code,
            pins=packages.pins,
            blobs=parts[2:],
            flyte_pack=flyte_pack,
        )
        digest = await engine.merge_digests([digest, listed])
    return BuiltImage(
        address=address,
        digest=digest,
        layout=layout,
        image_digest=image.digest,
        base_name=base.image.name,
        production=base.image.production,
        platforms=tuple(map(str, platforms)),
        workdir=settings.workdir,
        ref_name=_ref_name(target),
        embeds_code=with_code,
        own_output=own_output,
        code=FrozenDict(code.files),
        modules=code.modules,
        layers=len(next(iter(layers.values()))),
        bytes=sum({layer.digest: layer.size for of in layers.values() for layer in of}.values()),
        notes=tuple(dict.fromkeys(note for environment, _ in settled for note in environment.notes))
        + compilers.notes,
        distributions=_distributions((e, names) for (e, _), names in zip(settled, packages.names)),
        pythons=tuple(dict.fromkeys(environment.minor for environment, _ in settled)),
        sbom=sbom,
        base_digest=base.image.digest,
    )


def _check_budget(
    target: Target, base: Base, layers: Mapping[Platform, Sequence[Layer]], flyte: FlyteSubsystem
) -> None:
    """Raises `FlyteTargetError` for an image over its budget, and warns of one that is near it."""
    most = target[types.FlyteImageMaxSizeField].bytes or flyte.most_image_bytes
    if most is None:
        return
    for platform, ours in layers.items():
        below = base.image.for_platform(platform)
        assert below is not None
        parts = [(layer.size, layer.what) for layer in ours]
        parts.append((sum(layer.size for layer in below.layers), f"the base, {base.address}"))
        size = sum(size for size, _ in parts)
        if size < most * NEAR:
            continue
        about = (
            f"on {platform} its layers have {megabytes(size)}, and `max_size` is {megabytes(most)}."
        )
        if size <= most:
            logger.warning(f"{target.address}: {about}")
            continue
        heaviest = sorted(parts, key=lambda part: (-part[0], part[1]))[:3]
        raise FlyteTargetError(
            target.address,
            f"{about} The heaviest:\n"
            + listing(f"{what}: {megabytes(size)}" for size, what in heaviest)
            + "\nLet the image do without one of them, take a smaller base, or raise `max_size`.",
        )


def _distributions(
    platforms: Iterable[Tuple[Environment, FrozenSet[str]]],
) -> FrozenSet[str]:
    """platforms: each with the names of its locked packages."""
    return frozenset.intersection(
        *(
            names
            | {one.name for one in environment.distributions}
            | {SHIM}
            | ({"flyte"} if environment.has_flyte else frozenset())
            for environment, names in platforms
        )
    )


def _ref_name(target: Target) -> Optional[str]:
    name = target[types.FlyteImageRefNameField].value
    try:
        return None if name is None else check_ref_name(name)
    except InvalidName as error:
        raise FlyteTargetError(target.address, f"`ref_name`: {error}.") from None


def _check_user(
    address: Address, base: Base, settings: ImageSettings, environments: Iterable[Environment]
) -> None:
    for environment in environments:
        if directory := private_directory(environment, settings.user):
            raise FlyteTargetError(
                address,
                f"its user {settings.user} cannot start the Python of {base.address}, "
                f"{environment.interpreter}, as {directory} is closed to others. Set `user` to one "
                'who may ("0:0"), or take a base that has Python elsewhere.',
            )


def _room(base: Base, platforms: Iterable[Platform], packages: bool, more: int) -> int:
    """For layers of packages, which need at least one. more: Debian's, and of bytecode."""
    rooms = []
    for platform in platforms:
        below, environment = base.image.for_platform(platform), base.environments[platform]
        assert below is not None
        # The shim's and the code's, and one that may hide what of the base gives way.
        others = 2 + more + (environment.occupied or bool(environment.distributions))
        try:
            rooms.append(room_for_packages(below, others + packages) + packages)
        except InvalidImage as error:
            raise FlyteTargetError(base.address, f"{error}.") from None
    return min(rooms)


def wants_code(target: Target, request: ImageRequest) -> bool:
    """Whether the graph's code goes in: by the target or, if that leaves it open, the request."""
    own = target[types.FlyteImageCodeField].value
    if own is None and not target[types.FlyteImageSourceFoldersField].value:
        return bool(request.code)
    return bool(own)


def rules() -> Iterable[Union[Rule, UnionRule]]:
    return collect_rules()
