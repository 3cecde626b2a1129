"""Reads OCI image layouts that are at hand in memory: documents, layers, and what is in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyte_pack.oci.model import OCI_INDEX


@dataclass(frozen=True)
class Member:
    """A member of a layer; kind: `file`, `directory` or `link`, whose target is then `content`."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str


@dataclass(frozen=True)
class LayoutLayer:
    """what: as the history has it, without who made it. members: by path; None for a layer that is
    not at hand.
    """

    digest: str
    what: str
    members: Mapping[str, Member] | None

    @property
    def files(self) -> dict[str, str]:
        return {p: m.content for p, m in (self.members or {}).items() if m.kind == "file"}


@dataclass(frozen=True)
class Layout:
    """files: all of a layout, by path."""

    files: Mapping[str, bytes]

    @classmethod
    def of(cls, contents: Mapping[str, bytes], below: str) -> Layout:
        assert all(path.startswith(f"{below}/") for path in contents)
        layout = cls({path[len(below) + 1 :]: data for path, data in contents.items()})
        for path, data in layout.files.items():
            if path.startswith("blobs/"):
                assert path == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
        assert json.loads(layout.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
        return layout

    @property
    def blobs(self) -> set[str]:
        """The digests of what is at hand."""
        return {
            path[len("blobs/") :].replace("/", ":")
            for path in self.files
            if path.startswith("blobs/")
        }

    @property
    def top(self) -> dict[str, Any]:
        """The descriptor of the image: the one entry of index.json."""
        (entry,) = json.loads(self.files["index.json"])["manifests"]
        return entry

    @property
    def digest(self) -> str:
        return self.top["digest"]

    def document(self, digest: str) -> dict[str, Any]:
        return json.loads(self.files[f"blobs/{digest.replace(':', '/')}"])

    @property
    def index(self) -> dict[str, Any]:
        assert self.top["mediaType"] == OCI_INDEX
        return self.document(self.digest)

    @property
    def platforms(self) -> list[str]:
        entries = self.index["manifests"] if self.top["mediaType"] == OCI_INDEX else [self.top]
        return [f"{e['platform']['os']}/{e['platform']['architecture']}" for e in entries]

    def manifest(self, platform: str | None = None) -> dict[str, Any]:
        if platform is None:
            return self.document(self.digest)
        (entry,) = [
            entry
            for entry in self.index["manifests"]
            if f"{entry['platform']['os']}/{entry['platform']['architecture']}" == platform
        ]
        return self.document(entry["digest"])

    def image_config(self, platform: str | None = None) -> dict[str, Any]:
        return self.document(self.manifest(platform)["config"]["digest"])

    @property
    def config(self) -> dict[str, Any]:
        """What a container starts with."""
        return self.image_config()["config"]

    @property
    def env(self) -> dict[str, str]:
        return dict(variable.split("=", 1) for variable in self.config["Env"])

    def layers(self, platform: str | None = None) -> list[LayoutLayer]:
        """Lowest first; each is checked against its diff_id and size in the documents."""
        manifest, config = self.manifest(platform), self.image_config(platform)
        told = [entry for entry in config["history"] if not entry.get("empty_layer")]
        diff_ids = config["rootfs"]["diff_ids"]
        assert len(manifest["layers"]) == len(diff_ids) == len(told)
        layers = []
        for descriptor, diff_id, entry in zip(manifest["layers"], diff_ids, told):
            blob = self.files.get(f"blobs/{descriptor['digest'].replace(':', '/')}")
            members = None
            if blob is not None:
                assert len(blob) == descriptor["size"]
                unpacked = gzip.decompress(blob)
                assert diff_id == f"sha256:{hashlib.sha256(unpacked).hexdigest()}"
                members = members_of(unpacked)
            what = entry.get("created_by", "").replace("pants-flyte: ", "")
            layers.append(LayoutLayer(descriptor["digest"], what, members))
        return layers

    def holding(self, path: str) -> LayoutLayer:
        """The one layer with that path."""
        (layer,) = [layer for layer in self.layers() if path in (layer.members or {})]
        return layer

    @property
    def tree(self) -> dict[str, Member]:
        """What the layers that are at hand come to, the upper ones on top."""
        return {p: m for layer in self.layers() for p, m in (layer.members or {}).items()}

    def below(self, directory: str) -> dict[str, str]:
        """The files below a directory, by their paths there."""
        return {
            path[len(directory) + 1 :]: member.content
            for path, member in self.tree.items()
            if path.startswith(f"{directory}/") and member.kind == "file"
        }


def members_of(archive: bytes) -> dict[str, Member]:
    found: dict[str, Member] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            assert (member.mtime, member.uname, member.gname) == (0, "", "")
            assert member.name not in found, f"{member.name} is there twice"
            if member.isfile():
                kind, content = "file", tar.extractfile(member).read().decode(errors="replace")  # type: ignore[union-attr]
            elif member.isdir():
                kind, content = "directory", ""
            else:
                assert member.issym()
                kind, content = "link", member.linkname
            found[member.name] = Member(kind, member.mode, (member.uid, member.gid), content)
    return found
