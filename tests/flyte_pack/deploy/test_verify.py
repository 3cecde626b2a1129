"""`verify` reads all that a version needs again, and says of each thing whether it is there and whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from flyte_pack.deploy.ledger import Ledger
from flyte_pack.deploy.verify import Checked, verify
from flyte_pack.manifest import Manifest
from flyte_pack.registry.push import push_image
from flyte_pack.store.file import FileStore
from flyte_shim.hashing import sha256_bytes
from tests.support.deploying import ADDRESS, SOURCE_ROOT, BuildRoot, retar, snapshot
from tests.support.registries import AMD64, ARM64, make_image, real_registry, session

BUNDLE_KINDS = ["index", "manifest", "archive"]


@pytest.fixture
def root(tmp_path):
    root = BuildRoot(tmp_path)
    root.package("train", "v = 1\n" * 1000)
    root.deploy("--version", "v1").ok()
    return root


def run(root, *typed):
    """The document of `verify`, which asks no registry."""
    done = root.deploy("verify", *typed, "--no-image-check", "--output", "json")
    assert done.code == (1 if done.json["broken"] else 0)
    assert "Traceback" not in done.err
    return done.json


def wrong(document):
    return [(one["kind"], one["status"]) for one in document["checked"] if one["status"] != "ok"]


def the(root, directory):
    """The one file in a directory of the store, made writable."""
    (path,) = (root.store / directory).iterdir()
    path.chmod(0o644)
    return path


def test_all_that_a_version_needs_is_read_and_nothing_is_written(root):
    before = snapshot(root.store)
    document = run(root)
    assert [one["kind"] for one in document["checked"]] == ["history", "record", *BUNDLE_KINDS]
    assert (document["versions"], document["broken"]) == (["v1"], 0)
    assert snapshot(root.store) == before


def test_a_person_reads_what_is_there_and_whole(root):
    done = root.deploy("verify", "--no-image-check").ok()
    assert f"  ok       archive   file://{the(root, 'archives')}" in done.out
    assert "All 5 things that version v1 needs are there, and whole." in done.out


def test_all_versions_share_what_they_have_in_common(root):
    root.deploy("--version", "v2").ok()
    root.package("train", "v = 2\n")
    root.deploy("--version", "v3").ok()
    assert run(root)["versions"] == ["v3"]
    assert run(root, "v1")["versions"] == ["v1"]
    document = run(root, "--all")
    kinds = [one["kind"] for one in document["checked"]]
    assert document["versions"] == ["v1", "v2", "v3"]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "history": 1,
        "record": 3,
        **dict.fromkeys(BUNDLE_KINDS, 2),
    }


@pytest.mark.parametrize("kind", BUNDLE_KINDS)
def test_what_is_missing_is_reported_with_what_to_do(root, kind):
    path = the(root, {"index": "index", "archive": "archives", "manifest": "manifests"}[kind])
    path.unlink()
    assert wrong(run(root)) == [(kind, "missing")]
    done = root.deploy("verify", "--no-image-check").failed(1)
    assert f"  missing  {kind:8}  file://{path}" in done.out
    assert "to do: " in done.out
    assert "1 of the 5 things that version v1 needs are not as they must be." in done.out
    root.deploy("--version", "v1").ok()
    assert wrong(run(root)) == []


@pytest.mark.parametrize("kind", [*BUNDLE_KINDS, "record"])
@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: bytes(len(data))])
def test_what_is_damaged_is_reported(root, kind, damage):
    places = {"index": "index", "archive": "archives", "manifest": "manifests"}
    records = root.records().relative_to(root.store)
    path = the(root, places.get(kind, records / "versions"))
    path.write_bytes(damage(path.read_bytes()))
    assert wrong(run(root)) == [(kind, "damaged")]


def test_a_missing_record_of_the_current_version_is_reported(root):
    the(root, root.records().relative_to(root.store) / "versions").unlink()
    assert wrong(run(root)) == [("record", "missing")]


def test_a_record_that_was_changed_after_it_became_current_is_reported(root):
    path = the(root, root.records().relative_to(root.store) / "versions")
    path.write_bytes(path.read_bytes().replace(b"trainer:1", b"trainer:2"))
    assert wrong(run(root)) == [("record", "damaged")]


def test_a_gap_in_the_history_is_reported(root):
    for version in ("v2", "v3"):
        root.deploy("--version", version).ok()
    (root.records() / "history" / "2.json").unlink()
    document = run(root)
    assert wrong(document) == [("history", "missing")]
    assert document["checked"][0]["problem"] == "there is no entry 2"


def test_where_nothing_was_deployed_there_is_nothing_to_verify(tmp_path):
    root = BuildRoot(tmp_path)
    root.package()
    root.deploy("verify").failed(1, "nothing was deployed yet")
    assert run(root, "--all")["broken"] == 0


# --- an archive whose hash is right, and whose content is not ------------------------------------


def ship(root, archive):
    """Put another archive under the name of the version's: record, manifest and index agree with it."""
    manifest_path, record_path = (
        the(root, place)
        for place in ("manifests", root.records().relative_to(root.store) / "versions")
    )
    manifest = Manifest.from_json(manifest_path.read_bytes())
    fields = {**vars(manifest), "archive_hash": sha256_bytes(archive), "archive_size": len(archive)}
    data = Manifest(**fields).to_json()
    shutil.rmtree(root.store / "archives")
    for place, name, content in (
        ("archives", f"{sha256_bytes(archive)}.tar.gz", archive),
        ("manifests", f"{sha256_bytes(data)}.json", data),
    ):
        (root.store / place).mkdir(exist_ok=True)
        (root.store / place / name).write_bytes(content)
    record = json.loads(record_path.read_bytes())
    record["tasks"][0]["bundle"].update(
        archive=f"archives/{sha256_bytes(archive)}.tar.gz",
        archive_hash=sha256_bytes(archive),
        archive_size=len(archive),
        manifest=f"manifests/{sha256_bytes(data)}.json",
        manifest_hash=sha256_bytes(data),
        manifest_size=len(data),
    )
    record_path.write_text(json.dumps(record))
    shutil.rmtree(root.records() / "history")


PATH = "services/ml/train.py"
BODY = b"v = 1\n" * 1000


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([(PATH, BODY, 0o644)], None),
        ([(PATH, BODY, 0o755)], "another than its manifest says"),
        ([(PATH, b"v = 2\n" * 1000, 0o644)], "another than its manifest says"),
        ([(PATH, BODY[:-1], 0o644)], "another than its manifest says"),
        ([("x.py", BODY, 0o644)], "'x.py', or holds it twice"),
        ([(PATH, BODY, 0o644), ("x.py", b"", 0o644)], "'x.py', or holds it twice"),
        ([(PATH, BODY, 0o644)] * 2, f"'{PATH}', or holds it twice"),
        ([], f"it lacks '{PATH}'"),
        ([("../x.py", BODY, 0o644)], "a '..' in the path"),
    ],
)
def test_an_archive_is_compared_with_its_manifest_file_by_file(root, members, problem):
    ship(root, retar(members))
    document = run(root, "v1")
    archive = next(one for one in document["checked"] if one["kind"] == "archive")
    if problem is None:
        assert archive["status"] == "ok"
    else:
        assert archive["status"] == "damaged"
        assert problem in archive["problem"]


def test_a_file_that_unpacks_to_much_takes_little_memory(root):
    big = bytes(300 << 20)
    ship(root, retar([(PATH, big, 0o644)]))
    code = (
        "import sys; from flyte_pack.__main__ import main; code = main(sys.argv[1:]);"
        # Not by getrusage(2), which counts what the parent had before it became this program.
        "lines = [line.split() for line in open('/proc/self/status') if 'VmHWM' in line];"
        "print(lines[0][1], file=sys.stderr)"
    )
    del big
    done = subprocess.run(
        [sys.executable, "-c", code, *root.arguments("verify", "v1", "--no-image-check")],
        cwd=root.root,
        env={**os.environ, "PYTHONPATH": SOURCE_ROOT},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "another than its manifest says" in done.stdout
    assert int(done.stderr.split()[-1]) < 100 << 10  # in KiB


# --- images --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with real_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


def look(root, image):
    root.deploy("--version", "v1", plan={"images": {"trainer": image}}).ok()
    store = FileStore(str(root.store))
    ledger = Ledger(store, "flytesnacks", "development", ADDRESS)
    found = verify(store, ledger, ["v1"], say=[].append, session=session())
    return found[-1]


@pytest.fixture
def bare(tmp_path):
    root = BuildRoot(tmp_path / "root")
    root.package(image="trainer")
    return root


def push(image, registry, repository):
    plan = image.plan(f"{registry.host}/{repository}:v1")
    push_image(plan, str(image.layout.parent), [].append, session=session())
    return f"{registry.host}/{repository}@{image.digest}"


def test_an_image_is_there_with_all_its_blobs(bare, registry, tmp_path):
    image = make_image(tmp_path / "image", 100, platforms=(AMD64, ARM64))
    reference = push(image, registry, "whole/app")
    assert look(bare, reference) == Checked("image", reference)


def test_an_image_that_lacks_a_layer_is_damaged(bare, registry, tmp_path):
    image = make_image(tmp_path / "image", 100, 200, platforms=(AMD64, ARM64))
    reference = push(image, registry, "part/app")
    registry.forget("part/app", image.layers[1].digest)
    found = look(bare, reference)
    assert (found.status, found.name) == ("damaged", reference)
    assert image.layers[1].digest in found.problem


@pytest.mark.parametrize("which", [":v2", "@sha256:" + "0" * 64])
def test_an_image_that_is_gone_is_missing(bare, registry, tmp_path, which):
    push(make_image(tmp_path / "image", 100), registry, "gone/app")
    found = look(bare, f"{registry.host}/gone/app{which}")
    assert (found.status, found.kind) == ("missing", "image")


def test_an_image_whose_registry_is_not_reached_is_unknown_and_no_success(bare):
    found = look(bare, "127.0.0.1:1/team/app:v1")
    assert (found.status, found.kind) == ("unknown", "image")
    assert "--no-image-check" in found.fix
