"""A push asks little, sends what is missing, moves tags last; with a real docker-registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import pytest

import flyte_pack
from flyte_pack.oci.model import digest_of
from flyte_pack.registry import RegistryError
from flyte_pack.registry.client import may_pull
from flyte_pack.registry.push import push_image
from tests.support.faulty_registry import Fault, changed, faulty_registry, passed_on
from tests.support.registries import (
    AMD64,
    ARM64,
    PASSWORD,
    docker_config,
    exists,
    make_image,
    real_registry,
    session,
)

AUTHS = ("none", "basic", "token")


@pytest.fixture(scope="module")
def registries(tmp_path_factory):
    """Two registries: the first without authentication."""
    directory = tmp_path_factory.mktemp("registries")
    with real_registry(directory / "a") as one, real_registry(directory / "b", "token") as two:
        yield one, two


@pytest.fixture
def registry(registries):
    return registries[0]


def push(image, *destinations, said=None, chunk=1 << 16, keychain=None, dry_run=False, **fields):
    plan = image.plan(*destinations, **fields)
    say = [].append if said is None else said.append
    result = push_image(
        plan,
        str(image.layout.parent),
        say,
        dry_run=dry_run,
        session=session(keychain),
        chunk=chunk,
    )
    return result if len(destinations) > 1 else result[0]


@pytest.mark.parametrize("auth", AUTHS)
def test_an_image_is_pushed_with_its_tags_and_again_with_next_to_no_requests(tmp_path, auth):
    with real_registry(tmp_path / "registry", auth) as registry:
        with faulty_registry(registry.host) as front:
            keychain = docker_config(tmp_path / "docker", front.host)
            image = make_image(tmp_path / "image", 1000, 300_000)
            first = push(image, f"{front.host}/team/app:v1,latest", keychain=keychain)
            assert registry.holds("team/app", image.digest)
            assert registry.tag("team/app", "v1") == registry.tag("team/app", "latest")
            assert registry.tag("team/app", "v1") == image.digest
            assert first.tags == ("v1", "latest")
            assert (first.uploaded, first.mounted, first.present) == (3, 0, 0)
            assert first.bytes == sum(d.size for d in image.layers) + image.documents_size

            front.requests.clear()
            again = push(image, f"{front.host}/team/app:v1,latest", keychain=keychain)
            assert again.tags == ()
            assert again.bytes == again.uploaded == 0
            assert set(front.requests) <= {
                *(f"HEAD /v2/team/app/manifests/{ref}" for ref in (image.digest, "v1", "latest"))
            }
            expected = {"none": 3, "basic": 4, "token": 5}[auth]  # one of the last is for a token
            assert again.requests == expected


def test_skopeo_reads_what_was_pushed(tmp_path, registry):
    if shutil.which("skopeo") is None:
        reason = "skopeo is missing: apt-get install skopeo"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    image = make_image(tmp_path / "image", 1000, 300_000, platforms=(AMD64, ARM64))
    push(image, f"{registry.host}/team/skopeo:v1")
    source = f"docker://{registry.host}/team/skopeo:v1"
    copy = ["skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false"]
    subprocess.run([*copy, source, f"oci:{tmp_path}/copy:v1"], check=True)
    blobs = {path.name for path in (image.layout / "blobs/sha256").iterdir()}
    assert {path.name for path in (tmp_path / "copy/blobs/sha256").iterdir()} == blobs


def test_an_interrupt_ends_all_transfers_soon(tmp_path, registry, front):
    image = make_image(tmp_path / "image", 300_000, 400_000)
    ours = session()

    def interrupt(exchange):
        ours.transport.stopped.set()
        exchange.reply(*exchange.forward())

    front.faults = [Fault("^PATCH", interrupt)]
    plan = image.plan(f"{front.host}/team/stopped:v1")
    with pytest.raises(RegistryError, match="called off"):
        push_image(plan, str(tmp_path), [].append, session=ours, chunk=1 << 16)
    assert front.count("^PATCH") <= 2
    assert registry.tags("team/stopped") == set()


def test_an_index_of_several_platforms_is_pushed_after_its_manifests(tmp_path, registry, front):
    image = make_image(tmp_path / "image", 1000, platforms=(AMD64, ARM64))
    push(image, f"{front.host}/team/platforms:v1")
    assert registry.holds("team/platforms", image.digest)
    written = [
        one.rpartition("/")[2]
        for one in front.requests
        if one.startswith("PUT /v2/team/platforms/manifests")
    ]
    assert len(written) == 4
    assert written[-2:] == [image.digest, "v1"]


def test_a_changed_layer_is_all_that_is_uploaded_besides_the_documents(tmp_path, registry):
    old = make_image(tmp_path / "old", 1000, 200_000, 5000)
    new = make_image(tmp_path / "new", 1000, 200_000, 6000)
    push(old, f"{registry.host}/team/changed:v1")
    pushed = push(new, f"{registry.host}/team/changed:v1")
    assert (pushed.uploaded, pushed.present) == (2, 2)
    assert pushed.bytes == new.layers[-1].size + new.documents_size


def test_siblings_and_other_destinations_of_the_registry_give_their_layers(tmp_path, registry):
    old = make_image(tmp_path / "old", 1000, 200_000)
    new = make_image(tmp_path / "new", 1000, 200_000, env=("A=b",))
    push(old, f"{registry.host}/mount/first:v1")
    one, two = push(
        new,
        f"{registry.host}/mount/second:v1",
        f"{registry.host}/mount/third:v1",
        siblings=(f"{registry.host}/mount/nothing", f"{registry.host}/mount/first"),
    )
    assert (one.mounted, one.uploaded, one.bytes) == (2, 1, new.documents_size)
    assert (two.mounted, two.uploaded, two.bytes) == (3, 0, 0)
    assert registry.holds("mount/third", new.digest)


def test_layers_of_a_base_on_the_same_registry_are_mounted(tmp_path, registry):
    base = make_image(tmp_path / "base", 100_000)
    push(base, f"{registry.host}/library/python:3.12")
    image = make_image(
        tmp_path / "image", 1000, base=(f"{registry.host}/library/python:3.12", base)
    )
    pushed = push(image, f"{registry.host}/team/on-base:v1")
    assert (pushed.mounted, pushed.uploaded) == (1, 2)
    assert registry.holds("team/on-base", image.digest)


def test_layers_of_a_base_on_another_registry_pass_through(tmp_path, registries):
    ours, theirs = registries
    keychain = docker_config(tmp_path / "docker", theirs.host)
    base = make_image(tmp_path / "base", 700_000, 10)
    push(base, f"{theirs.host}/library/python:3.12", keychain=keychain)
    image = make_image(tmp_path / "image", 1000, base=(f"{theirs.host}/library/python:3.12", base))
    said = []
    pushed = push(image, f"{ours.host}/team/from-elsewhere:v1", said=said, keychain=keychain)
    assert pushed.uploaded == 4
    assert ours.holds("team/from-elsewhere", image.digest)
    assert any(f"uploaded from {theirs.host}/library/python" in line for line in said)
    assert not list(image.layout.rglob(base.layers[0].digest[7:]))


def test_a_large_layer_goes_up_in_chunks(tmp_path, registry, front):
    image = make_image(tmp_path / "image", 500_000)
    push(image, f"{front.host}/team/chunks", chunk=1 << 16)
    assert front.count("^PATCH ") == -(-image.layers[0].size // (1 << 16))
    assert registry.holds("team/chunks", image.digest)


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(tmp_path, registry, front):
    image, said = make_image(tmp_path / "image", 1000), []
    pushed = push(image, f"{front.host}/team/dry:v1", said=said, dry_run=True)
    assert not registry.tags("team/dry")
    assert not front.count("^(POST|PUT|PATCH)")
    assert (pushed.uploaded, pushed.tags) == (2, ("v1",))
    assert any("would push" in line for line in said)


def test_two_pushers_at_once_both_succeed(tmp_path, registry):
    images = [make_image(tmp_path / f"image{n}", 200_000, 100 + n) for n in range(4)]
    start, failed = Barrier(4), []

    def run(image, number):
        start.wait()
        try:
            push(image, f"{registry.host}/team/crowd:all,v{number}")
        except RegistryError as error:
            failed.append(error)

    threads = [Thread(target=run, args=(one, number)) for number, one in enumerate(images)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert all(registry.holds("team/crowd", one.digest) for one in images)
    assert [registry.tag("team/crowd", f"v{n}") for n in range(4)] == [i.digest for i in images]
    assert registry.tag("team/crowd", "all") in {one.digest for one in images}


@pytest.mark.parametrize("platforms", [(), (AMD64, ARM64)])
def test_what_a_registry_lost_before_the_tag_is_sent_again(tmp_path, registry, front, platforms):
    image = make_image(tmp_path / "image", 1000, platforms=platforms)
    repository = f"team/lost{len(platforms)}"

    def lose(exchange):
        if platforms:
            registry.forget_manifest(repository, digest_of(image.manifest.to_json()))
        else:
            registry.forget(repository, image.layers[0].digest)
        passed_on()(exchange)

    front.faults.append(Fault("PUT .*manifests/v1$", lose))
    said: list[str] = []
    push(image, f"{front.host}/{repository}:v1", said=said)
    assert f"  {front.host}/{repository} lacks 1 blobs after all" in said
    assert registry.tag(repository, "v1") == image.digest
    assert registry.holds(repository, image.digest)


def test_no_tag_moves_before_every_destination_has_the_image(tmp_path, registry):
    image = make_image(tmp_path / "image", 1000)
    with pytest.raises(RegistryError, match="connection refused"):
        push(image, f"{registry.host}/team/half:v1", "127.0.0.1:9/team/half:v1")
    assert registry.tags("team/half") == set()
    assert registry.holds("team/half", image.digest)


def test_what_is_there_is_known_by_its_digest(tmp_path, registry):
    image = make_image(tmp_path / "image", 1000)
    push(image, f"{registry.host}/team/there:v1")
    assert exists(f"{registry.host}/team/there:v1", session=session()) == image.digest
    assert exists(f"{registry.host}/team/there@{image.digest}", session=session()) == image.digest
    assert exists(f"{registry.host}/team/there:v2", session=session()) is None
    assert exists(f"{registry.host}/team/nowhere:v2", session=session()) is None


def test_docker_content_digest_may_be_left_out(tmp_path, registry, front):
    image = make_image(tmp_path / "image", 1000)
    front.faults = [Fault("manifests", changed(docker_content_digest=None), times=99)]
    push(image, f"{front.host}/team/bare:v1")
    assert exists(f"{front.host}/team/bare:v1", session=session()) == image.digest


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda image: (image.layout / "index.json").write_text("{"), "not a JSON document"),
        (lambda image: (image.layout / "index.json").unlink(), "index.json"),
        (lambda image: shutil.rmtree(image.layout), "make it again"),
        (lambda image: _blob(image, image.digest).write_text("{}"), "not what its digest"),
        (lambda image: _blob(image, image.layers[0].digest).unlink(), "no base has it"),
        (lambda image: _shorten(_blob(image, image.layers[0].digest)), "bytes, not"),
        (lambda image: _spoil(_blob(image, image.layers[0].digest)), "is damaged"),
    ],
)
def test_a_damaged_layout_is_refused(tmp_path, registry, spoil, message):
    image = make_image(tmp_path / "image", 200_000)
    spoil(image)
    with pytest.raises(RegistryError, match=message) as caught:
        push(image, f"{registry.host}/team/damaged:v1")
    assert str(caught.value).startswith("services/ml:image: ")
    assert "make it again" in str(caught.value)
    assert registry.tags("team/damaged") == set()


def _blob(image, digest):
    return image.layout / "blobs" / digest.replace(":", "/")


def _shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def _spoil(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# --- the program ---------------------------------------------------------------------------------


def program(*argv, env=None):
    path = str(Path(flyte_pack.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-m", "flyte_pack", "push", *argv],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([path, *sys.path]), **(env or {})},
        capture_output=True,
        text=True,
    )


def test_the_program_prints_references_and_reports_failures_in_one_line(tmp_path):
    image = make_image(tmp_path / "image", 100_000)
    with real_registry(tmp_path / "registry", "basic") as registry:
        plan = tmp_path / "plan.json"
        plan.write_bytes(image.plan(f"{registry.host}/team/app:v1").to_json())
        docker_config(tmp_path / "good", registry.host)
        docker_config(tmp_path / "bad", registry.host, password="wrong")
        typed = ("--plan", str(plan), "--dir", str(tmp_path))

        failed = program(*typed, env={"DOCKER_CONFIG": str(tmp_path / "bad")})
        assert failed.returncode == 1
        assert not failed.stdout
        assert "services/ml:image" in failed.stderr
        assert "docker login" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert "wrong" not in failed.stderr

        done = program(*typed, env={"DOCKER_CONFIG": str(tmp_path / "good")})
        assert done.returncode == 0
        assert done.stdout == f"{registry.host}/team/app@{image.digest}\n"
        assert PASSWORD not in done.stderr
        assert registry.tag("team/app", "v1") == image.digest


def test_the_program_writes_a_report_that_tells_new_from_unchanged(tmp_path):
    image = make_image(tmp_path / "image", 1000)
    with real_registry(tmp_path / "registry") as registry:
        (tmp_path / "plan.json").write_bytes(image.plan(f"{registry.host}/team/app:v1").to_json())
        file = tmp_path / "reports" / "publish.json"
        typed = ("--plan", str(tmp_path / "plan.json"), "--dir", str(tmp_path))
        for status, tags in (("new", ["v1"]), ("unchanged", [])):
            assert program(*typed, "--report", str(file)).returncode == 0
            report = json.loads(file.read_bytes())
            (one,) = report["images"]
            assert report["digest"] == image.digest
            assert (one["status"], one["tags"]) == (status, tags)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("{}", "not a JSON object with a schema"),
        ("[]", "not a JSON object"),
        ('{"schema": 2}', "schema 2"),
        (None, "No such file"),
    ],
)
def test_a_bad_plan_is_one_line(tmp_path, plan, message):
    path = tmp_path / "plan.json"
    if plan is not None:
        path.write_text(plan)
    done = program("--plan", str(path))
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_programs_help_and_wrong_options():
    assert "config.json" in program("--help").stdout
    assert program("--nonsense").returncode == 2


def test_pulling_needs_no_right_to_push(tmp_path):
    with real_registry(tmp_path / "registry", "token") as registry:
        image = make_image(tmp_path / "image", 100)
        keychain = docker_config(tmp_path / "docker", registry.host)
        push(image, f"{registry.host}/public/app:v1", keychain=keychain)
        assert exists(f"{registry.host}/public/app:v1", session=session()) == image.digest
        nobody = session().registry(registry.host)
        assert nobody.manifest("public/app", "v1", may_pull("public/app"))[1]
