"""The two identities of a bundle: SHA-256 of bytes (the archive hash) and the content hash.

The archive hash says which bytes to trust; a container checks it before it opens anything. The
content hash says what the bundle holds, whatever compressor made the archive: versions and
deduplication rest on it. Every field of its listing has a fixed length or a length before it, so
that no two listings share their bytes: `a/bc.txt` beside `ab/c.txt` can not be taken for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from flyte_shim.paths import is_sha256

__all__ = ["CONTENT_HASH_HEADER", "content_hash", "is_sha256", "sha256_bytes", "sha256_file"]

CONTENT_HASH_HEADER = b"pants-flyte content hash 1\n"
_READ = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of `data`, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str) -> str:
    """SHA-256 of the file at `path`, as 64 lower-case hexadecimal digits; raises OSError."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_READ))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def content_hash(rows: Iterable[tuple[str, int, int, str]]) -> str:
    """The content hash of a listing, as 64 lower-case hexadecimal digits.

    `rows` are `(path, mode, size, sha256)`, sorted by the UTF-8 bytes of the path: the mode is 0o644
    or 0o755, the size is in bytes, the SHA-256 is in hexadecimal. Per file the hash covers: length
    of the path in bytes (unsigned 64-bit, big-endian), the path in UTF-8, mode (32-bit), size
    (64-bit), the 32 bytes of the file's SHA-256; before the first file, `CONTENT_HASH_HEADER`.
    """
    digest = hashlib.sha256(CONTENT_HASH_HEADER)
    for path, mode, size, sha256 in rows:
        name = path.encode()
        digest.update(
            b"%b%b%b%b%b"
            % (
                len(name).to_bytes(8, "big"),
                name,
                mode.to_bytes(4, "big"),
                size.to_bytes(8, "big"),
                bytes.fromhex(sha256),
            )
        )
    return digest.hexdigest()
