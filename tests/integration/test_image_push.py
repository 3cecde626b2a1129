"""Publishing the example's image to real registries, and an image on a base that only a registry
has.

Each test goes through the real `./pants`. Requests are counted by a server in front of the registry
that passes all on.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from flyte_pack.registry.referrers import fallback_tag
from tests.support.build_root import BuildRoot
from tests.support.containers import DockerEngine, debian_base, need
from tests.support.faulty_registry import FaultyRegistry, faulty_registry
from tests.support.git import git
from tests.support.monorepo import files_in, monorepo
from tests.support.packed_images import read_image
from tests.support.registries import (
    AUTH,
    PASSWORD,
    RealRegistry,
    docker_config,
    make_image,
    real_registry,
)

UPLOAD = "^(POST|PATCH|PUT|DELETE)"
PUSHED = "bikes/services/ml/image"


@dataclass
class Switched:
    """A registry that can be stopped and started again at its address, with what it holds."""

    directory: Path
    registry: RealRegistry | None = None
    _running: ExitStack | None = None

    def start(self) -> RealRegistry:
        port = ("--port", self.registry.host.rpartition(":")[2]) if self.registry else ()
        self._running = ExitStack()
        self.registry = self._running.enter_context(real_registry(self.directory, "token", *port))
        return self.registry

    def stop(self) -> None:
        assert self._running is not None
        self._running.close()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switched]:
    """The registry that the base is in: it wants tokens."""
    switched = Switched(tmp_path_factory.mktemp("bases"))
    switched.start()
    yield switched
    switched.stop()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """The registry that images are pushed to: it wants a password."""
    with real_registry(tmp_path_factory.mktemp("registry"), "basic") as running:
        yield running


@pytest.fixture(scope="module")
def front(registry: RealRegistry) -> Iterator[FaultyRegistry]:
    with faulty_registry(registry.host) as passing:
        yield passing


@pytest.fixture(scope="module")
def credentials(
    bases: Switched, front: FaultyRegistry, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What a user has in the environment who logged in at both with docker."""
    directory = tmp_path_factory.mktemp("docker-config")
    assert bases.registry is not None
    docker_config(directory, bases.registry.host, front.host)
    return {"DOCKER_CONFIG": str(directory)}


@pytest.fixture(scope="module")
def example(bases: Switched) -> Iterator[BuildRoot]:
    assert bases.registry is not None
    more = {
        "images/BUILD": f"""
            flyte_base_image(
                name="debian",
                image="{bases.registry.host}/debian-python:1",
                python="/usr/bin/python3.11",
            )
            """,
        "services/ml/BUILD": """
            flyte_image(name="on-debian", base="images:debian", dependencies=[":train", ":fit"])
            """,
    }
    with monorepo(more) as root:
        yield root


def publish(
    root: BuildRoot, host: str, *options: str, env: dict[str, str], check: bool = True
) -> subprocess.CompletedProcess[str]:
    to = f"--flyte-registries=['{host}/bikes']"
    done = root.pants(to, *options, "publish", "services/ml:image", env=env, check=check)
    assert PASSWORD not in done.stdout + done.stderr
    return done


# --- pushing -------------------------------------------------------------------------------------


def test_publish_pushes_the_image_under_its_tags_and_a_second_time_nothing(
    example: BuildRoot, registry: RealRegistry, front: FaultyRegistry, credentials: dict[str, str]
) -> None:
    tags = "--flyte-image-tags=['{content_hash}', '{git_commit}', 'v{version}']"
    options = (tags, "--flyte-version=1.4")
    done = publish(example, front.host, *options, env=credentials)
    example.pants("package", "services/ml:image")
    digest = read_image(example.path / "dist" / "services.ml" / "image").digest
    commit = git(example.path, "rev-parse", "HEAD")
    assert registry.holds(PUSHED, digest)
    assert registry.tags(PUSHED) == {digest[7:23], commit, "v1.4", fallback_tag(digest)}
    assert registry.tag(PUSHED, "v1.4") == digest
    assert f"{front.host}/{PUSHED}" in done.stdout + done.stderr

    front.requests.clear()
    publish(example, front.host, *options, env=credentials)
    assert front.count(UPLOAD) == 0, front.requests
    assert 0 < len(front.requests) < 10, front.requests


def test_publish_gets_a_token_where_a_registry_wants_one(
    example: BuildRoot, bases: Switched, credentials: dict[str, str]
) -> None:
    assert bases.registry is not None
    publish(example, bases.registry.host, env=credentials)
    (tag,) = (tag for tag in bases.registry.tags(PUSHED) if not tag.startswith("sha256-"))
    digest = bases.registry.tag(PUSHED, tag)
    assert digest is not None
    assert digest[7:23] == tag
    assert bases.registry.holds(PUSHED, digest)


def test_what_pants_logs_of_a_publish_holds_no_secret(
    example: BuildRoot, front: FaultyRegistry, credentials: dict[str, str], tmp_path: Path
) -> None:
    around = {
        "AWS_SECRET_ACCESS_KEY": "planted-aws-51c0",
        "A_TOKEN": "planted-token-8a8a",
    }
    wrong = docker_config_of(tmp_path, front.host)
    said = []
    for env, tag in ((credentials, "logged"), (wrong, "refused")):
        done = publish(
            example, front.host, "-ldebug", f"--flyte-image-tags=['{tag}']",
            env={**env, **around}, check=False,
        )  # fmt: skip
        assert done.returncode == (tag == "refused"), done.stderr
        said.append((tag, (done.stdout + done.stderr).encode()))
    logs = [path for path in (example.path / ".pants.d").rglob("*") if path.is_file()]
    assert any(path.name == "pants.log" for path in logs)
    said += [(str(path), path.read_bytes()) for path in logs]
    for where, data in said:
        found = [one for one in (PASSWORD, AUTH, "planted-") if one.encode() in data]
        assert not found, f"{found} in {where}"


def docker_config_of(directory: Path, host: str) -> dict[str, str]:
    """Of somebody with a wrong password."""
    docker_config(directory, host, password="planted-wrong-5d2f")
    return {"DOCKER_CONFIG": str(directory)}


def test_a_wrong_password_is_told_and_not_shown(
    example: BuildRoot, registry: RealRegistry, front: FaultyRegistry, tmp_path: Path
) -> None:
    docker_config(tmp_path, front.host, password="another-secret-5d2f")
    before = registry.tags(PUSHED)
    done = publish(
        example, front.host, "--flyte-image-tags=['wrong']", env={"DOCKER_CONFIG": str(tmp_path)},
        check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert front.host in said
    assert "401" in said
    assert "another-secret-5d2f" not in said
    assert "Traceback" not in said
    assert registry.tags(PUSHED) == before


def test_a_registry_that_does_not_answer_is_told(example: BuildRoot) -> None:
    nobody = "127.0.0.1:9"  # "discard": nothing listens there
    done = publish(example, nobody, env={}, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert nobody in said
    assert "refused" in said.lower()
    assert "Traceback" not in said


def test_without_a_registry_publish_says_what_to_set(example: BuildRoot) -> None:
    done = example.pants("--flyte-registries=[]", "publish", "services/ml:image")
    assert "[flyte].registries" in done.stderr


# --- a base in a registry ------------------------------------------------------------------------


def test_a_base_is_locked_packaged_without_its_registry_and_pushed_from_there(
    example: BuildRoot, bases: Switched, registry: RealRegistry, front: FaultyRegistry,
    credentials: dict[str, str], docker: DockerEngine, tmp_path: Path,
) -> None:  # fmt: skip
    """One way from the first mistake to a container, as each step needs the one before."""
    need("skopeo")
    assert bases.registry is not None
    base = f"docker://{bases.registry.host}/debian-python:1"
    config = Path(credentials["DOCKER_CONFIG"]) / "config.json"
    copy_in = ("skopeo", "copy", "--quiet", "--dest-tls-verify=false", "--dest-authfile", config)
    skopeo(*copy_in, f"oci:{debian_base()}:latest", base)
    (base_layer,) = read_image(debian_base()).layers
    dist, lock = example.path / "dist", example.path / "images" / "debian.lock.json"
    image = dist / "services.ml" / "on-debian"

    # Not locked: the error names the command, which the mistake does not stand in the way of.
    before = files_in(dist)
    done = example.pants("package", "services/ml:on-debian", check=False)
    assert done.returncode == 1
    assert "pants run images:debian -- lock" in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(dist) == before
    done = example.pants("run", "images:debian", "--", "lock", env=credentials)
    assert "images/debian.lock.json: written" in done.stdout
    assert base_layer.digest in str(json.loads(lock.read_text()))
    done = example.pants("run", "images:debian", "--", "check", env=credentials)
    assert "in step" in done.stdout

    # Packaged without the registry: the layout refers to the base's layer, and does not hold it.
    bases.stop()
    example.pants("package", "services/ml:on-debian")
    packaged = read_image(image)
    assert [layer.digest for layer in packaged.layers if layer.blob is None] == [base_layer.digest]
    done = example.pants(
        "run", "services/ml:on-debian", "--", "--complete", str(tmp_path / "whole"), check=False
    )
    assert done.returncode == 1
    assert bases.registry.host in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    bases.start()

    # Pushed elsewhere: the base's layer goes from registry to registry.
    to = f"--flyte-registries=['{front.host}/bikes']"
    done = example.pants(to, "publish", "services/ml:on-debian", env=credentials)
    assert registry.holds("bikes/services/ml/on-debian", packaged.digest)
    assert not (image / "blobs" / base_layer.digest.replace(":", "/")).exists()

    # Pulled from there by others, and run.
    pulled = tmp_path / "pulled.tar"
    tag = packaged.digest[7:23]
    copy_out = ("skopeo", "copy", "--quiet", "--src-tls-verify=false", "--src-authfile", config)
    source = f"docker://{front.host}/bikes/services/ml/on-debian:{tag}"
    skopeo(*copy_out, source, f"docker-archive:{pulled}:pulled:1")
    docker("load", "--input", str(pulled))
    run = ("run", "--rm", "--network", "none", "pulled:1")
    assert "--run-base-dir" in docker(*run, "a0", "--help").stdout
    code = "import sys, numpy; print(sys.base_prefix, numpy.__file__)"
    said = docker(*run, "python", "-c", code).stdout
    assert said.split() == ["/usr", "/opt/venv/lib/python3.11/site-packages/numpy/__init__.py"]

    # Completed on request, with the layer that only the registry had.
    example.pants(
        "run", "services/ml:on-debian", "--", "--complete", str(tmp_path / "whole"),
        env={**credentials, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    whole = read_image(tmp_path / "whole")
    assert whole.digest == packaged.digest
    for layer in whole.layers:
        assert layer.blob is not None
        assert f"sha256:{hashlib.sha256(layer.blob.read_bytes()).hexdigest()}" == layer.digest

    # The tag moves: `check` says so, by its exit code too, and nothing changes until it is locked
    # anew.
    kept = lock.read_bytes()
    make_image(tmp_path / "moved", b"another base")
    skopeo(*copy_in, f"oci:{tmp_path / 'moved'}", base)
    done = example.pants("run", "images:debian", "--", "check", env=credentials, check=False)
    assert done.returncode == 1
    assert "not in step" in done.stdout
    assert "./pants run images:debian -- lock" in done.stderr
    assert lock.read_bytes() == kept
    done = example.pants("run", "images:debian", "--", "lock", env=credentials)
    assert "digest: sha256:" in done.stdout
    assert lock.read_bytes() != kept


def skopeo(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
