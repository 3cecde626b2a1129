"""Documents of images: strict where we rely on them, and written so that equal ones are equal bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_pack.image.base import BaseImage
from flyte_pack.json_fields import InvalidData, canonical
from flyte_pack.oci.model import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    MAX_DOCUMENT,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Index,
    InvalidImage,
    Manifest,
    Platform,
    blob_path,
    check_digest,
    digest_of,
    parse_document,
)
from flyte_pack.oci.parts import Layer, Layers
from tests.support.bases import base_image, base_platform

D = digest_of(b"")


def descriptor(**fields) -> dict:
    return {"mediaType": OCI_CONFIG, "digest": D, "size": 2, **fields}


def manifest(**fields) -> dict:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(),
        "layers": [descriptor(mediaType=OCI_LAYER_GZIP)],
        **fields,
    }


def index(**fields) -> dict:
    entry = descriptor(mediaType=OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"})
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry], **fields}


# --- digests, platforms ---------------------------------------------------------------------------


def test_a_digest_names_a_blob():
    assert D == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert blob_path(D) == f"blobs/sha256/{D[7:]}"


@pytest.mark.parametrize(
    "text",
    [
        *(None, 3, "", "sha256:", D[:-1], D + "0", D.upper(), "sha512:" + "0" * 128, D + "\n"),
        *("sha256:../" + "0" * 61, " " + D, ["sha256"]),
    ],
)
def test_what_is_no_sha256_is_no_digest(text):
    with pytest.raises(InvalidImage, match=r"is .*, not sha256: and 64 hexadecimal digits"):
        check_digest(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/AArch64/V8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/arm/v5", "linux/arm/v5"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64/v2", "linux/amd64/v2"),
        ("linux/i386", "linux/386"),
        ("linux/i386/v1", "linux/386"),
        ("linux/ppc64le", "linux/ppc64le"),
        ("Linux/AMD64", "linux/amd64"),
        ("macOS/arm64", "darwin/arm64"),
    ],
)
def test_a_platform_is_written_one_way(text, normal):
    platform = Platform.parse(text)
    assert str(platform) == normal
    assert Platform.from_fields(platform.as_fields(), "here") == platform
    assert Platform.parse(normal) == platform


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/amd64/v3/x", "linux/amd 64",
             "linux//amd64", "../amd64", "linux/amd64\n", "*"],
)  # fmt: skip
def test_what_is_no_platform_is_refused_with_an_example(text):
    with pytest.raises(InvalidImage, match="is not a platform, such as linux/amd64"):
        Platform.parse(text)


# --- documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "served_as", "kind"),
    [
        (manifest(), None, Manifest),
        (manifest(), OCI_MANIFEST, Manifest),
        (manifest(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST, Manifest),
        (index(), OCI_INDEX, Index),
        (index(mediaType=DOCKER_INDEX), None, Index),
        ({k: v for k, v in manifest().items() if k != "mediaType"}, None, Manifest),
        ({k: v for k, v in index().items() if k != "mediaType"}, None, Index),
        ({k: v for k, v in manifest().items() if k != "mediaType"}, DOCKER_MANIFEST, Manifest),
        (manifest(annotations=None), None, Manifest),
        (manifest(subject=descriptor(), artifactType="x"), None, Manifest),
        # What a server says that means nothing is passed over.
        (manifest(), "application/json", Manifest),
    ],
)
def test_manifests_and_indexes_are_told_apart(document, served_as, kind):
    parsed = parse_document(json.dumps(document).encode(), "it", served_as)
    assert isinstance(parsed, kind)
    assert parsed.media_type == document.get("mediaType", served_as) or "mediaType" not in document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "not a JSON document"),
        (b"{", "not a JSON document"),
        (b"\xff", "not a JSON document"),
        (b"[" * 100_000, "not a JSON document"),
        (b"[]", "not a JSON object"),
        (b" " * (MAX_DOCUMENT + 1), "too many for a document"),
        ({}, "no image manifest or index"),
        (manifest(schemaVersion=1), "schema version 1"),
        (manifest(schemaVersion="2"), "schema version '2'"),
        (manifest(mediaType="text/html"), "'text/html'"),
        (manifest(mediaType=["x"]), "no image manifest"),
        (manifest(config=None), "config: not an object"),
        (manifest(config=descriptor(size="2")), "config: the size is '2'"),
        (manifest(config=descriptor(size=True)), "config: the size is True"),
        (manifest(config=descriptor(size=-1)), "config: the size is -1"),
        (manifest(config=descriptor(size=1 << 63)), "config: the size is"),
        (manifest(config=descriptor(digest="md5:0")), "config: the digest is 'md5:0'"),
        (manifest(config=descriptor(mediaType="")), "config: no mediaType"),
        (manifest(layers=None), "'layers' is not a list"),
        (manifest(layers={}), "'layers' is not a list"),
        (manifest(layers=[descriptor(), 3]), r"layers\[1\]: not an object"),
        (manifest(annotations=["a"]), "annotations: not an object of strings"),
        (manifest(annotations={"a": 1}), "annotations: not an object of strings"),
        (manifest(config=descriptor(annotations={"a": None})), "annotations: not an object of strings"),
        (index(manifests=None), "'manifests' is not a list"),
        (index(manifests=[descriptor(platform="linux")]), "the platform is not an object"),
        (index(manifests=[descriptor(platform={"os": 3})]), "the platform is"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_document_that_cannot_be_relied_on_is_refused(document, message):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(InvalidImage, match=f"^it: .*{message}"):
        parse_document(data, "it")


@pytest.mark.parametrize("served_as", [OCI_INDEX, DOCKER_MANIFEST])
def test_a_document_is_what_it_was_served_as(served_as):
    with pytest.raises(InvalidImage, match=r"served as .*, but it says that it is"):
        parse_document(json.dumps(manifest()).encode(), "it", served_as)


digests = st.binary(max_size=3).map(digest_of)
texts = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
platforms = st.none() | st.sampled_from(["linux/amd64", "linux/arm/v7"]).map(Platform.parse)
descriptors = st.builds(
    Descriptor, st.sampled_from([OCI_CONFIG, "x"]), digests, st.integers(0, 2**63 - 1), texts, platforms
)  # fmt: skip
several = st.lists(descriptors, max_size=3).map(tuple)


@given(
    st.builds(Manifest, st.just(OCI_MANIFEST), descriptors, several, texts)
    | st.builds(Index, st.just(OCI_INDEX), several, texts)
)
def test_a_document_reads_back_as_it_was_written(document):
    assert parse_document(document.to_json(), "it") == document


@given(st.permutations(list(manifest(annotations={"b": "1", "a": "ä"}).items())))
def test_equal_documents_are_equal_bytes_without_white_space(items):
    written = canonical(dict(items))
    assert written == canonical(manifest(annotations={"a": "ä", "b": "1"}))
    assert b" " not in written
    assert written.isascii()


# --- the base's file ------------------------------------------------------------------------------

ONE = base_image()
TWO = base_image(base_platform("linux/amd64"), base_platform("linux/arm64"))


@pytest.mark.parametrize(
    "image", [ONE, TWO, base_image(name=None, python="/p3.9", production=False)]
)
def test_a_base_reads_back_as_it_was_written(image):
    assert BaseImage.from_json(image.to_json(), "x.lock.json") == image


def test_the_order_of_platforms_makes_no_difference_to_the_bytes():
    swapped = BaseImage(TWO.name, TWO.digest, TWO.index, TWO.platforms[::-1])
    assert swapped.to_json() == TWO.to_json()


def changed(image: BaseImage, change) -> bytes:
    document = json.loads(image.to_json())
    change(document)
    return json.dumps(document).encode()


CONFIG = json.loads(ONE.platforms[0].config)


def with_config(**fields) -> bytes:
    """A base whose config says that, with digests that fit."""
    data = canonical({**CONFIG, **fields})
    parsed = ONE.platforms[0].parsed_manifest
    document = Manifest(
        OCI_MANIFEST, Descriptor(OCI_CONFIG, digest_of(data), len(data)), parsed.layers
    ).to_json()

    def change(base):
        base["digest"] = digest_of(document)
        base["platforms"][0].update(manifest=document.decode(), config=data.decode())

    return changed(ONE, change)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<<<<<<< HEAD\n", "not a JSON document"),
        (changed(ONE, lambda d: d.update(schema=2)), "schema 2"),
        (changed(ONE, lambda d: d.update(more=1)), "unknown keys: 'more'"),
        (changed(ONE, lambda d: d.pop("digest")), "missing keys: 'digest'"),
        (changed(ONE, lambda d: d.update(digest=D)), "does not belong to"),
        (changed(ONE, lambda d: d.update(digest="latest")), "digest: not sha256: and 64"),
        (changed(ONE, lambda d: d.update(platforms=[])), "no platform"),
        (changed(ONE, lambda d: d["platforms"].append(d["platforms"][0])), "a platform twice"),
        (changed(ONE, lambda d: d["platforms"][0].update(platform="x")), "is not a platform"),
        (changed(ONE, lambda d: d["platforms"][0].update(config="{}")), "not the one that the manifest names"),
        (changed(ONE, lambda d: d["platforms"][0].update(manifest="{}")), "no image manifest"),
        (changed(ONE, lambda d: d["platforms"][0].update(manifest=TWO.index.decode())), "an index where"),
        (changed(ONE, lambda d: d.update(name="a\x1b[2J")), "control character"),
        (changed(TWO, lambda d: d.update(index=None)), "several platforms, but no index"),
        (changed(TWO, lambda d: d.update(index="{}")), "no image manifest or"),
        (changed(TWO, lambda d: d.update(digest=ONE.digest)), "index is not what its digest says"),
        (with_config(rootfs=None), "differ in their layers"),
        (with_config(rootfs={"diff_ids": [D]}), "differ in their layers"),
        (with_config(rootfs={"diff_ids": ["x", "y"]}), "a diff_id is 'x'"),
        # Types that no registry should serve, yet may.
        (with_config(rootfs=[1]), "`rootfs` is not an object"),
        (with_config(config=[1]), "config"),
        (with_config(config={"Env": "PATH=/bin"}), "Env"),
        (with_config(config={"Env": [3]}), "Env"),
        (with_config(config={"Labels": ["a"]}), "Labels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_base_that_does_not_fit_together_is_refused(data, message):
    with pytest.raises(InvalidData, match=message):
        BaseImage.from_json(data, "x.lock.json")


@pytest.mark.parametrize(
    ("env", "python", "path"),
    [
        (["PYTHON_VERSION=3.12.7"], None, "/usr/local/bin/python3.12"),
        (["PYTHON_VERSION=3.14"], None, "/usr/local/bin/python3.14"),
        (["PYTHON_VERSION=3.13.0rc1"], None, "/usr/local/bin/python3.13"),
        (["PYTHON_VERSION=3.12.7"], "/usr/bin/python3.11", "/usr/bin/python3.11"),
        (["PATH=/bin", "PYTHON_VERSION=2.7"], None, None),
        ([], None, None),
        (None, None, None),
    ],
)
def test_the_official_images_say_where_their_python_is(env, python, path):
    image = base_image(base_platform(Env=env), python=python)
    assert image.python_path == path


# --- layers.json ----------------------------------------------------------------------------------


def test_layers_read_back_as_they_were_written():
    layers = (Layer(D, 3, digest_of(b"x"), "numpy 2.1"), Layer(digest_of(b"y"), 0, D, "größe"))
    assert Layers.from_json(Layers(layers).to_json()).layers == layers


@pytest.mark.parametrize(
    "change",
    [{"digest": "x"}, {"size": -1}, {"diff_id": None}, {"what": "a\nb"}, {"more": 1}],
)
def test_a_layer_that_cannot_be_one_is_refused(change):
    document = json.loads(Layers((Layer(D, 3, D, "x"),)).to_json())
    document["layers"][0].update(change)
    with pytest.raises(InvalidData):
        Layers.from_json(json.dumps(document).encode())
