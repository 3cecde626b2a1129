"""Pushes an image to its destinations: missing blobs, then manifests, then all tags."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from threading import Lock
from typing import Any

from flyte_pack.errors import UserError
from flyte_pack.http.retry import Timing
from flyte_pack.http.transfers import in_parallel
from flyte_pack.oci import model
from flyte_pack.oci.model import Descriptor
from flyte_pack.oci.reference import Reference
from flyte_pack.progress import Progress, Say, megabytes
from flyte_pack.provenance import Origin, origin_of
from flyte_pack.registry import RegistryError, referrers
from flyte_pack.registry.attested import Attestation
from flyte_pack.registry.auth import Denied
from flyte_pack.registry.client import Refused, Session, may_pull, may_push
from flyte_pack.registry.cosign import Signatures, signature_tag
from flyte_pack.registry.layout import Blob, Document, Image, read_image
from flyte_pack.registry.plan import Destination, PushPlan
from flyte_pack.registry.referrers import Artifact
from flyte_pack.registry.upload import CHUNK, Read, RegistrySource, Upload, read_file
from flyte_pack.signing import Signer

_ASKED = 8  # repositories of the same registry that are asked for a blob


@dataclass(frozen=True)
class Pushed:
    """What a push did, or in a dry run would do, to one destination.

    reference: `registry/repository@digest`. tags: the moved ones. bytes: uploaded. uploaded,
    mounted, present: numbers of blobs, 0 if the manifest was there. requests: to all servers.
    attached: whether an inventory, a statement or a signature was attached.
    """

    reference: str
    tags: tuple[str, ...] = ()
    bytes: int = 0
    uploaded: int = 0
    mounted: int = 0
    present: int = 0
    requests: int = 0
    attached: bool = False

    def told(self) -> dict[str, Any]:
        """As documents for programs have it."""
        changed = self.uploaded or self.mounted or self.present or self.tags or self.attached
        return {
            "reference": self.reference,
            "status": "new" if changed else "unchanged",
            "tags": list(self.tags),
            "bytes": self.bytes,
        }


def push_image(
    plan: PushPlan,
    directory: str,
    say: Say,
    *,
    dry_run: bool = False,
    session: Session | None = None,
    chunk: int = CHUNK,
    signer: Signer | None = None,
    origin: Callable[[], Origin] | None = None,
) -> tuple[Pushed, ...]:
    """Push what `plan` says. No tag moves before every destination has the whole image.

    directory: of the packaged files. chunk: bytes in a request. signer: for who signs the image.
    origin: what the image was made from, asked for once it is needed; by default the checkout
    around the working directory.
    """
    session = session or Session(plan.insecure, say=say)
    try:
        image = read_image(os.path.join(directory, plan.layout), plan.digest)
        sbom = _read_sbom(plan, directory)
        asked = _asked_once(origin)
        targets = [
            _Target(plan, one, image, session, say, dry_run, chunk, sbom, signer, asked)
            for one in plan.destinations
        ]
        for target in targets:
            target.push_content()
            target.attach()
            target.sign()
        for target in targets:
            target.move_tags()
    except UserError as error:
        raise RegistryError(f"{plan.address}: {error}") from None
    return tuple(target.result for target in targets)


def look_for(
    plan: PushPlan,
    directory: str,
    signer: Signer | None = None,
    origin: Callable[[], Origin] | None = None,
) -> tuple[Pushed, ...] | None:
    """What `push_image` gives if the image and its tags are at all destinations; else None.

    It asks once, and says nothing; None also stands for what went wrong.
    """
    try:
        session = Session(plan.insecure, timing=Timing(_no_second_try))
        image = read_image(os.path.join(directory, plan.layout), plan.digest)
        sbom, asked = _read_sbom(plan, directory), _asked_once(origin)
        targets = [
            _Target(plan, one, image, session, _silently, True, CHUNK, sbom, signer, asked)
            for one in plan.destinations
        ]
        found = all(target.is_there() for target in targets)
    except (UserError, OSError):
        return None
    return tuple(target.result for target in targets) if found else None


def _read_sbom(plan: PushPlan, directory: str) -> bytes | None:
    if plan.sbom is None:
        return None
    path = os.path.join(directory, plan.sbom)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise RegistryError(f"{path}: {error.strerror}: package it again") from None


def _asked_once(origin: Callable[[], Origin] | None) -> Callable[[], Origin]:
    return lru_cache(maxsize=1)(origin or partial(origin_of, os.getcwd()))


def _silently(line: str) -> None:
    pass


def _no_second_try(seconds: float) -> None:
    raise RegistryError(f"not tried again in {seconds} s")


class _Target:
    """A push to one destination."""

    def __init__(
        self,
        plan: PushPlan,
        destination: Destination,
        image: Image,
        session: Session,
        say: Say,
        dry_run: bool,
        chunk: int,
        sbom: bytes | None,
        signer: Signer | None,
        origin: Callable[[], Origin],
    ) -> None:
        self._sbom, self._signer = sbom, signer
        self._plan, self._image, self._session = plan, image, session
        self._say, self._dry_run, self._chunk = say, dry_run, chunk
        self._place, self._tags = destination.reference, destination.tags
        self._registry = session.registry(self._place.registry)
        repository = self._place.repository
        self._scopes = may_pull(repository) if dry_run else may_push(repository)
        self._counts: Counter[str] = Counter()
        self._lock = Lock()
        self.result = Pushed(f"{self._place.name}@{plan.digest}")
        top = image.documents[-1]
        self._subject = Descriptor.of(top.media_type, top.data)
        self._attestation = Attestation(
            plan, self._place.name, self._subject, sbom, origin, signer
        )  # fmt: skip

    def push_content(self) -> None:
        """Everything but the tags."""
        with self._counted():
            place = self._place
            if self._registry.manifest_digest(place.repository, self._plan.digest, self._scopes):
                self._say(f"{self.result.reference}: there already")
                return
            self._say(f"{'would push' if self._dry_run else 'pushing'} {self.result.reference}")
            self._push_blobs(self._image.blobs)
            if not self._dry_run:
                self._put_documents()
            counts, would = self._counts, "would be " if self._dry_run else ""
            self._say(
                f"{place.name}: {counts['uploaded']} blobs {would}uploaded "
                f"({megabytes(counts['bytes'])}), {counts['mounted']} mounted, "
                f"{counts['present']} there already"
            )

    def attach(self) -> None:
        """Put the inventory and the statement beside the image, if it is to have them and they are
        not there.
        """
        with self._counted():
            for name, make in self._unattached():
                self.result = replace(self.result, attached=True)
                if not self._dry_run:
                    artifact, content = make()
                    for data in (referrers.EMPTY, content):
                        self._put_blob(data)
                    repository = self._place.repository
                    referrers.attach(self._registry, repository, artifact, self._scopes)
                done = "would be attached" if self._dry_run else "attached"
                self._say(f"{self._place.name}: {name} {done}")

    def _unattached(self) -> Iterator[tuple[str, Callable[[], tuple[Artifact, bytes]]]]:
        sbom, repository = self._sbom, self._place.repository
        if sbom is not None:
            artifact = Artifact.of(referrers.CYCLONEDX, sbom, self._subject)
            if not referrers.is_attached(self._registry, repository, artifact, self._scopes):
                yield "SBOM", lambda: (artifact, sbom)
        if self._plan.materials is not None:
            digest = self._subject.digest
            found = referrers.listed(self._registry, repository, digest, self._scopes)
            if not self._attestation.is_among(found):
                yield "provenance", self._attestation.made

    def sign(self) -> None:
        """Sign the image and those of its platforms, if somebody signs and has not yet."""
        with self._counted():
            for one in self._unsigned():
                others = one.found(self._scopes)
                if not self._dry_run:
                    payload, config, manifest = one.documents(others)
                    for data in (payload, config):
                        self._put_blob(data)
                    tag = signature_tag(one.digest)
                    self._registry.put_manifest(
                        self._place.repository, tag, model.OCI_MANIFEST, manifest
                    )
                self.result = replace(self.result, attached=True)
                done = "would be signed" if self._dry_run else "signed"
                self._say(f"{self._place.name}@{one.digest}: {done}")

    def _unsigned(self) -> Iterator[Signatures]:
        if self._signer is not None:
            for document in self._image.documents:
                signatures = Signatures(
                    self._registry, self._place.repository, document.digest, self._signer
                )
                if not signatures.are_mine_among(signatures.found(self._scopes)):
                    yield signatures

    def _put_blob(self, data: bytes) -> None:
        descriptor = Descriptor.of("application/octet-stream", data)
        repository = self._place.repository
        if self._registry.has_blob(repository, descriptor.digest, self._scopes):
            return

        def read(start: int, count: int) -> bytes:
            return data[start : start + count]

        Upload(self._registry, repository, descriptor, read, self._chunk).run(lambda count: None)

    def is_there(self) -> bool:
        """Whether there is nothing to push."""
        repository = self._place.repository
        wanted = dict.fromkeys((self._plan.digest, *self._tags), self._plan.digest)
        with self._counted():
            return all(
                self._registry.manifest_digest(repository, reference, self._scopes) == digest
                for reference, digest in wanted.items()
            ) and (next(self._unattached(), None) is None and next(self._unsigned(), None) is None)

    def move_tags(self) -> None:
        """Set those that point elsewhere or do not exist."""
        with self._counted():
            top = self._image.documents[-1]
            for tag in self._tags:
                repository = self._place.repository
                if self._registry.manifest_digest(repository, tag, self._scopes) == top.digest:
                    self._say(f"{self._place.name}:{tag}: there already")
                    continue
                if not self._dry_run:
                    self._put(top, tag)
                self.result = replace(self.result, tags=(*self.result.tags, tag))
                self._say(f"{self._place.name}:{tag}: {'would be ' if self._dry_run else ''}set")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        before = self._session.transport.requests
        yield
        requests = self.result.requests + self._session.transport.requests - before
        counts: Any = {"bytes": 0, "uploaded": 0, "mounted": 0, "present": 0, **self._counts}
        self.result = replace(self.result, **counts, requests=requests)

    def _put_documents(self) -> None:
        for document in self._image.documents:
            self._put(document, document.digest)

    def _put(self, document: Document, reference: str) -> None:
        """Write a manifest under its digest or a tag.

        A blob that the registry misses was removed meanwhile, or the registry was wrong to say
        that it has it, as it may be while somebody else pushes the same: send it once more.
        """
        write = (self._place.repository, reference, document.media_type, document.data)
        try:
            self._registry.put_manifest(*write)
        except Refused as refused:
            if not {"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"} & set(refused.codes):
                raise
            lost = [b for b in self._image.blobs if b.descriptor.digest in refused.digests]
            # An index misses manifests, which `_put_documents` wrote before it.
            again = [d for d in self._image.documents if d.digest in refused.digests]
            if not lost and not again:
                raise
            self._say(f"  {self._place.name} lacks {len(lost) + len(again)} blobs after all")
            self._push_blobs(lost, ask=False)
            for one in again:
                self._registry.put_manifest(
                    self._place.repository, one.digest, one.media_type, one.data
                )
            self._registry.put_manifest(*write)

    def _push_blobs(self, blobs: Collection[Blob], ask: bool = True) -> None:
        total = sum(blob.descriptor.size for blob in blobs)
        progress = Progress(self._say, self._place.name, total)
        with in_parallel(self._session.transport.stopped) as submit:
            for blob in sorted(blobs, key=lambda blob: -blob.descriptor.size):
                submit(self._push_blob, blob, progress, ask)

    def _push_blob(self, blob: Blob, progress: Progress, ask: bool) -> None:
        descriptor, repository = blob.descriptor, self._place.repository
        name = f"{descriptor.digest[7:19]} {megabytes(descriptor.size)}"
        if ask and self._registry.has_blob(repository, descriptor.digest, self._scopes):
            self._count("present")
            progress.add(descriptor.size)
            return
        if self._dry_run:
            self._count("uploaded", descriptor.size)
            self._say(f"  {name}: would be uploaded, or mounted")
            return
        upload = Upload(self._registry, repository, descriptor, self._reader(blob), self._chunk)
        origin = self._where_to_mount(blob)
        if origin is not None and upload.mount(origin):
            self._count("mounted")
            progress.add(descriptor.size)
            self._say(f"  {name}: mounted from {origin}")
            return
        sent = [0]

        def add(count: int) -> None:
            sent[0] += count
            progress.add(count)

        upload.run(add)
        self._count("uploaded", sent[0])
        origin = "" if blob.path or blob.base is None else f" from {blob.base.name}"
        self._say(f"  {name}: uploaded{origin}")

    def _count(self, what: str, count: int = 0) -> None:
        with self._lock:
            self._counts[what] += 1
            self._counts["bytes"] += count

    def _reader(self, blob: Blob) -> Read:
        if blob.path is not None:
            return partial(read_file, blob.path)
        assert blob.base is not None  # or `read_image` would have refused
        registry = self._session.registry(blob.base.registry)
        return RegistrySource(registry, blob.base.repository, blob.descriptor).read

    def _where_to_mount(self, blob: Blob) -> str | None:
        """A repository of the same registry that may have the blob."""
        others = [Reference.parse(name) for name in self._plan.siblings]
        others += [one.reference for one in self._plan.destinations]
        if blob.base is not None:
            others.insert(0, blob.base)
        ours = self._place.registry
        names = dict.fromkeys(one.repository for one in others if one.registry == ours)
        names.pop(self._place.repository, None)
        candidates = list(names)[:_ASKED]
        if blob.path is None and blob.base and blob.base.registry == ours:
            return blob.base.repository
        if len(candidates) == 1:
            return candidates[0]  # trying costs no more than asking
        for candidate in candidates:
            try:
                if self._registry.has_blob(candidate, blob.descriptor.digest, may_pull(candidate)):
                    return candidate
            except (Refused, Denied):
                continue
        return None
