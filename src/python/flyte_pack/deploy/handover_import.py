"""`import`: makes of a hand-over what packaging makes of targets, to deploy it like any other.

Its images go to this site's registry, its bundles into this site's store. The record is made anew
for both. A computed version is computed again, since other addresses run other things; a version
that somebody named stays.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from flyte_pack import task_link
from flyte_pack.deploy import records
from flyte_pack.deploy.contents import Wrong, check_bundle
from flyte_pack.deploy.git import now
from flyte_pack.deploy.handover import Handover, read_handover, write
from flyte_pack.deploy.plan import Request
from flyte_pack.deploy.records import DeployedTask, RecordedTask, VersionRecord
from flyte_pack.errors import UserError
from flyte_pack.json_fields import Digest, InvalidData
from flyte_pack.names import InvalidName, TargetAddress, check_registry
from flyte_pack.oci.layout import Layout, layout_files, open_layout
from flyte_pack.oci.model import Descriptor, InvalidImage
from flyte_pack.oci.reference import Reference
from flyte_pack.progress import Say
from flyte_pack.registry.plan import Destination, PushPlan
from flyte_pack.scratch import scratch_place
from flyte_pack.store.file import FileStore
from flyte_pack.task_link import BUNDLE_URI_HOLE, VERSION_HOLE, LinkedImage, TaskLink

_TAG_DIGITS = 12


@contextmanager
def imported(
    request: Request, folder: str, directory: str, say: Say
) -> Iterator[tuple[Request, str, records.Provenance]]:
    """Check a hand-over, and have its files at hand like packaged ones during the block.

    request: of this site; it must be about the same deployment. directory: of the files that were
    packaged here: the environments to register with. Yields a request about files in a directory,
    the directory, and where the version is from: its commit, and now. Writes to no store.
    """
    folder = os.path.abspath(folder)
    handover, record = read_handover(folder, say)
    _check_same(request, handover)
    _check_contents(FileStore(os.path.join(folder, "store")), record)
    if handover.images and request.settings.registry is None:
        raise UserError(
            f"the version has {len(handover.images)} images, and no registry is known to push "
            "them to: type --registry HOST, or set `registry` in the target or in the settings "
            "file"
        )
    origin = records.Provenance(now(), record.provenance.commit, record.provenance.dirty)
    with packaged_from(request, folder, directory, handover, record) as found:
        yield (*found, origin)


@contextmanager
def packaged_from(
    request: Request, folder: str, directory: str, handover: Handover, record: VersionRecord
) -> Iterator[tuple[Request, str]]:
    """The files of a checked hand-over as packaged ones: a request about them, their directory.

    Images that the hand-over does not have stay where they are.
    """
    place = os.path.abspath(directory)
    version = None if record.version == record.computed_version else record.version
    with tempfile.TemporaryDirectory(prefix="flyte-import-", dir=scratch_place()) as packaged:
        os.symlink(os.path.join(folder, "store"), os.path.join(packaged, "store"))
        images = _Images(request.settings.registry, handover, folder, packaged)
        tasks, pushes = [], []
        for number, task in enumerate(record.tasks):
            tasks.append(f"task-{number}.json")
            write(packaged, tasks[-1], [_link(record, task, handover, images).to_json()])
        for number, push in enumerate(images.pushes(request.plan.insecure_registries)):
            pushes.append(f"push-{number}.json")
            write(packaged, pushes[-1], [push.to_json()])
        staying = {
            task.image_ref_name: task.image
            for task in record.tasks
            if task.image_ref_name and task.image and task.image not in handover.images
        }
        yield (
            dataclasses.replace(
                request,
                settings=dataclasses.replace(
                    request.settings,
                    version=version,
                    copy_style=record.copy_style,
                    root_dir=None,
                    images=tuple(sorted({**request.images, **staying}.items())),
                ),
                plan=dataclasses.replace(
                    request.plan,
                    tasks=tuple(tasks),
                    pushes=tuple(pushes),
                    environments=tuple(
                        dataclasses.replace(one, python=os.path.join(place, one.python))
                        for one in request.plan.environments
                    ),
                ),
            ),
            packaged,
        )


def _check_same(request: Request, handover: Handover) -> None:
    ours = (request.plan.address, request.project, request.domain)
    theirs = (handover.address, handover.project, handover.domain)
    if ours != theirs:
        raise UserError(
            f"the folder holds {handover.address} for {handover.project}/{handover.domain}, and "
            f"this is {request.plan.address} for {request.project}/{request.domain}: a task may "
            "differ between domains, so import it as what it is, or export the other one"
        )


def _check_contents(store: FileStore, record: VersionRecord) -> None:
    """Raises `UserError` unless its archives hold what the record says that they do."""
    for bundle in record.bundles:
        try:
            check_bundle(store, bundle)
        except Wrong as wrong:
            raise UserError(
                f"{store.uri_of(wrong.blob.key)} is not what the hand-over's record says: {wrong}. "
                "Export it anew"
            ) from None


def _with_hole(command: tuple[str, ...], value: str, hole: str) -> tuple[str, ...]:
    return tuple(hole if part == value else part for part in command)


def _link(
    record: VersionRecord, task: RecordedTask, handover: Handover, images: _Images
) -> TaskLink:
    uri, bundle, built = "", None, None
    if task.image in handover.images:
        built = images.linked(task.image, task.image_ref_name)
    if task.bundle is not None:
        uri = f"{handover.store}/{task.bundle.archive_key}"
        files = f"store/{task.bundle.archive_key}", f"store/{task.bundle.manifest_key}"
        bundle = task_link.LinkedBundle(archive=files[0], manifest=files[1], **task.bundle.hashes)
    return TaskLink(
        address=task.address,
        entry_point=task.entry_point,
        kind=task.kind,
        module=task.module,
        root_dir=task.root_dir,
        copy_style=record.copy_style,
        bundle=bundle,
        image=None if built else task.image_ref_name or task.image,
        tasks=tuple(
            task_link.LinkedTask(one.name, _command(one, uri))
            for one in _own_tasks(task.module, task.tasks)
        ),
        built_image=built,
    )


def _own_tasks(module: str, tasks: tuple[DeployedTask, ...]) -> tuple[DeployedTask, ...]:
    """Those of the target itself; those of the environments it depends on are found again."""
    tasks = tuple(one for one in tasks if not one.along)
    own = tuple(one for one in tasks if ("mod", module) in zip(one.command, one.command[1:]))
    return own or tasks


def _command(one: DeployedTask, uri: str) -> tuple[str, ...]:
    """The command with its holes, without the other site's images: Flyte writes them anew."""
    command = list(_with_hole(one.command, one.version, VERSION_HOLE))
    if "--image-cache" in command:
        at = command.index("--image-cache")
        del command[at : at + 2]
    return _with_hole(tuple(command), uri, BUNDLE_URI_HOLE) if uri else tuple(command)


class _Images:
    """The images of a hand-over: it has them in one layout, a deployment in one layout each."""

    def __init__(
        self, registry: str | None, handover: Handover, folder: str, packaged: str
    ) -> None:
        self._digests = handover.images
        self._destinations: dict[Digest, dict[str, Destination]] = {}
        if not self._digests:
            return
        if registry is not None and registry.startswith("@"):
            raise UserError(f"a host is needed in place of {registry}: type --registry HOST")
        self._layout = open_layout(os.path.join(folder, "images"))
        self._workdirs: dict[str, str] = {}
        tops = {top.digest: top for top in self._layout.tops()}
        for text, digest in self._digests.items():
            if digest not in tops:
                raise InvalidData(f"{folder}: the image {text!a:.200} is not in its layout")
            reference = _reference(text)
            name = f"{reference.registry}/{reference.repository}"
            if registry is not None and not in_registry(text, registry):
                name = f"{check_registry(registry)}/{reference.repository}"
            # Untagged ones are what registries clean up.
            tag = f"sha256-{digest.partition(':')[2][:_TAG_DIGITS]}"
            self._destinations.setdefault(digest, {})[text] = Destination(name, (tag,))
            self._workdirs[digest] = _workdir(self._layout, tops[digest])
            _own_layout(tops[digest], folder, packaged)

    def linked(self, text: str, ref_name: str | None) -> LinkedImage:
        digest = self._digests[text]
        return LinkedImage(
            TargetAddress(text), _place(digest), digest, ref_name, self._workdirs[digest]
        )

    def pushes(self, insecure: tuple[str, ...]) -> Iterator[PushPlan]:
        for digest, by_reference in sorted(self._destinations.items()):
            destinations = tuple(dict.fromkeys(by_reference.values()))
            # What was imported has no target: its reference stands in for the address.
            address = TargetAddress(min(by_reference))
            yield PushPlan(address, _place(digest), digest, destinations, insecure)


def in_registry(image: str, registry: str) -> bool:
    return image.startswith(f"{check_registry(registry)}/")


def _reference(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except InvalidName as error:
        raise InvalidData(f"the hand-over's record names an invalid image: {error}") from None


def _place(digest: str) -> str:
    return f"images/{digest.partition(':')[2]}"


def _own_layout(top: Descriptor, folder: str, packaged: str) -> None:
    place = os.path.join(packaged, _place(top.digest))
    os.makedirs(place, exist_ok=True)
    if not os.listdir(place):
        os.symlink(os.path.join(folder, "images", "blobs"), os.path.join(place, "blobs"))
        for path, data in layout_files([top]).items():
            write(place, path, [data])


def _workdir(layout: Layout, top: Descriptor) -> str:
    """Where the code is in an image that holds it: the same on all platforms."""
    image = next(layout.images(top), None)
    if image is None:
        raise InvalidImage(f"{layout.name}: {top.digest} is not an image")
    return image.parsed_config.workdir or "/"
