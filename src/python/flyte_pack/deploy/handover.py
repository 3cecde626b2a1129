"""The hand-over: a folder with all of one version, for a site without its store and registries.

    handover.json                  which version of what; every other file with its size and SHA-256
    SHA256SUMS                     the same sums, for `sha256sum -c`
    store/                         archives, manifests, index entries and the record, by their keys
    images/                        one OCI image layout with all images, complete

Here it is written (`export`) and checked (`read_handover`); `handover_import` deploys from it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Dict, Tuple

from flyte_pack.deploy.ledger import Recorded
from flyte_pack.deploy.records import VersionRecord, deployment_key
from flyte_pack.errors import UserError
from flyte_pack.http import HttpError
from flyte_pack.json_fields import Digest, Document, InvalidData, Sha256
from flyte_pack.names import InvalidName, TargetAddress
from flyte_pack.oci import model
from flyte_pack.oci.layout import layout_files
from flyte_pack.oci.model import Descriptor, Index, InvalidImage
from flyte_pack.oci.reference import Reference
from flyte_pack.progress import Progress, Say
from flyte_pack.registry import RegistryError
from flyte_pack.store import Store, verified
from flyte_shim.hashing import sha256_bytes, sha256_file

if TYPE_CHECKING:
    from flyte_pack.registry.client import Session

INDEX, SUMS = "handover.json", "SHA256SUMS"
_INDEX_LIMIT = 64 << 20
_READ = 1 << 20
_FILE = re.compile(
    r"store/(archives/[0-9a-f]{64}\.tar\.gz|(manifests|index)/[0-9a-f]{64}\.json"
    r"|deployments/[A-Za-z0-9._-]+/[A-Za-z0-9._-]+/[a-z0-9._~-]+/versions/[A-Za-z0-9._-]+\.json)"
    r"|images/(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64})"
)


def _check_file(path: str) -> str:
    if not _FILE.fullmatch(path):
        raise InvalidData(f"{path!a:.200} does not belong to a hand-over")
    return path


@dataclass(frozen=True)
class HandedFile:
    """path: below the folder. size: in bytes."""

    path: Annotated[str, _check_file]
    size: int
    sha256: Sha256

    def __post_init__(self) -> None:
        name = self.path.rpartition("/")[2].partition(".")[0]
        by_content = self.path.startswith(("store/archives/", "store/manifests/", "images/blobs/"))
        if by_content and name != self.sha256:
            raise InvalidData(f"{self.path} has another SHA-256 than its name")


@dataclass(frozen=True)
class Handover(Document):
    """What is in a folder. store: where the version was exported from, which its commands name.

    images: digest by the reference that the record has.
    """

    NAME = INDEX

    address: TargetAddress
    project: str
    domain: str
    version: str
    store: str
    images: Dict[str, Digest]
    files: Tuple[HandedFile, ...]

    @property
    def record_path(self) -> str:
        key = deployment_key(self.project, self.domain, self.address)
        return f"store/{key}/versions/{self.version}.json"

    def __post_init__(self) -> None:
        paths = [file.path for file in self.files]
        if paths != sorted(set(paths)):
            raise InvalidData("the files are not sorted, or one is there twice")

    def sums(self, own: bytes) -> bytes:
        """The content of `SHA256SUMS`; `own`: of `handover.json`."""
        lines = [(file.path, file.sha256) for file in self.files]
        lines.append((INDEX, Sha256(sha256_bytes(own))))
        return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(lines)).encode()


# --- writing -------------------------------------------------------------------------------------


def export(
    store: Store,
    recorded: Recorded,
    place: str,
    *,
    say: Say,
    insecure: Collection[str] = (),
    session: Session | None = None,
    without: Collection[str] = (),
) -> Handover:
    """Write all of a version into the new folder `place`, which is there whole or not at all.

    insecure: `host[:port]` of registries that may be spoken to over plain HTTP. without: references
    of images to leave out. Raises `UserError`.
    """
    place = os.path.abspath(place)
    if os.path.lexists(place) and not (os.path.isdir(place) and not os.listdir(place)):
        raise UserError(f"{place} is there already, and not empty: name a new folder")
    parent = os.path.dirname(place)
    os.makedirs(parent, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=f".{os.path.basename(place)}.", dir=parent)
    try:
        os.chmod(temporary, 0o777 & ~_umask())
        _write_store(store, recorded, temporary, say)
        named = {task.image for task in recorded.record.tasks if task.image is not None}
        wanted = sorted(named.difference(without))
        images = _write_images(wanted, temporary, say, insecure, session)
        handover = _write_index(store, recorded.record, images, temporary)
        os.sync()  # it may be about to be unplugged
        os.rename(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return handover


def _write_store(store: Store, recorded: Recorded, folder: str, say: Say) -> None:
    record = recorded.record
    bundles = record.bundles
    total = sum(bundle.archive_size + bundle.manifest_size for bundle in bundles)
    progress = Progress(say, f"from {store.uri}", total)
    for bundle in bundles:
        for blob in (bundle.archive, bundle.manifest):
            write(folder, f"store/{blob.key}", progress.of(verified(store, blob)))
        write(folder, f"store/{bundle.index_key}", [bundle.to_json()])
    key = f"{deployment_key(record.project, record.domain, record.address)}/versions"
    write(folder, f"store/{key}/{record.version}.json", [record.to_json()])


def _write_images(
    references: Sequence[str],
    folder: str,
    say: Say,
    insecure: Collection[str],
    session: Session | None,
) -> dict[str, Digest]:
    """The digest of each image by its reference."""
    if not references:
        return {}
    # Only a version with images pays for the HTTP client.
    from flyte_pack.registry.client import Session

    session = session or Session(insecure, say=say)
    layout = os.path.join(folder, "images")
    tops: dict[str, Descriptor] = {}
    for text in references:
        try:
            tops[text] = _pull(session, Reference.parse(text), text, layout, say)
        except (InvalidName, InvalidImage, HttpError) as error:
            raise RegistryError(f"{text} cannot be exported: {error}") from None
    once = {top.digest: top for top in tops.values()}
    for path, data in layout_files([once[digest] for digest in sorted(once)]).items():
        write(folder, f"images/{path}", [data])
    return {text: top.digest for text, top in tops.items()}


def _pull(session: Session, reference: Reference, text: str, layout: str, say: Say) -> Descriptor:
    """Fetch an image, all platforms, into a layout; returns what its index is to say of it."""
    from flyte_pack.registry.client import may_pull
    from flyte_pack.registry.pull import complete

    registry = session.registry(reference.registry)
    blobs: list[Descriptor] = []

    def fetch(which: str, nested: bool) -> Descriptor:
        scopes = may_pull(reference.repository)
        data, media_type = registry.manifest(reference.repository, which, scopes)
        document = model.parse_document(data, f"{text}: {which}", media_type)
        descriptor = Descriptor(document.media_type, model.digest_of(data), len(data))
        if os.path.exists(os.path.join(layout, model.blob_path(descriptor.digest))):
            return descriptor  # another reference to it
        if isinstance(document, Index):
            if nested:
                raise InvalidImage(f"{which} is an index in an index")
            for child in document.manifests:
                fetch(child.digest, nested=True)
        else:
            blobs.extend((document.config, *document.layers))
        write(layout, model.blob_path(descriptor.digest), [data])
        return descriptor

    top = fetch(reference.digest or reference.tag or "latest", nested=False)
    complete(text, blobs, layout, say, session=session)
    return top


def _write_index(
    store: Store, record: VersionRecord, images: dict[str, Digest], folder: str
) -> Handover:
    files = []
    for path, size in sorted(_walk(folder)):
        files.append(HandedFile(path, size, Sha256(sha256_file(os.path.join(folder, path)))))
    handover = Handover(
        address=record.address,
        project=record.project,
        domain=record.domain,
        version=record.version,
        store=store.uri,
        images=images,
        files=tuple(files),
    )
    content = handover.to_json()
    write(folder, INDEX, [content])
    write(folder, SUMS, [handover.sums(content)])
    return handover


def write(folder: str, path: str, content: Iterable[bytes]) -> None:
    """Write a new file below `folder`."""
    target = os.path.join(folder, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "xb") as file:
        file.writelines(content)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- reading -------------------------------------------------------------------------------------


def read_handover(folder: str, say: Say) -> tuple[Handover, VersionRecord]:
    """What is in a folder, every byte of it checked. Raises `UserError` or `OSError`."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder: name one that `export` has written")
    there = dict(_walk(folder))
    content = _small(folder, INDEX, there)
    handover = Handover.from_json(content, os.path.join(folder, INDEX))
    if _small(folder, SUMS, there) != handover.sums(content):
        raise UserError(f"{folder}: {INDEX} and {SUMS} contradict: {_COPY_AGAIN}")
    listed = {file.path: file.size for file in handover.files}
    for path in sorted({*there, *listed} - {INDEX, SUMS}):
        if path not in there:
            raise UserError(f"{folder}: {path} is missing: {_COPY_AGAIN}")
        if path not in listed:
            raise UserError(f"{folder}: {path!a:.200} is not part of it: take it out")
        if there[path] != listed[path]:
            raise UserError(
                f"{folder}: {path} has {there[path]:,} bytes, not {listed[path]:,}: {_COPY_AGAIN}"
            )
    progress = Progress(say, "checked", sum(listed.values()))
    for file in handover.files:
        digest = hashlib.sha256()
        with open(os.path.join(folder, file.path), "rb") as stream:
            for chunk in progress.of(iter(partial(stream.read, _READ), b"")):
                digest.update(chunk)
        if digest.hexdigest() != file.sha256:
            raise UserError(f"{folder}: {file.path} is damaged: {_COPY_AGAIN}")
    return handover, _record(folder, handover)


_COPY_AGAIN = "copy the folder again, or export it anew"


def _record(folder: str, handover: Handover) -> VersionRecord:
    path = handover.record_path
    sizes = {file.path: file.size for file in handover.files}
    if not 0 < sizes.get(path, 0) <= _INDEX_LIMIT:
        raise UserError(f"{folder}: holds no record of version {handover.version!a:.140}")
    what = os.path.join(folder, path)
    with open(what, "rb") as file:
        record = VersionRecord.from_json(file.read(), what)
    found = (record.address, record.project, record.domain, record.version)
    if found != (handover.address, handover.project, handover.domain, handover.version):
        raise InvalidData(f"{what}: is the record of another deployment or version")
    if {task.image for task in record.tasks if task.image is not None} != handover.images.keys():
        raise InvalidData(f"{what}: names other images than {INDEX}")
    return record


def _walk(folder: str) -> Iterator[tuple[str, int]]:
    """(path, size) of all files. Raises `UserError` for what is neither a file nor a directory."""
    for directory, _, _names in os.walk(folder, onerror=_raise):
        below = os.path.relpath(directory, folder)
        with os.scandir(directory) as entries:
            for entry in entries:
                path = entry.name if below == "." else f"{below}/{entry.name}"
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield path, found.st_size
                elif not stat.S_ISDIR(found.st_mode):
                    raise UserError(
                        f"{folder}: {path!a:.200} is neither a file nor a directory "
                        "(a symbolic link?): take it out"
                    )


def _raise(error: OSError) -> None:
    raise error


def _small(folder: str, name: str, there: dict[str, int]) -> bytes:
    if name not in there:
        raise UserError(f"{folder} holds no {name}: is it a folder that `export` has written?")
    if there[name] > _INDEX_LIMIT:
        raise UserError(f"{folder}: {name} has {there[name]:,} bytes, which is too much")
    with open(os.path.join(folder, name), "rb") as file:
        return file.read(_INDEX_LIMIT)
