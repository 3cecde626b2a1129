"""Plain HTTP is for this machine, TLS is checked, and other hosts get no credentials."""

from __future__ import annotations

import socket
import ssl

import pytest
import trustme

from flyte_pack.registry import RegistryError
from flyte_pack.registry.pull import complete
from flyte_pack.registry.push import push_image
from tests.support.faulty_registry import (
    Fault,
    faulty_registry,
    rewritten,
    status,
)
from tests.support.registries import (
    BASIC,
    docker_config,
    exists,
    make_image,
    real_registry,
    session,
)

ALWAYS = 1000


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


def push(image, host, keychain, repository="team/app"):
    plan = image.plan(f"{host}/{repository}:v1")
    ours = session(keychain)
    push_image(plan, str(image.layout.parent), [].append, session=ours, chunk=1 << 16)


def server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def test_a_registry_with_tls(tmp_path, authority, trusted):
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    both = str(tmp_path / "both.pem")
    image = make_image(tmp_path / "image", 100)
    with real_registry(tmp_path / "registry", "basic", "--tls", both, both) as registry:
        push(image, registry.host, docker_config(tmp_path, registry.host))
        assert registry.tag("team/app", "v1") == image.digest


def test_a_certificate_that_is_not_trusted_is_no_reason_for_plain_http(tmp_path, authority, basic):
    image = make_image(tmp_path / "image", 100)
    with faulty_registry(basic.host, server_context(authority)) as front:
        with pytest.raises(RegistryError, match=r"certificate is not trusted.*SSL_CERT_FILE"):
            push(image, front.host, docker_config(tmp_path, front.host))
        assert not front.requests


def test_plain_http_is_for_this_machine_and_for_what_the_user_names(tmp_path, basic, monkeypatch):
    resolve = socket.getaddrinfo

    def elsewhere(host, *rest, **more):
        return resolve("127.0.0.1" if host == "registry.example" else host, *rest, **more)

    # To us a host anywhere: only its address in the network is made up.
    monkeypatch.setattr(socket, "getaddrinfo", elsewhere)
    keychain = docker_config(tmp_path, basic.host.replace("127.0.0.1", "registry.example"))
    host = basic.host.replace("127.0.0.1", "registry.example")
    with pytest.raises(RegistryError, match=r"the TLS handshake fails.* name as insecure"):
        exists(f"{host}/team/app:v1", session=session(keychain))
    assert exists(f"{host}/team/x:v1", session=session(keychain, insecure=[host])) is None
    with faulty_registry(basic.host) as front:
        host = front.host.replace("127.0.0.1", "registry.example")
        keychain = docker_config(tmp_path, host)
        with pytest.raises(RegistryError):
            exists(f"{host}/team/app:v1", session=session(keychain))
        assert not front.requests  # nothing was said that could be read


def test_an_upload_may_go_on_at_another_host_without_our_credentials(
    tmp_path, authority, trusted, basic
):
    image = make_image(tmp_path / "image", 200_000)
    with faulty_registry(basic.host) as front:
        elsewhere = faulty_registry(
            basic.host,
            server_context(authority),
            "localhost",
            authorization=BASIC,
            x_forwarded_proto="https",
        )
        with elsewhere as other:
            move = rewritten(
                "Location", lambda u: u.replace(f"http://{front.host}", f"https://{other.host}")
            )
            front.faults = [Fault("^POST", move, ALWAYS)]
            push(image, front.host, docker_config(tmp_path, front.host), repository="moved/app")
            assert other.count("^(PATCH|PUT)") > 1
            assert other.secrets == set()
    assert basic.holds("moved/app", image.digest)


def test_a_blob_may_come_from_another_host_which_learns_nothing(
    tmp_path, authority, trusted, basic
):
    base = make_image(tmp_path / "base", 200_000)
    with faulty_registry(basic.host) as front:
        keychain = docker_config(tmp_path, front.host)
        push(base, front.host, keychain, repository="moved/base")
        elsewhere = faulty_registry(
            basic.host,
            server_context(authority),
            "localhost",
            authorization=BASIC,
            x_forwarded_proto="https",
        )
        with elsewhere as other:
            url = f"https://{other.host}/v2/moved/base/blobs/{base.layers[0].digest}?signature=x"
            front.faults = [Fault("^GET .*blobs", status(307, location=url), ALWAYS)]
            name = f"{front.host}/moved/base"
            complete(name, base.layers, str(tmp_path / "out"), print, session=session(keychain))
            assert other.count("^GET") == 1
            assert other.secrets == set()


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(tmp_path, monkeypatch, basic):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    keychain = docker_config(tmp_path, basic.host)
    assert exists(f"{basic.host}/a/b:c", session=session(keychain)) is None
    with pytest.raises(RegistryError, match=r"proxy"):
        exists("registry.example/a/b:c", session=session())


def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(
        RegistryError, match=r"registry\.invalid: there is no host of that name|proxy"
    ):
        exists("registry.invalid/a/b:c", session=session())
