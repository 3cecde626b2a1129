"""A version's statement says what it was made from, as in-toto's own reader has it."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64decode

import pytest
from google.protobuf import json_format

from flyte_pack.deploy.prune import DAY
from flyte_pack.signing import KEY
from flyte_shim.hashing import sha256_bytes
from tests.support.deploying import BuildRoot
from tests.support.images_of_deployments import with_image
from tests.support.registries import real_registry
from tests.support.signing import new_key, openssl_verifies
from tests.support.statements import read_statement, signed_part

LOCK, IMAGE, OTHER = "c" * 64, "d" * 64, "e" * 64
MATERIALS = {"materials": [["3rdparty/python/default.lock", LOCK], ["a base", IMAGE]]}


@pytest.fixture
def root(tmp_path):
    root = BuildRoot(tmp_path)
    root.package("train", "v = 1\n", image=f"registry.example/trainer@sha256:{IMAGE}")
    return root


def commit(root, message="one"):
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", message)):
        subprocess.run(["git", *words], cwd=root.root, check=True)
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root.root, check=True, stdout=subprocess.PIPE
    )
    return found.stdout.decode().strip()


def statements(root):
    return sorted((root.store / "statements").rglob("*.intoto.json"))


def read(path):
    return read_statement(path.read_bytes())


def test_it_names_the_outputs_and_what_they_were_made_from(root):
    made = commit(root)
    root.deploy(plan=MATERIALS).ok()
    (path,) = statements(root)
    statement, predicate = read(path)
    subjects = {one.name: one.digest["sha256"] for one in statement.subject}
    for name, digest in subjects.items():
        if name.startswith(("archives/", "manifests/", "deployments/")):
            assert sha256_bytes((root.store / name).read_bytes()) == digest
    assert {name.partition("/")[0] for name in subjects} == {"archives", "manifests", "deployments"}
    found = {one.name: dict(one.digest) for one in predicate.build_definition.resolved_dependencies}
    assert found == {
        "the checkout": {"gitCommit": made},
        "3rdparty/python/default.lock": {"sha256": LOCK},
        "a base": {"sha256": IMAGE},
        "registry.example/trainer": {"sha256": IMAGE},
    }
    parameters = json_format.MessageToDict(predicate.build_definition.external_parameters)
    assert parameters["target"] == "services:deploy"
    assert parameters["tasks"] == [
        {"target": "services/ml:train", "entryPoint": "services/ml/train.py:train"}
    ]
    assert path.name == f"{parameters['version']}.intoto.json"
    assert predicate.run_details.builder.version["pants-flyte"]


def test_each_of_several_images_in_one_repository_is_named(root):
    root.package("score", "v = 1\n", image=f"registry.example/trainer@sha256:{OTHER}")
    root.package("again", "v = 1\n", image=f"registry.example/trainer@sha256:{OTHER}")
    root.deploy(plan=MATERIALS).ok()
    (path,) = statements(root)
    dependencies = read(path)[1].build_definition.resolved_dependencies
    named = [one.digest["sha256"] for one in dependencies if one.name == "registry.example/trainer"]
    assert named == [IMAGE, OTHER]


def test_what_was_built_for_it_is_an_output_and_other_images_are_not(root, tmp_path):
    with real_registry(tmp_path / "registry") as registry:
        image, push = with_image(root, registry, tmp_path, "score")
        root.deploy(plan={**MATERIALS, "pushes": [push]}).ok()
        name = f"{registry.host}/bikes/score"
    (path,) = statements(root)
    statement, predicate = read(path)
    subjects = {one.name: one.digest["sha256"] for one in statement.subject}
    assert f"sha256:{subjects[name]}" == image.digest
    assert "registry.example/trainer" not in subjects
    made_of = {one.name for one in predicate.build_definition.resolved_dependencies}
    assert "registry.example/trainer" in made_of
    assert name not in made_of


def test_without_it_none_is_written(root):
    root.deploy().ok()
    assert not (root.store / "statements").exists()


def test_a_second_deployment_and_another_commit_leave_it_as_it_is(root):
    commit(root)
    root.deploy(plan=MATERIALS).ok()
    (path,) = statements(root)
    before = path.read_bytes()
    (root.root / "notes.txt").write_text("")
    commit(root, "two")
    assert root.deploy("--output", "json", plan=MATERIALS).ok().json["writes"] == []
    assert [one.read_bytes() for one in statements(root)] == [before]


def test_it_says_if_files_differed_from_the_commit(root):
    commit(root)
    (root.root / "more.py").write_text("")
    root.deploy(plan=MATERIALS).ok()
    (path,) = statements(root)
    dependencies = read(path)[1].build_definition.resolved_dependencies
    (checkout,) = (one for one in dependencies if one.name == "the checkout")
    assert checkout.annotations["dirty"] is True


def test_without_a_checkout_it_names_no_commit(root):
    root.deploy(plan=MATERIALS).ok()
    (path,) = statements(root)
    dependencies = read(path)[1].build_definition.resolved_dependencies
    assert "the checkout" not in {one.name for one in dependencies}


def test_with_a_key_it_is_there_signed_once_too(root, tmp_path):
    key = new_key(tmp_path)
    signs = {KEY: str(key)}
    root.deploy(plan=MATERIALS, env=signs).ok()
    (plain,) = statements(root)
    signed = plain.with_name(f"{plain.name}l")
    document = json.loads(signed.read_bytes())
    payload = b64decode(document["payload"])
    assert payload == plain.read_bytes()
    pae = signed_part(document["payloadType"], payload)
    signature = b64decode(document["signatures"][0]["sig"])
    assert openssl_verifies(tmp_path, key.with_suffix(".pub"), pae, signature)
    plain.unlink()  # as if the run was killed before it was written
    root.package("train", "v = 1\n", image=f"registry.example/trainer@sha256:{IMAGE}")
    before = signed.read_bytes()
    for path in (root.records() / "history").iterdir():
        path.unlink()
    root.deploy(plan=MATERIALS, env=signs).ok()
    assert plain.read_bytes() == payload
    assert signed.read_bytes() == before


def test_a_key_that_cannot_be_used_stops_it_before_anything_is_written(root, tmp_path):
    root.deploy(plan=MATERIALS, env={KEY: str(tmp_path / "none")}).failed(1, KEY, "No such file")
    assert not root.store.exists()


def test_a_dry_run_writes_none(root):
    root.deploy("--dry-run", plan=MATERIALS).ok()
    assert not root.store.exists()


def test_prune_takes_it_with_its_version(root):
    root.deploy("--version", "old", plan=MATERIALS).ok()
    root.package("train", "v = 2\n")
    root.deploy("--version", "new", plan=MATERIALS).ok()
    for path in root.store.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - 2 * DAY
            os.utime(path, (then, then))
    done = root.deploy("prune", "--keep", "1", "--yes", "--output", "json").ok()
    kinds = [one["kind"] for one in done.json["objects"]]
    assert kinds.count("statement") == 1
    assert [path.name for path in statements(root)] == ["new.intoto.json"]
    root.deploy("verify", "--all", "--no-image-check").ok()
    assert "Nothing to prune." in root.deploy("prune", "--keep", "1", "--yes").ok().out
