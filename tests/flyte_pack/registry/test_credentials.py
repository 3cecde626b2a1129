"""Credentials are those that docker would take: the corners of docker/cli's loader, as a table."""

from __future__ import annotations

import base64
import json
import os

import pytest

from flyte_pack.registry import RegistryError
from flyte_pack.registry.credentials import HUB_KEY, Credentials, Keychain
from tests.support.faulty_registry import Fault, faulty_registry, status
from tests.support.registries import exists, session


def auth(pair):
    return base64.b64encode(pair.encode()).decode()


A, B = auth("ann:one"), auth("bob:two")
IN_FILE = {"auths": {"r.io": {"auth": B}}}
ANN, BOB = ("ann", "one", None, None), ("bob", "two", None, None)
NOT_FOUND = "printf 'credentials not found in native keychain\n'; exit 1"


def answers(user, secret):
    return f"echo '{json.dumps({'Username': user, 'Secret': secret})}'"


HELPERS = {
    "ann": answers("ann", "one"),
    "empty": answers("", ""),
    "absent": NOT_FOUND,
    "absent-aloud": f"{NOT_FOUND} >&2",
    "token": answers("<token>", "t0"),
    "no-token": answers("<token>", ""),
    "lower": """echo '{"username": "ann", "secret": "one"} trailing'""",
    "fieldless": "echo '{}'",
}

# config, DOCKER_AUTH_CONFIG, registry, what is found: user, password, identity and registry token
TABLE = {
    "no file": (None, None, "r.io", None),
    "an empty file": ("", None, "r.io", None),
    "null": ("null", None, "r.io", None),
    "only the first value counts": (
        '{"auths": {"r.io": {"auth": "' + A + '"}}} {',
        None,
        "r.io",
        ANN,
    ),
    "fields in another case": ('{"Auths": {"r.io": {"AUTH": "' + A + '"}}}', None, "r.io", ANN),
    "a name and a password": (
        {"auths": {"r.io": {"username": "ann", "password": "one"}}},
        None,
        "r.io",
        ANN,
    ),
    "auth goes before them": (
        {"auths": {"r.io": {"auth": A, "username": "x", "password": "y"}}},
        None,
        "r.io",
        ANN,
    ),
    "NULs around a password": (
        {"auths": {"r.io": {"auth": auth("ann:\0one\0")}}},
        None,
        "r.io",
        ANN,
    ),
    "colons in a password": (
        {"auths": {"r.io": {"auth": auth("a:b:c")}}},
        None,
        "r.io",
        ("a", "b:c", None, None),
    ),
    "lines in base64": ({"auths": {"r.io": {"auth": A[:4] + "\n" + A[4:]}}}, None, "r.io", ANN),
    "an identity token": (
        {"auths": {"r.io": {"identitytoken": "t0"}}},
        None,
        "r.io",
        ("", "", "t0", None),
    ),
    "an identity token beside a user": (
        {"auths": {"r.io": {"auth": auth("00000000:"), "identitytoken": "t0"}}},
        None,
        "r.io",
        ("00000000", "", "t0", None),
    ),
    "a registry token": (
        {"auths": {"r.io": {"registrytoken": "t1", "auth": A}}},
        None,
        "r.io",
        ("", "", None, "t1"),
    ),
    "a registry token beside a helper": (
        {"auths": {"r.io": {"registrytoken": "t1"}}, "credsStore": "absent"},
        None,
        "r.io",
        ("", "", None, "t1"),
    ),
    "a URL": ({"auths": {"https://r.io/v1/": {"auth": A}}}, None, "r.io", ANN),
    "a URL without TLS": ({"auths": {"http://r.io": {"auth": A}}}, None, "r.io", ANN),
    "a URL with a user": ({"auths": {"https://x@r.io/": {"auth": A}}}, None, "r.io", ANN),
    "a path": ({"auths": {"r.io/team": {"auth": A}}}, None, "r.io", ANN),
    "a host before a URL of it": (
        {"auths": {"https://r.io": {"auth": B}, "r.io": {"auth": A}}},
        None,
        "r.io",
        ANN,
    ),
    "another port": ({"auths": {"r.io:5000": {"auth": A}}}, None, "r.io", None),
    "a port": ({"auths": {"https://r.io:5000/v2": {"auth": A}}}, None, "r.io:5000", ANN),
    "Docker Hub": ({"auths": {HUB_KEY: {"auth": A}}}, None, "docker.io", ANN),
    "Docker Hub by another name": ({"auths": {HUB_KEY: {"auth": A}}}, None, "index.docker.io", ANN),
    "Docker Hub under its short name is not docker's": (
        {"auths": {"docker.io": {"auth": A}}},
        None,
        "docker.io",
        None,
    ),
    "an own helper": ({"credHelpers": {"r.io": "ann"}, "credsStore": "empty"}, None, "r.io", ANN),
    "an own helper of Docker Hub": ({"credHelpers": {HUB_KEY: "ann"}}, None, "docker.io", ANN),
    "an own helper of none": (
        {**IN_FILE, "credHelpers": {"r.io": ""}, "credsStore": "ann"},
        None,
        "r.io",
        BOB,
    ),
    "a helper for another": ({**IN_FILE, "credHelpers": {"x.io": "ann"}}, None, "r.io", BOB),
    "a helper that has nothing is nobody": (
        {**IN_FILE, "credsStore": "absent"},
        None,
        "r.io",
        None,
    ),
    "it may say so as an error": ({"credsStore": "absent-aloud"}, None, "r.io", None),
    "an empty answer is nobody": ({**IN_FILE, "credsStore": "empty"}, None, "r.io", None),
    "an answer without fields is nobody": ({"credsStore": "fieldless"}, None, "r.io", None),
    "a helper's identity token": ({"credsStore": "token"}, None, "r.io", ("", "", "t0", None)),
    "a helper's empty identity token": ({"credsStore": "no-token"}, None, "r.io", None),
    "a helper's fields in another case": ({"credsStore": "lower"}, None, "r.io", ANN),
    "the variable": (None, {"auths": {"r.io": {"auth": A}}}, "r.io", ANN),
    "the variable goes first": (
        {**IN_FILE, "credsStore": "empty"},
        {"auths": {"r.io": {"auth": A}}},
        "r.io",
        ANN,
    ),
    "the variable has another registry": (IN_FILE, {"auths": {"x.io": {"auth": A}}}, "r.io", BOB),
    "the variable knows no URLs": (IN_FILE, {"auths": {"https://r.io": {"auth": A}}}, "r.io", BOB),
    "the variable with more": (
        IN_FILE,
        {"auths": {"r.io": {"auth": A}}, "credsStore": "ann"},
        "r.io",
        BOB,
    ),
    "the variable with more in an entry": (
        IN_FILE,
        {"auths": {"r.io": {"auth": A, "email": "x"}}},
        "r.io",
        BOB,
    ),
    "the variable without a user": (
        IN_FILE,
        {"auths": {"r.io": {"auth": auth(":x")}}},
        "r.io",
        BOB,
    ),
    "the variable is nothing": (IN_FILE, "{", "r.io", BOB),
}


@pytest.fixture(scope="module")
def helpers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("helpers")
    for name, script in HELPERS.items():
        path = directory / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
        path.chmod(0o755)
    return directory


def text(document):
    return document if isinstance(document, str) else json.dumps(document)


@pytest.mark.parametrize(("config", "variable", "registry", "found"), TABLE.values(), ids=TABLE)
def test_credentials_are_dockers(tmp_path, monkeypatch, helpers, config, variable, registry, found):
    monkeypatch.setenv("PATH", f"{helpers}{os.pathsep}{os.environ['PATH']}")
    if config is not None:
        (tmp_path / "config.json").write_text(text(config))
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    if variable is not None:
        environ["DOCKER_AUTH_CONFIG"] = text(variable)
    one = Keychain(environ).find(registry)
    assert found == (one and (one.user, one.password, one.identity_token, one.registry_token))


@pytest.mark.parametrize("pair", [":one", "ann", "", "ann\xff"])
def test_an_entry_that_docker_cannot_read_is_an_error_without_its_content(tmp_path, pair):
    entry = {"auth": base64.b64encode(pair.encode("latin-1")).decode() or "?"}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.io": entry}}))
    with pytest.raises(RegistryError, match=r"the entry of r\.io is invalid") as caught:
        Keychain({"DOCKER_CONFIG": str(tmp_path)}).find("r.io")
    assert entry["auth"] not in str(caught.value)


def test_a_variable_that_is_ignored_is_named_where_nobody_is_found(tmp_path):
    refuses = status(401, www_authenticate='Basic realm="x"')
    with faulty_registry("127.0.0.1:9") as front:
        front.faults = [Fault("", refuses, 10)]
        keychain = Keychain({"DOCKER_CONFIG": str(tmp_path), "DOCKER_AUTH_CONFIG": "{"})
        with pytest.raises(RegistryError, match="DOCKER_AUTH_CONFIG is ignored, as docker does"):
            exists(f"{front.host}/a/b:v1", session=session(keychain))


def test_a_registry_token_is_sent_as_it_is(tmp_path):
    asks = status(401, www_authenticate='Bearer realm="http://127.0.0.1:9/never-asked"')
    with faulty_registry("127.0.0.1:9") as front:
        config = {"auths": {front.host: {"registrytoken": "t1"}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        front.faults = [Fault("", asks, 1), Fault("", status(404), 10)]
        exists(f"{front.host}/a/b:v1", session=session(Keychain({"DOCKER_CONFIG": str(tmp_path)})))
        assert front.secrets == {"Bearer t1"}


def test_no_credentials_are_shown():
    assert "one" not in repr(Credentials("ann", "one", "x", "one", "one"))
