"""What a control plane, its authentication and the network do to a registration, and what is said of it."""

from __future__ import annotations

import base64
import os
import ssl
import sys
from dataclasses import replace

import pytest
import trustme

from flyte_pack.deploy.flyte_processes import RegistrationError
from flyte_pack.deploy.registration import ControlPlane
from tests.support.control_plane import SECRET, code, control_plane, registrar, unpacked
from tests.support.flyte_versions import MATRIX, NEWEST

VERSIONS = dict.fromkeys(["ml.train", "ml.score", "leaf.double"], "v1")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return unpacked(tmp_path_factory.mktemp("code"))


@pytest.fixture
def plane(tmp_path):
    with control_plane(tmp_path / "plane") as running:
        yield running


def register(root, plane, line=NEWEST, versions=VERSIONS, **fields):
    with registrar(plane, line, **fields) as process:
        process.describe([code(root)])
        return list(process.register(versions))


def failure(root, plane, **fields):
    """What is said, without a secret in it, and what went through before."""
    with pytest.raises(RegistrationError) as caught:
        register(root, plane, **fields)
    said = str(caught.value)
    assert "Traceback" not in said
    assert SECRET not in said
    return said, caught.value.registered


@pytest.mark.parametrize("line", MATRIX)
def test_what_passes_by_itself_is_waited_for(root, plane, line):
    plane.fault("DeployTask", "unavailable", times=2)
    assert {one.status for one in register(root, plane, line)} == {"new"}
    assert plane.tasks == VERSIONS


@pytest.mark.parametrize("line", MATRIX)
def test_an_answer_that_is_lost_does_no_harm(root, plane, line):
    plane.fault("DeployTask", "drop")
    done = register(root, plane, line)
    assert {one.name for one in done} == set(VERSIONS)
    assert plane.tasks == VERSIONS


def test_what_went_through_is_reported_and_the_next_one_finishes(root, plane):
    versions = {"ml.score": "v1"}
    register(root, plane, versions=versions)
    plane.fault("DeployTask", "permission_denied", times=2)
    # One at a time, so that something goes through before what fails.
    with registrar(plane) as process:
        process.describe([code(root)])
        with pytest.raises(RegistrationError) as caught:
            list(process.register(VERSIONS))
    assert "you may not do this in project bikes, domain development" in str(caught.value)
    gone_through = {one.name for one in caught.value.registered}
    assert plane.tasks.keys() == {"ml.score"} | gone_through
    assert {one.name for one in register(root, plane)} == set(VERSIONS)
    assert plane.tasks == VERSIONS


def test_some_tasks_go_through_before_one_fails(tmp_path):
    """More tasks than are sent at once: the first ones are registered, and named, when a later one is refused."""
    many = "\n".join(f"@env.task\ndef t{n:02}() -> int:\n    return {n}\n" for n in range(40))
    files = {
        "services/ml/workflows.py": f"import flyte\nenv = flyte.TaskEnvironment(name='ml')\n{many}"
    }
    root = unpacked(tmp_path / "code", files)
    versions = {f"ml.t{n:02}": "v1" for n in range(40)}
    with control_plane(tmp_path / "plane") as plane:
        with registrar(plane) as process:
            process.describe([code(root)])
            done, registering = [], process.register(versions)
            done.append(next(registering))
            plane.fault("DeployTask", "permission_denied", times=100)
            with pytest.raises(RegistrationError) as caught:
                _drain(registering, done)
        assert 0 < len(done) < 40
        assert list(caught.value.registered) == done
        assert plane.tasks.keys() == {one.name for one in done}


def _drain(registering, done):
    for one in registering:
        done.append(one)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"project": "nowhere"}, "knows no project nowhere with a domain development"),
        ({"domain": "moon"}, "has no domain moon, only development, production, staging"),
    ],
)
def test_a_project_or_domain_that_is_not_there(root, plane, fields, said):
    message, registered = failure(root, plane, **fields)
    assert said in message
    assert "`project` and `domain`" in message
    assert registered == ()


def test_a_control_plane_that_stays_away(root):
    message, _ = failure(root, None)
    assert "the control plane at localhost:1 cannot be reached" in message
    assert "see that" in message.lower()


def test_a_control_plane_that_does_not_answer_in_time(root, plane, monkeypatch):
    monkeypatch.setattr("flyte_pack.deploy.registration.CALL_SECONDS", 2.0)
    plane.fault("DeployTask", "slow", times=100, seconds=30)
    said = []
    message, _ = failure(root, plane, versions={"ml.score": "v1"}, say=said.append)
    assert "did not answer within 2 s" in message
    assert [line.partition(";")[0] for line in said] == ["Flyte: deadline exceeded"] * 2


def test_something_else_than_a_control_plane(root, plane):
    """A web server that knows nothing of it."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    at = ControlPlane(endpoint=f"localhost:{server.server_address[1]}", insecure=True)
    message, _ = failure(root, None, control_plane=at)
    server.shutdown()
    assert "not a control plane of Flyte 2" in message


# --- who may -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, authority):
    """A control plane with TLS that lets in nobody without a token."""
    directory = tmp_path_factory.mktemp("guarded")
    both = str(directory / "server.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(both)
    with control_plane(directory / "plane", "--auth", "secret", "--tls", both, both) as running:
        yield running


@pytest.fixture
def config(tmp_path, authority, guarded):
    """Makes a Flyte config.yaml for `guarded`."""
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    helper = tmp_path / "helper"

    def make(*lines, trusted=True):
        file = tmp_path / "config.yaml"
        text = [
            "admin:",
            f"  endpoint: dns:///{guarded.endpoint}",
            "  disableKeyring: true",
            *lines,
        ]
        if trusted:
            text.append(f"  caCertFilePath: {ca}")
        file.write_text(
            "\n".join(text).replace("HELPER", str(helper)).replace("THE_FILE", str(secret))
        )
        return ControlPlane(config=str(file))

    make.secret, make.helper, make.ca = secret, helper, ca
    # Flyte asks for tokens with the machine's authorities, whatever caCertFilePath says.
    make.environ = {**os.environ, "SSL_CERT_FILE": str(ca)}
    return make


CLIENT_SECRET = ("  authType: ClientSecret", "  clientId: ci", "  clientSecretLocation: THE_FILE")


@pytest.mark.parametrize("line", MATRIX)
def test_a_clients_secret_in_a_file(root, guarded, config, line):
    done = register(
        root,
        None,
        line,
        dict.fromkeys(VERSIONS, f"secret-{line}"),
        control_plane=config(*CLIENT_SECRET),
        environ=config.environ,
    )
    assert {one.name for one in done} == set(VERSIONS)


def test_a_clients_secret_in_the_environment(root, guarded, config):
    plane = config("  authType: ClientSecret", "  clientId: ci", "  clientSecretEnvVar: MY_SECRET")
    environ = {**config.environ, "MY_SECRET": SECRET}
    assert register(root, None, versions={"ml.score": "env"}, control_plane=plane, environ=environ)


def test_a_command_that_prints_a_token(root, guarded, config):
    import json
    import urllib.parse
    import urllib.request

    context = ssl.create_default_context(cafile=str(config.ca))
    form = urllib.parse.urlencode({"client_id": "ci", "client_secret": SECRET}).encode()
    url = f"https://{guarded.endpoint}/oauth2/token"
    with urllib.request.urlopen(url, form, context=context) as answer:
        token = json.load(answer)["access_token"]
    config.helper.write_text(f"#!/bin/sh\necho {token}\n")
    config.helper.chmod(0o700)
    plane = config("  authType: ExternalCommand", "  command: [HELPER]")
    assert register(root, None, versions={"ml.score": "command"}, control_plane=plane)


def test_another_device(root, guarded, config, capfd):
    """Who registers is asked once, however many tasks are registered at once."""
    before = guarded.requests("device")
    plane = config("  authType: DeviceFlow")
    versions = dict.fromkeys(VERSIONS, "device")
    assert register(root, None, versions=versions, control_plane=plane, environ=config.environ)
    assert guarded.requests("device") == before + 1
    shown = capfd.readouterr()
    assert f"https://{guarded.endpoint}/device" in "".join(shown.err.split())
    assert shown.out == ""


def test_a_browser(root, guarded, config, tmp_path):
    before = guarded.requests("authorize")
    config.helper.write_text(
        f"#!{sys.executable}\n"
        "import ssl, sys, urllib.request\n"
        "context = ssl._create_unverified_context()\n"
        "urllib.request.urlopen(sys.argv[1], context=context).read()\n"
    )
    config.helper.chmod(0o700)
    environ = {**config.environ, "BROWSER": f"{config.helper} %s &"}
    versions = dict.fromkeys(VERSIONS, "browser")
    assert register(root, None, versions=versions, control_plane=config(), environ=environ)
    assert guarded.requests("authorize") == before + 1


def test_an_api_key(root, guarded, config):
    """Its endpoint is one without a port, so `endpoint` says where this one is."""
    key = base64.b64encode(f"localhost:ci:{SECRET}:None".encode()).decode()
    plane = replace(config(), endpoint=guarded.endpoint)
    environ = {**config.environ, "FLYTE_API_KEY": key}
    assert register(root, None, versions={"ml.score": "key"}, control_plane=plane, environ=environ)


def test_task_modules_never_see_credentials(tmp_path, guarded, config):
    """They are imported in a process of their own, with the environment that is meant for them."""
    files = {
        "services/ml/workflows.py": """
            import flyte, os, subprocess
            seen = subprocess.run(["ps", "-o", "args="], capture_output=True, text=True).stdout
            assert "planted-secret" not in str(dict(os.environ)) + seen
            env = flyte.TaskEnvironment(name="ml")
            @env.task
            def score(n: int) -> int:
                return n
        """
    }
    root = unpacked(tmp_path / "code", files)
    plane = config("  authType: ClientSecret", "  clientId: ci", "  clientSecretEnvVar: MY_SECRET")
    environ = {**config.environ, "MY_SECRET": SECRET}
    assert register(root, None, versions={"ml.score": "own"}, control_plane=plane, environ=environ)


@pytest.mark.parametrize(
    ("lines", "secret", "trusted", "said"),
    [
        (CLIENT_SECRET, "planted-secret-wrong", True, "does not let you in"),
        (CLIENT_SECRET, SECRET, False, "admin.caCertFilePath"),
        (
            ("  authType: ExternalCommand", "  command: ['false']"),
            SECRET,
            True,
            "does not let you in",
        ),
    ],
)
def test_who_is_not_let_in_is_told_what_to_change(
    root, config, capfd, lines, secret, trusted, said
):
    config.secret.write_text(secret)
    message, registered = failure(
        root,
        None,
        control_plane=config(*lines, trusted=trusted),
        environ=config.environ if trusted else {**os.environ},
    )
    assert said in message
    assert "config.yaml" in message
    assert secret not in message + "".join(capfd.readouterr())
    assert registered == ()


def test_plain_http_where_there_is_tls_and_the_other_way_round(root, guarded, plane):
    at = ControlPlane(endpoint=guarded.endpoint, insecure=True)
    message, _ = failure(root, None, control_plane=at)
    assert "cannot be reached" in message or "TLS" in message
    at = ControlPlane(endpoint=plane.endpoint, insecure=False)
    message, _ = failure(root, None, control_plane=at)
    assert "insecure: true" in message


def test_no_signed_url_is_ever_shown(tmp_path, plane, capfd):
    """An upload that the data proxy's address refuses."""
    file = tmp_path / "bundle"
    file.write_bytes(b"content")
    with registrar(
        plane, environ={**os.environ, "FLYTE_LOG_LEVEL": "10", "LOG_LEVEL": "10"}
    ) as process:
        (tmp_path / "plane" / "uploads").write_text("in the way")
        with pytest.raises(RegistrationError) as caught:
            process.upload(str(file), "ab.tar.gz")
    assert "upload of ab.tar.gz" in str(caught.value)
    assert "signature=" not in str(caught.value) + "".join(capfd.readouterr())
