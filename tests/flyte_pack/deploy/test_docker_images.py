"""Images that a real docker engine has built: pushed to real registries, and taken by digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyte_pack.deploy.docker_images import push_docker_images
from flyte_pack.deploy.plan import DockerImage
from flyte_pack.errors import UserError
from flyte_pack.oci.model import digest_of
from flyte_pack.registry.push import push_image
from tests.support.containers import DockerEngine
from tests.support.registries import (
    AMD64,
    ARM64,
    PASSWORD,
    docker_config,
    make_image,
    real_registry,
    session,
)

OTHER = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A registry that wants a password."""
    with real_registry(tmp_path_factory.mktemp("locked"), "basic") as running:
        yield running


@pytest.fixture
def engine(docker: DockerEngine, monkeypatch, tmp_path) -> DockerEngine:
    """Whose client is at hand, and logged in nowhere."""
    docker.clear()
    for name, value in docker.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
    return docker


def built(engine: DockerEngine, directory: Path, *names: str, content: str = "one") -> DockerImage:
    directory.mkdir(exist_ok=True)
    (directory / "file").write_text(content)
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")
    tags = (word for name in names for word in ("--tag", name))
    engine("build", "--quiet", *tags, str(directory))
    image_id = engine("image", "inspect", "--format", "{{.Id}}", names[0]).stdout.strip()
    return DockerImage("ml:img", image_id, names)


def settle(image: DockerImage, dry_run: bool = False, keychain=None, said=None):
    (settled,) = push_docker_images(
        [image],
        search_path=(),
        insecure=(),
        say=(said if said is not None else []).append,
        dry_run=dry_run,
        session=session(keychain),
    )
    return settled


def test_what_is_pushed_is_what_was_built_under_each_name_and_only_once(engine, registry, tmp_path):
    names = tuple(f"{registry.host}/{name}" for name in ("a/img:1", "a/img:2", "b/img:1"))
    image = built(engine, tmp_path / "context", *names)
    said: list[str] = []
    first = settle(image, said=said)
    digest = registry.tag("a/img", "1")
    assert first.reference == f"{registry.host}/a/img@{digest}"
    assert registry.tag("a/img", "2") == registry.tag("b/img", "1") == digest
    assert [(one["status"], one["tags"]) for one in first.told] == [
        ("new", ["1", "2"]),
        ("new", ["1"]),
    ]
    assert said == [f"ml:img: pushing {name}" for name in names]

    engine.clear()  # so nothing could be pushed
    again = settle(image)
    assert again.reference == first.reference
    assert [(one["status"], one["tags"]) for one in again.told] == [("unchanged", [])] * 2


def test_a_changed_image_moves_its_tag(engine, registry, tmp_path):
    name = f"{registry.host}/moved/img:1"
    before = settle(built(engine, tmp_path / "context", name))
    after = settle(built(engine, tmp_path / "context", name, content="two"))
    assert before.reference != after.reference
    assert after.reference.endswith(f"@{registry.tag('moved/img', '1')}")


def test_a_dry_run_pushes_nothing(engine, registry, tmp_path):
    name = f"{registry.host}/dry/img:1"
    image = built(engine, tmp_path / "context", name)
    said: list[str] = []
    settled = settle(image, dry_run=True, said=said)
    assert registry.tags("dry/img") == set()
    assert settled.reference == name
    assert [(one["status"], one["tags"]) for one in settled.told] == [("new", ["1"])]
    assert [line.partition(":")[0] for line in said] == ["warning"]

    pushed = settle(image)
    assert settle(image, dry_run=True).reference == pushed.reference


@pytest.mark.parametrize("told", ["<unknown>", ""])
def test_docker_is_asked_for_an_image_id_that_the_build_did_not_say(
    engine, registry, tmp_path, told
):
    name = f"{registry.host}/unsaid/img:{len(told)}"
    known = built(engine, tmp_path / "context", name)
    settled = settle(DockerImage("ml:img", told, known.names))
    assert settled.reference.endswith(f"@{registry.tag('unsaid/img', str(len(told)))}")


def test_twelve_digits_of_an_image_id_are_enough(engine, registry, tmp_path):
    name = f"{registry.host}/short/img:1"
    image = built(engine, tmp_path / "context", name)
    settle(DockerImage("ml:img", image.image_id[7:19], image.names))
    assert registry.tag("short/img", "1")


def test_an_image_that_is_another_than_the_build_said_is_refused(engine, registry, tmp_path):
    name = f"{registry.host}/other/img:1"
    image = built(engine, tmp_path / "context", name)
    with pytest.raises(
        UserError, match=r"ml:img: .*/other/img:1 was pushed, and stands for another"
    ):
        settle(DockerImage("ml:img", OTHER, image.names))


@pytest.mark.parametrize("which", ["index", "manifest", "config"])
def test_an_index_of_several_platforms_is_the_image_by_any_of_its_ids(registry, tmp_path, which):
    """As engines tell it that keep images in containerd; no engine is needed to find it."""
    made = make_image(tmp_path / "image", 100, platforms=(AMD64, ARM64))
    name = f"{registry.host}/several/{which}"
    push_image(made.plan(f"{name}:1"), str(tmp_path), lambda line: None, session=session())
    ids = {
        "index": made.digest,
        "manifest": digest_of(made.manifest.to_json()),
        "config": made.manifest.config.digest,
    }
    settled = settle(DockerImage("ml:img", ids[which], (f"{name}:1",)))
    assert settled.reference == f"{name}@{made.digest}"
    assert [one["status"] for one in settled.told] == ["unchanged"]


def test_who_may_not_push_is_told_where_and_who_logged_in_pushes(
    engine, locked, tmp_path, monkeypatch
):
    name = f"{locked.host}/org/img:1"
    image = built(engine, tmp_path / "context", name)
    with pytest.raises(UserError, match=rf"ml:img: Docker cannot push {name}: .*docker login") as e:
        settle(image)
    assert locked.tags("org/img") == set()

    wrong = docker_config(tmp_path / "wrong", locked.host, password="planted-wrong-31ab")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "wrong"))
    with pytest.raises(UserError, match="ml:img: Docker cannot push") as error:
        settle(image, keychain=wrong)
    assert "planted" not in str(error.value) + str(e.value)

    keychain = docker_config(tmp_path / "right", locked.host)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "right"))
    settled = settle(image, keychain=keychain)
    assert settled.reference == f"{locked.host}/org/img@{locked.tag('org/img', '1')}"
    assert PASSWORD not in settled.reference


def test_without_docker_or_its_engine_the_message_says_so(engine, registry, tmp_path, monkeypatch):
    image = built(engine, tmp_path / "context", f"{registry.host}/none/img:1")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(UserError, match=r"ml:img: Docker cannot push .*Cannot connect"):
        settle(image)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"ml:img: there is no `docker`.*executable_search_paths"):
        settle(image)


def test_a_registry_that_does_not_answer_is_named():
    with pytest.raises(UserError, match=r"ml:img: 127.0.0.1:9: "):
        settle(DockerImage("ml:img", OTHER, ("127.0.0.1:9/img:1",)))
