"""What addresses of object stores mean."""

from __future__ import annotations

import pytest

from flyte_shim.errors import UsageError
from flyte_shim.paths import sha256_in_name
from flyte_shim.stores import locate


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


def test_the_hash_of_a_signed_url_is_in_its_path():
    name = "0123456789abcdef" * 4
    assert sha256_in_name(f"https://host/{name}.tar.gz?X-Amz-Signature=/x") == name
    assert sha256_in_name(f"https://host/x?a=/{name}.tar.gz") is None
