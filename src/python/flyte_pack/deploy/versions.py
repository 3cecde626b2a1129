"""What differs between two deployed versions, or between one and what was packaged just now."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from flyte_pack.deploy.contents import Wrong, read_manifest
from flyte_pack.deploy.images import read_pushes
from flyte_pack.deploy.links import read_links
from flyte_pack.deploy.plan import Request
from flyte_pack.deploy.records import DeployedTask, RecordedTask, StoredBundle, VersionRecord
from flyte_pack.deploy.task_images import images_of
from flyte_pack.diff import Side
from flyte_pack.errors import UserError
from flyte_pack.explain import Artifact
from flyte_pack.manifest import Manifest
from flyte_pack.manifest_graph import artifact_of, is_whole
from flyte_pack.store import Store
from flyte_pack.task_link import BUNDLE_URI_HOLE, VERSION_HOLE, TaskLink


def deployed(store: Store, record: VersionRecord, with_links: bool = False) -> Sequence[Side]:
    """The tasks of a recorded version. Raises `UserError`.

    with_links: whether they are compared with what was packaged. That lacks what Flyte makes of a
    task when it is registered: its whole command, and its specification.
    """
    bundles = {bundle: _stored(store, bundle) for bundle in record.bundles}
    with_flyte = not (with_links and record.inputs is not None)
    return [_recorded(store, record, task, bundles, with_flyte) for task in record.tasks]


def packaged(request: Request, directory: str, record: VersionRecord) -> Sequence[Side]:
    """The tasks that were packaged into `directory`. Raises `UserError`.

    record: what they are compared with.
    """
    links = read_links(directory, request.plan.tasks)
    pushes = read_pushes(directory, request.plan.pushes)
    images = images_of(request, links, pushes)
    bundles: dict[str, tuple[Artifact, bool]] = {}
    sides = []
    for link in links:
        artifact, whole = None, True
        if link.bundle is not None:
            name = link.bundle.manifest
            if name not in bundles:
                with open(os.path.join(directory, name), "rb") as file:
                    bundles[name] = _described(Manifest.from_json(file.read(), name))
            artifact, whole = bundles[name]
        settings = _linked(link, images[link.address][0])
        if record.inputs is not None:  # its commands are Flyte's
            settings = {n: s for n, s in settings.items() if not n.startswith(_command_of(""))}
        sides.append(Side(link.address, artifact, whole, tuple(settings.items())))
    return sides


def _stored(store: Store, bundle: StoredBundle) -> tuple[Artifact, bool]:
    try:
        return _described(read_manifest(store, bundle))
    except Wrong as wrong:
        raise UserError(f"{store.uri_of(wrong.blob.key)} cannot be compared: {wrong}") from None


def _described(manifest: Manifest) -> tuple[Artifact, bool]:
    return artifact_of(manifest), is_whole(manifest)


def _recorded(
    store: Store,
    record: VersionRecord,
    task: RecordedTask,
    bundles: Mapping[StoredBundle, tuple[Artifact, bool]],
    with_flyte: bool,
) -> Side:
    artifact, whole = bundles[task.bundle] if task.bundle else (None, True)
    uri = None
    if task.bundle is not None:
        uri = task.code_uri or store.uri_of(task.bundle.archive.key)
    settings = _settings(task, record.copy_style, task.image)
    specifications = {}
    for one in task.tasks if with_flyte else ():
        settings[_command_of(one.name)] = _command(one, uri)
        if one.flyte_name is not None:
            settings[f"triggers of {one.name}"] = ", ".join(one.triggers) or "none"
        if one.spec is not None:
            specifications[f"specification of {one.name}"] = one.spec
    return Side(
        task.address,
        artifact,
        whole,
        tuple(settings.items()),
        specifications=tuple(specifications.items()),
    )


def _linked(link: TaskLink, image: str | None) -> dict[str, str]:
    settings = _settings(link, link.copy_style, image)
    settings.update((_command_of(one.name), shlex.join(one.command)) for one in link.tasks)
    return settings


def _command_of(task: str) -> str:
    return f"command of {task}"


def _settings(task: RecordedTask | TaskLink, copy_style: str, image: str | None) -> dict[str, str]:
    return {
        "entry point": f"{task.entry_point} ({task.kind})",
        "root_dir": "unset" if task.root_dir is None else task.root_dir,
        "copy_style": copy_style,
        "image": image or "that of the code",
    }


def _command(task: DeployedTask, uri: str | None) -> str:
    """With holes for what another version alone changes."""
    holes = {task.version: VERSION_HOLE, **({uri: BUNDLE_URI_HOLE} if uri else {})}
    return shlex.join(holes.get(word, word) for word in task.command)
