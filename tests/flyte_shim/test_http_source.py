"""Archives by HTTPS: a faulty or hostile server causes a message or the right bytes."""

from __future__ import annotations

import itertools
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme

from flyte_shim.errors import (
    HashMismatch,
    ShimError,
    SourceDenied,
    SourceMissing,
    SourceUnavailable,
    TooLarge,
    UntrustedSource,
    UsageError,
)
from flyte_shim.fetch import open_source
from flyte_shim.hashing import sha256_bytes
from flyte_shim.source import Patience, download
from flyte_shim.web import _tls
from tests.support.shim_servers import Asked, ranged, reply, scripted

DATA = bytes(range(256)) * 2000
SECRET = "planted-signature-7d1f"
LIMIT = 10 * len(DATA)


def get(
    url: str,
    copy: Path,
    environ: Mapping[str, str] = {},
    timeout: float = 20,
    deadline: float = 60,
    attempts: int = 4,
) -> int:
    """Fetch DATA from a URL; how many attempts that took."""
    patience = Patience(attempts, pause=0.001, timeout=timeout, deadline=deadline)
    source = open_source(url, patience, environ)
    attempts = download(source, str(copy), sha256_bytes(DATA), LIMIT, patience)[1]
    assert copy.read_bytes() == DATA
    return attempts


def in_turn(*answers: object):
    """For `scripted`: one answer after the other, then those of a good server."""
    left = iter(answers)

    def answer(asked: Asked):
        chosen = next(left, ranged)
        if chosen is ranged:
            return ranged(DATA, asked)
        return chosen(asked) if callable(chosen) else chosen

    return answer


def range_of(asked: Asked) -> str:
    return asked.headers.get("range", "")


HEAD = b"HTTP/1.1 200 OK\r\n"
CUT = reply(200, DATA[:1000], length=len(DATA))
SURVIVED = {
    "an answer that ends too early": ([CUT], ["", "bytes=1000-"]),
    "two of them": (
        [
            CUT,
            reply(206, DATA[1000:5000], len(DATA) - 1000, Content_Range=f"bytes 1000-/{len(DATA)}"),
        ],
        ["", "bytes=1000-", "bytes=5000-"],
    ),
    "errors that pass": ([reply(503), reply(500), reply(429)], [""] * 4),
    "no answer at all": ([b""], ["", ""]),
    "something else than HTTP": ([b"SSH-2.0-OpenSSH\r\n"], ["", ""]),
    "a chunked body that breaks off": (
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + DATA[:1000] + b"\r\n"],
        ["", "bytes=1000-"],
    ),
    "a line that breaks behind the last byte": (
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(DATA), DATA)],
        [""],
    ),
    "a chunked body with a wrong length": (
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"],
        ["", ""],
    ),
    "a server that knows no ranges": ([CUT, reply(200, DATA)], ["", "bytes=1000-"]),
    "an archive that was replaced": (
        [reply(200, b"other" * 100, len(DATA), ETag='"1"'), reply(412)],
        ["", "bytes=500-", ""],
    ),
    "one that was replaced by one that is shorter": (
        [reply(200, b"other" * 100, len(DATA)), reply(416)],
        ["", "bytes=500-", ""],
    ),
    "one that was replaced, at a server that does not say so": (
        [
            reply(200, b"other" * 100, len(DATA), ETag='"1"'),
            reply(206, DATA[500:], Content_Range=f"bytes 500-/{len(DATA)}", ETag='"2"'),
        ],
        ["", "bytes=500-", ""],
    ),
}


@pytest.mark.parametrize("name", SURVIVED)
def test_what_passes_is_survived_and_a_download_goes_on_where_it_was(tmp_path, name):
    answers, ranges = SURVIVED[name]
    with scripted(in_turn(*answers)) as server:
        assert get(f"{server.url}/a", tmp_path / "copy") == len(ranges)
    assert [range_of(asked) for asked in server.asked] == ranges


def test_a_part_is_asked_for_of_the_same_archive_only(tmp_path):
    """Unless all that the server has is a weak tag, which compares with nothing."""
    for etag, expected in (('"x"', '"x"'), ('W/"x"', None)):
        with scripted(in_turn(reply(200, DATA[:9], len(DATA), ETag=etag))) as server:
            get(f"{server.url}/a", tmp_path / etag.replace("/", ""))
        assert server.asked[1].headers.get("if-match") == expected


def test_a_server_that_is_silent_is_left_and_asked_again(tmp_path):
    def stall(asked: Asked) -> Iterator[bytes]:
        yield CUT
        time.sleep(600)

    with scripted(in_turn(stall)) as server:
        assert get(f"{server.url}/a", tmp_path / "copy", timeout=2) == 2
    assert [range_of(asked) for asked in server.asked] == ["", "bytes=1000-"]


def drip(beginning: bytes, piece: bytes) -> Iterator[bytes]:
    yield beginning
    while True:
        yield piece
        time.sleep(0.02)


ENDLESS = {
    "its body": (HEAD + b"\r\n", b"x"),
    "its headers": (HEAD + b"X: ", b"x"),
    "its interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("name", ENDLESS)
def test_a_server_that_never_comes_to_the_end_of_something_is_cut_off_at_the_deadline(
    tmp_path, authority, monkeypatch, name, tls
):
    trust(authority, tmp_path, monkeypatch)
    context = server_context(authority, "localhost") if tls else None
    with (
        scripted(lambda asked: drip(*ENDLESS[name]), context) as server,
        pytest.raises(SourceUnavailable, match=r"not done after 1 seconds.*FLYTE_SHIM_DEADLINE"),
    ):
        get(f"{server.url}/a", tmp_path / "copy", deadline=1)


def endless(asked: Asked) -> Iterator[bytes]:
    return itertools.chain([HEAD + b"\r\n"], itertools.repeat(bytes(1 << 16)))


REFUSED = {
    "a body without end": (endless, TooLarge, "larger than"),
    "more than the limit, as announced": (reply(200, DATA, LIMIT + 1), TooLarge, "larger than"),
    "a body that is longer than announced": (
        reply(200, DATA, 1000),
        HashMismatch,
        r"\(1000 bytes\)",
    ),
    "another archive": (reply(200, b"other"), HashMismatch, "was replaced"),
    "a compressed answer": (
        reply(200, b"gzip", Content_Encoding="gzip"),
        HashMismatch,
        "with Content-Encoding: 'gzip'",
    ),
    "nothing there": (reply(404), SourceMissing, r"no archive at \S+/a \(404\)"),
    "gone": (reply(410), SourceMissing, r"\(410\)"),
    "no right": (reply(403), SourceDenied, r"may not be read \(403\)"),
    "a code for a reason": (
        reply(403, b"<Error><Code>AccessDenied</Code></Error>"),
        SourceDenied,
        r"\(403 AccessDenied\)",
    ),
    "a code that is none": (reply(403, b"<Code>\x1b[31m rm</Code>"), SourceDenied, r"\(403\)$"),
    "a status that means nothing": (reply(418), UntrustedSource, "answers 418"),
    "a part that nobody asked for": (
        reply(206, DATA, Content_Range="bytes 5-9/10"),
        UntrustedSource,
        "another range",
    ),
    "a part of something": (reply(206, DATA, Content_Range="lines 0-"), UntrustedSource, "another"),
    "a part without a word": (reply(206, DATA), UntrustedSource, "another range"),
    "a redirect to nowhere": (reply(302), UntrustedSource, "redirects more than 5 times"),
    "a redirect to what is no URL": (
        reply(302, Location="https://[x"),
        UntrustedSource,
        "redirects to an invalid URL",
    ),
    "a redirect to a file": (
        reply(302, Location="file:///etc/passwd"),
        UntrustedSource,
        "redirects to an invalid URL",
    ),
    "a redirect to another host without TLS": (
        reply(302, Location="http://example.com/a"),
        UntrustedSource,
        "redirects to example.com without encryption",
    ),
    "a redirect with a password in it": (
        reply(302, Location=f"https://u:{SECRET}@localhost/"),
        UntrustedSource,
        "redirects to an invalid URL",
    ),
    "a redirect in circles": (reply(302, Location="/a"), UntrustedSource, "more than 5 times"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_will_not_pass_is_refused_at_once(tmp_path, name):
    answer, error, message = REFUSED[name]
    with scripted(lambda asked: answer(asked) if callable(answer) else answer) as server:
        with pytest.raises(error, match=message) as caught:
            get(f"{server.url}/a", tmp_path / "copy")
    assert SECRET not in str(caught.value)
    if "redirect" not in name:
        assert len(server.asked) == 1
    assert (tmp_path / "copy").stat().st_size <= LIMIT


def test_what_keeps_failing_is_given_up_on_with_the_reason(tmp_path):
    with (
        scripted(lambda asked: reply(503)) as server,
        pytest.raises(SourceUnavailable, match=r"/a failed \(503\); gave up after 3 attempts"),
    ):
        get(f"{server.url}/a", tmp_path / "copy", attempts=3)
    assert len(server.asked) == 3


def test_a_redirect_is_followed_and_its_query_stays_its_own(tmp_path):
    moved = reply(307, Location="/elsewhere?x=1")
    with scripted(in_turn(moved, CUT, moved)) as server:
        get(f"{server.url}/a?sig={SECRET}", tmp_path / "copy")
    targets = [asked.target for asked in server.asked]
    assert targets == [f"/a?sig={SECRET}", "/elsewhere?x=1"] * 2
    assert range_of(server.asked[3]) == "bytes=1000-"


@pytest.mark.parametrize(
    ("date", "message"),
    [
        ("Thu, 01 Jan 2015 00:00:00 GMT", r"this machine's clock is \d+ minutes ahead of"),
        ("nonsense", "it has expired or does not fit"),
    ],
)
def test_a_signed_url_that_is_refused_is_named_without_its_signature(tmp_path, date, message):
    refused = reply(403, b"<Error><Code>AccessDenied</Code></Error>", Date=date)
    with scripted(lambda asked: refused) as server, pytest.raises(SourceDenied, match=message) as e:
        get(f"{server.url}/a.tar.gz?X-Amz-Signature={SECRET}", tmp_path / "copy")
    assert f"{server.url}/a.tar.gz is refused (403 AccessDenied)" in str(e.value)
    assert SECRET not in str(e.value)


def test_odd_characters_of_a_url_are_sent_encoded_and_encoded_ones_as_they_are(tmp_path):
    with scripted(in_turn()) as server:
        get(f"{server.url}/a b/ü%20%2F?x=a b\r\nEvil: 1", tmp_path / "copy")
    assert server.asked[0].target == "/a%20b/%C3%BC%20%2F?x=a%20bEvil:%201"
    assert "evil" not in server.asked[0].headers


def test_a_name_that_no_host_can_have_is_said(tmp_path):
    with pytest.raises(SourceUnavailable, match=r"invalid host name|not known|resolution"):
        get(f"https://{'a' * 70}.example/a", tmp_path / "copy", attempts=1)


def test_an_address_where_nobody_listens_is_tried_again_and_named(tmp_path):
    with pytest.raises(
        SourceUnavailable, match=r"no connection to localhost:1: .*refused.*4 attem"
    ):
        get("http://localhost:1/a", tmp_path / "copy")


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trust(authority: trustme.CA, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))


def test_a_server_is_trusted_by_the_authorities_that_are_set(tmp_path, authority, monkeypatch):
    trust(authority, tmp_path, monkeypatch)
    with scripted(in_turn(CUT), server_context(authority, "localhost")) as server:
        assert get(f"{server.url}/a", tmp_path / "copy") == 2


@pytest.mark.parametrize(
    ("name", "trusted", "message"),
    [
        ("localhost", False, "self.signed|unable to get local issuer"),
        ("example.com", True, "[Hh]ostname mismatch"),
    ],
)
def test_a_certificate_that_does_not_hold_is_said_at_once(
    tmp_path, authority, monkeypatch, name, trusted, message
):
    if trusted:
        trust(authority, tmp_path, monkeypatch)
    with scripted(in_turn(), server_context(authority, name)) as server:
        with pytest.raises(UntrustedSource, match=f"certificate of localhost:.*({message})"):
            get(f"{server.url}/a", tmp_path / "copy")
    assert server.asked == []


def test_no_redirect_leaves_tls(tmp_path, authority, monkeypatch):
    """Not even to this machine."""
    trust(authority, tmp_path, monkeypatch)
    with scripted(in_turn()) as plain:
        redirect = reply(302, Location=f"{plain.url}/a")
        with scripted(lambda asked: redirect, server_context(authority, "localhost")) as server:
            with pytest.raises(UntrustedSource, match="without encryption: not followed"):
                get(f"{server.url}/a", tmp_path / "copy", {"FLYTE_SHIM_ALLOW_HTTP": "1"})
    assert plain.asked == []


# --- proxies -------------------------------------------------------------------------------------


def test_a_proxy_is_asked_for_the_whole_url(tmp_path, monkeypatch):
    with scripted(in_turn(CUT)) as proxy:
        url = proxy.url.replace("//", "//user:pass%20word@")
        monkeypatch.setenv("http_proxy", url)
        environ = {"http_proxy": url, "FLYTE_SHIM_ALLOW_HTTP": "1"}
        get("http://bundles.example/a", tmp_path / "copy", environ)
    assert [asked.target for asked in proxy.asked] == ["http://bundles.example/a"] * 2
    assert proxy.asked[0].headers["host"] == "bundles.example"
    assert proxy.asked[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="


def test_a_proxy_that_refuses_a_tunnel_is_named(tmp_path, monkeypatch):
    with scripted(lambda asked: reply(403)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("//", f"//user:{SECRET}@"))
        with pytest.raises(
            SourceUnavailable, match=r"no connection to bundles.example: .*403"
        ) as e:
            get(
                "https://bundles.example/a",
                tmp_path / "copy",
                {"https_proxy": proxy.url},
                attempts=1,
            )
    assert SECRET not in str(e.value)
    assert proxy.asked[0].method == "CONNECT"
    assert proxy.asked[0].target == "bundles.example:443"
    assert proxy.asked[0].headers["proxy-authorization"].startswith("Basic ")


def test_hosts_that_are_excepted_are_asked_directly(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://localhost:1")
    monkeypatch.setenv("no_proxy", "localhost")
    with scripted(in_turn()) as server:
        get(f"{server.url}/a", tmp_path / "copy", {"http_proxy": "http://localhost:1"})


def test_what_is_no_proxy_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "socks5://localhost:1")
    with pytest.raises(UsageError, match="HTTPS_PROXY is not a valid proxy"):
        get("https://localhost/a", tmp_path / "copy", {"https_proxy": "socks5://localhost:1"})


def test_every_error_here_is_one_of_ours():
    assert all(issubclass(error, ShimError) for _, error, _ in REFUSED.values())


def test_a_blank_variable_leaves_the_systems_authorities(monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    trusted = _tls(None).cert_store_stats()
    monkeypatch.setenv("SSL_CERT_FILE", " ")
    assert _tls(None).cert_store_stats() == trusted
