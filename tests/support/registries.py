"""Real registries for a test's own, small images to push to them, and a look into what a registry
holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flyte_pack.http.retry import Timing
from flyte_pack.http.transport import Transport
from flyte_pack.json_fields import canonical
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.layout import layout_files
from flyte_pack.oci.model import (
    BASE_DIGEST,
    BASE_NAME,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    blob_path,
    digest_of,
)
from flyte_pack.oci.reference import Reference
from flyte_pack.registry.client import Session, may_pull
from flyte_pack.registry.credentials import Keychain
from flyte_pack.registry.plan import Destination, PushPlan
from tests.support.containers import need

SCRIPT = Path(__file__).resolve().parents[2] / "build-support" / "services" / "registry.py"
USER, PASSWORD = "someone", "planted-password-e7a1"
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
BASIC = f"Basic {AUTH}"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


@dataclass(frozen=True)
class RealRegistry:
    """A docker-registry that runs.

    It is looked into past its authentication, in the files that it keeps.
    """

    host: str
    directory: Path

    def tag(self, repository: str, tag: str) -> str | None:
        """The digest that a tag points to."""
        link = self._repository(repository) / "_manifests" / "tags" / tag / "current" / "link"
        return link.read_text() if link.exists() else None

    def tags(self, repository: str) -> set[str]:
        directory = self._repository(repository) / "_manifests" / "tags"
        return set(os.listdir(directory)) if directory.exists() else set()

    def holds(self, repository: str, digest: str) -> bool:
        """Whether the image is there with all that it names, each of it linked to the repository
        and undamaged.
        """
        kept = self._repository(repository)
        hexadecimal = digest.partition(":")[2]
        if not (kept / "_manifests" / "revisions" / "sha256" / hexadecimal / "link").exists():
            return False
        document = json.loads(self._blob(digest))
        for child in document.get("manifests", []):
            if not self.holds(repository, child["digest"]):
                return False
        for blob in [document["config"], *document["layers"]] if "config" in document else []:
            if not (kept / "_layers" / blob["digest"].replace(":", "/") / "link").exists():
                return False
            self._blob(blob["digest"])
        return True

    def forget(self, repository: str, digest: str) -> None:
        """Lose a blob of a repository, as a garbage collection at the wrong time does."""
        (self._repository(repository) / "_layers" / digest.replace(":", "/") / "link").unlink()

    def forget_manifest(self, repository: str, digest: str) -> None:
        revisions = self._repository(repository) / "_manifests" / "revisions"
        (revisions / digest.replace(":", "/") / "link").unlink()

    def _repository(self, name: str) -> Path:
        return self.directory / "data/docker/registry/v2/repositories" / name

    def _blob(self, digest: str) -> bytes:
        hexadecimal = digest.partition(":")[2]
        blobs = self.directory / "data/docker/registry/v2/blobs/sha256"
        data = (blobs / hexadecimal[:2] / hexadecimal / "data").read_bytes()
        assert hashlib.sha256(data).hexdigest() == hexadecimal
        return data


@contextmanager
def real_registry(directory: Path, auth: str = "none", *options: str) -> Iterator[RealRegistry]:
    """An empty one, for the time of a `with` block; `USER` and `PASSWORD` get in where there is
    authentication.
    """
    need("docker-registry")
    server = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(directory), "--auth", auth, "--user", USER, *options],
        env={**os.environ, "REGISTRY_PASSWORD": PASSWORD},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        host = server.stdout.readline().strip()
        assert host, "the registry did not start: see what it printed to stderr"
        yield RealRegistry(host, directory)
    finally:
        server.terminate()
        server.communicate()


# --- images --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """An image in a layout of its own."""

    layout: Path
    digest: str
    manifest: Manifest

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self.manifest.layers

    def plan(self, *destinations: str, **fields) -> PushPlan:
        """Destinations as `registry/repository:tag,tag`."""
        parsed = []
        for one in destinations:
            name, slash, last = one.rpartition("/")
            last, _, tags = last.partition(":")
            parsed.append(
                Destination(f"{name}{slash}{last}", tuple(tags.split(",")) if tags else ())
            )
        return PushPlan("services/ml:image", self.layout.name, self.digest, tuple(parsed), **fields)

    @property
    def documents_size(self) -> int:
        return self.manifest.config.size


def make_image(
    layout: Path,
    *layers: bytes | int,
    base: tuple[str, Image] | None = None,
    platforms: tuple[Platform, ...] = (),
    env: tuple[str, ...] = (),
    config: dict[str, object] | None = None,
) -> Image:
    """An image of these layers: their content, or that of a number of random bytes (the same for
    the same number).

    base: its name, and the image whose layers this one refers to and does not hold. platforms:
    makes an index. config: instead of the usual one.
    """
    layout.mkdir(parents=True)
    manifests = []
    for platform in platforms or (AMD64,):
        descriptors, diff_ids = [], []
        if base is not None:
            descriptors += base[1].layers
            diff_ids += [layer.digest for layer in base[1].layers]  # any will do
        for number, layer in enumerate(layers):
            content = layer if isinstance(layer, bytes) else random.Random(layer).randbytes(layer)
            with LayerWriter(str(layout)) as writer:
                writer.add_bytes(f"layer-{number}-{platform.architecture}", content)
                made = writer.finish("a test's")
            descriptors.append(made.descriptor)
            diff_ids.append(made.diff_id)
        usual = {
            "config": {"Env": list(env)},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        document = canonical({**platform.as_fields(), **(usual if config is None else config)})
        annotations = {BASE_NAME: base[0], BASE_DIGEST: base[1].digest} if base else {}
        manifest = Manifest(
            OCI_MANIFEST, _write(layout, document, OCI_CONFIG), tuple(descriptors), annotations
        )
        written = _write(layout, manifest.to_json(), OCI_MANIFEST)
        manifests.append(
            Descriptor(written.media_type, written.digest, written.size, platform=platform)
        )
    top = manifests[0]
    if platforms:
        top = _write(layout, Index(OCI_INDEX, tuple(manifests)).to_json(), OCI_INDEX)
    for name, data in layout_files([top]).items():
        (layout / name).write_bytes(data)
    return Image(layout, top.digest, manifest)


def _write(layout: Path, data: bytes, media_type: str) -> Descriptor:
    path = layout / blob_path(digest_of(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Descriptor(media_type, digest_of(data), len(data))


# --- our side ------------------------------------------------------------------------------------


@dataclass
class Clock:
    """Time that passes by sleeping alone; `slept` are the pauses."""

    slept: list[float] = field(default_factory=list)

    @property
    def timing(self) -> Timing:
        return Timing(
            self.slept.append, lambda: sum(self.slept), lambda: 1_700_000_000.0, lambda: 1.0
        )


def docker_config(
    directory: Path, *hosts: str, password: str = PASSWORD, **more: object
) -> Keychain:
    """Docker's configuration with a log-in at `hosts`."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    directory.mkdir(parents=True, exist_ok=True)
    document = {"auths": {host: {"auth": auth} for host in hosts}, **more}
    (directory / "config.json").write_text(json.dumps(document))
    return Keychain({"DOCKER_CONFIG": str(directory)}, helper_seconds=30.0)


def exists(name: str, session: Session) -> str | None:
    """The digest of the image; None if it does not exist."""
    image = Reference.parse(name)
    registry, which = session.registry(image.registry), image.digest or image.tag or "latest"
    return registry.manifest_digest(image.repository, which, may_pull(image.repository))


def session(keychain: Keychain | None = None, clock: Clock | None = None, **transport) -> Session:
    """One that waits for nothing and finds no credentials but those of `keychain`."""
    nobody = Keychain({"DOCKER_CONFIG": "/nonexistent"})
    return Session(
        transport=Transport(**transport),
        keychain=keychain or nobody,
        timing=(clock or Clock()).timing,
    )
