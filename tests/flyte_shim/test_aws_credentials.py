"""Where a container's credentials for S3 come from, asked of servers that speak as AWS' do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qs

import pytest

from flyte_shim.aws_credentials import Credentials, find_credentials
from flyte_shim.errors import ShimError, SourceDenied, SourceUnavailable, UsageError
from flyte_shim.source import Patience
from flyte_shim.stores import S3Settings
from flyte_shim.web import Web
from tests.support.shim_servers import Asked, reply, scripted

SECRET = "planted-secret-3e8b"
TOKEN = "planted-token-90aa"
STS = f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>KEY</AccessKeyId>
<SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>SESSION</SessionToken>
<Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>""".encode()
FIELDS = {"AccessKeyId": "KEY", "SecretAccessKey": SECRET, "Token": "SESSION"}
NO_MACHINE = {"AWS_EC2_METADATA_DISABLED": "true"}


def find(environ: Mapping[str, str]) -> Credentials | None:
    patience = Patience(timeout=5)
    return find_credentials(S3Settings(environ), Web(patience, environ))


def values(found: Credentials | None) -> tuple:
    assert found
    return found.access_key_id, found.secret_access_key, found.session_token


FOUND = ("KEY", SECRET, "SESSION")


@pytest.fixture
def token_file(tmp_path) -> str:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return str(tmp_path / "token")


@pytest.fixture
def identity(token_file) -> dict[str, str]:
    role = "arn:aws:iam::123456789012:role/reader"
    return {"AWS_WEB_IDENTITY_TOKEN_FILE": token_file, "AWS_ROLE_ARN": role}


def test_a_web_identity_is_exchanged_at_sts(identity):
    with scripted(lambda asked: reply(200, STS)) as sts:
        assert values(find({**identity, "AWS_ENDPOINT_URL_STS": sts.url})) == FOUND
    (asked,) = sts.asked
    assert (asked.method, asked.target) == ("POST", "/")
    assert {name: value for name, (value,) in parse_qs(asked.body.decode()).items()} == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": identity["AWS_ROLE_ARN"],
        "RoleSessionName": "flyte-shim",
        "WebIdentityToken": TOKEN,
    }


@pytest.mark.parametrize("kind", ["file", "variable", "neither"])
def test_the_containers_endpoint_is_asked_with_its_token(kind, token_file):
    token = {
        "file": {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token_file},
        "variable": {"AWS_CONTAINER_AUTHORIZATION_TOKEN": TOKEN},
        "neither": {},
    }[kind]
    with scripted(lambda asked: reply(200, json.dumps(FIELDS).encode())) as container:
        url = f"{container.url}/v1/credentials"
        assert values(find({**token, "AWS_CONTAINER_CREDENTIALS_FULL_URI": url})) == FOUND
    (asked,) = container.asked
    assert asked.target == "/v1/credentials"
    assert asked.headers.get("authorization") == (None if kind == "neither" else TOKEN)


def machine(asked: Asked) -> bytes:
    """IMDSv2: nothing without the session's token."""
    if asked.method == "PUT":
        assert asked.headers["x-aws-ec2-metadata-token-ttl-seconds"]
        return reply(200, b"imds-token")
    if asked.headers.get("x-aws-ec2-metadata-token") != "imds-token":
        return reply(401)
    if asked.target == "/latest/meta-data/iam/security-credentials/":
        return reply(200, b"the-role")
    assert asked.target == "/latest/meta-data/iam/security-credentials/the-role"
    return reply(200, json.dumps({"Code": "Success", **FIELDS}).encode())


def test_the_machines_role_is_the_last_that_is_asked():
    with scripted(machine) as server:
        assert values(find({"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url})) == FOUND
    assert [asked.method for asked in server.asked] == ["PUT", "GET", "GET"]


@pytest.mark.parametrize(
    "answer",
    [
        reply(404),
        reply(200, b""),
        reply(200, b"line\r\nEvil: 1"),
        reply(200, b"{}"),
        reply(500),
        b"",
        b"no HTTP",
    ],
)
def test_a_machine_without_a_role_has_no_credentials(answer):
    with scripted(lambda asked: answer) as server:
        assert find({"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url}) is None


def test_where_nothing_is_there_nothing_is_found():
    assert find(NO_MACHINE) is None
    assert find({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://localhost:1"}) is None


def test_the_order_is_that_of_the_sdks(identity):
    container = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://localhost:1/"}
    static = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B"}
    assert values(find({**static, **identity, **container})) == ("A", "B", None)
    with scripted(lambda asked: reply(200, STS)) as sts:
        environ = {**identity, **container, "AWS_ENDPOINT_URL_STS": sts.url}
        assert values(find(environ)) == FOUND


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            reply(403, b"<Error><Code>AccessDenied</Code></Error>"),
            SourceDenied,
            r"STS at localhost:\d+ gives no credentials .*\(403 AccessDenied\): does the role",
        ),
        (reply(200, b"<html>"), SourceDenied, r"\(200\)"),
        (reply(503), SourceUnavailable, r"has failed \(503\)"),
        (b"", SourceUnavailable, "does not answer"),
    ],
)
def test_an_sts_that_gives_none_is_said(identity, answer, error, message):
    with scripted(lambda asked: answer) as sts, pytest.raises(error, match=message) as caught:
        find({**identity, "AWS_ENDPOINT_URL_STS": sts.url})
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(403), SourceDenied),
        (reply(200, b"not json"), SourceDenied),
        (reply(200, b"[]"), SourceDenied),
        (reply(200, b'{"AccessKeyId": 1, "SecretAccessKey": []}'), SourceDenied),
        (reply(200, b"[" * 100_000), SourceDenied),
        (reply(500), SourceUnavailable),
    ],
)
def test_a_container_that_gives_none_is_said(answer, error):
    with (
        scripted(lambda asked: answer) as container,
        pytest.raises(error, match="container's cred"),
    ):
        find({"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{container.url}/"})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/"}, "without TLS"),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere", "AWS_ROLE_ARN": "r"},
            "AWS_WEB_IDENTITY_TOKEN_FILE names /nowhere: No such file",
        ),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/dev/null", "AWS_ROLE_ARN": "r"},
            "/dev/null, which holds no valid token",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": f"{SECRET}\n"},
            "AWS_SECRET_ACCESS_KEY has a blank, a line break .* at its end",
        ),
    ],
)
def test_settings_that_can_not_be_right_are_said(environ, message):
    with pytest.raises(UsageError, match=message) as caught:
        find({**NO_MACHINE, **environ})
    assert isinstance(caught.value, ShimError)
    assert SECRET not in str(caught.value)
