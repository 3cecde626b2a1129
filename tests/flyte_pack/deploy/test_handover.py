"""A version is carried in a folder to a site that reaches nothing of ours, and deployed there as it was here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess

import pytest

from flyte_pack.oci.layout import open_layout
from tests.support.deploying import BuildRoot, command, snapshot
from tests.support.images_of_deployments import with_image
from tests.support.registries import real_registry


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("here")) as registry:
        yield registry


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("there")) as registry:
        yield registry


@pytest.fixture
def root(tmp_path):
    """A build root whose one task has no image, so that no registry takes part."""
    root = BuildRoot(tmp_path / "origin")
    root.package("train", "v = 1\n" * 100, image=None)
    return root


@pytest.fixture
def site(tmp_path):
    """Another machine's build root."""
    return BuildRoot(tmp_path / "site")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "usb"


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def read(folder):
    return json.loads((folder / "handover.json").read_bytes())


def rewrite(folder, change):
    """Change handover.json, and have the sums agree with it."""
    document = read(folder)
    change(document)
    (folder / "handover.json").write_text(json.dumps(document))
    lines = [f"{one['sha256']}  {one['path']}\n" for one in document["files"]]
    own = hashlib.sha256((folder / "handover.json").read_bytes()).hexdigest()
    lines.append(f"{own}  handover.json\n")
    (folder / "SHA256SUMS").write_text("".join(sorted(lines, key=lambda line: line.split()[1])))


# --- export --------------------------------------------------------------------------------------


def test_a_folder_has_all_of_a_version_and_sha256sum_checks_it(root, folder):
    root.deploy("--version", "v1").ok()
    before = snapshot(root.store)
    done = root.deploy("export", str(folder)).ok()
    assert f"Version v1 is in {folder}: 4 files" in done.out
    bundle = root.version("v1")["tasks"][0]["bundle"]
    key = "deployments/flytesnacks/development/services~.deploy/versions/v1.json"
    assert files(folder) == {
        "handover.json",
        "SHA256SUMS",
        f"store/{bundle['archive']}",
        f"store/{bundle['manifest']}",
        f"store/index/{bundle['content_hash']}.json",
        f"store/{key}",
    }
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    assert (folder / "store" / key).read_bytes() == (root.store / key).read_bytes()
    assert snapshot(root.store) == before


def test_any_version_can_be_exported_by_the_start_of_its_name(root, folder):
    root.deploy("--version", "v1").ok()
    root.deploy("--version", "w2").ok()
    root.deploy("export", str(folder), "v").ok()
    assert read(folder)["version"] == "v1"


@pytest.mark.parametrize("there", [False, True])
def test_an_empty_folder_is_filled_and_a_missing_one_made_with_its_parents(root, folder, there):
    place = folder / "a" / "b"
    if there:
        place.mkdir(parents=True)
    root.deploy().ok()
    root.deploy("export", str(place)).ok()
    assert (place / "handover.json").exists()
    assert os.listdir(place.parent) == ["b"]


def test_a_folder_that_is_not_empty_stays_as_it_is(root, folder):
    root.deploy().ok()
    folder.mkdir()
    (folder / "mine").write_text("x")
    root.deploy("export", str(folder)).failed(1, "not empty: name a new folder")
    assert files(folder) == {"mine"}


@pytest.mark.parametrize("place", ["archives", "manifests"])
def test_what_is_damaged_is_not_exported_and_nothing_is_left(root, folder, place):
    root.deploy().ok()
    (path,) = (root.store / place).iterdir()
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    root.deploy("export", str(folder)).failed(1, "is damaged")
    assert not folder.exists()
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".usb")] == []


def test_an_export_that_is_killed_leaves_no_folder_of_that_name(root, folder):
    root.deploy().ok()

    def killed_right_before_the_end():
        os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    done = root.deploy("export", str(folder), first=killed_right_before_the_end)
    assert (done.code, folder.exists()) == (-signal.SIGKILL, False)
    root.deploy("export", str(folder)).ok()
    assert (folder / "handover.json").exists()


def test_an_image_that_is_gone_is_named_and_nothing_is_left(root, folder, here):
    root.package("train", image=f"{here.host}/team/gone:1")
    root.deploy().ok()
    root.deploy("export", str(folder)).failed(1, f"{here.host}/team/gone:1 cannot be exported")
    assert not folder.exists()


def test_images_are_exported_complete_in_one_layout(root, folder, here, tmp_path):
    image, push = with_image(root, here, tmp_path)
    root.deploy("--version", "v1", plan={"pushes": [push]}).ok()
    root.deploy("export", str(folder)).ok()
    assert read(folder)["images"] == {f"{here.host}/bikes/train@{image.digest}": image.digest}
    layout = open_layout(str(folder / "images"))
    (top,) = layout.tops()
    images = list(layout.images(top))
    assert {str(one.platform) for one in images} == {"linux/amd64", "linux/arm64"}
    assert all(layout.missing(one.blobs) == () for one in images)
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=folder, check=True)


# --- import --------------------------------------------------------------------------------------


def exported(root, folder, *typed, **how):
    root.deploy(*typed, **how).ok()
    root.deploy("export", str(folder)).ok()
    return folder


def test_a_version_with_a_name_is_imported_under_it(root, site, folder):
    exported(root, folder, "--version", "v1")
    shutil.rmtree(root.root)  # nothing of the origin is left
    done = site.deploy("import", str(folder)).ok()
    assert "Deployed version v1 (history 1)." in done.out
    assert site.history() == [("import", "v1")]
    record = site.version("v1")
    bundle = record["tasks"][0]["bundle"]
    assert list(record["tasks"][0]["tasks"][0]["command"]) == [
        {"${VERSION}": "v1", "${BUNDLE_URI}": f"file://{site.store}/{bundle['archive']}"}.get(a, a)
        for a in command("train")
    ]
    assert record["tasks"][0]["tasks"][0]["version"] == "v1"
    site.deploy("verify").ok()
    before = snapshot(site.store)
    assert "Nothing to do" in site.deploy("import", str(folder)).ok().out
    assert snapshot(site.store) == before


def test_a_version_that_was_computed_is_computed_for_the_site(root, site, folder, tmp_path):
    exported(root, folder)
    site.deploy("import", str(folder)).ok()
    ((_, version),) = site.history()
    assert version != root.history()[0][1]
    same = BuildRoot(tmp_path / "same")  # deployed from the code itself, into the site's store
    same.package("train", "v = 1\n" * 100, image=None)
    done = same.deploy("--store", f"file://{site.store}", "--output", "json").ok().json
    assert (done["version"], done["writes"]) == (version, [])


def test_provenance_is_the_commit_that_it_was_made_from(root, site, folder):
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run(["git", "init", "-q"], cwd=root.root, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], cwd=root.root, check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root.root, text=True).strip()
    exported(root, folder, "--version", "v1")
    site.deploy("import", str(folder)).ok()
    assert site.version("v1")["provenance"]["commit"] == commit


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(root, site, folder):
    exported(root, folder, "--version", "v1")
    done = site.deploy("import", str(folder), "--dry-run").ok()
    assert "Would deploy version v1" in done.out
    assert "To upload: " in done.out
    assert not site.store.exists()


def test_images_go_to_the_sites_registry_and_tasks_run_from_there(
    root, site, folder, here, there, tmp_path
):
    train, push = with_image(root, here, tmp_path, "train")
    score, other = with_image(root, here, tmp_path, "score")
    exported(root, folder, "--version", "v1", plan={"pushes": [push, other]})
    done = site.deploy("import", str(folder), "--registry", f"{there.host}/mirror").ok()
    for name, image in (("train", train), ("score", score)):
        reference = f"{there.host}/mirror/bikes/{name}@{image.digest}"
        assert there.holds(f"mirror/bikes/{name}", image.digest)
        assert there.tags(f"mirror/bikes/{name}") == {f"sha256-{image.digest[7:19]}"}
        assert reference in done.out
    record = site.version("v1")
    assert {task["image"] for task in record["tasks"]} == {
        f"{there.host}/mirror/bikes/{name}@{image.digest}"
        for name, image in (("train", train), ("score", score))
    }
    assert {task["image_ref_name"] for task in record["tasks"]} == {"trainer"}
    assert here.host not in json.dumps(record)
    assert str(root.store) not in json.dumps(record)
    site.deploy("verify").ok()
    arguments = ("import", str(folder), "--registry", f"{there.host}/mirror")
    assert "Nothing to do" in site.deploy(*arguments).ok().out


def test_an_image_that_was_only_named_is_carried_too(root, site, folder, here, there, tmp_path):
    image, push = with_image(root, here, tmp_path)
    root.deploy("--version", "first", plan={"pushes": [push]}).ok()
    root.package("train", image=f"{here.host}/bikes/train:v1")
    exported(root, folder, "--version", "v1")
    site.deploy("import", str(folder), "--registry", there.host).ok()
    (task,) = site.version("v1")["tasks"]
    assert task["image"] == f"{there.host}/bikes/train@{image.digest}"


def test_without_a_registry_for_its_images_it_is_refused(root, site, folder, here, tmp_path):
    _, push = with_image(root, here, tmp_path)
    exported(root, folder, "--version", "v1", plan={"pushes": [push]})
    site.deploy("import", str(folder)).failed(1, "type --registry HOST")
    assert not site.store.exists()


def test_code_in_images_is_carried_in_them(root, site, folder, here, there, tmp_path):
    image, push = with_image(root, here, tmp_path, copy_style="none")
    exported(root, folder, "--version", "v1", plan={"pushes": [push]})
    site.deploy("import", str(folder), "--registry", there.host).ok()
    record = site.version("v1")
    assert (record["copy_style"], record["tasks"][0]["bundle"]) == ("none", None)
    assert there.holds("bikes/train", image.digest)


@pytest.mark.parametrize(
    "plan", [{"domain": "production"}, {"project": "other"}, {"address": "x:y"}]
)
def test_it_is_imported_as_what_it_is_only(root, site, folder, plan):
    exported(root, folder, "--version", "v1")
    site.deploy("import", str(folder), plan=plan).failed(
        1, "the folder holds services:deploy for flytesnacks/development"
    )


def test_a_version_of_that_name_with_other_content_is_refused(root, site, folder):
    exported(root, folder, "--version", "v1")
    site.package("train", "v = 2\n", image=None)
    site.deploy("--version", "v1").ok()
    before = snapshot(site.store)
    site.deploy("import", str(folder)).failed(1, "version v1 exists with other content")
    assert snapshot(site.store) == before


def test_what_the_sites_store_has_damaged_is_mended_with_repair(root, site, folder):
    exported(root, folder, "--version", "v1")
    site.deploy("import", str(folder)).ok()
    (archive,) = (site.store / "archives").iterdir()
    archive.chmod(0o644)
    archive.write_bytes(b"damaged")
    site.deploy("import", str(folder)).failed(1, "--repair")
    site.deploy("import", str(folder), "--repair").ok()
    site.deploy("verify").ok()


# --- hostile and damaged folders -----------------------------------------------------------------


def one(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def link(path, target):
    path.unlink()
    path.symlink_to(target)


DAMAGE = {
    "not a folder": (lambda f: shutil.rmtree(f), "is not a folder"),
    "something else": (lambda f: (f / "handover.json").unlink(), "holds no handover.json"),
    "no sums": (lambda f: (f / "SHA256SUMS").unlink(), "holds no SHA256SUMS"),
    "a file is missing": (lambda f: one(f, "store/archives/*").unlink(), "is missing"),
    "a file is shorter": (lambda f: one(f, "store/archives/*").write_bytes(b"x"), "bytes, not"),
    "a byte is another": (
        lambda f: one(f, "store/archives/*").write_bytes(
            bytes([1]) + one(f, "store/archives/*").read_bytes()[1:]
        ),
        "is damaged",
    ),
    "a file too many": (lambda f: (f / "store" / "x").write_text("x"), "is not part of it"),
    "a link to a file": (
        lambda f: link(one(f, "store/archives/*"), "/etc/passwd"),
        "symbolic link",
    ),
    "a link to a directory": (lambda f: (f / "more").symlink_to("/etc"), "symbolic link"),
    "a pipe": (lambda f: os.mkfifo(f / "pipe"), "neither a file nor a directory"),
    "other sums": (lambda f: (f / "SHA256SUMS").write_text("x"), "contradict"),
    "not JSON": (lambda f: (f / "handover.json").write_text("{"), "not a JSON document"),
    "a path that leaves": (
        lambda f: rewrite(f, lambda d: d["files"][0].update(path="../../etc/passwd")),
        "does not belong to a hand-over",
    ),
    "a path of another kind": (
        lambda f: rewrite(f, lambda d: d["files"][0].update(path="store/deployments/x")),
        "does not belong to a hand-over",
    ),
    "a name that lies": (
        lambda f: rewrite(f, lambda d: d["files"][0].update(sha256="0" * 64)),
        "has another SHA-256 than its name",
    ),
    "a file twice": (
        lambda f: rewrite(f, lambda d: d["files"].insert(0, d["files"][0])),
        "is there twice",
    ),
    "another version": (
        lambda f: rewrite(f, lambda d: d.update(version="v2")),
        "no record of version",
    ),
    "a version that leaves": (
        lambda f: rewrite(f, lambda d: d.update(version="../../../../x")),
        "no record of version",
    ),
    "a store elsewhere": (
        lambda f: rewrite(f, lambda d: d.update(store="s3://else")),
        "${BUNDLE_URI} belongs in the command",
    ),
    "an image too many": (
        lambda f: rewrite(f, lambda d: d["images"].update({"r.example/x:1": "sha256:" + "0" * 64})),
        "names other images",
    ),
    "another schema": (lambda f: rewrite(f, lambda d: d.update(schema=2)), "schema 2"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_folder_that_is_not_what_export_wrote_is_refused_before_anything_is_written(
    root, site, folder, what
):
    exported(root, folder, "--version", "v1")
    damage, said = DAMAGE[what]
    damage(folder)
    site.deploy("import", str(folder), "--registry", "127.0.0.1:1").failed(1, said)
    assert not site.store.exists()


def test_a_blob_of_an_image_that_was_changed_is_found(root, site, folder, here, tmp_path):
    _, push = with_image(root, here, tmp_path)
    exported(root, folder, "--version", "v1", plan={"pushes": [push]})
    blob = max((folder / "images/blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    blob.write_bytes(bytes(blob.stat().st_size))
    site.deploy("import", str(folder), "--registry", "127.0.0.1:1").failed(1, "is damaged")
