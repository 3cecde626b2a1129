"""With FLYTE_SHIM_TRUSTED_KEYS the shim unpacks and runs what one of these keys has signed, and nothing else."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flyte_pack.deploy.bundles import signature
from flyte_pack.signing import KEY, Signer, signer_of
from flyte_shim.signatures import VARIABLE, signature_ending, signed_text
from tests.support.archives import Archive, archive_of
from tests.support.shim import PYTHON_PATH, run_shim
from tests.support.shim_servers import Asked, ranged, reply, scripted
from tests.support.signing import KINDS, new_key, openssl, openssl_verifies

FILES = {"main.py": "print('it runs')\n"}
RUN = ("--", sys.executable, "main.py")


def signer(path: Path) -> Signer:
    found = signer_of({KEY: str(path)})
    assert found is not None
    return found


class Place:
    """A store with a bundle, a home and a working directory."""

    def __init__(self, tmp: Path) -> None:
        self.tmp, self.home, self.work = tmp, tmp / "home", tmp / "work"
        self.work.mkdir()
        self.archive: Archive = archive_of(tmp / "store", FILES)
        self.key = new_key(tmp)
        self.trusted = self.key.with_suffix(".pub")

    def signature_file(self, key: Path | None = None) -> Path:
        ending = signature_ending(signer(key or self.key).key_id)
        path = Path(self.archive.path)
        return path.with_name(path.name + ending)

    def sign(self, key: Path | None = None) -> Path:
        path = self.signature_file(key)
        path.write_bytes(signature(signer(key or self.key), self.archive.sha256))
        return path

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        given = {VARIABLE: str(self.trusted), **variables}
        arguments = ("--archive", str(self.archive.path), *RUN)
        return run_shim(*arguments, home=self.home, cwd=self.work, variables=given)

    def refused(self, code: int, *said: str, **variables: str) -> None:
        """It ends with `code` and one line that says this; nothing ran, and nothing stays."""
        done = self.run(**variables)
        assert done.returncode == code, done.stderr
        (line,) = done.stderr.splitlines()
        for words in said:
            assert words in line
        assert done.stdout == ""
        assert list(self.work.iterdir()) == []
        assert [path for path in self.home.rglob("*") if path.is_file()] == []

    def runs(self, **variables: str) -> None:
        done = self.run(**variables)
        assert (done.returncode, done.stdout, done.stderr) == (0, "it runs\n", "")


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_trusted_key_has_signed_runs(place, kind):
    key = new_key(place.tmp, kind)
    place.sign(key)
    place.trusted = key.with_suffix(".pub")
    place.runs()


def test_a_signature_is_one_that_openssl_verifies(place):
    raw = base64.b64decode(place.sign().read_bytes())
    text = signed_text(place.archive.sha256)
    assert openssl_verifies(place.tmp, place.trusted, text, raw)


def test_one_of_several_trusted_keys_is_enough(place):
    other = new_key(place.tmp, "ed25519")
    place.sign(other)
    both = place.tmp / "both.pem"
    both.write_bytes(place.trusted.read_bytes() + other.with_suffix(".pub").read_bytes())
    place.trusted = both
    place.runs()


def test_what_nobody_signed_is_refused(place):
    place.refused(65, "has no signature of the trusted key", "FLYTE_SIGNING_KEY")


def test_what_another_key_signed_is_refused_under_either_name(place):
    other = new_key(place.tmp, "ed25519")
    made = place.sign(other)
    place.refused(65, "has no signature of the trusted key")
    shutil.copy(made, place.signature_file())
    place.refused(65, "is damaged or was replaced", "--repair")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"AAAA", b"not base64!", b"\xff\x00", b"A" * 100_000]
)
def test_a_signature_that_is_none_is_refused(place, content):
    place.signature_file().write_bytes(content)
    place.refused(65, "signature")


def test_the_signature_of_another_bundle_is_refused(place):
    place.signature_file().write_bytes(signature(signer(place.key), "0" * 64))
    place.refused(65, "is damaged or was replaced")


def test_a_bundle_that_was_changed_below_its_signed_name_is_refused(place):
    place.sign()
    path = Path(place.archive.path)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"more")
    place.refused(65, "but", place.archive.sha256, "was expected")


def test_what_is_in_the_cache_is_checked_at_each_start(place):
    place.runs(**{VARIABLE: ""})
    done = place.run()
    assert (done.returncode, done.stdout) == (65, "")
    assert "has no signature of the trusted key" in done.stderr
    place.sign()
    place.runs()
    # From now on the store is not asked, and another key still refuses.
    place.signature_file().unlink()
    Path(place.archive.path).unlink()
    place.runs()
    place.trusted = new_key(place.tmp, "ed25519").with_suffix(".pub")
    assert place.run().returncode == 65


def test_a_signature_in_the_cache_that_was_changed_counts_for_nothing(place):
    place.sign()
    place.runs()
    (kept,) = place.home.rglob("signature.*.sig")
    kept.write_bytes(b"AAAA")
    place.runs()
    place.signature_file().unlink()
    assert place.run().returncode == 65


KEY_FILES = {
    "nothing": (b"", "is not a file of public keys"),
    "no key": (b"hello\n", "is not a file of public keys"),
    "a damaged key": (
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "key 1 cannot be read",
    ),
    "half a key": (b"-----BEGIN PUBLIC KEY-----\nAAAA\n", "is not a file of public keys"),
    "a certificate": (
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "is not a file of public keys",
    ),
    "too many keys": (
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n" * 17,
        "has 17 keys",
    ),
    "a large file": (b"\n" * 70_000, "is not a file of public keys"),
}


@pytest.mark.parametrize(("content", "said"), KEY_FILES.values(), ids=KEY_FILES)
def test_a_malformed_key_file_is_named(place, content, said):
    place.sign()
    place.trusted = place.tmp / "trusted.pem"
    place.trusted.write_bytes(content)
    place.refused(64, VARIABLE, str(place.trusted), said)


def test_a_private_key_is_refused_and_nothing_of_it_is_shown(place):
    place.sign()
    place.trusted = place.key
    place.refused(64, "holds a private key")
    secret = place.key.read_text().splitlines()[1]
    assert secret not in place.run().stderr


def test_a_key_of_another_kind_is_refused(place):
    plain = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")
    place.trusted = place.tmp / "other.pub"
    place.trusted.write_bytes(openssl("pkey", "-pubout", data=plain))
    place.refused(64, "key 1 is neither of ECDSA P-256 nor of Ed25519")


def test_a_key_file_that_is_not_there_is_named(place):
    place.trusted = place.tmp / "none.pem"
    place.refused(64, VARIABLE, "none.pem: No such file")


def test_without_the_library_it_says_so(place):
    place.sign()
    broken = place.tmp / "broken" / "cryptography"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no such thing')\n")
    path = f"{broken.parent}{os.pathsep}{PYTHON_PATH}"
    place.refused(64, "takes the package `cryptography`", sys.executable, PYTHONPATH=path)


def test_the_library_is_not_taken_from_the_working_directory(place):
    place.sign()
    (place.work / "cryptography").mkdir()
    (place.work / "cryptography" / "__init__.py").write_text("print('taken')\n")
    place.runs()


def test_a_bundle_of_which_no_hash_is_known_is_refused_whatever_else_is_allowed(place):
    plain = place.tmp / "store" / "bundle.tar.gz"
    shutil.copy(place.archive.path, plain)
    done = run_shim(
        *("--", "true", "--tgz", str(plain)),
        home=place.home,
        cwd=place.work,
        variables={VARIABLE: str(place.trusted), "FLYTE_SHIM_UNVERIFIED": "1"},
    )
    assert done.returncode == 64
    assert f"{VARIABLE} asks for a signature" in done.stderr


def served(place: Place, answer, query: str = ""):
    """How a run from an HTTP server ends. answer: to what is asked for the signature."""

    def answers(asked: Asked) -> bytes:
        name = asked.target.partition("?")[0].rpartition("/")[2]
        if name.endswith(".sig"):
            return answer(asked)
        return ranged(Path(place.archive.path).read_bytes(), asked)

    with scripted(answers) as server:
        name = Path(place.archive.path).name
        return run_shim(
            *("--archive", f"{server.url}/{name}{query}", *RUN),
            home=place.home,
            cwd=place.work,
            variables={VARIABLE: str(place.trusted), "FLYTE_STORAGE_BACKOFF_SECONDS": "0"},
        )


def test_a_signature_comes_from_where_the_bundle_is(place):
    made = place.sign().read_bytes()
    answers = iter([reply(503), reply(200, made)])
    done = served(place, lambda asked: next(answers))
    assert (done.returncode, done.stdout) == (0, "it runs\n")
    assert "trying again" in done.stderr


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, 65, "has no signature of the trusted key"),
        (403, 77, "no signature of"),
        (503, 69, "gave up after 5 attempts"),
    ],
)
def test_a_server_without_a_signature_gets_nothing_run(place, status, code, said):
    done = served(place, lambda asked: reply(status))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr.splitlines()[-1]
    assert list(place.work.iterdir()) == []
    assert not list(place.home.rglob("archive*"))


def test_a_signed_url_has_no_place_for_a_signature(place):
    done = served(place, lambda asked: reply(404), "?X-Amz-Signature=0123456789secret")
    assert done.returncode == 64
    assert "is a signed URL" in done.stderr
    assert "secret" not in done.stderr


def test_a_command_without_a_bundle_needs_no_signature(place):
    variables = {VARIABLE: str(place.trusted)}
    assert run_shim("--", "true", home=place.home, cwd=place.work, variables=variables).returncode == 0  # fmt: skip
