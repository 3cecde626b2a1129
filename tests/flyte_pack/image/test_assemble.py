"""An image is a function of its base, its layers and its settings; config, manifest and index say what they must."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_pack.image.assemble import (
    NOT_FOR_PRODUCTION,
    AssembledImage,
    ImageSettings,
    assemble,
)
from flyte_pack.image.base import BaseImage
from flyte_pack.oci.config import CREATED
from flyte_pack.oci.model import (
    BASE_DIGEST,
    BASE_NAME,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Platform,
    digest_of,
)
from flyte_pack.oci.parts import Layer
from tests.support.bases import PYTHON_IMAGE, base_image, base_platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
ENTRYPOINT = ("flyte-shim", "--")


def layer(what: str) -> Layer:
    return Layer(digest_of(what.encode()), len(what), digest_of(f"{what} tar".encode()), what)


def settings(**fields: Any) -> ImageSettings:
    return ImageSettings(
        **{
            "env": {},
            "labels": {},
            "user": "1000:1000",
            "workdir": "/home/flyte/task",
            "entrypoint": ENTRYPOINT,
            **fields,
        }
    )


def build(base: BaseImage | None = None, *layers: Layer, **fields: Any) -> AssembledImage:
    base = base or base_image()
    return assemble(base, {p.platform: layers for p in base.platforms}, settings(**fields))


def document(image: AssembledImage, digest: str) -> dict[str, Any]:
    data = image.documents[f"blobs/{digest.replace(':', '/')}"]
    assert digest_of(data) == digest
    return json.loads(data)


def manifest(image: AssembledImage, platform: Platform = AMD64) -> dict[str, Any]:
    return document(image, image.manifests[platform].digest)


def config(image: AssembledImage, platform: Platform = AMD64) -> dict[str, Any]:
    return document(image, manifest(image, platform)["config"]["digest"])


def env(image: AssembledImage) -> list[str]:
    return config(image)["config"]["Env"]


# --- documents ------------------------------------------------------------------------------------


def test_an_image_of_one_platform_is_a_manifest():
    image = build(base_image(), layer("numpy"), layer("code"))
    assert set(image.documents) == {
        "oci-layout",
        "index.json",
        f"blobs/{image.digest.replace(':', '/')}",
        f"blobs/{manifest(image)['config']['digest'].replace(':', '/')}",
    }
    index = json.loads(image.documents["index.json"])
    assert index["mediaType"] == OCI_INDEX
    (entry,) = index["manifests"]
    assert (entry["digest"], entry["mediaType"]) == (image.digest, OCI_MANIFEST)
    assert entry["size"] == len(image.documents[f"blobs/{image.digest.replace(':', '/')}"])
    assert entry["platform"] == {"os": "linux", "architecture": "amd64"}
    assert (manifest(image)["mediaType"], manifest(image)["schemaVersion"]) == (OCI_MANIFEST, 2)
    assert manifest(image)["config"]["mediaType"] == OCI_CONFIG


def test_the_layers_are_those_of_the_base_and_then_ours_in_order():
    base = base_image()
    below = base.platforms[0]
    ours = [layer("numpy"), layer("shim"), layer("code")]
    image = build(base, *ours)
    assert [one["digest"] for one in manifest(image)["layers"]] == [
        *(one.digest for one in below.layers),
        *(one.digest for one in ours),
    ]
    assert [one["size"] for one in manifest(image)["layers"][2:]] == [5, 4, 4]
    assert config(image)["rootfs"] == {
        "type": "layers",
        "diff_ids": [
            *below.parsed_config.diff_ids,
            *(one.diff_id for one in ours),
        ],
    }


def test_two_platforms_make_an_index_with_layers_of_their_own():
    base = base_image(base_platform("linux/amd64"), base_platform("linux/arm64"))
    image = assemble(
        base,
        # However the caller lists them.
        {ARM64: [layer("arm"), layer("code")], AMD64: [layer("amd"), layer("code")]},
        settings(labels={"a.b": "c"}),
    )
    index = document(image, image.digest)
    assert index["mediaType"] == OCI_INDEX
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    assert index["annotations"] == {"a.b": "c"}
    for platform, own in ((AMD64, "amd"), (ARM64, "arm")):
        assert config(image, platform)["architecture"] == platform.architecture
        digests = [one["digest"] for one in manifest(image, platform)["layers"]]
        assert digests[2:] == [layer(own).digest, layer("code").digest]
        below = base.for_platform(platform)
        assert digests[:2] == [one.digest for one in below.layers]
        assert manifest(image, platform)["annotations"][BASE_DIGEST] == below.digest


def test_a_platform_may_be_left_out():
    base = base_image(base_platform("linux/amd64"), base_platform("linux/arm64"))
    image = assemble(base, {ARM64: [layer("code")]}, settings())
    assert set(image.manifests) == {ARM64}
    assert image.digest == image.manifests[ARM64].digest


@pytest.mark.parametrize(
    ("docker", "oci"),
    [
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", OCI_LAYER_GZIP),
        ("application/vnd.docker.image.rootfs.diff.tar", OCI_LAYER),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ),
        (OCI_LAYER_GZIP, OCI_LAYER_GZIP),
        (*["application/vnd.oci.image.layer.v1.tar+zstd"] * 2,),
    ],
)
def test_dockers_media_types_become_those_of_the_specification(docker, oci):
    base = base_image(base_platform(docker=True, layer_type=docker))
    made = manifest(build(base, layer("code")))
    assert [one["mediaType"] for one in made["layers"]] == [oci, oci, OCI_LAYER_GZIP]
    assert "docker" not in json.dumps({**made, "annotations": {}})


# --- the config -----------------------------------------------------------------------------------


def test_variables_come_on_top_of_the_bases_and_the_environment_first_on_the_path():
    base = base_image(base_platform(Env=["PATH=/usr/bin", "A=base", "B=1=2", "C", "D="]))
    image = build(base, env={"A": "ours", "HOME": "/home/flyte"})
    assert env(image) == [
        *("PATH=/opt/venv/bin:/usr/bin", "A=ours", "B=1=2", "C=", "D="),
        *("VIRTUAL_ENV=/opt/venv", "HOME=/home/flyte"),
    ]


@pytest.mark.parametrize("base_env", [[], None, ["PATH="], ["A=b"]])
def test_a_base_without_a_path_gets_the_usual_one(base_env):
    image = build(base_image(base_platform(Env=base_env)))
    assert "PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in env(
        image
    )


@pytest.mark.parametrize(
    ("base", "ours", "made"),
    [
        ("/usr/local/bin:/opt/venv/bin:/usr/bin", None, "/opt/venv/bin:/usr/local/bin:/usr/bin"),
        ("/opt/venv/bin:/opt/venv/bin:/bin", None, "/opt/venv/bin:/bin"),
        ("/opt/conda/bin:/bin", None, "/opt/venv/bin:/opt/conda/bin:/bin"),
        ("/bin", "/mine", "/opt/venv/bin:/mine"),
        ("/bin", "/mine:/opt/venv/bin", "/mine:/opt/venv/bin"),
    ],
)
def test_path_begins_with_the_environment_unless_the_target_has_it_elsewhere(base, ours, made):
    image = build(
        base_image(base_platform(Env=[f"PATH={base}"])), env={"PATH": ours} if ours else {}
    )
    assert f"PATH={made}" in env(image)


@pytest.mark.parametrize(
    "name",
    [
        *("PYTHONPATH", "PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONUSERBASE", "PYTHONSAFEPATH"),
        *("PYTHONSTARTUP", "PYTHONINSPECT"),
    ],
)
def test_a_bases_variable_that_moves_modules_is_left_out_and_a_targets_is_kept(name):
    base = base_image(base_platform(Env=[f"{name}=/base", "PYTHONUNBUFFERED=1", "CONDA_PREFIX=/c"]))
    assert not [one for one in env(build(base)) if one.startswith(name)]
    assert {"PYTHONUNBUFFERED=1", "CONDA_PREFIX=/c"} <= set(env(build(base)))
    assert f"{name}=/ours" in env(build(base, env={name: "/ours"}))


def test_what_the_base_would_run_is_not_what_we_do_but_the_rest_of_its_config_holds():
    base = base_image(
        base_platform(
            Entrypoint=["/old"],
            Cmd=["python3"],
            Healthcheck={"Test": ["NONE"]},
            OnBuild=["RUN x"],
            Image="sha256:old",
            ArgsEscaped=True,
            User="root",
            WorkingDir="/old",
            ExposedPorts={"80/tcp": {}},
            Volumes={"/data": {}},
            StopSignal="SIGINT",
        )
    )
    made = config(build(base, user="7:8", workdir="/w"))["config"]
    assert made.pop("Env")
    assert made == {
        "Entrypoint": list(ENTRYPOINT),
        "User": "7:8",
        "WorkingDir": "/w",
        "Labels": {},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "StopSignal": "SIGINT",
    }


def test_a_base_may_have_no_settings_at_all():
    base = base_image(base_platform(more={"config": None}))
    assert config(build(base))["config"]["WorkingDir"] == "/home/flyte/task"


def test_labels_come_on_top_of_the_bases_and_are_annotations_with_the_base():
    base = base_image(base_platform(Labels={"maintainer": "them", "a": "theirs"}))
    image = build(base, labels={"a": "ours"})
    assert config(image)["config"]["Labels"] == {"maintainer": "them", "a": "ours"}
    assert manifest(image)["annotations"] == {
        "a": "ours",
        BASE_NAME: PYTHON_IMAGE,
        BASE_DIGEST: base.platforms[0].digest,
    }


@pytest.mark.parametrize("production", [True, False])
def test_an_image_on_a_base_of_this_machine_says_so(production):
    base = base_image(
        base_platform("linux/amd64"), base_platform("linux/arm64"), name=None, production=production
    )
    image = build(base)
    marked = [
        config(image)["config"]["Labels"],
        manifest(image)["annotations"],
        document(image, image.digest).get("annotations", {}),
    ]
    assert [NOT_FOR_PRODUCTION in one for one in marked] == [not production] * 3
    assert BASE_NAME not in manifest(image)["annotations"]


LAYER = {"created": "2024-05-01T00:00:00Z", "created_by": "COPY x"}
EMPTY = {"created_by": "ENV A=b", "empty_layer": True}


@pytest.mark.parametrize(
    ("history", "kept"),
    [
        ([LAYER, EMPTY, LAYER], True),
        ([EMPTY, LAYER, LAYER, EMPTY], True),
        # One that does not account for each layer misleads tools: docker refuses it.
        ([LAYER], False),
        ([LAYER, LAYER, LAYER], False),
        ([], False),
        (None, False),
        ("x", False),
    ],
)
def test_the_history_accounts_for_each_layer(history, kept):
    base = base_image(base_platform(more={"history": history}))
    made = config(build(base, layer("numpy 2.1"), layer("code")))["history"]
    ours = [
        {"created": CREATED, "created_by": f"pants-flyte: {what}"} for what in ("numpy 2.1", "code")
    ]
    below = history if kept else [{"created": CREATED, "created_by": "base image"}] * 2
    assert made == [*below, *ours]


def test_nothing_tells_when_it_was_built_even_if_the_base_does():
    base = base_image(base_platform(more={"created": "2026-01-01T00:00:00Z", "author": "them"}))
    assert config(build(base))["created"] == "1970-01-01T00:00:00Z"


# --- determinism ----------------------------------------------------------------------------------

VARIABLES = {"B": "1", "A": "2", "C": "3"}


@given(st.permutations(list(VARIABLES.items())), st.permutations(list(VARIABLES.items())))
def test_equal_inputs_give_equal_bytes(variables, labels):
    base = base_image()
    one = build(base, layer("code"), env=VARIABLES, labels=VARIABLES)
    two = build(
        BaseImage.from_json(base.to_json(), "lock"),
        layer("code"),
        env=dict(variables),
        labels=dict(labels),
    )
    assert one == two


@pytest.mark.parametrize(
    "change",
    [
        {"env": {"A": "b"}},
        {"labels": {"a": "b"}},
        {"user": "0:0"},
        {"workdir": "/w"},
        {"entrypoint": ("a",)},
    ],
)
def test_any_setting_is_in_the_digest(change):
    assert build(None, **change).digest != build().digest


def test_a_changed_layer_changes_the_config_and_the_manifest_alone():
    one, two = build(None, layer("a"), layer("b")), build(None, layer("a"), layer("c"))
    kept = set(one.documents.items()) & set(two.documents.items())
    assert {path for path, _ in kept} == {"oci-layout"}
    assert len(one.documents) == len(two.documents) == 4
    before, after = manifest(one)["layers"], manifest(two)["layers"]
    assert before[:-1] == after[:-1]
