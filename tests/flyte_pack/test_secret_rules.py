"""What counts as a secret, and what only looks a little like one."""

from __future__ import annotations

import re
import sysconfig
import time
from pathlib import Path

import pytest

from flyte_pack.secret_rules import GROUPS, RULES, find_secrets, secret_file
from tests.support.fake_secrets import FAKES, JWT, PRIVATE_KEY

EVERY = [(rule, text) for rule, texts in FAKES.items() for text in texts]


def rules_in(text: str) -> set[str]:
    return {found.rule for found in find_secrets(text.encode())}


def secret_in(text: str) -> str:
    """The longest word of a fake, which is its secret or most of it."""
    return max(re.split(r"[^A-Za-z0-9_.+=-]+", text), key=len)


def test_each_rule_has_a_fake():
    assert set(FAKES) == set(RULES)


@pytest.mark.parametrize(("rule", "text"), EVERY)
def test_a_secret_is_found_in_its_line(rule: str, text: str):
    found = find_secrets(f"import os\n\nx = 1\n{text}\ny = 2\n".encode())
    assert {(one.line, one.rule) for one in found} == {(4, rule)}
    assert rules_in(text) == {rule}  # also as the whole text


@pytest.mark.parametrize(("rule", "text"), [(r, t) for r, t in EVERY if "Bearer ey" not in t])
def test_a_shorter_one_is_none(rule: str, text: str):
    if rule == "private-key":
        text = text.splitlines()[0].partition("-----")[1]
    elif rule == "login-in-url":
        text = text.replace("@", "/")
    elif rule == "netrc-login":
        text = text.replace("password", "passphrase")
    else:
        secret = secret_in(text)
        text = text.replace(secret, secret[: len(secret) // 4])
    assert rules_in(text) == set()


@pytest.mark.parametrize(
    ("rule", "text"),
    [(r, t) for r, t in EVERY if r not in ("private-key", "login-in-url", "kubeconfig-key")],
)
def test_a_form_to_fill_in_is_none(rule: str, text: str):
    secret = secret_in(text)
    starts = (r.start.decode() for g in GROUPS for r in g.rules if r.name == rule)
    keep = max((len(start) for start in starts if secret.startswith(start)), default=0)
    for filler in "xX":
        form = text.replace(secret, secret[:keep] + filler * (len(secret) - keep))
        assert rules_in(form) == set()


@pytest.mark.parametrize(
    "text",
    [
        'if line.startswith("-----BEGIN RSA PRIVATE KEY-----"):',
        '"-----BEGIN PRIVATE KEY-----\\n" + body + "\\n-----END PRIVATE KEY-----"',
        'f"-----BEGIN PRIVATE KEY-----\\n{body}\\n-----END PRIVATE KEY-----"',
        '"-----BEGIN PRIVATE KEY-----\\n-----END PRIVATE KEY-----"',
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        PRIVATE_KEY.replace("PRIVATE", "PUBLIC"),
        PRIVATE_KEY.replace("RSA PRIVATE KEY", "CERTIFICATE"),
        f"postgresql://user:password@{'db.internal'}/prod",
        "postgresql://admin:s3cr3t-value@localhost:5432/prod",
        "https://joe:hunter2@example.com/",
        "https://{user}:{password}@host.internal/",
        "https://$USER:$PASSWORD@host.internal/",
        "https://%s:%s@host.internal/",
        "https://<user>:<password>@host.internal/",
        "https://oauth2:***@host.internal/",
        "https://host:8080/path@2x.png",
        "git+ssh://git@github.com/a/b.git",
        "see http://a.b/c, then mail d:e@f.g",
        "password = 'correct horse battery staple'",
        f"sha = '{'0123456789abcdef' * 4}'",
        "x = test_that_a_name_may_be_very_long_and_has_many_parts_in_it",
        "SKIPPED", "SK0123456789", "def dapi(): ...",
        f"not{FAKES['aws-access-key'][0][7:27]}", "AKIA", "eyJ", "sk-learn-contrib-is-no-key-at-all",
        f"h = '{JWT.rpartition('.')[0]}'",
        "hf_hub_download_everything_that_there_is", "xoxb-your-token-goes-here-please",
        "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/"
        "K1SZFPTOtr/KBHBeksoGMGw==",  # of the emulator, the same everywhere
    ],
)  # fmt: skip
def test_what_only_looks_like_one_is_none(text: str):
    assert rules_in(text) == set()


@pytest.mark.parametrize(
    "pragma",
    [
        "  # pragma: allowlist secret",
        "  // pragma: whitelist secret",
        "  # noqa  # pragma: allowlist secret",
        "  # gitleaks:allow",
    ],
)
def test_a_pragma_allows_its_line_alone(pragma: str):
    (text,) = FAKES["hugging-face-token"]
    found = find_secrets(f"{text}\n{text}{pragma}\n{text}\n".encode())
    assert [one.line for one in found] == [1, 3]


def test_a_pragma_allows_the_next_line():
    text = FAKES["docker-token"][0]
    found = find_secrets(f"# pragma: allowlist nextline secret\n{text}\n{text}".encode())
    assert [one.line for one in found] == [3]


def test_a_secret_is_never_in_what_is_found():
    for _, text in EVERY:
        told = repr(find_secrets(text.encode()))
        assert secret_in(text)[:12] not in told


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *((f"a/{name}", "a .env file") for name in (".env", ".env.local", ".ENV", ".env.prod.bak")),
        *((name, "a private key") for name in ("id_rsa", "x/id_ed25519", "putty.ppk")),
        *((name, "a key store") for name in ("a/b.p12", "b.pfx", "b.jks", "B.JKS")),
        ("x/credentials.json", "credentials of a cloud"),
        ("x/application_default_credentials.json", "credentials of a cloud"),
        ("home/.aws/credentials", "credentials of a cloud"),
        (".aws/credentials", "credentials of a cloud"),
        *((name, "stored logins") for name in (".netrc", "a/.pypirc", "a/.docker/config.json")),
        *((name, "a kubeconfig") for name in ("kubeconfig", "a/.kube/config", "x.kubeconfig")),
        *((name, "state of Terraform") for name in ("a/terraform.tfstate", "x.tfstate.backup")),
        *(
            (name, None)
            for name in (
                *(".env.example", "a/.env.sample", ".env.template", ".envrc", "env", "a.env.py"),
                *("id_rsa.pub", "a/id_rsa.py", "ca.pem", "credentials.py", "aws/credentials"),
                *("docker/config.json", "config", "kube/config", "state.tf", "netrc.py"),
            )
        ),
    ],
)
def test_a_name_tells_of_credentials(path: str, kind: str | None):
    assert secret_file(path) == kind


def test_the_standard_library_holds_no_secret_but_the_keys_of_its_own_tests():
    top = Path(sysconfig.get_paths()["stdlib"])
    files = [p for p in top.rglob("*") if p.is_file() and "site-packages" not in p.parts]
    assert len(files) > 1000
    for path in files:
        data = path.read_bytes()
        if b"\0" not in data[:8000]:
            found = {one.rule for one in find_secrets(data)}
            of_tests = {"private-key"} if path.suffix == ".pem" and "test" in path.parts else set()
            of_tests |= {"netrc-login"} if path.name == "test_netrc.py" else set()
            assert found <= of_tests, path
        assert secret_file(str(path.relative_to(top))) is None


STARTS = sorted({rule.start.decode() for group in GROUPS for rule in group.rules})


@pytest.mark.parametrize(
    "text",
    [
        *STARTS,
        *(start + after for start in STARTS for after in ("=", "a", " ", "-", "\\", "\n")),
        *("://a:", "://a:b", "-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\\n\n"),
        *("eyJaaaaaaaaaaaaaaa.eyJ", "machine a login b password ", "xoxb-1-", "Basic a", "token: str "),
        *("-", "_", "-a", "a", "a1B", "0", " ", "\\", "\n", "/", "."),
        *(text + " " for _, text in EVERY),
    ],
)  # fmt: skip
def test_looking_takes_time_in_proportion_to_the_text(text: str):
    """A text that is all beginnings shows a pattern that tries every way, one that is all secrets
    a search that counts lines anew for each.
    """
    took = []
    for size in (5_000, 100_000):
        data = text.encode() * (size // len(text))
        start = time.process_time()
        find_secrets(data)
        took.append(time.process_time() - start)
    assert took[1] < 60 * took[0] + 0.2


def test_each_secret_of_a_line_counts():
    """So that a baseline with one of them does not allow the other."""
    one, other = FAKES["aws-access-key"]
    found = find_secrets(f"{one}, {other}, {one}".encode())
    assert [(each.line, each.rule) for each in found] == [(1, "aws-access-key")] * 2
    assert not set(found[0].hashes) & set(found[1].hashes)
