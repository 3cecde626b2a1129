"""Layouts and archives are what skopeo, umoci and docker take, are the same every time, and are read strictly."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile

import pytest

from flyte_pack.oci.docker_archive import write_archive
from flyte_pack.oci.layout import open_layout
from flyte_pack.oci.model import InvalidImage, Platform
from tests.support.containers import need
from tests.support.images import AMD64, image_on, layout_of, run_flyte_pack, sha256, tar_of

TAG = "registry.test:5000/team/app:v1"
LAYERS = (tar_of(("a", b"1")), tar_of(("b", b"2")))
ARM64 = Platform("linux", "arm64")


@pytest.fixture(scope="module")
def layout(host_base, tmp_path_factory):
    """A real image, for a user who is not root."""

    def add(layer):
        layer.add_directory("home/flyte/task", owner=(1000, 1000))
        layer.add_bytes("home/flyte/task/hello.py", b"print('hello')\n")

    return image_on(host_base, tmp_path_factory.mktemp("layout") / "image", add)


@pytest.fixture(scope="module")
def archive(layout, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "image.tar"
    found = open_layout(str(layout))
    write_archive(found, found.image(None), [TAG], str(path))
    return path


def skopeo(reference):
    need("skopeo")
    command = ["skopeo", "inspect", "--config", reference]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def config_of(layout):
    return json.loads(open_layout(str(layout)).image(None).config)


@pytest.mark.parametrize(
    "transport",
    ["oci-archive:{}", "oci-archive:{}:" + TAG, "docker-archive:{}", "docker-archive:{}:" + TAG],
)
def test_skopeo_reads_the_archive_both_ways(transport, layout, archive):
    assert skopeo(transport.format(archive))["rootfs"] == config_of(layout)["rootfs"]


def test_skopeo_reads_the_layout(layout):
    found, expected = skopeo(f"oci:{layout}"), config_of(layout)
    assert found["rootfs"] == expected["rootfs"]
    assert found["config"].items() <= expected["config"].items()


def test_docker_loads_and_runs_the_archive(layout, archive, docker):
    docker.clear()  # an engine that has the layers does not look at the archive's
    assert TAG in docker("load", "--input", str(archive)).stdout
    assert (
        docker("image", "inspect", "--format", "{{.Id}}", TAG).stdout.strip()
        == open_layout(str(layout)).image(None).manifest.config.digest
    )
    code = "import ctypes, json, os, sqlite3, ssl, zlib; print(os.getuid(), os.getgid(), os.getcwd(), os.environ['HOME'])"
    done = docker("run", "--rm", "--network", "none", TAG, "python3", "-c", code)
    assert done.stdout.split() == ["1000", "1000", "/home/flyte/task", "/home/flyte"]
    assert (
        docker("run", "--rm", "--network", "none", TAG, "python3", "hello.py").stdout == "hello\n"
    )


def test_umoci_unpacks_the_completed_layout(layout, tmp_path):
    need("umoci")
    done = run_flyte_pack(
        "flyte_pack.image.run",
        *(
            "--layout",
            str(layout),
            "--address",
            "a:b",
            "--",
            "--complete",
            str(tmp_path / "whole"),
        ),
    )
    assert done.returncode == 0, done.stderr
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    image = f"{tmp_path / 'whole'}:latest"
    subprocess.run(
        ["umoci", "unpack", *rootless, "--image", image, str(tmp_path / "x")],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "x/rootfs/home/flyte/task/hello.py").read_text() == "print('hello')\n"
    assert (
        open_layout(str(tmp_path / "whole")).image(None).descriptor.digest
        == open_layout(str(layout)).image(None).descriptor.digest
    )


def test_the_archive_is_the_same_every_time(layout, tmp_path):
    archives = []
    options = ["--layout", str(layout), "--address", "a:b"]
    for number, mask in enumerate((0o022, 0o077)):
        place = tmp_path / f"some where {number}" / "image.tar"
        done = run_flyte_pack(
            "flyte_pack.image.run",
            *options,
            "--",
            "--archive",
            str(place),
            umask=mask,
            env={"TZ": "Asia/Tokyo"},
        )
        assert done.returncode == 0, done.stderr
        archives.append(place)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as found:
        assert {(m.uid, m.gid, m.mtime) for m in found} == {(0, 0, 0)}


def refused(layout, tmp_path, **options):
    with pytest.raises(InvalidImage) as caught:
        write_archive(layout, layout.image(None), [TAG], str(tmp_path / "image.tar"))
    assert os.listdir(tmp_path) == ["layout"]
    return str(caught.value)


def test_an_archive_is_not_made_of_half_an_image(tmp_path):
    place = layout_of(tmp_path / "layout", LAYERS)
    (place / "blobs/sha256" / sha256(LAYERS[0])[7:]).unlink()
    assert "complete it first" in refused(open_layout(str(place)), tmp_path)


def test_an_archive_is_not_made_of_damaged_layers(tmp_path):
    place = layout_of(tmp_path / "layout", LAYERS)
    (place / "blobs/sha256" / sha256(LAYERS[1])[7:]).write_bytes(bytes(len(LAYERS[1])))
    assert "not what its digest and size say" in refused(open_layout(str(place)), tmp_path)


def test_an_archive_is_not_made_of_layers_that_docker_can_not_load(tmp_path):
    place = layout_of(
        tmp_path / "layout", LAYERS, media_type="application/vnd.oci.image.layer.v1.tar+zstd"
    )
    assert "`docker load` does not take the layer" in refused(open_layout(str(place)), tmp_path)


def test_absent_blobs_are_told_apart_from_wrong_ones(tmp_path):
    place = layout_of(tmp_path / "layout", LAYERS)
    blob = place / "blobs/sha256" / sha256(LAYERS[0])[7:]
    layout = open_layout(str(place))
    layers = layout.image(None).manifest.layers
    assert layout.missing(layers) == ()
    blob.write_bytes(b"short")
    with pytest.raises(InvalidImage, match="has 5 bytes, not 10,240"):
        layout.missing(layers)
    blob.unlink()
    assert layout.missing(layers) == layers[:1]


def test_the_image_of_a_platform_is_found(tmp_path):
    place = layout_of(tmp_path / "layout", LAYERS[:1])
    layout_of(place, LAYERS[1:], platform=ARM64)
    layout = open_layout(str(place))
    assert [layout.image(p).manifest.layers[0].digest for p in (AMD64, ARM64)] == [
        *map(sha256, LAYERS)
    ]
    with pytest.raises(
        InvalidImage, match="no image for linux/s390x; there are: linux/amd64, linux/arm64"
    ):
        layout.image(Platform("linux", "s390x"))
    with pytest.raises(InvalidImage, match="say which platform, of: linux/amd64, linux/arm64"):
        layout.image(None)


def test_indexes_in_indexes_come_to_an_end(tmp_path):
    place = layout_of(tmp_path / "layout", LAYERS)
    media_type = "application/vnd.oci.image.index.v1+json"
    for _ in range(10):
        data = (place / "index.json").read_bytes()
        (place / "blobs/sha256" / sha256(data)[7:]).write_bytes(data)
        top = {"mediaType": media_type, "digest": sha256(data), "size": len(data)}
        (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    with pytest.raises(InvalidImage, match="nested too deeply"):
        open_layout(str(place)).image(None)
