"""A base image out of a layout or archive: every form that tools write, and nothing from a hostile one."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import tarfile

import pytest

from flyte_pack.image.base import BaseImage
from flyte_pack.oci.docker_archive import write_archive
from flyte_pack.oci.layout import open_layout
from flyte_pack.oci.model import OCI_LAYER_GZIP, Platform
from tests.support.containers import need
from tests.support.images import (
    AMD64,
    flyte_pack_environment,
    image_on,
    layout_of,
    run_flyte_pack,
    sha256,
    special,
    tar_of,
)
from tests.support.processes import PRINT_PEAK_MEMORY

ADDRESS = "images:base"
ARM64 = Platform("linux", "arm64")
LAYERS = (tar_of(("a", b"1")), tar_of(("b", b"2" * 5000), ("a", b"3")))


def read(source, out, *options, platforms=("linux/amd64",), **run_options):
    wanted = [word for platform in platforms for word in ("--platform", platform)]
    arguments = [
        "--source",
        str(source),
        *wanted,
        "--out",
        str(out),
        "--address",
        ADDRESS,
        *options,
    ]
    return run_flyte_pack("flyte_pack.image.local_base", *arguments, **run_options)


def base_of(source, out, *options, **more) -> BaseImage:
    done = read(source, out, *options, **more)
    assert done.returncode == 0, done.stderr
    return BaseImage.from_json((out / "base.json").read_bytes(), "base.json")


def blobs(out):
    return {path.name: path.read_bytes() for path in (out / "blobs/sha256").iterdir()}


def assert_whole(image: BaseImage, out) -> None:
    """All that the base names is there, and is what it says; each layer inflates to what the config says."""
    found = blobs(out)
    assert all(sha256(data) == f"sha256:{name}" for name, data in found.items())
    for platform in image.platforms:
        diff_ids = platform.parsed_config.diff_ids
        assert len(diff_ids) == len(platform.layers)
        for layer, diff_id in zip(platform.layers, diff_ids):
            data = found[layer.digest.partition(":")[2]]
            assert len(data) == layer.size
            assert sha256(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data) == diff_id
        assert found[platform.parsed_manifest.config.digest.partition(":")[2]] == platform.config
        assert found[platform.digest.partition(":")[2]] == platform.manifest
    assert image.name is None
    assert image.production


def tar_directory(directory, path):
    with tarfile.open(path, "w") as archive:
        for child in sorted(os.listdir(directory)):
            archive.add(directory / child, child)
    return path


def gzipped(path):
    path.write_bytes(gzip.compress(path.read_bytes(), 1))
    return path


def docker_archive(path, layers=LAYERS, *, config=None, entries=None, files=None, links=()):
    """As docker save wrote them before version 25: `<id>/layer.tar`, `<config>.json`, manifest.json."""
    document = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [*map(sha256, layers)]},
            **(config or {}),
        }
    ).encode()
    name = f"{sha256(document)[7:]}.json"
    paths = [f"{number}/layer.tar" for number in range(len(layers))]
    if entries is None:
        entries = [{"Config": name, "RepoTags": ["r.test/x:1"], "Layers": paths}]
    contents = {
        name: document,
        **dict(zip(paths, layers)),
        "manifest.json": json.dumps(entries).encode(),
        **(files or {}),
    }
    members = [(p, data) for p, data in contents.items() if p not in dict(links)]
    path.write_bytes(tar_of(*members, *links))
    return path


# --- what tools write ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(host_base, tmp_path_factory):
    """A real image, as a layout."""
    return image_on(host_base, tmp_path_factory.mktemp("small") / "layout", user="0")


def skopeo(source, target):
    need("skopeo")
    subprocess.run(["skopeo", "copy", "--quiet", source, target], check=True, capture_output=True)


def our_archive(small, tmp, docker):
    layout = open_layout(str(small))
    write_archive(layout, layout.image(None), ["r.test/x:1"], str(tmp / "a.tar"))
    return tmp / "a.tar"


def docker_saved(small, tmp, docker):
    docker("load", "--input", str(our_archive(small, tmp, docker)))
    docker("save", "--output", str(tmp / "saved.tar"), "r.test/x:1")
    return tmp / "saved.tar"


def written_by_skopeo(transport):
    def write(small, tmp, docker):
        skopeo(
            f"oci:{small}",
            f"{transport}:{tmp / 'made'}" + ("" if transport == "oci" else ":r.test/x:1"),
        )
        return tmp / "made"

    return write


FORMS = {
    "a layout": lambda small, tmp, docker: small,
    "a layout in a tar": lambda small, tmp, docker: tar_directory(small, tmp / "a.tar"),
    "a layout in a tar.gz": lambda small, tmp, docker: gzipped(
        tar_directory(small, tmp / "a.tar.gz")
    ),
    "our own archive": our_archive,
    "docker save": docker_saved,
    "docker save, gzip'd": lambda small, tmp, docker: gzipped(docker_saved(small, tmp, docker)),
    "skopeo's layout": written_by_skopeo("oci"),
    "skopeo's oci-archive": written_by_skopeo("oci-archive"),
    "skopeo's docker-archive": written_by_skopeo("docker-archive"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_config_and_content(form, small, docker, tmp_path):
    source = FORMS[form](small, tmp_path, docker)
    image = base_of(source, tmp_path / "out", "--python", "/usr/local/bin/python3.9")
    assert_whole(image, tmp_path / "out")
    expected = open_layout(str(small)).image(None)
    assert image.platforms[0].config == expected.config
    assert image.python_path == "/usr/local/bin/python3.9"
    assert sorted(os.listdir(tmp_path / "out")) == ["base.json", "blobs"]


def test_a_layout_keeps_its_manifest_and_blobs(small, tmp_path):
    image = base_of(small, tmp_path / "out")
    top = open_layout(str(small)).image(None).descriptor
    assert image.digest == top.digest
    assert blobs(tmp_path / "out").items() <= blobs(small).items()
    assert_whole(image, tmp_path / "out")


def test_plain_layers_are_compressed_the_same_every_time(tmp_path):
    source = docker_archive(tmp_path / "saved.tar")
    image = base_of(source, tmp_path / "one")
    assert_whole(image, tmp_path / "one")
    assert {layer.media_type for layer in image.platforms[0].layers} == {OCI_LAYER_GZIP}
    base_of(source, tmp_path / "some where" / "two", umask=0o077, env={"PYTHONHASHSEED": "3"})
    assert (tmp_path / "one/base.json").read_bytes() == (
        tmp_path / "some where/two/base.json"
    ).read_bytes()
    assert blobs(tmp_path / "one") == blobs(tmp_path / "some where" / "two")


def test_equal_layers_may_be_links_to_one_another(tmp_path):
    """As docker save wrote them."""
    layers = (LAYERS[0], LAYERS[1], LAYERS[0])
    source = docker_archive(tmp_path / "a.tar", layers, links=[("2/layer.tar", "../0/layer.tar")])
    image = base_of(source, tmp_path / "out")
    assert_whole(image, tmp_path / "out")
    assert len(image.platforms[0].layers) == 3


def test_gzipped_layers_of_a_docker_archive_are_taken_as_they_are(tmp_path):
    packed = {f"{n}/layer.tar": gzip.compress(layer, mtime=0) for n, layer in enumerate(LAYERS)}
    image = base_of(docker_archive(tmp_path / "a.tar", files=packed), tmp_path / "out")
    assert_whole(image, tmp_path / "out")
    assert [layer.digest for layer in image.platforms[0].layers] == [*map(sha256, packed.values())]


# --- which image ---------------------------------------------------------------------------------


@pytest.fixture
def two_platforms(tmp_path):
    place = layout_of(tmp_path / "layout", LAYERS, names=["v1"])
    return layout_of(place, LAYERS[:1], names=["v1"], platform=ARM64)


def test_the_wanted_platforms_are_taken(two_platforms, tmp_path):
    both = base_of(two_platforms, tmp_path / "both", platforms=("linux/amd64", "linux/arm64"))
    assert {p.platform for p in both.platforms} == {AMD64, ARM64}
    assert both.digest == sha256(both.index)
    assert_whole(both, tmp_path / "both")
    one = base_of(two_platforms, tmp_path / "one", platforms=("linux/arm64/v8",))
    assert [p.platform for p in one.platforms] == [ARM64]
    assert one.index is None
    assert_whole(one, tmp_path / "one")


def nested(layout):
    """Have the images below an index of their own, as builders of several platforms write it."""
    data = (layout / "index.json").read_bytes()
    (layout / "blobs/sha256" / sha256(data)[7:]).write_bytes(data)
    media_type = "application/vnd.oci.image.index.v1+json"
    attested = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(b""),
        "size": 9,
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    document = {**json.loads(data), "manifests": [*json.loads(data)["manifests"], attested]}
    data = json.dumps(document).encode()
    (layout / "blobs/sha256" / sha256(data)[7:]).write_bytes(data)
    top = {"mediaType": media_type, "digest": sha256(data), "size": len(data)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return sha256(data)


def test_an_index_of_platforms_stays_what_they_hang_together_by(two_platforms, tmp_path):
    digest = nested(two_platforms)
    image = base_of(two_platforms, tmp_path / "out", platforms=("linux/amd64", "linux/arm64"))
    assert image.digest == digest
    assert_whole(image, tmp_path / "out")


def test_of_several_images_the_named_one_is_taken(tmp_path):
    place = layout_of(tmp_path / "layout", LAYERS[:1], names=["one"])
    layout_of(place, LAYERS[1:], names=["two"])
    image = base_of(place, tmp_path / "out", "--ref", "two")
    assert image.platforms[0].layers[0].digest == sha256(LAYERS[1])
    entries = [
        {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["0/layer.tar"]},
        {"Config": "d.json", "RepoTags": ["b:1"], "Layers": ["1/layer.tar"]},
    ]
    configs = {
        f"{name}.json": json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [sha256(layer)]}}
        ).encode()
        for name, layer in zip("cd", LAYERS)
    }
    source = docker_archive(tmp_path / "a.tar", entries=entries, files=configs)
    image = base_of(source, tmp_path / "docker", "--ref", "b:1")
    assert image.platforms[0].config == configs["d.json"]
    assert_whole(image, tmp_path / "docker")
    done = read(source, tmp_path / "neither")
    assert done.returncode == 1
    assert "holds 2 images" in done.stderr
    assert "a:1, b:1" in done.stderr


# --- what is refused -----------------------------------------------------------------------------


def layout_with(change):
    """A layout that `change` damages."""

    def make(tmp_path):
        place = layout_of(tmp_path / "layout", LAYERS, names=["v1"])
        change(place)
        return place

    return make


def layer_blob(place):
    return place / "blobs/sha256" / sha256(LAYERS[0])[7:]


def manifest_blob(place):
    top = json.loads((place / "index.json").read_bytes())["manifests"][0]
    return place / "blobs/sha256" / top["digest"][7:]


def link_instead(place):
    target = place.parent / "elsewhere"
    os.rename(layer_blob(place), target)
    os.symlink(target, layer_blob(place))


def add_image(place):
    layout_of(place, LAYERS[:1], names=["v2"])


def index_with(**fields):
    def change(place):
        document = json.loads((place / "index.json").read_bytes())
        document["manifests"][0].update(fields)
        (place / "index.json").write_text(json.dumps(document))

    return change


def wrong_diff_id(tmp_path):
    return layout_of(tmp_path / "layout", LAYERS, diff_ids=[sha256(b"1"), sha256(b"2")])


def archive(*members):
    def make(tmp_path):
        (tmp_path / "a.tar").write_bytes(tar_of(*members))
        return tmp_path / "a.tar"

    return make


def raw(data):
    def make(tmp_path):
        (tmp_path / "a.tar").write_bytes(data(tmp_path) if callable(data) else data)
        return tmp_path / "a.tar"

    return make


def saved(**changes):
    return lambda tmp_path: docker_archive(tmp_path / "a.tar", **changes)


def whole_tar(tmp_path):
    return docker_archive(tmp_path / "whole.tar").read_bytes()


def huge_pax(tmp_path):
    """A header that says that it is 2 GiB long; the file is sparse."""
    path = tmp_path / "a.tar"
    info = special("x", b"x")
    info.size = 2 << 30
    path.write_bytes(info.tobuf())
    os.truncate(path, 3 << 30)
    return path


REFUSED = {
    "nothing there": (lambda tmp: tmp / "nothing", "No such file"),
    "an empty directory": (lambda tmp: tmp, "no oci-layout"),
    "another version of layouts": (
        layout_with(lambda p: (p / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')),
        "version '2.0.0', not 1.0.0",
    ),
    "no index": (layout_with(lambda p: (p / "index.json").unlink()), "no index.json"),
    "an index that is no JSON": (
        layout_with(lambda p: (p / "index.json").write_text("{")),
        "not a JSON document",
    ),
    "an index without end": (
        layout_with(lambda p: (p / "index.json").write_text("[" * 100_000)),
        "not a JSON document",
    ),
    "a huge index": (
        layout_with(lambda p: (p / "index.json").write_text(" " * (5 << 20))),
        "too many for a document",
    ),
    "no image": (
        layout_with(lambda p: (p / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')),
        "holds no image",
    ),
    "a digest that leads out": (
        layout_with(index_with(digest="sha256:../../../../etc/passwd")),
        "not sha256: and 64",
    ),
    "another algorithm": (
        layout_with(index_with(digest="sha512:" + "0" * 128)),
        "not sha256: and 64",
    ),
    "a manifest of another size": (
        layout_with(index_with(size=3)),
        "not what its digest and size say",
    ),
    "a manifest that is huge, it says": (
        layout_with(index_with(size=1 << 40)),
        "too many for a document",
    ),
    "no manifest": (layout_with(lambda p: manifest_blob(p).unlink()), "is missing in the layout"),
    "another manifest": (
        layout_with(lambda p: manifest_blob(p).write_text("{}")),
        "not what its digest",
    ),
    "an artifact, no image": (
        layout_with(index_with(mediaType="application/vnd.example+json")),
        "no image or index",
    ),
    "no layer (a sparse layout)": (
        layout_with(lambda p: layer_blob(p).unlink()),
        "is missing in the layout",
    ),
    "another layer": (
        layout_with(lambda p: layer_blob(p).write_bytes(bytes(len(LAYERS[0])))),
        "not what its digest",
    ),
    "a longer layer": (
        layout_with(lambda p: layer_blob(p).write_bytes(LAYERS[0] + b"x")),
        "not what its digest",
    ),
    "a link for a layer": (layout_with(link_instead), "is a symbolic link"),
    "a pipe for a layer": (
        layout_with(lambda p: (layer_blob(p).unlink(), os.mkfifo(layer_blob(p)))),
        "not a regular file",
    ),
    "layers that are not the config's": (wrong_diff_id, "where the config has"),
    "several images for the platform": (layout_with(add_image), "holds 2 images for linux/amd64"),
    "a platform that it lacks": (
        layout_with(lambda p: index_with(platform={"os": "linux", "architecture": "s390x"})(p)),
        "no image for linux/amd64; it has: linux/s390x",
    ),
    "an empty file": (raw(b""), "not a readable tar archive"),
    "text": (raw(b"hello\n" * 500), "not a readable tar archive"),
    "gzip'd text": (raw(gzip.compress(b"hello\n" * 500)), "not a readable tar archive"),
    "truncated gzip": (raw(lambda tmp: gzip.compress(whole_tar(tmp))[:-20]), "truncated"),
    "a tar cut in a layer": (
        raw(lambda tmp: whole_tar(tmp)[:3000]),
        "truncated|missing|not a readable tar archive",
    ),
    "a tar of other things": (archive(("README", b"hello")), "neither an image layout nor"),
    "a path that leads out": (archive(("../x", b"1")), "leads out of the archive"),
    "an absolute path": (archive(("/etc/x", b"1")), "leads out of the archive"),
    "a link that leads out": (
        saved(links=[("0/layer.tar", "../../../etc/passwd")]),
        "leads out of the archive",
    ),
    "an absolute link": (saved(links=[("0/layer.tar", "/etc/passwd")]), "leads out of the archive"),
    "a link to nothing": (saved(links=[("0/layer.tar", "nothing")]), "0/layer.tar is missing"),
    "links without end": (
        saved(links=[("0/layer.tar", "../1/layer.tar"), ("1/layer.tar", "../0/layer.tar")]),
        "leads to no end",
    ),
    "a device": (
        archive(("manifest.json", b"[]"), special("x", tarfile.CHRTYPE)),
        "neither a file nor a directory",
    ),
    "a member twice": (archive(("manifest.json", b"[]"), ("manifest.json", b"[]")), "twice"),
    "a header without end": (huge_pax, "header of"),
    "no list of images": (saved(entries={"a": 1}), "not as `docker save` writes it"),
    "an empty list of images": (saved(entries=[]), "no image in it"),
    "layers of another type": (
        saved(entries=[{"Config": "c", "Layers": [1]}]),
        "not as `docker save` writes it",
    ),
    "no config": (
        saved(entries=[{"Config": "../../etc/passwd", "Layers": []}]),
        "etc/passwd is missing",
    ),
    "a layer that is missing": (
        saved(files={}, links=[("1/layer.tar", "gone")]),
        "1/layer.tar is missing",
    ),
    "a saved layer that is not the config's": (
        saved(files={"0/layer.tar": LAYERS[1]}),
        "where the config has",
    ),
    "a config with other layers": (
        saved(config={"rootfs": {"diff_ids": []}}),
        "differ in their layers",
    ),
    "a config of another platform": (
        saved(config={"architecture": "arm64"}),
        "no image for linux/amd64; it has: linux/arm64",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_used_is_refused_by_the_targets_address_and_leaves_nothing(case, tmp_path):
    source, message = REFUSED[case]
    done = read(source(tmp_path), tmp_path / "out")
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith(f"{ADDRESS}: ")
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 1000
    assert not (tmp_path / "out").exists()


def test_a_name_that_no_image_has_is_answered_with_those_that_there_are(two_platforms, tmp_path):
    done = read(two_platforms, tmp_path / "out", "--ref", "v9")
    assert done.returncode == 1
    assert "no image in it is named 'v9'; the names: v1" in done.stderr


def test_layers_are_not_held_in_memory(tmp_path):
    """A layer of 300 MB, read by a process that never has half of that."""
    source = docker_archive(tmp_path / "a.tar", [tar_of(("zeros", bytes(300 << 20)))])
    code = (
        "import sys; from flyte_pack.image.local_base import main\n"
        f"code = main(sys.argv[1:])\n{PRINT_PEAK_MEMORY}\nsys.exit(code)"
    )
    options = ["--source", str(source), "--out", str(tmp_path / "out"), "--address", ADDRESS]
    done = subprocess.run(
        [sys.executable, "-c", code, "--platform", "linux/amd64", *options],
        env=flyte_pack_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150 << 20
