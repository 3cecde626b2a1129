"""A registry that lists referrers by itself, which docker-registry does not."""

from __future__ import annotations

import json

from flyte_pack.oci.model import OCI_INDEX, OCI_MANIFEST
from tests.support.faulty_registry import Exchange, Fault


class Lists:
    """What a registry does that lists referrers: it says so, and needs no tag."""

    def __init__(self) -> None:
        self.manifests = []

    def put(self, exchange: Exchange) -> None:
        document = json.loads(exchange.body)
        code, headers, body = exchange.forward()
        if subject := document.get("subject"):
            digest = headers["Docker-Content-Digest"]
            one = {"mediaType": OCI_MANIFEST, "digest": digest, "size": exchange.length}
            told = {
                name: document[name] for name in ("artifactType", "annotations") if name in document
            }
            self.manifests.append({**one, **told})
            headers = {**headers, "OCI-Subject": subject["digest"]}
        exchange.reply(code, headers, body)

    def get(self, exchange: Exchange) -> None:
        """One on a page."""
        path, _, last = exchange.path.partition("?at=")
        at = int(last or 0)
        page = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": self.manifests[at : at + 1],
        }
        headers = {"Content-Type": OCI_INDEX}
        if at + 1 < len(self.manifests):
            headers["Link"] = f'<{path}?at={at + 1}>; rel="next"'
        exchange.reply(200, headers, json.dumps(page).encode())

    @property
    def faults(self) -> list[Fault]:
        return [
            Fault("^PUT .*/manifests/sha256:", self.put, 1000),
            Fault("^GET .*/referrers/", self.get, 1000),
        ]
