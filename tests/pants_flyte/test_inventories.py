"""`sbom=True` lists what is in a bundle or image, and without it nothing is as it would not be."""

from __future__ import annotations

import json

import pytest
from pants.core.goals.run import RunRequest
from pants.engine.internals.scheduler import ExecutionError

from flyte_shim.hashing import sha256_bytes
from pants_flyte.goals.deploy import RunDeploymentFieldSet
from tests.support.bases import base_image
from tests.support.flyte_goals import plan
from tests.support.flyte_images import app, image, image_options
from tests.support.flyte_rules import RuleRoot


@pytest.fixture
def root(root: RuleRoot) -> RuleRoot:
    image_options(root)
    return root


def names(document):
    """Of the components, those of targets with the files below them."""
    return {
        one["name"]: [file["name"] for file in one.get("components", ())]
        for one in document["components"]
    }


def listed(packaged):
    (content,) = (c for path, c in packaged.artifacts.items() if path.endswith(".cdx.json"))
    return json.loads(content)


def test_the_list_of_a_bundle_is_beside_it_and_the_link_names_it(root: RuleRoot):
    root.write(app(task="sbom=True"))
    packaged = root.package("app:t")
    content = packaged.artifacts["app/t.cdx.json"]
    sbom = packaged.link.bundle.sbom
    assert (sbom.path, sbom.size) == ("app/t.cdx.json", len(content))
    assert sbom.sha256 == sha256_bytes(content)
    document = listed(packaged)
    assert names(document) == {"app:app": ["app/lib.py", "app/w.py"], "pftest-a": []}
    version = {one["name"]: one.get("version") for one in document["components"]}
    assert version["pftest-a"] == "1.0"
    assert document["metadata"]["component"]["version"] == packaged.bundle.manifest.content_hash


def test_without_it_there_is_no_list_and_all_else_is_the_same(root: RuleRoot):
    root.write(app())
    plain = root.package("app:t").artifacts
    assert b"sbom" not in plain["app/t.json"]
    root.write(app(task="sbom=True"))
    found = root.package("app:t").artifacts
    assert found.keys() - plain.keys() == {"app/t.cdx.json"}
    assert {p for p in plain if found[p] != plain[p]} == {"app/t.json"}


def test_the_option_holds_where_the_field_is_not_set(root: RuleRoot):
    image_options(root, "--flyte-sbom")
    root.write(app())
    assert "app/t.cdx.json" in root.package("app:t").artifacts
    root.write(app(task="sbom=False"))
    assert "app/t.cdx.json" not in root.package("app:t").artifacts


def test_a_shared_bundle_says_it_itself(root: RuleRoot):
    root.write(app(task="bundle=':code', sbom=True"))
    root.edit(
        "app/BUILD",
        "python_sources()",
        "python_sources()\nflyte_bundle(name='code', dependencies=['./w.py'], sbom=True)",
    )
    said = root.refusal("app:t")
    assert "`sbom` and `bundle` are both set" in said
    assert "Set `sbom` on app:code" in said
    root.edit("app/BUILD", "bundle=':code', sbom=True", "bundle=':code'")
    assert root.package("app:t").link.bundle.sbom.path == "app/code.cdx.json"
    assert listed(root.package("app:code"))["metadata"]["component"]["name"] == "app:code"


def test_the_list_of_an_image_is_beside_it_and_changes_nothing_of_it(root: RuleRoot):
    root.write(app(image="code=True"))
    plain = root.package("app:image").artifacts
    root.write(app(image="code=True, sbom=True"))
    packaged = root.package("app:image")
    assert {p: c for p, c in packaged.artifacts.items() if p != "app/image.cdx.json"} == plain
    document = listed(packaged)
    assert names(document) == {
        "app:app": ["home/flyte/task/app/lib.py", "home/flyte/task/app/w.py"],
        "pftest-a": [],
        "pftest-b": [],
        "flyte-shim": [],
        "docker.io/library/python:3.12-slim": [],
    }
    top = document["metadata"]["component"]
    assert top["version"] == root.built_image("app:image").image_digest
    (a,) = (one for one in document["components"] if one["name"] == "pftest-a")
    assert a["externalReferences"][0]["hashes"]
    depends = {one["ref"]: one.get("dependsOn") for one in document["dependencies"]}
    assert depends["pkg:pypi/pftest-a@1.0"] == ["pkg:pypi/pftest-b@1.0"]


def test_an_image_without_packages_and_code_has_its_base(root: RuleRoot):
    root.write(image("sbom=True"))
    assert set(names(listed(root.package("app:image")))) == {
        "docker.io/library/python:3.12-slim",
        "flyte-shim",
    }


@pytest.mark.parametrize("asked", [True, False])
def test_a_deployment_says_what_it_is_made_from_if_it_is_asked(root: RuleRoot, asked):
    root.write(app())
    root.write({"d/BUILD": f"flyte_deployment(name='d', tasks=['app:t'], provenance={asked})"})
    image_options(root, "run", "d:d", "--", "--no-register")
    made = root.runner.request(RunRequest, [RunDeploymentFieldSet.create(root.target("d:d"))])
    lock = (root.path / "locks/default.txt").read_bytes()
    assert plan(root, made.digest).get("materials") == (
        [
            ["locks/default.txt", sha256_bytes(lock)],
            ["docker.io/library/python:3.12-slim", base_image().digest[7:]],
        ]
        if asked
        else None
    )


# --- the budget of an image ----------------------------------------------------------------------


BASE_SIZE = sum(layer.size for layer in base_image().platforms[0].layers)


def test_an_image_over_its_budget_is_an_error_that_names_the_heaviest(root: RuleRoot):
    root.write(app(image="max_size='500 B'"))
    said = root.refusal("app:image")
    assert said.startswith("app:image: on linux/amd64 its layers have ")
    assert "and `max_size` is 500 B. The heaviest:\n" in said
    lines = [line.partition(":")[0].strip() for line in said.splitlines() if line[:4] == "  * "]
    assert lines[0] == "* flyte-shim"
    assert len(lines) == 3


@pytest.mark.parametrize(("more", "told"), [(0, True), (1.1, True), (1.2, False)])
def test_an_image_near_its_budget_is_a_warning(root: RuleRoot, caplog, more, told):
    root.write(app())
    size = root.built_image("app:image").bytes + BASE_SIZE
    root.write(app(image=f"max_size='{int(size * (more or 1))} B'"))
    root.package("app:image")
    assert ("app:image: on linux/amd64 its layers have" in caplog.text) == told


def test_the_option_is_the_budget_of_images_without_one(root: RuleRoot):
    image_options(root, "--flyte-image-max-size=1 kB")
    root.write(app())
    assert "on linux/amd64 its layers have" in root.refusal("app:image")
    root.write(app(image="max_size='1 GB'"))
    root.package("app:image")
    image_options(root, "--flyte-image-max-size=many")
    root.write(app())
    with pytest.raises(ExecutionError, match=r"`\[flyte\].image_max_size` is 'many'"):
        root.package("app:image")
