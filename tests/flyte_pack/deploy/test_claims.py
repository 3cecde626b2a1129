"""Who may write to a store cannot have another's deployment take what it did not build."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from flyte_pack.deploy.bundles import settle
from flyte_pack.deploy.records import StoredBundle
from flyte_pack.errors import UserError
from flyte_pack.manifest import Manifest
from flyte_pack.remembered import Remembered
from flyte_pack.store.file import FileStore
from flyte_shim.hashing import sha256_bytes
from tests.support.deploying import BuildRoot, contents, retar

PATH = "services/ml/train.py"
BODY = b"v = 1\n"
EVIL = b"v = 2\n"  # as long as the honest one


@pytest.fixture
def root(tmp_path):
    root = BuildRoot(tmp_path)
    root.package("train", BODY.decode())
    return root


def honest(root):
    return Manifest.from_json((root.dist / "train.manifest.json").read_bytes())


def claim(root, archive, manifest=None):
    """Have the store's index say that `archive` is of the content that is about to be deployed."""
    content = honest(root).content_hash
    if manifest is None:
        changes = {"archive_hash": sha256_bytes(archive), "archive_size": len(archive)}
        manifest = dataclasses.replace(honest(root), **changes).to_json()
    entry = StoredBundle(
        content, sha256_bytes(archive), len(archive), sha256_bytes(manifest), len(manifest)
    )
    for key, data in (
        (entry.archive_key, archive),
        (entry.manifest_key, manifest),
        (entry.index_key, entry.to_json()),
    ):
        (root.store / key).parent.mkdir(parents=True, exist_ok=True)
        (root.store / key).write_bytes(data)
    return entry


CLAIMED = {
    "other bytes": [(PATH, EVIL, 0o644)],
    "longer bytes": [(PATH, BODY + b"# more\n", 0o644)],
    "one file more": [(PATH, BODY, 0o644), ("sitecustomize.py", EVIL, 0o644)],
    "the file again": [(PATH, BODY, 0o644), (PATH, EVIL, 0o644)],
    "another mode": [(PATH, BODY, 0o755)],
    "another name": [("services/ml/Train.py", BODY, 0o644)],
    "no file": [],
}


@pytest.mark.parametrize("claimed", CLAIMED)
def test_an_archive_of_other_files_is_not_taken_for_the_content(root, claimed):
    entry = claim(root, retar(CLAIMED[claimed]))
    before = contents(root.store)
    root.deploy().failed(1, f"index/{entry.content_hash}.json", "that is false", "--repair")
    # This is what a local run does.
    with pytest.raises(UserError, match="that is false"):
        settle(FileStore(str(root.store)), str(root.dist), root.links["train"].bundle, False)
    assert contents(root.store) == before
    version = root.deploy("--repair", "--output", "json").ok().json["version"]
    assert entry.archive_hash not in json.dumps(root.version(version))
    assert "Nothing to do" in root.deploy().ok().out


@pytest.mark.parametrize("manifest", [b"{}\n", b"", "honest", "of the archive"])
def test_a_manifest_that_is_not_of_the_archive_proves_nothing(root, manifest):
    archive = retar(CLAIMED["other bytes"])
    if manifest == "honest":
        manifest = honest(root).to_json()
    elif manifest == "of the archive":  # it lists what is in there, under the content's hash
        [file] = honest(root).files
        files = (file._replace(sha256=hashlib.sha256(EVIL).hexdigest()),)
        changes = {"archive_hash": sha256_bytes(archive), "archive_size": len(archive)}
        manifest = dataclasses.replace(honest(root), files=files, **changes).to_json()
    claim(root, archive, manifest)
    root.deploy().failed(1, "that is false", "--repair")


def test_what_is_not_an_archive_is_none_of_the_content(root):
    claim(root, b"not an archive")
    root.deploy().failed(1, "that is false", "--repair")


def test_an_archive_of_the_same_files_by_another_program_is_used(root):
    entry = claim(root, retar([(PATH, BODY, 0o644)]))
    version = root.deploy("--output", "json").ok().json["version"]
    assert root.version(version)["tasks"][0]["bundle"]["archive_hash"] == entry.archive_hash


# --- records -------------------------------------------------------------------------------------


def rewrite(root, version, change):
    """Change a record, and make it the current one by a history entry of its own."""
    path = root.records() / "versions" / f"{version}.json"
    record = json.loads(path.read_bytes())
    change(record)
    path.chmod(0o644)
    path.write_text(json.dumps(record))
    entry = json.loads((root.records() / "history" / "1.json").read_bytes())
    entry.update(number=2, record=sha256_bytes(path.read_bytes()))
    (root.records() / "history" / "2.json").write_text(json.dumps(entry))


def another_image(record):
    record["tasks"][0]["image"] = "registry.example/evil:1"


def another_command(record):
    record["tasks"][0]["tasks"][0]["command"][-1] = "evil"


def another_task_version(record):
    record["tasks"][0]["tasks"][0]["version"] = "0" * 20


def another_content(record):
    record["tasks"][0]["bundle"]["content_hash"] = "0" * 64


@pytest.mark.parametrize(
    "change", [another_image, another_command, another_task_version, another_content]
)
def test_a_computed_version_stands_for_what_it_was_computed_of(root, change):
    version = root.deploy("--output", "json").ok().json["version"]
    rewrite(root, version, change)
    for typed in (("rollback", version), ("show", version), ("export", str(root.root / "usb"))):
        root.deploy(*typed).failed(1, "its version is that of another content")
    root.deploy("verify", "--no-image-check").failed(1)


def test_rollback_refuses_a_record_that_names_another_archive_for_its_content(root):
    root.deploy("--version", "v1").ok()
    evil = claim(root, retar(CLAIMED["other bytes"]))

    def other_archive(record):
        record["tasks"][0]["bundle"].update(json.loads(evil.to_json()))
        del record["tasks"][0]["bundle"]["schema"]

    rewrite(root, "v1", other_archive)
    root.deploy("rollback", "v1").failed(1, "another than its manifest says", "is false")


def test_a_version_that_looks_computed_cannot_be_named(root):
    root.deploy("--version", "0123456789abcdef0123").failed(1, "looks like those that are computed")


# --- what is remembered --------------------------------------------------------------------------


def test_facts_are_remembered_each_for_itself(tmp_path):
    remembered = Remembered(str(tmp_path / "a" / "checked"))
    assert not remembered.has("object", "1")
    remembered.add("object", "1")
    assert Remembered(str(tmp_path / "a" / "checked")).has("object", "1")
    for other in (("object", "2"), ("object1",), ("object", "1", ""), ()):
        assert not remembered.has(*other)


@pytest.mark.parametrize(
    ("below", "mode", "believed"),
    [
        ("", 0o755, True),
        ("", 0o1777, True),
        ("", 0o777, False),
        ("", 0o770, False),
        ("checked", 0o755, True),
        ("checked", 0o770, False),
        ("checked", 0o1777, False),
    ],
)
def test_what_others_may_have_written_is_not_believed(tmp_path, below, mode, believed):
    place = tmp_path / "cache"
    remembered = Remembered(str(place / "checked"))
    remembered.add("fact")
    (place / below).chmod(mode)
    assert remembered.has("fact") is believed


def test_without_a_place_nothing_is_remembered(tmp_path):
    (tmp_path / "file").write_text("")
    remembered = Remembered(str(tmp_path / "file" / "checked"))
    remembered.add("fact")
    assert not remembered.has("fact")
