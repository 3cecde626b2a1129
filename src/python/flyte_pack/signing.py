"""Signs with the key that the environment names, or by a command that has the key.

    FLYTE_SIGNING_KEY              a file with a private key: PEM, of ECDSA P-256 or Ed25519
    FLYTE_SIGNING_PASSPHRASE_FILE  a file whose first line is its passphrase
    FLYTE_SIGNING_PASSPHRASE       or the passphrase
    FLYTE_SIGNING_COMMAND          a command that signs its standard input: PKCS#11, a KMS
    FLYTE_SIGNING_PUBLIC_KEY       a file with its public key: PEM

Nothing of a key or passphrase gets into a message, an argument, or the command's environment.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Union

from flyte_pack import children
from flyte_pack.errors import UserError
from flyte_pack.json_fields import canonical
from flyte_shim import shown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    PublicKey = Union[EllipticCurvePublicKey, Ed25519PublicKey]

KEY, COMMAND, PUBLIC = "FLYTE_SIGNING_KEY", "FLYTE_SIGNING_COMMAND", "FLYTE_SIGNING_PUBLIC_KEY"
PASSPHRASE, PASSPHRASE_FILE = "FLYTE_SIGNING_PASSPHRASE", "FLYTE_SIGNING_PASSPHRASE_FILE"
VARIABLES = (KEY, COMMAND, PUBLIC, PASSPHRASE, PASSPHRASE_FILE)
_LONGEST = 1 << 16  # bytes of a file of a key
_SIGNATURE = 4096  # bytes of a command's answer
_SECONDS = 120.0
_KINDS = "a key of ECDSA P-256 or Ed25519"


class SigningError(UserError):
    """A key cannot be used, or a command does not sign."""


@dataclass(frozen=True)
class Signer:
    """public: what checks its signatures. key_id: SHA-256 of that in DER, as SPKI."""

    public: PublicKey
    key_id: str
    _sign: Callable[[bytes], bytes]

    def sign(self, data: bytes) -> bytes:
        """A signature, checked: of ECDSA in DER, of the SHA-256. Raises `SigningError`."""
        signature = self._sign(data)
        if not self.is_mine(data, signature):
            raise SigningError(f"{COMMAND}: its signature is not one of the key in {PUBLIC}")
        return signature

    def is_mine(self, data: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            if isinstance(self.public, EllipticCurvePublicKey):
                self.public.verify(signature, data, ECDSA(SHA256()))
            else:
                self.public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def signer_of(environ: Mapping[str, str]) -> Signer | None:
    """None where nothing names a key. Raises `SigningError`."""
    key, command = environ.get(KEY), environ.get(COMMAND)
    if key and command:
        raise SigningError(f"{KEY} and {COMMAND} are both set: unset one")
    if key:
        return _by_file(key, environ)
    if command:
        public = environ.get(PUBLIC)
        if not public:
            raise SigningError(f"{COMMAND} is set: name the file of its public key in {PUBLIC}")
        return _by_command(command, public, environ)
    return None


def envelope(signer: Signer, payload: bytes, kind: str) -> bytes:
    """A signed document of media type `kind` (DSSE 1.0, "Envelope"), on a line."""
    name = kind.encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)
    signature = {"keyid": signer.key_id, "sig": _base64(signer.sign(signed))}
    return (
        canonical({"payloadType": kind, "payload": _base64(payload), "signatures": [signature]})
        + b"\n"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _by_file(path: str, environ: Mapping[str, str]) -> Signer:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(KEY, path)
    passphrase = _passphrase(environ)
    encrypted = b"ENCRYPTED" in data
    if b"SIGSTORE PRIVATE KEY" in data or b"COSIGN PRIVATE KEY" in data:
        raise SigningError(
            f"{KEY}: {shown.name(path)} is in cosign's own format, which only cosign reads. Give "
            "the key as PEM (PKCS #8), such as `openssl genpkey` makes it"
        )
    if encrypted and passphrase is None:
        raise SigningError(f"{KEY}: the key has a passphrase: name its file in {PASSPHRASE_FILE}")
    try:
        private = load_pem_private_key(data, passphrase if encrypted else None)
    except Exception:  # of many classes, whose messages may quote the key
        why = f"its passphrase is another one, or it is no {_KINDS[2:]} in PEM"
        raise SigningError(f"{KEY}: {shown.name(path)} cannot be read: {why}") from None
    if isinstance(private, EllipticCurvePrivateKey):
        ours, key = private.public_key(), private
        return _signer(ours, KEY, path, lambda data: key.sign(data, ECDSA(SHA256())))
    if isinstance(private, Ed25519PrivateKey):
        return _signer(private.public_key(), KEY, path, private.sign)
    raise SigningError(f"{KEY}: {shown.name(path)} is not {_KINDS}")


def _by_command(command: str, public: str, environ: Mapping[str, str]) -> Signer:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        words = shlex.split(command)
    except ValueError:
        raise SigningError(f"{COMMAND}: a quote is open") from None
    try:
        key = load_pem_public_key(_read(PUBLIC, public))
    except SigningError:
        raise
    except Exception:
        raise SigningError(f"{PUBLIC}: {shown.name(public)} is not {_KINDS} in PEM") from None
    theirs = {name: value for name, value in environ.items() if name not in VARIABLES}

    def sign(data: bytes) -> bytes:
        try:
            done = children.run(words, input=data, timeout=_SECONDS, env=theirs)
        except OSError as error:
            raise SigningError(f"{COMMAND}: {words[0]!a:.100}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise SigningError(f"{COMMAND}: no signature after {_SECONDS:.0f} s") from None
        if done.returncode or not 0 < len(done.stdout) <= _SIGNATURE:
            said = shown.line(done.stderr.decode(errors="replace"), longest=200)
            raise SigningError(
                f"{COMMAND}: exit code {done.returncode}, {len(done.stdout):,} bytes"
                + (f": {said}" if said else "")
            )
        return bytes(done.stdout)

    return _signer(key, PUBLIC, public, sign)


def _signer(public: object, what: str, path: str, sign: Callable[[bytes], bytes]) -> Signer:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(public, EllipticCurvePublicKey):
        fits = public.curve.name == "secp256r1"
    else:
        fits = isinstance(public, Ed25519PublicKey)
    if not fits or not isinstance(public, (EllipticCurvePublicKey, Ed25519PublicKey)):
        raise SigningError(f"{what}: {shown.name(path)} is not {_KINDS}")
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Signer(public, hashlib.sha256(der).hexdigest(), sign)


def _passphrase(environ: Mapping[str, str]) -> bytes | None:
    if path := environ.get(PASSPHRASE_FILE):
        return _read(PASSPHRASE_FILE, path).partition(b"\n")[0].rstrip(b"\r")
    value = environ.get(PASSPHRASE)
    return None if value is None else os.fsencode(value)


def _read(variable: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise SigningError(f"{variable}: {shown.name(path)}: {error.strerror}") from None
    if len(data) > _LONGEST:
        raise SigningError(f"{variable}: {shown.name(path)} is too large for a key")
    return data
