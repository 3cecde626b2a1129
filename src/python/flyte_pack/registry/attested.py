"""Says beside an image what it was made from: a statement of provenance among its referrers.

Without a key it is the statement itself. With one it is a bundle of Sigstore ("Sigstore Bundle
Format", 0.3; cosign's BUNDLE_SPEC, "Annotations"), which `cosign verify-attestation` reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flyte_pack.json_fields import Sha256, canonical
from flyte_pack.oci import model
from flyte_pack.oci.model import Descriptor
from flyte_pack.provenance import BUILDER, PREDICATE, STATEMENT_TYPE, Material, Origin, statement
from flyte_pack.registry.plan import PushPlan
from flyte_pack.registry.referrers import Artifact
from flyte_pack.signing import Signer, envelope
from flyte_shim.hashing import sha256_bytes

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUILD_TYPE = "urn:pants-flyte:image:1"  # docs/inventory.md says what it means
# Annotations of the artifact, which lists of referrers have, too.
_PREDICATE, _CONTENT = "dev.sigstore.bundle.predicateType", "dev.sigstore.bundle.content"
_PREDICATE_UNSIGNED = "in-toto.io/predicate-type"
_BY, _KEY = "pants-flyte.builder", "pants-flyte.key"


@dataclass(frozen=True)
class Attestation:
    """Of one image in one repository. origin: where it is from; git is asked with its first call.

    name: `registry/repository`. sbom: its inventory.
    """

    plan: PushPlan
    name: str
    subject: Descriptor
    sbom: bytes | None
    origin: Callable[[], Origin]
    signer: Signer | None

    def is_among(self, referrers: Iterable[Mapping[str, Any]]) -> bool:
        """Whether the image has one, of this key if there is one.

        One is enough: the image is the same byte by byte, and was made from that. But one that
        names no commit, or a commit from which files differed, is none for an origin that does.
        """
        found = [one.get("annotations") or {} for one in referrers]
        ours = [
            one
            for one in found
            if one.get(_BY) == BUILDER
            and (self.signer is None or one.get(_KEY) == self.signer.key_id)
        ]
        return any(model.REVISION in one for one in ours) or (
            bool(ours) and not self.origin().is_clean
        )

    def made(self) -> tuple[Artifact, bytes]:
        """The artifact and its document, signed now. Raises `SigningError`."""
        origin = self.origin()
        content, kind = self._statement(origin), STATEMENT_TYPE
        annotations = {_BY: BUILDER}
        if origin.is_clean:
            annotations[model.REVISION] = str(origin.commit)
        if self.signer is None:
            annotations[_PREDICATE_UNSIGNED] = PREDICATE
        else:
            content, kind = _bundle(self.signer, content), BUNDLE
            annotations.update(
                {_PREDICATE: PREDICATE, _CONTENT: "dsse-envelope", _KEY: self.signer.key_id}
            )
        return Artifact.of(kind, content, self.subject, annotations), content

    def _statement(self, origin: Origin) -> bytes:
        listed = []
        if self.plan.sbom is not None and self.sbom is not None:
            listed.append(Material(self.plan.sbom, Sha256(sha256_bytes(self.sbom))))
        return statement(
            BUILD_TYPE,
            {"target": self.plan.address},
            [Material(self.name, Sha256(self.subject.digest.partition(":")[2]))],
            origin,
            self.plan.materials or (),
            listed,
        )


def _bundle(signer: Signer, content: bytes) -> bytes:
    signed = json.loads(envelope(signer, content, STATEMENT_TYPE))
    for signature in signed["signatures"]:
        # cosign passes over one whose `keyid` is not the fingerprint that ssh has of the key.
        del signature["keyid"]
    return canonical(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": signer.key_id}},
            "dsseEnvelope": signed,
        }
    )
