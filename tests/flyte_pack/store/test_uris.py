"""A store's URI names one place, and holds no password."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flyte_pack.store import StoreError
from flyte_pack.store.opening import open_store
from flyte_pack.store.uris import check_store_uri
from tests.support.deploying import SOURCE_ROOT


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("file://dist/flyte", "/build/dist/flyte"),
        ("file://dist/flyte/", "/build/dist/flyte"),
        ("file:///srv/flyte", "/srv/flyte"),
        ("FILE:///srv/a b/é", "/srv/a b/é"),
        ("file:///srv/user@corp", "/srv/user@corp"),
    ],
)
def test_a_uri_names_a_directory(uri, root):
    assert open_store(uri, "/build").uri == f"file://{root}"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "file://dist/flyte"),
        ("dist/flyte", "file://dist/flyte"),
        ("/srv/flyte", "file://dist/flyte"),
        ("file:dist", "file://dist/flyte"),
        ("file://", "names no directory"),
        ("file:///", "names no directory"),
        ("file:////srv", "names no directory"),
        ("file://a//b", "names no directory"),
        ("file://../x", "names no directory"),
        ("file:///srv/../x", "names no directory"),
        ("file://./x", "names no directory"),
        ("file://localhost/srv", "is ambiguous"),
        ("file:///a%20b", "'%'"),
        ("file:///a?b", "'?'"),
        ("file:///a#b", "'#'"),
        ("file:///a\nb", "'\\n'"),
        ("file:///a\\b", "'\\\\'"),
        ("ftp://host/x", "ftp://"),
        ("https://host/x", "https://"),
        ("s3://", "no bucket"),
        ("s3:///prefix", "no bucket"),
        ("s3://Bucket/x", "no bucket"),
        ("s3://a..b/x", "no bucket"),
        ("s3://ab/x", "no bucket"),
        ("s3://key:hunter2/x", "no bucket"),
        ("gs://_bucket/x", "no bucket"),
        ("abfs://con--tainer/x", "no container"),
        ("abfss://@account.dfs.core.windows.net/x", "no container"),
        ("s3://bucket//x", "'..' part"),
        ("s3://bucket/x/../y", "'..' part"),
        ("gs://bucket/./x", "'..' part"),
        ("file://user:hunter2@host/x", "user or password"),
        ("s3://key:hunter2@bucket/x", "user or password"),
        ("s3://key:hunt/er2@bucket/x", "user or password"),
        ("gs://bucket/x?sig=hunter2", "'?'"),
        ("s3://bucket/x?X-Amz-Signature=hunter2", "'?'"),
        ("abfs://container@hunter2/x", "user or password"),
        ("abfs://container:hunter2@account.dfs.core.windows.net/x", "user or password"),
        ("abfs://container@account.dfs.core.windows.net/x@hunter2", "user or password"),
        ("abfs://user:hunter2@container@account.dfs.core.windows.net/x", "user or password"),
    ],
)
def test_what_is_no_uri_of_a_store_is_refused(uri, said):
    with pytest.raises(StoreError) as error:
        check_store_uri(uri)
    assert said in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "er2" not in str(error.value)


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://my.bucket-1/a/b c/", "s3://my.bucket-1/a/b c"),
        ("gs://my_bucket/p", "gs://my_bucket/p"),
        ("abfs://container/p", "abfs://container/p"),
        (
            "abfss://container@account.dfs.core.windows.net/p/",
            "abfss://container@account.dfs.core.windows.net/p",
        ),
        (
            "abfs://c-1@account.blob.core.usgovcloudapi.net/p",
            "abfs://c-1@account.blob.core.usgovcloudapi.net/p",
        ),
    ],
)
def test_a_uri_names_a_place_in_an_object_store_and_no_request_is_sent_for_it(
    uri, opened, monkeypatch
):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    store = open_store(uri, "/build")
    assert store.uri == opened
    assert store.uri_of("a/b") == f"{opened}/a/b"


def test_uris_are_checked_without_any_library():
    program = """
import sys
from flyte_pack.store.uris import check_store_uri
check_store_uri("s3://bucket/x")
check_store_uri("abfs://container@account.dfs.core.windows.net/x")
top = {m.partition(".")[0] for m in sys.modules}
print(sorted(top & {"obstore", "boto3", "urllib3", "google", "ssl"}))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": SOURCE_ROOT},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_build_root_that_a_uri_can_not_hold_is_refused():
    with pytest.raises(StoreError, match="'#'"):
        open_store("file://dist/flyte", "/home/c#")
