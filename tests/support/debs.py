"""Debian packages made by hand (deb(5))."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from collections.abc import Mapping

from flyte_pack.image.apt_lock import LockedDeb
from tests.support.images import tar_of

COMPRESSORS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}
REPOSITORY = "http://deb.example.com/debian"


def ar(*members: tuple[str, bytes]) -> bytes:
    data = b"!<arch>\n"
    for name, content in members:
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    return data


def deb(
    *files: object,
    name: str = "pftest",
    version: str = "1.0",
    scripts: Mapping[str, str] | None = None,
    suffix: str = ".xz",
) -> bytes:
    """files: as `tar_of` takes them. scripts: more control files, by name."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nDescription: x\n y\n"
    more = [(f"./{key}", text.encode()) for key, text in (scripts or {}).items()]
    pack = COMPRESSORS[suffix]
    return ar(
        ("debian-binary", b"2.0\n"),
        (f"control.tar{suffix}", pack(tar_of(("./control", control.encode()), *more))),
        (f"data.tar{suffix}", pack(tar_of(*files))),  # type: ignore[arg-type]
    )


def locked(data: bytes, name: str = "pftest", links: tuple[tuple[str, str], ...] = ()) -> LockedDeb:
    """What a lock file says of the package `data`."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"pool/{name}_1.0_amd64.deb"
    return LockedDeb(name, "1.0", "amd64", REPOSITORY, path, len(data), sha256, links)
