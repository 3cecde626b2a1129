"""Images that a deployment names are looked for before it is recorded: they exist, and are pinned by their digests."""

from __future__ import annotations

import socket

import pytest

from flyte_pack.deploy.mapped_images import resolve_images
from flyte_pack.registry import RegistryError
from flyte_pack.registry.push import push_image
from tests.support.registries import (
    AMD64,
    ARM64,
    PASSWORD,
    docker_config,
    make_image,
    real_registry,
    session,
)

NOWHERE = "sha256:" + "0" * 64


@pytest.fixture(scope="module", params=["basic", "token"])
def registry(request, tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("registry"), request.param) as registry:
        yield registry


@pytest.fixture(scope="module")
def image(registry, tmp_path_factory):
    return pushed(
        registry, tmp_path_factory, make_image(tmp_path_factory.mktemp("a") / "image", 100)
    )


def pushed(registry, tmp_path_factory, image):
    keychain = docker_config(tmp_path_factory.mktemp("docker"), registry.host)
    plan = image.plan(f"{registry.host}/team/app:v1,v2")
    push_image(plan, str(image.layout.parent), [].append, session=session(keychain))
    return image


@pytest.fixture
def keychain(registry, tmp_path):
    return docker_config(tmp_path / "docker", registry.host)


def resolve(references, keychain=None, said=None, ours=None, **options):
    say = (said if said is not None else []).append
    return resolve_images(references, say=say, session=ours or session(keychain), **options)


def test_a_tag_is_resolved_to_its_digest_and_a_digest_is_looked_for(registry, image, keychain):
    name = f"{registry.host}/team/app"
    pinned = f"{name}@{image.digest}"
    both = f"{name}:v1@{image.digest}"
    assert resolve([f"{name}:v1", pinned, both], keychain) == {
        f"{name}:v1": pinned,
        pinned: pinned,
        both: pinned,
    }


def test_an_image_of_several_platforms_is_pinned_as_such(registry, tmp_path_factory, keychain):
    layout = tmp_path_factory.mktemp("several") / "image"
    image = pushed(registry, tmp_path_factory, make_image(layout, 10, platforms=(AMD64, ARM64)))
    reference = f"{registry.host}/team/app:v2"
    assert resolve([reference], keychain)[reference].endswith(f"@{image.digest}")


def test_each_is_asked_for_once(registry, image, keychain):
    ours = session(keychain)
    name = f"{registry.host}/team/app"
    resolve([f"{name}:v1"], ours=ours)
    before = ours.transport.requests
    assert len(resolve([f"{name}:v1"] * 5, ours=ours)) == 1
    assert ours.transport.requests == before + 1


def test_where_there_are_none_nothing_is_asked():
    ours = session()
    assert resolve([], ours=ours) == {}
    assert ours.transport.requests == 0


@pytest.mark.parametrize("missing", ["team/app:v3", f"team/app@{NOWHERE}", "team/other:v1"])
def test_what_is_not_there_is_an_error_that_says_what_to_change(registry, image, keychain, missing):
    with pytest.raises(RegistryError) as error:
        resolve([f"{registry.host}/{missing}"], keychain)
    for said in (f"{registry.host}/{missing}: ", "push it, or name another one", "--image NAME="):
        assert said in str(error.value)


@pytest.mark.parametrize("right", [True, False])
def test_what_a_target_publishes_is_to_be_published_first(registry, image, tmp_path, right):
    keychain = docker_config(tmp_path, registry.host) if right else None
    reference = f"{registry.host}/team/app:v3"
    with pytest.raises(RegistryError, match=r"\./pants publish ml:img\b"):
        resolve([reference], keychain, published={reference: "ml:img"})


def test_all_that_failed_is_named_at_once(registry, image, keychain):
    name = f"{registry.host}/team/app"
    with pytest.raises(RegistryError) as error:
        resolve([f"{name}:v1", f"{name}:none", f"{registry.host}/x/y:1"], keychain)
    assert f"{name}:none: " in str(error.value)
    assert f"{registry.host}/x/y:1: " in str(error.value)
    assert f"{name}:v1: " not in str(error.value)


@pytest.mark.parametrize("password", [None, "wrong-and-planted"])
def test_without_the_right_to_pull_it_is_an_error_that_says_whose(
    registry, image, tmp_path, password
):
    keychain = password and docker_config(tmp_path, registry.host, password=password)
    with pytest.raises(RegistryError) as error:
        resolve([f"{registry.host}/team/app:v1"], keychain)
    assert "docker login" in str(error.value)
    assert "may you pull from there?" in str(error.value)
    assert "--no-image-check" not in str(error.value)
    for secret in (PASSWORD, "wrong-and-planted"):
        assert secret not in str(error.value)


def test_a_registry_that_is_not_reached_can_be_left_out():
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        reference = f"127.0.0.1:{taken.getsockname()[1]}/team/app:v1"
        with pytest.raises(RegistryError) as error:
            resolve([reference])
        assert "--no-image-check deploys images unseen" in str(error.value)
        said = []
        assert resolve([reference], check=False, said=said) == {reference: reference}
        assert len(said) == 1
        assert reference in said[0]
