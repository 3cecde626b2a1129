"""Errors of object stores become messages that help and hold no secret."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import sys
import threading

import pytest
import trustme

from flyte_pack.store import StoreError, blob_of
from flyte_pack.store.opening import open_store, remote_store
from flyte_pack.store.trouble import Doing, Place, failure
from tests.support.object_stores import (
    BUCKET,
    READER,
    REAL_STORES,
    SECRETS,
    WRITER,
    Answer,
    Rewrite,
    azurite,
    clean_environment,
    fake_gcs,
    proxied,
    seaweedfs,
    unique,
)
from tests.support.registries import Clock

BLOB = blob_of("archives/a.tar.gz", b"x")
TOKEN = "planted-session-token-3f0a"
USES = {
    "size": lambda store: store.size("a"),
    "state": lambda store: store.state(BLOB),
    "read": lambda store: store.read("a", 1),
    "stream": lambda store: list(store.stream("a")),
    "names": lambda store: store.names("a"),
    "objects": lambda store: store.objects("a"),
    "create": lambda store: store.create(BLOB, [b"x"]),
    "replace": lambda store: store.replace(BLOB, [b"x"]),
    "delete": lambda store: store.delete("a"),
}


def complaint(use, uri, env, monkeypatch):
    """The message of each use of an unusable store; it holds no secret and no text of a server."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    clock = Clock()
    with pytest.raises(StoreError) as error:
        use(remote_store(uri, {**env}, clock.timing))
    said = str(error.value)
    for secret in (*SECRETS, TOKEN, "Signature", "Authorization", "<", "RetryError", "{"):
        assert secret not in said
    chain, causes = error.value, []
    while chain is not None and not chain.__suppress_context__:
        chain = chain.__cause__ or chain.__context__
        causes.append(chain)
    assert not [cause for cause in causes if cause is not None]
    assert sum(clock.slept) < 600
    return said


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    clean_environment(monkeypatch)


def s3_with(**changed):
    return lambda: (f"{seaweedfs().uri}/{unique()}", {**seaweedfs().env, **changed})


def azure_with(**changed):
    return lambda: (f"{azurite().uri}/{unique()}", {**azurite().env, **changed})


def with_a_shared_access_signature():
    env = {name: value for name, value in azurite().env.items() if not name.endswith("_KEY")}
    signature = {"AZURE_STORAGE_SAS_TOKEN": f"?sv=2021-12-02&sp=r&sig={TOKEN}"}
    return f"{azurite().uri}/{unique()}", {**env, **signature}


def no_bucket(start):
    return lambda: (start().uri.replace(BUCKET, "not-there") + "/p", start().env)


WRONG = {
    "wrong secret": (
        s3_with(AWS_SECRET_ACCESS_KEY=READER[1]),
        "the secret key does not belong to the access key: correct AWS_SECRET_ACCESS_KEY",
    ),
    "unknown key": (s3_with(AWS_ACCESS_KEY_ID="AKIANOBODY"), "the access key is unknown there"),
    "wrong Azure key": (
        azure_with(AZURE_STORAGE_ACCOUNT_KEY="cGxhbnRlZA=="),
        "check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    ),
    "no Azure key at all": (
        azure_with(AZURE_STORAGE_ACCOUNT_KEY="planted-azure-account-key-77f0!"),
        "AZURE_STORAGE_ACCOUNT_KEY is no account's key",
    ),
    "wrong shared access signature": (
        with_a_shared_access_signature,
        "check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or your other login)",
    ),
    "no GCS bucket": (no_bucket(fake_gcs), "there is no bucket not-there: make it, or correct"),
    "no container": (no_bucket(azurite), "there is no container not-there: make it, or correct"),
}


@pytest.mark.parametrize(
    ("wrong", "use"),
    # Later obstores ask Azure to delete many objects; it then reports no missing container.
    [(wrong, use) for wrong in WRONG for use in USES if (wrong, use) != ("no container", "delete")],
)
def test_whatever_is_done_says_what_is_wrong(wrong, use, monkeypatch):
    start, expected = WRONG[wrong]
    assert expected in complaint(USES[use], *start(), monkeypatch)


@pytest.mark.parametrize("use", ["size", "state", "read", "stream", "names", "objects"])
def test_a_bucket_that_is_not_there_is_told_from_an_object_that_is_not(use, monkeypatch):
    said = complaint(USES[use], *no_bucket(seaweedfs)(), monkeypatch)
    assert "there is no bucket not-there: make it, or correct the store's URI" in said


def test_who_may_only_read_is_told_which_right_is_missing(monkeypatch):
    real = seaweedfs()
    uri = f"{real.uri}/{unique()}"
    for name, value in real.env.items():
        monkeypatch.setenv(name, value)
    remote_store(uri, real.env).create(blob_of("a", b"a"), [b"a"])
    rights = {"create": "s3:PutObject", "replace": "s3:PutObject", "delete": "s3:DeleteObject"}
    for use, right in rights.items():
        said = complaint(USES[use], uri, real.reader, monkeypatch)
        doing = "delete" if use == "delete" else "write"
        assert f"these credentials may not {doing} there: grant {right}" in said
    reader = remote_store(uri, real.reader)
    assert reader.read("a", 1) == b"a"
    assert reader.names("archives") == []


@pytest.mark.parametrize("use", USES)
def test_a_clock_that_is_off_is_what_is_said_to_be_wrong(use, monkeypatch):
    with proxied(seaweedfs()) as (real, proxy):
        # A request of 2020: the server refuses its date before it checks the signature.
        proxy.fault = lambda request: Rewrite((("x-amz-date", "20200101T000000Z"),))
        said = complaint(USES[use], f"{real.uri}/p", real.env, monkeypatch)
    assert "this machine's clock is too far from the server's: correct it" in said


ANSWERS = [
    (403, "ExpiredToken", "the credentials have expired"),
    (400, "ExpiredToken", "the credentials have expired"),
    (400, "InvalidToken", "the credentials have expired"),
    (301, "PermanentRedirect", "another region: set AWS_REGION"),
    (400, "AuthorizationHeaderMalformed", "another region: set AWS_REGION"),
    (403, "AccessDenied", "may not"),
    (401, "Whatever", "the credentials are not accepted: set AWS_ACCESS_KEY_ID"),
    (403, "QuotaExceeded", "the store is full"),
    (507, "InsufficientStorage", "the store is full"),
    (418, "Teapot", "with status 418"),
    (503, "SlowDown", "try later"),
    (429, "Anything", "try later"),
    (500, "InternalError", "try later"),
]


@pytest.mark.parametrize(("status", "code", "expected"), ANSWERS)
@pytest.mark.parametrize("use", ["read", "names", "create"])
def test_what_only_the_clouds_answer_is_understood(use, status, code, expected, monkeypatch):
    secret = f"<Message>{TOKEN} {WRITER[1]}</Message>"
    body = (
        f"<Error><Code>{code}</Code>{secret}<StringToSign>{TOKEN}</StringToSign></Error>".encode()
    )
    headers = (
        (("Location", f"http://127.0.0.1:1/?X-Amz-Signature={TOKEN}"),) if status == 301 else ()
    )
    with proxied(seaweedfs()) as (real, proxy):
        proxy.fault = lambda request: Answer(status, body, headers)
        said = complaint(
            USES[use], f"{real.uri}/p", {**real.env, "AWS_SESSION_TOKEN": TOKEN}, monkeypatch
        )
    if status != 301:  # a redirect is followed, to where nothing is
        assert expected in said


@pytest.mark.parametrize(
    ("kind", "use"),
    # What S3 lists is read so leniently that it holds nothing then; writing tells.
    [("s3", "create"), ("abfs", "names"), ("abfs", "create"), ("gs", "names"), ("gs", "create")],
)
def test_what_is_no_object_store_is_said_to_be_none(kind, use, monkeypatch):
    with proxied(REAL_STORES[kind]()) as (real, proxy):
        proxy.fault = lambda request: Answer(200, b"<html>Welcome</html>")
        said = complaint(USES[use], f"{real.uri}/p", real.env, monkeypatch)
    assert "is not an object store: check the endpoint" in said


def elsewhere(kind, endpoint):
    real = REAL_STORES[kind]()
    return f"{real.uri}/p", {**real.env, real.environ_key: endpoint}


@pytest.mark.parametrize("kind", REAL_STORES)
def test_where_nothing_listens_that_is_said(kind, monkeypatch):
    said = complaint(USES["names"], *elsewhere(kind, "http://127.0.0.1:1"), monkeypatch)
    assert "at 127.0.0.1:1: " in said
    assert "nothing listens there: check the endpoint" in said or "connection refused" in said


@pytest.mark.parametrize("kind", REAL_STORES)
def test_a_host_that_does_not_exist_is_said_not_to(kind, monkeypatch):
    said = complaint(USES["names"], *elsewhere(kind, "http://nowhere.invalid"), monkeypatch)
    assert "there is no host of that name" in said


@pytest.fixture
def tls_server(tmp_path):
    """An address with TLS, and the file with its authority's certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))

    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    server.handle_error = lambda *_: None
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}", str(file)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", REAL_STORES)
def test_a_certificate_that_is_not_trusted_can_be_made_so(kind, tls_server, monkeypatch):
    endpoint, authority = tls_server
    uri, env = elsewhere(kind, endpoint)
    assert "SSL_CERT_FILE" in complaint(USES["names"], uri, env, monkeypatch)
    trusting = {**env, "SSL_CERT_FILE": authority}
    said = complaint(USES["names"], uri, trusting, monkeypatch)
    assert "may not list there" in said


def test_plain_http_behind_https_is_said_to_be_it(monkeypatch):
    real = seaweedfs()
    env = {**real.env, "AWS_ENDPOINT_URL": real.endpoint.replace("http:", "https:")}
    said = complaint(USES["names"], f"{real.uri}/p", env, monkeypatch)
    assert "if the server speaks plain HTTP, write http:// in the endpoint" in said


def test_an_endpoint_that_is_none_is_refused_at_once(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"planted{TOKEN}")
    with pytest.raises(
        StoreError, match=r"AWS_ENDPOINT_URL is an invalid URL.*with its http://"
    ) as error:
        open_store("s3://bucket/x", "/").names("a")
    assert TOKEN not in str(error.value)


def test_an_account_has_to_be_named(monkeypatch):
    with pytest.raises(StoreError, match="AZURE_STORAGE_ACCOUNT_NAME is not set"):
        open_store("abfs://container/x", "/").names("a")


def test_a_full_disk_is_said_to_be_one(monkeypatch):
    real = seaweedfs()
    program = """
import resource, signal, sys
from flyte_pack.store import blob_of, StoreError
from flyte_pack.store.opening import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
content = bytes(10 << 20)
try:
    open_store(sys.argv[1], "/").create(blob_of("a", content), [content])
except StoreError as error:
    print(error)
"""
    uri = f"{real.uri}/{unique()}"
    done = subprocess.run(
        [sys.executable, "-c", program, uri],
        env={**real.env, "PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Set TMPDIR to a directory with 10,485,760 free bytes" in done.stdout
    for name, value in real.env.items():
        monkeypatch.setenv(name, value)
    assert open_store(uri, "/").size("a") is None


def test_a_machine_that_has_no_credentials_either_is_said_to_have_none():
    text = (
        "Error performing PUT http://169.254.169.254/latest/api/token: status code: 403 Forbidden"
    )
    said = str(failure(Place("s3", "s3://b/p", "b"), Doing.READ, 403, None, text))
    assert "no credentials were found: set AWS_ACCESS_KEY_ID" in said


@pytest.mark.parametrize("doing", Doing)
@pytest.mark.parametrize(
    ("kind", "right"),
    [("s3", "s3:"), ("gs", "storage.objects."), ("abfs", "Storage Blob Data ")],
)
def test_every_right_has_a_name_in_every_cloud(doing, kind, right):
    place = Place(kind, f"{kind}://b/p", "b")
    said = str(failure(place, doing, 403, None))
    assert f"may not {doing.value[0]} there: grant {right}" in said
