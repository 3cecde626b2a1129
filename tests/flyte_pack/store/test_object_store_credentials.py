"""Credentials are found as each cloud's own tools find them, and imports are only those needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

import flyte_pack
from flyte_pack.store import StoreError, blob_of
from flyte_pack.store.credentials import may_use_az
from flyte_pack.store.opening import open_store
from flyte_shim.obstore_client import Plan
from flyte_shim.stores import locate
from tests.support.object_stores import (
    REAL_STORES,
    WRITER,
    clean_environment,
    deploy_python,
    fake_gcs,
    proxied,
    seaweedfs,
    unique,
)

SOURCE_ROOT = str(Path(flyte_pack.__file__).parent.parent)

# argv: uri. What a deployment does to a store, with what came along with the imports.
ROUND = """
import sys
from flyte_pack.store import State, StoreError, blob_of
from flyte_pack.store.opening import open_store
try:
    store = open_store(sys.argv[1], "/")
    blob = blob_of("a/b", b"content")
    assert store.create(blob, [b"content"]) and not store.create(blob, [b"content"])
    assert store.state(blob) is State.WHOLE and store.state(blob, deep=True) is State.WHOLE
    assert store.names("a") == ["b"] and [o.key for o in store.objects("a")] == ["a/b"]
    store.replace(blob_of("a/b", b"other"), [b"other"])
    assert store.state(blob) is State.DAMAGED
    assert store.read("a/b", 9) == b"".join(store.stream("a/b")) == b"other"
    store.delete("a/b")
    assert store.size("a/b") is None
except StoreError as error:
    print("error:", error)
else:
    print("done")
top = {m.partition(".")[0] for m in sys.modules} & {"obstore", "boto3", "urllib3", "yaml"}
print(sorted(top | ({"google.auth"} & set(sys.modules))))
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    clean_environment(monkeypatch)


def round_trip(uri, env, tmp_path, python=sys.executable):
    """The two lines that `ROUND` prints, and all that was written to stderr."""
    path = SOURCE_ROOT
    if python == sys.executable:
        path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [str(python), "-c", ROUND, uri],
        env={
            "PATH": "/nowhere",
            "HOME": str(tmp_path),
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert WRITER[1] not in done.stdout + done.stderr
    return (*done.stdout.splitlines(), done.stderr)


def flyte_names():
    """Flyte's own variables for S3; its region is AWS's."""
    env = dict(seaweedfs().env)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        env[f"FLYTE_AWS_{name}"] = env.pop(f"AWS_{name}")
    env["FLYTE_AWS_ENDPOINT"] = env.pop("AWS_ENDPOINT_URL")
    return env


def flytes_before_others():
    return {
        **flyte_names(),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }


def for_s3_alone():
    env = dict(seaweedfs().env)
    env["AWS_ENDPOINT_URL_S3"] = env["AWS_ENDPOINT_URL"]
    return {**env, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}


def without_a_region():
    return {name: value for name, value in seaweedfs().env.items() if name != "AWS_REGION"}


@pytest.mark.parametrize(
    "env",
    [flyte_names, flytes_before_others, for_s3_alone, without_a_region],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_s3_is_reached_by_what_the_environment_says(env, tmp_path):
    uri = f"{seaweedfs().uri}/{unique()}"
    assert round_trip(uri, env(), tmp_path) == ("done", "['obstore']", "")


def test_the_account_of_azure_comes_from_the_environment_where_the_uri_names_none(tmp_path):
    real = REAL_STORES["abfs"]()
    uri = f"abfs://{real.uri.partition('://')[2].partition('@')[0]}/{unique()}"
    assert round_trip(uri, real.env, tmp_path) == ("done", "['obstore']", "")


def test_with_an_emulator_nobody_looks_for_googles_credentials(tmp_path):
    real = fake_gcs()
    host = {"STORAGE_EMULATOR_HOST": real.endpoint.partition("://")[2]}
    for env in (real.env, host):
        assert round_trip(f"{real.uri}/{unique()}", env, tmp_path) == ("done", "['urllib3']", "")


def test_a_directory_costs_no_library(tmp_path):
    assert round_trip(f"file://{tmp_path}/store", {}, tmp_path) == ("done", "[]", "")


@pytest.mark.parametrize("kind", REAL_STORES)
def test_the_program_that_is_installed_from_its_lock_reaches_every_store(kind, tmp_path):
    real = REAL_STORES[kind]()
    done, _, said = round_trip(f"{real.uri}/{unique()}", real.env, tmp_path, deploy_python())
    assert (done, said) == ("done", "")


@pytest.fixture
def profile(tmp_path):
    """AWS's two files with a writer's profile, and the environment that names them."""
    (tmp_path / "config").write_text("[profile bikes]\nregion = eu-west-7\n[profile gone]\n")
    (tmp_path / "credentials").write_text(
        f"[bikes]\naws_access_key_id = {WRITER[0]}\naws_secret_access_key = {WRITER[1]}\n"
    )
    return {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_PROFILE": "bikes",
    }


def test_a_profile_of_aws_brings_its_keys_and_its_region(profile, tmp_path):
    with proxied(seaweedfs()) as (real, proxy):
        env = {**profile, "AWS_ENDPOINT_URL": real.endpoint}
        done, loaded, said = round_trip(f"{real.uri}/{unique()}", env, tmp_path, deploy_python())
        assert (done, said) == ("done", "")
        assert "boto3" in loaded
        assert "/eu-west-7/s3/" in proxy.requests[0].headers["authorization"]


def test_keys_in_the_environment_go_before_profiles_and_cost_no_boto3(profile, tmp_path):
    real = seaweedfs()
    env = {**profile, **real.env}
    done, loaded, _ = round_trip(f"{real.uri}/{unique()}", env, tmp_path, deploy_python())
    assert (done, loaded) == ("done", "['obstore']")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"AWS_PROFILE": "unknown"}, "cannot get AWS credentials (ProfileNotFound)"),
        ({"AWS_PROFILE": "gone"}, "no credentials were found, in the profile or elsewhere"),
        (
            {"AWS_CONFIG_FILE": "{sso}", "AWS_PROFILE": "people"},
            "log in again (`aws sso login`)",
        ),
    ],
)
def test_a_profile_that_gives_nothing_is_said_to(changed, expected, profile, tmp_path):
    sso = tmp_path / "sso"
    sso.write_text(
        "[profile people]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n"
        "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x.invalid/start\n"
    )
    real = seaweedfs()
    changed = {name: value.format(sso=sso) for name, value in changed.items()}
    env = {**profile, "AWS_ENDPOINT_URL": real.endpoint, **changed}
    done, _, said = round_trip(f"{real.uri}/{unique()}", env, tmp_path, deploy_python())
    assert done.startswith("error: ")
    assert expected in done
    assert said == ""


@pytest.mark.skipif(sys.version_info >= (3, 10), reason="boto3 is there on later CPythons")
def test_where_boto3_can_not_be_had_a_profile_says_what_else_can_be_done(profile, monkeypatch):
    for name, value in profile.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=r"CPython 3\.10 and later.*aws configure export-cred"):
        open_store("s3://bucket/x", "/").names("a")


# --- Google --------------------------------------------------------------------------------------


@pytest.fixture
def tokens():
    """A server that gives tokens for what Google's library asserts, and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            asked.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            body = json.dumps(
                {
                    "access_token": "planted-google-token",
                    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                    "token_type": "Bearer",
                    "expires_in": 3600,
                }
            ).encode()
            self.send_response(200 if len(asked) == 1 else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/token", asked
    server.shutdown()
    server.server_close()


def service_account(address):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "client_email": "ci@tests.invalid",
        "private_key": key.decode(),
        "private_key_id": "1",
        "token_uri": address,
    }


def federated(address):
    """What CI systems hand out instead of a key."""
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global"
        "/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": address,
        "credential_source": {"file": __file__},
    }


@pytest.mark.parametrize(
    ("kind", "grant"),
    [
        (service_account, "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        (federated, "urn:ietf:params:oauth:grant-type:token-exchange"),
    ],
    ids=["service account", "federated"],
)
def test_googles_own_credentials_are_used_and_asked_for_once(kind, grant, tokens, tmp_path):
    address, asked = tokens
    file = tmp_path / "key.json"
    file.write_text(json.dumps(kind(address)))
    with proxied(fake_gcs()) as (real, proxy):
        env = {"GOOGLE_BASE_URL": real.endpoint, "GOOGLE_APPLICATION_CREDENTIALS": str(file)}
        done, loaded, said = round_trip(f"{real.uri}/{unique()}", env, tmp_path)
        assert (done, said) == ("done", "")
        assert "google.auth" in loaded
        assert {r.headers["authorization"] for r in proxy.requests} == {
            "Bearer planted-google-token"
        }
    assert [one["grant_type"] for one in asked] == [[grant]]


@pytest.mark.parametrize("content", ["", "{}", '{"type": "service_account"}'])
def test_a_key_file_that_is_none_is_said_to_be_none(content, tmp_path):
    file = tmp_path / "key.json"
    file.write_text(content)
    env = {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}
    done, _, said = round_trip("gs://bucket/x", env, tmp_path)
    assert "cannot get Google's credentials" in done
    assert "check GOOGLE_APPLICATION_CREDENTIALS" in done
    assert said == ""


# --- Azure ---------------------------------------------------------------------------------------


def test_who_is_logged_in_with_az_needs_no_variable(tmp_path, monkeypatch):
    def counts(**environ):
        location = locate("abfs://container@account.dfs.core.windows.net/")
        return may_use_az(Plan(location, environ), environ)

    monkeypatch.setenv("PATH", str(tmp_path))
    assert not counts()
    az = tmp_path / "az"
    az.write_text("#!/bin/sh\n")
    az.chmod(0o755)
    assert counts()
    assert counts(AZURE_STORAGE_ACCOUNT_KEY=" ", AZURE_USE_AZURE_CLI="")
    assert not counts(AZURE_STORAGE_ACCOUNT_KEY="eA==")
    assert not counts(IDENTITY_ENDPOINT="http://127.0.0.1:1/msi")
    assert not counts(AZURE_USE_AZURE_CLI="false")


# --- what it costs -------------------------------------------------------------------------------

COSTS = {
    "read": ["GET"],
    "size": ["HEAD"],
    "state": ["HEAD"],
    "stream": ["GET"],
    "names": ["GET"],
    "objects": ["GET"],
    "replace": ["PUT"],
    "create again": ["PUT", "HEAD"],
    "create new": ["PUT"],
}


@pytest.mark.parametrize("kind", REAL_STORES)
def test_each_use_of_a_store_takes_one_request_and_none_is_lost_on_the_bucket(kind, monkeypatch):
    with proxied(REAL_STORES[kind]()) as (real, proxy):
        for name, value in real.env.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"{real.uri}/{unique()}", "/")
        blob = blob_of("a", b"x")
        assert proxy.requests == []
        store.create(blob, [b"x"])
        uses = {
            "read": lambda: store.read("a", 1),
            "size": lambda: store.size("a"),
            "state": lambda: store.state(blob),
            "stream": lambda: list(store.stream("a")),
            "names": lambda: store.names("a"),
            "objects": lambda: store.objects("a"),
            "replace": lambda: store.replace(blob, [b"x"]),
            "create again": lambda: store.create(blob, [b"x"]),
            "create new": lambda: store.create(blob_of("new", b"x"), [b"x"]),
        }
        sent = {}
        for name, use in uses.items():
            proxy.clear()
            use()
            sent[name] = [request.method for request in proxy.requests]
    json_api = {"HEAD": "GET", "PUT": "POST"}
    expected = {
        name: [json_api.get(m, m) if kind == "gs" else m for m in methods]
        for name, methods in COSTS.items()
    }
    assert sent == expected
