"""URIs without credentials, typed words that can hold none, foreign text without secrets."""

from __future__ import annotations

import string
import time

import pytest

from flyte_shim import shown
from tests.support.fuzzing import fuzz

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
TOKEN = "ghp_0123456789abcdefghijklmnopqrstuvwxyzAB"
DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no secret in here", "no secret in here"),
        ("GET https://me:pw@host/path failed", "GET https://host/path failed"),
        ("GET https://me:p@w@host/path failed", "GET https://host/path failed"),
        ("GET https://me:p'w@host/path failed", "GET https://host/path failed"),
        ("url=https://me:pw@host/path", "url=https://host/path"),
        ("a://me:pw@host,b://me:pw@host", "a://host,b://host"),
        ("at https://host/x?sig=planted now", "at https://host/x now"),
        ("at https://host/x#planted now", "at https://host/x now"),
        ("abfss://container@account/x", "abfss://container@account/x"),
        ("Authorization: Bearer planted", "Authorization: Bearer ..."),
        ("authorization:basic  planted", "authorization:basic  ..."),
        ("with password=planted, twice", "with password=... twice"),
        ("the package token==1.2", "the package token==1.2"),
        ("//services:deploy@domain=staging", "//services:deploy@domain=staging"),
        ("registry/name:tag@sha256:abc", "registry/name:tag@sha256:abc"),
        ("git@github.com:org/repo", "git@github.com:org/repo"),
        (
            "write https://HOST/PATH or http://HOST:PORT",
            "write https://HOST/PATH or http://HOST:PORT",
        ),
        (
            "write abfss://CONTAINER@ACCOUNT.dfs.core/KEY",
            "write abfss://CONTAINER@ACCOUNT.dfs.core/KEY",
        ),
        ("s3://bucket: no such key, s3:ListBucket", "s3://bucket: no such key, s3:ListBucket"),
        ("at https://host:443, twice", "at https://host:443, twice"),
        ("no user me:planted@host/x here", "no user ...@host/x here"),
        ("https:/host/x?sig=planted", "https:/host/x"),
        ("X-Amz-Signature=planted&a", "X-Amz-Signature=..."),
        ("AWS_SECRET_ACCESS_KEY=planted", "AWS_SECRET_ACCESS_KEY=..."),
        ("AccountKey=planted;x", "AccountKey=..."),
        ('{"password": "planted", "a": 1}', '{"password": ... "a": 1}'),
        ("{'secret':'planted','a':1}", "{'secret':'...','a':1}"),
        ("Basic planted", "Basic ..."),
        ("the design=1 and a?b", "the design=1 and a?b"),
    ],
)
def test_credentials_are_left_out_of_all_text(text, expected):
    assert shown.line(text) == expected
    assert shown.message(f"one\n{text}") == f"one\n{expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {JWT} is expired", "token ... is expired"),
        (f"{{'token':'{JWT}'}}", "{'token':'...'}"),
        (f"{TOKEN} is revoked", "... is revoked"),
        (f"no blob sha256:{DIGEST} here", f"no blob sha256:{DIGEST} here"),
        (f"no blob {DIGEST} here", "no blob ... here"),
        ("two\nlines\x1b[1m", "two\\nlines\\x1b[1m"),
        ("a" * 400, "a" * 300),
        ("my-secret and my-secret-too", "... and ..."),
    ],
)
def test_foreign_text_has_no_tokens_and_is_one_line(text, expected):
    assert shown.line(text, ("my-secret", "my-secret-too", "")) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # What is right is shown: scheme, host, path.
        ("https://host/x.tar.gz", "https://host/x.tar.gz"),
        ("HTTPS://Host:8443/x", "HTTPS://Host:8443/x"),
        ("http://[2001:db8::1]:9000/x", "http://[2001:db8::1]:9000/x"),
        ("https://host.example/a@b/x", "https://host.example/...@b/x"),
        ("s3://bucket/dt=2026-01-01/a b:c", "s3://bucket/dt=2026-01-01/a b:c"),
        (
            "abfss://my-container@account.dfs.core.windows.net/k",
            "abfss://my-container@account.dfs.core.windows.net/k",
        ),
        ("file:///srv/flyte/x", "file:///srv/flyte/x"),
        ("/srv/a:b/x=1", "/srv/a:b/x=1"),
        ("../x.tar.gz", "../x.tar.gz"),
        ("x.tar.gz", "x.tar.gz"),
        ("ftp://host/x", "ftp://host/x"),
        ("localhost:9000/bucket/x", "localhost:9000/bucket/x"),
        ("", ""),
        # What could be a secret is not.
        ("https://me:pw@host/x?sig=pw#pw", "https://host/x"),
        ("https:/host/x?sig=pw", "https:/host/x"),
        ("HTTPS:host/x?sig=pw", "HTTPS:host/x"),
        ("https:////me:pw@host/x", "https:////host/x"),
        ("file:host/x#pw", "file:host/x"),
        ("host/x#pw", "host/x"),
        (r"https:\\me:pw@host\x?sig=pw", r"https:\\host\x"),
        ("host.example/x?sig=pw", "host.example/x"),
        ("host.example/x&X-Amz-Signature=pw", "host.example/x&X-Amz-Signature=..."),
        ("s3:/me:pw@bucket/k", "s3:/bucket/k"),
        ("s3:bucket?sig=pw", "s3:bucket"),
        ("s3://me:pw", "s3://..."),
        ("s3://me:123/k", "s3://.../k"),
        ("https://me:pw/x", "https://.../x"),
        ("https://me:p/w@host/x", "https://.../...@host/x"),
        ("https://pw/pw@host/x", "https://.../...@host/x"),
        ("https://me:1?pw@host/x", "https://..."),
        ("https://me:p@pw/pw@host/x", "https://.../...@host/x"),
        ("abfs://c:pw@account/k", "abfs://account/k"),
        ("wasbs://pw+/=@account/k", "wasbs://.../...@account/k"),
        ("me:pw@host/x", "(not repeated here)"),
        ("me:pw", "(not repeated here)"),
        ("pw@host/x", "...@host/x"),
        ("//me:pw@host/x", "//...@host/x"),
        ("/me:1?pw@host", "..."),
        ("https%3A%2F%2Fme%3Apw%40host%2Fx%3Fsig%3Dpw", "https://host/x"),
        ("https%253A%252F%252Fme%253Apw%2540host/x", "https://host/x"),
        ("https://host/x%3Fsig=pw", "https://host/x"),
        ("https://host.example/r/https://me:pw@other/x?sig=pw", "https://host.example/...@other/x"),
        (" \n https://me:pw@host/x", "https://host/x"),
        ("file:///x/me:pw@host?sig=pw", "file:///...@host"),
        ("'https://me:pw@host/x?sig=pw'", "(not repeated here)"),
        ("x=https://me:pw@host/x", "(not repeated here)"),
        # Nothing steers a terminal.
        ("https://host/\x1b[2J\n\u202e\ud800", r"https://host/\x1b[2J\n\u202e\ud800"),
        ("/" + "x" * 2_000, "/" + "x" * 999 + "..."),
    ],
)
def test_a_uri_is_shown_without_what_could_be_a_secret(text, expected):
    assert shown.uri(text) == expected


HOSTS = ("host", "host.example", "localhost:9000", "[::1]:9000", "account.dfs.core.windows.net")
SCHEMES = ("https", "HTTPS", "http", "s3", "gs", "abfs", "wasbs", "az", "ftp", "file", "oci", "")
MISTAKES = (
    "{scheme}://{user}:{secret}@{host}/x",
    "{scheme}:/{user}:{secret}@{host}/x",
    "{scheme}:{user}:{secret}@{host}/x",
    "{scheme}:///{user}:{secret}@{host}/x",
    "{scheme}//{user}:{secret}@{host}/x",
    "{user}:{secret}@{host}/x",
    "{scheme}://{secret}@{host}/x",
    "{scheme}://{user}:{secret}@{secret}@{host}/x",
    "{scheme}://{user}:x{secret}/{secret}@{host}/x",
    "{scheme}://{host}/x?X-Amz-Signature={secret}",
    "{scheme}:/{host}/x?sig={secret}&se=1",
    "{scheme}://{host}/x#{secret}",
    "{host}/x?token={secret}",
    "{scheme}://{host}/r/{scheme}://{user}:{secret}@{host}/x",
    "{scheme}://{host}/x?next=https://{user}:{secret}@{host}",
    "{scheme}://{host}/x&X-Goog-Signature={secret}",
)


def encoded(rng, text):
    return "".join(f"%{ord(c):02X}" if c in ":/@?#&=" and rng.random() < 0.7 else c for c in text)


def test_no_mistyped_address_shows_its_secret():
    for rng in fuzz(2_000):
        secret = "S3" + "".join(rng.choices(string.ascii_uppercase + string.digits, k=12))
        text = rng.choice(MISTAKES).format(
            scheme=rng.choice(SCHEMES), user="AKIA0", secret=secret, host=rng.choice(HOSTS)
        )
        text = encoded(rng, text) if rng.random() < 0.3 else text
        text = rng.choice((" ", "\t", "")) + text + rng.choice(("\n", " ", ""))
        assert secret not in shown.uri(text), text
        for framed in (f"cannot read {text}: no such file", f"x='{text}'", f"({text})"):
            assert secret not in shown.message(framed), framed
            assert secret not in shown.line(framed), framed


PIECES = (
    *(
        "https",
        "s3",
        "abfs",
        "file",
        ":",
        "/",
        "//",
        "://",
        "@",
        "?",
        "#",
        "&",
        ";",
        "=",
        "%40",
        "%3A",
        "%25",
        "%",
    ),
    *(
        "token",
        "sig=",
        "password",
        "'",
        '"',
        "[",
        "]",
        "{",
        "}",
        "::1",
        "\\",
        ".",
        "-",
        "a",
        "9",
        "443",
        "HOST",
        "PORT",
    ),
    *("eyJ", "bearer ", " ", "\t", "\n", "\x1b", "\u202e", "\ud800", "\u00e9"),
)


def test_whatever_is_told_is_told_and_steers_no_terminal():
    for rng in fuzz(5_000):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 14)))
        assert shown.uri(text).isprintable()
        assert shown.line(text).isprintable()
        assert shown.word(text).isprintable()
        assert shown.name(text).isprintable()
        assert all(line.isprintable() for line in shown.message(text).split("\n"))


def test_a_message_of_ours_keeps_its_hashes():
    assert shown.message(f"{DIGEST}: two\n\x1blines") == f"{DIGEST}: two\n\\x1blines"


def test_a_secret_that_is_cut_does_not_show_its_start():
    for before in range(shown.LOOKED_AT - 60, shown.LOOKED_AT + 1):
        text = f"{'a ' * (before // 2)}https://me:planted@host?{'b' * 9000}"
        assert "planted" not in shown.line(text, longest=20_000)
    assert shown.line(f"https://host?{'b ' * 9000} {TOKEN}", longest=20_000).count(TOKEN[:8]) == 0


@pytest.mark.parametrize(
    "text",
    [
        *("a", "/", "://", "a://b@", "a://x?", "eyJ", "-eyJ", "x ", "bearer ", "=", "token="),
        *(
            "sha256:",
            "A1b2",
            "@",
            ":",
            "%",
            "%25",
            "%3",
            "[",
            "[:",
            "?",
            "?a",
            "\\",
            "s3:",
            "a:1",
            "a@",
        ),
        *("'", "password':", "-key", "secret", "_sig", "\u202e", "%3A%2F%2F"),
    ],
)
def test_long_texts_take_linear_work(text):
    """64 KB are a message of ours, 4 MB an answer of a registry's; quadratic work takes minutes."""
    began = time.monotonic()
    many = text * ((64 << 10) // len(text))
    for look in (shown.message, shown.uri):
        look(many)
        look(f"https://{many}@x")
        look(f"https://{many}?@{many}")
    assert len(shown.line(text * ((4 << 20) // len(text)), ("secret",))) <= 300
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("text", ["staging", "v1.2", "a b", "é"])
def test_a_typed_word_is_repeated_in_quotes(text):
    assert shown.word(text) == ascii(text)


@pytest.mark.parametrize(
    "text", ["me:pw", "a@b", "a/b", "x?sig=1", "s3://b", "a" * 41, "a%40b", "sig=1"]
)
def test_a_typed_word_that_could_hold_a_secret_is_not_repeated(text):
    assert shown.word(text) == "(not repeated here)"


@pytest.mark.parametrize("text", ["reg.example/team/app:v1", "a/b", "a" * 300])
def test_a_name_may_have_a_path_and_a_port(text):
    assert shown.name(text) == ascii(text)


@pytest.mark.parametrize(
    "text",
    ["me:pw@reg.example/a", "https://a", "x?sig=1", "a" * 301, "me:pw%40reg.example/a", "a&sig=1"],
)
def test_a_name_that_could_hold_a_secret_is_not_repeated(text):
    assert shown.name(text) == "(not repeated here)"
