"""One image for two platforms, made on a machine of one: wheels of both, on a base of both, as an
index.

The base is an index of two images without content, which nothing runs: what matters is what goes on
top.
"""

from __future__ import annotations

import json
import struct
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from tests.support.build_root import BuildRoot
from tests.support.containers import need
from tests.support.monorepo import monorepo
from tests.support.packed_images import PackedImage, read_images
from tests.support.registries import AMD64, ARM64, RealRegistry, make_image, real_registry

PLATFORMS = ["linux/amd64", "linux/arm64"]
# e_machine of the ELF header (elf.h).
MACHINES = {"linux/amd64": 62, "linux/arm64": 183}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def example(
    registry: RealRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BuildRoot]:
    """With its image on the index, which is in the registry; packaged."""
    need("skopeo")
    base = tmp_path_factory.mktemp("base") / "layout"
    make_image(base, b"the base's", platforms=(AMD64, ARM64))
    name = f"{registry.host}/base:1"
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{base}", f"docker://{name}")
    more = {
        "images/BUILD": f"""
            flyte_base_image(
                name="both", image="{name}", python="/usr/bin/python3.12", platforms={PLATFORMS}
            )
            """,
        "services/ml/BUILD": """
            flyte_image(name="both", base="images:both", dependencies=[":train"], code=True)
            flyte_image(
                name="arm", base="images:both", dependencies=[":train"], platforms=["linux/arm64"]
            )
            """,
    }
    with monorepo(more) as root:
        root.pants("run", "images:both", "--", "lock")
        root.pants("package", "services/ml:both", "services/ml:arm")
        yield root


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def machines(image: PackedImage) -> set[int]:
    """Which processors the compiled files in our layers are for."""
    found = set()
    for layer in image.own_layers:
        assert layer.blob is not None
        with tarfile.open(layer.blob) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                head = file.read(20) if file else b""
                if head.startswith(b"\x7fELF"):
                    found.add(struct.unpack_from("<H", head, 18)[0])
    return found


def test_an_index_holds_an_image_for_each_with_its_own_wheels(example: BuildRoot) -> None:
    images = read_images(example.path / "dist" / "services.ml" / "both")
    assert [image.platform for image in images] == PLATFORMS
    for image in images:
        assert machines(image) == {MACHINES[image.platform]}
        names = [layer.what.partition(" ")[0] for layer in image.own_layers]
        assert {"numpy", "flyte", "flyte-shim"} <= set(names)


def test_what_does_not_depend_on_the_processor_is_one_blob_for_both(example: BuildRoot) -> None:
    amd64, arm64 = read_images(example.path / "dist" / "services.ml" / "both")
    shared = {layer.digest for layer in amd64.layers} & {layer.digest for layer in arm64.layers}
    names = {layer.what.partition(" ")[0] for layer in amd64.layers if layer.digest in shared}
    assert {"flyte", "flyte-shim", "rich"} <= names
    assert not {"numpy", "cryptography"} & names
    assert amd64.layers[-1] == arm64.layers[-1]  # the code


def test_an_image_for_one_of_the_bases_platforms_is_no_index(example: BuildRoot) -> None:
    (image,) = read_images(example.path / "dist" / "services.ml" / "arm")
    assert image.platform == "linux/arm64"
    assert machines(image) == {MACHINES["linux/arm64"]}


def test_the_index_is_pushed_whole_and_read_for_either_platform(
    example: BuildRoot, registry: RealRegistry
) -> None:
    to = f"--flyte-registries=['{registry.host}']"
    example.pants(to, "--flyte-image-tags=['1']", "publish", "services/ml:both")
    layout = example.path / "dist" / "services.ml" / "both"
    (top,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert registry.tag("services/ml/both", "1") == top["digest"]
    assert registry.holds("services/ml/both", top["digest"])
    for image in read_images(layout):
        architecture = image.platform.rpartition("/")[2]
        seen = json.loads(
            skopeo(
                *("inspect", "--tls-verify=false", f"--override-arch={architecture}"),
                f"docker://{registry.host}/services/ml/both:1",
            )
        )
        assert seen["Architecture"] == architecture
        assert seen["Layers"] == [layer.digest for layer in image.layers]
