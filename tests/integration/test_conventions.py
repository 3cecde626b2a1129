"""What users of Pants expect: its Docker backend's images for tasks, `export`, and environments."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.support.build_root import BuildRoot, build_root
from tests.support.containers import DockerEngine
from tests.support.control_plane import control_plane
from tests.support.packed_images import read_image
from tests.support.registries import RealRegistry, real_registry

OPTIONS = """
[docker.registries.here]
address = "{registry}"

[docker.registries.off]
address = "off.test"
skip_push = true

[flyte]
endpoint = "{endpoint}"
insecure = true
project = "bikes"
domain = "development"

[environments-preview.names]
here = "//:here"
elsewhere = "//:elsewhere"
"""
FILES = {
    "BUILD": """
        # Its own list takes the place of the option's, even where it is left unset.
        local_environment(name="here", docker_env_vars=["DOCKER_HOST"])
        # None that this machine can start: what stands in for it has the work.
        docker_environment(
            name="elsewhere",
            image="example.test/none:1",
            platform="linux_arm64",
            fallback_environment="here",
        )
        """,
    "ml/BUILD": """
        __defaults__({(flyte_bundle, flyte_task): dict(environment="here")})
        python_sources()
        files(name="note", sources=["note.txt"])
        docker_image(
            name="img",
            dependencies=[":note"],
            registries=["@off", "@here"],
            repository="org/{directory}",
            image_tags=["{build_args.TAG}"],
            extra_build_args=["TAG"],
        )
        flyte_task(name="train", entry_point="workflows.py:train", image=":img")
        flyte_deployment(name="deploy", tasks=[":train"])

        flyte_bundle(name="here", dependencies=["./workflows.py"])
        flyte_bundle(name="plain", dependencies=["./workflows.py"], environment="__local__")
        flyte_bundle(name="elsewhere", dependencies=["./workflows.py"], environment="elsewhere")
        flyte_tasks(name="all", overrides={"workflows.env": {"environment": "elsewhere"}})

        flyte_base_image(name="base", source="host", environment="elsewhere")
        flyte_image(name="image", base=":base", dependencies=["./workflows.py"], code=True)
        flyte_image(
            name="image-elsewhere",
            base=":base",
            dependencies=["./workflows.py"],
            code=True,
            environment="elsewhere",
        )
        flyte_deployment(name="deploy-elsewhere", tasks=[":train"], environment="elsewhere")
        """,
    "ml/Dockerfile": "FROM scratch\nARG TAG\nCOPY ml/note.txt /note.txt\n",
    "ml/note.txt": "one\n",
    "ml/workflows.py": """
        import flyte

        env = flyte.TaskEnvironment(name="ml", image="code/own:1")

        @env.task
        async def train(n: int) -> int:
            return n
        """,
}


@dataclass(frozen=True)
class Place:
    root: BuildRoot
    registry: RealRegistry
    docker: DockerEngine

    def deploy(
        self, *typed: str, env: Mapping[str, str] = MappingProxyType({}), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        words = ("run", "ml:deploy", "--", "--output=json", *typed)
        return self.root.pants(*words, env=dict(env), check=check)

    def link(self) -> Any:
        return json.loads((self.root.path / "dist" / "ml" / "train.json").read_text())

    def image_of_record(self, env: Mapping[str, str] = MappingProxyType({})) -> str:
        document = json.loads(self.deploy(env=env).stdout)
        shown = self.root.pants("run", "ml:deploy", "--", "show", "--output=json").stdout
        (task,) = json.loads(shown)["record"]["tasks"]
        assert [one["name"] for one in document["registered"]] == ["ml.train"]
        return str(task["image"])


@pytest.fixture(scope="module")
def place(docker: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    top = tmp_path_factory.mktemp("conventions")
    env = {
        **docker.environment,
        "DOCKER_BUILDKIT": "0",
        "TAG": "v1",
        "PANTS_BACKEND_PACKAGES": "+['pants.backend.docker']",
    }
    with ExitStack() as stack:
        registry = stack.enter_context(real_registry(top / "registry"))
        plane = stack.enter_context(control_plane(top / "plane"))
        options = OPTIONS.format(registry=registry.host, endpoint=plane.endpoint)
        root = stack.enter_context(build_root(top / "root", ["/"], options, env=env))
        root.write(FILES)
        yield Place(root, registry, docker)


def test_a_task_names_the_image_of_another_backend_and_builds_nothing_for_it(place: Place) -> None:
    place.root.pants("package", "ml:train")
    link = place.link()
    assert link["image"] == f"{place.registry.host}/org/ml:v1"
    assert link["published_by"] == "ml:img"
    assert place.docker("image", "ls", "--quiet").stdout == ""


def test_a_deployment_can_take_what_was_published(place: Place) -> None:
    published = {"PANTS_FLYTE_BUILD_DOCKER_IMAGES": "false", "TAG": "published"}
    refused = place.deploy(env=published, check=False)
    assert refused.returncode == 1
    assert "has no published of org/ml: publish it first: ./pants publish ml:img" in refused.stderr
    place.root.pants("publish", "ml:img", env=published)
    digest = place.registry.tag("org/ml", "published")
    assert place.image_of_record(published) == f"{place.registry.host}/org/ml@{digest}"


def test_a_deployment_builds_the_image_pushes_it_and_takes_its_digest(place: Place) -> None:
    dry = place.deploy("--dry-run")
    (image,) = json.loads(dry.stdout)["images"]
    assert (image["status"], image["tags"]) == ("new", ["v1"])
    assert "its digest is known only when it was pushed" in dry.stderr
    assert place.registry.tag("org/ml", "v1") is None
    found = []
    for note in ("two\n", "three\n"):
        (place.root.path / "ml" / "note.txt").write_text(note)
        (image,) = json.loads(place.deploy().stdout)["images"]
        digest = place.registry.tag("org/ml", "v1")
        assert image["reference"] == f"{place.registry.host}/org/ml@{digest}"
        assert image["reference"] == place.image_of_record()
        assert image["status"] == "new"
        found.append(digest)
    assert found[0] != found[1]
    again = place.root.pants("experimental-deploy", "ml:deploy")
    assert f"image {place.registry.host}/org/ml@{found[1]}  unchanged" in again.stdout
    assert "Nothing to do" in again.stdout
    assert "pushing" not in again.stderr


def test_a_run_by_flyte_has_the_image_that_was_built_for_it(place: Place) -> None:
    env = {"TAG": "run", "DOCKER_BUILDKIT": "1"}
    done = place.root.pants("run", "ml:train", "--", "--remote", "--detach", "--n", "3", env=env)
    assert f"pushing {place.registry.host}/org/ml:run" in done.stderr
    assert place.registry.tag("org/ml", "run")


@pytest.mark.parametrize(
    ("env", "options", "said"),
    [
        (
            {"DOCKER_HOST": "unix:///nowhere/d.sock"},
            [],
            ("ml:deploy: its image ml:img cannot be built: Cannot connect", "`[docker].env_vars`"),
        ),
        (
            {},
            ["--docker-executable-search-paths=['/nowhere']"],
            ("ml:deploy: its image ml:img cannot be built: Cannot find `docker`", "Install Docker"),
        ),
    ],
)
def test_without_docker_only_what_needs_it_is_refused(
    place: Place, env: dict[str, str], options: list[str], said: tuple[str, ...]
) -> None:
    place.root.pants(*options, "package", "ml:train", env=env)
    refused = place.root.pants(*options, "run", "ml:deploy", env=env, check=False)
    assert refused.returncode == 1
    for words in (*said, "`[flyte].build_docker_images = false`"):
        assert words in refused.stderr


def test_a_bundle_is_the_same_in_each_environment(place: Place) -> None:
    names = ("plain", "here", "elsewhere")
    place.root.pants("package", *(f"ml:{name}" for name in names), "ml:all#workflows.env")
    dist = place.root.path / "dist" / "ml"
    archives = {(dist / f"{name}.tar.gz").read_bytes() for name in names}
    assert len(archives) == 1
    shown = json.loads(place.root.pants("peek", "ml:train", "ml:all#workflows.env").stdout)
    assert [target["environment"] for target in shown] == ["elsewhere", "here"]


def test_an_image_is_the_same_in_each_environment_but_for_its_name(place: Place) -> None:
    place.root.pants("package", "ml:image", "ml:image-elsewhere")
    dist = place.root.path / "dist" / "ml"
    here, elsewhere = (read_image(dist / name).layers for name in ("image", "image-elsewhere"))
    assert [layer.digest for layer in here] == [layer.digest for layer in elsewhere]


def test_a_task_runs_and_a_deployment_deploys_in_each_environment(place: Place) -> None:
    done = place.root.pants("run", "ml:all#workflows.env", "--", "train", "--n", "3")
    assert "o0=3" in done.stdout
    place.deploy()
    for words in (["experimental-deploy", "ml:deploy-elsewhere"], ["run", "ml:deploy-elsewhere"]):
        document = place.root.pants(*words, "--", "--dry-run", "--output=json").stdout
        assert [one["status"] for one in json.loads(document)["images"]] == ["unchanged"]


def test_export_makes_the_environment_of_a_resolve_beside_our_targets(
    place: Place, tmp_path: Path
) -> None:
    place.root.pants("export", "--resolve=python-default")
    (python,) = (place.root.path / "dist" / "export").rglob("bin/python")
    code = "import flyte; print(flyte.__name__)"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "flyte\n", done.stderr
