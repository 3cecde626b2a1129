"""The inventory of an image is found beside it, by those who look for referrers; with a real
docker-registry, which has no list of them, and skopeo.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from flyte_pack.oci.model import OCI_INDEX, OCI_MANIFEST
from flyte_pack.registry import RegistryError
from flyte_pack.registry.client import may_pull
from flyte_pack.registry.push import look_for, push_image
from flyte_pack.registry.referrers import CYCLONEDX, EMPTY_TYPE, fallback_tag
from tests.support.faulty_registry import Fault, status
from tests.support.listing_registry import Lists
from tests.support.registries import AMD64, ARM64, make_image, session

SBOM = b'{"bomFormat": "CycloneDX"}\n'
NAME = "team/app"


def with_sbom(layout, *layers, sbom=SBOM, **fields):
    image = make_image(layout, *layers, **fields)
    layout.with_name("image.cdx.json").write_bytes(sbom)
    return image


def push(image, host, name=NAME, said=None, **more):
    plan = image.plan(f"{host}/{name}:v1", sbom="image.cdx.json")
    say = [].append if said is None else said.append
    return push_image(plan, str(image.layout.parent), say, session=session(), **more)[0]


def listed(registry, image, name=NAME):
    """What the index of the fallback tag says."""
    client = session().registry(registry.host)
    data, media_type = client.manifest(name, fallback_tag(image.digest), may_pull(name))
    assert media_type == OCI_INDEX
    return json.loads(data)["manifests"]


def test_the_inventory_is_an_artifact_whose_subject_is_the_image(tmp_path, registry):
    image = with_sbom(tmp_path / "image", 1000, platforms=(AMD64, ARM64))
    said = []
    pushed = push(image, registry.host, said=said)
    assert pushed.attached
    assert f"{registry.host}/{NAME}: SBOM attached" in said
    (entry,) = listed(registry, image)
    assert (entry["mediaType"], entry["artifactType"]) == (OCI_MANIFEST, CYCLONEDX)
    assert registry.holds(NAME, entry["digest"])
    client = session().registry(registry.host)
    manifest = json.loads(client.manifest(NAME, entry["digest"], may_pull(NAME))[0])
    assert manifest["subject"]["digest"] == image.digest
    assert manifest["subject"]["mediaType"] == OCI_INDEX
    assert manifest["config"]["mediaType"] == EMPTY_TYPE
    assert [layer["mediaType"] for layer in manifest["layers"]] == [CYCLONEDX]


def test_skopeo_copies_the_inventory_by_the_fallback_tag(tmp_path, registry):
    if shutil.which("skopeo") is None:
        reason = "skopeo is missing: apt-get install skopeo"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    image = with_sbom(tmp_path / "image", 1001)
    push(image, registry.host)
    index = _skopeo(
        "inspect", "--raw", "--tls-verify=false", _at(registry, fallback_tag(image.digest))
    )
    (entry,) = json.loads(index)["manifests"]
    source = f"docker://{registry.host}/{NAME}@{entry['digest']}"
    _skopeo("copy", "--quiet", "--src-tls-verify=false", source, f"oci:{tmp_path}/copy:sbom")
    manifest = json.loads(_skopeo("inspect", "--raw", f"oci:{tmp_path}/copy:sbom"))
    (layer,) = manifest["layers"]
    blob = tmp_path / "copy" / "blobs" / layer["digest"].replace(":", "/")
    assert blob.read_bytes() == SBOM


def _at(registry, tag):
    return f"docker://{registry.host}/{NAME}:{tag}"


def _skopeo(*words):
    return subprocess.run(["skopeo", *words], check=True, stdout=subprocess.PIPE).stdout


def test_a_second_push_finds_it_and_writes_nothing(tmp_path, front, registry):
    image = with_sbom(tmp_path / "image", 1002)
    push(image, front.host)
    front.requests.clear()
    again = push(image, front.host)
    assert not again.attached
    assert again.told()["status"] == "unchanged"
    assert {request.partition(" ")[0] for request in front.requests} == {"HEAD", "GET"}
    plan = image.plan(f"{registry.host}/{NAME}:v1", sbom="image.cdx.json")
    assert look_for(plan, str(tmp_path)) is not None


def test_without_an_inventory_nothing_more_is_asked(tmp_path, front, registry):
    image = with_sbom(tmp_path / "image", 1003)
    push_image(image.plan(f"{front.host}/{NAME}:v1"), str(tmp_path), [].append, session=session())
    assert not front.count("referrers|sha256-")
    assert fallback_tag(image.digest) not in registry.tags(NAME)
    plan = image.plan(f"{registry.host}/{NAME}:v1", sbom="image.cdx.json")
    assert look_for(plan, str(tmp_path)) is None  # the image is there, and its inventory is not


def test_an_inventory_that_changed_is_listed_beside_the_other(tmp_path, registry):
    image = with_sbom(tmp_path / "image", 1004)
    push(image, registry.host)
    (tmp_path / "image.cdx.json").write_bytes(SBOM + b"\n")
    assert push(image, registry.host).attached
    assert len(listed(registry, image)) == 2


def test_a_dry_run_says_it_and_does_not(tmp_path, registry):
    image = with_sbom(tmp_path / "image", 1005)
    said = []
    push(image, registry.host, said=said, dry_run=True)
    assert f"{registry.host}/{NAME}: SBOM would be attached" in said
    assert fallback_tag(image.digest) not in registry.tags(NAME)


def test_a_registry_that_lists_referrers_gets_no_tag(tmp_path, front, registry):
    front.faults += Lists().faults
    image = with_sbom(tmp_path / "image", 1006)
    assert push(image, front.host).attached
    assert not push(image, front.host).attached
    (tmp_path / "image.cdx.json").write_bytes(SBOM + b"\n")
    assert push(image, front.host).attached
    assert not push(image, front.host).attached  # it is on the second page
    assert fallback_tag(image.digest) not in registry.tags(NAME)


def test_another_image_under_the_fallback_tag_is_an_error_and_stays(tmp_path, registry):
    image = with_sbom(tmp_path / "image", 1007)
    other = make_image(tmp_path / "other", 1008)
    tag = fallback_tag(image.digest)
    plan = other.plan(f"{registry.host}/{NAME}:{tag}")
    push_image(plan, str(tmp_path), [].append, session=session())
    with pytest.raises(RegistryError, match="is no index of referrers"):
        push(image, registry.host)
    assert registry.tag(NAME, tag) == other.digest
    assert registry.tag(NAME, "v1") != image.digest


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"manifests": 1}', b'{"manifests": [{}]}'])
def test_a_list_that_is_none_is_an_error(tmp_path, front, body):
    image = with_sbom(tmp_path / "image", 1009)
    push(image, front.host, name="team/other")
    front.faults.append(
        Fault("^GET .*/referrers/", status(200, body, Content_Type=OCI_INDEX), 1000)
    )
    with pytest.raises(RegistryError, match="referrers"):
        push(image, front.host, name="team/other")


def test_an_inventory_that_is_gone_is_an_error_before_anything_is_pushed(tmp_path, front):
    image = make_image(tmp_path / "image", 1010)
    with pytest.raises(RegistryError, match="package it again"):
        push(image, front.host)
    assert front.requests == []
