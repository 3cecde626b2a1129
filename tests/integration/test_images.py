"""The example's images as a new user has them: `./pants package ::` in a fresh clone, and the real
tools that take them.

What the layers hold is kept in `goldens/image-layers.txt`, to be reviewed as a diff. After a change
that is meant, `UPDATE_GOLDENS=1` in the environment of this test writes it anew, into this
checkout:

    UPDATE_GOLDENS=1 pytest tests/integration/test_images.py -k listing
"""

from __future__ import annotations

import difflib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bases import base_image
from tests.support.build_root import BuildRoot
from tests.support.containers import DockerEngine, need
from tests.support.monorepo import edited, files_in, monorepo
from tests.support.packed_images import PackedImage, listing, read_image

GOLDEN = Path(__file__).with_name("goldens") / "image-layers.txt"
TREND = "libs/features/trend.py"

# On top of the example: an image that holds its code, and one that is the same on every machine, on
# a base that nobody has (packaging needs no layer of it).
MORE = {
    "images/BUILD": """
        flyte_base_image(name="pinned", image="docker.io/library/python:3.12-slim")
        """,
    "images/pinned.lock.json": base_image().to_json().decode(),
    "services/ml/BUILD": """
        for name, base, bytecode in (("embedded", "host", True), ("pinned", "pinned", False)):
            flyte_image(
                name=name,
                base=f"images:{base}",
                dependencies=[":train", ":fit"],
                code=True,
                bytecode=bytecode,
            )
        """,
}


@pytest.fixture(scope="module")
def example() -> Iterator[BuildRoot]:
    with monorepo(MORE) as root:
        root.pants("package", "::")
        yield root


@pytest.fixture(scope="module")
def layout(example: BuildRoot) -> Path:
    return example.path / "dist" / "services.ml" / "image"


@pytest.fixture(scope="module")
def image(layout: Path) -> PackedImage:
    return read_image(layout)


def tool(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the tools that take it ----------------------------------------------------------------------


def test_the_image_lies_beside_the_bundles(example: BuildRoot, layout: Path) -> None:
    made = {path.name for path in (example.path / "dist" / "services.ml").iterdir()}
    assert {"image", "train.json", "train.tar.gz", "train.manifest.json", "fit.json"} <= made
    assert {path.name for path in layout.iterdir()} == {"blobs", "index.json", "oci-layout"}


def test_skopeo_reads_it(layout: Path, image: PackedImage) -> None:
    need("skopeo")
    seen = json.loads(tool("skopeo", "inspect", f"oci:{layout}"))
    assert seen["Digest"] == image.digest
    assert seen["Layers"] == [layer.digest for layer in image.layers]
    assert seen["Labels"] == image.config["config"]["Labels"]


def test_it_says_what_it_is_and_that_it_is_not_for_production(image: PackedImage) -> None:
    labels, annotations = image.config["config"]["Labels"], image.manifest["annotations"]
    for place in (labels, annotations):
        assert place["org.opencontainers.image.title"] == "services/ml:image"
        assert "made of files of the machine" in place["dev.pants-flyte.not-for-production"]
    assert annotations["org.opencontainers.image.base.digest"].startswith("sha256:")
    assert image.config["created"] == "1970-01-01T00:00:00Z"


def test_an_image_on_a_pinned_base_is_marked_by_that_base_alone(example: BuildRoot) -> None:
    pinned = read_image(example.path / "dist" / "services.ml" / "pinned")
    annotations = pinned.manifest["annotations"]
    assert "dev.pants-flyte.not-for-production" not in annotations
    assert annotations["org.opencontainers.image.base.name"] == "docker.io/library/python:3.12-slim"
    assert annotations["org.opencontainers.image.base.digest"] == base_image().digest
    assert [layer.what for layer in pinned.layers if layer.blob is None] == ["", ""]


def test_umoci_unpacks_it(layout: Path, tmp_path: Path) -> None:
    need("umoci")
    bundle = tmp_path / "bundle"
    tool("umoci", "unpack", "--rootless", "--image", str(layout), str(bundle))
    root = bundle / "rootfs"
    assert (root / "opt/venv/bin/a0").read_text().startswith("#!/opt/venv/bin/python\n")
    assert (root / os.readlink(root / "opt/venv/bin/python").lstrip("/")).exists()
    process = json.loads((bundle / "config.json").read_text())["process"]
    assert process["cwd"] == "/home/flyte/task"


@pytest.fixture(scope="module")
def loaded(
    example: BuildRoot, docker: DockerEngine, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The image's name in a docker engine that had no image before."""
    docker.clear()
    archive = tmp_path_factory.mktemp("archive") / "image.tar"
    example.pants("run", "services/ml:image", "--", "--archive", str(archive))
    said = docker("load", "--input", str(archive)).stdout
    return said.rpartition("Loaded image:")[2].strip()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["a0", "--help"], "--run-base-dir"),
        (["flyte", "--version"], "Flyte SDK version: 2.12.1"),
        (["python", "-m", "flyte_shim", "--help"], "flyte-shim"),
        (["python", "-m", "pygments", "-V"], "Pygments version"),
        (["python", "-c", "import numpy; print(numpy.__file__)"], "/opt/venv/lib/python3."),
        (["id"], "uid=1000(flyte) gid=1000(flyte)"),
        (["sh", "-c", "pwd; touch here ~/home && echo $HOME"], "/home/flyte/task\n/home/flyte\n"),
        (["sh", "-c", "touch /opt/venv/x 2>/dev/null || echo read-only"], "read-only"),
    ],
)
def test_docker_runs_its_commands_as_a_plain_user_without_a_network(
    docker: DockerEngine, loaded: str, command: list[str], says: str
) -> None:
    assert says in docker("run", "--rm", "--network", "none", loaded, *command).stdout


def test_a_command_that_is_not_there_ends_as_in_a_shell(docker: DockerEngine, loaded: str) -> None:
    done = docker("run", "--rm", "--network", "none", loaded, "no-such-command", check=False)
    assert done.returncode == 127
    assert "Traceback" not in done.stderr


# --- what is in it, and what an edit moves -------------------------------------------------------


def test_the_listing_of_the_layers_is_the_one_that_was_reviewed(example: BuildRoot) -> None:
    found = listing(read_image(example.path / "dist" / "services.ml" / "pinned"))
    if os.environ.get("UPDATE_GOLDENS"):
        GOLDEN.write_text(found)
    kept = GOLDEN.read_text()
    diff = difflib.unified_diff(
        kept.splitlines(), found.splitlines(), str(GOLDEN), "what ./pants package made", lineterm=""
    )
    assert found == kept, "\n".join(
        (*diff, "If this is meant: set UPDATE_GOLDENS=1 and run this test again; review the diff.")
    )


def test_an_image_without_code_holds_none(image: PackedImage) -> None:
    last = image.layers[-1]
    assert last.what == "working directory"
    assert [m.name for m in last.members() if not m.isdir()] == []
    assert "flyte-shim" in [layer.what for layer in image.layers]


def test_an_image_on_this_machines_python_is_compiled_by_it(image: PackedImage) -> None:
    version = "".join(
        part.partition("PYTHON_VERSION=")[2] for part in image.config["config"]["Env"]
    )
    assert f"compiled by CPython {version}" in image.layers[-3].what
    names = {member.name for layer in image.layers for member in layer.members()}
    assert any(name.endswith(".pyc") and "/site-packages/flyte_shim/" in name for name in names)


def test_the_image_with_code_has_two_layers_that_the_other_has_not(example: BuildRoot) -> None:
    dist = example.path / "dist" / "services.ml"
    without = [layer.digest for layer in read_image(dist / "image").layers]
    embedded = read_image(dist / "embedded").layers
    assert [layer.digest for layer in embedded[:-2]] == without[:-1]
    assert embedded[-2].what.startswith("bytecode of ")
    assert embedded[-1].what == "12 files of code"


def test_an_edited_line_changes_the_code_and_its_bytecode_where_it_is_held_and_nothing_else(
    example: BuildRoot,
) -> None:
    dist = example.path / "dist" / "services.ml"
    before = files_in(dist)
    layers = {layer.digest for layer in read_image(dist / "embedded").layers}
    with edited(example, TREND, "deg=1", "deg=2"):
        example.pants("package", "services/ml:image", "services/ml:embedded")
        after = files_in(dist)
        changed = read_image(dist / "embedded")
    example.pants("package", "services/ml:image", "services/ml:embedded")
    new = {name for name in after if name not in before}
    documents = (changed.digest, changed.manifest["config"]["digest"])
    edits = [layer for layer in changed.layers if layer.digest not in layers]
    assert edits == list(changed.layers[-2:])
    assert new == {
        f"embedded/blobs/{digest.replace(':', '/')}"
        for digest in (*(layer.digest for layer in edits), *documents)
    }
    assert {n for n in before if n.startswith("image/")} == {
        n for n in after if n.startswith("image/")
    }
    assert files_in(dist) == before


# --- whether it holds what the code imports ------------------------------------------------------


def test_the_smoke_test_imports_all_modules_in_the_image(example: BuildRoot) -> None:
    done = example.pants("test", "services/ml:image")
    assert "services/ml:image succeeded" in done.stderr


def test_the_smoke_test_names_the_module_the_package_and_the_line(example: BuildRoot) -> None:
    # Else the check before it refuses the code.
    more = "import numpy as np\nimport pandas  # flyte: missing-ok\n"
    with edited(example, TREND, "import numpy as np\n", more):
        done = example.pants("test", "services/ml:image", check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "FAILED libs.features.trend: ModuleNotFoundError: No module named 'pandas'" in said
    assert "/home/flyte/task/libs/features/trend.py:4" in said
    assert "FAILED services.ml.workflows" in said
    assert "Traceback" not in said
