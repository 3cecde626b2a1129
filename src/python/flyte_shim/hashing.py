"""Computes the two identities of a bundle: the archive hash and the content hash.

The archive hash is the SHA-256 of the archive; a container checks it before it opens the archive.
The content hash identifies the files and does not depend on the compressor; versions and
deduplication use it. Every field of its listing has a fixed length or a length prefix, so different
listings have different bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

CONTENT_HASH_HEADER = b"pants-flyte content hash 1\n"
_READ = 1 << 20


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_READ))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def content_hash(rows: Iterable[tuple[str, int, int, str]]) -> str:
    """The content hash of a listing, as 64 lower-case hexadecimal digits.

    `rows` are `(path, mode, size, sha256)`, sorted by the UTF-8 bytes of the path, with the mode
    0o644 or 0o755, the size in bytes and the SHA-256 in hexadecimal. The hash covers
    `CONTENT_HASH_HEADER`, then for each file: the path's length in bytes (unsigned 64-bit,
    big-endian), the path in UTF-8, the mode (32-bit), the size (64-bit) and the SHA-256 (32 bytes).
    """
    digest = hashlib.sha256(CONTENT_HASH_HEADER)
    for path, mode, size, sha256 in rows:
        name = path.encode()
        digest.update(len(name).to_bytes(8, "big") + name)
        digest.update(mode.to_bytes(4, "big") + size.to_bytes(8, "big") + bytes.fromhex(sha256))
    return digest.hexdigest()
