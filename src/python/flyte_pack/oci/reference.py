"""References to images: `registry/repository:tag@digest`, with Docker's defaults."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flyte_pack.names import check_image

DOCKER_HUB = "docker.io"


@dataclass(frozen=True)
class Reference:
    """registry: host[:port]. repository: the name there. A tag or a digest is set, or both."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Apply Docker's defaults. Raises `InvalidName`.

        No host means Docker Hub, where a single word is below `library/`. Without tag and digest
        the tag is `latest`. (distribution's `reference` package, "normalized names")
        """
        bare = not any(c in text for c in "/:@")
        rest, _, digest = check_image(f"{text}:latest" if bare else text).partition("@")
        first, slash, others = rest.partition("/")
        if slash and (first == "localhost" or any(c in first for c in ".:")):
            registry, name = first, others
        else:
            registry, name = DOCKER_HUB, rest
        name, colon, tag = name.partition(":")
        if registry in (DOCKER_HUB, "index.docker.io"):
            registry, name = DOCKER_HUB, name if "/" in name else f"library/{name}"
        if not colon:
            tag = "" if digest else "latest"
        return cls(registry, name, tag or None, digest or None)

    @property
    def name(self) -> str:
        """`registry/repository`."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def is_loopback(registry: str) -> bool:
    """Whether the registry is on this machine, so that plain HTTP gives nothing away."""
    host = registry.rpartition(":")[0] if re.search(r":[0-9]+$", registry) else registry
    return host in ("localhost", "[::1]") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host) is not None
