"""URIs without credentials, typed words that can hold none, foreign text without secrets."""

from __future__ import annotations

import pytest

from flyte_shim import shown

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
        *("sha256:", "A1b2"),
    ],
)
def test_long_texts_take_linear_work(text, monkeypatch):
    looked_at = []
    for name in ("_without_credentials", "_without_tokens"):
        real = getattr(shown, name)
        monkeypatch.setattr(
            shown, name, lambda text, real=real: (looked_at.append(len(text)), real(text))[1]
        )
    assert len(shown.line(text * (1 << 18))) <= 300
    assert looked_at
    assert max(looked_at) <= shown.LOOKED_AT


@pytest.mark.parametrize("text", ["staging", "v1.2", "a b", "é"])
def test_a_typed_word_is_repeated_in_quotes(text):
    assert shown.word(text) == ascii(text)


@pytest.mark.parametrize("text", ["me:pw", "a@b", "a/b", "x?sig=1", "s3://b", "a" * 41])
def test_a_typed_word_that_could_hold_a_secret_is_not_repeated(text):
    assert shown.word(text) == "(not repeated here)"


@pytest.mark.parametrize("text", ["reg.example/team/app:v1", "a/b", "a" * 300])
def test_a_name_may_have_a_path_and_a_port(text):
    assert shown.name(text) == ascii(text)


@pytest.mark.parametrize("text", ["me:pw@reg.example/a", "https://a", "x?sig=1", "a" * 301])
def test_a_name_that_could_hold_a_secret_is_not_repeated(text):
    assert shown.name(text) == "(not repeated here)"
