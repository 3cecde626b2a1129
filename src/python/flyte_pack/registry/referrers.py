"""Attaches documents to an image in a registry, where those find them who look for them.

A document is in an artifact manifest whose `subject` is the image (image specification 1.1,
"Guidelines for Artifact Usage"). A registry lists such manifests by itself, or has no such list:
then it is an index under the tag `sha256-<digits>` (distribution specification 1.1, "Referrers Tag
Schema"). Nothing of it names a time, so an unchanged document is there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flyte_pack.json_fields import canonical
from flyte_pack.oci import model
from flyte_pack.oci.model import Descriptor, InvalidImage
from flyte_pack.registry import RegistryError
from flyte_pack.registry.client import Refused, Registry

CYCLONEDX = "application/vnd.cyclonedx+json"
EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_MOST = 1000  # referrers of an image that are kept in an index


@dataclass(frozen=True)
class Artifact:
    """A document as an artifact of `subject`; kind: its media type. manifest: as it is pushed.

    annotations: of the artifact, which lists of referrers have, too.
    """

    kind: str
    content: Descriptor
    subject: Descriptor
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls,
        kind: str,
        content: bytes,
        subject: Descriptor,
        annotations: Mapping[str, str] | None = None,
    ) -> Artifact:
        return cls(kind, Descriptor.of(kind, content), subject, annotations or {})

    @property
    def manifest(self) -> bytes:
        return canonical(
            {
                "schemaVersion": 2,
                "mediaType": model.OCI_MANIFEST,
                "artifactType": self.kind,
                "config": Descriptor.of(EMPTY_TYPE, EMPTY).as_fields(),
                "layers": [self.content.as_fields()],
                "subject": self.subject.as_fields(),
                **self._annotated,
            }
        )

    @property
    def _annotated(self) -> dict[str, Any]:
        return {"annotations": dict(self.annotations)} if self.annotations else {}

    @property
    def digest(self) -> str:
        return model.digest_of(self.manifest)

    @property
    def listed(self) -> dict[str, Any]:
        """Its entry in an index of referrers."""
        manifest = Descriptor.of(model.OCI_MANIFEST, self.manifest)
        return {**manifest.as_fields(), "artifactType": self.kind, **self._annotated}


def fallback_tag(digest: str) -> str:
    return digest.replace(":", "-", 1)


def is_attached(
    registry: Registry, repository: str, artifact: Artifact, scopes: frozenset[str]
) -> bool:
    """Whether it is there, and found by who looks for it."""
    if not registry.manifest_digest(repository, artifact.digest, scopes):
        return False
    found = listed(registry, repository, artifact.subject.digest, scopes)
    return any(one.get("digest") == artifact.digest for one in found)


def listed(
    registry: Registry, repository: str, digest: str, scopes: frozenset[str]
) -> Iterable[Mapping[str, Any]]:
    """The descriptors of what is attached to an image, as the registry or the fallback tag has
    them. Raises `RegistryError`.
    """
    found = _referrers(registry, repository, digest, scopes)
    return _tagged(registry, repository, digest, scopes) if found is None else found


def attach(registry: Registry, repository: str, artifact: Artifact, scopes: frozenset[str]) -> None:
    """Write its manifest, whose blobs are there, and have it be found. Raises `RegistryError`."""
    data, digest = artifact.manifest, artifact.digest
    if registry.put_manifest(repository, digest, model.OCI_MANIFEST, data):
        return
    subject = artifact.subject.digest
    if _referrers(registry, repository, subject, scopes) is not None:
        return
    # Two that do this at once may lose one another's entry, which the next push of it mends.
    found = _tagged(registry, repository, subject, scopes)
    if any(one.get("digest") == digest for one in found):
        return
    if len(found) >= _MOST:
        raise RegistryError(
            f"{registry.name}/{repository}:{fallback_tag(subject)} lists {len(found):,} artifacts: "
            "remove some"
        )
    index = {
        "schemaVersion": 2,
        "mediaType": model.OCI_INDEX,
        "manifests": [*found, artifact.listed],
    }
    registry.put_manifest(repository, fallback_tag(subject), model.OCI_INDEX, canonical(index))


def _referrers(
    registry: Registry, repository: str, digest: str, scopes: frozenset[str]
) -> list[dict[str, Any]] | None:
    """What the registry lists; None if it has no such list. It may come in pages: all are read."""
    url = f"/v2/{repository}/referrers/{digest}"
    found: list[dict[str, Any]] = []
    for _ in range(_MOST):
        try:
            answer = registry.call("GET", url, scopes, {"Accept": model.OCI_INDEX})
        except Refused as refused:
            if refused.status in (404, 405):
                return None
            raise
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != model.OCI_INDEX:  # a proxy, or a registry that answers everything
            return None
        found += _entries(answer.body, f"{registry.name}: the referrers of {digest}")
        following = answer.headers.get("link", "")
        if not following.endswith('rel="next"') or not following.startswith("<"):
            break
        url = registry.transport.resolve(answer.url, following[1:].partition(">")[0], registry.name)
    return found


def _tagged(
    registry: Registry, repository: str, digest: str, scopes: frozenset[str]
) -> list[dict[str, Any]]:
    """What the index of the fallback tag lists; nothing, if there is none."""
    tag = fallback_tag(digest)
    try:
        data, media_type = registry.manifest(repository, tag, scopes)
    except Refused as refused:
        if refused.status == 404:
            return []
        raise
    what = f"{registry.name}/{repository}:{tag}"
    if media_type != model.OCI_INDEX:
        raise RegistryError(f"{what} is no index of referrers, whose place it has: remove that tag")
    return _entries(data, what)


def _entries(data: bytes, what: str) -> list[dict[str, Any]]:
    """The descriptors of an index, with all that they say. Raises `RegistryError`."""
    try:
        raw = model.parse_object(data, what).get("manifests") or []
        for one in raw:
            Descriptor.from_fields(one, what)
    except InvalidImage as error:
        raise RegistryError(str(error)) from None
    except TypeError:
        raise RegistryError(f"{what}: 'manifests' is not a list") from None
    return list(raw)
