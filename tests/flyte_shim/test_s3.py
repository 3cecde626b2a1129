"""Where S3's archives are asked for, and how the request is signed."""

from __future__ import annotations

import pytest

from flyte_shim.aws_credentials import Credentials
from flyte_shim.s3 import S3Source, signed
from flyte_shim.source import Patience
from flyte_shim.web import Url


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
