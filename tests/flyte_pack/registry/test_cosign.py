"""A signed image has signatures as cosign writes them, read by skopeo and verified by OpenSSL; with
a real docker-registry. (Debian builds skopeo without the policy that would verify them itself.)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode

import pytest

from flyte_pack.registry import RegistryError
from flyte_pack.registry.cosign import signature_tag
from flyte_pack.registry.push import look_for, push_image
from flyte_pack.signing import KEY, signer_of
from tests.support.faulty_registry import faulty_registry
from tests.support.registries import AMD64, ARM64, make_image, session
from tests.support.signing import new_key, openssl_verifies

NAME = "team/app"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two, by name."""
    places = {name: tmp_path_factory.mktemp(name) for name in ("ours", "theirs")}
    return {name: new_key(place) for name, place in places.items()}


def push(image, host, key, said=None, **more):
    say = [].append if said is None else said.append
    signer = signer_of({KEY: str(key)})
    plan = image.plan(f"{host}/{NAME}:v1")
    return push_image(
        plan, str(image.layout.parent), say, session=session(), signer=signer, **more
    )[0]


def accepted(tmp_path, registry, digest, key):
    """Whether OpenSSL takes one of the signatures, as skopeo reads them, of what names the image."""
    if shutil.which("skopeo") is None:
        reason = "skopeo is missing: apt-get install skopeo"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    if signature_tag(digest) not in registry.tags(NAME):
        return False
    copy = tmp_path / "signatures"
    shutil.rmtree(copy, ignore_errors=True)
    source = f"docker://{registry.host}/{NAME}:{digest.replace(':', '-')}.sig"
    words = ("copy", "--quiet", "--src-tls-verify=false", source, f"dir:{copy}")
    subprocess.run(["skopeo", *words], check=True)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    config = json.loads((copy / manifest["config"]["digest"][7:]).read_bytes())
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    found = False
    for layer in manifest["layers"]:
        assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
        payload = (copy / layer["digest"][7:]).read_bytes()
        critical = json.loads(payload)["critical"]
        assert critical["type"] == "cosign container image signature"
        assert critical["image"] == {"docker-manifest-digest": digest}
        signature = b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"])
        named = critical["identity"] == {"docker-reference": f"{registry.host}/{NAME}"}
        public = key.with_suffix(".pub")
        found |= named and openssl_verifies(tmp_path, public, payload, signature)
    return found


def test_an_image_is_signed_by_the_key_and_no_other(tmp_path, registry, keys):
    image = make_image(tmp_path / "image", 2000)
    said = []
    assert push(image, registry.host, keys["ours"], said).attached
    assert f"{registry.host}/{NAME}@{image.digest}: signed" in said
    assert accepted(tmp_path, registry, image.digest, keys["ours"])
    assert not accepted(tmp_path, registry, image.digest, keys["theirs"])


def test_each_platform_of_an_image_is_signed(tmp_path, registry, keys):
    image = make_image(tmp_path / "image", 2001, platforms=(AMD64, ARM64))
    said = []
    push(image, registry.host, keys["ours"], said)
    assert len([line for line in said if line.endswith(": signed")]) == 3
    index = json.loads((image.layout / "blobs" / image.digest.replace(":", "/")).read_text())
    for one in index["manifests"]:
        assert accepted(tmp_path, registry, one["digest"], keys["ours"])


def test_a_second_push_signs_nothing_and_another_key_adds_its_own(tmp_path, registry, keys):
    image = make_image(tmp_path / "image", 2002)
    with faulty_registry(registry.host) as front:
        push(image, front.host, keys["ours"])
        front.requests.clear()
        assert push(image, front.host, keys["ours"]).told()["status"] == "unchanged"
        assert {request.partition(" ")[0] for request in front.requests} == {"HEAD", "GET"}
    push(image, registry.host, keys["ours"])
    push(image, registry.host, keys["theirs"])
    assert accepted(tmp_path, registry, image.digest, keys["ours"])
    assert accepted(tmp_path, registry, image.digest, keys["theirs"])
    plan = image.plan(f"{registry.host}/{NAME}:v1")
    assert look_for(plan, str(tmp_path), signer_of({KEY: str(keys["ours"])})) is not None


def test_without_a_key_nothing_is_asked_or_signed(tmp_path, registry, keys):
    image = make_image(tmp_path / "image", 2003)
    with faulty_registry(registry.host) as front:
        plan = image.plan(f"{front.host}/{NAME}:v1")
        push_image(plan, str(tmp_path), [].append, session=session())
        assert not front.count(r"\.sig")
    assert not accepted(tmp_path, registry, image.digest, keys["ours"])
    plan = image.plan(f"{registry.host}/{NAME}:v1")
    assert look_for(plan, str(tmp_path)) is not None
    assert look_for(plan, str(tmp_path), signer_of({KEY: str(keys["ours"])})) is None


def test_a_dry_run_says_it_and_does_not(tmp_path, registry, keys):
    image = make_image(tmp_path / "image", 2004)
    said = []
    push(image, registry.host, keys["ours"], said, dry_run=True)
    assert f"{registry.host}/{NAME}@{image.digest}: would be signed" in said
    assert signature_tag(image.digest) not in registry.tags(NAME)


def test_what_is_no_list_of_signatures_is_an_error_and_stays(tmp_path, registry, keys):
    image = make_image(tmp_path / "image", 2005)
    other = make_image(tmp_path / "other", 2006, platforms=(AMD64, ARM64))
    tag = signature_tag(image.digest)
    plan = other.plan(f"{registry.host}/{NAME}:{tag}")
    push_image(plan, str(tmp_path), [].append, session=session())
    with pytest.raises(RegistryError, match="is no list of signatures"):
        push(image, registry.host, keys["ours"])
    assert registry.tag(NAME, tag) == other.digest
    assert registry.tag(NAME, "v1") != image.digest
