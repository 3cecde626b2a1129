"""What one domain runs is deployed in another: the same archives and images, its own settings."""

from __future__ import annotations

import json

import pytest

from tests.support.deploying import BuildRoot, snapshot
from tests.support.images_of_deployments import with_image
from tests.support.registries import real_registry

STAGING, PRODUCTION = {"domain": "staging"}, {"domain": "production"}
PROMOTE = ("promote", "--from", "staging")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def other_registry(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("other")) as registry:
        yield registry


@pytest.fixture
def root(tmp_path):
    root = BuildRoot(tmp_path / "root")
    root.package("train", "v = 1\n", image=None)
    return root


def record(root: BuildRoot, domain: str, version: str):
    return json.loads((root.records(domain) / "versions" / f"{version}.json").read_bytes())


def last_entry(root: BuildRoot, domain: str):
    entries = sorted((root.records(domain) / "history").iterdir(), key=lambda one: int(one.stem))
    return json.loads(entries[-1].read_bytes())


def test_the_same_archive_whatever_the_checkout_holds_by_now(root):
    staged = root.deploy("--output", "json", plan=STAGING).ok().json
    root.package("train", "v = 2\n", image=None)
    done = root.deploy(*PROMOTE, "--output", "json", plan=PRODUCTION).ok().json
    assert [one["archive_hash"] for one in done["bundles"]] == [
        one["archive_hash"] for one in staged["bundles"]
    ]
    assert [one["status"] for one in done["bundles"]] == ["unchanged"]
    # The domain is part of what runs.
    assert done["version"] != staged["version"]
    assert done["from"] == f"flytesnacks/staging {staged['version']}"
    entry = last_entry(root, "production")
    assert (entry["action"], entry["provenance"]["source"]) == ("promote", done["from"])
    shown = root.deploy("show", plan=PRODUCTION).ok().out
    assert f", from {done['from']}" in shown
    assert "Nothing to do" in root.deploy(*PROMOTE, plan=PRODUCTION).ok().out
    root.deploy("verify", plan=PRODUCTION).ok()


def test_a_version_with_a_name_keeps_it_and_may_be_an_older_one(root):
    root.deploy("--version", "v1", plan=STAGING).ok()
    root.package("train", "v = 2\n", image=None)
    root.deploy("--version", "v2", plan=STAGING).ok()
    root.deploy(*PROMOTE, "v1", plan=PRODUCTION).ok()
    assert root.deploy("list", plan=PRODUCTION).ok().out.count("v1") == 1
    one, two = (record(root, domain, "v1") for domain in ("staging", "production"))
    assert one["tasks"][0]["bundle"] == two["tasks"][0]["bundle"]


def test_a_dry_run_writes_nothing(root):
    root.deploy("--version", "v1", plan=STAGING).ok()
    before = snapshot(root.store)
    done = root.deploy(*PROMOTE, "--dry-run", plan=PRODUCTION).ok()
    assert "Would deploy version v1" in done.out
    assert snapshot(root.store) == before


def test_another_store_gets_what_it_lacks(root, tmp_path):
    root.deploy("--version", "v1", plan=STAGING).ok()
    there = {**PRODUCTION, "store": (tmp_path / "production").as_uri()}
    root.deploy(*PROMOTE, plan=there).failed(1, "nothing was deployed yet", "--from-store")
    root.deploy(*PROMOTE, "--from-store", root.store.as_uri(), plan=there).ok()
    root.deploy("verify", plan=there).ok()


def test_a_parametrized_deployment_has_another_address_there(root):
    root.deploy(
        *("--version", "v1"), plan={**STAGING, "address": "services:deploy@domain=staging"}
    ).ok()
    ours = {**PRODUCTION, "address": "services:deploy@domain=production"}
    root.deploy(*PROMOTE, plan=ours).ok()


def test_an_image_stays_where_it_is_if_the_domain_has_no_registry_or_that_one(
    root, registry, tmp_path
):
    image, push = with_image(root, registry, tmp_path)
    root.deploy("--version", "v1", plan={**STAGING, "pushes": [push]}).ok()
    tags = registry.tags("bikes/train")
    for typed in ((), ("--registry", f"{registry.host}/bikes")):
        root.deploy(*PROMOTE, *typed, plan=PRODUCTION).ok()
        (task,) = record(root, "production", "v1")["tasks"]
        assert task["image"] == f"{registry.host}/bikes/train@{image.digest}"
        assert task["image_ref_name"] == "trainer"
    assert registry.tags("bikes/train") == tags


def test_an_image_goes_to_the_registry_of_the_domain(root, registry, other_registry, tmp_path):
    image, push = with_image(root, registry, tmp_path)
    root.deploy("--version", "v1", plan={**STAGING, "pushes": [push]}).ok()
    plan = {**PRODUCTION, "registry": f"{other_registry.host}/prod"}
    root.deploy(*PROMOTE, plan=plan).ok()
    assert other_registry.holds("prod/bikes/train", image.digest)
    (task,) = record(root, "production", "v1")["tasks"]
    assert task["image"] == f"{other_registry.host}/prod/bikes/train@{image.digest}"


def test_code_in_images_is_promoted_in_them(root, registry, tmp_path):
    image, push = with_image(root, registry, tmp_path, copy_style="none")
    root.deploy("--version", "v1", plan={**STAGING, "pushes": [push]}).ok()
    root.deploy(*PROMOTE, plan=PRODUCTION).ok()
    promoted = record(root, "production", "v1")
    assert promoted["copy_style"] == "none"
    assert promoted["tasks"][0]["image"] == f"{registry.host}/bikes/train@{image.digest}"


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (("promote",), 2, "promote takes --from DOMAIN"),
        (("promote", "--from", "production"), 1, "is the domain that this goes to"),
        (("promote", "--from", "a/b"), 2, "--from: "),
        (("promote", "--from", "qa"), 1, "nothing was deployed yet as services:deploy in"),
        ((*PROMOTE, "v9"), 1, "v9"),
        (("--from", "staging"), 2, "--from is for promote"),
        ((*PROMOTE, "--version", "x"), 2, "--version is for deploying"),
    ],
)
def test_what_cannot_be_promoted_is_said(root, typed, code, said):
    root.deploy("--version", "v1", plan=STAGING).ok()
    before = snapshot(root.store)
    root.deploy(*typed, plan=PRODUCTION).failed(code, said)
    assert snapshot(root.store) == before
