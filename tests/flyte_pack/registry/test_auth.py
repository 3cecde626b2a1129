"""Only the registry learns our credentials and tokens; with real registries and helpers."""

from __future__ import annotations

import json
import os
import re
import urllib.request

import pytest

from flyte_pack.registry import RegistryError
from flyte_pack.registry.auth import Challenge
from flyte_pack.registry.credentials import Keychain
from flyte_pack.registry.push import push_image
from tests.support.faulty_registry import (
    Fault,
    faulty_registry,
    passed_on,
    reset,
    rewritten,
    status,
)
from tests.support.registries import (
    AUTH,
    PASSWORD,
    USER,
    Clock,
    docker_config,
    exists,
    make_image,
    real_registry,
    session,
)

ALWAYS = 1000


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("token"), "token") as registry:
        yield registry


def push(image, host, keychain, said=None, clock=None, repository="team/app"):
    plan = image.plan(f"{host}/{repository}:v1")
    return push_image(
        plan,
        str(image.layout.parent),
        (said if said is not None else []).append,
        session=session(keychain, clock),
        chunk=1 << 16,
    )


# --- where credentials come from -----------------------------------------------------------------


def helper(directory, name, script, monkeypatch):
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


ANSWER = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})


@pytest.mark.parametrize(
    ("config", "host"),
    [
        ({"auths": {"r.example": {"auth": AUTH}}}, "r.example"),
        ({"auths": {"r.example:5000": {"auth": AUTH}}}, "r.example:5000"),
        ({"auths": {"https://r.example": {"auth": AUTH}}}, "r.example"),
        ({"auths": {"https://r.example/v1/": {"auth": AUTH}}}, "r.example"),
        ({"auths": {"r.example": {"username": USER, "password": PASSWORD}}}, "r.example"),
        ({"auths": {"https://index.docker.io/v1/": {"auth": AUTH}}}, "docker.io"),
        ({"credHelpers": {"r.example": "good"}}, "r.example"),
        ({"credsStore": "good"}, "r.example"),
        ({"credsStore": "good"}, "docker.io"),
        ({"credHelpers": {"r.example": "good"}, "credsStore": "failing"}, "r.example"),
    ],
)
def test_credentials_are_found_where_docker_keeps_them(tmp_path, monkeypatch, config, host):
    helper(tmp_path, "good", f"read server; [ -n \"$server\" ] && echo '{ANSWER}'", monkeypatch)
    helper(tmp_path, "empty", "echo credentials not found in native keychain; exit 1", monkeypatch)
    helper(tmp_path, "failing", "exit 3", monkeypatch)
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = Keychain({"DOCKER_CONFIG": str(tmp_path)}).find(host)
    assert found is not None
    assert (found.user, found.password) == (USER, PASSWORD)
    assert PASSWORD not in repr(found)


def test_a_helper_is_asked_for_docker_hub_by_its_old_name(tmp_path, monkeypatch):
    helper(tmp_path, "told", f"cat >{tmp_path}/asked; echo '{ANSWER}'", monkeypatch)
    (tmp_path / "config.json").write_text('{"credsStore": "told"}')
    assert Keychain({"DOCKER_CONFIG": str(tmp_path)}).find("docker.io")
    assert (tmp_path / "asked").read_text() == "https://index.docker.io/v1/"


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"auths": {}},
        {"auths": {"r.example:5000": {"auth": AUTH}}},
        {"auths": {"r.example.org": {"auth": AUTH}}},
        {"auths": {"r.example": {}}},
        {"credHelpers": {"other.example": "missing"}},
    ],
)
def test_credentials_of_others_are_not_ours(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert Keychain({"DOCKER_CONFIG": str(tmp_path)}).find("r.example") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not a JSON document"),
        ("[]", "not a JSON object"),
        ('{"auths": [1]}', "'auths' is not a JSON object"),
        ('{"auths": {"r.example": 1}}', "log in again"),
        ('{"auths": {"r.example": {"auth": 1}}}', "log in again"),
        ('{"auths": {"r.example": {"auth": "%"}}}', "log in again"),
        ('{"auths": {"r.example": {"auth": "cGxhbnRlZA=="}}}', "log in again"),
        ('{"credsStore": "missing"}', "docker-credential-missing.*is not on PATH: install"),
        ('{"credsStore": "../bin/evil"}', "not the name of a credential helper"),
        ('{"credsStore": 1}', "not the name of a credential helper"),
        ('{"credsStore": "failing"}', "exit code 3: the vault is locked"),
        ('{"credsStore": "leaking"}', "exit code 3$"),
        ('{"credsStore": "hanging"}', "no answer within 0.5 s"),
        ('{"credsStore": "babbling"}', "without Username and Secret"),
        ('{"credsStore": "odd"}', "^the secret from docker-credential-odd holds U.D800"),
        (
            '{"auths": {"r.example": {"username": "a\\nb", "password": "planted"}}}',
            "^the user name from .*config.json holds a control character, U.000A",
        ),
    ],
)
def test_what_is_wrong_with_dockers_configuration_is_said(tmp_path, monkeypatch, config, message):
    helper(tmp_path, "failing", "echo the vault is locked; exit 3", monkeypatch)
    helper(tmp_path, "leaking", f"echo '{ANSWER}'; exit 3", monkeypatch)
    helper(tmp_path, "hanging", "exec sleep 60", monkeypatch)
    helper(tmp_path, "babbling", f"echo '{PASSWORD}'", monkeypatch)
    odd = '{"Username": "a", "Secret": "planted\\\\ud800"}'
    helper(tmp_path, "odd", f"echo '{odd}'", monkeypatch)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(RegistryError, match=message) as caught:
        Keychain({"DOCKER_CONFIG": str(tmp_path)}, helper_seconds=0.5).find("r.example")
    assert PASSWORD not in str(caught.value)
    assert "planted" not in str(caught.value)


def test_a_helper_serves_a_real_push(tmp_path, monkeypatch, basic):
    helper(tmp_path, "good", f"echo '{ANSWER}'", monkeypatch)
    (tmp_path / "config.json").write_text('{"credsStore": "good"}')
    image = make_image(tmp_path / "image", 100)
    push(image, basic.host, Keychain({"DOCKER_CONFIG": str(tmp_path)}), repository="by/helper")
    assert basic.tag("by/helper", "v1") == image.digest


def test_a_broken_configuration_does_not_stand_in_the_way_of_an_open_registry(tmp_path):
    (tmp_path / "config.json").write_text("{")
    image = make_image(tmp_path / "image", 100)
    with real_registry(tmp_path / "registry") as registry:
        push(image, registry.host, Keychain({"DOCKER_CONFIG": str(tmp_path)}))
        assert registry.tag("team/app", "v1") == image.digest


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_wrong_credentials_say_whose_and_where_they_are_from(tmp_path, request, auth):
    registry = request.getfixturevalue(auth)
    keychain = docker_config(tmp_path / "docker", registry.host, password="planted-wrong")
    image = make_image(tmp_path / "image", 100)
    with pytest.raises(RegistryError, match=r"someone.*config\.json.*docker login") as caught:
        push(image, registry.host, keychain, repository="wrong/app")
    assert "planted-wrong" not in str(caught.value)
    assert registry.tags("wrong/app") == set()


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_no_credentials_say_so(tmp_path, request, auth):
    registry = request.getfixturevalue(auth)
    image = make_image(tmp_path / "image", 100)
    with pytest.raises(RegistryError, match=r"no credentials.*docker login"):
        push(image, registry.host, None, repository="nobody/app")


def test_netrc_is_never_read(tmp_path, monkeypatch, basic):
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    image = make_image(tmp_path / "image", 100)
    with pytest.raises(RegistryError, match=r"no credentials"):
        push(image, basic.host, None)


# --- tokens --------------------------------------------------------------------------------------


def realm_of(registry):
    return json.loads((registry.directory / "registry.json").read_text())["auth"]["token"]["realm"]


def token_server(registry):
    """Stands in front of the real one."""

    def act(exchange):
        url = f"{realm_of(registry)}?{exchange.path.partition('?')[2]}"
        kept = {k: v for k, v in exchange.headers.items() if k in ("Authorization",)}
        request = urllib.request.Request(url, exchange.body or None, kept)
        with urllib.request.urlopen(request) as answer:
            exchange.reply(200, {"Content-Type": "application/json"}, answer.read())

    return act


def challenge_to(realm):
    return rewritten("Www-Authenticate", lambda v: re.sub('realm="[^"]*"', f'realm="{realm}"', v))


@pytest.mark.parametrize(
    ("faults", "slept"),
    [
        ([Fault("^GET /token", status(503, retry_after="9"))], [9]),
        ([Fault("^GET /token", status(429), 2)], [0.5, 1]),
        ([Fault("^GET /token", reset)], [0.5]),
    ],
)
def test_a_token_server_that_comes_back(tmp_path, token, faults, slept):
    image, clock = make_image(tmp_path / "image", 100), Clock()
    with faulty_registry(token.host) as front:
        challenge = Fault("^HEAD", challenge_to(f"http://{front.host}/token"))
        front.faults = [*faults, Fault("^GET /token", token_server(token), ALWAYS), challenge]
        push(image, front.host, docker_config(tmp_path, front.host), clock=clock)
    assert clock.slept == slept
    assert token.tag("team/app", "v1") == image.digest


@pytest.mark.parametrize(
    ("realm", "answer", "message"),
    [
        ("http://127.0.0.1:9/token", None, "token server 127.0.0.1:9 .* connection refused"),
        ("{front}/token", status(503), "answers 503"),
        ("{front}/token", status(404, b"<html>"), "answers 404"),
        ("{front}/token", status(302, location="http://x.example/"), "answers 302"),
        ("{front}/token", status(200, b"<html>"), "without a token"),
        ("{front}/token", status(200, b"[]"), "without a token"),
        ("{front}/token", status(200, b"{}"), "without a token"),
        ("{front}/token", status(200, b'{"token": "a\\nb"}'), "without a token"),
        ("{front}/token", status(200, b'{"token": "nonsense"}'), "401 .*docker login"),
        ("{front}/token", status(403), "refuses .403.*docker login"),
        ("http://tokens.example/token", None, "without TLS: http://tokens.example/token"),
        ("ftp://tokens.example/token", None, "invalid URL"),
        ("http://tokens.example/\x7f", None, "invalid URL"),
        ("", None, "not from which server"),
    ],
)
def test_a_token_server_that_is_of_no_use(tmp_path, token, realm, answer, message):
    image = make_image(tmp_path / "image", 100)
    with faulty_registry(token.host) as front:
        url = realm.format(front=f"http://{front.host}")
        front.faults = [Fault("^HEAD", challenge_to(url), ALWAYS)]
        if answer:
            front.faults.append(Fault("^GET /token", answer, ALWAYS))
        keychain = docker_config(tmp_path, front.host)
        with pytest.raises(RegistryError, match=message) as caught:
            push(image, front.host, keychain, repository="none/app")
        assert PASSWORD not in str(caught.value)
        assert token.tags("none/app") == set()
        front.faults = []
        push(image, front.host, keychain, repository="fine/app")
    assert token.tag("fine/app", "v1") == image.digest


def test_a_token_that_expires_in_mid_upload_is_renewed(tmp_path, token):
    image = make_image(tmp_path / "image", 300_000)
    with faulty_registry(token.host) as front:
        front.faults = [Fault("^PATCH", passed_on(authorization="Bearer expired"), 1, after=2)]
        keychain = docker_config(tmp_path, front.host)
        push(image, front.host, keychain, repository="expired/app")
        assert front.count("^POST") == 2  # the layer's upload was not begun anew
        assert len(front.secrets) == 2
    assert token.holds("expired/app", image.digest)


def test_a_token_is_renewed_before_its_time_is_over(tmp_path, token):
    _image, clock = make_image(tmp_path / "image", 100), Clock()
    with faulty_registry(token.host) as front:
        ours = session(docker_config(tmp_path, front.host), clock)
        for reference in ("a/one:v1", "a/one:v1"):
            exists(f"{front.host}/{reference}", session=ours)
        assert len(front.secrets) == 1
        clock.slept.append(275.0)  # of 300
        exists(f"{front.host}/a/one:v1", session=ours)
        assert len(front.secrets) == 2
        assert front.count("HEAD") == 4  # and nobody was refused in between


def test_an_identity_token_is_exchanged(tmp_path, token):
    image = make_image(tmp_path / "image", 100)
    config = {"auths": {token.host: {"identitytoken": PASSWORD}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    keychain = Keychain({"DOCKER_CONFIG": str(tmp_path)})
    push(image, token.host, keychain, repository="identity/app")
    assert token.tag("identity/app", "v1") == image.digest


def test_a_token_without_the_right_to_push_says_so(tmp_path, token):
    image = make_image(tmp_path / "image", 100)
    with pytest.raises(RegistryError, match=r"401 for POST .*no credentials"):
        push(image, token.host, None, repository="public/app")
    assert token.tags("public/app") == set()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', ("basic", "x", "", set())),
        ('bearer realm="https://a/t",service="s"', ("bearer", "https://a/t", "s", set())),
        (
            'Bearer realm="https://a/t",service=s,'
            'scope="repository:a/b:pull,push repository:c:pull"',
            ("bearer", "https://a/t", "s", {"repository:a/b:pull,push", "repository:c:pull"}),
        ),
        (
            'Basic realm="x, Bearer realm=y", Bearer realm="https://a/t"',
            ("bearer", "https://a/t", "", set()),
        ),
        (r'Bearer realm="https://a/\"t"', ("bearer", 'https://a/"t', "", set())),
        ("Negotiate", None),
        ("", None),
    ],
)
def test_challenges(header, expected):
    found = Challenge.parse(header, "https://a/v2/")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.scheme, found.realm, found.service, set(found.scopes)) == expected
