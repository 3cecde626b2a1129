"""Requires that a bundle is signed: by a key of the file that FLYTE_SHIM_TRUSTED_KEYS names.

What is signed is a bundle's SHA-256 (`signed_text`). A signature is a small file beside the archive
with the archive's name and an ending that tells the key (`signature_ending`), so that several keys
can sign one archive and nothing is ever rewritten. It holds the signature in base64: of ECDSA P-256
with SHA-256, in DER, or of Ed25519. Checking it takes the package `cryptography`, which Flyte
depends on; only a start that requires signatures imports it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import time

from flyte_shim import shown
from flyte_shim.errors import (
    SourceDenied,
    SourceMissing,
    SourceUnavailable,
    UnsignedArchive,
    UsageError,
)
from flyte_shim.fetch import open_source, patience_from
from flyte_shim.files import write_all
from flyte_shim.paths import bare_uri

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Callable

VARIABLE = "FLYTE_SHIM_TRUSTED_KEYS"
MOST_BYTES = 4096  # of a signature's file
_MOST_KEYS = 16
_KEY_FILE_BYTES = 1 << 16
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\s]*-----END PUBLIC KEY-----")


def signed_text(archive_hash: str) -> bytes:
    """What is signed for an archive. archive_hash: its SHA-256 in lower-case hexadecimal digits."""
    return f"flyte-shim bundle 1\nsha256:{archive_hash}\n".encode()


def signature_ending(key_id: str) -> str:
    """What a signature's name has more than the archive's. key_id: SHA-256 of the key's SPKI."""
    return f".{key_id[:16]}.sig"


class Key:
    """A public key. ending: of the names of its signatures."""

    def __init__(self, public: Any, ending: str) -> None:
        self._public, self.ending = public, ending

    def has_signed(self, archive_hash: str, signature: bytes) -> bool:
        """signature: the content of its file."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
        from cryptography.hazmat.primitives.hashes import SHA256

        text = signed_text(archive_hash)
        try:
            raw = base64.b64decode(signature.strip(), validate=True)
            if isinstance(self._public, EllipticCurvePublicKey):
                self._public.verify(raw, text, ECDSA(SHA256()))
            else:
                self._public.verify(raw, text)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signed:
    """A signature that was checked, and its name in a cache entry."""

    def __init__(self, name: str, content: bytes) -> None:
        self._name, self._content = name, content

    def keep(self, entry: str) -> None:
        """Put it into the directory of a cache entry, so that the next start asks no store.

        It is checked each time, so a part of one does no harm, and without one the store is asked.
        """
        path = f"{entry}/{self._name}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError:
            return
        try:
            write_all(fd, self._content)
        except OSError:
            pass
        finally:
            os.close(fd)


def check_signed(
    uri: str,
    sha256: str,
    entry: str,
    environ: Mapping[str, str],
    retrying: Callable[[SourceUnavailable, int], None] | None = None,
) -> Signed:
    """The signature of the archive at `uri`; without a valid one raises ShimError.

    sha256: the archive's hash, which is compared with its content elsewhere. entry: the directory
    of its cache entry, which there need not be.
    """
    keys = trusted_keys(environ[VARIABLE])
    for key in keys:
        kept = _kept(f"{entry}/signature{key.ending}")
        if kept and key.has_signed(sha256, kept):
            return Signed(f"signature{key.ending}", kept)
    name = shown.uri(uri)
    if bare_uri(uri) != uri:
        raise UsageError(
            f"{VARIABLE} asks for a signature beside the bundle, and {name} is a signed URL, which "
            "opens nothing beside it. Use the URI of a store"
        )
    patience = patience_from(environ)
    found, denied = 0, None
    for key in keys:
        try:
            content = _read(f"{uri}{key.ending}", patience, environ, retrying)
        except SourceDenied as error:
            denied = error  # also of what is not there, where a store may not be listed
            continue
        if content is None:
            continue
        found += 1
        if key.has_signed(sha256, content):
            return Signed(f"signature{key.ending}", content)
    advice = (
        "Deploy it again with FLYTE_SIGNING_KEY set to a key whose public one is in the file that "
        f"{VARIABLE} names"
    )
    if found:
        raise UnsignedArchive(
            f"the signature beside {name} is damaged or was replaced: it is not of the trusted key "
            f"and the SHA-256 {sha256}. The bundle was not opened. {advice}, and with --repair"
        )
    if denied is not None:
        raise SourceDenied(
            f"no signature of {name} can be read, or there is none: {denied}. {advice}"
        )
    keys_said = "the trusted key" if len(keys) == 1 else f"any of the {len(keys)} trusted keys"
    raise UnsignedArchive(
        f"{name} has no signature of {keys_said}. The bundle was not opened. {advice}"
    )


def trusted_keys(path: str) -> list[Key]:
    """The public keys in a file: PEM, one after the other. Raises UsageError."""
    what = f"{VARIABLE}: {shown.uri(path)}"
    try:
        with open(path, "rb") as file:
            data = file.read(_KEY_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: {getattr(error, 'strerror', None) or 'no path'}") from None
    kinds = _BEGIN.findall(data)
    if any(b"PRIVATE" in kind for kind in kinds):
        raise UsageError(f"{what} holds a private key. Give the public one alone")
    blocks = _PUBLIC.findall(data)
    if not blocks or len(blocks) != len(kinds) or len(data) > _KEY_FILE_BYTES:
        raise UsageError(
            f"{what} is not a file of public keys (PEM: -----BEGIN PUBLIC KEY-----), such as "
            "`openssl pkey -pubout` writes"
        )
    if len(blocks) > _MOST_KEYS:
        raise UsageError(f"{what} has {len(blocks)} keys, and at most {_MOST_KEYS} can be trusted")
    return [_key(block, f"{what}: key {number}") for number, block in enumerate(blocks, 1)]


def _key(block: bytes, what: str) -> Key:
    _import_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    try:
        public = load_pem_public_key(block)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"{what} cannot be read: it is damaged") from None
    is_p256 = isinstance(public, EllipticCurvePublicKey) and public.curve.name == "secp256r1"
    if not is_p256 and not isinstance(public, Ed25519PublicKey):
        raise UsageError(f"{what} is neither of ECDSA P-256 nor of Ed25519")
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(public, signature_ending(hashlib.sha256(der).hexdigest()))


def _import_cryptography() -> None:
    """Raises UsageError where it is not there.

    Not from the working directory, where files of a bundle may be.
    """
    before = sys.path[:]
    here = os.path.realpath(".")
    sys.path[:] = [one for one in before if one and os.path.realpath(one) != here]
    try:
        import cryptography.hazmat.primitives.serialization  # noqa: F401
    except Exception as error:
        raise UsageError(
            f"{VARIABLE} asks for signatures, and checking them takes the package `cryptography` "
            f"in the Python that runs flyte-shim ({sys.executable}): {type(error).__name__}. Flyte "
            "brings it: run flyte-shim by the Python that has Flyte, or install it there"
        ) from None
    finally:
        sys.path[:] = before


def _kept(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.read(fd, MOST_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)


def _read(
    uri: str,
    patience: Any,
    environ: Mapping[str, str],
    retrying: Callable[[SourceUnavailable, int], None] | None,
) -> bytes | None:
    """A small file, in some attempts; None where there is none. Raises ShimError."""
    attempt = 1
    while True:
        try:
            data = b""
            for chunk in open_source(uri, patience, environ).read(0):
                data += chunk
                if len(data) > MOST_BYTES:
                    raise UnsignedArchive(f"{shown.uri(uri)} is too large for a signature")
        except SourceMissing:
            return None
        except SourceUnavailable as error:
            if attempt >= patience.attempts:
                raise SourceUnavailable(f"{error}; gave up after {attempt} attempts") from None
            if retrying:
                retrying(error, attempt)
            time.sleep(min(patience.pause_after(attempt, error.wait), patience.left()))
            attempt += 1
        else:
            return data
