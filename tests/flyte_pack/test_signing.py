"""Documents are signed by the key that the environment names, and OpenSSL agrees; no secret is
told.
"""

from __future__ import annotations

import base64
import json
import shlex
import sys

import pytest

from flyte_pack.signing import (
    COMMAND,
    KEY,
    PASSPHRASE,
    PASSPHRASE_FILE,
    PUBLIC,
    SigningError,
    envelope,
    signer_of,
)
from flyte_shim.hashing import sha256_bytes
from tests.support.signing import KINDS, new_key, openssl, openssl_verifies

SECRET = "planted-passphrase-51c0"
DATA = b"what is signed"


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_takes_the_signature_of_a_key_in_a_file(tmp_path, kind):
    key = new_key(tmp_path, kind)
    signer = signer_of({KEY: str(key)})
    signature = signer.sign(DATA)
    assert openssl_verifies(tmp_path, key.with_suffix(".pub"), DATA, signature)
    assert signer.is_mine(DATA, signature)
    assert not signer.is_mine(DATA + b"!", signature)
    assert not signer.is_mine(DATA, b"")
    der = openssl("pkey", "-pubin", "-in", str(key.with_suffix(".pub")), "-outform", "DER")
    assert signer.key_id == sha256_bytes(der)


def test_nobody_signs_where_nothing_is_set():
    assert signer_of({}) is None
    assert signer_of({KEY: "", COMMAND: ""}) is None


@pytest.mark.parametrize("by", ["file", "variable"])
def test_a_passphrase_opens_the_key(tmp_path, by):
    key = new_key(tmp_path, passphrase=SECRET)
    (tmp_path / "secret").write_text(f"{SECRET}\nnot this\n")
    how = {PASSPHRASE_FILE: str(tmp_path / "secret")} if by == "file" else {PASSPHRASE: SECRET}
    assert signer_of({KEY: str(key), **how}).sign(DATA)


def script(tmp_path, body):
    path = tmp_path / "sign.py"
    path.write_text(body)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"


def test_a_command_signs_and_gets_no_variable_of_ours(tmp_path):
    key = new_key(tmp_path)
    command = script(
        tmp_path,
        "import os, subprocess, sys\n"
        "assert not any(name.startswith('FLYTE_SIGNING') for name in os.environ)\n"
        f"sys.exit(subprocess.call(['openssl', 'dgst', '-sha256', '-sign', {str(key)!r}]))\n",
    )
    path = {"PATH": "/usr/bin:/bin"}
    environ = {COMMAND: command, PUBLIC: str(key.with_suffix(".pub")), **path}
    signer = signer_of({**environ, PASSPHRASE: SECRET})
    assert openssl_verifies(tmp_path, key.with_suffix(".pub"), DATA, signer.sign(DATA))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('x')", "its signature is not one of the key"),
        ("import sys; sys.stderr.write('no token\\x1b[2J'); sys.exit(3)", "exit code 3"),
        ("pass", "exit code 0, 0 bytes"),
        ("print('x' * 10000)", "10,001 bytes"),
    ],
)
def test_a_command_that_does_not_sign_is_an_error(tmp_path, body, said):
    key = new_key(tmp_path)
    environ = {COMMAND: script(tmp_path, body), PUBLIC: str(key.with_suffix(".pub"))}
    with pytest.raises(SigningError, match=said) as error:
        signer_of(environ).sign(DATA)
    assert "\x1b" not in str(error.value)


def refused(environ):
    with pytest.raises(SigningError) as error:
        signer_of({name: str(value) for name, value in environ.items()})
    said = str(error.value)
    assert SECRET not in said
    assert "PRIVATE" not in said
    return said


def test_what_cannot_sign_is_an_error_that_tells_no_secret(tmp_path):
    key = new_key(tmp_path, passphrase=SECRET)
    assert "has a passphrase" in refused({KEY: key})
    assert "its passphrase is another one" in refused({KEY: key, PASSPHRASE: f"{SECRET}!"})
    assert "No such file" in refused({KEY: tmp_path / "none"})
    assert "No such file" in refused({KEY: key, PASSPHRASE_FILE: tmp_path / "none"})
    assert "both set" in refused({KEY: key, COMMAND: "true"})
    assert "name the file of its public key" in refused({COMMAND: "true"})
    assert "a quote is open" in refused({COMMAND: "'", PUBLIC: key.with_suffix(".pub")})
    (tmp_path / "other").write_bytes(b"x" * 100_000)
    assert "too large for a key" in refused({KEY: tmp_path / "other"})
    (tmp_path / "other").write_text(f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n")
    assert "cannot be read" in refused({KEY: tmp_path / "other"})
    assert "is not a key of ECDSA" in refused({COMMAND: "true", PUBLIC: tmp_path / "other"})
    (tmp_path / "other").write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    assert "cosign's own format" in refused({KEY: tmp_path / "other", PASSPHRASE: SECRET})
    (tmp_path / "other").write_bytes(openssl("genrsa", "2048"))
    assert "is not a key of ECDSA P-256 or Ed25519" in refused({KEY: tmp_path / "other"})
    curve = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")
    (tmp_path / "other").write_bytes(curve)
    assert "is not a key of ECDSA P-256 or Ed25519" in refused({KEY: tmp_path / "other"})


def test_an_envelope_signs_the_type_with_the_document(tmp_path):
    key = new_key(tmp_path)
    signer = signer_of({KEY: str(key)})
    document = json.loads(envelope(signer, DATA, "application/x"))
    assert base64.b64decode(document["payload"]) == DATA
    (signature,) = document["signatures"]
    assert signature["keyid"] == signer.key_id
    signed = b"DSSEv1 13 application/x 14 " + DATA
    raw = base64.b64decode(signature["sig"])
    assert openssl_verifies(tmp_path, key.with_suffix(".pub"), signed, raw)
