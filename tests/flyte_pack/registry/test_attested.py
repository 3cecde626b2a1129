"""Beside an image stands what it was made from, for those who look for referrers: in a real
docker-registry, fetched by skopeo, read by in-toto's own reader and verified by OpenSSL.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode

import pytest
from google.protobuf import json_format

from flyte_pack.oci.model import OCI_INDEX, OCI_MANIFEST, REVISION
from flyte_pack.provenance import Material, Origin
from flyte_pack.registry.attested import BUNDLE
from flyte_pack.registry.client import may_pull
from flyte_pack.registry.push import look_for, push_image
from flyte_pack.registry.referrers import CYCLONEDX, EMPTY_TYPE, fallback_tag
from flyte_pack.signing import KEY, signer_of
from flyte_shim.hashing import sha256_bytes
from tests.support.git import git
from tests.support.listing_registry import Lists
from tests.support.registries import AMD64, ARM64, make_image, session
from tests.support.signing import KINDS, new_key, openssl_verifies
from tests.support.statements import read_statement, signed_part

NAME = "team/app"
IN_TOTO = "application/vnd.in-toto+json"
LOCK, BASE = "c" * 64, "d" * 64
MATERIALS = (Material("3rdparty/default.lock", LOCK), Material("docker.io/library/python", BASE))
COMMIT, LATER = "1" * 40, "2" * 40
SBOM = b'{"bomFormat": "CycloneDX"}\n'


def at(commit=COMMIT, dirty=False):
    return lambda: Origin(commit, dirty)


def push(image, host, key=None, said=None, origin=None, **more):
    plan = image.plan(f"{host}/{NAME}:v1", materials=MATERIALS, **more)
    signer = None if key is None else signer_of({KEY: str(key)})
    return push_image(
        plan,
        str(image.layout.parent),
        [].append if said is None else said.append,
        session=session(),
        signer=signer,
        origin=origin or at(),
    )[0]


def listed(registry, image):
    """What the index of the fallback tag says."""
    client = session().registry(registry.host)
    data, media_type = client.manifest(NAME, fallback_tag(image.digest), may_pull(NAME))
    assert media_type == OCI_INDEX
    return json.loads(data)["manifests"]


def fetched(tmp_path, registry, digest):
    """The document of an artifact, and its manifest, as skopeo copies them."""
    if shutil.which("skopeo") is None:
        reason = "skopeo is missing: apt-get install skopeo"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    copy = tmp_path / f"copy-{digest[7:19]}"
    source = f"docker://{registry.host}/{NAME}@{digest}"
    words = ("copy", "--quiet", "--src-tls-verify=false", source, f"dir:{copy}")
    subprocess.run(["skopeo", *words], check=True)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    (layer,) = manifest["layers"]
    return (copy / layer["digest"].partition(":")[2]).read_bytes(), manifest


def commits(predicate):
    return [
        one.digest["gitCommit"]
        for one in predicate.build_definition.resolved_dependencies
        if "gitCommit" in one.digest
    ]


def test_a_statement_is_an_artifact_whose_subject_is_the_image(tmp_path, registry):
    image = make_image(tmp_path / "image", 2000, platforms=(AMD64, ARM64))
    said = []
    assert push(image, registry.host, said=said).attached
    assert f"{registry.host}/{NAME}: provenance attached" in said
    (entry,) = listed(registry, image)
    assert (entry["mediaType"], entry["artifactType"]) == (OCI_MANIFEST, IN_TOTO)
    data, manifest = fetched(tmp_path, registry, entry["digest"])
    assert manifest["subject"]["digest"] == image.digest
    assert manifest["config"]["mediaType"] == EMPTY_TYPE
    assert manifest["annotations"] == entry["annotations"]
    assert entry["annotations"][REVISION] == COMMIT
    statement, predicate = read_statement(data)
    (subject,) = statement.subject
    assert subject.name == f"{registry.host}/{NAME}"
    assert f"sha256:{subject.digest['sha256']}" == image.digest
    made_of = {one.name: dict(one.digest) for one in predicate.build_definition.resolved_dependencies}  # fmt: skip
    assert made_of == {
        "the checkout": {"gitCommit": COMMIT},
        "3rdparty/default.lock": {"sha256": LOCK},
        "docker.io/library/python": {"sha256": BASE},
    }
    parameters = json_format.MessageToDict(predicate.build_definition.external_parameters)
    assert parameters == {"target": "services/ml:image"}


def test_it_stands_beside_the_inventory_and_names_it(tmp_path, registry):
    image = make_image(tmp_path / "image", 2001)
    (tmp_path / "image.cdx.json").write_bytes(SBOM)
    push(image, registry.host, sbom="image.cdx.json")
    by_type = {one["artifactType"]: one["digest"] for one in listed(registry, image)}
    assert set(by_type) == {CYCLONEDX, IN_TOTO}
    _, predicate = read_statement(fetched(tmp_path, registry, by_type[IN_TOTO])[0])
    (listing,) = predicate.run_details.byproducts
    assert listing.digest["sha256"] == sha256_bytes(SBOM)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_one_is_a_bundle_of_sigstore(tmp_path, registry, kind):
    image = make_image(tmp_path / "image", 2002, kind.encode())
    key = new_key(tmp_path, kind)
    push(image, registry.host, key)
    (entry,) = listed(registry, image)
    assert entry["artifactType"] == BUNDLE
    assert entry["annotations"]["dev.sigstore.bundle.content"] == "dsse-envelope"
    assert entry["annotations"]["dev.sigstore.bundle.predicateType"] == (
        "https://slsa.dev/provenance/v1"
    )
    bundle = json.loads(fetched(tmp_path, registry, entry["digest"])[0])
    assert bundle["mediaType"] == BUNDLE
    assert set(bundle["verificationMaterial"]) == {"publicKey"}
    envelope = bundle["dsseEnvelope"]
    payload = b64decode(envelope["payload"])
    statement, _ = read_statement(payload)
    assert f"sha256:{statement.subject[0].digest['sha256']}" == image.digest
    (only,) = envelope["signatures"]
    assert set(only) == {"sig"}  # cosign 3 refuses a `keyid` that is not ssh's fingerprint
    signature = b64decode(only["sig"])
    signed = signed_part(envelope["payloadType"], payload)
    assert openssl_verifies(tmp_path, key.with_suffix(".pub"), signed, signature)


def test_the_same_image_of_another_commit_keeps_what_it_has(tmp_path, front, registry):
    image = make_image(tmp_path / "image", 2003)
    push(image, front.host)
    before = listed(registry, image)
    front.requests.clear()
    again = push(image, front.host, origin=at(LATER))
    assert again.told()["status"] == "unchanged"
    assert listed(registry, image) == before
    assert {request.partition(" ")[0] for request in front.requests} == {"HEAD", "GET"}


def test_where_it_is_there_nobody_asks_git(tmp_path, registry):
    image = make_image(tmp_path / "image", 2004)
    push(image, registry.host)

    def asked():
        raise AssertionError("git was asked")

    assert not push(image, registry.host, origin=asked).attached
    plan = image.plan(f"{registry.host}/{NAME}:v1", materials=MATERIALS)
    assert look_for(plan, str(tmp_path), origin=asked) is not None


def test_a_clean_commit_says_so_beside_one_from_which_files_differed(tmp_path, registry):
    image = make_image(tmp_path / "image", 2005)
    push(image, registry.host, origin=at(dirty=True))
    assert not push(image, registry.host, origin=at(LATER, dirty=True)).attached
    assert push(image, registry.host, origin=at(LATER)).attached
    first, second = (
        read_statement(fetched(tmp_path, registry, one["digest"])[0])[1]
        for one in listed(registry, image)
    )
    assert (commits(first), commits(second)) == ([COMMIT], [LATER])
    assert first.build_definition.resolved_dependencies[0].annotations["dirty"] is True
    assert not push(image, registry.host, origin=at("3" * 40)).attached


def test_each_key_signs_once(tmp_path, registry):
    image = make_image(tmp_path / "image", 2006)
    keys = [new_key(tmp_path), new_key(tmp_path, "ed25519")]
    push(image, registry.host)
    for key in keys:
        assert push(image, registry.host, key, origin=at(LATER)).attached
        assert not push(image, registry.host, key, origin=at(LATER)).attached
    assert len(listed(registry, image)) == 3
    assert not push(image, registry.host).attached  # who has no key is content with a signed one


def test_that_of_another_builder_is_not_ours(tmp_path, front, registry):
    image = make_image(tmp_path / "image", 2007)
    lists = Lists()
    annotations = {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}
    other = {"mediaType": OCI_MANIFEST, "digest": f"sha256:{'0' * 64}", "size": 2}
    lists.manifests.append({**other, "artifactType": IN_TOTO, "annotations": annotations})
    front.faults += lists.faults
    assert push(image, front.host).attached
    assert not push(image, front.host).attached
    assert fallback_tag(image.digest) not in registry.tags(NAME)


def test_a_dry_run_says_it_and_neither_signs_nor_writes(tmp_path, registry):
    image = make_image(tmp_path / "image", 2008)
    push_image(image.plan(f"{registry.host}/{NAME}:v1"), str(tmp_path), [].append, session=session())  # fmt: skip
    said = []
    plan = image.plan(f"{registry.host}/{NAME}:v1", materials=MATERIALS)
    push_image(plan, str(tmp_path), said.append, session=session(), origin=at(), dry_run=True)
    assert f"{registry.host}/{NAME}: provenance would be attached" in said
    assert fallback_tag(image.digest) not in registry.tags(NAME)
    assert look_for(plan, str(tmp_path), origin=at()) is None


def test_by_default_it_is_from_the_checkout_around(tmp_path, registry, monkeypatch):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "a.py").write_text("")
    git(checkout, "init", "-q")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "one")
    made = git(checkout, "rev-parse", "HEAD")
    monkeypatch.chdir(checkout)
    image = make_image(tmp_path / "image", 2009)
    plan = image.plan(f"{registry.host}/{NAME}:v1", materials=())
    push_image(plan, str(tmp_path), [].append, session=session())
    (entry,) = listed(registry, image)
    assert commits(read_statement(fetched(tmp_path, registry, entry["digest"])[0])[1]) == [made]
