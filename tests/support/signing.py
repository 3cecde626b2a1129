"""Keys that OpenSSL makes, and what it says of signatures."""

from __future__ import annotations

import subprocess
from pathlib import Path

KINDS = {
    "ecdsa": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "ed25519": ("-algorithm", "ED25519"),
}


def openssl(*words: str, data: bytes | None = None) -> bytes:
    return subprocess.run(
        ["openssl", *words], check=True, input=data, stdout=subprocess.PIPE
    ).stdout


def new_key(directory: Path, kind: str = "ecdsa", passphrase: str | None = None) -> Path:
    """A private key; its public key is beside it, with the ending `.pub`."""
    plain = openssl("genpkey", *KINDS[kind])
    path = directory / f"{kind}.pem"
    path.with_suffix(".pub").write_bytes(openssl("pkey", "-pubout", data=plain))
    if passphrase is not None:
        plain = openssl(
            "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", f"pass:{passphrase}", data=plain
        )
    path.write_bytes(plain)
    return path


def openssl_verifies(directory: Path, public: Path, data: bytes, signature: bytes) -> bool:
    (directory / "signed").write_bytes(data)
    (directory / "signature").write_bytes(signature)
    raw = b"ED25519" in openssl("pkey", "-pubin", "-in", str(public), "-noout", "-text")
    how = ("-rawin",) if raw else ("-rawin", "-digest", "sha256")
    words = ("pkeyutl", "-verify", "-pubin", "-inkey", str(public), *how)
    files = ("-in", str(directory / "signed"), "-sigfile", str(directory / "signature"))
    return subprocess.run(["openssl", *words, *files], capture_output=True).returncode == 0
