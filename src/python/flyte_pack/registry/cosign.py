"""Signs images as cosign does, so that `cosign verify` and admission controllers understand it.

cosign's "Signature Specification": a signature is a layer of the manifest under the tag
`sha256-<digits>.sig`. The layer is a document in simple signing's format that names the image, and
an annotation has the signature of it.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from flyte_pack.json_fields import canonical
from flyte_pack.oci import model
from flyte_pack.oci.model import Descriptor, InvalidImage, Manifest
from flyte_pack.registry import RegistryError
from flyte_pack.registry.client import Refused, Registry
from flyte_pack.signing import Signer

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
_MOST = 1000  # signatures of an image


def payload_of(name: str, digest: str) -> bytes:
    """What is signed. name: `registry/repository`."""
    return canonical(
        {
            "critical": {
                "identity": {"docker-reference": name},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": {"creator": "pants-flyte"},
        }
    )


def signature_tag(digest: str) -> str:
    return f"{digest.replace(':', '-', 1)}.sig"


@dataclass(frozen=True)
class Signatures:
    """Those of an image in a repository."""

    registry: Registry
    repository: str
    digest: str
    signer: Signer

    @property
    def payload(self) -> bytes:
        return payload_of(f"{self.registry.name}/{self.repository}", self.digest)

    def are_mine_among(self, layers: tuple[Descriptor, ...]) -> bool:
        payload = self.payload
        return any(
            layer.digest == model.digest_of(payload)
            and self.signer.is_mine(payload, _decoded(layer.annotations.get(SIGNATURE, "")))
            for layer in layers
        )

    def found(self, scopes: frozenset[str]) -> tuple[Descriptor, ...]:
        """Everybody's. Raises `RegistryError`."""
        tag = signature_tag(self.digest)
        what = f"{self.registry.name}/{self.repository}:{tag}"
        try:
            data, media_type = self.registry.manifest(self.repository, tag, scopes)
            document = model.parse_document(data, what, media_type)
        except Refused as refused:
            if refused.status == 404:
                return ()
            raise
        except InvalidImage as error:
            raise RegistryError(self.registry.cleaned(str(error))) from None
        if not isinstance(document, Manifest) or len(document.layers) >= _MOST:
            raise RegistryError(f"{what} is no list of signatures, whose place it has: remove it")
        return document.layers

    def documents(self, others: tuple[Descriptor, ...]) -> tuple[bytes, bytes, bytes]:
        """The payload, the config and the manifest, signed now. Raises `SigningError`."""
        payload = self.payload
        signature = base64.b64encode(self.signer.sign(payload)).decode()
        layer = Descriptor(
            SIMPLE_SIGNING, model.digest_of(payload), len(payload), {SIGNATURE: signature}
        )
        layers = (*others, layer)
        config = canonical(
            {
                "architecture": "",
                "os": "",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [one.digest for one in layers]},
            }
        )
        described = Descriptor.of(model.OCI_CONFIG, config)
        return payload, config, Manifest(model.OCI_MANIFEST, described, layers).to_json()


def _decoded(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except (ValueError, binascii.Error):
        return b""
