"""A base image without its layers: the content of a lock file, and of a local base's `base.json`.

Each document is kept byte for byte as it was served, since its digest is its identity. Digests are
checked whenever it is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Optional, Tuple

from flyte_pack.json_fields import Digest, Document, SafePath
from flyte_pack.oci import model
from flyte_pack.oci.config import ImageConfig
from flyte_pack.oci.model import Descriptor, Index, InvalidImage, Manifest, Platform


@dataclass(frozen=True)
class BaseDistribution:
    """One of a virtual environment of the base.

    place: the directory of packages that has it. name: normalized. paths: what is its alone, the
    topmost directories and files, from the image's root; None if that is not known.
    """

    place: str
    name: str
    version: str
    paths: Optional[Tuple[SafePath, ...]]


@dataclass(frozen=True)
class BaseFacts:
    """What the base's own files say; `image/base_files.py` finds it.

    python: absolute path of the interpreter itself, no link and in no virtual environment; None if
    none was named or found. version: its version, `3.12.4`, or `3.12` if no more is known. glibc:
    the version of the C library. musl: whether the interpreter is or may be linked with musl;
    beside a `glibc`, that is not known. occupied: whether something is at `/opt/venv`. packages:
    directories of packages of the virtual environment that was named, and of one of that Python in
    `/opt/venv`. user_packages: whether a user's home has packages (`pip install --user`). closed:
    `directory:owner`, the one on the way to the interpreter that others may not search. has_flyte:
    whether that Python has Flyte's runtime. distributions: of `packages`; None where there is
    neither such an environment nor something at `/opt/venv`. isolated: whether an environment keeps
    out what is beside the interpreter (`include-system-site-packages`); None if there is none.
    """

    OMITTED = ("distributions", "isolated")

    python: Optional[str] = None
    version: Optional[str] = None
    glibc: Optional[str] = None
    musl: bool = False
    occupied: bool = False
    packages: Tuple[str, ...] = ()
    user_packages: bool = False
    closed: Optional[str] = None
    has_flyte: bool = False
    distributions: Optional[Tuple[BaseDistribution, ...]] = None
    isolated: Optional[bool] = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing that is found today: a lock file may be older."""
        return self.distributions is not None or not (self.occupied or self.packages)


@dataclass(frozen=True)
class BasePlatform:
    """The image of one platform; `manifest` and `config` are the documents as they were served.

    facts: None where its layers were not read.
    """

    OMITTED = ("facts",)

    platform: Platform
    manifest: bytes
    config: bytes
    facts: Optional[BaseFacts] = None

    def __post_init__(self) -> None:
        """Raises `InvalidImage` where the two do not fit together."""
        manifest = self.parsed_manifest
        if model.digest_of(self.config) != manifest.config.digest:
            raise InvalidImage(f"{self._what}: the config is not the one that the manifest names")
        self.parsed_config.check_layers(manifest.layers, self._what)

    @property
    def _what(self) -> str:
        return f"the base image for {self.platform}"

    @property
    def digest(self) -> str:
        return model.digest_of(self.manifest)

    @property
    def parsed_manifest(self) -> Manifest:
        manifest = model.parse_document(self.manifest, self._what)
        if not isinstance(manifest, Manifest):
            raise InvalidImage(f"{self._what}: an index where a manifest should be")
        return manifest

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self.parsed_manifest.layers

    @property
    def parsed_config(self) -> ImageConfig:
        return ImageConfig.parse(self.config, self._what)

    @property
    def official_python(self) -> str | None:
        """Where Docker's official images, which set PYTHON_VERSION, have it."""
        version = self.parsed_config.env.get("PYTHON_VERSION", "")
        found = re.fullmatch(r"(3\.[0-9]+)(\..*)?", version)
        return f"/usr/local/bin/python{found[1]}" if found else None

    @property
    def official_version(self) -> str | None:
        """The full version of that Python, such as `3.12.4`."""
        version = self.parsed_config.env.get("PYTHON_VERSION", "")
        return version if re.fullmatch(r"3\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?", version) else None


@dataclass(frozen=True)
class BaseImage(Document):
    """name: `registry/repository[:tag]` of the layers; None if they are at hand.

    digest: of the index, or of the only manifest. index: as it was served. python: the absolute
    path of the interpreter in the image with its version (`/usr/local/bin/python3.12`), if it is
    known. production: False if the image is made of a machine's own files.
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
            index = model.parse_document(self.index, "the base image's index")
            if model.digest_of(self.index) != self.digest or not isinstance(index, Index):
                raise InvalidImage("the base image's index is not what its digest says")
            known = {manifest.digest for manifest in index.manifests}
        for platform in self.platforms:
            if platform.digest not in known:
                raise InvalidImage(
                    f"the base image's manifest for {platform.platform} does not belong to "
                    f"{self.digest}"
                )

    def for_platform(self, platform: Platform) -> BasePlatform | None:
        return next((p for p in self.platforms if p.platform == platform), None)

    @property
    def python_path(self) -> str | None:
        """`python`, or where Docker's official images have it."""
        return self.python or self.platforms[0].official_python

    def to_json(self) -> bytes:
        platforms = tuple(sorted(self.platforms, key=lambda one: one.platform))
        return Document.to_json(replace(self, platforms=platforms))
