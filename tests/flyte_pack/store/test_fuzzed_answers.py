"""Whatever a store answers, its clients end soon, and with an error of ours if with one."""

from __future__ import annotations

import json
import os
import random
import time

import pytest

from flyte_pack.errors import UserError
from flyte_pack.http.retry import Timing
from flyte_pack.store import blob_of
from flyte_pack.store.opening import remote_store
from flyte_shim.fetch import open_source
from flyte_shim.source import Patience, download
from tests.support.fuzzing import FACTOR, fuzz
from tests.support.object_stores import clean_environment
from tests.support.shim_servers import scripted

LISTED_XML = b"""<?xml version="1.0"?><ListBucketResult><Name>bkt</Name><Prefix>p/a/</Prefix>
<KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>
<NextContinuationToken>t</NextContinuationToken><Contents><Key>p/a/b</Key><Size>4</Size>
<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"e"</ETag></Contents>
<CommonPrefixes><Prefix>p/a/c/</Prefix></CommonPrefixes></ListBucketResult>"""
LISTED_AZURE = b"""<?xml version="1.0"?><EnumerationResults><Prefix>p/a/</Prefix><Blobs><Blob>
<Name>p/a/b</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified>
<Content-Length>4</Content-Length><Content-Type>a/b</Content-Type><Etag>e</Etag></Properties></Blob>
<BlobPrefix><Name>p/a/c/</Name></BlobPrefix></Blobs><NextMarker /></EnumerationResults>"""
LISTED_JSON = {
    "prefixes": ["p/a/c/"],
    "nextPageToken": "",
    "items": [{"name": "p/a/b", "size": "4", "updated": "2026-01-01T00:00:00.5Z"}],
}
OBJECT_JSON = {"size": "4", "generation": "7", "metadata": {"sha256": "0", "writer": "w"}}
ERROR_XML = b"<Error><Code>NoSuchKey</Code><Message>m</Message></Error>"
ERROR_JSON = {"error": {"errors": [{"reason": "notFound"}]}}
ROLE = {"AccessKeyId": "K", "SecretAccessKey": "S", "Token": "T", "Expiration": "2099-01-01T00:00:00Z"}  # fmt: skip
BODIES = [
    *(LISTED_XML, LISTED_AZURE, ERROR_XML, b"data", b""),
    *(json.dumps(one).encode() for one in (LISTED_JSON, OBJECT_JSON, ERROR_JSON, ROLE)),
]
STATUSES = (200, 200, 200, 200, 206, 204, 301, 302, 304, 400, 403, 404, 409, 412, 416, 507, 999)
ODD = (
    *(b"", b"0", b"-1", b"1e9", b"99999999999999999999", b"\0", b"\xff\xfe", b"null", b"[]", b"{}"),
    *(b"true", b"&lt;", b"]]>", b"<a>", b"..", b"/", b"x" * 5000, b"[" * 3000, b"2026-99-99T"),
)
HEADERS = {
    "ETag": '"e"',
    "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
    "Content-Range": "bytes 0-3/4",
    "Date": "Thu, 01 Jan 2026 00:00:00 GMT",
    "Content-Type": "application/xml",
    "x-goog-generation": "7",
    "x-amz-bucket-region": "eu-west-1",
    "Location": "/elsewhere",
    "Retry-After": "0",
}


def mutated(rng: random.Random, body: bytes) -> bytes:
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(body) + 1)
        to = at + rng.choice((0, 1, 4, 30))
        body = body[:at] + rng.choice(ODD) + body[to:]
    return body


def answer(rng: random.Random) -> bytes:
    body = mutated(rng, rng.choice(BODIES))
    headers = {name: value for name, value in HEADERS.items() if rng.random() < 0.8}
    if rng.random() < 0.3 and headers:
        odd = rng.choice(ODD).replace(b"\0", b"").decode("latin-1")
        headers[rng.choice(list(headers))] = odd
    length = rng.choice((len(body),) * 8 + (len(body) + 5, max(0, len(body) - 3)))
    lines = [f"HTTP/1.1 {rng.choice(STATUSES)} X", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    whole = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body
    return mutated(rng, whole) if rng.random() < 0.1 else whole


KEYS = {"AWS_ACCESS_KEY_ID": "K", "AWS_SECRET_ACCESS_KEY": "S"}
STORES = {
    "s3": ("s3://bkt/p", {**KEYS, "AWS_ENDPOINT_URL": "{}"}),
    "a role": (
        "s3://bkt/p",
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{}/creds", "AWS_ENDPOINT_URL": "{}"},
    ),
    "abfs": (
        "abfs://cont@acct.dfs.core.windows.net/p",
        {"AZURE_STORAGE_ACCOUNT_KEY": "a2V5a2V5", "AZURE_STORAGE_ENDPOINT": "{}/acct"},
    ),
    "gs": ("gs://bkt/p", {"STORAGE_EMULATOR_HOST": "{}"}),
}


BLOB = blob_of("a/b", b"data")


def shim(store: object, uri: str, file: str) -> None:
    patience = Patience(attempts=2, pause=0, timeout=2)
    source = open_source(uri, patience, os.environ)
    download(source, file, BLOB.sha256, 1 << 20, patience)


USES = {
    "size": lambda store, *_: store.size("a/b"),
    "state": lambda store, *_: store.state(BLOB, deep=True),
    "read": lambda store, *_: store.read("a/b", 9),
    "stream": lambda store, *_: sum(map(len, store.stream("a/b"))),
    "names": lambda store, *_: store.names("a"),
    "objects": lambda store, *_: store.objects("a"),
    "create": lambda store, *_: store.create(BLOB, [b"data"]),
    "delete": lambda store, *_: store.delete("a/b"),
    "shim": shim,
}


@pytest.mark.parametrize("kind", STORES)
def test_odd_answers_are_errors_of_ours_and_take_no_time(kind, monkeypatch, tmp_path, capfd):
    pytest.importorskip("obstore")
    clean_environment(monkeypatch)
    uri, environ = STORES[kind]
    current = [random.Random(0)]
    started = time.monotonic()
    with scripted(lambda asked: answer(current[0])) as server:
        here = server.url.replace("localhost", "127.0.0.1")
        for name, value in environ.items():
            monkeypatch.setenv(name, value.format(here))
        for number, rng in enumerate(fuzz(25 if kind == "gs" else 60)):
            current[0] = rng
            store = remote_store(uri, os.environ, Timing(sleep=lambda seconds: None))
            file = str(tmp_path / f"{number}")
            use = rng.choice(list(USES))
            try:
                USES[use](store, f"{uri}/a/b", file)
            except UserError as error:
                said = str(error)
                assert said.isprintable() or "\n" in said, (number, use, said)
                assert len(said) < 1500, (number, use)
    assert time.monotonic() - started < 60 * FACTOR
    assert capfd.readouterr().err == ""  # no panic of Rust's
