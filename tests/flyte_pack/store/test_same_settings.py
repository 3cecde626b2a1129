"""The deploy program and the shim reach one server, as one identity, by the same environment."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress

import pytest

from flyte_pack.http.retry import Timing
from flyte_pack.store import StoreError, blob_of
from flyte_pack.store.opening import open_store, remote_store
from flyte_shim.errors import ShimError
from flyte_shim.fetch import open_source
from flyte_shim.source import Patience
from tests.support.object_stores import clean_environment
from tests.support.shim_servers import reply, scripted

KEY = b"planted-account-key-6be1".hex()
ROLE = {
    "AccessKeyId": "ROLE",
    "SecretAccessKey": "planted-role-secret",
    "Token": "role-session",
    "Expiration": "2099-01-01T00:00:00Z",
}
AWS = {"AWS_ACCESS_KEY_ID": "AWS", "AWS_SECRET_ACCESS_KEY": "planted-aws"}
FLYTE = {"FLYTE_AWS_ACCESS_KEY_ID": "FLYTE", "FLYTE_AWS_SECRET_ACCESS_KEY": "planted-flyte"}
HERE, ELSEWHERE = "{here}", "http://127.0.0.1:9"


def who(headers: dict[str, str]) -> str:
    """The identity that a request shows, and the region that it is signed for."""
    authorization = headers.get("authorization", "")
    credential = re.search(r"Credential=([^/]+)/\d+/([^/]+)", authorization)
    signed = "/".join(credential.groups()) if credential else authorization.partition(":")[0]
    session = headers.get("x-amz-security-token", "")
    payer = headers.get("x-amz-request-payer", "")
    return " ".join(filter(None, (signed, session, payer)))


# The environment; how a request shows who we are; what it asks for.
S3, AZURE, GCS = "s3://bkt/p/a", "abfss://cont@acct.dfs.core.windows.net/p/a", "gs://bkt/p/a"
CASES = {
    "Flyte's endpoint first": (
        S3,
        {**FLYTE, "FLYTE_AWS_ENDPOINT": HERE, "AWS_ENDPOINT_URL_S3": ELSEWHERE},
        ("FLYTE/us-east-1", "/bkt/p/a"),
    ),
    "that of S3 before others": (
        S3,
        {**AWS, "AWS_ENDPOINT_URL_S3": HERE, "AWS_ENDPOINT_URL": ELSEWHERE, "AWS_ENDPOINT": ELSEWHERE},
        ("AWS/us-east-1", "/bkt/p/a"),
    ),
    "blank ones": (
        S3,
        {**AWS, "FLYTE_AWS_ENDPOINT": " ", "AWS_ENDPOINT_URL_S3": "", "AWS_ENDPOINT_URL": HERE},
        ("AWS/us-east-1", "/bkt/p/a"),
    ),
    "only Flyte's, if others are to be ignored": (
        S3,
        {
            **AWS,
            "FLYTE_AWS_ENDPOINT": HERE,
            "AWS_ENDPOINT_URL": "nonsense",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        },
        ("AWS/us-east-1", "/bkt/p/a"),
    ),
    "Flyte's key without another's session": (
        S3,
        {**AWS, **FLYTE, "AWS_SESSION_TOKEN": "aws-session", "AWS_ENDPOINT_URL": HERE},
        ("FLYTE/us-east-1", "/bkt/p/a"),
    ),
    "a session": (
        S3,
        {**AWS, "AWS_SESSION_TOKEN": "", "AWS_TOKEN": "session", "AWS_ENDPOINT_URL": HERE},
        ("AWS/us-east-1 session", "/bkt/p/a"),
    ),
    "a region": (
        S3,
        {**AWS, "AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-7", "AWS_ENDPOINT_URL": HERE},
        ("AWS/eu-west-7", "/bkt/p/a"),
    ),
    "who pays": (
        S3,
        {**AWS, "AWS_REQUEST_PAYER": "requester", "AWS_ENDPOINT_URL": HERE},
        ("AWS/us-east-1 requester", "/bkt/p/a"),
    ),
    "nobody": (
        S3,
        {**AWS, "AWS_SKIP_SIGNATURE": "yes", "AWS_ENDPOINT_URL": HERE},
        ("", "/bkt/p/a"),
    ),
    "the path, where a host has no names below it": (
        S3,
        {**AWS, "FLYTE_AWS_S3_ADDRESSING_STYLE": "virtual", "AWS_ENDPOINT_URL": HERE},
        ("AWS/us-east-1", "/bkt/p/a"),
    ),
    "what obstore would read itself": (
        S3,
        {
            **AWS,
            "AWS_ENDPOINT_URL": HERE,
            "AWS_BUCKET": "other",
            "AWS_S3_EXPRESS": "true",
            "AWS_CHECKSUM_ALGORITHM": "nonsense",
            "AWS_PROXY_URL": ELSEWHERE,
            "AWS_TIMEOUT": "nonsense",
            "AWS_CONDITIONAL_PUT": "nonsense",
        },
        ("AWS/us-east-1", "/bkt/p/a"),
    ),
    "a role, if the keys are blank": (
        S3,
        {
            **dict.fromkeys((*AWS, *FLYTE, "AWS_SESSION_TOKEN", "AWS_PROFILE"), ""),
            "AWS_WEB_IDENTITY_TOKEN_FILE": "",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{here}/creds",
            "AWS_ENDPOINT_URL": HERE,
        },
        ("ROLE/us-east-1 role-session", "/bkt/p/a"),
    ),
    "the role, if only half a key is there": (
        S3,
        {
            "AWS_ACCESS_KEY_ID": "AWS",
            "FLYTE_AWS_SECRET_ACCESS_KEY": "planted-flyte",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{here}/creds",
            "AWS_ENDPOINT_URL": HERE,
        },
        ("ROLE/us-east-1 role-session", "/bkt/p/a"),
    ),
    "an account's key": (
        AZURE,
        {"AZURE_STORAGE_ACCOUNT_KEY": KEY, "AZURE_STORAGE_ENDPOINT": "{here}/acct"},
        ("SharedKey acct", "/acct/cont/p/a"),
    ),
    "a signature, if the key is blank": (
        AZURE,
        {
            "AZURE_STORAGE_ACCOUNT_KEY": "",
            "AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=abc",
            "AZURE_ENDPOINT": "{here}/acct",
        },
        ("", "/acct/cont/p/a?sv=1&sig=abc"),
    ),
    "a token": (
        AZURE,
        {
            "AZURE_STORAGE_TOKEN": "azure-token",
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ACCOUNT_NAME": "acct",
            "AZURE_STORAGE_ENDPOINT": "{here}/acct",
        },
        ("Bearer azure-token", "/acct/cont/p/a"),
    ),
    "nobody at Azure": (
        AZURE,
        {
            "AZURE_SKIP_SIGNATURE": "true",
            "AZURE_STORAGE_ENDPOINT": "{here}/acct",
            "AZURE_ENDPOINT": ELSEWHERE,
            "AZURE_STORAGE_USE_EMULATOR": "",
            "AZURE_USE_FABRIC_ENDPOINT": "nonsense",
        },
        ("", "/acct/cont/p/a"),
    ),
    "an emulator of Google": (
        GCS,
        {
            "STORAGE_EMULATOR_HOST": HERE,
            "GOOGLE_BASE_URL": "",
            "GOOGLE_APPLICATION_CREDENTIALS": "",
            "GOOGLE_BUCKET": "other",
        },
        ("Bearer", None),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    clean_environment(monkeypatch)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def answer(asked):
    if asked.target.startswith("/creds"):
        return reply(200, json.dumps(ROLE).encode())
    return reply(404, b"<Error><Code>NoSuchKey</Code></Error>")


def set_all(monkeypatch, environ, here):
    for name, value in environ.items():
        monkeypatch.setenv(name, value.format(here=here))


def shim(uri):
    with pytest.raises(ShimError):
        list(open_source(uri, Patience(attempts=1), os.environ).read(0))


def builder(uri):
    above, _, name = uri.rpartition("/")
    once = Timing(sleep=lambda seconds: None)
    with suppress(StoreError):  # Google's answers are of another form
        assert remote_store(above, os.environ, once).read(name, 9) is None


@pytest.mark.parametrize("case", CASES)
def test_both_programs_ask_the_same_server_as_the_same_identity(case, monkeypatch):
    uri, environ, (identity, target) = CASES[case]
    pytest.importorskip("obstore")
    shown = []
    for program in (shim, builder):
        with scripted(answer) as server:
            here = server.url.replace("localhost", "127.0.0.1")
            set_all(monkeypatch, environ, here)
            before = dict(os.environ)
            program(uri)
            assert dict(os.environ) == before
        asked = [one for one in server.asked if not one.target.startswith("/creds")]
        assert asked, f"{program.__name__} asked nobody"
        shown.append((who(asked[0].headers), asked[0].target))
    expected = identity.replace("Bearer", "").strip() if uri is GCS else identity
    for said, path in shown:
        assert said.replace("Bearer", "").strip() == expected.replace("Bearer", "").strip()
        assert target is None or path == target


WRONG = {
    "AWS_ACCESS_KEY_ID": "AWS\n",
    "AWS_SECRET_ACCESS_KEY": "planted\n",
    "AWS_SESSION_TOKEN": "planted\n",
    "AWS_REGION": "eu-west-1\n",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9 /",
    "AWS_ENDPOINT": "127.0.0.1:9",
    "FLYTE_AWS_ENDPOINT": "http://user:planted@127.0.0.1:9",
    "FLYTE_AWS_S3_ADDRESSING_STYLE": "hosted",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "maybe",
    "AWS_SKIP_SIGNATURE": "maybe",
    "AWS_REQUEST_PAYER": "maybe",
    "HTTP_PROXY": "http://proxy:port",
    "AZURE_STORAGE_ACCOUNT_KEY": "planted!",
    "AZURE_STORAGE_SAS_TOKEN": "planted",
    "AZURE_STORAGE_ENDPOINT": "acct",
    "AZURE_STORAGE_ACCOUNT_NAME": "a/b",
    "AZURE_SKIP_SIGNATURE": "maybe",
    "AZURE_STORAGE_TOKEN": "planted\n",
    "AZURE_STORAGE_USE_EMULATOR": "maybe",
    "GOOGLE_BASE_URL": "storage",
    "GOOGLE_SERVICE_ACCOUNT_KEY": "planted",
    "GOOGLE_SERVICE_ACCOUNT": "/nowhere",
    "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere",
    "GOOGLE_SKIP_SIGNATURE": "maybe",
    "STORAGE_EMULATOR_HOST": "h h",
}


@pytest.mark.parametrize("variable", WRONG)
def test_both_programs_name_the_variable_that_is_wrong(variable, monkeypatch, capfd):
    pytest.importorskip("obstore")
    uri = S3
    if variable.startswith("AZURE"):
        uri = "abfss://cont/p/a" if variable.endswith("NAME") else AZURE
    elif variable.startswith(("GOOGLE", "STORAGE")):
        uri = GCS
    elif variable not in ("AWS_ENDPOINT", "FLYTE_AWS_ENDPOINT"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.invalid")
    if uri is S3:
        set_all(monkeypatch, AWS, "")
    monkeypatch.setenv(variable, WRONG[variable])
    with pytest.raises(ShimError, match=variable) as said:
        list(open_source(uri, Patience(attempts=1), os.environ).read(0))
    above = uri.rpartition("/")[0]
    with pytest.raises(StoreError, match=variable) as told:
        open_store(above, "/").create(blob_of("a", b""), [b""])
    assert "planted" not in f"{said.value}{told.value}"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("uri", "environ"),
    [
        (S3, {**AWS, "AWS_ENDPOINT_URL": "http://store.invalid"}),
        (
            AZURE,
            {
                "AZURE_STORAGE_ACCOUNT_KEY": KEY,
                "AZURE_STORAGE_ENDPOINT": "http://store.invalid/acct",
            },
        ),
        (GCS, {"STORAGE_EMULATOR_HOST": "store.invalid"}),
    ],
)
@pytest.mark.parametrize(
    ("proxies", "goes_by"),
    [
        ({"http_proxy": "{here}", "HTTP_PROXY": ELSEWHERE}, True),
        ({"HTTP_PROXY": "{here}", "NO_PROXY": ""}, True),
        ({"HTTPS_PROXY": "{here}"}, False),
        ({"HTTP_PROXY": "{here}", "NO_PROXY": "store.invalid"}, False),
        ({"HTTP_PROXY": "{here}", "no_proxy": ".invalid"}, False),
    ],
)
def test_both_programs_use_the_proxy_or_none(uri, environ, proxies, goes_by, monkeypatch):
    pytest.importorskip("obstore")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for program in (shim, builder):
        with scripted(answer) as server, suppress(StoreError):
            set_all(monkeypatch, {**environ, **proxies}, server.url)
            program(uri)
        by_proxy = [one.target.startswith("http://store.invalid/") for one in server.asked]
        assert bool(by_proxy) is goes_by
        assert all(by_proxy)
