"""`prune` removes what no version of any deployment needs, and nothing else, whoever deploys meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import time

import pytest

from flyte_pack.deploy.ledger import Ledger
from flyte_pack.deploy.prune import DAY, Prune
from flyte_pack.deploy.records import Provenance
from flyte_pack.errors import UserError
from flyte_pack.store import StoreError, blob_of
from flyte_pack.store.file import FileStore
from flyte_pack.store.opening import open_store
from tests.support.deploying import ADDRESS, BuildRoot, contents, killed_at, snapshot
from tests.support.object_stores import clean_environment, seaweedfs, unique

CONTENT = ("archives", "manifests", "index")
NOBODY = Provenance("2026-01-01T00:00:00Z", None, None)


@pytest.fixture
def root(tmp_path):
    root = BuildRoot(tmp_path)
    root.package("train", "v = 1\n")
    return root


def bundles(root):
    """Names of all archives, manifests and index entries."""
    return {
        f"{place}/{path.name}"
        for place in CONTENT
        if (root.store / place).exists()
        for path in (root.store / place).iterdir()
    }


def age(root, days, names=None):
    """Have been written that long ago, in the order they were: all of the store, or these."""
    paths = [path for path in root.store.rglob("*") if path.is_file()]
    for number, path in enumerate(sorted(paths, key=lambda path: path.stat().st_mtime_ns)):
        if names is None or str(path.relative_to(root.store)) in names:
            then = time.time() - days * DAY + number * 1e-3 - 1
            os.utime(path, (then, then))


def prune(root, *typed, code=0):
    done = root.deploy("prune", *typed, "--output", "json")
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    return done.json


def keys(document):
    return {one["key"] for one in document["objects"]}


def orphaned(root):
    """Deploy twice, and lose the record and history of the first one; what only that one needed."""
    before = bundles(root)
    root.deploy("--version", "old").ok()
    added = bundles(root) - before
    for place in ("versions", "history"):
        for path in (root.records() / place).iterdir():
            path.unlink()
    root.package("train", "v = 2\n")
    root.deploy("--version", "new").ok()
    return added


def test_what_is_needed_by_nobody_is_listed_with_its_size_and_stays(root):
    orphans = orphaned(root)
    age(root, 2)
    before = snapshot(root.store)
    document = prune(root)
    assert keys(document) == orphans
    assert document["dry_run"] is True
    assert {o["key"]: o["size"] for o in document["objects"]} == {
        key: (root.store / key).stat().st_size for key in orphans
    }
    done = root.deploy("prune").ok()
    assert "Would delete 3 objects (" in done.out
    assert "To do so, type --yes." in done.out
    assert snapshot(root.store) == before


def test_with_yes_it_is_deleted_and_all_else_stays(root):
    orphans = orphaned(root)
    age(root, 2)
    before = contents(root.store)
    document = prune(root, "--yes")
    assert all(one["deleted"] for one in document["objects"])
    assert contents(root.store) == {k: v for k, v in before.items() if k not in orphans}
    root.deploy("verify", "--all", "--no-image-check").ok()
    assert "Nothing to prune." in root.deploy("prune", "--yes").ok().out


def test_an_index_entry_goes_before_what_it_names(root):
    orphaned(root)
    age(root, 2)
    kinds = [one["kind"] for one in prune(root, "--yes")["objects"]]
    assert kinds == ["index", "archive", "manifest"]


def test_what_is_young_stays_for_now_and_how_young_can_be_typed(root):
    orphans = orphaned(root)
    assert keys(prune(root, "--yes")) == set()
    assert "3 more that nothing needs (" in root.deploy("prune", "--yes").ok().out
    age(root, 10)
    assert keys(prune(root, "--older-than", "30")) == set()
    assert keys(prune(root, "--older-than", "9")) == orphans
    assert keys(prune(root, "--older-than", "0")) == orphans


@pytest.mark.parametrize("young", CONTENT)
def test_a_bundle_is_as_young_as_the_youngest_of_its_parts(root, young):
    orphans = orphaned(root)
    age(root, 2)
    age(root, 0, {key for key in orphans if key.startswith(young)})
    document = prune(root)
    assert keys(document) == set()
    assert {one["key"] for one in document["young"]} == orphans


def test_what_another_deployment_of_the_store_needs_stays(root):
    orphans = orphaned(root)
    root.package("train", "v = 1\n")
    root.deploy("--version", "theirs", plan={"domain": "production"}).ok()
    age(root, 2)
    assert keys(prune(root)) == set()
    assert orphans <= bundles(root)


def test_what_a_deployer_at_work_has_just_recorded_stays(root):
    root.deploy("--version", "v1").ok()
    for path in (root.records() / "history").iterdir():
        path.unlink()
    age(root, 2)
    age(root, 0, {f"{root.records().relative_to(root.store)}/versions/v1.json"})
    assert keys(prune(root, "--keep", "1")) == set()


def test_files_that_are_none_of_ours_stay(root):
    orphaned(root)
    for name in ("archives/README", "index/notes.txt", "other/x"):
        (root.store / name).parent.mkdir(exist_ok=True)
        (root.store / name).write_text("not ours")
    age(root, 2)
    prune(root, "--yes")
    for name in ("archives/README", "index/notes.txt", "other/x"):
        assert (root.store / name).exists()


# --- whatever is not as expected stops it --------------------------------------------------------

HERE = "deployments/flytesnacks/development/services~.deploy"
V1, V3, FIRST, SECOND, LAST = (
    *(f"{HERE}/versions/{version}.json" for version in ("v1", "v3")),
    *(f"{HERE}/history/{number}.json" for number in (1, 2, 3)),
)


def moved(key, to):
    def change(objects):
        objects[to] = objects.pop(key)

    return change


def added(key, content=b"x"):
    return lambda objects: objects.update({key: content})


def lost(*keys):
    return lambda objects: [objects.pop(key) for key in keys]


def cut(key):
    return lambda objects: objects.update({key: objects[key][:-20]})


def field(key, name, value):
    def change(objects):
        document = json.loads(objects[key])
        document[name] = value
        objects[key] = json.dumps(document).encode()

    return change


def elsewhere(place):
    def change(objects):
        for key in [key for key in objects if key.startswith("deployments/")]:
            objects[key.replace(HERE, place)] = objects.pop(key)

    return change


def a_bundle_lost(directory):
    def change(objects):
        bundle = json.loads(objects[V3])["tasks"][0]["bundle"]
        del objects[bundle[directory]]

    return change


def index_entry(change):
    def changed(objects):
        change(next(key for key in sorted(objects) if key.startswith("index/")))(objects)

    return changed


# What is done to the objects of a store with three versions; and the key that the message names.
UNEXPECTED = {
    "a file at the top": (added("deployments/README"), "deployments/README"),
    "a hidden file": (added("deployments/p/.DS_Store"), "deployments/p/.DS_Store"),
    "a record one directory up": (moved(V1, f"{HERE}/v1.json"), f"{HERE}/v1.json"),
    "a record one directory down": (moved(V1, f"{HERE}/versions/a/v1.json"), "versions/a/v1.json"),
    "a record kept aside": (moved(V1, f"{V1}.bak"), f"{V1}.bak"),
    "a record without ending": (moved(V1, V1[:-5]), V1[:-5]),
    "a hidden record": (moved(V1, f"{HERE}/versions/.v1.json"), "versions/.v1.json"),
    "a capital ending": (moved(V1, f"{V1[:-5]}.JSON"), "v1.JSON"),
    "a capital directory": (moved(V1, f"{HERE}/Versions/v1.json"), "Versions/v1.json"),
    "another version's name": (moved(V1, f"{HERE}/versions/v9.json"), "v9.json"),
    "another domain": (elsewhere("deployments/flytesnacks/d/services~.deploy"), "flytesnacks/d/"),
    "another escape": (elsewhere("deployments/flytesnacks/development/services"), "/services/"),
    "one directory too few": (
        elsewhere("deployments/flytesnacks/services~.deploy"),
        "flytesnacks/",
    ),
    "one directory more": (elsewhere(f"deployments/old/{HERE[12:]}"), "deployments/old/"),
    "an empty record": (added(V1, b""), V1),
    "a truncated record": (cut(V1), V1),
    "a record that is not text": (added(V1, b"\xff\xfe{}"), V1),
    "a record of a newer schema": (field(V1, "schema", 2), V1),
    "a record with a new field": (field(V1, "owner", "x"), V1),
    "a record of another project": (field(V1, "project", "other"), V1),
    "a record of other bundles": (field(V1, "tasks", []), V1),
    "a record of another target": (field(V1, "address", "services:other"), V1),
    "history without its record": (lost(V3), V3),
    "history without any record": (lost(V1, V3, f"{HERE}/versions/v2.json"), V1),
    "a record without its history": (lost(LAST), V3),
    "records without any history": (lost(FIRST, SECOND, LAST), V1),
    "a gap in the history": (lost(SECOND), SECOND),
    "a truncated entry": (cut(LAST), LAST),
    "an empty entry": (added(FIRST, b""), FIRST),
    "an entry of another number": (field(FIRST, "number", 7), FIRST),
    "an entry of a newer schema": (field(LAST, "schema", 2), LAST),
    "an entry of an odd name": (moved(LAST, f"{HERE}/history/03.json"), "history/03.json"),
    "an entry that is no number": (added(f"{HERE}/history/latest.json"), "history/latest.json"),
    "an entry about another version": (field(LAST, "version", "v0"), "versions/v0.json"),
    "an entry about other bytes": (field(LAST, "record", "0" * 64), V3),
    "no deployments at all": (elsewhere("Deployments"), "no record of any deployment"),
    "a needed archive is missing": (a_bundle_lost("archive"), V3),
    "a needed manifest is missing": (a_bundle_lost("manifest"), V3),
    "a truncated index entry": (index_entry(cut), "index/"),
    "an index entry of another content": (
        index_entry(lambda key: moved(key, f"index/{'0' * 64}.json")),
        f"index/{'0' * 64}.json",
    ),
}


@pytest.fixture(scope="module")
def three_versions(tmp_path_factory):
    """The objects of a store with three versions."""
    root = BuildRoot(tmp_path_factory.mktemp("three"))
    root.package("train", "v = 1\n")
    deploy_each(root, "v1", "v2", "v3")
    files = [path for path in root.store.rglob("*") if path.is_file() and ".tmp" not in path.parts]
    return {str(path.relative_to(root.store)): path.read_bytes() for path in files}


@pytest.fixture(params=["file", "s3"])
def other_store(request, tmp_path, monkeypatch):
    if request.param == "file":
        return FileStore(str(tmp_path / "store"))
    clean_environment(monkeypatch)
    real = seaweedfs()
    for name, value in real.env.items():
        monkeypatch.setenv(name, value)
    return open_store(f"{real.uri}/{unique()}", "/")


def pruned(store, keep=1):
    """Prune it; nothing counts as young."""
    ledger = Ledger(store, "flytesnacks", "development", ADDRESS)
    pruning = Prune(store, ledger, keep, time.time() + 60)
    return pruning.carry_out(pruning.plan(), [].append)


@pytest.mark.parametrize("way", UNEXPECTED)
def test_what_is_not_as_expected_stops_it_before_anything_goes(other_store, three_versions, way):
    change, named = UNEXPECTED[way]
    objects = dict(three_versions)
    change(objects)
    for key, content in objects.items():
        other_store.create(blob_of(key, content), [content])
    with pytest.raises(UserError) as raised:
        pruned(other_store)
    assert named in str(raised.value)
    assert "nothing is pruned: " in str(raised.value)
    for key, content in objects.items():
        assert other_store.read(key, 1 << 20) == content


def test_the_same_store_as_it_should_be_is_pruned(other_store, three_versions):
    for key, content in three_versions.items():
        other_store.create(blob_of(key, content), [content])
    deleted, problems = pruned(other_store)
    assert (len(deleted), problems) == (10, [])


def test_it_stops_by_the_command_too_with_yes_or_without(root):
    orphaned(root)
    age(root, 2)
    (root.store / "deployments/README").write_text("x")
    before = snapshot(root.store)
    for typed in (("prune",), ("prune", "--yes"), ("prune", "--keep", "1", "--yes")):
        root.deploy(*typed).failed(1, "deployments/README", "nothing is pruned")
    assert snapshot(root.store) == before


def a_link_to_a_record(records):
    aside = records.parent.parent.parent.parent.parent / "aside"
    (records / "v1.json").rename(aside)
    (records / "v1.json").symlink_to(aside)


def a_link_to_all_records(records):
    aside = records.parent.parent.parent.parent.parent / "aside"
    records.rename(aside)
    records.symlink_to(aside)


def a_directory_as_a_record(records):
    (records / "v1.json").unlink()
    (records / "v1.json").mkdir()


def a_pipe_as_a_record(records):
    (records / "v1.json").unlink()
    os.mkfifo(records / "v1.json")


def from_the_future(records):
    os.utime(records / "v1.json", (time.time() + DAY, time.time() + DAY))


@pytest.mark.parametrize(
    "change",
    [
        a_link_to_a_record,
        a_link_to_all_records,
        a_directory_as_a_record,
        a_pipe_as_a_record,
        from_the_future,
    ],
)
def test_what_a_directory_must_not_hold_stops_it(root, change):
    deploy_each(root, "v1", "v2")
    change(root.records() / "versions")
    before = bundles(root)
    done = root.deploy("prune", "--keep", "1", "--yes").failed(1, "versions")
    assert "nothing is pruned" in done.err
    assert bundles(root) == before


def test_a_listing_that_fails_stops_it_and_one_that_leaves_a_record_out_loses_nothing(root):
    deploy_each(root, "v1", "v2", "v3")
    needed = bundles(root)

    class Flaky(FileStore):
        """What no server here can be made to do: listings that fail or end early."""

        def objects(self, prefix):
            found = super().objects(prefix)
            if prefix == "deployments":
                self.listings = getattr(self, "listings", 0) + 1
                if self.listings == self.fails:
                    raise StoreError("the answer was cut short")
                if self.listings > 3:
                    return found[:1]
            return found

    age(root, 2)
    store = Flaky(str(root.store))
    for store.fails in (1, 2, 3):
        store.listings = 0
        with pytest.raises(StoreError):
            pruned(store)
    assert bundles(root) == needed
    store.fails, store.listings = 0, 0
    pruned(store, keep=2)
    root.deploy("verify", "--all", "--no-image-check").ok()


# --- keep ----------------------------------------------------------------------------------------


def deploy_each(root, *versions):
    for number, version in enumerate(versions):
        root.package("train", f"v = {version!r}\n")
        root.deploy("--version", version).ok()
        age(root, 100 - number)


def versions(root):
    return {path.stem for path in (root.records() / "versions").iterdir()}


def test_keep_drops_all_but_the_last_versions_with_their_history_and_bundles(root):
    deploy_each(root, "v1", "v2", "v3", "v4")
    document = prune(root, "--keep", "2", "--yes")
    assert sorted(document["versions"]) == ["v1", "v2"]
    assert [one["kind"] for one in document["objects"]] == [
        *["history"] * 2,
        *["record"] * 2,
        *["index"] * 2,
        *["archive"] * 2,
        *["manifest"] * 2,
    ]
    assert versions(root) == {"v3", "v4"}
    assert len(bundles(root)) == 6
    assert sorted(os.listdir(root.records() / "history")) == ["3.json", "4.json"]
    root.deploy("verify", "--all", "--no-image-check").ok()
    root.deploy("rollback", "v3").ok()
    assert sorted(os.listdir(root.records() / "history")) == ["3.json", "4.json", "5.json"]


def test_the_last_versions_are_those_that_were_current_last(root):
    deploy_each(root, "v1", "v2", "v3")
    root.deploy("rollback", "v1").ok()
    age(root, 50)
    prune(root, "--keep", "2", "--yes")
    assert versions(root) == {"v1", "v3"}
    assert sorted(os.listdir(root.records() / "history")) == ["3.json", "4.json"]
    root.deploy("verify", "--all", "--no-image-check").ok()


def test_the_current_version_always_stays(root):
    deploy_each(root, "v1", "v2")
    prune(root, "--keep", "1", "--yes")
    assert versions(root) == {"v2"}
    prune(root, "--keep", "1", "--older-than", "0", "--yes")
    assert versions(root) == {"v2"}


def test_a_version_that_was_current_lately_stays_with_all_that_came_after_it(root):
    deploy_each(root, "v1", "v2", "v3", "v4")
    age(root, 0, {f"{root.records().relative_to(root.store)}/history/2.json"})
    prune(root, "--keep", "1", "--yes")
    assert versions(root) == {"v2", "v3", "v4"}
    root.deploy("verify", "--all", "--no-image-check").ok()


def test_keep_is_about_this_deployment_only(root):
    deploy_each(root, "v1", "v2")
    for version in ("v1", "v2"):
        root.deploy("--version", version, plan={"domain": "production"}).ok()
    age(root, 50)
    prune(root, "--keep", "1", "--yes")
    production = root.records("production")
    assert {path.stem for path in (production / "versions").iterdir()} == {"v1", "v2"}
    root.deploy("verify", "--all", "--no-image-check", plan={"domain": "production"}).ok()


# --- a deployer at work --------------------------------------------------------------------------


class Meddled(FileStore):
    """A real store in which somebody else does something right before, or after, an object is deleted."""

    def __init__(self, path, when, what):
        super().__init__(str(path))
        self._when, self._what = when, what

    def delete(self, key):
        before, prefix = self._when
        meddle = key.startswith(prefix) and self._what is not None
        if meddle and before:
            self._meddle()
        super().delete(key)
        if meddle and not before:
            self._meddle()

    def _meddle(self):
        what, self._what = self._what, None
        what()


def run(root, when, what, keep=None):
    store = Meddled(root.store, when, what)
    ledger = Ledger(store, "flytesnacks", "development", ADDRESS)
    pruning = Prune(store, ledger, keep, time.time() - DAY)
    plan = pruning.plan()
    return plan, pruning.carry_out(plan, [].append)


@pytest.mark.parametrize("before", [True, False])
def test_a_deployer_who_finds_the_index_entry_before_it_goes_keeps_the_bundle(root, before):
    root.deploy("--version", "old").ok()
    record = next((root.records() / "versions").iterdir())
    kept = record.read_bytes()
    record.unlink()
    for path in (root.records() / "history").iterdir():
        path.unlink()
    root.package("train", "v = 2\n")
    root.deploy("--version", "new").ok()
    wanted = bundles(root)
    age(root, 2)

    def finishes():  # it has seen the bundle in the store, and writes its record
        record.write_bytes(kept)

    _, done = run(root, (before, "index/"), finishes)
    assert bundles(root) == wanted
    assert done == ([], [])
    root.deploy("verify", "old", "--no-image-check").ok()


def test_a_deployer_who_comes_after_the_index_entry_went_writes_it_anew_and_keeps_the_bundle(root):
    orphans = orphaned(root)
    age(root, 2)

    def deploys():
        root.package("train", "v = 1\n")
        root.deploy("--version", "again").ok()

    run(root, (False, "index/"), deploys)
    assert orphans <= bundles(root)
    root.deploy("verify", "--all", "--no-image-check").ok()


@pytest.mark.parametrize(
    "lost", [{"index"}, {"index", "archives"}, {"index", "archives", "manifests"}]
)
def test_a_deployer_whose_bundle_goes_before_it_is_named_writes_it_anew(root, lost):
    wanted = bundles(root)
    orphans = orphaned(root)
    root.package("train", "v = 1\n")

    def pruned_right_before_the_record_is_written():
        create = FileStore.create

        def meddled(store, blob, content):
            FileStore.create = create if "/versions/" in blob.key else meddled
            for key in orphans if "/versions/" in blob.key else ():
                if key.partition("/")[0] in lost:
                    store.delete(key)
            return create(store, blob, content)

        FileStore.create = meddled

    root.deploy("--version", "again", first=pruned_right_before_the_record_is_written).ok()
    assert orphans | wanted <= bundles(root)
    root.deploy("verify", "--all", "--no-image-check").ok()


def test_a_deployer_who_names_it_in_the_last_instant_is_reported_and_writes_it_anew(root):
    orphaned(root)
    age(root, 2)
    record = root.records() / "versions" / "late.json"

    def writes_its_record():
        (current,) = (root.records() / "versions").iterdir()
        document = json.loads(current.read_bytes())
        document["version"] = "late"
        bundle = document["tasks"][0]["bundle"]
        other = next(
            n for n in os.listdir(root.store / "archives") if bundle["archive"] != f"archives/{n}"
        )
        bundle["archive"], bundle["archive_hash"] = f"archives/{other}", other[:64]
        record.write_text(json.dumps(document))

    _, (_, problems) = run(root, (True, "archives/"), writes_its_record)
    assert len(problems) == 1
    assert "deploy that again" in problems[0]


@pytest.mark.parametrize("before", [True, False])
def test_a_version_that_is_rolled_back_to_while_it_goes_stays(root, before):
    deploy_each(root, "v1", "v2")
    key = f"{root.records().relative_to(root.store)}/versions/v1"
    kept = (root.records() / "versions" / "v1.json").read_bytes()

    def rolls_back():
        ledger = Ledger(FileStore(str(root.store)), "flytesnacks", "development", ADDRESS)
        lost = not (root.records() / "versions" / "v1.json").exists()
        if lost:
            (root.records() / "versions" / "v1.json").write_bytes(kept)
        ledger.append("rollback", ledger.recorded("v1"), NOBODY)
        if lost:
            (root.records() / "versions" / "v1.json").unlink()

    run(root, (before, key), rolls_back, keep=1)
    assert versions(root) == {"v1", "v2"}
    assert sorted(os.listdir(root.records() / "history")) == ["2.json", "3.json"]
    root.deploy("verify", "--all", "--no-image-check").ok()


def test_killed_anywhere_it_leaves_what_is_needed_whole_and_the_next_run_does_the_rest(root):
    deploy_each(root, "v1", "v2", "v3")
    backup = root.root / "backup"
    shutil.copytree(root.store, backup)
    typed = ("prune", "--keep", "1", "--yes")
    for step in itertools.count(1):
        done = root.deploy(*typed, first=killed_at(step))
        root.deploy("verify", "v3", "--no-image-check").ok()
        root.deploy("list").ok()
        if done.code == 0:
            break
        assert done.code == -signal.SIGKILL
        root.deploy(*typed).ok()
        assert versions(root) == {"v3"}
        assert len(bundles(root)) == 3
        shutil.rmtree(root.store)
        shutil.copytree(backup, root.store)
    assert step > 10


def test_two_who_prune_at_once_both_succeed(root):
    orphans = orphaned(root)
    age(root, 2)
    run(root, (True, "index/"), lambda: prune(root, "--yes"))
    assert not orphans & bundles(root)


def test_prune_stops_before_anything_goes_where_a_record_becomes_unreadable(root):
    orphans = orphaned(root)
    age(root, 2)
    store = FileStore(str(root.store))
    pruning = Prune(
        store, Ledger(store, "flytesnacks", "development", ADDRESS), None, time.time() - DAY
    )
    plan = pruning.plan()
    (root.records() / "versions" / "odd.json").write_text("{}")
    with pytest.raises(UserError, match="nothing is pruned"):
        pruning.carry_out(plan, [].append)
    assert orphans <= bundles(root)
