"""A base image: what is known of it without its layers. It is a lock file's content, and what a local base comes with.

Each document is kept as it was served, byte for byte, since its digest is its identity; digests are checked whenever it is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Optional, Tuple

from flyte_pack.json_fields import Digest, Document
from flyte_pack.oci.model import (
    Descriptor,
    Index,
    InvalidImage,
    Manifest,
    Platform,
    check_digest,
    digest_of,
    parse_document,
    parse_object,
)


@dataclass(frozen=True)
class BasePlatform:
    """The image of one platform; `manifest` and `config` are the documents as they were served."""

    platform: Platform
    manifest: bytes
    config: bytes

    def __post_init__(self) -> None:
        """Raises `InvalidImage` where the two do not fit together."""
        manifest, config = self.parsed_manifest, parse_object(self.config, self._what)
        if digest_of(self.config) != manifest.config.digest:
            raise InvalidImage(f"{self._what}: the config is not the one that the manifest names")
        if len(_diff_ids(config)) != len(manifest.layers):
            raise InvalidImage(f"{self._what}: the config and the manifest differ in their layers")
        _check_settings(config.get("config"), self._what)

    @property
    def _what(self) -> str:
        return f"the base image for {self.platform}"

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def parsed_manifest(self) -> Manifest:
        manifest = parse_document(self.manifest, self._what)
        if not isinstance(manifest, Manifest):
            raise InvalidImage(f"{self._what}: an index where a manifest should be")
        return manifest

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self.parsed_manifest.layers

    @property
    def parsed_config(self) -> dict[str, Any]:
        return parse_object(self.config, self._what)


@dataclass(frozen=True)
class BaseImage(Document):
    """name: `registry/repository[:tag]`, where layers can be had; None where the layers are at hand. digest: what it is
    pinned to, of its index or its one manifest; index: the former as it was served. python: the absolute path of the
    interpreter in the image, its name ending in the version (`/usr/local/bin/python3.12`), if it is known. production:
    False for one that is put together from a machine's own files.
    """

    NAME = "base image"

    name: Optional[str]
    digest: Digest
    index: Optional[bytes]
    platforms: Tuple[BasePlatform, ...]
    python: Optional[str] = None
    production: bool = True

    def __post_init__(self) -> None:
        """Raises `InvalidImage` where index and platforms do not fit together."""
        if not self.platforms:
            raise InvalidImage("the base image has no platform")
        if len({p.platform for p in self.platforms}) < len(self.platforms):
            raise InvalidImage("the base image has a platform twice")
        if self.index is None:
            known = {self.digest}
            if len(self.platforms) > 1:
                raise InvalidImage("the base image has several platforms, but no index")
        else:
            index = parse_document(self.index, "the base image's index")
            if digest_of(self.index) != self.digest or not isinstance(index, Index):
                raise InvalidImage("the base image's index is not what its digest says")
            known = {manifest.digest for manifest in index.manifests}
        for platform in self.platforms:
            if platform.digest not in known:
                raise InvalidImage(
                    f"the base image's manifest for {platform.platform} does not belong to {self.digest}"
                )

    def for_platform(self, platform: Platform) -> BasePlatform | None:
        return next((p for p in self.platforms if p.platform == platform), None)

    @property
    def python_path(self) -> str | None:
        """`python`, or where Docker's official Python images have it, which say their version in PYTHON_VERSION."""
        if self.python is not None:
            return self.python
        env = (self.platforms[0].parsed_config.get("config") or {}).get("Env") or []
        versions = [
            re.fullmatch(r"PYTHON_VERSION=(3\.[0-9]+)(\..*)?", str(variable)) for variable in env
        ]
        found = next(filter(None, versions), None)
        return f"/usr/local/bin/python{found[1]}" if found else None

    def to_json(self) -> bytes:
        platforms = tuple(sorted(self.platforms, key=lambda one: one.platform))
        return Document.to_json(replace(self, platforms=platforms))


def _diff_ids(config: dict[str, Any]) -> list[str]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list):
        raise InvalidImage("a config without the diff_ids of its layers")
    return [check_digest(one, "a diff_id") for one in found]


def _check_settings(settings: object, what: str) -> None:
    """What we build on of a config's `config`: it comes from a registry, and may be anything."""
    if settings is None:
        return
    if not isinstance(settings, dict):
        raise InvalidImage(f"{what}: `config` of the config is not an object")
    env, labels = settings.get("Env") or [], settings.get("Labels") or {}
    if not isinstance(env, list) or not all(isinstance(variable, str) for variable in env):
        raise InvalidImage(f"{what}: `Env` of the config is not a list of texts")
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise InvalidImage(f"{what}: `Labels` of the config are not text by text")
