"""Where S3's archives are asked for, and how the request is signed."""

from __future__ import annotations

import pytest

from flyte_shim.aws_credentials import Credentials
from flyte_shim.errors import (
    SourceDenied,
    SourceMissing,
    SourceUnavailable,
    UntrustedSource,
    UsageError,
)
from flyte_shim.s3 import S3Source, signed
from flyte_shim.source import Patience
from flyte_shim.web import Url
from tests.support.shim_servers import reply, scripted


def test_a_signature_is_the_one_of_aws_own_example():
    """S3 API reference, "Signature Calculations for the Authorization Header", "GET Object"."""
    credentials = Credentials(
        "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, "the test"
    )
    url = Url("https://examplebucket.s3.amazonaws.com/test.txt")
    headers = signed(url, {"Range": "bytes=0-9"}, "us-east-1", credentials, 1369353600.0)
    assert headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


URLS = {
    "AWS": ({}, "bucket", "https://bucket.s3.us-east-1.amazonaws.com/a%20b"),
    "another region": (
        {"AWS_REGION": "eu-west-1"},
        "bucket",
        "https://bucket.s3.eu-west-1.amazonaws.com/a%20b",
    ),
    "China": (
        {"AWS_REGION": "cn-north-1"},
        "bucket",
        "https://bucket.s3.cn-north-1.amazonaws.com.cn/a%20b",
    ),
    "a dot in the bucket": ({}, "a.b", "https://s3.us-east-1.amazonaws.com/a.b/a%20b"),
    "paths wanted": (
        {"FLYTE_AWS_S3_ADDRESSING_STYLE": "path"},
        "bucket",
        "https://s3.us-east-1.amazonaws.com/bucket/a%20b",
    ),
    "an endpoint": ({"AWS_ENDPOINT_URL": "http://e:1/"}, "bucket", "http://e:1/bucket/a%20b"),
    "an endpoint with hosts": (
        {"AWS_ENDPOINT_URL": "http://e:1", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"},
        "bucket",
        "http://bucket.e:1/a%20b",
    ),
    "one with the bucket, as obstore wants it": (
        {"AWS_ENDPOINT_URL": "http://bucket.e", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"},
        "bucket",
        "http://bucket.e/a%20b",
    ),
}


@pytest.mark.parametrize("name", URLS)
def test_a_bucket_is_in_the_host_or_in_the_path(name):
    environ, bucket, url = URLS[name]
    assert S3Source(f"s3://{bucket}/a b", Patience(), environ).url() == url


class Elsewhere:
    """Stands in for AWS, which answers for one region about a bucket in another."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.hosts: list[str] = []

    def send(self, method, url, headers):
        self.hosts.append(url.host)
        return self

    status = 301

    def header(self, name: str) -> str:
        return self.region if name == "x-amz-bucket-region" else ""

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("region", "environ", "hosts"),
    [
        ("eu-west-1", {}, ["us-east-1.amazonaws.com", "eu-west-1.amazonaws.com"]),
        ("us-east-1", {}, ["us-east-1.amazonaws.com"]),
        ("evil.example/", {}, ["us-east-1.amazonaws.com"]),
        ("eu-west-1", {"AWS_ENDPOINT_URL": "https://store.example"}, ["store.example"]),
    ],
)
def test_a_bucket_in_another_region_is_asked_there_and_nowhere_else(region, environ, hosts):
    source = S3Source("s3://bucket/a", Patience(), {**environ, "AWS_SKIP_SIGNATURE": "1"})
    aws = source._web = Elsewhere(region)
    source._answer({})
    assert [host.replace("bucket.s3.", "") for host in aws.hosts] == hosts


SECRET, SESSION = "planted-secret-12ce", "planted-session-f0b4"
KEY = {"AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SESSION}


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()


ANSWERS = {
    "no right": (
        reply(403, error("AccessDenied")),
        SourceDenied,
        "they need s3:GetObject for buck",
    ),
    "nothing that says why": (
        reply(403),
        SourceDenied,
        r"\(403\) with the credentials from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "an expired session": (
        reply(400, error("ExpiredToken")),
        SourceDenied,
        "session .* has expired",
    ),
    "an unknown key": (
        reply(403, error("InvalidAccessKeyId")),
        SourceDenied,
        "the key from AWS_ACCESS_KEY_ID and .*check AWS_ENDPOINT_URL",
    ),
    "another secret": (reply(403, error("SignatureDoesNotMatch")), SourceDenied, "the secret from"),
    "a clock that is off": (
        reply(403, error("RequestTimeTooSkewed"), Date="Thu, 01 Jan 2015 00:00:00 GMT"),
        SourceDenied,
        r"clock is \d+ minutes ahead of the server's; set it",
    ),
    "a clock that is off, at a store without one": (
        reply(403, error("RequestTimeTooSkewed")),
        SourceDenied,
        "clock is wrong; set it",
    ),
    "no bucket": (reply(404, error("NoSuchBucket")), SourceMissing, "there is no bucket bucket"),
    "no archive": (
        reply(404, error("NoSuchKey")),
        SourceMissing,
        "there is no archive at s3://buck",
    ),
    "too much at a time": (reply(503, error("SlowDown")), SourceUnavailable, "503 SlowDown"),
    "a request that was slow": (
        reply(400, error("RequestTimeout")),
        SourceUnavailable,
        "400 Request",
    ),
    "another place": (
        reply(307, error("TemporaryRedirect"), Location="https://evil.example/"),
        UntrustedSource,
        r"redirects \(307 TemporaryRedirect\): not followed",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_store_answers_is_said_and_no_secret(name):
    answer, expected, message = ANSWERS[name]
    with scripted(lambda asked: answer) as server:
        source = S3Source("s3://bucket/a", Patience(), {**KEY, "AWS_ENDPOINT_URL": server.url})
        with pytest.raises(expected, match=message) as caught:
            list(source.read(0))
    (asked,) = server.asked
    assert asked.headers["x-amz-security-token"] == SESSION
    assert "x-amz-security-token" in asked.headers["authorization"]
    assert SECRET not in f"{caught.value}{asked.headers}"
    assert SESSION not in str(caught.value)


def test_an_endpoint_with_a_password_is_refused_and_not_shown():
    environ = {**KEY, "AWS_ENDPOINT_URL": f"http://user:{SECRET}@localhost:1"}
    with pytest.raises(UsageError, match=r"AWS_ENDPOINT_URL .*without user and password") as caught:
        list(S3Source("s3://bucket/a", Patience(), environ).read(0))
    assert SECRET not in str(caught.value)


def test_whoever_asks_pays_if_that_is_set_and_says_so_under_the_signature():
    with scripted(lambda asked: reply(200)) as server:
        environ = {**KEY, "AWS_ENDPOINT_URL": server.url, "AWS_REQUEST_PAYER": "requester"}
        list(S3Source("s3://bucket/a", Patience(), environ).read(0))
    headers = server.asked[0].headers
    assert headers["x-amz-request-payer"] == "requester"
    assert "x-amz-request-payer" in headers["authorization"]
