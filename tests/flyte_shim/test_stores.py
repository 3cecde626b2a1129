"""What addresses of object stores mean, and what the environment says about reaching them."""

from __future__ import annotations

import json

import pytest

from flyte_shim.errors import UsageError
from flyte_shim.paths import sha256_in_name
from flyte_shim.stores import S3Settings, allows_http, locate, obstore_config, s3_settings


@pytest.mark.parametrize(
    ("uri", "kind", "bucket", "key", "account"),
    [
        ("s3://bucket/a/b.tar.gz", "s3", "bucket", "a/b.tar.gz", None),
        ("S3://my.bucket/a%20b ü", "s3", "my.bucket", "a%20b ü", None),
        ("gs://my_bucket/a", "gs", "my_bucket", "a", None),
        ("abfs://container/a", "abfs", "container", "a", None),
        ("abfss://$root@acc1.dfs.core.windows.net/a/b", "abfs", "$root", "a/b", "acc1"),
        ("abfs://c@acc1.blob.core.chinacloudapi.cn/a", "abfs", "c", "a", "acc1"),
        ("s3://bucket", "s3", "bucket", "", None),
    ],
)
def test_an_address_names_a_bucket_and_a_key(uri, kind, bucket, key, account):
    found = locate(uri)
    assert (found.kind, found.bucket, found.key, found.account) == (kind, bucket, key, account)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://bucket/a", "has an unknown scheme"),
        ("s3://", "has no bucket"),
        ("s3://bu cket/a", "has no bucket"),
        ("s3://bucket/a?sig=hush", r"'\?' or '#'"),
        ("s3://bucket/a#hush", r"'\?' or '#'"),
        ("s3://hush:hush@bucket/a", "has an '@'"),
        ("s3://bucket/a\r\nX: 1", "control character"),
        ("abfs://c@acc1.example.com/a", "names no Azure account"),
        ("abfs://c@.dfs.core.windows.net/a", "names no Azure account"),
    ],
)
def test_what_is_no_address_is_said_without_what_may_be_secret(uri, message):
    with pytest.raises(UsageError, match=message) as caught:
        locate(uri)
    assert "hush" not in str(caught.value)


AWS = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B"}
FLYTE = {"FLYTE_AWS_ACCESS_KEY_ID": "C", "FLYTE_AWS_SECRET_ACCESS_KEY": "D"}
TOKEN = {"AWS_SESSION_TOKEN": "T"}
KEYS = ("access_key_id", "secret_access_key", "session_token")


@pytest.mark.parametrize(
    ("environ", "keys"),
    [
        ({}, (None, None, None)),
        (AWS, ("A", "B", None)),
        ({**AWS, **TOKEN}, ("A", "B", "T")),
        ({**AWS, "AWS_TOKEN": "T"}, ("A", "B", "T")),
        (FLYTE, ("C", "D", None)),
        ({**AWS, **FLYTE}, ("C", "D", None)),
        ({**FLYTE, **TOKEN}, ("C", "D", "T")),
        ({**AWS, **FLYTE, **TOKEN}, ("C", "D", None)),
        ({**AWS, "FLYTE_AWS_ACCESS_KEY_ID": "C"}, ("A", "B", None)),
        ({"AWS_ACCESS_KEY_ID": "A", **TOKEN}, (None, None, None)),
        ({**AWS, "AWS_SECRET_ACCESS_KEY": ""}, (None, None, None)),
    ],
)
def test_flytes_key_goes_before_that_of_aws_and_a_token_with_the_key_it_belongs_to(environ, keys):
    settings = s3_settings(environ)
    assert tuple(getattr(settings, name) for name in KEYS) == keys


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"endpoint": None, "region": "us-east-1", "virtual_hosted": None, "anonymous": False}),
        ({"AWS_ENDPOINT": "http://a"}, {"endpoint": "http://a"}),
        ({"AWS_ENDPOINT": "http://a", "AWS_ENDPOINT_URL": "http://b/"}, {"endpoint": "http://b"}),
        (
            {"AWS_ENDPOINT_URL": "http://b", "AWS_ENDPOINT_URL_S3": "http://c"},
            {"endpoint": "http://c"},
        ),
        (
            {"AWS_ENDPOINT_URL_S3": "http://c", "FLYTE_AWS_ENDPOINT": "http://d"},
            {"endpoint": "http://d"},
        ),
        (
            {"AWS_ENDPOINT_URL": "http://b", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            {"endpoint": None},
        ),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, {"region": "eu-west-1"}),
        ({"AWS_DEFAULT_REGION": "a", "AWS_REGION": "b"}, {"region": "b"}),
        ({"FLYTE_AWS_S3_ADDRESSING_STYLE": "virtual"}, {"virtual_hosted": True}),
        ({"FLYTE_AWS_S3_ADDRESSING_STYLE": "path"}, {"virtual_hosted": False}),
        ({"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}, {"virtual_hosted": True}),
        ({"AWS_SKIP_SIGNATURE": "true"}, {"anonymous": True}),
        ({"AWS_REQUEST_PAYER": "requester"}, {"request_payer": True}),
    ],
)
def test_s3_is_where_the_environment_says(environ, expected):
    settings = s3_settings(environ)
    assert {name: getattr(settings, name) for name in expected} == expected


def test_an_endpoint_without_a_scheme_is_refused():
    with pytest.raises(UsageError, match="the endpoint of S3 is an invalid URL"):
        s3_settings({"FLYTE_AWS_ENDPOINT": "localhost:9000"})


def test_settings_have_defaults():
    assert S3Settings().region == "us-east-1"


EMULATOR = {
    "gcs_base_url": "http://localhost:4443",
    "disable_oauth": True,
    "client_email": "",
    "private_key": "",
    "private_key_id": "",
}


@pytest.mark.parametrize(
    ("uri", "environ", "config"),
    [
        ("s3://b/k", {}, {"region": "us-east-1"}),
        (
            "s3://b/k",
            {**FLYTE, **TOKEN, "FLYTE_AWS_ENDPOINT": "http://e"},
            {
                "region": "us-east-1",
                "endpoint": "http://e",
                "access_key_id": "C",
                "secret_access_key": "D",
                "session_token": "T",
            },
        ),
        (
            "s3://b/k",
            {"AWS_SKIP_SIGNATURE": "1", "FLYTE_AWS_S3_ADDRESSING_STYLE": "virtual"},
            {
                "region": "us-east-1",
                "skip_signature": "true",
                "virtual_hosted_style_request": "true",
            },
        ),
        ("gs://b/k", {}, {}),
        ("gs://b/k", {"STORAGE_EMULATOR_HOST": "localhost:4443"}, EMULATOR),
        ("gs://b/k", {"STORAGE_EMULATOR_HOST": "http://localhost:4443"}, EMULATOR),
        ("gs://b/k", {"STORAGE_EMULATOR_HOST": "x", "GOOGLE_BASE_URL": "http://y"}, {}),
        ("abfs://c/k", {}, {}),
        ("abfs://c@acc.dfs.core.windows.net/k", {}, {"account_name": "acc"}),
        (
            "abfs://c@acc.dfs.core.chinacloudapi.cn/k",
            {},
            {"account_name": "acc", "endpoint": "https://acc.blob.core.chinacloudapi.cn"},
        ),
        (
            "abfs://c@acc.dfs.core.chinacloudapi.cn/k",
            {"AZURE_STORAGE_ENDPOINT": "https://e"},
            {"account_name": "acc"},
        ),
    ],
)
def test_obstore_is_told_what_it_does_not_read_itself(uri, environ, config):
    found = obstore_config(locate(uri), environ)
    if "service_account_key" in found:
        assert json.loads(found["service_account_key"]) == config
    else:
        assert found == config


@pytest.mark.parametrize(
    ("uri", "environ", "allowed"),
    [
        ("s3://b/k", {}, False),
        ("s3://b/k", {"AWS_ENDPOINT_URL": "https://e"}, False),
        ("s3://b/k", {"AWS_ENDPOINT_URL": "HTTP://e"}, True),
        ("gs://b/k", {}, False),
        ("gs://b/k", {"GOOGLE_BASE_URL": "http://e"}, True),
        ("gs://b/k", {"STORAGE_EMULATOR_HOST": "localhost:4443"}, True),
        ("abfs://b/k", {}, False),
        ("abfs://b/k", {"AZURE_STORAGE_USE_EMULATOR": "true"}, True),
        ("abfs://b/k", {"AZURE_ENDPOINT": "http://e"}, True),
    ],
)
def test_only_an_endpoint_that_somebody_named_may_be_without_tls(uri, environ, allowed):
    assert allows_http(locate(uri), environ) is allowed


def test_the_hash_of_a_signed_url_is_in_its_path():
    name = "0123456789abcdef" * 4
    assert sha256_in_name(f"https://host/{name}.tar.gz?X-Amz-Signature=/x") == name
    assert sha256_in_name(f"https://host/x?a=/{name}.tar.gz") is None
