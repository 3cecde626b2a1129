"""The same tasks from a bundle in one deployment and from an image in another, and run in that
image before it goes anywhere.

All of it is the example's own: `services:deploy` ships bundles, `services:release` pushes the image
with the code.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyte_pack.registry.referrers import fallback_tag
from tests.support.build_root import BuildRoot
from tests.support.containers import DockerEngine, need
from tests.support.faulty_registry import FaultyRegistry, faulty_registry
from tests.support.git import git
from tests.support.monorepo import files_in, monorepo
from tests.support.packed_images import read_image
from tests.support.registries import RealRegistry, real_registry

MAPPED = "registry.example.com/bikes/ml:1.4"
WITH_CODE = "home/flyte/task/services/ml/workflows.py"

# Beside the example: a deployment that mixes, and targets that can't be packaged. docopt 0.6.2 was
# published as source alone.
MORE = {
    "services/BUILD": """
        flyte_deployment(name="mixed", tasks=["services/ml:train", "services/ml:inside"])
        """,
    "services/ml/BUILD": """
        flyte_task(
            name="inside", entry_point="workflows.py:fit", image=":image", copy_style="none"
        )


        def folders(name, copy_contents_only, root_dir=None):
            flyte_image(
                name=f"{name}-image",
                base="images:host",
                dependencies=[":train"],
                source_folders=[
                    dict(src="//services", copy_contents_only=copy_contents_only),
                    dict(src="//libs"),
                    dict(src="//data"),
                ],
            )
            flyte_task(
                name=name,
                entry_point="workflows.py:train",
                image=f":{name}-image",
                copy_style="none",
                root_dir=root_dir,
            )


        folders("right", False)
        folders("contents", True)
        folders("root", False, "services")
        python_requirement(name="docopt", requirements=["docopt"], resolve="source-only")
        flyte_image(
            name="no-wheel", base="images:host", dependencies=[":docopt"], resolve="source-only"
        )
        """,
    "packages/geo/src/geo/BUILD": """
        flyte_image(
            name="folder-image",
            base="images:host",
            dependencies=["./trip.py"],
            source_folders=[dict(src="//packages/geo/src")],
        )
        flyte_task(
            name="folder", entry_point="trip.py:far", image=":folder-image", copy_style="none"
        )
        """,
    "packages/geo/src/geo/trip.py": """
        import flyte
        from geo.distance import kilometres

        env = flyte.TaskEnvironment(name="trip", image=flyte.Image.from_ref_name("trip"))


        @env.task
        def far(to: float) -> float:
            return kilometres((0.0, 0.0), (0.0, to))
        """,
    "3rdparty/python/source-only.lock": (
        "docopt==0.6.2 "
        "--hash=sha256:49b3a825280bd66b3aa83585ef59c4a8c82f2c8a522dbe754a8bc8db97c85491\n"
    ),
}


@pytest.fixture(scope="module")
def example() -> Iterator[BuildRoot]:
    resolves = "+{'source-only': '3rdparty/python/source-only.lock'}"
    with monorepo(MORE, {"PANTS_PYTHON_RESOLVES": resolves}) as root:
        yield root


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def front(registry: RealRegistry) -> Iterator[FaultyRegistry]:
    """Passes all on to the registry, and counts."""
    with faulty_registry(registry.host) as passing:
        yield passing


def train_of(root: BuildRoot, deployment: str, store: str) -> tuple[str, dict[str, Any]]:
    """The copy style of the current version, and what it records of the task `train`."""
    shown = root.pants("run", deployment, "--", "show", "--output", "json", store)
    record = json.loads(shown.stdout)["record"]
    (task,) = [task for task in record["tasks"] if task["address"] == "services/ml:train"]
    return record["copy_style"], task


# --- deploying -----------------------------------------------------------------------------------


def test_the_deployment_says_whether_code_comes_in_a_bundle_or_in_the_image(
    example: BuildRoot, registry: RealRegistry, front: FaultyRegistry, tmp_path: Path
) -> None:
    store = f"--store=file://{tmp_path / 'store'}"
    repository = f"{front.host}/bikes/services/ml/image"

    done = example.pants("run", "services:deploy", "--", store)
    style, task = train_of(example, "services:deploy", store)
    assert (style, task["image"]) == ("auto", MAPPED)
    assert Path(tmp_path / "store" / task["bundle"]["archive"]).exists()
    assert "--tgz" in task["tasks"][0]["command"]
    assert "Pack the code of services/ml:image" not in done.stderr
    assert front.requests == []

    release = ("run", "services:release", "--", store, "--registry", f"{front.host}/bikes")
    example.pants(*release, "--version", "1.4")
    style, task = train_of(example, "services:release", store)
    assert (style, task["bundle"]) == ("none", None)
    assert "--tgz" not in task["tasks"][0]["command"]
    digest = task["image"].rpartition("@")[2]
    assert task["image"] == f"{repository}@{digest}"
    assert registry.holds("bikes/services/ml/image", digest)
    assert registry.tags("bikes/services/ml/image") == {
        *(f"{digest[7:23]}-with-code", fallback_tag(digest))
    }
    example.pants("package", "services/ml:inside")
    image = read_image(example.path / "dist" / "services.ml" / "image-with-code")
    assert image.digest == digest
    assert WITH_CODE in [member.name for member in image.layers[-1].members()]

    front.requests.clear()
    again = example.pants(*release, "--version", "1.4")
    assert "Nothing to do" in again.stdout
    assert front.count("^(POST|PATCH|PUT|DELETE)") == 0
    assert 0 < len(front.requests) < 10
    assert "Nothing to do" in example.pants("run", "services:deploy", "--", store).stdout
    assert git(example.path, "status", "--porcelain") == ""  # not a line was changed for it


def test_tasks_of_one_deployment_ship_in_one_way(
    example: BuildRoot, front: FaultyRegistry, tmp_path: Path
) -> None:
    front.requests.clear()
    mixed = (
        *("run", "services:mixed", "--", f"--store=file://{tmp_path / 'store'}"),
        *("--registry", front.host, "--version", "1"),
    )
    done = example.pants(*mixed, check=False)
    assert done.returncode == 1
    assert "services/ml:inside" in done.stderr
    assert "services/ml:train" in done.stderr
    assert "--copy-style" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()
    assert front.requests == []


# --- running in the image ------------------------------------------------------------------------


def said(done: subprocess.CompletedProcess[str]) -> tuple[list[str], list[str]]:
    """What the task printed, and what it returned."""
    return (
        re.findall(r"^[a-z]+: [0-9.]+$", done.stdout, re.MULTILINE),
        re.findall(r'o0="[^"]*"', done.stdout),
    )


@pytest.fixture(scope="module")
def locally(example: BuildRoot) -> tuple[list[str], list[str]]:
    found = said(example.pants("run", "services/ml:train", "--", "--n", "3"))
    assert found == (
        ["central: 338.0", "harbour: 271.7", "market: 137.0", "university: 153.7"],
        ['o0="Busiest tomorrow: central, 338.0 rides"'],
    )
    return found


@pytest.mark.parametrize("engine", ["docker", "unpack"])
@pytest.mark.parametrize("style", ["auto", "none"])
def test_a_parent_and_its_children_run_in_the_image_as_they_do_here(
    example: BuildRoot, docker: DockerEngine, locally: tuple[list[str], list[str]],
    engine: str, style: str,
) -> None:  # fmt: skip
    need("bubblewrap")
    done = example.pants(
        *("run", "services/ml:train", "--", "--in-image", f"--engine={engine}"),
        *(f"--copy-style={style}", "--n", "3"),
        env=docker.environment,
    )
    assert said(done) == locally
    assert ("docker" if engine == "docker" else "unpacked") in done.stderr


@pytest.mark.parametrize("where", [[], ["--in-image", "--engine=docker"]])
def test_a_task_that_raises_says_so_and_fails(
    example: BuildRoot, docker: DockerEngine, where: list[str]
) -> None:
    done = example.pants(
        *("run", "services/ml:fit", "--", *where, "--station", "nowhere"),
        env=docker.environment,
        check=False,
    )
    assert done.returncode == 1
    assert "no station is called 'nowhere'" in done.stdout + done.stderr


# --- mistakes ------------------------------------------------------------------------------------


def test_folders_that_lie_where_imports_look_for_them_will_do(example: BuildRoot) -> None:
    example.pants("package", "services/ml:right", "services/ml:right-image")
    image = read_image(example.path / "dist" / "services.ml" / "right-image")
    assert WITH_CODE in [member.name for member in image.layers[-1].members()]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (
            "services/ml:contents",
            [
                "has services/ml/workflows.py at /home/flyte/task/ml/workflows.py",
                "set `copy_contents_only` to False",
            ],
        ),
        (
            "packages/geo/src/geo:folder",
            [
                "has packages/geo/src/geo/trip.py at /home/flyte/task/src/geo/trip.py",
                "set `copy_contents_only` to True",
            ],
        ),
        (
            "services/ml:root",
            ["`root_dir` is 'services'", "libs/limits/plausible.py", "leave it unset"],
        ),
        ("services/ml:no-wheel", ["docopt 0.6.2 has no wheel for"]),
    ],
)
def test_a_mistake_is_told_with_its_fix_and_leaves_nothing_behind(
    example: BuildRoot, target: str, says: list[str]
) -> None:
    before = files_in(example.path / "dist")
    done = example.pants("package", target, check=False)
    assert done.returncode == 1
    for part in (target, *says):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(example.path / "dist") == before
