"""Small images for tests: on a base of this machine's own files, and of layers that a test makes
up.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import flyte_pack
from flyte_pack.image.assemble import ImageSettings, assemble
from flyte_pack.image.base import BaseImage
from flyte_pack.json_fields import canonical
from flyte_pack.oci.layer import LayerWriter
from flyte_pack.oci.layout import layout_files
from flyte_pack.oci.model import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    Platform,
    blob_path,
    digest_of,
)

SOURCES = str(Path(flyte_pack.__file__).parent.parent)
AMD64 = Platform("linux", "amd64")


def flyte_pack_environment(**more: str) -> dict[str, str]:
    """The environment of a process that runs flyte_pack, on this interpreter's packages."""
    path = os.pathsep.join((SOURCES, *filter(None, sys.path)))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **more}


def run_flyte_pack(
    module: str, *arguments: str, env: Mapping[str, str] | None = None, **options: object
) -> subprocess.CompletedProcess:
    """`main(arguments)` of a module, in a process of its own."""
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run(
        flyte_pack_command(module, *arguments),
        env=flyte_pack_environment(**(env or {})),
        check=False,
        **options,
    )


def flyte_pack_command(module: str, *arguments: str) -> list[str]:
    code = f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *arguments]


def image_on(
    base: Path,
    place: Path,
    add: Callable[[LayerWriter], object] = lambda layer: None,
    **settings: object,
) -> Path:
    """An image layout on the base in `base` (base.json and blobs), with one layer that `add` fills;
    gives `place`.
    """
    shutil.copytree(base / "blobs", place / "blobs")
    image = BaseImage.from_json((base / "base.json").read_bytes(), "base.json")
    with LayerWriter(str(place)) as writer:
        add(writer)
        layer = writer.finish("a test's layer")
    values = {
        "env": {"HOME": "/home/flyte"},
        "labels": {},
        "user": "1000:1000",
        "workdir": "/home/flyte/task",
        "entrypoint": (),
        **settings,
    }
    assembled = assemble(image, {image.platforms[0].platform: [layer]}, ImageSettings(**values))
    for path, document in assembled.documents.items():
        (place / path).write_bytes(document)
    return place


def layout_of(
    place: Path,
    layers: Iterable[bytes],
    *,
    media_type: str = OCI_LAYER,
    diff_ids: Iterable[str] | None = None,
    config: Mapping[str, object] | None = None,
    names: Iterable[str] = (),
    platform: Platform = AMD64,
    **annotations: str,
) -> Path:
    """An image layout of these layers' blobs, which are plain tars unless `media_type` and
    `diff_ids` say otherwise.
    """
    blobs = list(layers)
    (place / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)

    def add(data: bytes, kind: str) -> Descriptor:
        digest = digest_of(data)
        (place / blob_path(digest)).write_bytes(data)
        return Descriptor(kind, digest, len(data))

    rootfs = {"type": "layers", "diff_ids": list(diff_ids or map(digest_of, blobs))}
    document = {**platform.as_fields(), "config": dict(config or {}), "rootfs": rootfs}
    manifest = Manifest(
        OCI_MANIFEST,
        add(canonical(document), OCI_CONFIG),
        tuple(add(blob, media_type) for blob in blobs),
        annotations,
    )
    top = add(manifest.to_json(), OCI_MANIFEST)
    found = (place / "index.json").exists() and json.loads((place / "index.json").read_bytes())
    before = [Descriptor.from_fields(d, "") for d in found["manifests"]] if found else []
    named = [
        Descriptor(
            top.media_type,
            top.digest,
            top.size,
            {"org.opencontainers.image.ref.name": name},
            platform,
        )
        for name in names
    ] or [Descriptor(top.media_type, top.digest, top.size, platform=platform)]
    for path, data in layout_files([*before, *named]).items():
        (place / path).write_bytes(data)
    return place


def tar_of(*members: tuple[str, object] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of (path, content): bytes for a file, None for a directory, text for a symbolic link;
    or ready members.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(bytes(member.size)))
                continue
            path, content = member
            info = tarfile.TarInfo(path)
            info.mode = 0o644
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def special(path: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    """A member of another type."""
    info = tarfile.TarInfo(path)
    info.type, info.linkname = kind, link
    return info


def listing(root: Path) -> dict[str, object]:
    """What is below `root`: None for a directory, a link's target, a file's content."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
